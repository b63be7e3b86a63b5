//! Asking memory ahead for what a batch of requests will look at.
//!
//! Of many users each lies somewhere else in memory and in the files. A request that is handled alone waits for one cache miss
//! after the other; asked for together, a whole batch has its misses under way at once. Whoever looks for the owner of a
//! request knows its user already, and says so to the shard that will handle it.

use comsipl_core::AorKey;

use crate::shard::Shard;
use crate::watched::NONE;

/// What a request will look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// The user's bindings: a REGISTER.
    Bindings(AorKey),
    /// His publications and his document: a PUBLISH.
    Publications(AorKey),
}

impl Shard {
    /// What the request will look at whose owner was asked for last; nothing if that is not known.
    #[must_use]
    pub fn ahead(&self) -> Option<Ahead> {
        self.ahead
    }

    /// Asks memory for what a request will look at soon. Has no effect but on time, also for what is another shard's.
    pub fn ask_ahead(&self, ahead: Ahead) {
        let (Ahead::Bindings(key) | Ahead::Publications(key)) = ahead;
        let partition = key.partition();
        if !self.files.owns(partition) {
            return;
        }
        let Some(id) = self.presentities.find(key) else { return };
        match ahead {
            Ahead::Bindings(_) => {
                if let Some(first) = self.presentities.bindings_of(id).next() {
                    let slot = self.presentities.bindings[first].slot;
                    self.files.registered_partition(partition).prefetch(slot);
                }
            }
            Ahead::Publications(_) => {
                let own = self.files.presence_partition(partition);
                if let Some(first) = self.presentities.publications_of(id).next() {
                    own.prefetch(self.presentities.publications[first].slot);
                }
                let document = self.presentities[id].document;
                if document != NONE {
                    own.prefetch(document);
                }
            }
        }
    }
}
