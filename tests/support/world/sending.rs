//! What a shard sends: into the network, into connections, to the resolver.

use std::sync::Arc;
use std::time::Duration;

use comsipl_core::{ConnectionId, Flow};
use comsipl_shards::note::Note;
use comsipl_shards::resolve::{Answer, NEGATIVE_TTL, Query};

use super::turn::Input;
use super::{Bytes, Event, Happening, NameEntry, World, first_line, micros};

impl World {
    /// Gives a datagram of the server to the network.
    pub(super) fn emit(&mut self, flow: Flow, bytes: Bytes) {
        let from = self.settings.listen[usize::from(flow.listener)].address;
        let to = flow.peer;
        self.tell(format!("server ─▶ {to}  {}", first_line(&bytes)));
        for delay in self.setup.network.fates(&mut self.chance) {
            let bytes = Arc::clone(&bytes);
            self.schedule(delay, Event::ArrivesAtPhone { from, to, bytes });
        }
        self.happenings.push_back(Happening::ServerSent { from, to, bytes });
    }

    /// Brings a message of a shard to whoever holds its connection.
    pub(super) fn emit_by_connection(&mut self, shard: usize, flow: Flow, bytes: Bytes) {
        let from = self.settings.listen[usize::from(flow.listener)].address;
        self.tell(format!("server ═▶ {}  {}", flow.peer, first_line(&bytes)));
        self.happenings.push_back(Happening::ServerSent { from, to: flow.peer, bytes: Arc::clone(&bytes) });
        let holder = flow.connection.map_or(shard, ConnectionId::shard);
        if holder == shard {
            self.write_to_phone(shard, flow, bytes);
        } else {
            let delay = Duration::from_micros(self.below_duration(self.setup.bus_delay_max));
            let life = self.life;
            self.schedule(delay, Event::ToHolder { life, from: holder, flow, bytes });
        }
    }

    /// Writes a message into its connection, or tells its owner that it could not be written.
    pub(super) fn write_to_phone(&mut self, holder: usize, flow: Flow, bytes: Bytes) {
        let wall = self.wall().0;
        let id = flow.connection.or_else(|| self.streams.dial(holder, wall, flow));
        let whole = id.filter(|&id| self.streams.get(id).is_some_and(|connection| connection.server_end));
        let Some(id) = whole else {
            self.tell(format!("unsent to {}  {}", flow.peer, first_line(&bytes)));
            if let Some(note @ Note::Unsent { partition, .. }) = Note::unsent(&bytes, false) {
                self.post(holder, usize::from(partition) % self.benches.len(), Input::Note(note));
            }
            return;
        };
        let delay = self.setup.network.stream_delay(&mut self.chance);
        let from = self.settings.listen[usize::from(flow.listener)].address;
        let now = self.now;
        let connection = self.streams.get_mut(id).expect("it is whole");
        let at = (now + micros(delay)).max(connection.last_out);
        connection.last_out = at;
        self.schedule(Duration::from_micros(at - now), Event::FromConnection { id, from, bytes });
    }

    /// Has the made-up DNS answer a shard.
    pub(super) fn look_up(&mut self, shard: usize, query: Query) {
        self.tell(format!("server asks for {}", query.host));
        let known = self.names.get(&*query.host).cloned();
        let entry =
            known.unwrap_or(NameEntry { found: Vec::new(), after: Some(Duration::ZERO), ttl: NEGATIVE_TTL });
        if let Some(after) = entry.after {
            let answer = Answer { query, found: entry.found, ttl: entry.ttl };
            self.schedule(after, Event::OnBus { life: self.life, to: shard, input: Input::Answer(answer) });
        }
    }
}
