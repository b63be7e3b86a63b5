//! One shard: the engine that owns a part of the users and a part of the subscriptions, without sockets and threads.

use std::sync::Arc;

use comsipl_core::{Bodies, Flow, Mono, Now, Outbox};

use crate::note::Note;
use crate::settings::Settings;

/// Who must handle a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The shard with this number (which may be the asking one).
    Shard(usize),
    /// Nobody: keep-alives and what is not SIP. The asking shard passes it to its own `on_datagram`, which counts it.
    Anyone,
}

/// The engine of one shard.
pub struct Shard {
    /// Messages to send, emptied by the caller at the end of the turn (`outbox.clear(&mut bodies)`).
    pub outbox: Outbox,
    /// Shared bodies named by the outbox.
    pub bodies: Bodies,
    /// Notes to other shards as (shard, note), emptied by the caller at the end of the turn.
    pub notes: Vec<(usize, Note)>,
}

impl Shard {
    /// Who must handle `datagram`; looks at as few bytes as it can.
    #[must_use]
    pub fn owner_of(&self, _datagram: &[u8]) -> Owner {
        Owner::Anyone
    }

    /// Takes a datagram that this shard owns.
    pub fn on_datagram(&mut self, _now: Now, _flow: Flow, _datagram: &[u8]) {}

    /// Takes a note of another shard.
    pub fn on_note(&mut self, _now: Now, _note: Note) {}

    /// Fires due timers and goes on with the fan-out, within the bounds of one turn.
    pub fn on_turn_end(&mut self, _now: Now) {}

    /// When `on_turn_end` must be called again at the latest; `None`: only after input. A moment that is past: at once.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        None
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        unreachable!("the engine keeps its settings")
    }
}
