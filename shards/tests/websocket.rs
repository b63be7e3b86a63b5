//! SIP over WebSocket (RFC 7118), by real sockets and clients of tungstenite.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConnection, StreamOwned};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::{Bytes, Error, HandshakeError, Message, WebSocket};

#[allow(dead_code)]
mod support;
use support::{NAMES, Phone, Server, ends, wait_until};

const PHONE: Phone = Phone {
    transport: "WS",
    host: "df7jal23ls0d.invalid",
    contact_params: ";transport=ws",
    content_length: false,
};

/// RFC 7118 §4.1, §4.2, §5: the handshake, both kinds of frames, no Content-Length.
#[test]
fn phones_register_and_watch_by_text_and_by_binary_messages() {
    let server = Server::start(&["ws"], |_| {});
    for (text, user) in [(true, "anna"), (false, "berta")] {
        let mut phone = open(&server);
        let say = |message: String| {
            if text { Message::text(message) } else { Message::binary(message.into_bytes()) }
        };
        phone.send(say(PHONE.register(user, 1))).unwrap();
        expect(&mut phone, text, "SIP/2.0 200 ");
        phone.send(say(PHONE.subscribe(user, 1))).unwrap();
        let answer = expect(&mut phone, text, "SIP/2.0 200 ");
        // RFC 7118 §5.3: the server may leave it out, but RFC 3261 §18.2.1 has clients expect it.
        assert!(answer.contains("\r\nVia: SIP/2.0/WS df7jal23ls0d.invalid"), "{answer}");
        let notify = expect(&mut phone, text, "NOTIFY ");
        assert!(notify.contains("\r\nVia: SIP/2.0/WS "), "{notify}");
        phone.send(say(PHONE.answer(&notify))).unwrap();
    }
    server.stop();
}

#[test]
fn browsers_use_wss() {
    let server = Server::start(&["wss"], |_| {});
    let mut config = Arc::unwrap_or_clone(server.ca.client(&[&TLS13], None));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(NAMES[0]).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = StreamOwned::new(connection, server.connect(0));
    let (mut phone, _) = tungstenite::client(request(&[]), stream).unwrap();
    assert_eq!(phone.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let phone_at = Phone { transport: "WSS", ..PHONE };
    phone.send(Message::text(phone_at.register("anna", 1))).unwrap();
    expect(&mut phone, true, "SIP/2.0 200 ");
    phone.send(Message::text(phone_at.subscribe("anna", 1))).unwrap();
    expect(&mut phone, true, "SIP/2.0 200 ");
    let notify = expect(&mut phone, true, "NOTIFY ");
    assert!(notify.contains("\r\nVia: SIP/2.0/WSS "), "{notify}");
    phone.send(Message::text(phone_at.answer(&notify))).unwrap();
    phone.close(None).unwrap();
    while phone.read().is_ok() {}
    server.stop();
}

#[test]
fn handshakes_are_refused_with_a_reason() {
    let server = Server::start(&["ws"], |settings| {
        settings.web_socket.origins = vec!["https://phone.example".to_owned()]
    });
    let origin = ("Origin", "https://phone.example");
    for (headers, status) in [
        (&[origin, ("Sec-WebSocket-Protocol", "xmpp")][..], 400),
        (&[("Origin", "https://elsewhere.example")], 403),
        (&[], 403),
    ] {
        match tungstenite::client(request(headers), server.connect(0)) {
            Err(HandshakeError::Failure(Error::Http(response))) => assert_eq!(response.status(), status),
            other => panic!("{status}: {other:?}"),
        }
    }
    assert!(tungstenite::client(request(&[origin]), server.connect(0)).is_ok());
    let mut browser = server.connect(0);
    browser.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    browser.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(answer.contains("\r\nUpgrade: websocket\r\n"), "{answer}");
    server.stop();
}

/// What comes behind the request and is left unread would turn the end of the connection into a reset, which may destroy the
/// answer (RFC 9112 §9.6).
#[test]
fn a_refused_client_that_goes_on_writing_reads_the_whole_answer_and_the_end() {
    let server = Server::start(&["ws", "wss"], |_| {});
    let name = ServerName::try_from(NAMES[0]).unwrap();
    let tls = ClientConnection::new(server.ca.client(&[&TLS13], None), name).unwrap();
    let clients: [Box<dyn ReadWrite>; 2] =
        [Box::new(server.connect(0)), Box::new(StreamOwned::new(tls, server.connect(1)))];
    for (mut client, ended) in clients.into_iter().zip(1..) {
        // More than the server reads at a time, some of it before it refuses and some of it after.
        let more = [b'x'; 100_000];
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n").unwrap();
        client.write_all(&more).unwrap();
        let mut answer = vec![0; 1];
        client.read_exact(&mut answer).unwrap();
        client.write_all(&more).unwrap();
        client.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{answer}");
        drop(client);
        wait_until("the end", || server.figures().closed_by_error == ended);
    }
    server.stop();
}

/// RFC 6455 §5.4: "Clients and servers MUST support receiving both fragmented and unfragmented messages".
#[test]
fn fragments_are_one_message_and_pings_may_stand_between_them() {
    let server = Server::start(&["ws"], |_| {});
    let mut phone = open(&server);
    let message = PHONE.register("anna", 1);
    let pieces: Vec<_> = message.as_bytes().chunks(100).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let kind = if index == 0 { Data::Text } else { Data::Continue };
        let is_last = index + 1 == pieces.len();
        let frame = Frame::message(piece.to_vec(), OpCode::Data(kind), is_last);
        phone.send(Message::Frame(frame)).unwrap();
        if is_last {
            break;
        }
        phone.send(Message::Ping(Bytes::from(vec![index as u8]))).unwrap();
        assert_eq!(phone.read().unwrap(), Message::Pong(Bytes::from(vec![index as u8])));
    }
    expect(&mut phone, true, "SIP/2.0 200 ");
    server.stop();
}

#[test]
fn byte_by_byte_is_as_good() {
    let server = Server::start(&["ws"], |_| {});
    let (mut phone, _) = tungstenite::client(request(&[]), ByteByByte(server.connect(0))).unwrap();
    phone.send(Message::text(PHONE.register("anna", 1))).unwrap();
    expect(&mut phone, true, "SIP/2.0 200 ");
    server.stop();
}

/// RFC 6455 §5.5.1: "If an endpoint receives a Close frame and did not previously send a Close frame, the endpoint MUST send a
/// Close frame in response."
#[test]
fn a_close_is_answered_and_the_connection_ends() {
    let server = Server::start(&["ws"], |_| {});
    let mut phone = open(&server);
    phone.send(Message::text(PHONE.register("anna", 1))).unwrap();
    expect(&mut phone, true, "SIP/2.0 200 ");
    phone.close(None).unwrap();
    assert!(matches!(phone.read(), Ok(Message::Close(None))));
    assert!(matches!(phone.read(), Err(Error::ConnectionClosed)));
    assert!(ends(phone.get_mut()));
    drop(phone);
    let began = std::time::Instant::now();
    while server.figures().closed_by_peer == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "the connection is not closed");
        std::thread::yield_now();
    }
    server.stop();
}

#[test]
fn what_is_not_allowed_fails_the_connection_with_its_code() {
    let server = Server::start(&["ws"], |_| {});
    let long = vec![b'x'; 70_000];
    let fragment = |kind, bytes: &[u8]| Frame::message(bytes.to_vec(), OpCode::Data(kind), false);
    for (frames, code) in [
        (vec![Frame::message(long.clone(), OpCode::Data(Data::Binary), true)], CloseCode::Size),
        (
            vec![fragment(Data::Text, &long[..40_000]), fragment(Data::Continue, &long[..40_000])],
            CloseCode::Size,
        ),
        (vec![Frame::message(vec![0xff], OpCode::Data(Data::Text), true)], CloseCode::Invalid),
        (vec![fragment(Data::Continue, b"a")], CloseCode::Protocol),
        (vec![Frame::message(vec![b'a'], OpCode::Data(Data::Reserved(3)), true)], CloseCode::Protocol),
    ] {
        let mut phone = open(&server);
        for frame in frames {
            phone.send(Message::Frame(frame)).unwrap();
        }
        // What we sent of it and nobody wanted makes no reset of the end.
        match phone.read() {
            Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, code),
            other => panic!("{code}: {other:?}"),
        }
    }
    // RFC 6455 §5.1: "The server MUST close the connection upon receiving a frame that is not masked."
    let mut phone = open(&server);
    let mut frame = Vec::new();
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    header.format(2, &mut frame).unwrap();
    frame.extend_from_slice(b"ab");
    phone.get_mut().write_all(&frame).unwrap();
    let Ok(Message::Close(Some(close))) = phone.read() else { panic!("no Close") };
    assert_eq!(close.code, CloseCode::Protocol);
    server.stop();
}

/// RFC 7118 §6: "The indication and use of the CRLF NAT keep-alive mechanism … are, of course, usable".
#[test]
fn keep_alives_of_sip_are_answered_in_a_message() {
    let server = Server::start(&["ws"], |_| {});
    let mut phone = open(&server);
    phone.send(Message::text("\r\n\r\n")).unwrap();
    assert_eq!(phone.read().unwrap(), Message::text("\r\n"));
    server.stop();
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let server = Server::start(&["ws"], |settings| settings.streams.handshake = Duration::from_secs(1));
    let mut slow = server.connect(0);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    let mut phone = open(&server);
    assert!(ends(&mut slow));
    assert_eq!(server.figures().closed_slow_handshake, 1);
    phone.send(Message::text(PHONE.register("anna", 1))).unwrap();
    expect(&mut phone, true, "SIP/2.0 200 ");
    server.stop();
}

/// Whatever else comes: keep-alives between two fragments do not hold the connection.
#[test]
fn a_frame_or_a_message_that_does_not_end_ends_its_connection() {
    let span = Duration::from_millis(500);
    let server = Server::start(&["ws"], |settings| settings.streams.message = span);
    let message = PHONE.register("anna", 1);
    let began = std::time::Instant::now();
    let mut in_frame = open(&server);
    let mut frame = Vec::new();
    let mut whole = Frame::message(message.clone().into_bytes(), OpCode::Data(Data::Text), true);
    whole.header_mut().mask = Some([1, 2, 3, 4]);
    whole.format(&mut frame).unwrap();
    in_frame.get_mut().write_all(&frame[..frame.len() - 1]).unwrap();
    let mut in_message = open(&server);
    let part = Frame::message(message.into_bytes(), OpCode::Data(Data::Text), false);
    in_message.send(Message::Frame(part)).unwrap();
    while in_message.send(Message::Ping(Bytes::new())).is_ok() && in_message.read().is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "pings hold it");
    }
    assert!(ends(in_frame.get_mut()));
    assert!(began.elapsed() >= span);
    let mut phone = open(&server);
    phone.send(Message::text(PHONE.register("berta", 1))).unwrap();
    expect(&mut phone, true, "SIP/2.0 200 ");
    assert_eq!(server.figures().closed_slow_message, 2);
    server.stop();
}

#[test]
fn goodbye_is_said_at_the_end() {
    let server = Server::start(&["ws"], |_| {});
    let mut phone = open(&server);
    phone.send(Message::text(PHONE.register("anna", 1))).unwrap();
    expect(&mut phone, true, "SIP/2.0 200 ");
    server.stop();
    let Ok(Message::Close(Some(close))) = phone.read() else { panic!("no Close") };
    assert_eq!(close.code, CloseCode::Away);
}

/// A connection with TLS or without.
trait ReadWrite: Read + Write {}

impl<S: Read + Write> ReadWrite for S {}

/// A socket that takes one byte at a time.
struct ByteByByte(TcpStream);

impl Read for ByteByByte {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ByteByByte {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn open(server: &Server) -> WebSocket<TcpStream> {
    tungstenite::client(request(&[]), server.connect(0)).unwrap().0
}

/// The handshake with these headers instead of the usual ones.
fn request(headers: &[(&'static str, &'static str)]) -> tungstenite::handshake::client::Request {
    let mut request = "ws://sip.example/".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    request
}

/// Reads one message of SIP, of the kind that we use.
fn expect<S: Read + Write>(phone: &mut WebSocket<S>, text: bool, start: &str) -> String {
    let message = phone.read().unwrap();
    assert_eq!((message.is_text(), message.is_binary()), (text, !text));
    let message = String::from_utf8(message.into_data().to_vec()).unwrap();
    assert!(message.starts_with(start), "{start} is expected, found {message}");
    message
}
