//! Whether the certificate of a server that we connect to is the one that was wanted (RFC 5922 §7).
//!
//! What is compared is the host that the URI or the configuration names, before anything was looked up: DNS may lie about
//! where it is, and the certificate is the proof that it did not.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

/// Accepts certificates that a trusted root signed for the host that was wanted.
#[derive(Debug)]
pub(super) struct SipVerifier {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SipVerifier {
    pub(super) fn new(roots: RootCertStore, provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self { roots, algorithms: provider.signature_verification_algorithms })
    }
}

impl ServerCertVerifier for SipVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        match server_name {
            ServerName::DnsName(host) => verify_host(end_entity, host.as_ref())?,
            // RFC 5922 speaks of domains alone; an address is compared as RFC 6125 has it.
            other => verify_server_name(&certificate, other)?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a certificate is for the domain `host`.
///
/// RFC 5922 §7.1: its identities are the hosts of its `sip` URIs without a user part, and only if there is none, its DNS names.
fn verify_host(certificate: &CertificateDer<'_>, host: &str) -> Result<(), Error> {
    let unreadable = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let certificate = EndEntityCert::try_from(certificate).map_err(unreadable)?;
    let mut domains = certificate.valid_uri_names().filter_map(sip_domain).peekable();
    let is_for_it = if domains.peek().is_some() {
        domains.any(|domain| is_same(domain, host))
    } else {
        certificate.valid_dns_names().any(|domain| is_same(domain, host))
    };
    if is_for_it { Ok(()) } else { Err(Error::InvalidCertificate(CertificateError::NotValidForName)) }
}

/// The domain that a URI in a certificate stands for.
fn sip_domain(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_domain = scheme.eq_ignore_ascii_case("sip") && !rest.contains('@');
    let end = rest.find([':', ';', '?']).unwrap_or(rest.len());
    is_domain.then_some(&rest[..end])
}

/// RFC 5922 §7.2: "Implementations MUST match the values in their entirety", and "MUST NOT match any form of wildcard".
fn is_same(domain: &str, host: &str) -> bool {
    domain.strip_suffix('.').unwrap_or(domain).eq_ignore_ascii_case(host.strip_suffix('.').unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    /// RFC 5922 §7.1 and §7.2, row by row: the URIs and names of a certificate, and for which hosts it is good.
    #[test]
    fn identities_are_sip_uris_before_names_and_match_in_their_entirety() {
        for (uris, names, good, bad) in [
            (
                &[][..],
                &["a.example"][..],
                &["a.example", "A.Example", "a.example."][..],
                &["b.a.example", "example"][..],
            ),
            (&["sip:a.example"], &["b.example"], &["a.example"], &["b.example"]),
            (&["SIP:a.example;transport=tls"], &[], &["a.example"], &["b.example"]),
            (&["sip:a.example:5061"], &[], &["a.example"], &[]),
            (&["sip:bob@a.example", "https://a.example"], &["b.example"], &["b.example"], &["a.example"]),
            (&["sips:a.example"], &[], &[], &["a.example"]),
            (&[], &["*.example"], &[], &["a.example", "example"]),
        ] {
            let mut params =
                CertificateParams::new(names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).unwrap();
            let uris = uris.iter().map(|it| SanType::URI((*it).try_into().unwrap()));
            params.subject_alt_names.extend(uris);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            for host in good {
                assert_eq!(verify_host(certificate.der(), host), Ok(()), "{host}");
            }
            for host in bad {
                assert!(
                    verify_host(certificate.der(), host).is_err(),
                    "{host} {:?}",
                    params.subject_alt_names
                );
            }
        }
    }
}
