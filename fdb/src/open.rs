//! Opening a file: created if need be, checked, locked, mapped, recovered.

use std::fs::{File, OpenOptions as FileOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{OpenError, OpenFault};
use crate::file::Fdb;
use crate::forgotten;
use crate::grow::reserve;
use crate::index::Index;
use crate::kind::FileKind;
use crate::layout::{
    DATA_START, EXTENT_BYTES, EXTENT_RECORDS, EXTENTS_LIMIT, MAGIC, PARTITIONS, RECORDS_MAX_LIMIT,
    SUPERBLOCK_SALT, WORD_BYTES, checked_count, count_of, extent_offset, header, header_offset,
    length_needed, map_length, mark_of, superblock as word,
};
use crate::map::{Map, Pen};
use crate::partition::Partition;
use crate::recover::{Scan, scan};
use crate::seqlock::{Load, Word};
use crate::superblock::{BYTES, Superblock};

/// How to open a file for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Most records (heads and chain records) a partition may have, at most [`RECORDS_MAX_LIMIT`]; rounded up to a
    /// multiple of 512. A file that has more keeps what it has.
    pub records_max: u32,
    /// Threads that recovery uses; 0: as many as there are cores.
    pub threads: usize,
    /// The secret hash key that a new file gets, and that a file must have; `None`: a new file gets one by chance, and any
    /// will do. Files that belong together share one.
    pub hash_key: Option<[u64; 2]>,
}

/// A file open for writing.
#[derive(Debug)]
pub struct Opened {
    /// The file, for all.
    pub file: Arc<Fdb>,
    /// Its 64 writers, in order. Dropping them closes nothing; the lock on the file ends with the last of `file`.
    pub partitions: Vec<Partition>,
    /// What was found.
    pub recovery: Recovery,
}

/// What opening a file found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The file was not there and was made.
    pub created: bool,
    /// The last writer closed the file, or there was none.
    pub clean: bool,
    /// Head records that are there.
    pub records: u64,
    /// Records that were damaged (by a power cut or the disk, never by a kill) and were dropped: heads, and chain records, which may
    /// have been heads.
    pub torn_dropped: u64,
    /// Updates that were interrupted half-way and were finished from their redo image.
    pub redone: u64,
    /// Whole chain records that no head names and that were freed.
    pub orphans_freed: u64,
    /// Extents that a power cut took before their first sync: counted, but beyond the end of the file; or holding something,
    /// but not counted.
    pub extents_lost: u64,
    /// How often the file was opened for writing, this time included.
    pub boots: u64,
    /// The file was in use when the machine went down, so what was not synced may be missing or older than it was.
    pub machine_died: bool,
    /// The last heartbeat or a time since when something is undelivered was damaged.
    pub marks_damaged: bool,
    /// Wall clock of the last heartbeat, Unix milliseconds; 0: there was none, or it is damaged.
    pub last_heartbeat_ms: u64,
    /// How long opening took.
    pub elapsed: Duration,
}

impl Recovery {
    /// Whether all is there that was ever stored: then the file is as the last writer left it. Else records may be missing, or
    /// be older than others that were stored before them.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        !self.machine_died && !self.marks_damaged && self.torn_dropped == 0 && self.extents_lost == 0
    }
}

impl Fdb {
    /// Opens a file for writing and recovers it; makes it if it is not there. One process at a time may do so.
    ///
    /// # Errors
    /// [`OpenError`], which says what is wrong and what to do. No record was changed then.
    pub fn open(path: &Path, kind: FileKind, options: &OpenOptions) -> Result<Opened, OpenError> {
        open(path, kind, options).map_err(|fault| OpenError { path: path.to_owned(), fault })
    }

    /// Opens a file of either kind for reading, also while another process writes it. Takes no lock.
    ///
    /// # Errors
    /// [`OpenError`], which says what is wrong and what to do.
    pub fn open_reader(path: &Path) -> Result<Arc<Self>, OpenError> {
        open_reader(path).map_err(|fault| OpenError { path: path.to_owned(), fault })
    }
}

fn open(path: &Path, kind: FileKind, options: &OpenOptions) -> Result<Opened, OpenFault> {
    let start = Instant::now();
    if options.records_max == 0 || options.records_max > RECORDS_MAX_LIMIT {
        return Err(OpenFault::RecordsMax { found: options.records_max });
    }
    let file = FileOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // The hash key is secret.
        .mode(0o600)
        .open(path)
        .map_err(io_fault("opening for writing"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        Errno::WOULDBLOCK => OpenFault::Locked,
        errno => OpenFault::Io { doing: "locking", source: errno.into() },
    })?;
    let created = is_blank(&file).map_err(io_fault("reading"))?;
    if created {
        create(&file, path, kind, options.hash_key).map_err(io_fault("creating"))?;
    }
    let state = Geometry::read(&file, Some(kind))?;
    if options.hash_key.is_some_and(|key| key != state.superblock.hash_key) {
        return Err(OpenFault::HashKey);
    }
    let length = file.metadata().map_err(io_fault("reading the length"))?.len();
    let extents = state.extents_present(length)?;
    let wanted = options.records_max.div_ceil(EXTENT_RECORDS);
    let extents_max = extents.iter().copied().fold(wanted, u32::max);
    let forgotten = if state.superblock.clean {
        0
    } else {
        forgotten::empty(&file, &extents, length).map_err(io_fault("clearing what is not counted"))?
    };
    // A copy of the file may have holes where this one had reserved space.
    for (offset, length) in runs(&extents) {
        match reserve(&file, offset, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => {
                return Err(OpenFault::Io { doing: "reserving disk space", source: errno.into() });
            }
        }
    }
    let (map, pens) = Map::writable(&file, map_length(extents_max)).map_err(io_fault("mapping"))?;
    map.populate_write(0, DATA_START).map_err(io_fault("reading"))?;
    let fdb = Arc::new(Fdb {
        map,
        file,
        path: path.to_owned(),
        kind,
        hash_key: state.superblock.hash_key,
        extents_max,
        writer: true,
        machine_boot: machine_boot(),
        indexes: (0..PARTITIONS).map(|_| Index::new()).collect(),
    });
    let boots = state.superblock.boots.saturating_add(1);
    fdb.begin(&state, &extents, boots);
    let scans = scan_all(&fdb, pens, options.threads).map_err(io_fault("reading"))?;
    let mut recovery = Recovery {
        created,
        clean: state.superblock.clean,
        extents_lost: forgotten
            + state.extents.iter().zip(&extents).map(|(then, now)| u64::from(then - now)).sum::<u64>(),
        boots,
        machine_died: !state.superblock.clean
            && (fdb.machine_boot == 0 || fdb.machine_boot != state.superblock.machine_boot),
        marks_damaged: state.superblock.heartbeat_ms.is_none() || fdb.has_damaged_marks(),
        last_heartbeat_ms: state.superblock.heartbeat_ms.unwrap_or(0),
        ..Recovery::default()
    };
    let mut partitions = Vec::with_capacity(PARTITIONS);
    for (pen, scan) in scans {
        recovery.records += u64::from(scan.records);
        recovery.torn_dropped += scan.torn_dropped;
        recovery.redone += u64::from(scan.redone);
        recovery.orphans_freed += scan.orphans_freed;
        partitions.push(Partition::new(Arc::clone(&fdb), pen, scan.free, scan.records));
    }
    // Where something is missing and the process dies before its first heartbeat, the next one has to know as well.
    let boot = if recovery.is_complete() { fdb.machine_boot } else { 0 };
    Word::set(&fdb.map.cells::<{ word::WORDS }>(0)[word::MACHINE_BOOT], boot);
    recovery.elapsed = start.elapsed();
    Ok(Opened { file: fdb, partitions, recovery })
}

fn open_reader(path: &Path) -> Result<Arc<Fdb>, OpenFault> {
    let file = File::open(path).map_err(io_fault("opening for reading"))?;
    let state = Geometry::read(&file, None)?;
    // The counts were read first: the file is at least as long as they say, for it grows before they do.
    let length = file.metadata().map_err(io_fault("reading the length"))?.len();
    state.check_length(length, &state.extents)?;
    let extents_max = state.extents.iter().copied().fold(state.superblock.extents_max, u32::max);
    let map = Arc::new(Map::read_only(&file, map_length(extents_max)).map_err(io_fault("mapping"))?);
    Ok(Arc::new(Fdb {
        map,
        file,
        path: path.to_owned(),
        kind: state.superblock.kind,
        hash_key: state.superblock.hash_key,
        extents_max,
        writer: false,
        machine_boot: 0,
        indexes: (0..PARTITIONS).map(|_| Index::new()).collect(),
    }))
}

impl Fdb {
    /// Marks the file as in use, and stores the counts as they hold from now on.
    fn begin(&self, state: &Geometry, extents: &[u32; PARTITIONS], boots: u64) {
        let cells = self.map.cells::<{ word::WORDS }>(0);
        Word::set(&cells[word::CLEAN], 0);
        Word::set(&cells[word::BOOTS], boots);
        Word::set(&cells[word::EXTENTS_MAX], checked_count(self.extents_max, SUPERBLOCK_SALT));
        for (partition, (&then, &now)) in state.extents.iter().zip(extents).enumerate() {
            if then != now {
                let cells = self.header_cells(partition as u8);
                Word::set(&cells[header::EXTENTS], checked_count(now, partition as u32));
            }
        }
        AtomicU64::release();
    }

    fn has_damaged_marks(&self) -> bool {
        (0..PARTITIONS as u8).any(|partition| {
            mark_of(self.header(partition)[header::UNDELIVERED].get(), partition.into()).is_none()
        })
    }
}

/// Identity of this boot of the machine; 0: the system does not tell. What a process left in the page cache is there until the
/// machine goes down, and until then this stays the same.
fn machine_boot() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits = text.chars().filter_map(|digit| digit.to_digit(16));
    digits.take(16).fold(0, |number, digit| number << 4 | u64::from(digit))
}

/// What superblock and partition headers say, checked.
struct Geometry {
    superblock: Superblock,
    extents: [u32; PARTITIONS],
    synced: [u32; PARTITIONS],
}

impl Geometry {
    fn read(file: &File, expected: Option<FileKind>) -> Result<Self, OpenFault> {
        let mut bytes = [0; BYTES];
        let found = read_up_to(file, &mut bytes, 0).map_err(io_fault("reading"))?;
        if found < BYTES && (found == 0 || bytes.starts_with(&MAGIC.to_le_bytes())) {
            return Err(OpenFault::Truncated { found: found as u64, expected: DATA_START });
        }
        let superblock = Superblock::decode(&bytes, expected)?;
        let mut state = Self { superblock, extents: [0; PARTITIONS], synced: [0; PARTITIONS] };
        for partition in 0..PARTITIONS as u8 {
            let salt = u32::from(partition);
            for (counts, at) in [(&mut state.synced, header::SYNCED), (&mut state.extents, header::EXTENTS)] {
                let mut bytes = [0; WORD_BYTES];
                let offset = header_offset(partition) + (at * WORD_BYTES) as u64;
                file.read_exact_at(&mut bytes, offset).map_err(|error| {
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        let found = file.metadata().map_or(0, |metadata| metadata.len());
                        OpenFault::Truncated { found, expected: DATA_START }
                    } else {
                        OpenFault::Io { doing: "reading", source: error }
                    }
                })?;
                let count = count_of(u64::from_le_bytes(bytes), salt)
                    .ok_or(OpenFault::PartitionChecksum { partition })?;
                if count > EXTENTS_LIMIT {
                    return Err(OpenFault::Geometry {
                        what: "extents of a partition",
                        found: count.into(),
                        expected: EXTENTS_LIMIT.into(),
                    });
                }
                counts[usize::from(partition)] = count;
            }
        }
        Ok(state)
    }

    /// The extents of each partition that lie inside a file of `length` bytes.
    ///
    /// After a power cut an extent may be counted whose room the file system forgot, if both are younger than the last
    /// sync: such an extent is given up. A file that lacks what once was synced was cut short by someone.
    fn extents_present(&self, length: u64) -> Result<[u32; PARTITIONS], OpenFault> {
        let must = if self.superblock.clean { &self.extents } else { &self.synced };
        self.check_length(length, must)?;
        Ok(std::array::from_fn(|partition| {
            let mut extents = self.extents[partition];
            while length_needed(partition as u8, extents) > length {
                extents -= 1;
            }
            extents
        }))
    }

    fn check_length(&self, found: u64, extents: &[u32; PARTITIONS]) -> Result<(), OpenFault> {
        let needed =
            extents.iter().enumerate().map(|(partition, &n)| length_needed(partition as u8, n)).max();
        match needed {
            Some(expected) if found < expected => Err(OpenFault::Truncated { found, expected }),
            _ => Ok(()),
        }
    }
}

/// Whether there is nothing in the file: it was just made, or its making was interrupted before the superblock, which
/// comes last.
fn is_blank(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    if length > DATA_START {
        return Ok(false);
    }
    let mut bytes = vec![0; DATA_START as usize];
    read_up_to(file, &mut bytes, 0)?;
    for partition in 0..PARTITIONS as u8 {
        let none = checked_count(0, u32::from(partition)).to_le_bytes();
        for at in [header::EXTENTS, header::SYNCED] {
            let start = header_offset(partition) as usize + at * WORD_BYTES;
            let count = &mut bytes[start..start + WORD_BYTES];
            if *count == none {
                count.fill(0);
            }
        }
    }
    Ok(bytes.iter().all(|&byte| byte == 0))
}

fn create(file: &File, path: &Path, kind: FileKind, hash_key: Option<[u64; 2]>) -> io::Result<()> {
    file.set_len(DATA_START)?;
    match reserve(file, 0, DATA_START) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) => return Err(errno.into()),
    }
    for partition in 0..PARTITIONS as u8 {
        let none = checked_count(0, u32::from(partition)).to_le_bytes();
        for at in [header::EXTENTS, header::SYNCED] {
            file.write_all_at(&none, header_offset(partition) + (at * WORD_BYTES) as u64)?;
        }
    }
    file.sync_all()?;
    let hash_key = match hash_key {
        Some(key) => key,
        None => {
            let mut key = [0; 16];
            getrandom::fill(&mut key)?;
            let key = u128::from_le_bytes(key);
            [key as u64, (key >> 64) as u64]
        }
    };
    let superblock = Superblock {
        kind,
        hash_key,
        extents_max: 0,
        clean: true,
        boots: 0,
        heartbeat_ms: Some(0),
        machine_boot: 0,
    };
    file.write_all_at(&superblock.encode(), 0)?;
    file.sync_all()?;
    // The name of a new file is durable once its folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Recovers all partitions, `threads` at a time; gives them in the order of their numbers.
fn scan_all(file: &Fdb, pens: Vec<Pen>, threads: usize) -> io::Result<Vec<(Pen, Scan)>> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if threads == 0 { cores() } else { threads }.min(PARTITIONS);
    let pens = Mutex::new(pens.into_iter());
    let next = || pens.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> io::Result<Vec<(Pen, Scan)>> {
        let mut scans = Vec::new();
        while let Some(mut pen) = next() {
            let scan = scan(file, &mut pen)?;
            scans.push((pen, scan));
        }
        Ok(scans)
    };
    let mut scans = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut scans = work()?;
        for other in others {
            scans.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, io::Error>(scans)
    })?;
    scans.sort_unstable_by_key(|(pen, _)| pen.partition());
    Ok(scans)
}

/// The byte ranges of extents in use, neighbours joined.
fn runs(extents: &[u32; PARTITIONS]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for extent in 0..extents.iter().copied().max().unwrap_or(0) {
        for (partition, _) in extents.iter().enumerate().filter(|(_, count)| **count > extent) {
            let offset = extent_offset(partition as u8, extent);
            match runs.last_mut() {
                Some((start, length)) if *start + *length == offset => *length += EXTENT_BYTES,
                _ => runs.push((offset, EXTENT_BYTES)),
            }
        }
    }
    runs
}

/// Reads at `offset` until `bytes` are full or the file is at its end.
pub(crate) fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut found = 0;
    while found < bytes.len() {
        match file.read_at(&mut bytes[found..], offset + found as u64) {
            Ok(0) => break,
            Ok(count) => found += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn io_fault(doing: &'static str) -> impl Fn(io::Error) -> OpenFault {
    move |source| OpenFault::Io { doing, source }
}
