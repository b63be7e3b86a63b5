//! Servers that die, before another process takes over and while it does.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::process::{Input, PATIENCE, Process};
use comsipl_tests::server::{Server, Start, binary};
use rustix::process::{Pid, Signal, kill_process};

use super::{Line, Publisher, Watcher, listening_inodes};

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

/// A new process that hangs with everything in its hands is killed when its time is up, and the old one goes on: with its
/// connections, and with what came meanwhile.
#[test]
fn a_successor_that_hangs_is_killed() -> Result<()> {
    let start = Start { transports: vec![Transport::Udp, Transport::Tcp], ..Start::default() };
    let mut server = Server::start_with("[storage]\nrecovery_max_ms = 500\n", start)?;
    let mut publisher = Publisher::new(&server)?;
    let mut anna = Watcher::subscribe("anna", Line::tcp(&server)?)?;
    publisher.publish("before", &mut [&mut anna])?;
    let listening = listening_inodes(&server)?;

    let mut command = Command::new(env!("CARGO_BIN_EXE_hanging-successor"));
    command.arg(server.data_dir()).arg("2");
    let mut hanging = Process::spawn("hanging-successor", command, Input::None)?;
    hanging.expect("that it has everything", |line| line == "has everything")?;
    let refresh = anna.subscribe_again();
    anna.line.write(&refresh)?;
    let status = hanging.wait()?;
    ensure!(status.signal() == Some(Signal::KILL.as_raw()), "it ended with {status}");
    server.process()?.expect("that it was killed", |line| line.contains("it was killed"))?;
    server.process()?.expect("that it serves again", |line| line.contains("ready: listening on "))?;
    anna.await_answer("SUBSCRIBE", 2)?;
    publisher.publish("after", &mut [&mut anna])?;
    ensure!(listening_inodes(&server)? == listening, "other sockets listen now");

    server.take_over()?;
    publisher.publish("after the next", &mut [&mut anna])?;
    server.stop()?;
    server.verify_files()
}

/// A bug in one shard ends the whole process, which says so, and the next one goes on with all that was acknowledged.
#[test]
fn a_shard_that_panics_ends_the_process_and_nothing_is_lost() -> Result<()> {
    let mut server = Server::start("")?;
    let mut publisher = Publisher::new(&server)?;
    for shard in 0..2 {
        publisher.publish(&format!("before shard {shard} panics"), &mut [])?;
        let mut socket = UnixStream::connect(server.data_dir().join("control.sock"))?;
        socket.write_all(format!("{{\"request\":\"panic\",\"shard\":{shard}}}\n").as_bytes())?;
        let process = server.process()?;
        let status = process.wait()?;
        let text = process.lines().join("\n");
        ensure!(status.code() == Some(1), "it ended with {status}: {text}");
        ensure!(text.contains(&format!("shard {shard} panicked, which is a bug of ComSIPL")), "{text}");
        server.verify_files()?;
        server.kill()?;
        server.restart()?;
        // With the entity tag of before.
        publisher.publish(&format!("after shard {shard} panicked"), &mut [])?;
    }
    server.stop()?;
    server.verify_files()
}

/// Files of an older format are refused with what to run, whether or not their server runs still; and that serves on.
#[test]
fn files_of_an_older_format_are_refused_with_what_to_run() -> Result<()> {
    let mut server = Server::start("")?;
    let mut publisher = Publisher::new(&server)?;
    publisher.publish("before", &mut [])?;
    let path = server.data_dir().join("presence_w.fdb");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let mut version = [0; 4];
    file.read_exact_at(&mut version, VERSION_AT)?;
    let older = u32::from_le_bytes(version) - 1;
    file.write_all_at(&older.to_le_bytes(), VERSION_AT)?;
    let path = path.display();
    let said = format!(
        "{path}: expected format version {}, found {older}; an older program wrote the file: start that one again (`comsipl \
         --version` tells which one is which), or begin with an empty file after `mv {path} {path}.format-{older}`",
        older + 1
    );
    let args = server.args();
    let refused = || -> Result<()> {
        let mut command = Command::new(binary()?);
        command.args(&args);
        let mut process = Process::spawn("comsipl", command, Input::None)?;
        let status = process.wait()?;
        let text = process.lines().join("\n");
        ensure!(status.code() == Some(3) && text.contains(&said), "it ended with {status}: {text}");
        Ok(())
    };
    refused()?;
    publisher.publish("it serves on", &mut [])?;
    server.kill()?;
    refused()?;
    // As it was, so the program of before reads it.
    file.write_all_at(&version, VERSION_AT)?;
    server.restart()?;
    publisher.publish("after", &mut [])?;
    server.stop()?;
    server.verify_files()
}

/// Where a file says its format version (fdb/FORMAT.md): the low half of word 1.
const VERSION_AT: u64 = 8;

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
