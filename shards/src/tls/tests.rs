//! What files can be used, and what is said of those that cannot.

use std::path::Path;

use comsipl_core::Listen;
use tempfile::TempDir;

use super::*;
use crate::settings::IdentityFiles;
use crate::testing::ca::{Ca, Identity};

#[test]
fn without_a_secure_listener_no_file_is_read() {
    let mut settings = settings(&[("/nowhere.pem".as_ref(), "/nowhere.key".as_ref())]);
    settings.listen = vec![Listen::udp("127.0.0.1:0".parse().unwrap())];
    assert!(Tls::open(&settings).unwrap().is_none());
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (good, good_key) = ca.issue(&["a.example"]).write(folder.path(), "good");
    let (other, _) = ca.issue(&["b.example"]).write(folder.path(), "other");
    let (old, old_key) = ca.issue_until(&["a.example"], 2020).write(folder.path(), "old");
    let text = folder.path().join("text.pem");
    std::fs::write(&text, "no PEM\n").unwrap();
    let broken = folder.path().join("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let nowhere = folder.path().join("nowhere.pem");
    for (certificate, key, parts) in [
        (&nowhere, &good_key, &["a certificate is expected", "nowhere.pem", "cannot be read"][..]),
        (&good, &nowhere, &["a private key is expected", "nowhere.pem", "cannot be read"]),
        (&text, &good_key, &["a certificate is expected", "text.pem", "found none"]),
        (&good, &text, &["a private key is expected", "text.pem", "found none"]),
        (&broken, &good_key, &["a certificate is expected", "broken.pem", "cannot be used"]),
        (&other, &good_key, &["the key of the certificate", "other.pem", "good.key", "another key"]),
        (&old, &old_key, &["a valid certificate is expected", "old.pem", "ended at 2020-01-01"]),
    ] {
        let error = Tls::open(&settings(&[(certificate, key)])).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(error.contains("help: "), "{error}");
    }
    assert!(matches!(Tls::open(&settings(&[])), Err(TlsError::NoIdentity)));
    let mut without_ca = settings(&[(&good, &good_key)]);
    without_ca.tls.client_auth = ClientAuth::Required;
    assert!(matches!(Tls::open(&without_ca), Err(TlsError::NoClientCa)));
    without_ca.tls.client_ca = Some(text);
    assert!(matches!(Tls::open(&without_ca), Err(TlsError::File { .. })));
    assert!(Tls::open(&settings(&[(&good, &good_key)])).unwrap().is_some());
}

#[test]
fn changed_files_are_read_once_they_are_left_alone_and_only_if_they_are_right() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = ca.issue(&["a.example"]).write(folder.path(), "it");
    let tls = Arc::new(Tls::open(&settings(&[(&certificate, &key)])).unwrap().unwrap());
    let mut watch = TlsWatch::new(Arc::clone(&tls));
    let first = shown(&tls);
    watch.look();
    assert_eq!(shown(&tls), first);

    // The certificate is there before its key.
    let next = ca.issue(&["a.example"]);
    std::fs::write(&certificate, &next.certificate).unwrap();
    watch.look();
    assert_eq!(shown(&tls), first, "it may be half there");
    watch.look();
    assert_eq!(shown(&tls), first, "the key is another one");
    std::fs::write(&key, &next.key).unwrap();
    watch.look();
    watch.look();
    assert_eq!(shown(&tls), next.chain()[0].to_vec());

    // Told to, it does not wait.
    let last = ca.issue(&["a.example"]);
    replace(&folder, &last);
    watch.reload();
    assert_eq!(shown(&tls), last.chain()[0].to_vec());
    std::fs::remove_file(&key).unwrap();
    watch.reload();
    assert_eq!(shown(&tls), last.chain()[0].to_vec());
}

/// Puts other files into the place of the first.
fn replace(folder: &TempDir, identity: &Identity) {
    let (certificate, key) = identity.write(folder.path(), "new");
    std::fs::rename(certificate, folder.path().join("it.pem")).unwrap();
    std::fs::rename(key, folder.path().join("it.key")).unwrap();
}

/// The certificate that new connections show.
fn shown(tls: &Tls) -> Vec<u8> {
    tls.in_force.load().identities.first().cert[0].to_vec()
}

fn settings(identities: &[(&Path, &Path)]) -> Settings {
    let identities = identities
        .iter()
        .map(|(certificate, key)| IdentityFiles {
            certificate: certificate.to_path_buf(),
            key: key.to_path_buf(),
        })
        .collect();
    let mut settings = Settings {
        listen: vec![crate::config::parse_listen("tls:127.0.0.1:0").unwrap()],
        ..Settings::default()
    };
    settings.tls.identities = identities;
    settings
}
