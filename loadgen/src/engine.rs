//! The loop of one thread.
//!
//! A turn takes a bounded number of datagrams and answers them, then fired timers, then operations that are due, hands
//! what they wrote to the kernel, and sleeps until the next of them. Threads share nothing but [`Shared`].

use crate::audit::Tally;
use crate::clock::{Nanos, SECOND};
use crate::crowd::Crowd;
use crate::net::Sockets;
use crate::scenario::Ends;
use crate::shared::{STOP, Shared};
use crate::stats::Timings;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most datagrams of a turn, so that requests leave in time also under load.
const DATAGRAMS_MAX: usize = 256;
/// How often the wall clock, by which the kernel stamps, is compared with the run's time line.
const COMPARE_EVERY: Nanos = SECOND / 1_000;
/// Longest sleep: how late the end of a phase is noticed at most.
const SLEEP_MAX: Nanos = SECOND / 200;

/// What a thread hands back at its end.
pub struct Harvest {
    /// Its measurements, one for each measured phase.
    pub timings: Vec<Timings>,
    /// The last audit of its watchers; none if the plan has none.
    pub tally: Option<Tally>,
}

/// Works through the phases as the conductor sets them, until [`STOP`].
pub fn run(shared: &Shared, thread: usize, mut sockets: Sockets) -> anyhow::Result<Harvest> {
    let mut crowd = Crowd::new(shared, thread);
    let post = crowd.post();
    let counters = &post.counters;
    let mut tally = None;
    let mut is_audited = false;
    let mut stage = 0;
    let mut ends = Ends::Done;
    sockets.worsen(shared.plan.link, shared.style.salt.0 ^ thread as u64);
    let mut now = shared.clock.now();
    let (mut wall_ahead, mut compare_at) = (0, now);
    loop {
        let next_stage = shared.stage.load(Ordering::Acquire);
        if next_stage != stage {
            if matches!(ends, Ends::Settled(_)) && (!is_audited || next_stage == STOP) {
                tally = Some(crowd.audit());
            }
            is_audited = false;
            crowd.leave(now);
            post.dropped.store(sockets.dropped(), Ordering::Relaxed);
            stage = next_stage;
            if stage == STOP {
                return Ok(Harvest { timings: crowd.into_timings(), tally });
            }
            let phase = &shared.plan.phases[stage - 1];
            ends = phase.ends;
            crowd.enter(phase, shared.start());
        }

        if now >= compare_at {
            wall_ahead = shared.clock.wall_ahead();
            compare_at = now + COMPARE_EVERY;
        }
        let mut received = 0;
        while received < DATAGRAMS_MAX {
            let batch = sockets.receive(|outlet, datagram| {
                let at = datagram.stamp_ns.map_or(now, |stamp| stamp.saturating_sub(wall_ahead));
                crowd.on_datagram(outlet, &datagram, at);
            });
            let Some(count) = batch else { break };
            received += count;
            counters.send_errors.add(sockets.flush(|_| ()));
            now = shared.clock.now();
            // Requests leave at their time also when much comes in.
            if crowd.next_request(now) <= now {
                break;
            }
        }
        while let Some(connection) = sockets.take_lost() {
            crowd.on_lost(connection, sockets.count());
        }
        now = shared.clock.now();
        crowd.fire_timers(now);
        crowd.wake_rested(now);
        crowd.go_on_with_calls(now);
        crowd.finish_told(now);
        crowd.start_due(now);
        crowd.refuse_withheld(now);
        crowd.write_out(&mut sockets);
        counters.send_errors.add(sockets.flush(|socket| {
            if crowd.leaves() {
                crowd.leave_by(socket, shared.clock.now());
            }
        }));
        now = shared.clock.now();
        if let Some(weather) = sockets.weather() {
            counters.link_lost.set(weather.lost);
            counters.link_doubled.set(weather.doubled);
            counters.link_delayed.set(weather.delayed);
        }
        counters.connections_lost.set(sockets.lost());
        counters.unfinished.set(crowd.unfinished());
        counters.resting.set(crowd.resting());
        if stage != 0 && post.finished.load(Ordering::Relaxed) != stage && crowd.is_done(ends, now) {
            // Before the next phase begins: a look at a million watchers would make its first requests late.
            if matches!(ends, Ends::Settled(_)) {
                tally = Some(crowd.audit());
                is_audited = true;
            }
            post.finished.store(stage, Ordering::Release);
        }

        let request = crowd.next_request(now);
        let next = request.min(crowd.next_timer());
        let rests = next > now && sockets.is_drained();
        let until = next.clamp(now, now + SLEEP_MAX);
        sockets.wait(Duration::from_nanos(until - now), request == until)?;
        if rests {
            let woken = shared.clock.now();
            post.idle.store(post.idle.load(Ordering::Relaxed) + (woken - now), Ordering::Relaxed);
            now = woken;
        }
    }
}
