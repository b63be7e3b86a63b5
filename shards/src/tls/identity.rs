//! Certificates with their keys, as they stand in PEM files.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::TlsError;
use super::validity::Validity;
use crate::settings::IdentityFiles;

/// What we show of ourselves: the first, or the one that covers the host a client names (RFC 6066 §3).
#[derive(Debug)]
pub(super) struct Identities(Vec<Arc<CertifiedKey>>);

impl Identities {
    /// Reads them all; `now` tells which have ended.
    pub(super) fn load(
        files: &[IdentityFiles],
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        if files.is_empty() {
            return Err(TlsError::NoIdentity);
        }
        let keys = files.iter().map(|files| load(files, provider, now).map(Arc::new));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The first.
    pub(super) fn first(&self) -> &Arc<CertifiedKey> {
        &self.0[0]
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| self.0.iter().filter(fits).find(|it| covers(it, &name)));
        named.or_else(|| self.0.iter().find(fits)).map(Arc::clone)
    }
}

/// Whether a certificate is one of this host.
fn covers(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    certificate.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

fn load(files: &IdentityFiles, provider: &CryptoProvider, now: Timestamp) -> Result<CertifiedKey, TlsError> {
    let path = &files.certificate;
    let chain = certificates(path)?;
    let expected = CERTIFICATE;
    let bad = |source| TlsError::Content { path: path.clone(), expected, source };
    let validity = Validity::of(&chain[0])
        .ok_or_else(|| bad(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding)))?;
    ParsedCertificate::try_from(&chain[0]).map_err(bad)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|found| TlsError::File {
        path: files.key.clone(),
        expected: KEY,
        found,
    })?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|source| match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::KeyMismatch { certificate: path.clone(), key: files.key.clone() }
        }
        source => TlsError::Content { path: files.key.clone(), expected: KEY, source },
    })?;
    // After all else, so that an old certificate with a wrong key is not renewed in vain.
    if validity.not_after < now {
        return Err(TlsError::Expired { path: path.clone(), since: validity.not_after });
    }
    warn_of_dates(path, validity, now);
    Ok(key)
}

/// Says what the operator should do about a certificate before it is too late.
fn warn_of_dates(path: &Path, validity: Validity, now: Timestamp) {
    let path = path.display();
    if now < validity.not_before {
        tracing::warn!("the certificate {path} is not valid before {:.0}", validity.not_before);
    }
    let days = days_left(validity, now);
    if days < DAYS_LEFT_MIN {
        tracing::warn!("the certificate {path} ends in {days} days, at {:.0}: renew it", validity.not_after);
    }
}

/// Whole days until a certificate ends.
fn days_left(validity: Validity, now: Timestamp) -> i64 {
    (validity.not_after.as_second() - now.as_second()) / 86_400
}

/// The certificates in a file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |found| TlsError::File { path: path.to_path_buf(), expected: CERTIFICATE, found };
    let all = CertificateDer::pem_file_iter(path).map_err(bad)?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if all.is_empty() { Err(bad(pem::Error::NoItemsFound)) } else { Ok(all) }
}

/// The roots in a file; each must be one.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Content {
            path: path.to_path_buf(),
            expected: "a root certificate",
            source,
        })?;
    }
    Ok(roots)
}

/// What is expected in a file.
const CERTIFICATE: &str = "a certificate";
const KEY: &str = "a private key";

/// With fewer days left, the operator is warned.
const DAYS_LEFT_MIN: i64 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let validity =
            Validity { not_before: at("2026-01-01T00:00:00Z"), not_after: at("2026-02-01T00:00:00Z") };
        assert_eq!(days_left(validity, at("2026-01-18T00:00:00Z")), 14);
        assert_eq!(days_left(validity, at("2026-01-18T00:00:01Z")), 13);
    }
}
