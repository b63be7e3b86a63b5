//! The server under test: the real binary, in a process of its own.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use comsipl_core::Transport;
use tempfile::TempDir;

use crate::client::process::{Input, Process};

/// A running `comsipl` with a data directory of its own. Dropping it kills the process and removes the directory.
///
/// With `COMSIPL_TEST_TARGET=host:port` in the environment an already running server is used instead: the drivers of
/// the clients can so be tried against another SIP server. Such a server is never stopped.
pub struct Server {
    /// Where it listens, in the order of `start.transports`.
    addresses: Vec<SocketAddr>,
    process: Option<Process>,
    home: TempDir,
    start: Start,
}

/// Configuration with which everything is granted as it is asked for; more may stand before it.
pub const EXACT_GRANTS: &str =
    "[overload]\nexpires_spread_percent = 0\nexpires_spread_after_start_percent = 0\n";

/// How a server is started, its configuration file aside.
#[derive(Clone, Debug)]
pub struct Start {
    /// What it listens to, each on a port of its own; UDP comes first.
    pub transports: Vec<Transport>,
    /// The number of its shards.
    pub shards: usize,
    /// What stands behind `--auth`.
    pub auth: &'static str,
}

impl Default for Start {
    fn default() -> Self {
        Self { transports: vec![Transport::Udp], shards: 2, auth: "none" }
    }
}

impl Server {
    /// Starts a server with `config` (the text of its configuration file) and two shards, on a free port of loopback.
    ///
    /// # Errors
    /// When it does not say that it is ready.
    pub fn start(config: &str) -> Result<Self> {
        Self::start_with(config, Start::default())
    }

    /// As [`Server::start`], with a number of shards.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with_shards(config: &str, shards: usize) -> Result<Self> {
        Self::start_with(config, Start { shards, ..Start::default() })
    }

    /// As [`Server::start`], with everything that can be chosen.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(config: &str, start: Start) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("comsipl-server-").tempdir()?;
        std::fs::write(home.path().join("comsipl.toml"), config)?;
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let addresses = vec![anywhere; start.transports.len()];
        let mut server = Self { addresses, process: None, home, start };
        if let Ok(target) = std::env::var("COMSIPL_TEST_TARGET") {
            server.addresses.fill(target.parse().context("COMSIPL_TEST_TARGET is not host:port")?);
        } else {
            server.run()?;
        }
        Ok(server)
    }

    /// Where it listens (UDP).
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where it listens to a transport.
    ///
    /// # Panics
    /// When it was not started with it.
    pub fn address_of(&self, transport: Transport) -> SocketAddr {
        let at = self.start.transports.iter().position(|it| *it == transport);
        self.addresses[at.expect("the test has started it with this transport")]
    }

    /// Where it listens, to each transport.
    pub fn addresses(&self) -> Vec<(Transport, SocketAddr)> {
        self.start.transports.iter().copied().zip(self.addresses.iter().copied()).collect()
    }

    /// Kills it with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// When it is not ours to kill.
    pub fn kill(&mut self) -> Result<()> {
        self.process.as_mut().context("this server is not ours to kill")?.kill();
        self.process = None;
        Ok(())
    }

    /// Starts it again after [`Server::kill`] or [`Server::stop`]: same address, same files, same configuration.
    ///
    /// # Errors
    /// When it does not say that it is ready.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the server still runs");
        self.run()
    }

    /// Starts another process with the same files and configuration, which takes over, and checks that the first ends well.
    ///
    /// # Errors
    /// When the new one does not say so, or that it is ready, or the old one ends with a failure.
    pub fn take_over(&mut self) -> Result<()> {
        let mut before = self.process.take().context("no server runs")?;
        self.run()?;
        let after = self.process.as_ref().context("it was started")?;
        let wanted = format!("taking over from pid {}", before.id());
        ensure!(after.lines().contains(&wanted), "{:#?}", after.lines());
        let status = before.wait()?;
        ensure!(status.success(), "it ended with {status}: {:#?}", before.lines());
        Ok(())
    }

    /// The running process.
    ///
    /// # Errors
    /// When none runs.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("no server runs")
    }

    /// Stops it with SIGTERM and checks that it ends well.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let status = process.terminate()?;
        ensure!(status.success(), "comsipl ended with {status}: {:#?}", process.lines());
        Ok(())
    }

    /// Adds a user to the running server with `comsipl user add`.
    ///
    /// # Errors
    /// When the command fails; the error says what it printed.
    pub fn add_user(&self, user: &str, password: &str) -> Result<()> {
        let mut command = Command::new(binary()?);
        command.args(["user", "add", user, "--data-dir"]).arg(self.data_dir());
        command.arg("--config").arg(self.home.path().join("comsipl.toml"));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("a pipe was asked for")?.write_all(format!("{password}\n").as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "comsipl user add {user}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Where its two files are.
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Checks both files with `comsipl fdb verify`.
    ///
    /// # Errors
    /// When a file is missing or damaged; the error says what the command printed.
    pub fn verify_files(&self) -> Result<()> {
        for name in ["presence_w.fdb", "registered.fdb"] {
            let file = self.data_dir().join(name);
            let output = Command::new(binary()?).args(["fdb", "verify"]).arg(&file).output()?;
            ensure!(
                output.status.success(),
                "comsipl fdb verify {name}: {}\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Everything it has said on its standard error.
    pub fn lines(&self) -> Vec<String> {
        self.process.as_ref().map(Process::lines).unwrap_or_default()
    }

    /// The arguments that it is started with.
    pub fn args(&self) -> Vec<OsString> {
        let mut command = Command::new("");
        command
            .arg("serve")
            .arg("--config")
            .arg(self.home.path().join("comsipl.toml"))
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--shards", &self.start.shards.to_string()])
            .args(["--auth", self.start.auth]);
        for (transport, address) in self.start.transports.iter().zip(&self.addresses) {
            command.args(["--listen", &format!("{}:{address}", transport.word())]);
        }
        command.get_args().map(OsString::from).collect()
    }

    fn run(&mut self) -> Result<()> {
        let mut command = Command::new(binary()?);
        command.args(self.args());
        self.run_command(command)
    }

    /// Starts it by a command of the test's, which is to run the binary with [`Server::args`].
    ///
    /// # Errors
    /// When it does not say that it is ready.
    pub fn run_command(&mut self, mut command: Command) -> Result<()> {
        command.current_dir(self.home.path());
        let mut process = Process::spawn("comsipl", command, Input::None)?;
        // ready: listening on udp:127.0.0.1:40001 tcp:127.0.0.1:40002
        let ready = process.expect("ready: listening on …", |line| line.contains(READY))?;
        let listed = ready.split(READY).nth(1).unwrap_or_default().split_whitespace();
        for ((transport, address), word) in self.start.transports.iter().zip(&mut self.addresses).zip(listed)
        {
            let text = word.strip_prefix(transport.word()).and_then(|rest| rest.strip_prefix(':'));
            *address = text
                .and_then(|text| text.parse().ok())
                .with_context(|| format!("not in order: {ready:?}"))?;
        }
        ensure!(self.addresses.iter().all(|it| it.port() != 0), "not all addresses: {ready:?}");
        self.process = Some(process);
        Ok(())
    }
}

/// What the server says when it listens; the addresses follow in the order of the command line.
const READY: &str = "ready: listening on ";

/// The binary under test: `COMSIPL_BIN`, or what cargo builds from this workspace in the profile of the tests.
///
/// # Errors
/// When cargo cannot build it.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| find_binary().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("COMSIPL_BIN") {
        return Ok(PathBuf::from(path));
    }
    // Cargo is always asked, also when there is a binary: an old one would test yesterday's server.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(["build", "--quiet", "-p", "comsipl-shards", "--bin", "comsipl"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().context("cargo does not start")?;
    ensure!(status.success(), "cargo cannot build the server: {status}");
    Ok(target_dir().join(PROFILE).join("comsipl"))
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folder of the profile that these tests were built with.
const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
