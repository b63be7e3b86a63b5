//! Counters of what happens at the sockets and on the bus, and the line that sums them up.
//!
//! Each shard has its own, written by its thread alone and read by anyone at any time.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use comsipl_core::Transport;
use comsipl_core::overload::Signals;
use crossbeam::utils::CachePadded;

use crate::counters::Counter;
use crate::spans::{SpanFigures, Spans};

/// Declares the counters together with their snapshot, so that no list of them can be forgotten.
macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counters of one shard's sockets and bus.
        #[derive(Debug, Default)]
        pub struct NetCounters {
            $($(#[$doc])+ pub $name: Counter,)+
            /// How long turns take.
            pub turn_spans: Spans,
        }

        impl NetCounters {
            /// What they stand at.
            #[must_use]
            pub fn snapshot(&self) -> NetFigures {
                NetFigures { $($name: self.$name.get(),)+ turn_spans: self.turn_spans.snapshot() }
            }
        }

        /// [`NetCounters`] at one moment, or their growth between two.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct NetFigures {
            $($(#[$doc])+ pub $name: u64,)+
            /// How long turns took.
            pub turn_spans: SpanFigures,
        }

        impl NetFigures {
            /// The sum of two.
            #[must_use]
            pub fn plus(self, other: Self) -> Self {
                Self {
                    $($name: self.$name.wrapping_add(other.$name),)+
                    turn_spans: self.turn_spans.plus(other.turn_spans),
                }
            }

            /// The growth since `earlier`.
            #[must_use]
            pub fn since(self, earlier: Self) -> Self {
                Self {
                    $($name: self.$name.wrapping_sub(earlier.$name),)+
                    turn_spans: self.turn_spans.since(earlier.turn_spans),
                }
            }

            /// Names and values, [`turn_spans`](Self::turn_spans) aside.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Datagrams received.
    datagrams_in,
    /// Bytes in them.
    bytes_in,
    /// Datagrams the kernel took from us.
    datagrams_out,
    /// Bytes in them.
    bytes_out,
    /// Datagrams handed to the shard that owns them.
    handed_over,
    /// Datagrams lost because their owner's queue was full.
    hand_over_dropped,
    /// Datagrams longer than UDP allows, dropped.
    truncated,
    /// Datagrams the kernel refused to send: no route, too long, forbidden.
    send_refused,
    /// Datagrams dropped because too much waited for a full socket.
    send_dropped,
    /// Datagrams the kernel dropped because too much waited in a socket; looked at while much waits.
    kernel_dropped,
    /// Datagrams that the kernel kept out of the sockets in an overload, on our behalf. What found no room meanwhile counts here.
    kept_out,
    /// Moments, 10 ms apart, at which what waited in the sockets would have taken longer than `[overload] target_ms`.
    late_sockets,
    /// The same at which the kernel had dropped datagrams since the last.
    late_drops,
    /// The same at which the queues between the shards were half full.
    late_bus,
    /// The same at which watchers had waited longer than the target to be told.
    late_fan_out,
    /// Errors reported by a receiving socket.
    recv_errors,
    /// Connections accepted.
    connections_accepted,
    /// Connections that we began to open.
    connections_dialled,
    /// Connections that another process had before us.
    connections_adopted,
    /// Connections refused because the node has as many as it may have.
    refused_connections_max,
    /// Connections refused because their source has.
    refused_per_source_max,
    /// Connections refused because their source is not heard (`allow` and `deny` under `[auth]`).
    refused_source,
    /// Connections that the system let us accept, but not use.
    refused_by_system,
    /// Times nothing was accepted for a while because the system had no descriptor or memory for it.
    accept_pauses,
    /// Connections closed by their peers.
    closed_by_peer,
    /// Connections that broke.
    closed_by_error,
    /// Connections closed because their peers did not read.
    closed_slow_reader,
    /// Connections closed because a message that had begun was not complete in time.
    closed_slow_message,
    /// Connections closed because a handshake took too long.
    closed_slow_handshake,
    /// Connections closed because nothing came for long.
    closed_idle,
    /// Connections closed because what came on them could not be told apart into messages.
    closed_broken,
    /// Connections that could not be opened.
    dials_failed,
    /// Connections closed because the node stopped.
    closed_at_stop,
    /// Bytes that came in streams.
    stream_bytes_in,
    /// Bytes of messages for streams.
    stream_bytes_out,
    /// Messages that came by TCP.
    tcp_messages_in,
    /// Messages for TCP.
    tcp_messages_out,
    /// Messages that came by TLS.
    tls_messages_in,
    /// Messages for TLS.
    tls_messages_out,
    /// Messages that came by WebSocket, with and without TLS.
    ws_messages_in,
    /// Messages for WebSocket, with and without TLS.
    ws_messages_out,
    /// Keep-alives in streams.
    stream_keep_alives,
    /// Streams that could not be told apart into messages.
    stream_broken,
    /// Times a connection was not read any further because the owner of its message had no room.
    stream_hand_over_waits,
    /// Messages for connections that are gone, could not be opened, or whose peers did not read.
    stream_unsent,
    /// Turns of the event loop.
    turns,
    /// Microseconds spent in turns: how busy the shard is.
    busy_micros,
    /// Turns that took a millisecond or more: somebody's answer waited.
    turns_over_1_ms,
    /// Turns that took ten milliseconds or more: something outside the server's reckoning held it up (the disk, the scheduler).
    turns_over_10_ms,
    /// Times the shard slept.
    sleeps,
    /// Microseconds in which the shard looked for work instead of sleeping, because traffic was dense.
    idle_looks_micros,
}

impl NetCounters {
    /// Counts what says that more comes than can be done.
    pub fn count_late(&self, signals: Signals) {
        let Signals { sockets, drops, bus, fan_out } = signals;
        for (counter, is_red) in [
            (&self.late_sockets, sockets),
            (&self.late_drops, drops),
            (&self.late_bus, bus),
            (&self.late_fan_out, fan_out),
        ] {
            counter.add(u64::from(is_red));
        }
    }

    /// Counts a turn that took so long.
    pub fn count_turn(&self, span: Duration) {
        self.turns.add(1);
        self.busy_micros.add(span.as_micros() as u64);
        self.turn_spans.count(span);
        if span >= Duration::from_millis(1) {
            self.turns_over_1_ms.add(1);
            if span >= Duration::from_millis(10) {
                self.turns_over_10_ms.add(1);
            }
        }
    }
}

impl NetCounters {
    /// Messages that came by a stream transport.
    #[must_use]
    pub fn stream_messages_in(&self, transport: Transport) -> &Counter {
        match transport {
            Transport::Udp | Transport::Tcp => &self.tcp_messages_in,
            Transport::Tls => &self.tls_messages_in,
            Transport::Ws | Transport::Wss => &self.ws_messages_in,
        }
    }

    /// Messages for a stream transport.
    #[must_use]
    pub fn stream_messages_out(&self, transport: Transport) -> &Counter {
        match transport {
            Transport::Udp | Transport::Tcp => &self.tcp_messages_out,
            Transport::Tls => &self.tls_messages_out,
            Transport::Ws | Transport::Wss => &self.ws_messages_out,
        }
    }
}

impl NetFigures {
    /// Connections that are open, if these are figures since the start.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        let closed = [
            self.closed_by_peer,
            self.closed_by_error,
            self.closed_slow_reader,
            self.closed_slow_message,
            self.closed_slow_handshake,
            self.closed_idle,
            self.closed_broken,
            self.dials_failed,
            self.closed_at_stop,
        ];
        let opened = self.connections_accepted + self.connections_dialled + self.connections_adopted;
        opened.saturating_sub(closed.iter().sum())
    }

    /// Messages that came by streams.
    #[must_use]
    pub fn stream_messages_in(&self) -> u64 {
        self.tcp_messages_in + self.tls_messages_in + self.ws_messages_in
    }

    /// Messages for streams.
    #[must_use]
    pub fn stream_messages_out(&self) -> u64 {
        self.tcp_messages_out + self.tls_messages_out + self.ws_messages_out
    }

    /// Whether anything came or went.
    #[must_use]
    pub fn has_traffic(&self) -> bool {
        self.datagrams_in != 0
            || self.datagrams_out != 0
            || self.stream_messages_in() != 0
            || self.stream_messages_out() != 0
            || self.connections_accepted != 0
    }

    /// What happened within `span` in one line for operators: rates, then whatever went wrong.
    #[must_use]
    pub fn summary(&self, span: Duration) -> String {
        let per_second = |count: u64| count as f64 / span.as_secs_f64().max(0.001);
        let mut line = format!(
            "in {:.0}/s out {:.0}/s handed over {:.0}/s",
            per_second(self.datagrams_in),
            per_second(self.datagrams_out),
            per_second(self.handed_over),
        );
        for (name, count_in, count_out) in [
            ("tcp", self.tcp_messages_in, self.tcp_messages_out),
            ("tls", self.tls_messages_in, self.tls_messages_out),
            ("ws", self.ws_messages_in, self.ws_messages_out),
        ] {
            if count_in != 0 || count_out != 0 {
                write!(line, ", {name} in {:.0}/s out {:.0}/s", per_second(count_in), per_second(count_out))
                    .expect("writing to a string cannot fail");
            }
        }
        if let (Some(most), Some(longest)) = (self.turn_spans.below(0.99), self.turn_spans.below(1.0)) {
            write!(line, ", 99% of turns below {most:?}, all below {longest:?}")
                .expect("writing to a string cannot fail");
        }
        for (name, count) in [
            ("lost between shards", self.hand_over_dropped),
            ("truncated", self.truncated),
            ("refused by the kernel", self.send_refused),
            ("dropped before sending", self.send_dropped),
            ("dropped before receiving", self.kernel_dropped),
            ("kept out", self.kept_out),
            ("moments with a backlog in the sockets", self.late_sockets),
            ("with drops of the kernel", self.late_drops),
            ("with a backlog between shards", self.late_bus),
            ("with a backlog of watchers", self.late_fan_out),
            ("socket errors", self.recv_errors),
            ("connections refused, too many", self.refused_connections_max),
            ("connections refused, too many of one source", self.refused_per_source_max),
            ("connections refused, source not heard", self.refused_source),
            ("connections refused by the system", self.refused_by_system),
            ("pauses in accepting", self.accept_pauses),
            ("slow readers closed", self.closed_slow_reader),
            ("slow senders closed", self.closed_slow_message + self.closed_slow_handshake),
            ("idle connections closed", self.closed_idle),
            ("broken streams", self.stream_broken),
            ("connections not opened", self.dials_failed),
            ("messages without a connection", self.stream_unsent),
            ("turns over 1 ms", self.turns_over_1_ms),
            ("of them over 10 ms", self.turns_over_10_ms),
        ] {
            if count != 0 {
                write!(line, ", {name} {count}").expect("writing to a string cannot fail");
            }
        }
        line
    }
}

/// The counters of several shards together.
#[must_use]
pub fn sum(shards: &[Arc<CachePadded<NetCounters>>]) -> NetFigures {
    shards.iter().fold(NetFigures::default(), |sum, it| sum.plus(it.snapshot()))
}

/// Which of the engine's counters say how many there are at present, instead of how many there have been.
pub const ENGINE_GAUGES: [&str; 17] = [
    "shards_refusing",
    "subscriptions",
    "watchers_unreachable",
    "publications",
    "bindings",
    "notifies_in_flight",
    "presentities",
    "presentities_watched",
    "presentities_due",
    "presentities_left_over",
    "subscriptions_never_freed",
    "watchers_never_told",
    "numbers_never_reserved",
    "notifies_never_ended",
    "publications_never_freed",
    "bindings_never_freed",
    "presentities_never_freed",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauges_are_counters_of_the_engine() {
        let counters = crate::counters::Counters::default();
        for gauge in ENGINE_GAUGES {
            assert!(counters.each().any(|(name, _)| name == gauge), "{gauge}");
        }
    }

    #[test]
    fn growth_is_what_was_added_in_between() {
        let counters = NetCounters::default();
        counters.datagrams_in.add(5);
        let before = counters.snapshot();
        counters.datagrams_in.add(20);
        counters.send_refused.add(3);
        let growth = counters.snapshot().since(before);
        assert!(growth.has_traffic());
        assert_eq!(growth.turn_spans.count(), 0);
        assert_eq!(growth.named().iter().map(|(_, value)| value).sum::<u64>(), 23);
        assert_eq!(
            growth.summary(Duration::from_secs(10)),
            "in 2/s out 0/s handed over 0/s, refused by the kernel 3"
        );
        counters.count_turn(Duration::from_micros(40));
        counters.count_turn(Duration::from_micros(1500));
        assert_eq!(
            counters.snapshot().since(before).plus(NetFigures::default()).summary(Duration::from_secs(10)),
            "in 2/s out 0/s handed over 0/s, 99% of turns below 2.048ms, all below 2.048ms, refused by the kernel 3, \
             turns over 1 ms 1"
        );
    }
}
