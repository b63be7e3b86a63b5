//! Digest authentication (RFC 8760) by real clients.

use anyhow::{Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::baresip::{self, Baresip};
use comsipl_tests::client::linphone::{Account, Linphone, Linphonec, Status};
use comsipl_tests::client::program::{Program, available};
use comsipl_tests::client::road::Road;
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
    let server = start(MD5, &[Transport::Udp])?;
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
fn a_linphone_with_the_wrong_password_is_not_let_in() -> Result<()> {
    if !available(&[Program::Liblinphone]) {
        return Ok(());
    }
    let server = start("", &[Transport::Udp])?;
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
    let server = start("", &[Transport::Udp, Transport::Tcp])?;
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

fn start(auth: &str, transports: &[Transport]) -> Result<Server> {
    Server::start_with(
        &format!("{CONFIG}{auth}"),
        Start { transports: transports.to_vec(), auth: "digest", ..Start::default() },
    )
}

/// baresip 1.0 looks at the first challenge alone and gives up when that is not MD5.
const MD5: &str = "[auth]\nalgorithms = [\"MD5\"]\n";

const PASSWORD: &str = "fish-and-chips";
