//! A presentity's document, read lock-free from `presence_w.fdb` and encoded once for all its watchers on this shard.

use comsipl_core::dialog_info;
use comsipl_core::event::{Compose, EventPackage, moments};
use comsipl_core::pidf::{self, Basic};
use comsipl_core::{AorKey, BodyId, Now, Profile};
use comsipl_fdb::{ReadError, RecordBuf};

use crate::records::{self, Document};
use crate::shard::Shard;
use crate::sipp::Queued;
use crate::watched::BodyKind;

/// Presentities whose bodies stay encoded after their fan-out; the oldest is let go for the next.
pub(crate) const CACHED_MAX: usize = 1024;

impl Shard {
    /// The body that subscriptions of `kind` to the watched presentity `id` get now. The cache holds it. `None` while the
    /// document's writer holds everybody up.
    ///
    /// `aor` is the presentity's canonical AoR, for a document about someone of whom nothing is known.
    pub(crate) fn body_of(
        &mut self,
        now: Now,
        id: u32,
        kind: BodyKind,
        package: &EventPackage,
        aor: &[u8],
    ) -> Option<BodyId> {
        if let Some(body) = self.watched[id].bodies[kind as usize] {
            return Some(body);
        }
        if kind == BodyKind::Nothing {
            let body = self.bodies.insert(|_| {});
            self.watched[id].bodies[kind as usize] = Some(body);
            self.remember_cached(id);
            return Some(body);
        }
        if self.watched[id].awaited {
            return None;
        }
        let mut record = std::mem::take(&mut self.scratch.document);
        let found = match self.read_document(self.watched[id].key, &mut record) {
            Some(found) => found,
            None => {
                self.scratch.document = record;
                return None;
            }
        };
        let document = found.then(|| records::document(&record)).flatten();
        let version = document.as_ref().map_or(0, |d| d.version);
        if version > self.watched[id].version {
            // The owner's note about this version is still on its way. Everyone else becomes due now, since the note
            // will bring nothing new when it comes.
            self.watched[id].version = version;
            if self.watched[id].count > 1 {
                self.mark_due(now, id);
            }
        }
        let profile = self.settings.profile;
        let body = match package.compose {
            Compose::Pidf => {
                self.bodies.insert(|out| encode_presence(profile, kind, aor, document.as_ref(), out))
            }
            Compose::DialogInfo => {
                self.bodies.insert(|out| encode_dialogs(kind, aor, document.as_ref(), out))
            }
            Compose::Newest(how) => self.bodies.insert(|out| match document {
                Some(document) => out.extend_from_slice(document.body),
                None => (how.without_publication)(out),
            }),
            Compose::Registration | Compose::Watchers => {
                self.timed.push((id, self.watched[id].key));
                let compositor = &mut self.compositor;
                self.bodies.insert(|out| match document {
                    Some(document) => moments::render(document.body, now.wall, out),
                    None => {
                        compositor.without_publication(package, aor, Basic::Unknown, out);
                    }
                })
            }
        };
        self.scratch.document = record;
        self.watched[id].bodies[kind as usize] = Some(body);
        self.remember_cached(id);
        Some(body)
    }

    /// Reads the newest document of a presentity, whoever owns it: whether there is one; `None` if it is being written for
    /// longer than a reader waits.
    fn read_document(&self, key: AorKey, record: &mut RecordBuf) -> Option<bool> {
        match self.files.presence.read_by_key(key.partition(), key.0, record) {
            Ok(_) => Some(true),
            Err(ReadError::Missing) => Some(false),
            Err(ReadError::Busy) => None,
            Err(ReadError::Torn) => {
                self.counters.unreadable_records.up();
                Some(false)
            }
        }
    }

    /// Lets go of the cached bodies of a watched presentity.
    pub(crate) fn release_bodies(&mut self, id: u32) {
        for body in &mut self.watched[id].bodies {
            if let Some(body) = body.take() {
                self.bodies.release(body);
            }
        }
    }

    /// Lets go of the bodies that tell what time it is, unless their fan-out goes on in the next turn.
    pub(crate) fn release_timed_bodies(&mut self) {
        let mut timed = std::mem::take(&mut self.timed);
        timed.retain(|&(id, key)| {
            // Its number may belong to another one by now.
            if self.watched.find(key) != Some(id) {
                return false;
            }
            let goes_on = self.watched[id].queued != Queued::No;
            if !goes_on {
                self.release_bodies(id);
            }
            goes_on
        });
        self.timed = timed;
    }

    /// Bounds the cache: the presentity cached longest ago lets go. One that is in the fan-out's queue keeps its bodies until
    /// its walk ends, and is remembered again then.
    pub(crate) fn remember_cached(&mut self, id: u32) {
        if self.watched[id].bodies.iter().all(Option::is_none) {
            return;
        }
        self.cached.push_back((id, self.watched[id].key));
        if self.cached.len() > CACHED_MAX
            && let Some((oldest, key)) = self.cached.pop_front()
            // Its number may belong to another one by now.
            && self.watched.find(key) == Some(oldest)
            && oldest != id
            && self.watched[oldest].queued == Queued::No
        {
            self.release_bodies(oldest);
        }
    }
}

/// Writes dialog information of one kind, behind its version.
fn encode_dialogs(kind: BodyKind, aor: &[u8], document: Option<&Document<'_>>, out: &mut Vec<u8>) {
    let (mut none, mut first_end) = (Vec::new(), 0);
    let composed = match document {
        Some(document) => {
            first_end = document.first_end;
            document.body
        }
        None => {
            dialog_info::write_none(aor, &mut none);
            &none
        }
    };
    match kind {
        BodyKind::NeverEmpty => dialog_info::write_never_empty(aor, composed, first_end, out),
        BodyKind::Single => dialog_info::write_single(composed, first_end, out),
        _ => out.extend_from_slice(composed),
    }
}

/// Writes a presence body of one profile and kind.
fn encode_presence(
    profile: Profile,
    kind: BodyKind,
    aor: &[u8],
    document: Option<&Document<'_>>,
    out: &mut Vec<u8>,
) {
    let basic = document.map_or(Basic::Closed, |d| d.basic);
    match (profile, kind, document) {
        (Profile::Rfc, BodyKind::All, Some(document)) => out.extend_from_slice(document.body),
        (Profile::Rfc, BodyKind::All, None) => {
            pidf::write_bare(aor, Basic::Closed, out);
        }
        (Profile::Rfc, _, _) => pidf::write_basic(aor, basic, out),
        (Profile::Comsipl, BodyKind::All, _) => {
            let note = document.map_or(&b""[..], |d| d.note);
            pidf::write_comsipl(aor, basic, (!note.is_empty()).then_some(note), None, out);
        }
        // The basic state only: the document's shape without a note.
        (Profile::Comsipl, _, _) => pidf::write_comsipl(aor, basic, Some(b""), None, out),
    }
}
