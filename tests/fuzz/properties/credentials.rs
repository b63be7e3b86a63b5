//! The value of an Authorization header field is read, written again, and proven (RFC 7616 §3.4).

use comsipl_core::auth::{Algorithm, CREDENTIALS_LEN_MAX, Credentials, Hash};

/// Checks one value.
pub fn hold(bytes: &[u8]) {
    let Ok(read) = Credentials::parse(bytes) else { return };
    written_again(&read);
    let mut name = Vec::new();
    read.username_into(&mut name);
    assert!(name.len() <= read.username.len());
    let mut room = Vec::new();
    assert!(read.is_about(read.uri, &mut room), "the resource is itself");
    let _ = read.is_about(b"sip:alice@example.com", &mut room);
    let Some(protection) = &read.protection else { return };
    let algorithm = Algorithm::named(read.algorithm).unwrap_or(Algorithm::Md5);
    let secret = algorithm.secret(&name, read.realm, b"right");
    let other = algorithm.secret(&name, read.realm, b"wrong");
    // What the holder of the secret would have said is believed, and nobody else's word.
    let (mut a1, mut a2, mut said) = ([0; 2 * Hash::LEN_MAX], [0; 2 * Hash::LEN_MAX], [0; 2 * Hash::LEN_MAX]);
    let response = algorithm.hash(&[
        secret.hex(&mut a1),
        read.nonce,
        protection.count_text,
        protection.cnonce,
        protection.qop,
        algorithm.hash(&[b"REGISTER", read.uri]).hex(&mut a2),
    ]);
    let proven = Credentials { response: response.hex(&mut said), ..read };
    assert!(proven.prove(protection, algorithm, &secret, b"REGISTER"));
    assert!(!proven.prove(protection, algorithm, &other, b"REGISTER"));
    assert!(!proven.prove(protection, algorithm, &secret, b"PUBLISH"));
}

/// Written in the usual form they are read as they were.
fn written_again(read: &Credentials<'_>) {
    let mut out = b"Digest ".to_vec();
    let mut param = |name: &str, value: &[u8]| {
        if out.last() != Some(&b' ') {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        out.extend_from_slice(value);
        out.push(b'"');
    };
    param("username", read.username);
    param("realm", read.realm);
    param("nonce", read.nonce);
    param("uri", read.uri);
    param("response", read.response);
    if let Some(algorithm) = read.algorithm {
        param("algorithm", algorithm);
    }
    if let Some(protection) = &read.protection {
        param("qop", protection.qop);
        param("cnonce", protection.cnonce);
        param("nc", protection.count_text);
    }
    if out.len() <= CREDENTIALS_LEN_MAX {
        assert_eq!(Credentials::parse(&out), Ok(*read), "{}", out.escape_ascii());
    }
}
