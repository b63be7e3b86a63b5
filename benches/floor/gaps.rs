//! What the machine takes away.
//!
//! A loop on each processor does nothing but read the clock. What lies between two readings beyond [`GAP_MIN`] was somebody else's:
//! another program's, or another machine's where this one is virtual. Who is owed an answer meanwhile waits, whatever the server
//! is like.

use std::thread;
use std::time::{Duration, Instant};

use comsipl_benches::processor::pin;

use crate::Gaps;

/// Shorter gaps are interrupts and the reading itself.
const GAP_MIN: Duration = Duration::from_micros(50);

/// Runs a loop on each of these processors (wherever the system likes if they are not named) at once.
///
/// # Errors
/// There is no such processor.
pub fn measure(processors: &[Option<usize>], duration: Duration) -> anyhow::Result<Gaps> {
    let gaps = thread::scope(|scope| {
        let loops: Vec<_> = processors
            .iter()
            .map(|&processor| {
                scope.spawn(move || {
                    pin(processor)?;
                    anyhow::Ok(watch(duration))
                })
            })
            .collect();
        let gaps = loops.into_iter().map(|it| it.join().expect("reading a clock does not panic"));
        gaps.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let gaps: Vec<_> = gaps.into_iter().flatten().collect();
    let watched = duration * processors.len() as u32;
    Ok(Gaps {
        lost_percent: gaps.iter().sum::<Duration>().as_secs_f64() / watched.as_secs_f64() * 100.0,
        // Of those who need two, half a hundredth is late at either; that both are late is rare.
        late_p99_us: late(gaps, watched, 0.01 / 2.0).as_secs_f64() * 1e6,
    })
}

/// The gaps in a loop of so long.
fn watch(duration: Duration) -> Vec<Duration> {
    let mut gaps = Vec::new();
    let began = Instant::now();
    let mut last = began;
    while last - began < duration {
        let now = Instant::now();
        if now - last >= GAP_MIN {
            gaps.push(now - last);
        }
        last = now;
    }
    gaps
}

/// How late whoever comes at any moment is served at least, but for a `share` of the moments: in a gap he waits for its end. Zero if
/// less than that share of the time is lost.
fn late(mut gaps: Vec<Duration>, watched: Duration, share: f64) -> Duration {
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let allowed = watched.mul_f64(share);
    // Those who wait longer than `x` come in the part of a gap that lies more than `x` before its end. The more gaps are longer than
    // `x`, the faster that share grows when `x` falls, until it is the one asked for.
    let mut sum = Duration::ZERO;
    for (count, gap) in (0_u32..).zip(&gaps) {
        let beyond = sum.saturating_sub(*gap * count);
        if beyond >= allowed {
            return (sum - allowed) / count;
        }
        sum += *gap;
    }
    sum.saturating_sub(allowed) / (gaps.len() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_comes_in_a_gap_waits_for_its_end() {
        // Of 1,000 ms, 10 may be served later: of a gap of 30 ms, those who come in its first 10 wait for 20 at least.
        assert_eq!(late(vec![MS * 30], MS * 1000, 0.01), MS * 20);
        // Of two, the first 5 of each.
        assert_eq!(late(vec![MS * 30, MS * 30], MS * 1000, 0.01), MS * 25);
        // The short one is over before the long one has let 10 wait.
        assert_eq!(late(vec![MS * 5, MS * 30, MS], MS * 1000, 0.01), MS * 20);
        assert_eq!(late(vec![MS * 4, MS * 5], MS * 1000, 0.01), Duration::ZERO);
        assert_eq!(late(Vec::new(), MS * 1000, 0.01), Duration::ZERO);
    }
}
