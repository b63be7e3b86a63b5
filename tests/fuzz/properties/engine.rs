//! Datagrams are sent to a server of two shards in virtual time.

use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::Listen;
use comsipl_core::msg::{Method, parse};
use comsipl_shards::settings::Settings;
use comsipl_tests::world::{Happening, SERVER, Setup, World};

use super::parts;
use super::pidf::other_readers_accept;

/// Where the datagrams come from, in turn.
const PHONES: [SocketAddr; 2] = [phone(5060), phone(5070)];

const fn phone(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), port)
}

/// Sends the parts of the input, a fifth of a second apart, and then one request that must be answered.
pub fn hold(bytes: &[u8]) {
    let settings = Settings {
        listen: vec![Listen::udp(SERVER)],
        presence_records_max: 512,
        registered_records_max: 512,
        ..Settings::default()
    };
    let mut world = World::new(Setup { settings, ..Setup::default() });
    let mut at = Duration::ZERO;
    for (index, datagram) in parts(bytes).into_iter().take(16).enumerate() {
        world.send(PHONES[index % 2], SERVER, datagram.to_vec());
        at += Duration::from_millis(200);
        while let Some(happening) = world.next(at) {
            sent_can_be_read(&happening);
        }
    }
    // NOTIFYs are sent again, given up, and what they belonged to ends.
    at += Duration::from_secs(70);
    while let Some(happening) = world.next(at) {
        sent_can_be_read(&happening);
    }
    world.send(phone(5099), SERVER, ALIVE.to_vec());
    at += Duration::from_secs(1);
    let mut is_answered = false;
    while let Some(happening) = world.next(at) {
        sent_can_be_read(&happening);
        is_answered |= matches!(&happening, Happening::PhoneGot { to, bytes, .. }
            if to.port() == 5099 && bytes.starts_with(b"SIP/2.0 200 "));
    }
    assert!(is_answered, "{}", world.story());
}

/// A request that any server answers (RFC 3261 §11).
const ALIVE: &[u8] =
    b"OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5099;branch=z9hG4bKalive\r\n\
    Max-Forwards: 70\r\nFrom: <sip:probe@example.com>;tag=1\r\nTo: <sip:example.com>\r\nCall-ID: alive\r\n\
    CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

/// What the server sends parses, and a document in it is one.
fn sent_can_be_read(happening: &Happening) {
    let Happening::ServerSent { bytes, .. } = happening else { return };
    let message = match parse(bytes) {
        Ok(message) => message,
        // The number in CSeq is repeated as it came, too large or not.
        Err(error) if bytes.starts_with(b"SIP/2.0 4") || bytes.starts_with(b"SIP/2.0 5") => {
            assert!(error.partial.via().is_some(), "{error}: {}", bytes.escape_ascii());
            return;
        }
        Err(error) => panic!("{error}: {}", bytes.escape_ascii()),
    };
    if message.method() == Some(Method::Notify) {
        // The other packages' documents are carried as they were published.
        let read = ["pidf+xml", "dialog-info+xml", "reginfo+xml", "watcherinfo+xml"];
        let kind = message.content_type().map(|it| it.subtype());
        if !message.body().is_empty() && read.iter().any(|name| kind == Some(name.as_bytes())) {
            other_readers_accept(message.body());
        }
    }
}
