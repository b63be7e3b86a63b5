//! `kill -9` of the real binary under load, again and again, and what its users may rely on afterwards: what the
//! [desks](comsipl_tests::desks) check, that a request whose answer the crash took is repeated without harm, and that both
//! files pass `comsipl fdb verify`.
//!
//! `COMSIPL_CRASH_SEED` repeats what the desks did and after how many answers the server was killed. How their datagrams
//! meet in the server is up to the kernel.

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
    eprintln!("COMSIPL_CRASH_SEED={seed}");
    run(seed).with_context(|| format!("with COMSIPL_CRASH_SEED={seed}"))
}

fn run(seed: u64) -> Result<()> {
    let mut server = Server::start_with_shards("", 4)?;
    let seen = desks::run(&mut server, Change::Kill, ROUNDS, seed)?;
    server.stop()?;
    server.verify_files()?;
    eprintln!("{ROUNDS} kills, {seen:?}");
    ensure!(seen.notifies > 0, "nobody was notified of anything");
    Ok(())
}

const ROUNDS: u32 = 4;
