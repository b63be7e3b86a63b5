//! What the disk has of the files, and what a power cut leaves of them.
//!
//! A sync brings all pages of a file to disk. Until the next one the kernel may write back any of them at any moment, in any
//! order, so after a power cut each page is as it was at one of those moments; a page that was being written is of several, sector
//! by sector; and one that was written back in the middle of a change holds a sector of which some words are old and some new.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use comsipl_core::Chance;
use comsipl_fdb::{FileKind, PARTITIONS};

/// What a page holds.
type Page = [u8; PAGE];

/// A file as it was at a moment; pages that are not named are zeros.
#[derive(Debug)]
struct Image {
    len: u64,
    pages: BTreeMap<u64, Box<Page>>,
}

/// What may be on disk of both files.
#[derive(Debug)]
pub(super) struct Disk {
    /// The last moment at which all was on disk.
    pub(super) synced_at: Duration,
    files: Vec<(PathBuf, Vec<Image>)>,
}

impl Disk {
    /// All that is in the files at `now` is on disk.
    pub(super) fn synced(dir: &Path, now: Duration) -> io::Result<Self> {
        let files = [FileKind::Registered, FileKind::Presence].map(|kind| dir.join(kind.file_name()));
        let files = files.into_iter().map(|path| Ok((path.clone(), vec![Image::of(&path)?])));
        Ok(Self { synced_at: now, files: files.collect::<io::Result<_>>()? })
    }

    /// Any page that changed since may be on disk as it is now.
    pub(super) fn write_back(&mut self) -> io::Result<()> {
        for (path, images) in &mut self.files {
            images.push(Image::of(path)?);
        }
        Ok(())
    }

    /// The superblocks are on disk as they are now, and nothing else has come there for it.
    pub(super) fn superblocks_are_synced(&mut self) -> io::Result<()> {
        for (path, images) in &mut self.files {
            let now = Image::of(path)?;
            images.iter_mut().for_each(|image| {
                image.pages.insert(0, Box::new(*now.page(0)));
            });
        }
        Ok(())
    }

    /// The machine goes down: the files are what is on disk.
    pub(super) fn cut(mut self, all_is_lost: bool, chance: &mut Chance) -> io::Result<()> {
        self.write_back()?;
        for (path, images) in &self.files {
            let fashion = if all_is_lost { Fashion::NOTHING } else { Fashion::draw(chance) };
            let file = OpenOptions::new().write(true).open(path)?;
            let newest = images.last().expect("just written");
            let len = images[fashion.pick(images.len(), chance)].len;
            // What was reserved since the last sync may be forgotten.
            file.set_len(len)?;
            for &offset in newest.pages.keys().filter(|&&offset| offset < len) {
                let now = newest.page(offset);
                let page = on_disk(images, offset, &fashion, chance);
                if page != *now {
                    file.write_all_at(&page[..in_file(len, offset)], offset)?;
                }
            }
            // When it is opened next, that is another boot of the machine.
            file.write_all_at(&[0; 8], MACHINE_BOOT)?;
        }
        Ok(())
    }
}

/// How much the kernel had written back.
struct Fashion {
    /// Of a hundred pages, how many are as at the last sync, and how many as at the end.
    oldest: u32,
    newest: u32,
    /// One in so many pages that have changed is of several moments; zero: none is.
    torn_one_in: u32,
}

impl Fashion {
    /// Nothing since the last sync.
    const NOTHING: Self = Self { oldest: 100, newest: 0, torn_one_in: 0 };

    fn draw(chance: &mut Chance) -> Self {
        let (oldest, newest) = [(100, 0), (90, 5), (40, 40), (10, 80), (0, 0)][chance.below(5) as usize];
        Self { oldest, newest, torn_one_in: 8 }
    }

    /// Which image a page is of.
    fn pick(&self, images: usize, chance: &mut Chance) -> usize {
        match chance.below(100) {
            dice if dice < self.oldest => 0,
            dice if dice < self.oldest + self.newest => images - 1,
            _ => chance.below(u32::try_from(images).expect("few")) as usize,
        }
    }
}

/// A page as it is found after the cut.
fn on_disk(images: &[Image], offset: u64, fashion: &Fashion, chance: &mut Chance) -> Page {
    let mut page = *images[fashion.pick(images.len(), chance)].page(offset);
    let (first, last) = (images[0].page(offset), images[images.len() - 1].page(offset));
    if first == last || fashion.torn_one_in == 0 || chance.below(fashion.torn_one_in) != 0 {
        return page;
    }
    for sector in (0..PAGE).step_by(SECTOR) {
        let range = sector..sector + SECTOR;
        let other = images[chance.below(u32::try_from(images.len()).expect("few")) as usize].page(offset);
        page[range.clone()].copy_from_slice(&other[range.clone()]);
        let (old, new) = (&first[range.clone()], &last[range.clone()]);
        if old != new && chance.below(2) == 0 {
            let words = 1 + chance.below(SECTOR as u32 / 8 - 1) as usize;
            page[range.clone()].copy_from_slice(old);
            page[sector..sector + words * 8].copy_from_slice(&new[..words * 8]);
            if offset >= RECORDS {
                // A record that is being written has an odd sequence.
                let sequence = u64::from_le_bytes(new[..8].try_into().expect("eight bytes")) & !1;
                page[sector..sector + 8].copy_from_slice(&sequence.wrapping_sub(1).to_le_bytes());
            }
        }
    }
    page
}

impl Image {
    /// Reads what is used of a file: records are taken from the beginning of each extent.
    fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut pages = BTreeMap::new();
        let mut add = |offset: u64| -> io::Result<bool> {
            let mut page = Box::new([0; PAGE]);
            file.read_exact_at(&mut page[..in_file(len, offset)], offset)?;
            let used = page.iter().any(|&byte| byte != 0);
            pages.insert(offset, page);
            Ok(used)
        };
        add(0)?;
        for header in 0..PARTITIONS as u64 {
            add(HEADERS + header * PAGE as u64)?;
        }
        for extent in (RECORDS..len).step_by(EXTENT as usize) {
            for offset in (extent..(extent + EXTENT).min(len)).step_by(PAGE) {
                if !add(offset)? {
                    break;
                }
            }
        }
        Ok(Self { len, pages })
    }

    fn page(&self, offset: u64) -> &Page {
        self.pages.get(&offset).map_or(&[0; PAGE], |page| page)
    }
}

/// How much of the page at `offset` a file of `len` bytes has: all, unless somebody cut it short.
fn in_file(len: u64, offset: u64) -> usize {
    len.saturating_sub(offset).min(PAGE as u64) as usize
}

const PAGE: usize = 4096;
/// What a disk writes wholly or not at all, mostly.
const SECTOR: usize = 512;

// As drawn in fdb/FORMAT.md.
const MACHINE_BOOT: u64 = 20 * 8;
const HEADERS: u64 = 256 * 1024;
const RECORDS: u64 = 512 * 1024;
const EXTENT: u64 = 256 * 1024;
