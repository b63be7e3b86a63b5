//! Random documents: whatever is published legally composes to a valid document that says all of it.

use proptest::prelude::*;

use super::{compose, compose_published};
use crate::pidf::{Published, check};

/// A root's way to declare namespaces: its prefix for PIDF with the colon, for an extension, and its declarations.
#[derive(Clone, Copy, Debug)]
struct Names {
    pidf: &'static str,
    other: &'static str,
    data: &'static str,
    declarations: &'static str,
}

const NAMES: [Names; 6] = [
    Names {
        pidf: "",
        other: "x:",
        data: "dm:",
        declarations: "xmlns='urn:ietf:params:xml:ns:pidf' xmlns:x='urn:one' xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model'",
    },
    Names {
        pidf: "",
        other: "dm:",
        data: "x:",
        declarations: "xmlns='urn:ietf:params:xml:ns:pidf' xmlns:dm='urn:one' xmlns:x='urn:ietf:params:xml:ns:pidf:data-model'",
    },
    Names {
        pidf: "p:",
        other: "",
        data: "d:",
        declarations: "xmlns:p='urn:ietf:params:xml:ns:pidf' xmlns:d='urn:ietf:params:xml:ns:pidf:data-model'",
    },
    Names {
        pidf: "p:",
        other: "",
        data: "x:",
        declarations: "xmlns='urn:two' xmlns:p='urn:ietf:params:xml:ns:pidf' xmlns:x='urn:ietf:params:xml:ns:pidf:data-model' xml:lang='de'",
    },
    Names {
        pidf: "x:",
        other: "p:",
        data: "",
        declarations: "xmlns='urn:ietf:params:xml:ns:pidf:data-model' xmlns:x='urn:ietf:params:xml:ns:pidf' xmlns:p='urn:p'",
    },
    Names {
        pidf: "",
        other: "x:",
        data: "dm:",
        declarations: "xmlns='urn:ietf:params:xml:ns:pidf' xmlns:x='urn:one&amp;' xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xml:lang='en'",
    },
];

/// Text of a note, escaped.
fn words() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "",
        " ",
        "hi",
        "a &lt; b",
        "<![CDATA[<x>]]>",
        "\u{20ac} &#x41;",
        "x:y",
        "a<!-- -->b",
    ])
    .prop_map(str::to_owned)
}

/// White space, or what counts as little.
fn space() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["", "", " ", "\n  ", "\r\n\t", "<!-- x: -->"])
}

/// A tuple with its children in the order of the schema, except that notes may be in `status`.
fn tuple(names: Names) -> impl Strategy<Value = String> {
    let Names { pidf: p, other: o, .. } = names;
    let word = proptest::sample::select(vec!["open", "Open", " open", "closed", "Close", "closed\n"]);
    let id = proptest::sample::select(vec!["id='a'", "id=\"a\"", "id='b'", "id='a-2'", "id='a&#45;2'", ""]);
    let notes = || proptest::collection::vec(words(), 0..2);
    (word, id, notes(), notes(), space(), any::<[bool; 6]>()).prop_map(
        move |(word, id, inner, outer, s, [local, ext, late, contact, stamp, lang])| {
            let mut out = format!("<{p}tuple {id}>{s}");
            let scope = if local { " xmlns:x='urn:inner' xmlns:w='urn:w'" } else { "" };
            // A declaration of `x` on `status` must not hide the prefix that PIDF or the extension has here.
            let scope =
                if p == "x:" || o == "x:" { scope.replace("xmlns:x", "xmlns:v") } else { scope.to_owned() };
            out += &format!("<{p}status{scope}>{s}<{p}basic>{word}</{p}basic>");
            for note in inner {
                out += &format!("{s}<{p}note>{note}</{p}note>");
            }
            if ext {
                out += &format!("{s}<{o}state a='1'><{o}deep/>{s}</{o}state>");
            }
            out += &format!("{s}</{p}status>{s}");
            if late {
                out += &format!("<{o}ext b='x:y'>text</{o}ext>{s}<z:own xmlns:z='urn:z'/>");
            }
            if contact {
                out += &format!("<{p}contact priority='0.5'>sip:a@b;x=1&amp;y</{p}contact>{s}");
            }
            for note in outer {
                let lang = if lang { " xml:lang='en'" } else { "" };
                out += &format!("<{p}note{lang}>{note}</{p}note>{s}");
            }
            if stamp {
                out += &format!("<{p}timestamp>2026-01-01T00:00:00Z</{p}timestamp>{s}");
            }
            out + &format!("</{p}tuple>")
        },
    )
}

/// A person, a device or another extension.
fn extension(names: Names) -> impl Strategy<Value = String> {
    let Names { other: o, data: d, .. } = names;
    let kind = proptest::sample::select(vec!["person", "device", "other"]);
    let id = proptest::sample::select(vec!["id='a'", "id='p'", "id='q'", ""]);
    (kind, id, words(), space(), any::<bool>()).prop_map(move |(kind, id, note, s, more)| {
        let more = if more { format!("<{o}activity since='1'/>{s}") } else { String::new() };
        match kind {
            "other" => format!("<{o}thing {id}>{s}{more}</{o}thing>"),
            _ => format!("<{d}{kind} {id}>{s}{more}<{d}note>{note}</{d}note>{s}</{d}{kind}>"),
        }
    })
}

/// A legal document.
pub(super) fn body() -> impl Strategy<Value = String> {
    proptest::sample::select(NAMES.to_vec()).prop_flat_map(|names| {
        let p = names.pidf;
        (
            proptest::collection::vec(tuple(names), 0..3),
            proptest::collection::vec(words(), 0..2),
            proptest::collection::vec(extension(names), 0..3),
            space(),
        )
            .prop_map(move |(tuples, notes, extensions, s)| {
                let notes: Vec<_> = notes.iter().map(|note| format!("<{p}note>{note}</{p}note>")).collect();
                let children = [tuples, notes, extensions].concat().join(s);
                format!("<{p}presence {} entity='sip:a@b'>{s}{children}{s}</{p}presence>", names.declarations)
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn compositions_are_valid_and_say_everything(
        bodies in proptest::collection::vec((body(), 0_u64..4), 0..5),
    ) {
        for (body, _) in &bodies {
            prop_assert!(check(body.as_bytes()).is_ok(), "{:?}: {body}", check(body.as_bytes()));
        }
        let published: Vec<_> = bodies
            .iter()
            .zip(1..)
            .map(|((body, at), number)| Published { number, published_at_ms: *at, body: body.as_bytes() })
            .collect();
        compose_published(&published);
    }

    #[test]
    fn fingerprints_differ_where_documents_say_different_things(left in body(), right in body()) {
        let (left, right) = (compose(&[&left]), compose(&[&right]));
        let without_stamps = |text: &str| text.replace("2026-01-01T00:00:00Z", "");
        if left.summary.fingerprint != right.summary.fingerprint {
            prop_assert_ne!(without_stamps(&left.text), without_stamps(&right.text));
        }
    }
}
