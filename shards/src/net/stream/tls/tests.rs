//! Sessions over sockets that are two queues.

use std::collections::VecDeque;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tempfile::TempDir;

use super::*;
use crate::settings::{ClientAuth, Settings, TlsVersion};
use crate::testing::ca::{Ca, Identity};
use crate::testing::with_tls;

#[test]
fn both_versions_bring_bytes_both_ways_however_they_are_cut() {
    let server = Server::new(|_| {});
    for version in [&TLS12, &TLS13] {
        for step in [1, 7, usize::MAX] {
            let mut talk = server.talk(&server.client(&[version], None), "a.example", step);
            talk.shake_hands().unwrap();
            assert_eq!(talk.client.protocol_version(), Some(version.version));
            talk.client_says(b"REGISTER");
            assert_eq!(talk.server_reads().unwrap(), b"REGISTER");
            talk.server_says(&[b'x'; 100_000]);
            assert_eq!(talk.client_reads(100_000), vec![b'x'; 100_000]);
        }
    }
}

#[test]
fn an_old_version_is_refused_if_a_newer_one_is_wanted() {
    let server = Server::new(|settings| settings.tls.min_version = TlsVersion::V1_3);
    let mut talk = server.talk(&server.client(&[&TLS12], None), "a.example", usize::MAX);
    assert!(talk.shake_hands().is_err());
    server.talk(&server.client(&[&TLS13], None), "a.example", usize::MAX).shake_hands().unwrap();
}

#[test]
fn clients_show_certificates_as_they_are_asked_to() {
    let stranger = Ca::new().issue(&["phone"]);
    for (auth, none, strange) in [
        (ClientAuth::None, true, true),
        (ClientAuth::Optional, true, false),
        (ClientAuth::Required, false, false),
    ] {
        let server = Server::new(|settings| settings.tls.client_auth = auth);
        let known = server.ca.issue(&["phone"]);
        for version in [&TLS12, &TLS13] {
            for (identity, accepted) in [(None, none), (Some(&stranger), strange), (Some(&known), true)] {
                let client = server.client(&[version], identity);
                let result = server.talk(&client, "a.example", usize::MAX).shake_hands();
                assert_eq!(result.is_ok(), accepted, "{auth:?} {version:?} {result:?}");
            }
        }
    }
}

#[test]
fn a_client_that_trusts_others_is_told_to_go() {
    let server = Server::new(|_| {});
    let client = Ca::new().client(&[&TLS13], None);
    let error = server.talk(&client, "a.example", usize::MAX).shake_hands().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn the_certificate_is_that_of_the_host_named() {
    let server = Server::new(|_| {});
    for (name, index) in [("a.example", 0), ("b.example", 1)] {
        let mut talk = server.talk(&server.client(&[&TLS13], None), name, usize::MAX);
        talk.shake_hands().unwrap();
        assert_eq!(talk.client.peer_certificates().unwrap()[0], server.identities[index].chain()[0]);
    }
}

/// RFC 8446 §2.2: a client that comes back shakes half a hand.
#[test]
fn a_client_that_comes_back_resumes() {
    let server = Server::new(|_| {});
    for version in [&TLS12, &TLS13] {
        let client = server.client(&[version], None);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut talk = server.talk(&client, "a.example", usize::MAX);
            talk.shake_hands().unwrap();
            // The ticket of TLS 1.3 comes with the first bytes.
            talk.server_says(b"x");
            talk.client_reads(1);
            assert_eq!(talk.client.handshake_kind(), Some(kind), "{version:?}");
        }
        server.tls.reload().unwrap();
        let mut talk = server.talk(&client, "a.example", usize::MAX);
        talk.shake_hands().unwrap();
        assert_eq!(
            talk.client.handshake_kind(),
            Some(HandshakeKind::Full),
            "other keys since the files were read"
        );
    }
}

#[test]
fn what_is_no_record_ends_the_connection() {
    let server = Server::new(|_| {});
    for garbage in [&b"REGISTER sip:example.com SIP/2.0\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 64]] {
        let mut session = TlsSession::accept(&server.tls, Transport::Tls).unwrap();
        let mut socket = Socket::new(usize::MAX);
        socket.incoming.extend(garbage);
        socket.ended = true;
        let error = session.over(&mut socket).read(&mut [0; 64]).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_record_that_is_cut_short_brings_nothing_and_one_that_is_changed_ends_it() {
    let server = Server::new(|_| {});
    let client = server.client(&[&TLS13], None);
    let mut talk = server.talk(&client, "a.example", usize::MAX);
    talk.shake_hands().unwrap();
    talk.client_says(b"SUBSCRIBE");
    talk.server_socket.incoming.pop_back();
    assert_eq!(talk.server_reads().unwrap(), b"");
    talk.server_socket.ended = true;
    assert_eq!(talk.server.over(&mut talk.server_socket).read(&mut [0; 64]).unwrap(), 0, "the end");

    let mut talk = server.talk(&client, "a.example", usize::MAX);
    talk.shake_hands().unwrap();
    talk.client_says(b"SUBSCRIBE");
    *talk.server_socket.incoming.back_mut().unwrap() ^= 1;
    assert_eq!(talk.server_reads().unwrap_err().kind(), io::ErrorKind::InvalidData);
    let alert = talk.client.read_tls(&mut &talk.server_socket.sent()[..]).and_then(|_| {
        talk.client.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    assert!(alert.unwrap_err().to_string().contains("BadRecordMac"), "the client is told");
}

/// RFC 8446 §5.1: a message of the handshake may be cut into records and "MUST NOT be interleaved with other record types", so
/// who is within one sends records that bring nothing.
#[test]
fn a_session_is_within_a_record_until_its_end_and_in_records_that_bring_nothing() {
    let server = Server::new(|_| {});
    let mut talk = server.talk(&server.client(&[&TLS13], None), "a.example", usize::MAX);
    talk.shake_hands().unwrap();
    assert!(!talk.server.is_within_unit());
    talk.client_says(b"SUBSCRIBE");
    let last = talk.server_socket.incoming.pop_back().unwrap();
    talk.server_reads().unwrap();
    assert!(talk.server.is_within_unit());
    talk.server_socket.incoming.push_back(last);
    assert_eq!(talk.server_reads().unwrap(), b"SUBSCRIBE");
    assert!(!talk.server.is_within_unit());
    for count in 1..=IDLE_RECORDS_MAX + 1 {
        talk.client.refresh_traffic_keys().unwrap();
        talk.send();
        assert_eq!(talk.server_reads().unwrap(), b"");
        assert_eq!(talk.server.is_within_unit(), count > IDLE_RECORDS_MAX, "{count}");
    }
    talk.client_says(b"PUBLISH");
    assert_eq!(talk.server_reads().unwrap(), b"PUBLISH");
    assert!(!talk.server.is_within_unit());
}

#[test]
fn records_that_wait_are_bounded() {
    let server = Server::new(|_| {});
    let mut talk = server.talk(&server.client(&[&TLS13], None), "a.example", usize::MAX);
    talk.shake_hands().unwrap();
    talk.server_socket.room = 0;
    let mut taken = 0;
    let mut stream = talk.server.over(&mut talk.server_socket);
    loop {
        match stream.write(&[0; 1000]) {
            Ok(count) => taken += count,
            Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    assert!((1000..=RECORDS_LEN_MAX).contains(&taken), "{taken}");
    talk.server_socket.room = usize::MAX;
    assert!(!talk.server.flush(&mut talk.server_socket).unwrap());
    assert_eq!(talk.client_reads(taken).len(), taken);
}

#[test]
fn goodbye_follows_what_was_written() {
    let server = Server::new(|_| {});
    let mut talk = server.talk(&server.client(&[&TLS12], None), "a.example", usize::MAX);
    talk.shake_hands().unwrap();
    talk.server_says(b"last");
    talk.server.say_goodbye();
    talk.server.flush(&mut talk.server_socket).unwrap();
    assert_eq!(talk.client_reads(4), b"last");
    assert_eq!(talk.client.reader().read(&mut [0; 8]).unwrap(), 0, "a clean end");
}

#[test]
fn a_server_that_we_connect_to_must_have_the_address_in_its_certificate() {
    let server = Server::new(|_| {});
    for (host, address, accepted) in [
        (None, "127.0.0.1", true),
        (None, "127.0.0.2", false),
        (Some("a.example"), "127.0.0.2", true),
        (Some("c.example"), "127.0.0.1", false),
    ] {
        let mut us = TlsSession::dial(&server.tls, host, address.parse().unwrap()).unwrap();
        let mut them = TlsSession::accept(&server.tls, Transport::Tls).unwrap();
        let (mut our_socket, mut their_socket) = (Socket::new(usize::MAX), Socket::new(usize::MAX));
        let mut result = Ok(());
        for _ in 0..10 {
            result = result.and(read_some(&mut us, &mut our_socket));
            their_socket.incoming.extend(std::mem::take(&mut our_socket.outgoing));
            let _ = read_some(&mut them, &mut their_socket);
            our_socket.incoming.extend(std::mem::take(&mut their_socket.outgoing));
        }
        assert_eq!(result.is_ok(), accepted, "{host:?} {address}");
        assert_eq!(!us.is_handshaking() && !them.is_handshaking(), accepted);
    }
}

fn read_some(session: &mut TlsSession, socket: &mut Socket) -> io::Result<()> {
    match session.over(socket).read(&mut [0; 1024]) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => session.flush(socket).map(|_| ()),
    }
}

/// Certificates for two hosts, and a root that clients trust.
struct Server {
    ca: Ca,
    identities: [Identity; 2],
    tls: Tls,
    /// The files are read again.
    _folder: TempDir,
}

impl Server {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
        let identities = [ca.issue(&["a.example", "127.0.0.1"]), ca.issue(&["b.example"])];
        let mut settings = with_tls(folder.path(), &ca, &identities);
        change(&mut settings);
        let tls = Tls::open(&settings).unwrap().unwrap();
        Self { ca, identities, tls, _folder: folder }
    }

    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> Arc<ClientConfig> {
        self.ca.client(versions, identity)
    }

    fn talk(&self, client: &Arc<ClientConfig>, name: &'static str, step: usize) -> Talk {
        let name = ServerName::try_from(name).unwrap();
        Talk {
            client: ClientConnection::new(Arc::clone(client), name).unwrap(),
            server: TlsSession::accept(&self.tls, Transport::Tls).unwrap(),
            server_socket: Socket::new(step),
        }
    }
}

/// A client and our session.
struct Talk {
    client: ClientConnection,
    server: TlsSession,
    server_socket: Socket,
}

impl Talk {
    fn shake_hands(&mut self) -> io::Result<()> {
        for _ in 0..100 {
            self.send();
            self.server_reads()?;
            self.deliver();
            if !self.client.is_handshaking() && !self.server.is_handshaking() {
                return Ok(());
            }
        }
        panic!("the handshake does not end");
    }

    fn client_says(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).unwrap();
        self.send();
    }

    /// The client's records into the server's socket.
    fn send(&mut self) {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.server_socket.incoming).unwrap();
        }
    }

    /// The server's records to the client.
    fn deliver(&mut self) {
        let sent = self.server_socket.sent();
        let mut sent = &sent[..];
        while !sent.is_empty() && self.client.read_tls(&mut sent).unwrap() > 0 {
            // What is wrong shows at the server.
            let _ = self.client.process_new_packets();
        }
    }

    fn server_reads(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            match self.server.over(&mut self.server_socket).read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(bytes),
                Err(error) => return Err(error),
            }
        }
    }

    fn server_says(&mut self, bytes: &[u8]) {
        let mut stream = self.server.over(&mut self.server_socket);
        stream.write_all(bytes).unwrap();
        stream.flush().unwrap();
    }

    fn client_reads(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let sent = self.server_socket.sent();
        let mut sent = &sent[..];
        while bytes.len() < len {
            self.client.read_tls(&mut sent).unwrap();
            self.client.process_new_packets().unwrap();
            let mut buffer = [0; 32 * 1024];
            while let Ok(count @ 1..) = self.client.reader().read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..count]);
            }
        }
        assert!(sent.is_empty(), "all was read");
        bytes
    }
}

/// A socket that gives and takes so many bytes at once.
struct Socket {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    step: usize,
    room: usize,
    ended: bool,
}

impl Socket {
    fn new(step: usize) -> Self {
        Self { incoming: VecDeque::new(), outgoing: Vec::new(), step, room: usize::MAX, ended: false }
    }

    /// What was written, taken out.
    fn sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bound = buffer.len().min(self.step);
        self.incoming.read(&mut buffer[..bound])
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.step).min(self.room);
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room = self.room.saturating_sub(count);
        self.outgoing.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
