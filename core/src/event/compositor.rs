//! Composition, whatever the package: one document of all that is published of a resource.

use super::newest::Choice;
use super::{Compose, EventPackage, moments, reg, winfo};
use crate::HashKey;
use crate::dialog_info;
use crate::limits::PRESENTITY_LEN_MAX;
use crate::pidf::{self, Basic, Composer, Published};

/// What a composed document says, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Composed {
    /// The basic state, of packages that have one.
    pub basic: Basic,
    /// Hash of the document's meaning, never zero: equal for documents that tell a watcher the same.
    pub fingerprint: u64,
    /// Where the first item of the document ends, of packages that have items one after another; zero: there is none.
    pub first_end: u32,
}

/// Reads and composes what is published in all packages; keeps its memory from one composition to the next.
///
/// A document that was [`read`](Self::read) to be checked need not be read again: [`keep`](Self::keep) takes it, with
/// nothing read in between, [`add`](Self::add) brings the others and [`finish`](Self::finish) writes. A composition that
/// does not begin with a document just read begins with [`begin`](Self::begin).
#[derive(Debug)]
pub struct Compositor {
    key: HashKey,
    pidf: Composer,
    dialogs: dialog_info::Composer,
    newest: Choice,
}

impl Compositor {
    /// A compositor whose fingerprints nobody can foresee who does not know `key`.
    #[must_use]
    pub fn with_key(key: HashKey) -> Self {
        Self {
            key,
            pidf: Composer::with_key(key),
            dialogs: dialog_info::Composer::with_key(key),
            newest: Choice::default(),
        }
    }

    /// Checks a published document and gives the fingerprint of its meaning, which differs from that of any composition.
    /// What was read or added before is forgotten.
    ///
    /// # Errors
    /// In a few words what is wrong with it.
    pub fn read(&mut self, package: &EventPackage, body: &[u8]) -> Result<u64, &'static str> {
        match package.compose {
            Compose::Pidf => {
                self.pidf.read(body).map(|summary| summary.fingerprint).map_err(|_| "Bad PIDF Document")
            }
            Compose::DialogInfo => self.dialogs.read(body).map_err(dialog_info::Refused::reason),
            Compose::Newest(how) => {
                self.newest.begin();
                let told = self.newest.read(how, body)?;
                Ok(nonzero(self.key.of(&[b"published", told])))
            }
            Compose::Registration | Compose::Watchers => Err("Nothing Is Published in This Package"),
        }
    }

    /// Forgets what was read or added before.
    pub fn begin(&mut self, package: &EventPackage) {
        match package.compose {
            Compose::Pidf => self.pidf.begin(),
            Compose::DialogInfo => self.dialogs.begin(),
            Compose::Newest(_) => self.newest.begin(),
            Compose::Registration | Compose::Watchers => {}
        }
    }

    /// Adds the document that [`Self::read`] has passed last; see [`Published`] for what is said of it.
    pub fn keep(&mut self, package: &EventPackage, number: u64, published_at_ms: u64) {
        match package.compose {
            Compose::Pidf => self.pidf.keep(number, published_at_ms),
            Compose::DialogInfo => self.dialogs.keep(number),
            Compose::Newest(_) => self.newest.keep(number, published_at_ms),
            Compose::Registration | Compose::Watchers => {}
        }
    }

    /// Adds a publication, in whatever order.
    ///
    /// # Errors
    /// What is wrong with a document that [`Self::read`] would not have passed.
    pub fn add(&mut self, package: &EventPackage, published: Published<'_>) -> Result<(), &'static str> {
        match package.compose {
            Compose::Pidf => self.pidf.add(published).map_err(|_| "Bad PIDF Document"),
            Compose::DialogInfo => self.dialogs.add(published).map_err(dialog_info::Refused::reason),
            Compose::Newest(how) => {
                self.newest.read(how, published.body)?;
                self.newest.keep(published.number, published.published_at_ms);
                Ok(())
            }
            Compose::Registration | Compose::Watchers => Err("Nothing Is Published in This Package"),
        }
    }

    /// Writes the document of what was added into `out`, and into `note` what goes beside it (see
    /// [`Composer::finish`]). Both are emptied first. `aor` is canonical, without scheme. What a package's `opening` says
    /// is left out.
    pub fn finish(
        &mut self,
        package: &EventPackage,
        aor: &[u8],
        out: &mut Vec<u8>,
        note: &mut Vec<u8>,
    ) -> Composed {
        match package.compose {
            Compose::Pidf => {
                let summary = self.pidf.finish(aor, out, note);
                Composed { basic: summary.basic, fingerprint: summary.fingerprint, first_end: 0 }
            }
            Compose::DialogInfo => {
                note.clear();
                let dialog_info::Summary { fingerprint, first_end } = self.dialogs.finish(aor, out);
                Composed { basic: Basic::Unknown, fingerprint: nonzero(fingerprint), first_end }
            }
            Compose::Newest(_) => {
                note.clear();
                out.clear();
                out.extend_from_slice(self.newest.chosen().unwrap_or_default());
                Composed { basic: Basic::Unknown, fingerprint: nonzero(self.key.of(&[out])), first_end: 0 }
            }
            Compose::Registration | Compose::Watchers => {
                note.clear();
                self.without_publication(package, aor, Basic::Unknown, out)
            }
        }
    }

    /// Writes into `out`, which is emptied first, what watchers are told of a resource without publications: of a user
    /// in the state `basic`, where the package knows such states.
    pub fn without_publication(
        &mut self,
        package: &EventPackage,
        aor: &[u8],
        basic: Basic,
        out: &mut Vec<u8>,
    ) -> Composed {
        match package.compose {
            Compose::Pidf => {
                let summary = pidf::write_bare(aor, basic, out);
                Composed { basic: summary.basic, fingerprint: summary.fingerprint, first_end: 0 }
            }
            Compose::DialogInfo => {
                self.dialogs.begin();
                let dialog_info::Summary { fingerprint, first_end } = self.dialogs.finish(aor, out);
                Composed { basic: Basic::Unknown, fingerprint: nonzero(fingerprint), first_end }
            }
            Compose::Newest(how) => {
                out.clear();
                (how.without_publication)(out);
                Composed { basic: Basic::Unknown, fingerprint: nonzero(self.key.of(&[out])), first_end: 0 }
            }
            Compose::Registration => {
                out.clear();
                reg::write(aor, self.registration_id(aor), [].into_iter(), [].into_iter(), out);
                self.with_moments(out)
            }
            Compose::Watchers => {
                out.clear();
                winfo::write(aor, EventPackage::presence().name, [].into_iter(), PRESENTITY_LEN_MAX, out);
                self.with_moments(out)
            }
        }
    }

    /// Names the registration of `aor` in documents (RFC 3680 §5.1).
    #[must_use]
    pub fn registration_id(&self, aor: &[u8]) -> u64 {
        self.key.of(&[b"registration", aor])
    }

    /// What a document with [`moments`] says.
    #[must_use]
    pub fn with_moments(&self, kept: &[u8]) -> Composed {
        let meaning = moments::meaning(kept, &self.key, &mut Vec::new());
        Composed { basic: Basic::Unknown, fingerprint: nonzero(meaning), first_end: 0 }
    }
}

/// A hash that is never the zero by which stored documents say that they are behind.
const fn nonzero(hash: u64) -> u64 {
    if hash == 0 { 1 } else { hash }
}
