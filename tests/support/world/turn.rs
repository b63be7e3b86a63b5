//! The turns of the shards, as their event loops have them.

use std::collections::VecDeque;
use std::time::Duration;

use comsipl_core::Flow;
use comsipl_shards::Report;
use comsipl_shards::audit::Findings;
use comsipl_shards::mailbox::Command;
use comsipl_shards::note::Note;
use comsipl_shards::resolve::Answer;
use comsipl_shards::shard::Owner;

use super::{Bytes, Event, Happening, World};

/// What waits for one shard, and when it looks.
#[derive(Debug, Default)]
pub(super) struct Bench {
    pub(super) inbox: VecDeque<Input>,
    pub(super) wakes_at: Option<u64>,
    /// When its turn is over.
    pub(super) free_at: u64,
    /// Turns in a row that took nothing and gave nothing though the shard had asked to be called at once.
    pub(super) idle_turns: u32,
}

/// Something for one shard.
#[derive(Debug)]
pub(super) enum Input {
    /// From the shard's own socket; it may belong to another shard.
    Datagram(Flow, Bytes),
    /// From another shard's socket; it belongs to this one.
    HandedOver(Flow, Bytes),
    /// From another shard.
    Note(Note),
    Report(Report),
    /// From the resolver.
    Answer(Answer),
}

impl World {
    /// Puts `input` into a shard's inbox and sees to it that the shard looks.
    pub(super) fn give(&mut self, shard: usize, input: Input) {
        self.benches[shard].inbox.push_back(input);
        let delay = self.below_duration(self.setup.turn_delay_max);
        self.wake(shard, self.now + delay);
    }

    /// One turn of a shard's event loop.
    pub(super) fn turn(&mut self, shard: usize) {
        let mut node = self.node.take().expect("turns belong to the living process");
        let now = self.now_of(&node);
        self.benches[shard].wakes_at = None;
        let take = self.benches[shard].inbox.len().min(INPUTS_PER_TURN_MAX);
        let inputs: Vec<Input> = self.benches[shard].inbox.drain(..take).collect();
        let was_idle = inputs.is_empty();
        let of_others = node.records_of_others(shard);
        let engine = &mut node.shards[shard];
        for input in inputs {
            let (flow, bytes) = match input {
                Input::Note(note) => {
                    engine.on_note(now, note);
                    continue;
                }
                Input::Answer(answer) => {
                    engine.on_command(Command::Resolved(answer));
                    continue;
                }
                Input::Report(report) => {
                    engine.on_report(now, report);
                    continue;
                }
                Input::Datagram(flow, bytes) => {
                    let owner = match engine.is_judging(now.mono) {
                        true => engine.owner_if_taken(now.mono, flow, &bytes),
                        false => Some(engine.owner_of(&bytes)),
                    };
                    match owner {
                        None => continue,
                        Some(Owner::Shard(owner)) if owner != shard => {
                            self.post(shard, owner, Input::HandedOver(flow, bytes));
                            continue;
                        }
                        Some(Owner::Shard(_) | Owner::Anyone) => {
                            engine.ahead().into_iter().for_each(|it| engine.ask_ahead(it));
                            (flow, bytes)
                        }
                    }
                }
                Input::HandedOver(flow, bytes) => (flow, bytes),
            };
            engine.on_datagram(now, flow, &bytes);
            self.happenings.push_back(Happening::ServerTook { from: flow.peer, bytes });
        }
        engine.on_turn_end(now);
        assert_eq!(engine.audit_all(), Findings::default(), "shard {shard} at {:?}", self.now);

        let sent: Vec<(Flow, Bytes)> = engine
            .outbox
            .messages()
            .iter()
            .map(|message| {
                let bytes = engine.outbox.parts(message, &engine.bodies).concat();
                (message.flow, bytes.into())
            })
            .collect();
        engine.outbox.clear(&mut engine.bodies);
        let notes = std::mem::take(&mut engine.notes);
        let reports = std::mem::take(&mut engine.reports);
        let lookups = std::mem::take(&mut engine.lookups);
        let deadline = engine.deadline();
        let born_at = node.born_at;
        assert_eq!(of_others, node.records_of_others(shard), "shard {shard} keeps to what it owns");

        if let (false, Some(crash)) = (sent.is_empty(), self.doom) {
            self.node = Some(node);
            self.happenings.extend(sent.into_iter().map(|(_, bytes)| Happening::DiedWith { bytes }));
            self.crash(crash);
            return;
        }
        self.node = Some(node);
        let was_idle = was_idle && sent.is_empty() && notes.is_empty() && reports.is_empty();
        for (to, note) in notes {
            self.post(shard, to, Input::Note(note));
        }
        for (to, report) in reports {
            self.post(shard, to, Input::Report(report));
        }
        for query in lookups {
            self.look_up(shard, query);
        }
        for (flow, bytes) in sent {
            if flow.transport.is_stream() {
                self.emit_by_connection(shard, flow, bytes);
            } else {
                self.emit(flow, bytes);
            }
        }

        let bench = &mut self.benches[shard];
        bench.free_at = self.now + self.turn_takes;
        let deadline = deadline.map(|d| d.0.saturating_add(born_at));
        bench.idle_turns = match deadline {
            Some(at) if was_idle && at <= self.now => bench.idle_turns + 1,
            _ => 0,
        };
        assert!(
            bench.idle_turns < IDLE_TURNS_MAX,
            "shard {shard} asks to be called at once, for ever, and does nothing\n{}",
            self.story()
        );
        if !bench.inbox.is_empty() {
            self.wake(shard, self.now);
        }
        if let Some(at) = deadline {
            self.wake(shard, at.max(self.now));
        }
    }

    /// Puts something on the bus.
    pub(super) fn post(&mut self, from: usize, to: usize, input: Input) {
        assert!(to < self.benches.len(), "shard {from} writes to shard {to}, which does not exist");
        let at = self.now + self.below_duration(self.setup.bus_delay_max);
        let lane = self.lanes.entry((from, to, matches!(input, Input::Note(_)))).or_default();
        *lane = at.max(*lane);
        let delay = Duration::from_micros(*lane - self.now);
        self.schedule(delay, Event::OnBus { life: self.life, to, input });
    }

    /// Sees to it that a shard has a turn at `at` or before, or when its present turn is over.
    pub(super) fn wake(&mut self, shard: usize, at: u64) {
        let bench = &mut self.benches[shard];
        let at = at.max(bench.free_at);
        if bench.wakes_at.is_none_or(|earlier| at < earlier) {
            bench.wakes_at = Some(at);
            let delay = Duration::from_micros(at - self.now);
            self.schedule(delay, Event::Turn { life: self.life, shard });
        }
    }
}

/// Time one turn takes, in microseconds, so that a shard that always has work does not stop the clock.
pub(super) const TURN: u64 = 10;

/// Most inputs of one turn, as in the event loop.
const INPUTS_PER_TURN_MAX: usize = 64;

/// Idle turns in a row after which a shard is said to spin.
const IDLE_TURNS_MAX: u32 = 1000;
