//! How long it takes to wake a thread that sleeps.
//!
//! Two threads hand a byte to and fro and sleep in `epoll_wait(2)` between, as the server's event loop does, each on its
//! processor if they are named. A round trip wakes twice.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Instant;

use comsipl_benches::processor::pin;
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::Wake;

/// Measures `rounds` round trips.
///
/// # Errors
/// What the system says.
pub fn measure(here: Option<usize>, there: Option<usize>, rounds: usize) -> anyhow::Result<Wake> {
    let (to, from) = (Bell::new()?, Bell::new()?);
    let mut times_us = thread::scope(|scope| {
        let echo = scope.spawn(|| {
            pin(there)?;
            for _ in 0..rounds {
                to.sleep()?;
                from.ring()?;
            }
            anyhow::Ok(())
        });
        let ours = scope.spawn(|| {
            pin(here)?;
            let mut times = Vec::with_capacity(rounds);
            for _ in 0..rounds {
                let began = Instant::now();
                to.ring()?;
                from.sleep()?;
                times.push(began.elapsed().as_nanos() as f64 / 1e3);
            }
            anyhow::Ok(times)
        });
        let times = ours.join().expect("ringing does not panic")?;
        echo.join().expect("ringing does not panic")?;
        anyhow::Ok(times)
    })?;
    times_us.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times_us[((rounds - 1) as f64 * share) as usize];
    Ok(Wake { round_trip_p50_us: at(0.5), round_trip_p99_us: at(0.99) })
}

/// An event counter that a thread sleeps on.
struct Bell {
    counter: OwnedFd,
    poll: OwnedFd,
}

impl Bell {
    fn new() -> anyhow::Result<Self> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &counter, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Self { counter, poll })
    }

    fn ring(&self) -> anyhow::Result<()> {
        rustix::io::write(&self.counter, &1u64.to_ne_bytes())?;
        Ok(())
    }

    fn sleep(&self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(1);
        epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), None)?;
        rustix::io::read(&self.counter, &mut [0; 8])?;
        Ok(())
    }
}
