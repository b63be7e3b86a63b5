//! What tests of several modules need.

#[path = "../tests/support/ca.rs"]
pub(crate) mod ca;
pub(crate) mod engine;

use std::path::Path;

use crate::settings::{IdentityFiles, Settings};
use ca::{Ca, Identity};

/// Settings of a node that has these certificates and trusts `ca`, by files in `folder`.
pub(crate) fn with_tls(folder: &Path, ca: &Ca, identities: &[Identity]) -> Settings {
    let mut settings = Settings {
        listen: vec![crate::config::parse_listen("tls:127.0.0.1:0").unwrap()],
        ..Settings::default()
    };
    for (index, identity) in identities.iter().enumerate() {
        let (certificate, key) = identity.write(folder, &index.to_string());
        settings.tls.identities.push(IdentityFiles { certificate, key });
    }
    let root = folder.join("ca.pem");
    std::fs::write(&root, &ca.pem).unwrap();
    settings.tls.client_ca = Some(root.clone());
    settings.tls.trust = Some(root);
    settings
}
