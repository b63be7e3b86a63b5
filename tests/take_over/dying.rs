//! Servers that die, before another process takes over and while it does.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::process::{Input, PATIENCE, Process};
use comsipl_tests::server::{Server, Start, binary};
use rustix::process::{Pid, Signal, kill_process};

use super::{Line, Publisher, Watcher};

/// A start after a crash finds the dead server's control socket, and waits neither for it nor for anything else.
#[test]
fn a_start_after_a_crash_waits_for_nobody() -> Result<()> {
    let start = Start { transports: vec![Transport::Udp, Transport::Tcp], ..Start::default() };
    let mut server = Server::start_with("", start)?;
    let mut publisher = Publisher::new(&server)?;
    for round in 1..=3 {
        publisher.publish(&format!("before crash {round}"), &mut [])?;
        server.kill()?;
        ensure!(server.data_dir().join("control.sock").exists(), "nobody took it along");
        let begin = Instant::now();
        server.restart()?;
        ensure!(
            begin.elapsed() < SHORTEST_WAIT,
            "the start took {:?}: {:#?}",
            begin.elapsed(),
            server.lines()
        );
    }
    let mut anna = Watcher::subscribe("anna", Line::tcp(&server)?)?;
    publisher.publish("after the last crash", &mut [&mut anna])?;
    server.stop()?;
    server.verify_files()
}

/// A server that dies when it is asked to hand over is a server that has crashed: the new process starts as after any crash.
#[test]
fn a_predecessor_that_dies_before_it_answers_is_succeeded() -> Result<()> {
    let mut server = Server::start("")?;
    let mut publisher = Publisher::new(&server)?;
    publisher.publish("before", &mut [])?;
    let old = Pid::from_raw(server.process()?.id().cast_signed()).context("it has a number")?;
    kill_process(old, Signal::STOP)?;
    let mut command = Command::new(binary()?);
    command.args(server.args());
    let mut new = Process::spawn("comsipl", command, Input::None)?;
    await_connection(&server.data_dir().join("control.sock"))?;
    server.kill()?;
    new.expect("that it is ready", |line| line.contains("ready: listening on "))?;
    publisher.publish("after", &mut [])?;
    let status = new.terminate()?;
    ensure!(status.success(), "it ended with {status}: {:#?}", new.lines());
    server.verify_files()
}

/// Waits until somebody has connected to the socket at `path`: then the kernel lists it more than once.
fn await_connection(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let path = path.to_string_lossy();
    while std::fs::read_to_string("/proc/net/unix")?.lines().filter(|it| it.ends_with(&*path)).count() < 2 {
        ensure!(Instant::now() < deadline, "nobody has connected to {path}");
        std::thread::yield_now();
    }
    Ok(())
}

/// Below the shortest time that a server waits for another one.
const SHORTEST_WAIT: Duration = Duration::from_secs(5);
