//! A stop and a start under a service manager that keeps the listening sockets, played by the test.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::process::PATIENCE;
use comsipl_tests::server::{Server, Start, binary};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{Publisher, inodes_of, listening_inodes};

/// What waits in a socket while no server runs is answered by the next one, which has the same sockets.
#[test]
fn sockets_outlive_a_stop_and_a_start() -> Result<()> {
    let start = Start { transports: vec![Transport::Udp, Transport::Tcp], ..Start::default() };
    let mut server = Server::start_with("", start)?;
    let mut manager = Manager::new()?;
    // The first was started without one; the second says that it is ready, and gives its sockets away.
    server.stop()?;
    manager.start(&mut server)?;
    ensure!(manager.store.len() == 4, "two shards, two listeners: {:?}", manager.names());
    let mut publisher = Publisher::new(&server)?;
    publisher.publish("before", &mut [])?;
    let listening = listening_inodes(&server)?;
    let store = manager.names();
    for round in 1..=2 {
        server.stop()?;
        ensure!(listening_inodes(&server)? == listening, "the sockets live on without a process");
        let phone = comsipl_tests::client::phone::Phone::new(server.address())?;
        let options = format!(
            "OPTIONS sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKo{round};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:a@example.org>;tag=1\r\nTo: <sip:example.org>\r\nCall-ID: options{round}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n",
            phone.address()
        );
        phone.send(&options);
        manager.start(&mut server)?;
        let answer = phone.receive(std::time::Instant::now() + PATIENCE)?.context("it was lost")?;
        ensure!(answer.status() == Some(200), "{}", answer.text());
        publisher.publish(&format!("in round {round}"), &mut [])?;
        let inodes = inodes_of(server.process()?.id())?;
        ensure!(listening_inodes(&server)? == listening && inodes.is_superset(&listening), "other sockets");
        ensure!(manager.names() == store, "{:?} instead of {store:?}", manager.names());
    }
    server.stop()?;
    server.verify_files()
}

/// What the test plays: `NOTIFY_SOCKET`, and a store of descriptors by name.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
    store: Vec<(String, OwnedFd)>,
}

impl Manager {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = UnixDatagram::bind(folder.path().join("notify"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { folder, socket, store: Vec::new() })
    }

    fn names(&self) -> Vec<String> {
        self.store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Starts the server with what is kept, and takes what it says until it is ready.
    fn start(&mut self, server: &mut Server) -> Result<()> {
        // Descriptors lie from 3 on when the server is executed, so a shell puts them there.
        let mut script = String::new();
        let mut passed = Vec::new();
        for (place, (_, descriptor)) in (3..).zip(&self.store) {
            let descriptor = fcntl_dupfd_cloexec(descriptor, 100)?;
            fcntl_setfd(&descriptor, FdFlags::empty())?;
            script += &format!("exec {place}<&{0} {0}<&-; ", descriptor.as_raw_fd());
            passed.push(descriptor);
        }
        script += "LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = Command::new("/bin/bash");
        command.args(["-c", &script]).arg(binary()?).args(server.args());
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command.env("LISTEN_FDS", self.store.len().to_string());
        command.env("LISTEN_FDNAMES", self.names().join(":"));
        server.run_command(command)?;
        drop(passed);
        while !self.take()? {}
        Ok(())
    }

    /// Takes one datagram; says whether it was that of a service that is ready.
    fn take(&mut self) -> Result<bool> {
        let mut room = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut room)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let text = String::from_utf8(room[..received.bytes].to_vec())?;
        let value = |key: &str| text.lines().find_map(|it| it.strip_prefix(key)?.strip_prefix('='));
        for message in ancillary.drain() {
            let RecvAncillaryMessage::ScmRights(descriptors) = message else { continue };
            ensure!(value("FDSTORE") == Some("1") && value("FDPOLL") == Some("0"), "{text}");
            let name = value("FDNAME").context("no name")?;
            for descriptor in descriptors {
                // As systemd does, by the file and not by the name.
                let inode = |it: &OwnedFd| rustix::fs::fstat(it).map(|it| it.st_ino);
                let found = inode(&descriptor)?;
                if !self.store.iter().any(|(_, it)| inode(it) == Ok(found)) {
                    self.store.push((name.to_owned(), descriptor));
                }
            }
        }
        Ok(value("READY") == Some("1"))
    }
}
