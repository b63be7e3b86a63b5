//! How processes begin and end, and what is left of the files.

use std::time::Duration;

use comsipl_core::{Mono, Now};

use super::disk::Disk;
use super::node::{Node, OnDisk};
use super::turn::{Bench, TURN};
use super::{Event, Happening, World};

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// So long after it the next process starts.
    pub down: Duration,
    /// The next process has so many shards; `None`: as many.
    pub shards: Option<usize>,
    /// Whether the machine goes down, too.
    pub power: Power,
    /// Milliseconds by which the wall clock is set meanwhile.
    pub clock_step_ms: i64,
}

impl Crash {
    /// Nothing happens but that.
    #[must_use]
    pub const fn of_process(down: Duration) -> Self {
        Self { down, shards: None, power: Power::Stays, clock_step_ms: 0 }
    }
}

/// What becomes of the machine when a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Nothing: the files are as the process left them.
    Stays,
    /// It goes down: of the files there is what was on disk, which is chance.
    Fails,
    /// It goes down, and nothing was on disk but what was synced.
    FailsAndAllIsLost,
}

impl World {
    /// Brings the files to disk, as a server does once a sync interval. That costs real time, so here it happens when a power
    /// cut is to come.
    ///
    /// # Panics
    /// If the files cannot be read: a test has nothing to say then.
    pub fn sync(&mut self) {
        self.beat();
        let at = self.now();
        let now = self.node.as_ref().map(|node| self.now_of(node));
        if let (Some(node), Some(now)) = (&mut self.node, now) {
            node.heartbeat(now);
            self.disk = Some(Disk::synced(self.dir.path(), at).expect("the files are there"));
            node.sync().expect("the files can be synced");
        }
    }

    /// Stores the heartbeats that have come until now.
    pub(super) fn beat(&mut self) {
        let now = self.node.as_ref().map(|node| self.now_of(node));
        if let (Some(node), Some(now)) = (&mut self.node, now) {
            node.catch_up(&self.settings, now);
        }
    }

    /// Both clocks, as a process reads them.
    pub(super) fn now_of(&self, node: &Node) -> Now {
        Now { mono: Mono(self.now - node.born_at), wall: self.wall() }
    }

    /// From now on a power cut may leave any page as it is now.
    ///
    /// # Panics
    /// If the files cannot be read: a test has nothing to say then.
    pub fn write_back(&mut self) {
        if let (Some(disk), true) = (&mut self.disk, self.node.is_some()) {
            disk.write_back().expect("the files are there");
        }
    }

    /// Ends the process at once: memory, notes and hand-overs are gone, the files stay as they are unless the power fails.
    ///
    /// # Panics
    /// If the files cannot be written: a test has nothing to say then.
    pub fn crash(&mut self, crash: Crash) {
        let Crash { down, shards, power, clock_step_ms } = crash;
        let shards = shards.unwrap_or(self.setup.shards);
        self.setup.shards = shards;
        self.life += 1;
        self.turn_takes = TURN;
        self.beat();
        self.node = None;
        self.benches.clear();
        self.lanes.clear();
        self.streams.break_all();
        self.doom = None;
        self.happenings.push_back(Happening::Crashed);
        self.tell("server crashes".to_owned());
        if let (Power::Fails | Power::FailsAndAllIsLost, Some(disk)) = (power, self.disk.take()) {
            let synced_at = disk.synced_at;
            let all_is_lost = power == Power::FailsAndAllIsLost;
            disk.cut(all_is_lost, &mut self.chance).expect("the files can be written");
            self.happenings.push_back(Happening::PowerFailed { synced_at });
            self.tell(format!("and the machine; all was on disk at {synced_at:?}"));
        }
        if clock_step_ms != 0 {
            self.set_wall_clock(clock_step_ms);
        }
        self.schedule(down, Event::Restart { shards });
    }

    /// The next turn that has something to send ends the process before it is sent, but after it is stored.
    pub fn crash_before_next_send(&mut self, crash: Crash) {
        self.doom = Some(crash);
    }

    /// Takes [`Self::crash_before_next_send`] back, if it has not come to it.
    pub fn spare(&mut self) {
        self.doom = None;
    }

    /// Starts a process on the files.
    pub(super) fn boot(&mut self, shards: usize) {
        let wall = self.wall();
        let (dir, at) = (self.dir.path(), self.now());
        let mut disk = self.disk.take();
        let recovered = |on_disk| {
            match (&mut disk, on_disk) {
                (Some(disk), OnDisk::Superblocks) => disk.superblocks_are_synced()?,
                _ => disk = Some(Disk::synced(dir, at)?),
            }
            Ok(())
        };
        let node = match Node::open(dir, &self.settings, shards, &mut self.chance, self.now, wall, recovered)
        {
            Ok(node) => node,
            Err(error) if self.may_refuse_files => {
                self.happenings.push_back(Happening::Refused { why: format!("{error:#}") });
                return;
            }
            Err(error) => panic!("the server does not start: {error:#}\n{}", self.story()),
        };
        self.dropped += node.dropped;
        if node.dropped != 0 {
            self.tell(format!("{} damaged records and extents are dropped", node.dropped));
        }
        self.disk = disk;
        self.node = Some(node);
        self.benches = (0..shards).map(|_| Bench::default()).collect();
        for shard in 0..shards {
            self.wake(shard, self.now);
        }
    }
}
