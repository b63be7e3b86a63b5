//! Growing a file by whole extents, so that a full disk is an error value and never a signal.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::error::Full;
use crate::file::Fdb;
use crate::layout::{EXTENT_BYTES, EXTENT_RECORDS, RECORD_BYTES, extent_offset};
use crate::map::Pen;

/// Reserves extent `extent` of the pen's partition on disk and in memory, all its slots free: the opening left nothing in
/// extents that are not counted ([`forgotten`](crate::forgotten)). The caller counts it afterwards.
pub(crate) fn extent(file: &Fdb, pen: &mut Pen, extent: u32) -> Result<(), Full> {
    let offset = extent_offset(pen.partition(), extent);
    match reserve(&file.file, offset, EXTENT_BYTES) {
        // A file system without fallocate: written zeros are reserved as well. Nothing counts this extent yet.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = [0; RECORD_BYTES];
            for slot in 0..u64::from(EXTENT_RECORDS) {
                file.file
                    .write_all_at(&zeros, offset + slot * RECORD_BYTES as u64)
                    .map_err(|error| Full::Disk(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())))?;
            }
        }
        other => other.map_err(|errno| Full::Disk(errno.raw_os_error()))?,
    }
    pen.populate(extent)
        .map_err(|error| Full::Disk(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())))?;
    Ok(())
}

/// Reserves disk space for a range; what the range holds stays.
pub(crate) fn reserve(file: &File, offset: u64, length: u64) -> Result<(), Errno> {
    loop {
        match fallocate(file, FallocateFlags::empty(), offset, length) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
