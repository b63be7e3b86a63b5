//! A certificate authority for one test, and the certificate of the server that it vouches for.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use super::road::HOST;

/// Its files. Dropping it removes them.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Makes the keys and certificates of an authority and of a server on loopback.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("comsipl-authority-").tempdir()?;
        let mut ours = CertificateParams::new(Vec::new())?;
        ours.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        ours.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ours.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let our_key = KeyPair::generate()?;
        std::fs::write(folder.path().join(OURS), ours.self_signed(&our_key)?.pem())?;

        let mut server = CertificateParams::new(vec![HOST.to_owned(), "127.0.0.1".to_owned()])?;
        server.distinguished_name.push(DnType::CommonName, HOST);
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &Issuer::new(ours, our_key))?;
        std::fs::write(folder.path().join(SERVER), certificate.pem())?;
        std::fs::write(folder.path().join(KEY), key.serialize_pem())?;
        Ok(Self { folder })
    }

    /// The certificate of the authority, which clients trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join(OURS)
    }

    /// Puts the server's certificate and key of another authority into the place of those here.
    ///
    /// # Errors
    /// When the files cannot be copied or renamed.
    pub fn replace_server(&self, other: &Self) -> Result<()> {
        for name in [KEY, SERVER] {
            let (next, place) = (self.folder.path().join("next"), self.folder.path().join(name));
            std::fs::copy(other.folder.path().join(name), &next)?;
            std::fs::rename(next, place)?;
        }
        Ok(())
    }

    /// The lines of the server's configuration that name its certificate.
    pub fn server_config(&self) -> String {
        let path = |name| quoted(&self.folder.path().join(name));
        format!("[tls]\ncertificate = {}\nkey = {}\n", path(SERVER), path(KEY))
    }
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

const OURS: &str = "authority.pem";
const SERVER: &str = "server.pem";
const KEY: &str = "server.key";
