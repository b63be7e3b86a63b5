//! The packets of the customer's document, on the wire: what a Linphone on an Android phone publishes ends in the NOTIFY
//! that installed ComSIPL clients expect, byte for byte; and, by default, in a NOTIFY that keeps every duty of the RFCs.
//!
//! `tests/real/customer/*.sip` are the packets as the document prints them, with LF for every line end.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use comsipl_tests::client::phone::{Message, Phone, Request};
use comsipl_tests::client::process::PATIENCE;
use comsipl_tests::server::{EXACT_GRANTS, Server};

#[test]
fn the_published_packet_ends_in_the_notify_of_the_document() -> Result<()> {
    let server = Server::start(&format!("[server]\nprofile = \"comsipl\"\n{EXACT_GRANTS}"))?;
    let watcher = Phone::new(server.address())?;
    let publisher = Phone::new(server.address())?;

    let first = subscribe(&watcher, "presence")?;
    ensure!(first.body().contains("<basic>closed</basic>"), "nobody has published yet: {}", first.text());
    publish(&publisher, &packet_on_the_wire())?;

    let notify = receive(&watcher)?;
    watcher.send(&notify.ok());
    assert_eq!(notify.text(), document_with_the_variables_of(&notify, &server)?);
    ensure!(notify.cseq()? > first.cseq()?, "CSeq does not grow");
    Ok(())
}

#[test]
fn who_subscribes_later_gets_the_notify_of_the_document_at_once() -> Result<()> {
    let server = Server::start(&format!("[server]\nprofile = \"comsipl\"\n{EXACT_GRANTS}"))?;
    let watcher = Phone::new(server.address())?;
    publish(&Phone::new(server.address())?, &packet_on_the_wire())?;
    // "The SIP application must set the Event header to 'Presence'": with a capital, though the packets have none.
    let notify = subscribe(&watcher, "Presence")?;
    let expected = document_with_the_variables_of(&notify, &server)?;
    assert_eq!(notify.text().replace("Event: Presence", "Event: presence"), expected);
    Ok(())
}

#[test]
fn by_default_the_published_packet_ends_in_a_notify_by_the_rfcs() -> Result<()> {
    let server = Server::start(EXACT_GRANTS)?;
    let watcher = Phone::new(server.address())?;
    let publisher = Phone::new(server.address())?;

    let first = subscribe(&watcher, "presence")?;
    publish(&publisher, &packet_on_the_wire())?;
    let notify = receive(&watcher)?;
    watcher.send(&notify.ok());

    // RFC 3261 §12.2.1.1: a request within a dialog goes to the remote target and carries both tags.
    assert_eq!(notify.start_line(), format!("NOTIFY sip:51112@{} SIP/2.0", watcher.address()));
    ensure!(notify.need("From")?.contains("sip:51234@10.0.0.27"), "{}", notify.text());
    let our_tag = notify.tag("From").context("From without a tag")?;
    assert_eq!(Some(our_tag), first.tag("From"), "the dialog's own tag");
    ensure!(notify.need("To")?.contains("sip:51112@10.0.0.27"), "{}", notify.text());
    assert_eq!(notify.tag("To"), Some("rnzgc"));
    assert_eq!(notify.need("Call-ID")?, CALL_ID);
    assert_eq!(notify.cseq()?, first.cseq()? + 1);
    // RFC 3261 §8.1.1: Max-Forwards, a Via with the magic cookie, and (§12.1.1) a Contact.
    assert_eq!(notify.need("Max-Forwards")?, "70");
    ensure!(notify.need("Via")?.starts_with(&format!("SIP/2.0/UDP {};branch=z9hG4bK", server.address())));
    ensure!(
        notify.contact().is_some_and(|uri| uri.contains(&server.address().to_string())),
        "{}",
        notify.text()
    );
    // RFC 6665 §4.2.2: Event, and Subscription-State with the time that is left.
    assert_eq!(notify.need("Event")?, "presence");
    let left: u32 = notify
        .need("Subscription-State")?
        .strip_prefix("active;expires=")
        .context("not active")?
        .split(';')
        .next()
        .unwrap_or_default()
        .parse()?;
    ensure!((590..=600).contains(&left), "{left} of 600 seconds left");
    // RFC 3863 §4.1: a PIDF document; what the phone said is not lost in it, its own extension included.
    assert_eq!(notify.need("Content-Type")?, "application/pidf+xml");
    let document = roxmltree::Document::parse(notify.body())?;
    let presence = document.root_element();
    assert_eq!(presence.tag_name().namespace(), Some("urn:ietf:params:xml:ns:pidf"));
    let entity = presence.attribute("entity").context("no entity")?;
    ensure!(entity.ends_with(":51234@10.0.0.27"), "{entity}");
    let text = |name: &str| {
        document.descendants().find(|node| node.tag_name().name() == name).and_then(|node| node.text())
    };
    assert_eq!(text("basic"), Some("open"));
    assert_eq!(text("contact"), Some("sip:51234@10.0.0.27"));
    assert_eq!(text("timestamp"), Some("2023-12-17T16:45:04Z"));
    ensure!(
        document
            .descendants()
            .any(|node| node.has_tag_name(("http://www.linphone.org/xsds/pidfonline.xsd", "online")))
    );
    Ok(())
}

#[test]
fn the_packet_as_printed_is_understood_once_its_length_is_right() -> Result<()> {
    let server = Server::start(EXACT_GRANTS)?;
    let watcher = Phone::new(server.address())?;
    subscribe(&watcher, "presence")?;
    let (head, body) = packet_as_printed();
    ensure!(body.len() != 489, "the document wraps the line of the root element");
    let head = head.replace("Content-Length: 489", &format!("Content-Length: {}", body.len()));
    publish(&Phone::new(server.address())?, &format!("{head}\r\n\r\n{body}"))?;
    let notify = receive(&watcher)?;
    ensure!(notify.body().contains("<basic>open</basic>"), "{}", notify.text());
    Ok(())
}

/// The document's PUBLISH as the phone sent it.
///
/// The document wraps the long line of the root element. In one line, as Linphone writes it, with LF in the body, the
/// body has exactly the 489 bytes of its Content-Length, which proves that these are the bytes.
fn packet_on_the_wire() -> String {
    let (head, body) = packet_as_printed();
    let body = body.replace(" \n          ", " ");
    assert_eq!(body.len(), 489, "the Content-Length of the document");
    format!("{head}\r\n\r\n{body}")
}

/// Head, with CRLF, and body, with LF, of the document's PUBLISH.
fn packet_as_printed() -> (String, &'static str) {
    let (head, body) =
        include_str!("real/customer/publish.sip").split_once("\n\n").expect("a head and a body");
    (head.replace('\n', "\r\n"), body)
}

/// The document's NOTIFY with the values of `notify` where they are bound to vary: branch, tuple id, CSeq, the seconds
/// that are left, and the server's own address in Via and Contact. All else is the document's, Content-Length included:
/// its 253 bytes prove that the body's lines end with CRLF.
fn document_with_the_variables_of(notify: &Message, server: &Server) -> Result<String> {
    let document = include_str!("real/customer/notify.sip").replace('\n', "\r\n");
    let branch = between(notify.need("Via")?, "branch=", ";");
    ensure!(branch.starts_with("z9hG4bK"), "no magic cookie in {branch}");
    let tuple = between(notify.body(), "<tuple id=\"", "\"");
    // An id of another length than the document's changes the length of the body by as much.
    let length = 253 - "bs35r9f".len() + tuple.len();
    let left: u32 = between(notify.need("Subscription-State")?, "expires=", ";").parse()?;
    ensure!((590..=600).contains(&left), "{left} of 600 seconds left");
    let address = server.address().to_string();
    Ok(document
        .replace("UDP 10.0.0.27;", &format!("UDP {address};"))
        .replace("<sip:10.0.0.27>", &format!("<sip:{address}>"))
        .replace("z9hG4bK-d1e4c983", branch)
        .replace("CSeq: 633", &format!("CSeq: {}", notify.cseq()?))
        .replace("expires=599", &format!("expires={left}"))
        .replace("Content-Length: 253", &format!("Content-Length: {length}"))
        .replace("bs35r9f", tuple))
}

/// What stands in `text` after `start`, up to `end` or the end of the text.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).map_or("", |(_, rest)| rest);
    rest.split(end).next().unwrap_or_default()
}

/// Subscribes as the watcher of the document's NOTIFY; returns the first NOTIFY, answered.
fn subscribe(watcher: &Phone, event: &str) -> Result<Message> {
    let contact = format!("Contact: <sip:51112@{}>", watcher.address());
    let request = Request {
        method: "SUBSCRIBE",
        uri: PRESENTITY,
        branch: "subscribe",
        from: ("sip:51112@10.0.0.27", "rnzgc"),
        to: (PRESENTITY, None),
        call_id: CALL_ID,
        cseq: 1,
        headers: &[&format!("Event: {event}"), "Accept: application/pidf+xml", "Expires: 600", &contact],
        body: "",
    };
    watcher.send(&request.text(watcher));
    let answer = receive(watcher)?;
    assert_eq!(answer.status(), Some(200), "the 200 comes before the first NOTIFY: {}", answer.text());
    assert_eq!(answer.need("Expires")?, "600");
    let notify = receive(watcher)?;
    assert_eq!(notify.method(), "NOTIFY");
    watcher.send(&notify.ok());
    Ok(notify)
}

/// Publishes a packet whose Via names another address than the one that it comes from.
fn publish(publisher: &Phone, packet: &str) -> Result<()> {
    publisher.send(packet);
    let answer = receive(publisher)?;
    assert_eq!(answer.status(), Some(200), "{}", answer.text());
    // RFC 3581 §4: the answer comes to where the request came from, and says so.
    let via = answer.need("Via")?;
    ensure!(via.starts_with("SIP/2.0/UDP 10.0.0.141:5060;"), "{via}");
    ensure!(via.contains("branch=z9hG4bK.-~bJDwuuV"), "{via}");
    ensure!(via.contains(&format!("rport={}", publisher.address().port())), "{via}");
    ensure!(via.contains("received=127.0.0.1"), "{via}");
    // RFC 3903 §6: an entity tag, and what was granted.
    ensure!(!answer.need("SIP-ETag")?.is_empty());
    assert_eq!(answer.need("Expires")?, "3600");
    assert_eq!(answer.need("Call-ID")?, "R3BFg0WqhB");
    assert_eq!(answer.need("CSeq")?, "20 PUBLISH");
    Ok(())
}

fn receive(phone: &Phone) -> Result<Message> {
    phone.receive(Instant::now() + PATIENCE)?.context("nothing came")
}

const PRESENTITY: &str = "sip:51234@10.0.0.27";
const CALL_ID: &str = "uyyucrjijinwadl";
