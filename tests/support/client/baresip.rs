//! The baresip user agent with its presence module, driven over its control connection.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use comsipl_core::Transport;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Input, PATIENCE, Process};
use super::proof;
use super::road::Road;

/// baresip sometimes publishes twice when it starts, before the first answer has come, and then forgets the first of the
/// two publications, which stays "open" until it expires. So it has to expire well within the patience of a test.
pub const PUBLISH_EXPIRES: u32 = 8;

/// A running baresip. Dropping it kills the process and removes its folder.
pub struct Baresip {
    process: Process,
    control: BufReader<TcpStream>,
    _home: TempDir,
}

/// What baresip is told to do.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// User part of its address.
    pub user: &'a str,
    /// How it reaches the server that it registers with.
    pub road: Road<'a>,
    /// Expires of its PUBLISH, seconds.
    pub publish_expires: u32,
    /// Users of the same domain that it watches.
    pub watches: &'a [&'a str],
}

impl<'a> Account<'a> {
    /// An account whose publication expires soon.
    pub const fn new(user: &'a str, road: Road<'a>, watches: &'a [&'a str]) -> Self {
        Self { user, road, publish_expires: PUBLISH_EXPIRES, watches }
    }
}

impl Baresip {
    /// Starts two that watch each other, those of carol and dave, and waits until each sees the other; then the last word of
    /// dave's is what he sees of carol.
    ///
    /// # Errors
    /// When one of them does not start, or is not seen.
    pub fn start_two(road: Road<'_>) -> Result<(Self, Self, String)> {
        let mut carols = Self::start(&Account::new("carol", road, &["dave"]))?;
        let mut daves = Self::start(&Account::new("dave", road, &["carol"]))?;
        carols.expect("dave", "Online")?;
        let line = daves.expect("carol", "Online")?;
        Ok((carols, daves, line))
    }

    /// Starts it and waits until it is registered. It publishes "open" and subscribes by itself about a second later.
    ///
    /// # Errors
    /// When it does not start or does not register.
    pub fn start(account: &Account<'_>) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("comsipl-baresip-").tempdir()?;
        let Account { user, road, publish_expires, watches } = account;
        let (domain, server, transport) = (road.domain(), road.server, road.transport.word());
        let outbound = if road.transport == Transport::Udp {
            String::new()
        } else {
            format!("outbound=\"sip:{server};transport={transport}\";")
        };
        let password = road.password.unwrap_or("none");
        let trust = road.trust.map(|path| format!("sip_cafile {}\n", path.display())).unwrap_or_default();
        let control = free_port()?;
        std::fs::write(
            home.path().join("config"),
            format!(
                "\
sip_listen 127.0.0.1:0
net_interface 127.0.0.1
module_path {MODULES}
module g711.so
module_tmp uuid.so
module_tmp account.so
module_app contact.so
module_app menu.so
module_app presence.so
module_app ctrl_tcp.so
ctrl_tcp_listen {control}
{trust}"
            ),
        )?;
        std::fs::write(
            home.path().join("accounts"),
            format!(
                "<sip:{user}@{domain};transport={transport}>;{outbound}regint=60;\
                 pubint={publish_expires};auth_user={user};auth_pass={password}\n"
            ),
        )?;
        let mut contacts = String::new();
        for name in *watches {
            writeln!(contacts, "\"{name}\" <sip:{name}@{domain}>;presence=p2p")?;
        }
        std::fs::write(home.path().join("contacts"), contacts)?;

        let mut command = Command::new("baresip");
        command
            .args(["-4", "-v", "-s", "-f"])
            .arg(home.path())
            .current_dir(home.path())
            .env("HOME", home.path());
        let mut process = Process::spawn("baresip", command, Input::None)?;
        // carol@127.0.0.1: {0/UDP/v4} 200 OK (ComSIPL/0.1.0) [1 binding]
        process.expect("200 OK to its REGISTER", |line| {
            line.contains("200 OK (") && line.ends_with("[1 binding]")
        })?;
        let control = TcpStream::connect(control)?;
        control.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { process, control: BufReader::new(control), _home: home })
    }

    /// Gives it a command of its menu by its long name, such as `presence_offline`. Returns what it answers.
    ///
    /// # Errors
    /// When the control connection is gone or the command is unknown.
    pub fn order(&mut self, command: &str) -> Result<String> {
        let request = json!({ "command": command, "token": command }).to_string();
        write!(self.control.get_mut(), "{}:{request},", request.len())?;
        loop {
            // Events of the user agent come on the same connection; only an answer has our token.
            let message = self.netstring()?;
            if message["token"] == command {
                ensure!(message["ok"] == true, "baresip does not obey {command}: {message}");
                return Ok(message["data"].as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// Waits until `user` has the status `status` (`Online`, `Offline`, `Busy`, `Unknown`) in its list of contacts.
    /// Returns the line of the list.
    ///
    /// # Errors
    /// When a NOTIFY does not come in time that makes it so.
    pub fn expect(&mut self, user: &str, status: &str) -> Result<String> {
        let subject = format!("<sip:{user}@");
        loop {
            //   Online Bob <sip:bob@127.0.0.1:5060>
            let contacts = without_colours(&self.order("contacts")?);
            if let Some(line) = contacts.lines().find(|line| line.contains(&subject))
                && line.split_whitespace().any(|word| word == status)
            {
                return Ok(line.to_owned());
            }
            // baresip prints no first status, so its trace says when it is worth while to look again. The NOTIFY has been
            // digested before the next command is read.
            self.process
                .expect("a NOTIFY", |line| line.starts_with("NOTIFY sip:"))
                .with_context(|| format!("{user} is not {status}:\n{contacts}"))?;
        }
    }

    /// Waits for a line of its trace that contains `text`. Returns the line.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn trace(&mut self, text: &str) -> Result<String> {
        self.process.expect(text, |line| line.contains(text))
    }

    /// Whether it has sent a request of that method with credentials.
    pub fn has_proved(&self, method: &str) -> bool {
        proof::is_given(&self.process.lines(), method)
    }

    /// The next message of the control connection: JSON in a netstring (`length ":" JSON ","`).
    fn netstring(&mut self) -> Result<Value> {
        let mut length = Vec::new();
        self.control.read_until(b':', &mut length)?;
        let length: usize = std::str::from_utf8(&length)?.trim_end_matches(':').parse()?;
        let mut text = vec![0; length + 1];
        self.control.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text[..length])?)
    }
}

/// Where Debian puts the modules.
const MODULES: &str = "/usr/lib/baresip/modules";

/// An address of loopback that nobody listens on at the moment.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// `line` without ANSI escapes: `ESC [ … ` up to a letter or to baresip's `;m`.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            let _ = rest.find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}
