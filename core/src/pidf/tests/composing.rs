//! Compositions, spelt out.

use super::{
    Composed, LINPHONE, LINPHONE_WRAPPED, compose, compose_published, document, document_with, oracle,
};
use crate::pidf::{Basic, Composer, EntityScheme, Published, Summary};

const DM: &str = "xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model'";

#[test]
fn the_tuple_of_linphone_is_kept_byte_for_byte() {
    for body in [LINPHONE, LINPHONE_WRAPPED] {
        let Composed { text, summary, note } = compose(&[body]);
        assert_eq!(
            text,
            r#"<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:a@b" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" xmlns:pidfonline="http://www.linphone.org/xsds/pidfonline.xsd">
<tuple id="n5z2og">
  <status>
   <basic>open</basic>
   <pidfonline:online/>
  </status>
  <contact priority="0.8">sip:51234@10.0.0.27</contact>
  <timestamp>2023-12-17T16:45:04Z</timestamp>
 </tuple>
</presence>
"#
        );
        assert_eq!((summary.basic, summary.tuples), (Basic::Open, 1));
        assert_eq!(note, "");
    }
}

#[test]
fn two_devices_with_rich_presence() {
    let desk = r#"<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
  xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" entity="pres:a@b">
  <tuple id="desk"><status><basic>closed</basic></status><note>do not ring</note></tuple>
  <note>back at five</note>
  <dm:person id="p1"><rpid:activities><rpid:meeting/></rpid:activities></dm:person>
  <dm:device id="d1"><dm:deviceID>urn:uuid:1</dm:deviceID></dm:device>
</presence>"#;
    let mobile = r#"<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
  xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" xmlns:c="urn:ietf:params:xml:ns:pidf:caps" entity="pres:a@b">
  <tuple id="mobile"><status><basic>open</basic></status><c:servcaps><c:audio>true</c:audio></c:servcaps></tuple>
  <note>back at five</note>
  <dm:person id="p1"><rpid:activities><rpid:travel/></rpid:activities></dm:person>
  <dm:device id="d2"><dm:deviceID>urn:uuid:2</dm:deviceID></dm:device>
</presence>"#;
    let Composed { text, summary, note } = compose(&[desk, mobile]);
    assert_eq!(
        text,
        r#"<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:a@b" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" xmlns:c="urn:ietf:params:xml:ns:pidf:caps">
<tuple id="mobile"><status><basic>open</basic></status><c:servcaps><c:audio>true</c:audio></c:servcaps></tuple>
<tuple id="desk"><status><basic>closed</basic></status><note>do not ring</note></tuple>
<note>back at five</note>
<dm:person id="p1-2"><rpid:activities><rpid:travel/></rpid:activities></dm:person>
<dm:person id="p1"><rpid:activities><rpid:meeting/></rpid:activities></dm:person>
<dm:device id="d1"><dm:deviceID>urn:uuid:1</dm:deviceID></dm:device>
<dm:device id="d2"><dm:deviceID>urn:uuid:2</dm:deviceID></dm:device>
</presence>
"#
    );
    assert_eq!((summary.basic, summary.tuples), (Basic::Open, 2));
    assert_eq!(note, "back at five", "not the note of the closed tuple");
}

#[test]
fn one_prefix_for_two_namespaces_is_declared_where_it_is_used() {
    let first = document_with("xmlns:x='urn:one'", "<tuple id='a'><status><x:s/></status></tuple><x:e/>");
    let second = document_with(
        "xmlns:x='urn:two' xmlns:y='urn:one'",
        "<tuple id='b'><status><x:s/></status></tuple><x:e/><x:e xmlns:x='urn:three'/><y:e/><y:f t='x:q'/>",
    );
    let text = compose(&[&first, &second]).text;
    for part in [
        r#"entity="sip:a@b" xmlns:x='urn:one' xmlns:y='urn:one'>"#,
        "<tuple id='a'><status><x:s/></status></tuple>",
        "<tuple xmlns:x='urn:two' id='b'><status><x:s/></status></tuple>",
        "\n<x:e/>\n<x:e xmlns:x='urn:two'/>\n<x:e xmlns:x='urn:three'/>\n",
        "<y:f xmlns:x='urn:two' t='x:q'/>",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("<y:e/>"), "the same as <x:e/> of the first");
}

#[test]
fn pidf_under_a_prefix_stays_under_it() {
    let prefixed = "<p:presence xmlns:p='urn:ietf:params:xml:ns:pidf' entity='a'>\
        <p:tuple id='a'><p:status><p:basic>Close</p:basic><p:note>out</p:note></p:status><bare/></p:tuple>\
        <p:note>n</p:note><e/></p:presence>";
    let other_default = "<p:presence xmlns:p='urn:ietf:params:xml:ns:pidf' \
        xmlns='urn:ietf:params:xml:ns:pidf:data-model' entity='a'>\
        <p:tuple id='b'><p:status><p:basic>open</p:basic></p:status></p:tuple><person id='p'/></p:presence>";
    let other_prefix = document_with("xmlns:p='urn:p'", "<tuple id='c'><status><p:s/></status></tuple>");
    let Composed { text, summary, note } = compose(&[&other_prefix, prefixed, other_default]);
    for part in [
        "<tuple id='c'><status><p:s/></status></tuple>",
        "<p:tuple xmlns:p='urn:ietf:params:xml:ns:pidf' xmlns=\"\" id='a'><p:status>\
         <p:basic>closed</p:basic></p:status><bare/><p:note>out</p:note></p:tuple>",
        "<p:note xmlns:p='urn:ietf:params:xml:ns:pidf'>n</p:note>",
        "<e xmlns=\"\"/>",
        "<p:tuple xmlns:p='urn:ietf:params:xml:ns:pidf' id='b'><p:status><p:basic>open</p:basic>",
        "<person xmlns='urn:ietf:params:xml:ns:pidf:data-model' id='p'/>",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!((summary.basic, summary.tuples), (Basic::Open, 3));
    assert_eq!(note, "n");
}

#[test]
fn more_prefixes_than_the_root_may_have() {
    let bodies: Vec<_> = (0..4)
        .map(|device| {
            let declarations: String =
                (0..20).map(|n| format!(" xmlns:p{device}x{n}='urn:{device}:{n}'")).collect();
            let inner: String = (0..20).map(|n| format!("<p{device}x{n}:e/>")).collect();
            document_with(&declarations, &inner)
        })
        .collect();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    let text = compose(&bodies).text;
    let document = roxmltree::Document::parse(&text).unwrap();
    let namespaces: Vec<_> =
        oracle::elements(document.root_element()).map(|it| it.tag_name().namespace().unwrap()).collect();
    assert_eq!(namespaces.len(), 80);
    assert!(namespaces.contains(&"urn:3:19"));
}

#[test]
fn identifiers_of_two_devices_are_told_apart_the_same_way_each_time() {
    let body =
        |basic: &str| document(&format!("<tuple id='t'><status><basic>{basic}</basic></status></tuple>"));
    let (open, closed) = (body("open"), body("closed"));
    let at = |number, body: &'static str| Published { number, published_at_ms: 1, body: body.as_bytes() };
    let (open, closed): (&'static str, &'static str) = (open.leak(), closed.leak());
    let text = compose_published(&[at(7, open), at(900, closed)]).text;
    assert!(text.contains("<tuple id='t'><status><basic>open"), "{text}");
    assert!(text.contains("<tuple id='t-900'><status><basic>closed"), "{text}");
    // More devices, before and behind it, do not change it.
    let text = compose_published(&[at(7, closed), at(8, open), at(900, open), at(901, open)]).text;
    for id in ["'t'", "'t-8'", "'t-900'", "'t-901'"] {
        assert!(text.contains(id), "{text}");
    }
    assert!(text.contains("<tuple id='t-900'><status><basic>open"), "{text}");
}

#[test]
fn made_identifiers_give_way_to_published_ones() {
    let first = document("<tuple id='t'/><tuple id='t-2'/>");
    let second = document("<tuple id='t'/><tuple id='t&#45;2'/><tuple/><tuple id=''/>");
    let text = compose(&[&first, &second]).text;
    let document = roxmltree::Document::parse(&text).unwrap();
    let ids: Vec<_> =
        oracle::elements(document.root_element()).map(|it| it.attribute("id").unwrap()).collect();
    assert_eq!(ids, ["t", "t-2", "t-2-1", "t-2-2", "t-2-3", ""]);
}

#[test]
fn tuples_persons_and_devices_share_their_identifiers() {
    // All are xs:ID, which is unique in the document (XML Schema Part 2 §3.3.8).
    let body = document_with(DM, "<tuple id='x'/><dm:person id='x'/><dm:device id='x'/>");
    let text = compose(&[&body]).text;
    assert!(text.contains("<tuple id='x'/>\n<dm:person id='x-1'/>\n<dm:device id='x-1-3'/>"), "{text}");
}

#[test]
fn the_person_that_changed_last_comes_first() {
    let person =
        |id: &str, what: &str| document_with(DM, &format!("<dm:person id='{id}'><dm:{what}/></dm:person>"));
    let (first, second, third) = (person("p", "one"), person("p", "two"), person("q", "three"));
    let at = |number, published_at_ms, body: &'static str| Published {
        number,
        published_at_ms,
        body: body.as_bytes(),
    };
    let (first, second, third): (&'static str, &'static str, &'static str) =
        (first.leak(), second.leak(), third.leak());
    let text = compose_published(&[at(1, 20, first), at(2, 30, second), at(3, 10, third)]).text;
    assert!(
        text.contains(
            "<dm:person id='p-2'><dm:two/></dm:person>\n<dm:person id='p'><dm:one/></dm:person>\n\
             <dm:person id='q'><dm:three/></dm:person>"
        ),
        "{text}"
    );
    // The same said twice stands once, where the newer stood.
    let text = compose_published(&[at(1, 20, first), at(2, 30, third), at(3, 40, first)]).text;
    assert!(
        text.contains(
            "<dm:person id='p'><dm:one/></dm:person>\n<dm:person id='q'><dm:three/></dm:person>\n</presence>"
        ),
        "{text}"
    );
}

#[test]
fn the_words_of_basic_become_those_of_the_schema() {
    let tuple =
        |word: &str| format!("<tuple id='{}'><status><basic>{word}</basic></status></tuple>", word.len());
    let text = compose(&[&document(&[tuple("Open"), tuple("Close"), tuple(" CLOSED ")].concat())]).text;
    for part in ["'4'><status><basic>open<", "'5'><status><basic>closed<", "'8'><status><basic>closed<"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_note_in_status_becomes_a_note_of_the_tuple() {
    let body = r#"<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="pres:123456789@10.0.0.2">
   <tuple id="sg89ae">
      <status>
         <basic>open</basic>
         <note>available</note>
      </status>
      <contact>sip:a@b</contact>
      <note>of the tuple</note>
      <timestamp>2001-10-27T16:49:29Z</timestamp>
   </tuple>
</presence>"#;
    let Composed { text, note, .. } = compose(&[body]);
    assert!(
        text.contains(
            r#"
<tuple id="sg89ae">
      <status>
         <basic>open</basic>
      </status>
      <contact>sip:a@b</contact>
      <note>available</note>
      <note>of the tuple</note>
      <timestamp>2001-10-27T16:49:29Z</timestamp>
   </tuple>
"#
        ),
        "{text}"
    );
    assert_eq!(note, "available", "the first as published");
}

#[test]
fn notes_that_move_keep_their_namespaces() {
    let body = document(
        "<tuple id='a'><status xmlns:x='urn:x' xmlns:q='urn:ietf:params:xml:ns:pidf'><basic>open</basic>\
         <!-- c --> <q:note x:y='z'>one</q:note><note xmlns:x='urn:w'>two</note></status></tuple>",
    );
    let text = compose(&[&body]).text;
    assert!(
        text.contains(
            "<basic>open</basic><!-- c --></status>\
             <q:note xmlns:x='urn:x' xmlns:q='urn:ietf:params:xml:ns:pidf' x:y='z'>one</q:note>\
             <note xmlns:q='urn:ietf:params:xml:ns:pidf' xmlns:x='urn:w'>two</note></tuple>"
        ),
        "{text}"
    );
}

#[test]
fn the_language_of_the_root_goes_to_its_notes() {
    let french = document_with(
        &format!("xml:lang='fr' {DM}"),
        "<tuple id='a'><status><basic>open</basic><note>en haut</note></status><note xml:lang='en'>up</note>\
         <note>ici</note></tuple><note>au revoir</note><dm:person id='p'><dm:note>moi</dm:note></dm:person>",
    );
    let text = compose(&[&french, &document("<note>au revoir</note>")]).text;
    for part in [
        "<note xml:lang='fr'>en haut</note><note xml:lang='en'>up</note><note xml:lang='fr'>ici</note></tuple>",
        "\n<note xml:lang='fr'>au revoir</note>\n<note>au revoir</note>\n",
        "<dm:note xml:lang='fr'>moi</dm:note>",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn comments_instructions_and_sections_are_kept_inside_of_children_only() {
    let body = document(
        "<!-- out --><?out?>stray<tuple id='a'><!-- in --><status><basic><!-- why -->open</basic></status>\
         <note><![CDATA[<&>]]>&amp;&#65;<?in?></note></tuple><!-- out -->",
    );
    let Composed { text, note, .. } = compose(&[&body]);
    assert!(!text.contains("out") && !text.contains("stray"), "{text}");
    assert!(
        text.contains(
            "<tuple id='a'><!-- in --><status><basic>open</basic></status><note><![CDATA[<&>]]>&amp;&#65;<?in?></note></tuple>"
        ),
        "{text}"
    );
    assert_eq!(note, "<&>&A");
}

#[test]
fn notes_are_given_once_and_the_first_with_the_state_is_told() {
    let first =
        document("<tuple id='a'><status><basic>closed</basic><note>gone</note></status></tuple><note/>");
    let second = document("<note> hello &lt;you&gt; </note><note>hello</note>");
    let third = document("<note>hello</note>");
    let Composed { text, note, summary } = compose(&[&first, &second, &third]);
    assert_eq!(text.matches("<note>hello</note>").count(), 1);
    assert_eq!((note.as_str(), summary.basic), ("gone", Basic::Closed));
    let open = document("<tuple id='b'><status><basic>open</basic></status></tuple>");
    assert_eq!(compose(&[&first, &second, &third, &open]).note, "hello <you>");
    assert_eq!(compose(&[&first, &open]).note, "");
}

#[test]
fn nothing_published_makes_an_empty_document() {
    let Composed { text, summary, .. } = compose(&[]);
    assert_eq!(
        text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:a@b\">\n</presence>\n"
    );
    assert_eq!((summary.basic, summary.tuples), (Basic::Unknown, 0));
}

#[test]
fn the_scheme_of_entity_can_be_chosen() {
    let mut out = Vec::new();
    let mut fingerprints = Vec::new();
    for (scheme, entity) in [
        (EntityScheme::Sip, "entity=\"sip:a&amp;b@c\""),
        (EntityScheme::Sips, "entity=\"sips:a&amp;b@c\""),
        (EntityScheme::Pres, "entity=\"pres:a&amp;b@c\""),
    ] {
        let mut composer = Composer::with_entity_scheme(scheme);
        let summary = composer.compose(b"a&b@c", &[], &mut out, &mut Vec::new()).unwrap();
        assert!(std::str::from_utf8(&out).unwrap().contains(entity));
        assert!(!fingerprints.contains(&summary.fingerprint));
        fingerprints.push(summary.fingerprint);
    }
}

#[test]
fn a_byte_order_mark_is_not_copied() {
    let marked = format!("\u{feff}{LINPHONE}");
    assert_eq!(compose(&[&marked]).text, compose(&[LINPHONE]).text);
}

#[test]
fn a_malformed_publication_leaves_nothing_behind() {
    let mut composer = Composer::default();
    let (mut out, mut note) = (Vec::new(), Vec::new());
    let good = Published { number: 1, published_at_ms: 1, body: LINPHONE.as_bytes() };
    let bad = Published { number: 2, published_at_ms: 1, body: b"<presence" };
    assert!(composer.compose(b"a@b", &[good, bad], &mut out, &mut note).is_err());
    assert!(out.is_empty() && note.is_empty());
    let after = composer.compose(b"a@b", &[good], &mut out, &mut note).unwrap();
    let alone = compose(&[LINPHONE]);
    assert_eq!((after, std::str::from_utf8(&out).unwrap()), (alone.summary, alone.text.as_str()));
}

/// The summary of a composition.
fn summary(bodies: &[&str]) -> Summary {
    compose(bodies).summary
}

#[test]
fn a_refresh_with_a_new_time_stamp_is_no_change() {
    let newer = LINPHONE.replace("16:45:04Z", "16:54:04Z");
    let other = document("<tuple id='o'><status><basic>closed</basic></status></tuple>");
    assert_eq!(summary(&[LINPHONE, &other]), summary(&[&newer, &other]));
    assert_ne!(
        compose(&[LINPHONE]).text,
        compose(&[&newer]).text,
        "the new time stamp goes out with the next news"
    );
    let offline = LINPHONE.replace("<pidfonline:online/>", "");
    assert_ne!(summary(&[LINPHONE, &other]).fingerprint, summary(&[&offline, &other]).fingerprint);
    assert_ne!(summary(&[LINPHONE, &other]).fingerprint, summary(&[LINPHONE]).fingerprint);
}
