//! How an address to listen on is written: `[udp:]ADDR:PORT`.

use std::net::{IpAddr, SocketAddr};

/// Reads `127.0.0.1:5060`, `udp:127.0.0.1:5060` or `udp:[::1]:5060`; port 0 lets the kernel choose.
///
/// # Errors
/// [`ListenError`] says what is wrong with the text.
pub fn parse_listen(text: &str) -> Result<SocketAddr, ListenError> {
    let address = match text.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("udp") => rest,
        Some((scheme, _)) if ["tcp", "tls", "ws", "wss", "sip", "sips"].contains(&scheme) => {
            return Err(ListenError::Transport(scheme.to_owned()));
        }
        _ => text,
    };
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let unbracketed = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
    match unbracketed.parse::<IpAddr>() {
        Ok(ip) => Err(ListenError::NoPort(ip)),
        Err(_) => Err(ListenError::NoAddress(text.to_owned())),
    }
}

/// An address to listen on as it is written.
#[must_use]
pub fn listen_text(address: SocketAddr) -> String {
    format!("udp:{address}")
}

/// Why a text names no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// An address without a port.
    NoPort(IpAddr),
    /// Neither an address nor anything near it.
    NoAddress(String),
    /// Another transport than UDP.
    Transport(String),
}

impl ListenError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NoPort(ip) => {
                format!("write \"{}\"; 5060 is the usual port of SIP", listen_text(SocketAddr::new(*ip, 5060)))
            }
            Self::NoAddress(_) => {
                "write an address of this machine, for example \"udp:127.0.0.1:5060\" or \"udp:[::1]:5060\"; for all \
                 of them \"udp:0.0.0.0:5060\""
                    .to_owned()
            }
            Self::Transport(_) => "write \"udp:ADDRESS:PORT\"".to_owned(),
        }
    }
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoPort(ip) => write!(f, "an address with a port is expected, found {ip} without a port"),
            Self::NoAddress(text) => write!(f, "an IP address and a port are expected, found \"{text}\""),
            Self::Transport(scheme) => write!(f, "udp is the only transport there is, found \"{scheme}\""),
        }
    }
}

impl std::error::Error for ListenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_the_transport() {
        for (text, address) in [
            ("127.0.0.1:5060", "127.0.0.1:5060"),
            ("udp:127.0.0.1:0", "127.0.0.1:0"),
            ("UDP:0.0.0.0:5060", "0.0.0.0:5060"),
            ("[::1]:5060", "[::1]:5060"),
            ("udp:[fe80::1%2]:5060", "[fe80::1%2]:5060"),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(parse_listen(text), Ok(address), "{text}");
            assert_eq!(parse_listen(&listen_text(address)), Ok(address));
        }
    }

    #[test]
    fn the_error_says_what_is_missing() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(parse_listen("127.0.0.1"), Err(ListenError::NoPort(ip("127.0.0.1"))));
        assert_eq!(parse_listen("udp:[::1]"), Err(ListenError::NoPort(ip("::1"))));
        assert_eq!(parse_listen("::1"), Err(ListenError::NoPort(ip("::1"))));
        assert_eq!(parse_listen("tcp:127.0.0.1:5060"), Err(ListenError::Transport("tcp".to_owned())));
        for text in ["", "localhost:5060", "udp:", "127.0.0.1:65536", "5060", "udp:udp:1.2.3.4:5"] {
            assert_eq!(parse_listen(text), Err(ListenError::NoAddress(text.to_owned())), "{text}");
        }
        assert!(parse_listen("::1").unwrap_err().help().contains("udp:[::1]:5060"));
    }
}
