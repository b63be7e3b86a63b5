//! Tokens found by another scanner: whatever ours accepts, quick-xml accepts and reads the same.

use proptest::prelude::*;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use super::{LINPHONE, LINPHONE_WRAPPED};
use crate::xml::malformed::Malformed;
use crate::xml::scan::{Attribute, Scanner, Span, Token, append_text};

/// A token in words: what it is, where it stands, and what both scanners must say of it.
#[derive(Debug, PartialEq)]
struct Found {
    span: (usize, usize),
    what: What,
}

#[derive(Debug, PartialEq)]
enum What {
    /// Prefix, local name, whether it is empty, and the attributes as written.
    Start(String, String, bool, Vec<(String, String)>),
    End(String),
    Text(String),
    CData(String),
    Reference(char),
    Aside,
}

/// The tokens of our scanner.
fn ours(body: &str) -> Result<Vec<Found>, Malformed> {
    let mut texts = Vec::new();
    let len = append_text(body.as_bytes(), &mut texts)?;
    let say =
        |span: Span| std::str::from_utf8(span.of(&texts)).expect("tokens end between characters").to_owned();
    let mut scanner = Scanner::new(&texts, len);
    let (mut all, mut attributes) = (Vec::new(), Vec::new());
    loop {
        let (token, span) = scanner.next(&mut attributes)?;
        let what = match token {
            Token::Start { name, empty } => {
                let pair = |it: &Attribute| (say(it.name.span()), say(it.raw));
                What::Start(
                    say(name.prefix()),
                    say(name.local()),
                    empty,
                    attributes.iter().map(pair).collect(),
                )
            }
            Token::End(name) => What::End(say(name)),
            Token::Text { blank, plain } => {
                let text = say(span);
                assert_eq!(blank, text.bytes().all(|byte| b" \t\r\n".contains(&byte)), "{text:?}");
                assert_eq!(plain, !text.contains('\r'), "{text:?}");
                What::Text(text)
            }
            Token::CData(content) => What::CData(say(content)),
            Token::Reference(char) => What::Reference(char),
            Token::Aside => What::Aside,
            Token::Done => return Ok(all),
        };
        all.push(Found { span: (span.start as usize, span.end as usize), what });
    }
}

/// The tokens of quick-xml.
fn theirs(body: &str) -> Result<Vec<Found>, quick_xml::Error> {
    let mut reader = Reader::from_str(body);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.check_comments = true;
    let mut all = Vec::new();
    loop {
        let start = reader.buffer_position() as usize;
        let what = match reader.read_event()? {
            Event::Start(tag) => start_of(&tag, false)?,
            Event::Empty(tag) => start_of(&tag, true)?,
            Event::End(tag) => What::End(tag.name().into_inner().trim_end().to_owned()),
            Event::Text(text) => What::Text((*text).to_owned()),
            Event::CData(content) => What::CData((*content).to_owned()),
            Event::GeneralRef(name) => What::Reference(match name.resolve_char_ref()? {
                Some(char) => char,
                None => {
                    resolve_predefined_entity(&name).and_then(|it| it.chars().next()).expect("one of five")
                }
            }),
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) => What::Aside,
            Event::DocType(_) => panic!("a document type passed"),
            Event::Eof => return Ok(all),
        };
        all.push(Found { span: (start, reader.buffer_position() as usize), what });
    }
}

/// A start tag with all its attributes.
fn start_of(tag: &BytesStart<'_>, empty: bool) -> Result<What, quick_xml::Error> {
    let (local, prefix) = tag.name().decompose();
    let attributes: Result<Vec<_>, _> = tag
        .attributes()
        .with_checks(false)
        .map(|it| it.map(|it| (it.key.into_inner().to_owned(), it.value.into_owned())))
        .collect();
    let prefix = prefix.map_or(String::new(), |prefix| prefix.into_inner().to_owned());
    Ok(What::Start(prefix, local.into_inner().to_owned(), empty, attributes?))
}

/// Panics where ours accepts what quick-xml does not, or reads otherwise. Says whether ours accepts it.
fn compare(body: &str) -> bool {
    let Ok(ours) = ours(body) else { return false };
    let theirs = theirs(body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    assert_eq!(ours, theirs, "{body:?}");
    true
}

/// Markup, whole and in pieces.
fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
    let piece = proptest::sample::select(vec![
        "<a>",
        "</a>",
        "<b:c>",
        "</b:c >",
        "<a/>",
        "<a b='c'/>",
        "<a b=\"d e\" f:g = '&lt;'>",
        "<\u{e4}\u{f6}/>",
        "<a xmlns='urn:x' xmlns:b='urn:y'\n\t>",
        "text",
        "a longer text without any markup at all",
        " ",
        "\r\n\t ",
        "]]",
        "]]&gt;",
        "&amp;",
        "&#x41;",
        "&#65;",
        "<!-- comment -->",
        "<!---->",
        "<![CDATA[ <x> & ]]]]>",
        "<?pi?>",
        "<?pi some data ?>",
        "\u{20ac}",
        "x='y'",
        "<",
        ">",
        "&",
        ";",
        "\"",
        "'",
        "=",
        "/",
        "!",
        "?",
        "-",
        "--",
        ":",
        "<!",
        "<?",
        "</",
        "/>",
        "?>",
        "]]>",
        "<![CDATA[",
        "<!--",
        "-->",
        "xml",
        "#x",
        "0",
        "\t",
        "\n",
        "\u{7f}",
    ]);
    proptest::collection::vec(piece, 0..24)
}

#[test]
fn documents_of_phones_are_read_alike() {
    for body in [LINPHONE, LINPHONE_WRAPPED] {
        assert!(compare(body));
    }
}

#[test]
fn every_length_and_place_of_a_text_is_read_alike() {
    // Texts and values are looked at eight bytes at a time.
    for len in 0..20 {
        for stop in ["<b/>", "&lt;", "\r", "\n", "]>", ">", "\u{e4}", "\u{10ffff}"] {
            for rest in 0..10 {
                let body = format!("<a>{}{stop}{}</a>", "x".repeat(len), "y".repeat(rest));
                assert!(compare(&body), "{body}");
            }
            for quote in ["'", "\""] {
                let body =
                    format!("<a x={quote}{}{}{quote} b='c'/>", "v".repeat(len), stop.replace('<', "\t"));
                assert!(compare(&body), "{body}");
            }
        }
        for bad in ["]]>", "&", "&x;", "<"] {
            let body = format!("<a>{}{bad}</a>", "x".repeat(len));
            assert!(ours(&body).is_err(), "{body}");
        }
        for bad in ["<", "&", "&x;", "' y", ""] {
            assert!(ours(&format!("<a x='{}{bad}", "v".repeat(len))).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn markup_is_read_alike(pieces in pieces()) {
        compare(&pieces.concat());
    }

    #[test]
    fn legal_documents_are_read_alike(body in super::random::body()) {
        prop_assert!(compare(&body), "{body}");
    }

    #[test]
    fn mutated_documents_are_read_alike(
        body in prop_oneof![Just(LINPHONE.to_owned()), super::random::body()],
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), proptest::sample::select(b"<>&;'\"=/!?-:[] \n\0".to_vec())], 0..4),
            1..5,
        ),
    ) {
        let mut body = body.into_bytes();
        for (at, byte, how) in changes {
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => {
                    let piece = body[at..].iter().copied().take(usize::from(byte)).collect::<Vec<_>>();
                    body.splice(at..at, piece);
                }
            }
        }
        if let Ok(body) = std::str::from_utf8(&body) {
            compare(body);
        }
    }
}
