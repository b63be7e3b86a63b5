//! What a run counted and used over time, for plots.

use crate::clock::{Nanos, SECOND};
use crate::process::Usage;
use crate::stats::Counts;
use serde::Serialize;

/// How far apart the first points lie: processor time comes in hundredths of a second, so this is good to 4%.
const FIRST_STEP: Nanos = SECOND / 4;
/// Most points: beyond, every second one is dropped and they lie twice as far apart.
const POINTS_MAX: usize = 1_200;

/// What was counted and used from the start of the run to one time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Seconds since the start of the run.
    pub at_secs: f64,
    /// REGISTERs answered 2xx.
    pub registered: u64,
    /// SUBSCRIBEs answered 2xx.
    pub subscribed: u64,
    /// PUBLISHes answered 2xx.
    pub published: u64,
    /// NOTIFYs received, repetitions not among them.
    pub notifies: u64,
    /// Requests sent again by Timer E.
    pub retransmissions: u64,
    /// Subscriptions that are active now.
    pub active: u64,
    /// Seconds of processor time of the server since its start.
    pub server_cpu_secs: Option<f64>,
    /// Resident memory of the server in bytes.
    pub server_memory_bytes: Option<u64>,
    /// Open descriptors of the server.
    pub server_descriptors: Option<u64>,
    /// Seconds of processor time of the generator.
    pub own_cpu_secs: f64,
}

impl Point {
    /// The values at `at`.
    pub fn of(at: Nanos, counts: &Counts, server: Option<Usage>, own: Usage) -> Self {
        Self {
            at_secs: crate::report::secs(at),
            registered: counts.registered,
            subscribed: counts.subscribed,
            published: counts.published,
            notifies: counts.notifies,
            retransmissions: counts.retransmissions_sent,
            active: counts.active,
            server_cpu_secs: server.map(|server| server.total_secs()),
            server_memory_bytes: server.map(|server| server.memory_bytes),
            server_descriptors: server.map(|server| server.descriptors),
            own_cpu_secs: own.total_secs(),
        }
    }
}

/// Points at even distances, however long the run takes.
#[derive(Debug)]
pub struct Series {
    points: Vec<Point>,
    step: Nanos,
    next: Nanos,
}

impl Series {
    /// No points.
    pub fn new() -> Self {
        Self { points: Vec::new(), step: FIRST_STEP, next: 0 }
    }

    /// Whether a point is wanted at `now`.
    pub fn is_due(&self, now: Nanos) -> bool {
        now >= self.next
    }

    /// Adds a point.
    pub fn push(&mut self, now: Nanos, point: Point) {
        if self.points.len() == POINTS_MAX {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.step *= 2;
        }
        self.points.push(point);
        self.next = now + self.step;
    }

    /// All points.
    pub fn into_points(self) -> Vec<Point> {
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_have_points_farther_apart() {
        let mut series = Series::new();
        let mut now = 0;
        while now < 3_600 * SECOND {
            if series.is_due(now) {
                let point = Point::of(now, &Counts::default(), None, Usage::default());
                series.push(now, point);
            }
            now += SECOND / 8;
        }
        let points = series.into_points();
        assert!((POINTS_MAX / 2..=POINTS_MAX).contains(&points.len()), "{}", points.len());
        assert!(points.is_sorted_by(|a, b| a.at_secs < b.at_secs));
        assert_eq!(points[0].at_secs, 0.0);
        assert!(points[points.len() - 1].at_secs > 3_590.0);
    }
}
