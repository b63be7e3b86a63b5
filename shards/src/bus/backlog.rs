//! Notes that found no room.

use std::collections::{BTreeMap, VecDeque};

use comsipl_core::AorKey;

use crate::note::{DeviceKey, Note};

/// Notes that wait for room in a queue: the first subject first, and of each subject only the newest note.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    order: VecDeque<Subject>,
    notes: BTreeMap<Subject, Note>,
}

/// What a note is about. Of two notes with one subject the newer makes the older needless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Whether a shard has watchers of a presentity.
    Watched(AorKey, u8),
    /// The version of a presentity's document.
    Version(AorKey),
    /// Whether the owner of a presentity wants its watchers reported.
    WinfoWanted(AorKey),
    /// A NOTIFY of a subscription (partition and number); an older one was given up.
    Unsent(u8, u32),
    /// The flow of a device.
    Flow(AorKey, DeviceKey),
    /// A subscription's question for the flow of a binding; an older one was given up.
    FlowWanted(u32),
    /// The answer to that.
    FlowFound(u32),
}

impl Backlog {
    /// Keeps a note, in the place of an older one with the same subject.
    pub(super) fn add(&mut self, note: Note) {
        let subject = match note {
            Note::Watch { key, shard, .. } | Note::Unwatch { key, shard } => Subject::Watched(key, shard),
            Note::Changed { key, .. } => Subject::Version(key),
            Note::WinfoWanted { key, .. } => Subject::WinfoWanted(key),
            Note::Unsent { partition, id, .. } => Subject::Unsent(partition, id),
            Note::FlowRenewed { watcher, device, .. } => Subject::Flow(watcher, device),
            Note::FlowWanted { id, .. } => Subject::FlowWanted(id),
            Note::FlowFound { id, .. } => Subject::FlowFound(id),
        };
        match self.notes.get_mut(&subject) {
            None => {
                self.notes.insert(subject, note);
                self.order.push_back(subject);
            }
            Some(waiting) => match (*waiting, note) {
                (Note::Changed { version: old, .. }, Note::Changed { version: new, .. }) if new < old => {}
                _ => *waiting = note,
            },
        }
    }

    /// The note that waits longest.
    pub(super) fn first(&self) -> Option<Note> {
        self.order.front().map(|subject| self.notes[subject])
    }

    /// Takes away what [`Self::first`] returns.
    pub(super) fn remove_first(&mut self) {
        if let Some(subject) = self.order.pop_front() {
            self.notes.remove(&subject);
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }
}
