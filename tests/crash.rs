//! `kill -9` of the real binary under load, again and again, and what its users may rely on afterwards: what the
//! [desks](comsipl_tests::desks) check, that a request whose answer the crash took is repeated without harm, and that both
//! files pass `comsipl fdb verify`.
//!
//! `COMSIPL_CRASH_ROUNDS=n` kills it so many times (4 without it). `COMSIPL_CRASH_SEED` repeats what the desks did and after how
//! many answers the server was killed. How their datagrams meet in the server is up to the kernel.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use comsipl_tests::desks::{self, Change};
use comsipl_tests::server::Server;

#[test]
fn what_was_acknowledged_outlives_a_kill() -> Result<()> {
    let seed = match std::env::var("COMSIPL_CRASH_SEED") {
        Ok(text) => text.parse().context("COMSIPL_CRASH_SEED is no number")?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into(),
    };
    let rounds = match std::env::var("COMSIPL_CRASH_ROUNDS") {
        Ok(text) => text.parse().context("COMSIPL_CRASH_ROUNDS is no number")?,
        Err(_) => ROUNDS,
    };
    eprintln!("COMSIPL_CRASH_SEED={seed}");
    run(seed, rounds).with_context(|| format!("with COMSIPL_CRASH_SEED={seed}"))
}

fn run(seed: u64, rounds: u32) -> Result<()> {
    let mut server = Server::start_with_shards("", 4)?;
    let seen = desks::run(&mut server, Change::Kill, rounds, seed)?;
    server.stop()?;
    server.verify_files()?;
    eprintln!("{rounds} kills, {seen:?}");
    ensure!(seen.notifies > 0, "nobody was notified of anything");
    Ok(())
}

/// Kills of a run in the test command.
const ROUNDS: u32 = 4;
