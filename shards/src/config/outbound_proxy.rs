//! How an outbound proxy is written: `[TRANSPORT:]HOST[:PORT]`.

use std::net::{IpAddr, Ipv4Addr};

use comsipl_core::Transport;

use crate::settings::{OutboundProxy, ProxyHost};

/// Reads `proxy.example.com`, `tls:proxy.example.com`, `udp:10.0.0.1:5060`, `[2001:db8::1]:5070` …
///
/// # Errors
/// [`ProxyError`] says what is wrong with the text.
pub fn parse_outbound_proxy(text: &str) -> Result<OutboundProxy, ProxyError> {
    let (transport, rest) = match text.split_once(':') {
        Some((word, rest)) => match Transport::by_word(word.as_bytes()) {
            Some(Transport::Ws | Transport::Wss) => return Err(ProxyError::Transport(word.to_owned())),
            Some(transport) => (Some(transport), rest),
            None if ["sctp", "dtls"].contains(&word) => return Err(ProxyError::Transport(word.to_owned())),
            None if ["sip", "sips"].contains(&word) => return Err(ProxyError::Uri),
            None => (None, text),
        },
        None => (None, text),
    };
    let no_host = || ProxyError::Host(text.to_owned());
    let (host, port) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((ip, rest))) => {
            let ip = ip.parse().map(IpAddr::V6).map_err(|_| no_host())?;
            (
                ProxyHost::Ip(ip),
                if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(no_host)?) },
            )
        }
        Some(None) => return Err(no_host()),
        None if rest.matches(':').count() > 1 => return Err(ProxyError::Brackets(text.to_owned())),
        None => {
            let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
            let host = match host.parse::<Ipv4Addr>() {
                Ok(ip) => ProxyHost::Ip(ip.into()),
                Err(_) => ProxyHost::Name(host_name(host).ok_or_else(no_host)?),
            };
            (host, port)
        }
    };
    let port = match port.map(str::parse) {
        None => None,
        Some(Ok(port @ 1..)) => Some(port),
        Some(_) => return Err(ProxyError::Port(text.to_owned())),
    };
    if matches!(host, ProxyHost::Ip(ip) if ip.is_unspecified() || ip.is_multicast()) {
        return Err(ProxyError::NoPlace(text.to_owned()));
    }
    Ok(OutboundProxy { transport, host, port })
}

/// A name that may stand in DNS as that of a host (RFC 1123 §2.1; RFC 3261 §25.1: the last label begins with a letter).
fn host_name(text: &str) -> Option<Box<str>> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next()?;
    let is_name = name.len() <= 253
        && name.split('.').all(is_label)
        && last.starts_with(|first: char| first.is_ascii_alphabetic());
    is_name.then(|| name.to_ascii_lowercase().into())
}

/// Why a text names no outbound proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// A transport by which no proxy is reached.
    Transport(String),
    /// A URI.
    Uri,
    /// Neither a name nor an address.
    Host(String),
    /// An IPv6 address without its brackets.
    Brackets(String),
    /// No port.
    Port(String),
    /// An address to which nothing can be sent.
    NoPlace(String),
}

impl ProxyError {
    /// What to write instead.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Transport(_) => "write udp, tcp or tls before the host, or nothing to have DNS decide",
            Self::Uri => "write \"tls:proxy.example.com\" in place of \"sips:proxy.example.com\"",
            Self::Brackets(_) => "write an IPv6 address in brackets, for example \"udp:[2001:db8::1]:5060\"",
            Self::Port(_) => "write a port from 1 to 65535, or none to have DNS or the transport decide",
            Self::Host(_) | Self::NoPlace(_) => {
                "write for example `outbound_proxy = \"udp:10.0.0.1:5060\"` or \"tls:proxy.example.com\"; or \"\" for none"
            }
        }
    }
}

impl std::fmt::Display for ProxyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transport(word) => write!(f, "udp, tcp or tls is expected, found \"{word}\""),
            Self::Uri => f.write_str("a host is expected, found a URI"),
            Self::Host(text) => write!(f, "the name or the address of a host is expected, found \"{text}\""),
            Self::Brackets(text) => write!(f, "an address in brackets is expected, found \"{text}\""),
            Self::Port(text) => write!(f, "a port is expected behind the host, found \"{text}\""),
            Self::NoPlace(text) => {
                write!(f, "a place to which requests can be sent is expected, found \"{text}\"")
            }
        }
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_written_again() {
        let ip = |text: &str| ProxyHost::Ip(text.parse().unwrap());
        let name = |text: &str| ProxyHost::Name(text.into());
        for (text, transport, host, port) in [
            ("10.0.0.1", None, ip("10.0.0.1"), None),
            ("udp:10.0.0.1:5060", Some(Transport::Udp), ip("10.0.0.1"), Some(5060)),
            ("[2001:db8::1]", None, ip("2001:db8::1"), None),
            ("tcp:[2001:db8::1]:5070", Some(Transport::Tcp), ip("2001:db8::1"), Some(5070)),
            ("proxy.example.com", None, name("proxy.example.com"), None),
            ("proxy.example.com:5080", None, name("proxy.example.com"), Some(5080)),
            ("tls:proxy.example.com", Some(Transport::Tls), name("proxy.example.com"), None),
        ] {
            let proxy = OutboundProxy { transport, host, port };
            assert_eq!(parse_outbound_proxy(text).as_ref(), Ok(&proxy));
            assert_eq!(proxy.to_string(), text);
        }
        let proxy = parse_outbound_proxy("TLS:Proxy.Example.COM.").unwrap();
        assert_eq!(proxy.to_string(), "tls:proxy.example.com");
    }

    /// RFC 3263 §4.1 and §4.2 for a numeric host: UDP without a transport, and the default port of the transport.
    #[test]
    fn an_address_needs_no_looking_up() {
        for (text, transport, address) in [
            ("10.0.0.1", Transport::Udp, "10.0.0.1:5060"),
            ("tls:[2001:db8::1]", Transport::Tls, "[2001:db8::1]:5061"),
            ("tcp:10.0.0.1:5070", Transport::Tcp, "10.0.0.1:5070"),
        ] {
            let proxy = parse_outbound_proxy(text).unwrap();
            assert_eq!(proxy.address(), Some((transport, address.parse().unwrap())));
            assert_eq!(proxy.name(), None);
        }
        let proxy = parse_outbound_proxy("tls:proxy.example.com").unwrap();
        assert_eq!(proxy.address(), None);
        assert_eq!(proxy.name().unwrap().transport, Some(Transport::Tls));
    }

    #[test]
    fn the_error_says_what_is_wrong() {
        for (text, error) in [
            ("ws:proxy.example.com", ProxyError::Transport("ws".to_owned())),
            ("sctp:10.0.0.1", ProxyError::Transport("sctp".to_owned())),
            ("sips:proxy.example.com", ProxyError::Uri),
            ("2001:db8::1", ProxyError::Brackets("2001:db8::1".to_owned())),
            ("10.0.0.1:0", ProxyError::Port("10.0.0.1:0".to_owned())),
            ("proxy.example.com:sip", ProxyError::Port("proxy.example.com:sip".to_owned())),
            ("udp:0.0.0.0:5060", ProxyError::NoPlace("udp:0.0.0.0:5060".to_owned())),
            ("[ff02::1]", ProxyError::NoPlace("[ff02::1]".to_owned())),
        ] {
            assert_eq!(parse_outbound_proxy(text), Err(error), "{text}");
        }
        for text in
            ["udp:", "10.0.0", "10.0.0.256", "-a.example", "a..example", "a b", "[::1", "[::1]x", "5060"]
        {
            assert_eq!(parse_outbound_proxy(text), Err(ProxyError::Host(text.to_owned())), "{text}");
        }
    }
}
