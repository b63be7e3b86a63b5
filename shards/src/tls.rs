//! Certificates, keys and roots: read at the start, read again while the server runs.
//!
//! A connection takes what is in force when it begins and keeps it until it ends. Files that cannot be used are refused as
//! a whole, with the reason in the log, and what was in force stays so.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use comsipl_core::Transport;
use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{DnsName, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::clock::Clock;
use crate::settings::{ClientAuth, Settings, TlsSettings, TlsVersion};

mod error;
pub use error::TlsError;
mod identity;
mod validity;
mod verify;
mod watch;
pub use watch::TlsWatch;

use identity::Identities;
use verify::SipVerifier;

/// What new TLS connections begin with.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    web_client_auth: ClientAuth,
    in_force: ArcSwap<InForce>,
}

/// One reading of all files.
#[derive(Debug)]
struct InForce {
    /// For `tls` listeners.
    sip: Arc<ServerConfig>,
    /// For `wss` listeners.
    web: Arc<ServerConfig>,
    /// For connections that we open.
    dial: Arc<ClientConfig>,
    #[cfg(test)]
    identities: Arc<Identities>,
}

impl Tls {
    /// Reads the files if any listener needs them.
    ///
    /// # Errors
    /// [`TlsError`] names the file, what was expected and what was found.
    pub fn open(settings: &Settings) -> Result<Option<Self>, TlsError> {
        if !settings.listen.iter().any(|listen| listen.transport.is_secure()) {
            return Ok(None);
        }
        let web_client_auth = settings.web_socket.client_auth;
        let settings = settings.tls.clone();
        let in_force = ArcSwap::from_pointee(InForce::load(&settings, web_client_auth, now())?);
        Ok(Some(Self { settings, web_client_auth, in_force }))
    }

    /// What a connection that came in on a listener of this transport begins with.
    #[must_use]
    pub fn server(&self, transport: Transport) -> Arc<ServerConfig> {
        let in_force = self.in_force.load();
        Arc::clone(if transport.is_web_socket() { &in_force.web } else { &in_force.sip })
    }

    /// What a connection that we open begins with.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.in_force.load().dial)
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Self::open`]; then what was in force stays so.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.in_force.store(Arc::new(InForce::load(&self.settings, self.web_client_auth, now())?));
        Ok(())
    }

    /// All files that are read.
    fn files(&self) -> Vec<PathBuf> {
        self.settings.files()
    }
}

impl InForce {
    fn load(settings: &TlsSettings, web_client_auth: ClientAuth, now: Timestamp) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let identities = Arc::new(Identities::load(&settings.identities, &provider, now)?);
        let server = |auth, alpn: &[&[u8]]| server_config(settings, auth, alpn, &identities, &provider);
        Ok(Self {
            // RFC 3261 knows of no ALPN; RFC 6455 §4.1 runs over HTTP/1.1, and browsers say so.
            sip: server(settings.client_auth, &[])?,
            web: server(web_client_auth, &[b"http/1.1"])?,
            dial: client_config(settings, &identities, &provider)?,
            #[cfg(test)]
            identities,
        })
    }
}

fn server_config(
    settings: &TlsSettings,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
    identities: &Arc<Identities>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions(settings.min_version))
        .map_err(TlsError::Library)?;
    let builder = if client_auth == ClientAuth::None {
        builder.with_no_client_auth()
    } else {
        let path = settings.client_ca.as_ref().ok_or(TlsError::NoClientCa)?;
        let roots = Arc::new(identity::roots(path)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        let verifier =
            if client_auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
        // The roots are there, and there are no lists of what was revoked: nothing is left to fail.
        let verifier =
            verifier.build().map_err(|it| TlsError::Library(rustls::Error::General(it.to_string())))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder.with_cert_resolver(Arc::clone(identities) as _);
    config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    // RFC 5077, RFC 8446 §4.6.1: what a client needs to come back by half a handshake stays with the client, under keys
    // that the ticketer changes every few hours. Each reading of the files has keys of its own, so that nobody comes
    // back on the strength of a root that is no longer trusted.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Library)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn client_config(
    settings: &TlsSettings,
    identities: &Identities,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &settings.trust {
        Some(path) => identity::roots(path)?,
        None => system_roots(),
    };
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions(settings.min_version))
        .map_err(TlsError::Library)?
        .dangerous()
        .with_custom_certificate_verifier(SipVerifier::new(roots, provider))
        // RFC 3261 §26.3.1: proxies and registrars have certificates and show them to one another.
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identities.first()))));
    Ok(Arc::new(config))
}

/// The roots that the system trusts. One that it cannot read is left out, as other programs do.
fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!(
            "the system has no root certificates, so no server that is connected to by TLS will be trusted: install \
             ca-certificates, or name a PEM file by `trust` under [tls]"
        );
    }
    roots
}

/// Whom we connect to, as the certificate must say: the host's name, or the address if there is none (RFC 5922 §7.3). `None`: the
/// name is none that a certificate could have, and that of the address would prove nothing about it.
#[must_use]
pub fn server_name(host: Option<&str>, address: std::net::IpAddr) -> Option<ServerName<'static>> {
    match host {
        Some(host) => DnsName::try_from(host.to_owned()).ok().map(ServerName::DnsName),
        None => Some(ServerName::from(address)),
    }
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        TlsVersion::V1_2 => SINCE_1_2,
        TlsVersion::V1_3 => SINCE_1_3,
    }
}

fn now() -> Timestamp {
    let millis = i64::try_from(Clock::wall().0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// Versions spoken, the best first.
static SINCE_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
static SINCE_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[cfg(test)]
mod tests;
