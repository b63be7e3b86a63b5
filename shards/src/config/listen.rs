//! How an address to listen on is written: `[TRANSPORT:]ADDR:PORT`.

use std::net::{IpAddr, SocketAddr};

use comsipl_core::{Listen, Transport};

/// Reads `127.0.0.1:5060`, `udp:127.0.0.1:5060`, `tls:[::1]:5061` …; port 0 lets the kernel choose. Without a transport it is
/// UDP.
///
/// # Errors
/// [`ListenError`] says what is wrong with the text.
pub fn parse_listen(text: &str) -> Result<Listen, ListenError> {
    let (transport, address) = match text.split_once(':') {
        Some((word, rest)) => match Transport::by_word(word.as_bytes()) {
            Some(transport) => (transport, rest),
            None if ["sip", "sips", "sctp", "dtls"].contains(&word) => {
                return Err(ListenError::Transport(word.to_owned()));
            }
            None => (Transport::Udp, text),
        },
        None => (Transport::Udp, text),
    };
    if let Ok(address) = address.parse() {
        return Ok(Listen { transport, address });
    }
    let unbracketed = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
    match unbracketed.parse::<IpAddr>() {
        Ok(ip) => Err(ListenError::NoPort(transport, ip)),
        Err(_) => Err(ListenError::NoAddress(text.to_owned())),
    }
}

/// Why a text names no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// An address without a port.
    NoPort(Transport, IpAddr),
    /// Neither an address nor anything near it.
    NoAddress(String),
    /// A transport that is not served.
    Transport(String),
}

impl ListenError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NoPort(transport, ip) => {
                let address = SocketAddr::new(*ip, transport.default_port());
                format!("write \"{}\", with the usual port", Listen { transport: *transport, address })
            }
            Self::NoAddress(_) => {
                "write an address of this machine, for example \"udp:127.0.0.1:5060\" or \"udp:[::1]:5060\"; for all \
                 of them \"udp:0.0.0.0:5060\""
                    .to_owned()
            }
            Self::Transport(_) => "write \"udp:ADDRESS:PORT\", or tcp, tls, ws or wss instead of udp".to_owned(),
        }
    }
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoPort(_, ip) => write!(f, "an address with a port is expected, found {ip} without a port"),
            Self::NoAddress(text) => write!(f, "an IP address and a port are expected, found \"{text}\""),
            Self::Transport(scheme) => {
                write!(f, "udp, tcp, tls, ws or wss is expected, found \"{scheme}\"")
            }
        }
    }
}

impl std::error::Error for ListenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_the_transport() {
        for (text, transport, address) in [
            ("127.0.0.1:5060", Transport::Udp, "127.0.0.1:5060"),
            ("udp:127.0.0.1:0", Transport::Udp, "127.0.0.1:0"),
            ("UDP:0.0.0.0:5060", Transport::Udp, "0.0.0.0:5060"),
            ("[::1]:5060", Transport::Udp, "[::1]:5060"),
            ("tcp:[fe80::1%2]:5060", Transport::Tcp, "[fe80::1%2]:5060"),
            ("tls:[::1]:5061", Transport::Tls, "[::1]:5061"),
            ("ws:0.0.0.0:80", Transport::Ws, "0.0.0.0:80"),
            ("wss:0.0.0.0:443", Transport::Wss, "0.0.0.0:443"),
        ] {
            let listen = Listen { transport, address: address.parse().unwrap() };
            assert_eq!(parse_listen(text), Ok(listen), "{text}");
            assert_eq!(parse_listen(&listen.to_string()), Ok(listen));
        }
    }

    #[test]
    fn the_error_says_what_is_missing() {
        let no_port = |transport, text: &str| Err(ListenError::NoPort(transport, text.parse().unwrap()));
        assert_eq!(parse_listen("127.0.0.1"), no_port(Transport::Udp, "127.0.0.1"));
        assert_eq!(parse_listen("tls:[::1]"), no_port(Transport::Tls, "::1"));
        assert_eq!(parse_listen("::1"), no_port(Transport::Udp, "::1"));
        assert_eq!(parse_listen("sctp:127.0.0.1:5060"), Err(ListenError::Transport("sctp".to_owned())));
        for text in ["", "localhost:5060", "udp:", "127.0.0.1:65536", "5060", "udp:udp:1.2.3.4:5"] {
            assert_eq!(parse_listen(text), Err(ListenError::NoAddress(text.to_owned())), "{text}");
        }
        assert!(parse_listen("tls:::1").unwrap_err().help().contains("tls:[::1]:5061"));
    }
}
