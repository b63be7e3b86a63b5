//! Web phones: SIP.js and JsSIP over WebSocket (RFC 7118), and desk phones beside them.

use anyhow::{Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::authority::Authority;
use comsipl_tests::client::linphone::{Account, Linphone, Status};
use comsipl_tests::client::program::{Program, available};
use comsipl_tests::client::road::Road;
use comsipl_tests::client::web::{Library, WebPhone};
use comsipl_tests::server::Server;

use super::{quote, start};

#[test]
fn web_phones_and_a_linphone_see_each_other() -> Result<()> {
    if !available(&[Program::WebPhones, Program::Liblinphone]) {
        return Ok(());
    }
    let server = start(Transport::Ws, &Authority::new()?, "none")?;
    let road = Road { transport: Transport::Ws, ..Road::plain(server.address_of(Transport::Ws)) };
    let domain = server.address().to_string();
    let bob = Account::new("bob", server.address());
    let mut doras = WebPhone::start(Library::SipJs, "dora", &domain, &road)?;
    let mut eves = WebPhone::start(Library::JsSip, "eve", &domain, &road)?;
    let mut bobs = Linphone::start(&bob)?;
    let dora = format!("sip:dora@{domain}");

    eves.watch("presence", &dora, PIDF)?;
    eves.expect("presence", "<basic>closed</basic>")?;
    bobs.befriend(&dora)?;
    bobs.expect(&dora, Status::Offline)?;
    doras.watch("presence", &bob.uri(), PIDF)?;
    doras.expect("presence", "<basic>open</basic>")?;

    doras.publish("presence", PIDF, &pidf("open", "at the web"))?;
    let body = eves.expect("presence", "<basic>open</basic>")?;
    ensure!(body.contains("<note>at the web</note>") && body.contains("id=\"web\""), "{body}");
    quote(&[bobs.expect(&dora, Status::Online)?, body]);
    doras.publish("presence", PIDF, &pidf("closed", "gone"))?;
    eves.expect("presence", "<note>gone</note>")?;
    bobs.expect(&dora, Status::Offline)?;
    bobs.publish(Status::Busy)?;
    quote(&[doras.expect("presence", "busy")?]);
    doras.publish("presence", PIDF, &pidf("open", "back"))?;
    eves.expect("presence", "<note>back</note>")?;
    doras.unpublish("presence")?;
    eves.expect("presence", "<basic>closed</basic>")?;
    bobs.expect(&dora, Status::Offline)?;

    // RFC 7118 §5: a browser knows neither its address nor its port, so that Via and Contact name a host nobody can look up.
    // JsSIP subscribes with the GRUU that it was given for that Contact.
    for phone in [&doras, &eves] {
        let contact = |text: &String| {
            text.lines().any(|line| line.starts_with("Contact:") && line.contains(".invalid"))
        };
        let sent = phone.messages("sent");
        ensure!(sent.iter().any(|text| text.starts_with("REGISTER ") && contact(text)), "{sent:#?}");
        let got = phone.messages("got");
        let is_notify =
            |text: &String| text.starts_with("NOTIFY sip:") && text.contains("\r\nVia: SIP/2.0/WS ");
        ensure!(got.iter().any(is_notify), "{got:#?}");
    }
    bobs.quit()
}

#[test]
fn web_phones_that_lost_their_connections_are_told_by_the_next() -> Result<()> {
    if !available(&[Program::WebPhones]) {
        return Ok(());
    }
    let server = start(Transport::Ws, &Authority::new()?, "none")?;
    let road = Road { transport: Transport::Ws, ..Road::plain(server.address_of(Transport::Ws)) };
    come_back(&server, &road, &server.address().to_string())
}

#[test]
fn web_phones_that_lost_their_connections_are_told_by_the_next_over_tls() -> Result<()> {
    if !available(&[Program::WebPhones]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let server = start(Transport::Wss, &authority, "none")?;
    let trust = authority.certificate();
    let at = server.address_of(Transport::Wss);
    let road = Road { transport: Transport::Wss, trust: Some(&trust), ..Road::plain(at) };
    come_back(&server, &road, "localhost")
}

/// Two web phones watch a third and lose their connections, one after the other. Nobody subscribes anew: the
/// REGISTER over the new connection is what tells the server where the subscriptions went.
fn come_back(server: &Server, road: &Road<'_>, domain: &str) -> Result<()> {
    let mut doras = WebPhone::start(Library::SipJs, "dora", domain, road)?;
    let mut eves = WebPhone::start(Library::JsSip, "eve", domain, road)?;
    let mut fays = WebPhone::start(Library::SipJs, "fay", domain, road)?;
    let dora = format!("sip:dora@{domain}");
    for phone in [&mut eves, &mut fays] {
        phone.watch("presence", &dora, PIDF)?;
        phone.expect("presence", "<basic>closed</basic>")?;
    }
    doras.publish("presence", PIDF, &pidf("open", "first"))?;
    for phone in [&mut eves, &mut fays] {
        phone.expect("presence", "<note>first</note>")?;
        phone.break_connection()?;
    }
    doras.publish("presence", PIDF, &pidf("open", "second"))?;
    for phone in [&mut eves, &mut fays] {
        phone.expect("presence", "<note>second</note>")?;
    }
    // What changes while they are away is told when they are back; it may overtake the 200 to their REGISTER.
    eves.drop_connection()?;
    fays.drop_connection()?;
    doras.publish("presence", PIDF, &pidf("open", "meanwhile"))?;
    for phone in [&mut eves, &mut fays] {
        quote(&[phone.expect("presence", "<note>meanwhile</note>")?]);
    }
    // The publisher's connection is of no concern to its publication.
    doras.break_connection()?;
    doras.publish("presence", PIDF, &pidf("closed", "last"))?;
    for phone in [&mut eves, &mut fays] {
        phone.expect("presence", "<note>last</note>")?;
        let subscribed = phone.messages("sent").iter().filter(|text| text.starts_with("SUBSCRIBE ")).count();
        ensure!(subscribed == 1, "it has subscribed {subscribed} times");
    }
    ensure!(server.lines().iter().all(|line| !line.contains("panicked")), "{:#?}", server.lines());
    Ok(())
}

pub(super) fn pidf(basic: &str, note: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:dora@example.com\">\
         <tuple id=\"web\"><status><basic>{basic}</basic></status><note>{note}</note></tuple></presence>"
    )
}

pub(super) const PIDF: &str = "application/pidf+xml";
