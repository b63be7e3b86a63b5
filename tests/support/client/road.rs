//! How a client reaches the server: the transport, and what it needs for it.

use std::net::SocketAddr;
use std::path::Path;

use comsipl_core::Transport;

/// A way to the server.
#[derive(Clone, Copy, Debug)]
pub struct Road<'a> {
    /// The transport.
    pub transport: Transport,
    /// Where the server listens to it.
    pub server: SocketAddr,
    /// The password of the account, if the server asks for one.
    pub password: Option<&'a str>,
    /// The certificate of the authority that vouches for the server, for transports over TLS.
    pub trust: Option<&'a Path>,
}

impl Road<'_> {
    /// By datagrams and without a password.
    pub fn plain(server: SocketAddr) -> Self {
        Self { transport: Transport::Udp, server, password: None, trust: None }
    }

    /// The domain of the client's address. By connections it is a name: that is what a certificate is about, and everybody
    /// goes by his own road to the users of it.
    pub fn domain(&self) -> String {
        if self.transport.is_stream() { self.host() } else { self.server.to_string() }
    }

    /// The host of the domain: users are known under it whatever their port.
    pub fn host(&self) -> String {
        if self.transport.is_stream() { HOST.to_owned() } else { self.server.ip().to_string() }
    }

    /// `host:port` of the server as the client is told it.
    pub fn host_port(&self) -> String {
        if self.transport.is_secure() {
            format!("{HOST}:{}", self.server.port())
        } else {
            self.server.to_string()
        }
    }
}

/// The name of loopback, which every machine can look up.
pub const HOST: &str = "localhost";
