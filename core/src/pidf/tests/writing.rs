//! The documents that are made without a publication.

use super::oracle;
use crate::pidf::{Basic, Composer, check, write_bare, write_basic, write_comsipl, write_registered};

#[test]
fn the_example_of_the_profile_is_reproduced() {
    let mut out = b"left over".to_vec();
    write_comsipl(b"51234@10.0.0.27", Basic::Open, None, Some(b"bs35r9f"), &mut out);
    let lines = [
        r#"<?xml version="1.0" encoding="UTF-8"?>"#,
        r#"<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="pres:51234@10.0.0.27">"#,
        r#"  <tuple id="bs35r9f">"#,
        r#"    <status>"#,
        r#"      <basic>open</basic>"#,
        r#"      <note>available</note>"#,
        r#"    </status>"#,
        r#"  </tuple>"#,
        r#"</presence>"#,
        "",
    ];
    assert_eq!(String::from_utf8(out).unwrap(), lines.join("\r\n"));
    assert_eq!(lines.join("\r\n").len(), 253, "the Content-Length of the example");
}

#[test]
fn the_profile_has_a_note_for_each_state() {
    for (basic, inner) in [
        (Basic::Open, "<basic>open</basic>\r\n      <note>available</note>"),
        (Basic::Closed, "<basic>closed</basic>\r\n      <note>offline</note>"),
        (Basic::Unknown, "<status>\r\n      <note>unknown</note>"),
    ] {
        let mut out = Vec::new();
        write_comsipl(b"a@b", basic, None, None, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(inner), "{text}");
        assert_eq!(check(text.as_bytes()), Ok(basic));
    }
}

#[test]
fn notes_identifiers_and_aors_are_escaped() {
    let mut out = Vec::new();
    write_comsipl(b"a&b'<c>\"@d%20e", Basic::Open, Some("<b>\u{e4}&\x01".as_bytes()), Some(b"\"x"), &mut out);
    let text = String::from_utf8(out).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    assert_eq!(document.root_element().attribute("entity"), Some("pres:a&b'<c>\"@d%20e"));
    let note = document.descendants().find(|node| node.tag_name().name() == "note").unwrap();
    assert_eq!(note.text(), Some("<b>\u{e4}&\u{fffd}"));
    let tuple = document.descendants().find(|node| node.tag_name().name() == "tuple").unwrap();
    assert_eq!(tuple.attribute("id"), Some("\"x"));
    let (mut bare, mut basic) = (Vec::new(), Vec::new());
    write_bare(b"a&b<c@d", Basic::Open, &mut bare);
    write_basic(b"a&b<c@d", Basic::Open, &mut basic);
    for out in [bare, basic] {
        let text = String::from_utf8(out).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(document.root_element().attribute("entity"), Some("sip:a&b<c@d"));
    }
}

#[test]
fn identifiers_are_stable_and_names() {
    let id = |aor: &[u8]| {
        let mut out = Vec::new();
        write_comsipl(aor, Basic::Open, None, None, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.split("id=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    // Another identifier would be a new tuple to every watcher.
    assert_eq!(id(b"alice@example.com"), "ndia7th");
    for n in 0..500 {
        let id = id(format!("{n}@b").as_bytes());
        assert_eq!(id.len(), 7);
        assert!(id.starts_with(|first: char| first.is_ascii_lowercase()), "{id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{id}");
    }
}

#[test]
fn a_registered_user_may_have_a_note() {
    let (mut out, mut bare) = (Vec::new(), Vec::new());
    let plain = write_registered(b"a@b", b"", &mut out);
    assert_eq!((plain, &out), (write_bare(b"a@b", Basic::Open, &mut bare), &bare));
    let noted = write_registered(b"a@b", b"On the <phone>", &mut out);
    let text = String::from_utf8(out).unwrap();
    oracle::check_schema(&text);
    assert!(text.ends_with("</tuple>\n<note>On the &lt;phone&gt;</note>\n</presence>\n"), "{text}");
    assert_eq!(Composer::default().read(text.as_bytes()).unwrap().basic, Basic::Open);
    let other = write_registered(b"a@b", b"At the desk", &mut bare);
    assert!(plain.fingerprint != noted.fingerprint && noted.fingerprint != other.fingerprint);
}

#[test]
fn bare_documents_are_valid_and_tell_the_state() {
    for basic in [Basic::Open, Basic::Closed, Basic::Unknown] {
        let mut out = b"left over".to_vec();
        let summary = write_bare(b"a@b", basic, &mut out);
        oracle::check_schema(std::str::from_utf8(&out).unwrap());
        let read = Composer::default().read(&out).unwrap();
        assert_eq!((read.basic, read.tuples), (summary.basic, summary.tuples));
        assert_eq!(read.basic, basic);
        let mut other = Vec::new();
        assert_eq!(write_bare(b"a@b", basic, &mut other), summary);
        assert_ne!(write_bare(b"a@c", basic, &mut other).fingerprint, summary.fingerprint);
        write_basic(b"a@b", basic, &mut other);
        oracle::check_schema(std::str::from_utf8(&other).unwrap());
        assert_eq!(check(&other), Ok(basic));
    }
    let mut out = Vec::new();
    let open = write_bare(b"a@b", Basic::Open, &mut out).fingerprint;
    let closed = write_bare(b"a@b", Basic::Closed, &mut out).fingerprint;
    let unknown = write_bare(b"a@b", Basic::Unknown, &mut out).fingerprint;
    assert!(open != closed && closed != unknown && unknown != open);
}
