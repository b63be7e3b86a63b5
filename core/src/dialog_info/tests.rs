use proptest::prelude::*;

use super::*;
use crate::pidf::Published;

/// The sample of RFC 4235 §4.2, which lacks `entity`.
const SAMPLE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="urn:ietf:params:xml:ns:dialog-info"
  version="1" state="full">
  <dialog id="123456">
     <state>confirmed</state>
     <duration>274</duration>
     <local>
       <identity display="Alice">sip:alice@example.com</identity>
       <target uri="sip:alice@pc33.example.com">
         <param pname="isfocus" pval="true"/>
         <param pname="class" pval="personal"/>
       </target>
     </local>
     <remote>
       <identity display="Bob">sip:bob@example.org</identity>
       <target uri="sip:bobster@phone21.example.org"/>
     </remote>
  </dialog>
</dialog-info>"#;

fn info(dialogs: &str) -> String {
    format!(
        "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' version='7' state='full' entity='sip:x@y'>{dialogs}\
         </dialog-info>"
    )
}

fn dialog(id: &str, state: &str) -> String {
    format!("<dialog id=\"{id}\"><state>{state}</state></dialog>")
}

/// What is composed of the documents, which are published in this order, for version 0.
fn composed(documents: &[&str]) -> (String, Summary) {
    let mut composer = Composer::default();
    composer.begin();
    for (number, body) in (1..).zip(documents) {
        let published = Published { number, published_at_ms: 0, body: body.as_bytes() };
        composer.add(published).unwrap_or_else(|refused| panic!("{refused:?}: {body}"));
    }
    let mut out = Vec::new();
    let summary = composer.finish(b"alice@example.com", &mut out);
    (String::from_utf8(out).expect("a text"), summary)
}

fn refused(document: &str) -> Option<Refused> {
    Composer::default().read(document.as_bytes()).err()
}

const ROOT: &str = "\" state=\"full\" entity=\"sip:alice@example.com\">\n";

#[test]
fn a_dialog_is_told_word_for_word_about_the_address_of_record() {
    let (told, summary) = composed(&[SAMPLE]);
    let start = SAMPLE.find("<dialog id").unwrap();
    let end = SAMPLE.find("</dialog-info>").unwrap();
    let expected = format!("{ROOT}{}\n</dialog-info>\n", SAMPLE[start..end].trim_end());
    assert_eq!(told, expected);
    assert_eq!(&told[summary.first_end as usize..], "</dialog-info>\n");
}

#[test]
fn dialogs_of_all_publications_stand_in_the_order_of_their_states() {
    let one = info(&(dialog("a", "terminated") + &dialog("b", "early")));
    let two = info(&(dialog("c", "confirmed") + "<x xmlns='urn:x'/>" + &dialog("d", " trying ")));
    let (told, summary) = composed(&[&one, &two]);
    let order: Vec<usize> =
        ["c", "b", "d", "a"].iter().map(|id| told.find(&format!("id=\"{id}\"")).unwrap()).collect();
    assert!(order.is_sorted() && told.find("<x ").unwrap() > order[3], "{told}");
    let mut single = Vec::new();
    write_single(told.as_bytes(), summary.first_end, &mut single);
    assert_eq!(
        String::from_utf8(single).unwrap(),
        format!("{ROOT}{}\n</dialog-info>\n", dialog("c", "confirmed"))
    );
    assert_eq!(composed(&[&one, &two]).1, summary);
}

#[test]
fn an_id_that_two_publications_use_is_told_apart() {
    let document = info(&dialog("1", "early"));
    let taken = info(&(dialog("1-2", "early") + &dialog("1", "early")));
    let (told, _) = composed(&[&taken, &document, &document]);
    for id in ["\"1\"", "\"1-2\"", "\"1-2-", "\"1-3\""] {
        assert_eq!(told.matches(&format!("id={id}")).count(), 1, "{id}: {told}");
    }
    // Two spellings of one id are one.
    let (told, _) = composed(&[&document, &document.replace("\"1\"", "\"&#49;\"")]);
    assert!(told.contains("id=\"&#49;-2\""), "{told}");
}

#[test]
fn ids_do_not_depend_on_the_order_in_which_publications_are_handed_in() {
    let bodies = [info(&dialog("x", "early")), info(&dialog("x", "early").repeat(3))];
    let composed = |numbers: [u64; 2]| {
        let mut composer = Composer::default();
        composer.begin();
        for number in numbers {
            let body = bodies[number as usize - 1].as_bytes();
            composer.add(Published { number, published_at_ms: 0, body }).unwrap();
        }
        let mut out = Vec::new();
        (composer.finish(b"alice@example.com", &mut out), out)
    };
    assert_eq!(composed([1, 2]), composed([2, 1]));
}

#[test]
fn namespaces_of_the_publishers_root_go_with_what_needs_them() {
    let prefixed = "<d:dialog-info xmlns:d='urn:ietf:params:xml:ns:dialog-info' xmlns:p='urn:p' xmlns:q='urn:q' state='full'>\
                    <d:dialog id='1'><d:state>early</d:state><p:x/><y/></d:dialog></d:dialog-info>";
    let (told, _) = composed(&[prefixed]);
    let expected = "<d:dialog xmlns:d='urn:ietf:params:xml:ns:dialog-info' xmlns:p='urn:p' xmlns=\"\" id='1'>\
                    <d:state>early</d:state><p:x/><y/></d:dialog>";
    assert_eq!(told, format!("{ROOT}{expected}\n</dialog-info>\n"));
    // A declaration of the element's own stays alone.
    let own = prefixed.replace("<d:dialog id", "<d:dialog xmlns:p='urn:own' id");
    assert!(
        composed(&[&own]).0.contains(
            "<d:dialog xmlns:d='urn:ietf:params:xml:ns:dialog-info' xmlns=\"\" xmlns:p='urn:own' id"
        )
    );
}

#[test]
fn a_call_that_only_lasts_longer_means_the_same() {
    let at = |seconds: u32| SAMPLE.replace("274", &seconds.to_string());
    let mut composer = Composer::default();
    let meaning = |document: &str, composer: &mut Composer| composer.read(document.as_bytes()).unwrap();
    let first = meaning(&at(1), &mut composer);
    assert_eq!(first, meaning(&at(1000), &mut composer));
    assert_ne!(first, meaning(&SAMPLE.replace("confirmed", "terminated"), &mut composer));
    let (first, second) = (at(1), at(1000));
    assert_eq!(composed(&[&first]).1.fingerprint, composed(&[&second]).1.fingerprint);
    assert_ne!(composed(&[&first]).1.fingerprint, composed(&[&first, &second]).1.fingerprint);
    let elsewhere = SAMPLE.replace("<dialog id", "<dialog xmlns:p='urn:p' id");
    assert_ne!(composed(&[&first]).1.fingerprint, composed(&[&elsewhere]).1.fingerprint);
}

#[test]
fn session_descriptions_are_not_told() {
    let parts = |n: u32| {
        format!(
            "<dialog id='1'><state>early</state><local><session-description type='application/sdp'>v=0\n\
             </session-description><cseq>1</cseq></local><duration>{n}</duration><remote><session-description type='x'/>\
             </remote><x:session-description xmlns:x='urn:x'/></dialog>"
        )
    };
    let (told, summary) = composed(&[&info(&parts(1))]);
    let dialog = "<dialog id='1'><state>early</state><local><cseq>1</cseq></local><duration>1</duration><remote></remote>\
                  <x:session-description xmlns:x='urn:x'/></dialog>";
    assert_eq!(told, format!("{ROOT}{dialog}\n</dialog-info>\n"));
    assert_eq!(composed(&[&info(&parts(77777))]).1.fingerprint, summary.fingerprint);
}

#[test]
fn a_user_without_dialogs_has_an_empty_document_or_one_that_is_over() {
    let mut out = Vec::new();
    write_none(b"alice@example.com", &mut out);
    let none = String::from_utf8(out.clone()).unwrap();
    assert_eq!(none, format!("{ROOT}</dialog-info>\n"));
    let (told, summary) = composed(&[&info("")]);
    assert_eq!((told.as_str(), summary.first_end), (none.as_str(), 0));
    write_never_empty(b"alice@example.com", told.as_bytes(), 0, &mut out);
    let idle = "<dialog id=\"idle\"><state>terminated</state></dialog>\n";
    assert_eq!(String::from_utf8(out.clone()).unwrap(), format!("{ROOT}{idle}</dialog-info>\n"));
    let (told, summary) = composed(&[&info(&dialog("1", "early"))]);
    write_never_empty(b"alice@example.com", told.as_bytes(), summary.first_end, &mut out);
    assert_eq!(out, told.as_bytes());
}

#[test]
fn what_is_no_full_dialog_information_is_refused() {
    assert_eq!(refused(&info(&dialog("1", "early"))), None);
    for document in [
        "".to_owned(),
        "<dialog-info/>".to_owned(),
        info("<dialog id='1'>"),
        info("<dialog id='1' id='2'><state>early</state></dialog>"),
        info(&dialog("1", "early")).replace("dialog-info'", "pidf'"),
        info("").replace("'full'", "'whole'"),
        format!("<!DOCTYPE x>{}", info("")),
        info(&dialog("1", "early").repeat(crate::xml::bounds::CHILDREN_MAX + 1)),
    ] {
        assert_eq!(refused(&document), Some(Refused::Malformed), "{document}");
    }
    assert_eq!(refused(&info("").replace("'full'", "'partial'")), Some(Refused::Partial));
    for dialog in [
        "<dialog><state>early</state></dialog>",
        "<dialog id=''><state>early</state></dialog>",
        "<dialog id='1'/>",
        "<dialog id='1'><state/></dialog>",
        "<dialog id='1'><state>busy</state></dialog>",
        "<dialog id='1'><state>early</state><state>early</state></dialog>",
        "<dialog id='1'><local><state>early</state></local></dialog>",
    ] {
        assert_eq!(refused(&info(dialog)), Some(Refused::Dialog), "{dialog}");
    }
}

#[test]
fn declarations_to_repeat_are_bounded() {
    let long = "x".repeat(1000);
    let dialogs: String =
        (0..70).map(|n| format!("<dialog id='{n}'><state>early</state><p:x/></dialog>")).collect();
    let document = info(&dialogs).replace(" version", &format!(" xmlns:p='{long}' version"));
    assert_eq!(refused(&document), Some(Refused::Malformed));
    // Several documents below the bound make no longer one than fits a datagram.
    let dialogs: String =
        (0..50).map(|n| format!("<dialog id='{n}'><state>early</state><p:x/></dialog>")).collect();
    let document = info(&dialogs).replace(" version", &format!(" xmlns:p='{long}' version"));
    let (told, _) = composed(&[&document, &document]);
    assert!(told.len() <= 60 * 1024 && told.ends_with("</dialog>\n</dialog-info>\n"), "{}", told.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is accepted is told as a document that would be accepted; nothing panics.
    #[test]
    fn what_is_told_can_be_read(
        at in prop::collection::vec((any::<prop::sample::Index>(), 0..5_usize), 0..4),
        second in any::<bool>(),
    ) {
        let pieces = ["<dialog id='a'><state>early</state></dialog>", "<x/>", "'", " xmlns='urn:o'", "</dialog>"];
        let mut body = SAMPLE.to_owned();
        for (place, piece) in at {
            let place = place.index(body.len());
            if body.is_char_boundary(place) {
                body.insert_str(place, pieces[piece]);
            }
        }
        let mut composer = Composer::default();
        composer.begin();
        let published = |number, body| Published { number, published_at_ms: 0, body };
        if composer.add(published(1, body.as_bytes())).is_err() {
            return Ok(());
        }
        if second {
            composer.add(published(2, SAMPLE.as_bytes())).expect("the sample is accepted");
        }
        let mut out = Vec::new();
        let summary = composer.finish(b"a'<b@example.com", &mut out);
        let mut single = Vec::new();
        write_single(&out, summary.first_end, &mut single);
        for told in [&out, &single] {
            let whole = [OPENING.as_bytes(), b"0", told].concat();
            prop_assert_eq!(refused(std::str::from_utf8(&whole).expect("a text")), None);
        }
    }
}
