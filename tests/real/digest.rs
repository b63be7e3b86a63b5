//! Digest authentication (RFC 8760) by real clients.

use anyhow::{Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::baresip::{self, Baresip};
use comsipl_tests::client::linphone::{Account, Linphone, Linphonec, Status};
use comsipl_tests::client::program::{Program, available};
use comsipl_tests::client::road::Road;
use comsipl_tests::client::web::{Library, WebPhone};
use comsipl_tests::server::{Server, Start};

use super::{BARESIP_PUBLISH_EXPIRES, CONFIG, quote};

#[test]
fn linphones_prove_themselves_by_udp() -> Result<()> {
    linphones(Transport::Udp)
}

#[test]
fn linphones_prove_themselves_by_tcp() -> Result<()> {
    linphones(Transport::Tcp)
}

#[test]
fn baresips_prove_themselves_by_udp() -> Result<()> {
    if !available(&[Program::Baresip]) {
        return Ok(());
    }
    let server = start(&[Transport::Udp])?;
    let road = Road { password: Some(PASSWORD), ..Road::plain(server.address()) };
    for user in ["carol", "dave"] {
        server.add_user(&format!("{user}@127.0.0.1"), PASSWORD)?;
    }
    let account =
        |user, watches| baresip::Account { user, road, publish_expires: BARESIP_PUBLISH_EXPIRES, watches };
    let mut carols = Baresip::start(&account("carol", &["dave"]))?;
    let mut daves = Baresip::start(&account("dave", &["carol"]))?;
    carols.expect("dave", "Online")?;
    daves.expect("carol", "Online")?;
    carols.order("presence_offline")?;
    quote(&[daves.expect("carol", "Offline")?]);
    Ok(())
}

#[test]
fn web_phones_prove_themselves() -> Result<()> {
    if !available(&[Program::WebPhones]) {
        return Ok(());
    }
    let server = start(&[Transport::Udp, Transport::Ws])?;
    let at = server.address_of(Transport::Ws);
    let road = Road { transport: Transport::Ws, password: Some(PASSWORD), ..Road::plain(at) };
    for user in ["dora", "eve"] {
        server.add_user(&format!("{user}@localhost"), PASSWORD)?;
    }
    let mut doras = WebPhone::start(Library::SipJs, "dora", "localhost", &road)?;
    let mut eves = WebPhone::start(Library::JsSip, "eve", "localhost", &road)?;
    eves.watch("presence", "sip:dora@localhost", PIDF)?;
    eves.expect("presence", "<basic>closed</basic>")?;
    let document = "<?xml version=\"1.0\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:dora@localhost\">\
                    <tuple id=\"web\"><status><basic>open</basic></status></tuple></presence>";
    doras.publish("presence", PIDF, document)?;
    quote(&[eves.expect("presence", "<basic>open</basic>")?]);
    for (phone, method) in [(&doras, "PUBLISH "), (&eves, "SUBSCRIBE ")] {
        let proves = |text: &String| text.starts_with(method) && text.contains("\r\nAuthorization: Digest ");
        ensure!(phone.messages("sent").iter().any(proves), "nobody asked who sent the {method}");
    }
    Ok(())
}

#[test]
fn a_linphone_with_the_wrong_password_is_not_let_in() -> Result<()> {
    if !available(&[Program::Liblinphone]) {
        return Ok(());
    }
    let server = start(&[Transport::Udp])?;
    server.add_user("alice@127.0.0.1", PASSWORD)?;
    let road = Road { password: Some("another"), ..Road::plain(server.address()) };
    let refused = Linphone::start_refused(&Account::over("alice", road))?;
    quote(&[refused]);
    Ok(())
}

fn linphones(transport: Transport) -> Result<()> {
    if !available(&[Program::Linphonec, Program::Liblinphone]) {
        return Ok(());
    }
    let server = start(&[Transport::Udp, Transport::Tcp])?;
    let road = Road { transport, password: Some(PASSWORD), ..Road::plain(server.address_of(transport)) };
    let host = if transport == Transport::Udp { "127.0.0.1" } else { "localhost" };
    for user in ["alice", "bob", "wanda"] {
        server.add_user(&format!("{user}@{host}"), PASSWORD)?;
    }
    let (alice, bob) = (Account::over("alice", road), Account::over("bob", road));
    let mut alices = Linphone::start(&alice)?;
    let mut bobs = Linphone::start(&bob)?;
    let mut wandas = Linphonec::start(&Account { publish_expires: None, ..Account::over("wanda", road) })?;
    alices.befriend(&bob.uri())?;
    bobs.befriend(&alice.uri())?;
    wandas.befriend("bob", &bob.uri())?;
    alices.expect(&bob.uri(), Status::Online)?;
    for status in [Status::Busy, Status::Away, Status::Online] {
        bobs.publish(status)?;
        quote(&[alices.expect(&bob.uri(), status)?, wandas.expect(&bob.uri(), status)?]);
    }
    for method in ["REGISTER", "PUBLISH"] {
        ensure!(bobs.has_proved(method), "nobody asked who sent the {method}");
    }
    // What it once proved itself with, it takes for the next request, too.
    bobs.order("unpublish")?;
    quote(&[wandas.expect(&bob.uri(), Status::Offline)?]);
    alices.quit()?;
    wandas.quit()?;
    bobs.quit()
}

fn start(transports: &[Transport]) -> Result<Server> {
    Server::start_with(CONFIG, Start { transports: transports.to_vec(), auth: "digest", ..Start::default() })
}

const PIDF: &str = "application/pidf+xml";

const PASSWORD: &str = "fish-and-chips";
