//! Extents that hold something and are not counted: a power cut took their count and left their records.
//!
//! What they hold was lost to the start after that cut, and must stay lost. Were it cleared no earlier than the extent is used
//! again, in memory, the next power cut could leave the new count and the old page: records would rise that nobody has known
//! of for the life of a whole process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::layout::{EXTENT_BYTES, PARTITIONS, extent_offset};
use crate::open::read_up_to;

/// What is read at a time.
const PAGE_BYTES: usize = 4096;

/// Empties the extents that lie in a file of `length` bytes beyond those that `counted` says are in use, on disk when this
/// returns. Gives the number of those that were not empty.
pub(crate) fn empty(file: &File, counted: &[u32; PARTITIONS], length: u64) -> io::Result<u64> {
    let mut emptied = 0;
    for (partition, &extents) in counted.iter().enumerate() {
        let beyond = (extents..).map(|extent| extent_offset(partition as u8, extent));
        for offset in beyond.take_while(|&offset| offset < length) {
            if !is_empty(file, offset)? {
                clear(file, offset, EXTENT_BYTES.min(length - offset))?;
                emptied += 1;
            }
        }
    }
    if emptied > 0 {
        file.sync_all()?;
    }
    Ok(emptied)
}

/// Whether an extent, as far as the file has it, is zeros.
fn is_empty(file: &File, offset: u64) -> io::Result<bool> {
    let mut page = [0; PAGE_BYTES];
    for at in (offset..offset + EXTENT_BYTES).step_by(PAGE_BYTES) {
        let found = read_up_to(file, &mut page, at)?;
        if page[..found].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn clear(file: &File, offset: u64, length: u64) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length) {
            Err(Errno::INTR) => {}
            // A file system that cannot make holes has the room already.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                return file.write_all_at(&vec![0; length as usize], offset);
            }
            other => return Ok(other?),
        }
    }
}
