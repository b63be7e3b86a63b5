//! SIP over TLS, by real sockets and clients of rustls.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use comsipl_shards::settings::ClientAuth;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

#[allow(dead_code)]
mod support;
use support::ca::Ca;
use support::{NAMES, Phone, Server, ends, expect, wait_until};

const PHONE: Phone = Phone {
    transport: "TLS",
    host: "192.0.2.1:5061",
    contact_params: ";transport=tls",
    content_length: true,
};

/// RFC 3261 §26.3.1: "Proxy servers, redirect servers, and registrars MUST implement TLS".
#[test]
fn phones_register_and_watch_over_tls() {
    let server = Server::start(&["tls"], |_| {});
    for (version, user) in [(&TLS12, "anna"), (&TLS13, "berta")] {
        let mut phone = connect(&server, &server.ca.client(&[version], None)).unwrap();
        assert_eq!(phone.conn.alpn_protocol(), None);
        phone.write_all(PHONE.register(user, 1).as_bytes()).unwrap();
        expect(&mut phone, "SIP/2.0 200 ");
        phone.write_all(PHONE.subscribe(user, 1).as_bytes()).unwrap();
        expect(&mut phone, "SIP/2.0 200 ");
        let notify = expect(&mut phone, "NOTIFY ");
        assert!(notify.contains("\r\nVia: SIP/2.0/TLS "), "{notify}");
        phone.write_all(PHONE.answer(&notify).as_bytes()).unwrap();
    }
    let figures = server.figures();
    assert_eq!((figures.connections_accepted, figures.closed_by_error), (2, 0));
    server.stop();
}

#[test]
fn a_message_may_come_byte_by_byte_and_in_records_of_one_byte() {
    let server = Server::start(&["tls"], |_| {});
    let mut phone = connect(&server, &server.ca.client(&[&TLS13], None)).unwrap();
    for byte in PHONE.register("anna", 1).as_bytes() {
        phone.write_all(&[*byte]).unwrap();
    }
    expect(&mut phone, "SIP/2.0 200 ");
    server.stop();
}

#[test]
fn who_trusts_others_or_expects_another_host_ends_the_handshake() {
    let server = Server::start(&["tls"], |_| {});
    assert!(connect(&server, &Ca::new().client(&[&TLS13], None)).is_err());
    let config = server.ca.client(&[&TLS13], None);
    assert!(connect_as("other.example", &server, &config).is_err());
    assert!(connect_as("sip.example", &server, &config).is_ok());
    assert!(connect_as("127.0.0.1", &server, &config).is_ok());
    wait_until("both were closed", || server.figures().closed_by_error >= 2);
    server.stop();
}

/// RFC 3261 §26.3.2.1 and RFC 5922 §7: certificates of clients.
#[test]
fn where_clients_show_certificates_a_good_one_is_needed() {
    let server = Server::start(&["tls"], |settings| settings.tls.client_auth = ClientAuth::Required);
    let known = server.ca.issue(&["phone.example"]);
    let strange = Ca::new().issue(&["phone.example"]);
    for (version, user) in [(&TLS12, "anna"), (&TLS13, "berta")] {
        for (identity, served) in [(None, false), (Some(&strange), false), (Some(&known), true)] {
            let config = server.ca.client(&[version], identity);
            // With TLS 1.3 the client is done before the server has looked at its certificate.
            let registered = connect(&server, &config).is_ok_and(|mut phone| {
                let sent = phone.write_all(PHONE.register(user, 1).as_bytes());
                sent.is_ok() && phone.read_exact(&mut [0; 12]).is_ok()
            });
            assert_eq!(registered, served, "{version:?}");
        }
    }
    server.stop();
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let server = Server::start(&["tls"], |_| {});
    let config = server.ca.client(&[&TLS13], None);
    let mut old = connect(&server, &config).unwrap();
    let shown = || connect(&server, &config).unwrap().conn.peer_certificates().unwrap()[0].to_vec();
    let first = old.conn.peer_certificates().unwrap()[0].to_vec();
    assert_eq!(shown(), first);

    // By itself.
    let second = server.ca.issue(&NAMES);
    server.replace_certificate(&second);
    wait_until("the files are looked at", || shown() == second.chain()[0].to_vec());

    // When asked to; what cannot be used changes nothing.
    std::fs::write(server.folder.path().join("server.pem"), "broken").unwrap();
    server.reloader.reload();
    assert_eq!(shown(), second.chain()[0].to_vec());
    let third = server.ca.issue(&NAMES);
    server.replace_certificate(&third);
    server.reloader.reload();
    wait_until("the files are read", || shown() == third.chain()[0].to_vec());

    old.write_all(PHONE.register("anna", 1).as_bytes()).unwrap();
    expect(&mut old, "SIP/2.0 200 ");
    server.stop();
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let server = Server::start(&["tls"], |settings| settings.streams.handshake = Duration::from_secs(1));
    let mut silent = server.connect(0);
    // The beginning of a record with a ClientHello.
    let mut slow = server.connect(0);
    slow.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
    let mut phone = connect(&server, &server.ca.client(&[&TLS13], None)).unwrap();
    assert!(ends(&mut silent) && ends(&mut slow));
    assert_eq!(server.figures().closed_slow_handshake, 2);
    phone.write_all(PHONE.register("anna", 1).as_bytes()).unwrap();
    expect(&mut phone, "SIP/2.0 200 ");
    server.stop();
}

#[test]
fn a_record_that_does_not_end_ends_its_connection() {
    let span = Duration::from_millis(500);
    let server = Server::start(&["tls"], |settings| settings.streams.message = span);
    let config = server.ca.client(&[&TLS13], None);
    let mut phone = connect(&server, &config).unwrap();
    phone.write_all(PHONE.register("anna", 1).as_bytes()).unwrap();
    expect(&mut phone, "SIP/2.0 200 ");
    let began = std::time::Instant::now();
    let mut record = Vec::new();
    phone.conn.writer().write_all(b"\r\n\r\n").unwrap();
    phone.conn.write_tls(&mut record).unwrap();
    phone.sock.write_all(&record[..record.len() - 1]).unwrap();
    assert!(ends(&mut phone.sock));
    assert!(began.elapsed() >= span);
    assert_eq!((server.figures().closed_slow_message, server.figures().closed_slow_handshake), (1, 0));
    server.stop();
}

#[test]
fn what_is_no_record_or_is_cut_short_ends_its_connection_alone() {
    let server = Server::start(&["tls"], |_| {});
    let config = server.ca.client(&[&TLS13], None);
    let mut good = connect(&server, &config).unwrap();
    let mut plain = server.connect(0);
    plain.write_all(PHONE.register("anna", 1).as_bytes()).unwrap();
    assert!(ends(&mut plain));
    let mut cut = connect(&server, &config).unwrap();
    let mut record = Vec::new();
    cut.conn.writer().write_all(PHONE.register("anna", 1).as_bytes()).unwrap();
    cut.conn.write_tls(&mut record).unwrap();
    cut.sock.write_all(&record[..record.len() / 2]).unwrap();
    cut.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(ends(&mut cut.sock));
    let mut changed = connect(&server, &config).unwrap();
    changed.conn.writer().write_all(PHONE.register("anna", 1).as_bytes()).unwrap();
    record.clear();
    changed.conn.write_tls(&mut record).unwrap();
    *record.last_mut().unwrap() ^= 1;
    changed.sock.write_all(&record).unwrap();
    assert!(ends(&mut changed.sock));
    good.write_all(PHONE.register("berta", 1).as_bytes()).unwrap();
    expect(&mut good, "SIP/2.0 200 ");
    server.stop();
}

/// RFC 8446 §6.1: "Each party MUST send a "close_notify" alert before closing its write side of the connection".
#[test]
fn goodbye_is_said_at_the_end() {
    let server = Server::start(&["tls"], |_| {});
    let mut phone = connect(&server, &server.ca.client(&[&TLS13], None)).unwrap();
    phone.write_all(PHONE.register("anna", 1).as_bytes()).unwrap();
    expect(&mut phone, "SIP/2.0 200 ");
    server.stop();
    assert_eq!(phone.read(&mut [0; 16]).unwrap(), 0, "not an unexpected end");
}

fn connect(
    server: &Server,
    config: &Arc<ClientConfig>,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    connect_as(NAMES[0], server, config)
}

/// Connects, and ends the handshake.
fn connect_as(
    name: &'static str,
    server: &Server,
    config: &Arc<ClientConfig>,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(name).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, server.connect(0));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}
