//! Why certificates and keys cannot be used.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use rustls::pki_types::pem;

/// What is wrong with which file.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    File {
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        expected: &'static str,
        /// What was found instead.
        found: pem::Error,
    },
    /// What stands in a file cannot be used.
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        expected: &'static str,
        /// What the TLS library says.
        source: rustls::Error,
    },
    /// The key is another one than that of the certificate.
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The certificate is no longer valid.
    Expired {
        /// The certificate.
        path: PathBuf,
        /// Since when.
        since: Timestamp,
    },
    /// There is a `tls` or `wss` listener, and no certificate for it.
    NoIdentity,
    /// Clients are to show certificates, and nothing is said of their roots.
    NoClientCa,
    /// The library refuses the whole.
    Library(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, expected, found } => {
                let path = path.display();
                match found {
                    pem::Error::Io(source) => {
                        write!(f, "{expected} is expected in {path}, which cannot be read: {source}")
                    }
                    pem::Error::NoItemsFound => write!(f, "{expected} is expected in {path}, found none"),
                    _ => write!(f, "{expected} is expected in {path}, found what is not PEM: {found}"),
                }?;
                f.write_str(
                    "\n  help: name a PEM file (it has lines like -----BEGIN CERTIFICATE-----) that this user may read",
                )
            }
            Self::Content { path, expected, source } => write!(
                f,
                "{expected} is expected in {}, found what cannot be used: {source}\n  help: `openssl x509 -text -in` and \
                 `openssl pkey -in` show what a file holds",
                path.display()
            ),
            Self::KeyMismatch { certificate, key } => write!(
                f,
                "the key of the certificate {} is expected in {}, found another key\n  help: name the key with which \
                 the certificate was requested; in the certificate's file, the server's own comes first",
                certificate.display(),
                key.display()
            ),
            Self::Expired { path, since } => write!(
                f,
                "a valid certificate is expected in {}, found one that ended at {since:.0}\n  help: renew it; clients \
                 refuse the old one",
                path.display()
            ),
            Self::NoIdentity => f.write_str(
                "a listener for tls or wss needs a certificate\n  help: name the PEM files by --tls-certificate and \
                 --tls-key, or `certificate` and `key` under [tls]",
            ),
            Self::NoClientCa => f.write_str(
                "clients are to show certificates, and nothing says which roots these go back to\n  help: name a PEM \
                 file by `client_ca` under [tls]",
            ),
            Self::Library(source) => write!(f, "TLS cannot be set up: {source}"),
        }
    }
}

impl std::error::Error for TlsError {}
