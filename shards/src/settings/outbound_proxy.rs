//! The proxy of the operator to which NOTIFYs go that no connection of the watcher leads to.

use std::net::{IpAddr, SocketAddr};

use comsipl_core::Transport;
use comsipl_core::locate::HopName;

/// An outbound proxy, as far as it was written; what is missing is found as RFC 3263 §4 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundProxy {
    /// By what it is reached, if that is said.
    pub transport: Option<Transport>,
    /// Where it is.
    pub host: ProxyHost,
    /// Its port, if that is said.
    pub port: Option<u16>,
}

/// The host of an outbound proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyHost {
    /// Its address.
    Ip(IpAddr),
    /// Its name, in lower case and without a dot at the end.
    Name(Box<str>),
}

impl OutboundProxy {
    /// Where it is, if it was given in numbers.
    #[must_use]
    pub fn address(&self) -> Option<(Transport, SocketAddr)> {
        let ProxyHost::Ip(ip) = self.host else { return None };
        let transport = self.transport.unwrap_or_default();
        Some((transport, SocketAddr::new(ip, self.port.unwrap_or(transport.default_port()))))
    }

    /// What must be looked up to find it, if it was given by name.
    #[must_use]
    pub fn name(&self) -> Option<HopName<'_>> {
        let ProxyHost::Name(host) = &self.host else { return None };
        Some(HopName { host: host.as_bytes(), port: self.port, transport: self.transport, secure: false })
    }
}

impl std::fmt::Display for OutboundProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(transport) = self.transport {
            write!(f, "{}:", transport.word())?;
        }
        match &self.host {
            ProxyHost::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            ProxyHost::Ip(ip) => write!(f, "{ip}")?,
            ProxyHost::Name(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}
