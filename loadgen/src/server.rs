//! A server that the generator starts itself, so that it can kill it or have another process take over from it.

use crate::message::Transport;
use anyhow::{Context as _, bail, ensure};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to listen.
const LISTEN_MAX: Duration = Duration::from_secs(20);
/// How long no refusal has to come to a probe.
const QUIET: Duration = Duration::from_millis(50);
/// How many probes have to go without a refusal until the server is believed to listen.
const PROBES: u32 = 4;
/// How long a process may take to take over from another.
const TAKE_OVER_MAX: Duration = Duration::from_secs(60);
/// How often the two are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A server, killed at the end.
#[derive(Debug)]
pub struct Server {
    command: String,
    child: Child,
}

impl Server {
    /// Starts a command by the shell, and waits until it listens at `target`.
    pub fn start(command: &str, target: SocketAddr, transport: Transport) -> anyhow::Result<Self> {
        let mut server = Self { command: command.into(), child: spawn(command)? };
        let start = Instant::now();
        let is_up = || match transport {
            Transport::Udp => listens(target),
            Transport::Tcp => {
                let opened = TcpStream::connect_timeout(&target, QUIET).is_ok();
                if !opened {
                    std::thread::sleep(QUIET);
                }
                Ok(opened)
            }
        };
        while !is_up()? {
            if let Some(status) = server.child.try_wait()? {
                bail!("`{command}` ended with {status}");
            }
            ensure!(start.elapsed() < LISTEN_MAX, "`{command}` does not listen at {target}");
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL) and starts it again at once.
    pub fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the server")?;
        self.child = spawn(&self.command)?;
        Ok(())
    }

    /// Starts another process by the same command, which has to take over, and waits until the one before has ended well.
    pub fn take_over(&mut self) -> anyhow::Result<()> {
        let mut before = std::mem::replace(&mut self.child, spawn(&self.command)?);
        let start = Instant::now();
        loop {
            if let Some(status) = before.try_wait()? {
                ensure!(status.success(), "the server that was succeeded ended with {status}");
                return Ok(());
            }
            let refused = self.child.try_wait()?;
            if refused.is_some() || start.elapsed() > TAKE_OVER_MAX {
                // It serves on, and is ended with us.
                let _ = self.child.kill();
                let _ = self.child.wait();
                self.child = before;
                match refused {
                    Some(status) => bail!("`{}` did not take over and ended with {status}", self.command),
                    None => bail!("`{}` did not take over in {TAKE_OVER_MAX:?}", self.command),
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `exec` makes the server itself the child, so that it can be killed.
fn spawn(command: &str) -> anyhow::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).stdout(Stdio::null());
    shell.spawn().with_context(|| format!("cannot start `{command}`"))
}

/// Whether something listens at a UDP port: the kernel refuses what is sent to a port where nothing does. A server on
/// another machine is believed to listen.
fn listens(target: SocketAddr) -> anyhow::Result<bool> {
    let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(QUIET))?;
    for _ in 0..PROBES {
        // An empty line keeps a connection alive and is no request (RFC 5626 §3.5.1). A refusal of the one before may
        // come late on a busy machine.
        let answered = socket.send(b"\r\n\r\n").and_then(|_| socket.recv(&mut [0; 16]));
        if answered.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            std::thread::sleep(QUIET);
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_is_told_from_an_open_one() {
        // An address of its own, so that no other test takes the port when it is closed.
        let open = UdpSocket::bind("127.0.0.77:0").unwrap();
        let address = open.local_addr().unwrap();
        assert!(listens(address).unwrap());
        drop(open);
        assert!(!listens(address).unwrap());
    }

    #[test]
    fn a_server_that_ends_is_an_error() {
        let closed = UdpSocket::bind("127.0.0.77:0").unwrap().local_addr().unwrap();
        let error = Server::start("false", closed, Transport::Udp).unwrap_err();
        assert!(error.to_string().contains("ended"), "{error}");
    }

    #[test]
    fn a_killed_server_is_another_process() {
        let open = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut server = Server::start("sleep 1000", open.local_addr().unwrap(), Transport::Udp).unwrap();
        let before = server.pid();
        server.kill_and_start().unwrap();
        assert_ne!(server.pid(), before);
    }

    #[test]
    fn a_server_that_is_succeeded_has_to_end_well() {
        let open = UdpSocket::bind("127.0.0.1:0").unwrap();
        let folder = std::env::temp_dir().join(format!("comsipl-loadgen-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let start = |name: &str, script: &str| {
            let path = folder.join(name);
            std::fs::write(&path, script).unwrap();
            Server::start(&format!("sh {}", path.display()), open.local_addr().unwrap(), Transport::Udp)
        };
        // Whoever comes second tells the first to end.
        let told =
            "mkfifo $0.told 2>/dev/null && read x <$0.told && exit 0; echo x >$0.told; exec sleep 1000";
        let mut server = start("willing", told).unwrap();
        let before = server.pid();
        server.take_over().unwrap();
        assert_ne!(server.pid(), before);
        let refused = "mkdir $0.there 2>/dev/null && exec sleep 1000; exit 3";
        let mut server = start("unwilling", refused).unwrap();
        let before = server.pid();
        let error = server.take_over().unwrap_err();
        assert!(error.to_string().contains("did not take over"), "{error}");
        assert_eq!(server.pid(), before, "it serves on");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
