//! The plans of the commands.

use crate::cli::{Audience, Command, Common};
use crate::clock::nanos;
use crate::hostile::Attack;
use crate::message::Transport;
use crate::scenario::{self, Plan};
use anyhow::{bail, ensure};
use std::time::Duration;

/// What the command line says to all plans.
pub(super) fn shape(flags: &Common) -> scenario::Common {
    scenario::Common {
        window: flags.window.into(),
        settle: nanos(flags.settle),
        keep: flags.keep,
        arrivals: flags.arrivals,
        ignores_retry_after: flags.ignore_retry_after,
    }
}

/// The plan of a command.
pub(super) fn plan(command: &Command, flags: &Common) -> anyhow::Result<Plan> {
    let common = shape(flags);
    let total = |audience: &Audience| {
        ensure!(
            audience.presentities.checked_mul(audience.watchers).is_some(),
            "{} × {} subscriptions are too many",
            audience.presentities,
            audience.watchers
        );
        Ok(())
    };
    let duration = match *command {
        Command::Register { duration, .. } | Command::Subscribe { duration, .. } => {
            duration.unwrap_or_default()
        }
        Command::Publish { duration, .. } | Command::Fanout { duration, .. } => duration,
        Command::Hostile { count, rate, .. } => Duration::from_secs_f64(count as f64 / rate),
        _ => Duration::ZERO,
    };
    // Phones refresh only when a plan tells them to, so nothing may expire meanwhile.
    ensure!(
        (duration + flags.settle).as_secs_f64() < 0.8 * f64::from(flags.expires),
        "--duration and --settle together must be less than 80% of --expires, which is {} s",
        flags.expires
    );
    Ok(match *command {
        Command::Register { users, rate, duration, .. } => {
            scenario::register(&common, users, rate, duration.map(nanos))
        }
        Command::Subscribe { audience, rate, duration, .. } => {
            total(&audience)?;
            let (presentities, watchers) = (audience.presentities, audience.watchers);
            scenario::subscribe(&common, presentities, watchers, rate, duration.map(nanos))
        }
        Command::Publish { presentities, rate, duration, .. } => {
            scenario::publish(&common, presentities, rate, nanos(duration))
        }
        Command::Fanout { audience, rate, duration, .. } => {
            total(&audience)?;
            scenario::fanout(&common, audience.presentities, audience.watchers, rate, nanos(duration))
        }
        Command::Hostile { audience, count, rate, ports, growth_max_mb, .. } => {
            total(&audience)?;
            ensure!(flags.transport == Transport::Udp, "hostile datagrams are sent over UDP");
            let attack = Attack { count, rate, ports, growth_max_mb };
            let (presentities, watchers) = (audience.presentities, audience.watchers);
            scenario::hostile(&common, presentities, watchers, attack)
        }
        _ => bail!("this command has no plan"),
    })
}
