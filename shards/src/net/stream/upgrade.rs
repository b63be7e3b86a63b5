//! The opening handshake of a WebSocket, server's side (RFC 6455 §4.2, RFC 7118 §4.1): pure.

use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderMap;
use tungstenite::http::header::{
    CONNECTION, HOST, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};

/// The subprotocol (RFC 7118 §4.1).
const SUBPROTOCOL: &str = "sip";

/// Most bytes of a request: browsers send about 600, cookies included.
pub const REQUEST_LEN_MAX: usize = 8 * 1024;

/// The request of a client that wants to speak WebSocket, as far as it has come.
#[derive(Debug, Default)]
pub struct Upgrade {
    head: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its end has not come.
    Incomplete,
    /// Granted, with this answer; what follows are frames, of which the client has sent some already.
    Granted {
        /// The answer.
        answer: Vec<u8>,
        /// The beginning of the frames.
        frames: Vec<u8>,
    },
    /// Refused, with this answer, after which the connection ends.
    Refused {
        /// The answer.
        answer: Vec<u8>,
        /// Why, for the log.
        why: &'static str,
    },
}

impl Upgrade {
    /// Takes what was read. `origins` are those served, in lower case; with none of them, all are.
    pub fn take(&mut self, bytes: &[u8], origins: &[String]) -> Outcome {
        // Only what is new is searched for the empty line, so a client that sends byte by byte costs no more.
        let searched = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head[searched..].windows(4).position(|it| it == b"\r\n\r\n") else {
            return if self.head.len() < REQUEST_LEN_MAX { Outcome::Incomplete } else { TOO_LARGE.into() };
        };
        let frames = self.head.split_off(searched + end + 4);
        if self.head.len() > REQUEST_LEN_MAX {
            return TOO_LARGE.into();
        }
        match Request::try_parse(&self.head) {
            Ok(Some((_, request))) => match grant(&request, origins) {
                Ok(answer) => Outcome::Granted { answer, frames },
                Err(refusal) => refusal.into(),
            },
            Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => NOT_GET.into(),
            Err(Error::Protocol(ProtocolError::WrongHttpVersion)) => OLD_HTTP.into(),
            _ => NOT_HTTP.into(),
        }
    }
}

/// The answer that grants the request.
fn grant(request: &Request, origins: &[String]) -> Result<Vec<u8>, Refusal> {
    let headers = request.headers();
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(NO_UPGRADE);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|it| it != "13") {
        return Err(OTHER_VERSION);
    }
    if headers.get_all(HOST).iter().count() != 1 {
        return Err(NO_HOST);
    }
    if !is_origin_served(headers.get(ORIGIN), origins) {
        return Err(FOREIGN_ORIGIN);
    }
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(NO_SUBPROTOCOL);
    }
    let mut response = create_response(request).map_err(|_| BAD_KEY)?;
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let mut answer = Vec::new();
    write_response(&mut answer, &response).map_err(|_| NOT_HTTP)?;
    Ok(answer)
}

/// Whether a list of tokens has this one, in any case.
fn has_token(headers: &HeaderMap, name: &tungstenite::http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(token))
}

/// RFC 6455 §10.2: a server that is meant for certain sites only verifies that the origin is one of these.
fn is_origin_served(origin: Option<&HeaderValue>, origins: &[String]) -> bool {
    let is_listed =
        |origin: &HeaderValue| origins.iter().any(|it| it.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
    origins.is_empty() || origin.is_some_and(is_listed)
}

/// Why a request is refused.
#[derive(Clone, Copy)]
struct Refusal {
    status: &'static str,
    header: &'static str,
    why: &'static str,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, header, why } = refusal;
        let len = why.len() + 1;
        let answer = format!(
            "HTTP/1.1 {status}\r\n{header}Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\r\n\
             {why}\n"
        );
        Self::Refused { answer: answer.into_bytes(), why }
    }
}

const fn refusal(status: &'static str, header: &'static str, why: &'static str) -> Refusal {
    Refusal { status, header, why }
}

const NOT_HTTP: Refusal = refusal("400 Bad Request", "", "a WebSocket handshake is expected");
const BAD_KEY: Refusal =
    refusal("400 Bad Request", "", "a Sec-WebSocket-Key of 16 bytes in base64 is expected");
const NO_HOST: Refusal = refusal("400 Bad Request", "", "one Host is expected");
/// RFC 7118 §4.1: "The client MUST include the value "sip" in the Sec-WebSocket-Protocol header in its handshake request."
const NO_SUBPROTOCOL: Refusal =
    refusal("400 Bad Request", "", "the subprotocol is expected: Sec-WebSocket-Protocol: sip");
const FOREIGN_ORIGIN: Refusal = refusal("403 Forbidden", "", "this Origin is not served");
const NOT_GET: Refusal = refusal("405 Method Not Allowed", "Allow: GET\r\n", "the method GET is expected");
/// RFC 9110 §15.5.22: "The server MUST send an Upgrade header field in a 426 response".
const NO_UPGRADE: Refusal =
    refusal("426 Upgrade Required", "Upgrade: websocket\r\n", "SIP over WebSocket is served here: RFC 7118");
/// RFC 6455 §4.4: the server says which versions it speaks.
const OTHER_VERSION: Refusal = refusal(
    "426 Upgrade Required",
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "version 13 of WebSocket is expected",
);
const TOO_LARGE: Refusal =
    refusal("431 Request Header Fields Too Large", "", "a shorter request is expected");
const OLD_HTTP: Refusal = refusal("505 HTTP Version Not Supported", "", "HTTP/1.1 is expected");

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: sip-ws.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://www.example.com\r\n\
        Sec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// The example of RFC 7118 §4.1.
    #[test]
    fn the_example_of_the_rfc_is_granted() {
        let Outcome::Granted { answer, frames } = take(REQUEST, &[]) else { panic!("refused") };
        let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101 switching protocols\r\n"), "{answer}");
        for line in [
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
            "sec-websocket-protocol: sip",
        ] {
            assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line} in {answer}");
        }
        assert!(answer.ends_with("\r\n\r\n") && frames.is_empty());
        assert!(!answer.contains("extensions"), "compression is not offered");
    }

    #[test]
    fn pieces_make_the_same_and_what_follows_are_frames() {
        let whole = take(REQUEST, &[]);
        let text = format!("{REQUEST}frames");
        let mut upgrade = Upgrade::default();
        for byte in &REQUEST.as_bytes()[..REQUEST.len() - 1] {
            assert_eq!(upgrade.take(&[*byte], &[]), Outcome::Incomplete);
        }
        assert_eq!(upgrade.take(b"\n", &[]), whole);
        let Outcome::Granted { frames, .. } = take(&text, &[]) else { panic!("refused") };
        assert_eq!(frames, b"frames");
    }

    #[test]
    fn lists_and_case_are_read_as_http_has_them() {
        let request = REQUEST
            .replace("Connection: Upgrade", "connection: keep-alive, upgrade")
            .replace("Upgrade: websocket", "Upgrade: WebSocket")
            .replace("Sec-WebSocket-Protocol: sip", "Sec-WebSocket-Protocol: xmpp,  sip");
        assert!(matches!(take(&request, &[]), Outcome::Granted { .. }));
    }

    #[test]
    fn each_reason_has_its_status() {
        let change = |from: &str, to: &str| {
            assert!(REQUEST.contains(from));
            REQUEST.replace(from, to)
        };
        let origins = ["https://phone.example.com".to_owned()];
        for (request, status) in [
            (change("GET / ", "POST / "), "405 "),
            (change("HTTP/1.1", "HTTP/1.0"), "505 "),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "426 "),
            (change("Connection: Upgrade", "Connection: close"), "426 "),
            (change("Upgrade: websocket", "Upgrade: h2c"), "426 "),
            (change("Version: 13", "Version: 8"), "426 "),
            (change("Host: sip-ws.example.com\r\n", ""), "400 "),
            (change("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400 "),
            (change("Protocol: sip", "Protocol: xmpp"), "400 "),
            (change("Sec-WebSocket-Protocol: sip\r\n", ""), "400 "),
            (change("GET / ", "GET /\0 "), "400 "),
            ("REGISTER sip:example.com SIP/2.0\r\nTo: <sip:a@b>\r\n\r\n".to_owned(), "400 "),
            ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), "400 "),
        ] {
            assert_refused(take(&request, &[]), status);
        }
        assert_refused(take(REQUEST, &origins), "403 ");
        assert_refused(take(&change("Origin: http://www.example.com\r\n", ""), &origins), "403 ");
        let served = change("http://www.example.com", "https://Phone.example.com");
        assert!(matches!(take(&served, &origins), Outcome::Granted { .. }));
    }

    #[test]
    fn a_request_is_bounded() {
        let endless = format!("GET / HTTP/1.1\r\nCookie: {}", "x".repeat(REQUEST_LEN_MAX));
        assert_refused(take(&endless, &[]), "431 ");
        let long =
            REQUEST.replace("\r\n\r\n", &format!("\r\nCookie: {}\r\n\r\n", "x".repeat(REQUEST_LEN_MAX)));
        assert_refused(take(&long, &[]), "431 ");
        let many = REQUEST.replace("\r\n\r\n", &format!("{}\r\n\r\n", "\r\nA: b".repeat(500)));
        assert_refused(take(&many, &[]), "400 ");
    }

    fn take(request: &str, origins: &[String]) -> Outcome {
        Upgrade::default().take(request.as_bytes(), origins)
    }

    fn assert_refused(outcome: Outcome, status: &str) {
        let Outcome::Refused { answer, why } = outcome else { panic!("{outcome:?} instead of {status}") };
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())) && body.contains(why));
        assert_eq!(head.contains("Upgrade: websocket"), status == "426 ");
    }
}
