//! What is accepted and what is refused.

use proptest::prelude::*;

use super::{LINPHONE, LINPHONE_WRAPPED, document, document_with};
use crate::limits::DOCUMENT_LEN_MAX;
use crate::pidf::{Basic, Composer, Malformed, check};

/// A tuple whose `basic` is `word`.
fn tuple(word: &str) -> String {
    format!(r#"<tuple id="t"><status><basic>{word}</basic></status></tuple>"#)
}

fn refuse(body: &str) -> Malformed {
    check(body.as_bytes()).expect_err(body)
}

#[test]
fn the_document_of_linphone_is_open() {
    assert_eq!(LINPHONE.len(), 489);
    assert_eq!(check(LINPHONE.as_bytes()), Ok(Basic::Open));
    assert_eq!(check(LINPHONE_WRAPPED.as_bytes()), Ok(Basic::Open));
}

#[test]
fn basic_is_read_in_any_case_and_spelling() {
    for word in ["open", "Open", "OPEN", " open\r\n", "<!-- now -->open", "<![CDATA[open]]>", "o&#112;en"] {
        assert_eq!(check(document(&tuple(word)).as_bytes()), Ok(Basic::Open), "{word}");
    }
    for word in ["closed", "Closed", "close", "Close", "\tCLOSE "] {
        assert_eq!(check(document(&tuple(word)).as_bytes()), Ok(Basic::Closed), "{word}");
    }
    for word in ["", "  ", "opened", "o pen", "<a/>open", "geöffnet"] {
        assert_eq!(check(document(&tuple(word)).as_bytes()), Ok(Basic::Unknown), "{word}");
    }
}

#[test]
fn one_open_tuple_opens_the_presentity() {
    let body = document(&[tuple("closed"), tuple("huh"), tuple("open")].concat());
    assert_eq!(check(body.as_bytes()), Ok(Basic::Open));
    let body = document(&[tuple("huh"), tuple("closed")].concat());
    assert_eq!(check(body.as_bytes()), Ok(Basic::Closed));
}

#[test]
fn basic_of_another_namespace_or_place_is_not_the_state() {
    for inner in [
        r#"<tuple id="t"><status><basic xmlns="urn:x">open</basic></status></tuple>"#,
        r#"<tuple id="t"><basic>open</basic></tuple>"#,
        r#"<tuple id="t"><status><x xmlns="urn:x"><basic xmlns="urn:ietf:params:xml:ns:pidf">open</basic></x></status></tuple>"#,
        r#"<status><basic>open</basic></status>"#,
    ] {
        assert_eq!(check(document(inner).as_bytes()), Ok(Basic::Unknown), "{inner}");
    }
}

#[test]
fn legal_xml_is_accepted() {
    for body in [
        document(""),
        format!("\u{feff}{LINPHONE}"),
        document("<?pi data?><!-- comment - with - hyphens --><tuple id='t'/>"),
        document("<note>&lt;&amp;&#x20AC;&quot;&apos;&gt;</note>"),
        document("<note><![CDATA[<&]]]]><![CDATA[>]]></note>"),
        document("<n\u{e4}me xmlns='urn:x' a.b-c_d='1'/>"),
        document_with("xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'", ""),
        "<presence entity='e' xmlns='&#117;rn:ietf:params:xml:ns:pidf'/>".to_owned(),
        "<?xml version='1.0' encoding='utf-8' standalone='yes' ?>\n<!-- c -->\n\
         <p:presence xmlns:p='urn:ietf:params:xml:ns:pidf' entity = \"pres:a\"\n></p:presence \n>\n<?x?>\n"
            .to_owned(),
    ] {
        check(body.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {body}"));
        roxmltree::Document::parse(&body).unwrap();
    }
}

#[test]
fn what_is_no_presence_document_is_refused() {
    assert_eq!(refuse(""), Malformed::NoRoot);
    assert_eq!(refuse(" <!-- nothing -->"), Malformed::NoRoot);
    assert_eq!(refuse("<presence entity='a'/>"), Malformed::NotPresence(0));
    assert_eq!(refuse("<a xmlns='urn:ietf:params:xml:ns:pidf' entity='a'/>"), Malformed::NotPresence(0));
    assert_eq!(refuse("<presence xmlns='urn:ietf:params:xml:ns:pidf'/>"), Malformed::NoEntity(0));
    assert_eq!(refuse("<presence xmlns='urn:ietf:params:xml:ns:pidf' entity=''/>"), Malformed::NoEntity(0));
    assert_eq!(refuse("<presence xmlns='urn:ietf:params:xml:ns:pidf' id='a'/>"), Malformed::NoEntity(0));
}

#[test]
fn document_types_and_their_entities_are_refused() {
    let laughs = concat!(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE lolz [<!ENTITY lol \"lol\">",
        "<!ENTITY lol2 \"&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;\">",
        "<!ENTITY lol3 \"&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;\">]>\n",
        "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"a\"><note>&lol3;</note></presence>",
    );
    assert!(matches!(refuse(laughs), Malformed::Doctype(_)));
    let external = "<!DOCTYPE presence SYSTEM \"file:///etc/passwd\"><presence/>";
    assert_eq!(refuse(external), Malformed::Doctype(0));
    assert_eq!(refuse("<!DOCTYPE"), Malformed::Doctype(0));
    assert_eq!(refuse("<!DOCTYPE>"), Malformed::Doctype(0));
    assert!(matches!(refuse(&document("<!DOCTYPE a>")), Malformed::Doctype(_)));
}

#[test]
fn unknown_references_are_refused() {
    for inner in
        ["&nbsp;", "&lol;", "&", "& ", "a&b", "&#0;", "&#xFFFE;", "&#xD800;", "&#x110000;", "&;", "&#;"]
    {
        let fault = refuse(&document(&format!("<note>{inner}</note>")));
        assert!(matches!(fault, Malformed::Reference(_)), "{inner}: {fault:?}");
        let fault = refuse(&document(&format!("<x xmlns='urn:x' y='{inner}'/>")));
        assert!(matches!(fault, Malformed::Reference(_)), "{inner}: {fault:?}");
    }
}

#[test]
fn characters_outside_of_xml_are_refused() {
    for bad in ["\0", "\x01", "\x0b", "\x1f", "\u{fffe}", "\u{ffff}"] {
        let fault = refuse(&document(&format!("<note>{bad}</note>")));
        assert!(matches!(fault, Malformed::Character(_)), "{fault:?}");
    }
    assert_eq!(check(b"<presence \xff"), Err(Malformed::NotUtf8(10)));
    let mut latin = document("<note>caf?</note>").into_bytes();
    let at = latin.iter().position(|&byte| byte == b'f').unwrap();
    latin[at + 1] = 0xe9;
    assert!(matches!(check(&latin), Err(Malformed::NotUtf8(_))));
    let utf16: Vec<u8> = LINPHONE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(check(&utf16).is_err());
}

#[test]
fn other_encodings_are_refused() {
    for encoding in ["ISO-8859-1", "UTF-16", "windows-1252", ""] {
        let body = document("").replace("\"1.0\"", &format!("\"1.0\" encoding=\"{encoding}\""));
        assert_eq!(refuse(&body), Malformed::Encoding(0), "{encoding}");
    }
}

#[test]
fn bad_declarations_are_refused() {
    for declaration in [
        "<?xml?>",
        "<?xml version='1.1'?>",
        "<?xml version='2.0'?>",
        "<?xml encoding='UTF-8'?>",
        "<?xml encoding='UTF-8' version='1.0'?>",
        "<?xml version='1.0' standalone='maybe'?>",
        "<?xml version='1.0' color='red'?>",
        " <?xml version='1.0'?>",
    ] {
        let body = document("").replace("<?xml version=\"1.0\"?>", declaration);
        assert!(matches!(refuse(&body), Malformed::Declaration(_)), "{declaration}");
    }
    assert!(matches!(refuse(&document("<?xml version='1.0'?>")), Malformed::Declaration(_)));
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for inner in [
        "<tuple>",
        "</tuple>",
        "<a></b>",
        "<a><b></a></b>",
        "<A></a>",
        "<a x=1/>",
        "<a x/>",
        "<a x='1'y='2'/>",
        "<a x='1' x='2'/>",
        "<a x='<'/>",
        "<a x='1'/ >",
        "< a/>",
        "<a/b/>",
        "<1/>",
        "<-a/>",
        "<a 1='x'/>",
        "<a x='1\"/>",
        "<!-- a -- b -->",
        "<!-- a --->",
        "<!-->",
        "<!a>",
        "<![cdata[]]>",
        "<![CDATA[",
        "<?a",
        "]]>",
        "<a",
        "</ a>",
        "<a></a b='c'>",
    ] {
        let body = document(inner);
        assert!(roxmltree::Document::parse(&body).is_err(), "{inner} is legal");
        refuse(&body);
    }
    // Forbidden by XML 1.0 §2.6 and Namespaces in XML §7, §4, though not every parser says so.
    for inner in ["<?XML a?>", "<?a:b?>", "<?1?>", "<a:b:c/>", "<:a/>", "<a:/>"] {
        refuse(&document(inner));
    }
}

#[test]
fn namespaces_are_checked() {
    for inner in [
        "<a:b/>",
        "<b a:c=''/>",
        "<xmlns:b/>",
        "<b xmlns:a=''/>",
        "<b xmlns:xmlns='urn:x'/>",
        "<b xmlns:xml='urn:x'/>",
        "<b xmlns:a='http://www.w3.org/XML/1998/namespace'/>",
        "<b xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<b xmlns:a='urn:x'/><a:b/>",
    ] {
        let fault = refuse(&document(inner));
        assert!(matches!(fault, Malformed::Namespace(_)), "{inner}: {fault:?}");
    }
    let twice = "<b xmlns:a='urn:x' xmlns:c='urn:x' a:d='' c:d=''/>";
    assert!(matches!(refuse(&document(twice)), Malformed::DuplicateAttribute(_)));
    let once = "<b xmlns:a='urn:x' xmlns:c='urn:y' a:d='' c:d='' d=''/>";
    check(document(once).as_bytes()).unwrap();
}

#[test]
fn there_is_one_root() {
    let two = "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='a'/>";
    assert_eq!(refuse(&[two, two].concat()), Malformed::OutsideRoot(two.len()));
    assert!(matches!(refuse(&[two, "text"].concat()), Malformed::OutsideRoot(_)));
    assert!(matches!(refuse(&["text", two].concat()), Malformed::OutsideRoot(_)));
    assert!(matches!(refuse(&[two, "&amp;"].concat()), Malformed::OutsideRoot(_)));
    assert!(matches!(refuse(&[two, "<![CDATA[]]>"].concat()), Malformed::OutsideRoot(_)));
    assert!(matches!(refuse(&[two, "</presence>"].concat()), Malformed::EndTag(_)));
}

#[test]
fn a_second_byte_order_mark_is_content() {
    // A reader that took off both moved every position by three, so that a text with `?>` behind it was cut inside of a
    // character.
    for body in ["\u{feff}\u{feff}?>".to_owned(), format!("\u{feff}\u{feff}{LINPHONE}")] {
        assert_eq!(refuse(&body), Malformed::OutsideRoot(0));
    }
    assert!(matches!(refuse(&format!("<!-- -->\u{feff}{LINPHONE}")), Malformed::OutsideRoot(_)));
}

#[test]
fn bounds_are_kept() {
    let nested = |depth: usize| document(&["<a>".repeat(depth - 1), "</a>".repeat(depth - 1)].concat());
    check(nested(16).as_bytes()).unwrap();
    assert!(matches!(refuse(&nested(17)), Malformed::TooDeep(_)));

    let wide =
        |n: usize| document(&format!("<a{}/>", (0..n).map(|n| format!(" a{n}=''")).collect::<String>()));
    check(wide(32).as_bytes()).unwrap();
    assert!(matches!(refuse(&wide(33)), Malformed::TooManyAttributes(_)));

    let bound = |n: usize| {
        let declarations = |from, to| (from..to).map(|n| format!(" xmlns:a{n}='urn:x'")).collect::<String>();
        document(&format!(
            "<a{}><b{}><c{}/></b></a>",
            declarations(0, 31),
            declarations(31, 62),
            declarations(62, n)
        ))
    };
    check(bound(63).as_bytes()).unwrap();
    assert!(matches!(refuse(&bound(64)), Malformed::TooManyNamespaces(_)));

    check(document(&"<note/>".repeat(256)).as_bytes()).unwrap();
    assert!(matches!(refuse(&document(&"<note/>".repeat(257))), Malformed::TooManyChildren(_)));

    let long = |len: usize| document(&" ".repeat(len - document("").len()));
    check(long(DOCUMENT_LEN_MAX).as_bytes()).unwrap();
    assert_eq!(refuse(&long(DOCUMENT_LEN_MAX + 1)), Malformed::TooLong(DOCUMENT_LEN_MAX + 1));
}

#[test]
fn faults_say_what_and_where() {
    let fault = refuse(&document("<a:b/>"));
    assert!(fault.to_string().ends_with(&format!(" at byte {}", fault.position())), "{fault}");
    assert_eq!(&document("<a:b/>")[fault.position()..][..3], "a:b");
}

/// The fingerprint of one document.
fn fingerprint(body: &str) -> u64 {
    Composer::default().read(body.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {body}")).fingerprint
}

#[test]
fn a_new_time_stamp_alone_keeps_the_fingerprint() {
    let newer = LINPHONE.replace("2023-12-17T16:45:04Z", "2023-12-17T16:54:04Z");
    assert_ne!(LINPHONE, newer);
    assert_eq!(fingerprint(LINPHONE), fingerprint(&newer));
    assert_eq!(fingerprint(LINPHONE), fingerprint(LINPHONE_WRAPPED));
    let without = LINPHONE.replace("  <timestamp>2023-12-17T16:45:04Z</timestamp>\n", "");
    assert!(without.len() < LINPHONE.len());
    assert_eq!(fingerprint(LINPHONE), fingerprint(&without));

    let person = |stamp: &str, since: &str| {
        document_with(
            "xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xmlns:r='urn:ietf:params:xml:ns:pidf:rpid'",
            &format!(
                "<dm:person id='p'><r:activities since='{since}'><r:away/></r:activities>\
                 <dm:timestamp>{stamp}</dm:timestamp></dm:person>"
            ),
        )
    };
    assert_eq!(fingerprint(&person("1", "1")), fingerprint(&person("2", "1")));
    assert_ne!(fingerprint(&person("1", "1")), fingerprint(&person("1", "2")), "since and until are meaning");
}

#[test]
fn spelling_keeps_the_fingerprint() {
    let spellings = [
        document("<tuple id='a'><status><basic>open</basic></status><x xmlns='urn:x' b='1' c='2'/></tuple>"),
        document(
            "\n<tuple id=\"a\">\n\t<status><basic> Open </basic></status><x xmlns='urn:x' c='2' b='&#49;'></x>\r\n</tuple>",
        ),
        document(
            "<!-- c --><tuple id='&#97;'><status><?p?><basic>open</basic></status><y:x xmlns:y='urn:x' b='1' c='2'/></tuple>",
        ),
    ];
    for spelling in &spellings {
        assert_eq!(fingerprint(spelling), fingerprint(&spellings[0]), "{spelling}");
    }
}

#[test]
fn line_ends_keep_the_fingerprint() {
    let note = |end: &str| document(&format!("<note>one{end}two</note>"));
    assert_eq!(fingerprint(&note("\n")), fingerprint(&note("\r\n")));
    assert_eq!(fingerprint(&note("\n")), fingerprint(&note("\r")));
    assert_ne!(fingerprint(&note("\n")), fingerprint(&note("\r\n\n")));
    assert_ne!(fingerprint(&note("\n")), fingerprint(&note("&#13;\n")));
}

#[test]
fn everything_else_changes_the_fingerprint() {
    let base = r#"<tuple id="a"><status><basic>open</basic><x xmlns="urn:x" b="c"/></status><contact priority="0.8">sip:a@b</contact><note xml:lang="en">in a meeting</note></tuple><note>hi</note>"#;
    let changes = [
        ("id=\"a\"", "id=\"b\""),
        ("open", "closed"),
        ("open", "huh"),
        ("urn:x", "urn:y"),
        ("b=\"c\"", "b=\"d\""),
        ("b=\"c\"", "d=\"c\""),
        ("b=\"c\"", ""),
        ("<x ", "<y "),
        ("0.8", "0.9"),
        ("sip:a@b", "sip:a@c"),
        ("\"en\"", "\"de\""),
        ("in a meeting", "in a  meeting"),
        ("in a meeting", "in a <b/>meeting"),
        ("in a meeting", " "),
        ("in a meeting", ""),
        ("<note>hi</note>", ""),
        ("<note>hi</note>", "<note>hi</note><note>hi</note>"),
    ];
    let mut seen = vec![fingerprint(&document(base))];
    for (from, to) in changes {
        let changed = base.replacen(from, to, 1);
        assert_ne!(changed, base);
        let fingerprint = fingerprint(&document(&changed));
        assert!(!seen.contains(&fingerprint), "{changed}");
        seen.push(fingerprint);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(&body);
    }

    #[test]
    fn arbitrary_markup_never_panics(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "<", ">", "</", "/>", "<!--", "-->", "<![CDATA[", "]]>", "<?", "?>", "<!DOCTYPE", "&", ";", "#x",
                "'", "\"", "=", ":", " ", "\n", "xmlns", "a", "presence", "tuple", "status", "basic", "note", "open",
                "<tuple id='a'>", "</tuple>", "<status>", "</status>", "<note>", "</note>", "\u{e4}", "\u{feff}",
            ]),
            0..40,
        ),
        inside in any::<bool>(),
    ) {
        let body = if inside { document(&pieces.concat()) } else { pieces.concat() };
        if check(body.as_bytes()).is_ok() {
            // What passes is well-formed to a stricter parser, and composes.
            roxmltree::Document::parse(body.trim_start_matches('\u{feff}')).unwrap();
            let published = [crate::pidf::Published { number: 1, published_at_ms: 1, body: body.as_bytes() }];
            let composed = super::compose_with(&mut Composer::default(), &published);
            roxmltree::Document::parse(&composed.text).unwrap();
        }
    }

    #[test]
    fn mutated_documents_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
    ) {
        let mut body = LINPHONE.as_bytes().to_vec();
        for (at, byte, how) in changes {
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.insert(at, byte % 0x80),
                _ => drop(body.remove(at)),
            }
        }
        if check(&body).is_ok() {
            let text = std::str::from_utf8(&body).unwrap();
            roxmltree::Document::parse(text.trim_start_matches('\u{feff}')).unwrap();
        }
    }
}
