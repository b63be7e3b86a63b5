//! What an operator may set of TLS and of WebSocket.

use std::path::PathBuf;

/// The TLS of listeners and of connections that we open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// What we show of ourselves. The first is taken where a client names no host, or one that none of them covers.
    pub identities: Vec<IdentityFiles>,
    /// Whether phones and proxies on `tls` listeners show a certificate.
    pub client_auth: ClientAuth,
    /// The roots that clients' certificates go back to, PEM.
    pub client_ca: Option<PathBuf>,
    /// The roots that certificates of servers we connect to go back to, PEM; `None`: those of the system.
    pub trust: Option<PathBuf>,
    /// The oldest version of TLS spoken.
    pub min_version: TlsVersion,
    /// What becomes of a `sips` request that came without TLS.
    pub sips: SipsRule,
}

impl TlsSettings {
    /// All files that are read, at the start and whenever they change.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let identities = self.identities.iter().flat_map(|it| [it.certificate.clone(), it.key.clone()]);
        identities.chain(self.client_ca.clone()).chain(self.trust.clone()).collect()
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdentityFiles {
    /// The certificate and those between it and the root, in this order, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Whether clients show a certificate ("mutual TLS").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They are asked, and may have none; a bad one ends the handshake.
    Optional,
    /// Without one the handshake ends.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// What becomes of a request to a `sips` URI that reached us without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SipsRule {
    /// It is refused: RFC 3261 §26.2.2 wants TLS on every hop.
    #[default]
    Strict,
    /// It is taken, because an edge proxy of the same domain ended the TLS.
    Edge,
}

/// WebSocket listeners (RFC 7118).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocketSettings {
    /// The values of `Origin` that are served, in lower case; empty: any, and none at all.
    pub origins: Vec<String>,
    /// Whether browsers on `wss` listeners show a certificate.
    pub client_auth: ClientAuth,
}
