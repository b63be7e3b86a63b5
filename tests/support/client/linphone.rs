//! Two kinds of Linphone: `linphonec`, the console application, which only watches; and liblinphone behind the small
//! program `tests/real/publisher.c`, which publishes and watches.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use comsipl_core::Transport;
use tempfile::TempDir;

use super::process::{Input, Process};
use super::proof;
use super::road::Road;
use crate::server::{target_dir, workspace};

/// Whose account a Linphone has, and for how long it asks.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// User part of the address.
    pub user: &'a str,
    /// How it reaches the server that it registers with.
    pub road: Road<'a>,
    /// Expires of its REGISTER, seconds.
    pub register_expires: u32,
    /// Expires of its PUBLISH, seconds; `None`: it does not publish.
    pub publish_expires: Option<u32>,
    /// Expires of its SUBSCRIBEs, seconds.
    pub subscribe_expires: u32,
}

impl<'a> Account<'a> {
    /// An account with the lifetimes that Linphone itself starts with, by datagrams and without a password.
    pub fn new(user: &'a str, server: SocketAddr) -> Self {
        Self::over(user, Road::plain(server))
    }

    /// As [`Account::new`], over a road of choice.
    pub fn over(user: &'a str, road: Road<'a>) -> Self {
        Self { user, road, register_expires: 3600, publish_expires: Some(600), subscribe_expires: 600 }
    }

    /// As [`Account::over`], of one who watches and publishes nothing.
    pub fn watching(user: &'a str, road: Road<'a>) -> Self {
        Self { publish_expires: None, ..Self::over(user, road) }
    }

    /// The address that others call it by.
    pub fn uri(&self) -> String {
        format!("sip:{}@{}", self.user, self.road.domain())
    }
}

/// What a friend looks like to a Linphone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Available.
    Online,
    /// Available, and busy by its RPID activity.
    Busy,
    /// Available, and away by its RPID activity.
    Away,
    /// Not available.
    Offline,
}

/// `linphonec`: the console application. It cannot set its own status.
pub struct Linphonec {
    process: Process,
    home: TempDir,
}

impl Linphonec {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(account: &Account<'_>) -> Result<Self> {
        let home = make_home(account, "linphonec")?;
        let mut command = Command::new("linphonec");
        command.args(["-d", "6", "-l"]).arg(trace_file(&home)).arg("-c").arg(rc_file(&home));
        live_in(&mut command, home.path());
        let process = Process::spawn("linphonec", command, Input::Terminal)?;
        Ok(Self { process, home })
    }

    /// Adds a friend, which subscribes to its presence.
    ///
    /// # Errors
    /// When it no longer reads.
    pub fn befriend(&mut self, name: &str, uri: &str) -> Result<()> {
        self.process.send(&format!("friend add {name} {uri}"))
    }

    /// Waits until it prints that the friend has this status. Returns the line.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn expect(&mut self, uri: &str, status: Status) -> Result<String> {
        // Friend "bob" <sip:bob@127.0.0.1:5060> is Online
        let wanted = format!("<{uri}> is {status:?}");
        self.process.expect(&wanted, |line| line.contains("Friend ") && line.ends_with(&wanted))
    }

    /// Whether it has sent a request of that method with credentials.
    ///
    /// # Errors
    /// When its trace cannot be read.
    pub fn has_proved(&self, method: &str) -> Result<bool> {
        let trace = std::fs::read(trace_file(&self.home)).context("no trace of linphonec")?;
        let lines: Vec<_> = String::from_utf8_lossy(&trace).lines().map(str::to_owned).collect();
        Ok(proof::is_given(&lines, method))
    }

    /// Ends it as its user would; it takes its subscriptions back.
    ///
    /// # Errors
    /// When it does not end.
    pub fn quit(mut self) -> Result<()> {
        self.process.send("quit")?;
        self.process.wait()?;
        Ok(())
    }
}

/// liblinphone behind `tests/real/publisher.c`.
pub struct Linphone {
    process: Process,
    _home: TempDir,
}

impl Linphone {
    /// Starts it and waits until it is registered and, if it publishes, has published "open".
    ///
    /// # Errors
    /// When the program cannot be compiled, does not register or does not publish.
    pub fn start(account: &Account<'_>) -> Result<Self> {
        let home = make_home(account, "linphone")?;
        let mut command = Command::new(publisher()?);
        command.arg(rc_file(&home));
        live_in(&mut command, home.path());
        let process = Process::spawn(&format!("Linphone of {}", account.user), command, Input::Pipe)?;
        let mut linphone = Self { process, _home: home };
        linphone.event("registration Ok")?;
        if account.publish_expires.is_some() {
            linphone.await_entity_tag(0)?;
        }
        Ok(linphone)
    }

    /// Starts it for an account that the server refuses, and waits until it says so. Returns the line that names the refusal.
    ///
    /// # Errors
    /// When the program cannot be compiled, or is not refused.
    pub fn start_refused(account: &Account<'_>) -> Result<String> {
        let home = make_home(account, "linphone")?;
        let mut command = Command::new(publisher()?);
        command.arg(rc_file(&home));
        live_in(&mut command, home.path());
        let mut process = Process::spawn(&format!("Linphone of {}", account.user), command, Input::Pipe)?;
        let refusal = process.expect("a refused REGISTER", |line| {
            line.contains("Register refresher [401]") || line.contains("Register refresher [403]")
        })?;
        process.expect("registration Failed", |line| line == "registration Failed")?;
        Ok(refusal)
    }

    /// Whether it has sent a request of that method with credentials.
    pub fn has_proved(&self, method: &str) -> bool {
        proof::is_given(&self.process.lines(), method)
    }

    /// Gives it a command (see `publisher.c`) and waits until it has been obeyed.
    ///
    /// # Errors
    /// When it does not obey.
    pub fn order(&mut self, command: &str) -> Result<()> {
        let mark = self.process.mark();
        self.process.send(command)?;
        let done = format!("done {command}");
        let line =
            self.process.expect_since(mark, &done, |line| line == done || line.starts_with("error "))?;
        ensure!(line == done, "{line}");
        Ok(())
    }

    /// Sets its own status, publishes it and waits for the answer: a Linphone that is told to take back what it has no
    /// entity tag for yet takes nothing back. Each answer has a new entity tag, also the one to a publication that is
    /// taken back (RFC 3903 §6).
    ///
    /// # Errors
    /// When it does not obey, or the server does not accept the publication.
    pub fn publish(&mut self, status: Status) -> Result<()> {
        let mark = self.process.mark();
        self.order(match status {
            Status::Online => "status open",
            Status::Busy => "status busy",
            Status::Away => "status away",
            Status::Offline => "status offline",
        })?;
        self.await_entity_tag(mark)
    }

    /// Comes back after [`Status::Offline`], which also turned publishing off.
    ///
    /// # Errors
    /// As [`Linphone::publish`].
    pub fn come_back(&mut self) -> Result<()> {
        let mark = self.process.mark();
        self.order("status online")?;
        self.await_entity_tag(mark)
    }

    fn await_entity_tag(&self, mark: usize) -> Result<()> {
        self.process.expect_since(mark, "SIP-ETag", |line| line.starts_with("SIP-ETag:")).map(drop)
    }

    /// Adds a friend, which subscribes to its presence.
    ///
    /// # Errors
    /// When it does not obey.
    pub fn befriend(&mut self, uri: &str) -> Result<()> {
        self.order(&format!("watch {uri}"))
    }

    /// Waits until it says that the friend has this status. Returns the line.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn expect(&mut self, uri: &str, status: Status) -> Result<String> {
        self.event(&format!("presence {uri} {status:?} "))
    }

    /// Waits for an event (see `publisher.c`) that starts so. Returns the line.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn event(&mut self, start: &str) -> Result<String> {
        self.process.expect(start, |line| line.starts_with(start))
    }

    /// The device loses its network.
    ///
    /// # Errors
    /// When it does not obey.
    pub fn leave_network(&mut self) -> Result<()> {
        self.order("network off")
    }

    /// The network is back: waits until it is registered by it.
    ///
    /// # Errors
    /// When it does not register.
    pub fn join_network(&mut self) -> Result<()> {
        let mark = self.process.mark();
        self.order("network on")?;
        self.process.expect_since(mark, "registration Ok", |line| line == "registration Ok").map(drop)
    }

    /// Whether a line of its log contains `text`.
    pub fn trace(&self, text: &str) -> bool {
        self.process.lines().iter().any(|line| line.contains(text))
    }

    /// Whether an event that starts so has come and was not waited for yet.
    pub fn has_said(&self, start: &str) -> bool {
        self.process.has_said(|line| line.starts_with(start))
    }

    /// Kills it with SIGKILL: it takes nothing back.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Ends it as its user would: it takes its publication, subscriptions and registration back.
    ///
    /// # Errors
    /// When it does not end.
    pub fn quit(mut self) -> Result<()> {
        self.process.send("quit")?;
        ensure!(self.process.wait()?.success(), "it ended badly: {:#?}", self.process.lines());
        Ok(())
    }
}

/// A fresh home with the configuration of a Linphone in it.
fn make_home(account: &Account<'_>, kind: &str) -> Result<TempDir> {
    let home = tempfile::Builder::new().prefix(&format!("comsipl-{kind}-{}-", account.user)).tempdir()?;
    // liblinphone does not make the folder of its database and works without one if it is missing, after an error.
    std::fs::create_dir_all(home.path().join(".local/share/linphone"))?;
    let Account { user, road, register_expires, publish_expires, subscribe_expires } = account;
    let (domain, server, transport) = (road.domain(), road.host_port(), road.transport.word());
    // -1 is a port of its own choice, 0 switches a transport off, -2 has no listener, only connections that it opens.
    let port = |it: Transport, open: &'static str| if it == road.transport { open } else { "0" };
    let (udp, tcp, tls) =
        (port(Transport::Udp, "-1"), port(Transport::Tcp, "-2"), port(Transport::Tls, "-2"));
    let trust = road.trust.map(|path| format!("root_ca={}\n", path.display())).unwrap_or_default();
    let auth = road
        .password
        .map(|password| format!("[auth_info_0]\nusername={user}\npasswd={password}\n"))
        .unwrap_or_default();
    // By datagrams it knows its address; by connections it learns it from the server's answers, as phones do.
    let itself = if road.transport == Transport::Udp {
        format!("bind_address=127.0.0.1\nguess_hostname=0\ncontact=<sip:{user}@127.0.0.1>\n")
    } else {
        String::new()
    };
    // What is not sent to the server's own address, such as a SUBSCRIBE to a friend, takes the same road.
    let route = if road.transport == Transport::Udp {
        String::new()
    } else {
        format!("reg_route=<sip:{server};transport={transport};lr>\n")
    };
    let publish = u8::from(publish_expires.is_some());
    let publish_expires = publish_expires.unwrap_or(0);
    // linphonec sees to its network itself; the library is told by publisher.c that it has one.
    let monitor = u8::from(kind == "linphonec");
    let config = format!(
        "\
[sip]
sip_port={udp}
sip_tcp_port={tcp}
sip_tls_port={tls}
verify_server_certs=1
verify_server_cn=1
{trust}{itself}use_ipv6=0
auto_net_state_mon={monitor}
default_proxy=0
subscribe_expires={subscribe_expires}
subscribe_presence_only_when_registered=1
[net]
firewall_policy=0
[video]
enabled=0
[proxy_0]
reg_proxy=<sip:{server};transport={transport}>
{route}reg_identity=<sip:{user}@{domain}>
reg_sendregister=1
reg_expires={register_expires}
publish={publish}
publish_expires={publish_expires}
{auth}"
    );
    std::fs::write(rc_file(&home), config)?;
    Ok(home)
}

fn rc_file(home: &TempDir) -> PathBuf {
    home.path().join("linphonerc")
}

/// Where linphonec puts its log, with the messages that it sends and receives.
fn trace_file(home: &TempDir) -> PathBuf {
    home.path().join("trace.log")
}

fn live_in(command: &mut Command, home: &Path) {
    command.current_dir(home).env("HOME", home);
    for name in ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
}

/// Compiles `publisher.c`, once a test process.
fn publisher() -> Result<&'static Path> {
    static PUBLISHER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PUBLISHER
        .get_or_init(|| compile_publisher().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn compile_publisher() -> Result<PathBuf> {
    let folder = target_dir().join("real");
    std::fs::create_dir_all(&folder)?;
    let program = folder.join("publisher");
    // Test processes may compile at the same time; the rename makes one of them win whole.
    let fresh = folder.join(format!("publisher.{}", std::process::id()));
    // Debian's linphone.pc names the libraries under liblinphone but not liblinphone, so pkg-config is of no use.
    let output = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&fresh)
        .arg(workspace().join("tests/real/publisher.c"))
        .args(["-llinphone", "-lbctoolbox"])
        .output()
        .context("cc does not start")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&fresh, &program)?;
    Ok(program)
}
