//! What shards tell one another.

use comsipl_core::msg::{Method, peek};
use comsipl_core::{AorKey, Flow};

use crate::sipp::marked;

/// A message between shards. Notes are small and copied; datagrams for another shard travel beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The sending shard has watchers of the presentity; the owner always answers `Changed`.
    Watch {
        /// The presentity.
        key: AorKey,
        /// The shard that has watchers now.
        shard: u8,
        /// Number of the event package.
        package: u8,
    },
    /// The sending shard has no watchers of the presentity any more.
    Unwatch {
        /// The presentity.
        key: AorKey,
        /// The shard that had watchers.
        shard: u8,
    },
    /// The owner of the presentity wants to know its watchers on the receiving shard, or does not any more. Wanted, it is
    /// answered by a report in any case.
    WinfoWanted {
        /// The presentity.
        key: AorKey,
        /// Whether somebody watches the watchers.
        wanted: bool,
    },
    /// The presentity's document has this version now; read it from `presence_w.fdb`.
    Changed {
        /// The presentity.
        key: AorKey,
        /// The newest version; grows with every change.
        version: u64,
    },
    /// A NOTIFY of the receiving shard could not be sent: there was no room for it or for its connection, or that is gone or
    /// was never made. Whoever holds the connections says so, for each NOTIFY; see [`Note::unsent`].
    Unsent {
        /// Partition of its subscription.
        partition: u8,
        /// Number of its subscription.
        id: u32,
        /// The check of its branch, which tells this NOTIFY from earlier and later ones.
        check: u32,
        /// Whether its connection may live yet, or could not be tried, so that the same way may do later.
        lives: bool,
    },
    /// A device has registered on a new connection (RFC 5626 §6); every shard is told, because its subscriptions may be
    /// anywhere.
    FlowRenewed {
        /// The user who has registered.
        watcher: AorKey,
        /// The device; see `DeviceKey`.
        device: DeviceKey,
        /// The connection.
        flow: Flow,
    },
    /// A shard wants to know by which flow a device of the user has registered; the owner of the user always answers `FlowFound`.
    FlowWanted {
        /// The user.
        watcher: AorKey,
        /// The device; see `DeviceKey`.
        device: DeviceKey,
        /// Whether datagrams will do. Otherwise a connection is wanted.
        any: bool,
        /// The shard that asks.
        shard: u8,
        /// Number of its subscription.
        id: u32,
        /// Number of the question, which tells it from earlier and later ones.
        question: u32,
    },
    /// The answer to `FlowWanted`.
    FlowFound {
        /// Number of the subscription.
        id: u32,
        /// Number of the question.
        question: u32,
        /// The flow, if the device has registered by one that will do.
        flow: Option<Flow>,
    },
}

/// Keyed hash of what tells one of a user's devices from the others: its Contact without parameters, or its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceKey(pub u64);

impl Note {
    /// What the owner of the partition named must be told if `message` could not be sent; `None` unless it is a NOTIFY
    /// of ours. `lives`: whether its connection may live yet.
    #[must_use]
    pub fn unsent(message: &[u8], lives: bool) -> Option<Self> {
        let (Method::Notify, _) = peek::peek_request(message)? else { return None };
        let mark = marked(peek::peek_request_branch(message)?)?;
        Some(Self::Unsent { partition: mark.partition, id: mark.id, check: mark.check, lives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notify_that_was_not_sent_is_known_by_its_branch() {
        let notify = |method: &str, branch: &str| {
            format!(
                "{method} sip:bob@192.0.2.2;transport=tcp SIP/2.0\r\nVia: SIP/2.0/TCP 198.51.100.1:5060;branch={branch};\
                 rport\r\nCall-ID: c\r\n\r\n"
            )
        };
        let ours = "z9hG4bK~3f0000002a89abcdef";
        let note = Note::Unsent { partition: 0x3f, id: 42, check: 0x89ab_cdef, lives: true };
        assert_eq!(Note::unsent(notify("NOTIFY", ours).as_bytes(), true), Some(note));
        assert_eq!(Note::unsent(notify("OPTIONS", ours).as_bytes(), true), None);
        assert_eq!(Note::unsent(notify("NOTIFY", "z9hG4bK-other").as_bytes(), true), None);
        assert_eq!(Note::unsent(b"SIP/2.0 200 OK\r\n\r\n", true), None);
        assert_eq!(Note::unsent(b"", true), None);
    }
}
