//! Phones that people really have, against the real binary: Linphone, baresip and SIPp.
//!
//! Each test has a server and clients of its own, on free ports of loopback, and quotes what the clients print. A test
//! whose clients are not installed says so and passes, unless `COMSIPL_REQUIRE_CLIENTS=1`, which `tests/check.sh` sets.

#[path = "real/digest.rs"]
mod digest;
#[path = "real/event_packages.rs"]
mod event_packages;
#[path = "real/transports.rs"]
mod transports;
#[path = "real/web_phones.rs"]
mod web_phones;

use anyhow::{Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::authority::Authority;
use comsipl_tests::client::baresip;
use comsipl_tests::client::linphone::{Account, Linphone, Linphonec, Status};
use comsipl_tests::client::program::{Program, available};
use comsipl_tests::client::road::Road;
use comsipl_tests::client::sipp;
use comsipl_tests::server::{EXACT_GRANTS, Server, Start};

#[test]
fn two_linphones_see_each_other() -> Result<()> {
    if !available(&[Program::Linphonec, Program::Liblinphone]) {
        return Ok(());
    }
    let server = Server::start(CONFIG)?;
    let (alice, bob) = (Account::new("alice", server.address()), Account::new("bob", server.address()));
    let watcher = Account::watching("wanda", Road::plain(server.address()));

    let mut alices = Linphone::start(&alice)?;
    let mut bobs = Linphone::start(&bob)?;
    let mut wandas = Linphonec::start(&watcher)?;
    alices.befriend(&bob.uri())?;
    bobs.befriend(&alice.uri())?;
    wandas.befriend("alice", &alice.uri())?;
    wandas.befriend("bob", &bob.uri())?;

    // Both publish "open" as soon as they are registered.
    alices.expect(&bob.uri(), Status::Online)?;
    bobs.expect(&alice.uri(), Status::Online)?;
    wandas.expect(&bob.uri(), Status::Online)?;

    for status in [Status::Busy, Status::Away, Status::Online, Status::Busy] {
        bobs.publish(status)?;
        let line = alices.expect(&bob.uri(), status)?;
        // The note that goes with "busy" arrives too.
        ensure!((status == Status::Busy) == line.contains("in a meeting"), "{line}");
        wandas.expect(&bob.uri(), status)?;
        alices.publish(status)?;
        bobs.expect(&alice.uri(), status)?;
        quote(&[line, wandas.expect(&alice.uri(), status)?]);
    }

    // Closed is a status, too, and the publication goes on.
    bobs.order("status closed")?;
    alices.expect(&bob.uri(), Status::Offline)?;
    quote(&[wandas.expect(&bob.uri(), Status::Offline)?]);

    alices.quit()?;
    wandas.expect(&alice.uri(), Status::Offline)?;
    bobs.expect(&alice.uri(), Status::Offline)?;
    wandas.quit()?;
    bobs.quit()
}

#[test]
fn linphone_is_offline_when_it_takes_its_publication_back_and_online_when_it_publishes_again() -> Result<()> {
    if !available(&[Program::Linphonec, Program::Liblinphone]) {
        return Ok(());
    }
    let server = Server::start(CONFIG)?;
    let bob = Account::new("bob", server.address());
    let mut bobs = Linphone::start(&bob)?;
    let mut wandas = Linphonec::start(&Account::watching("wanda", Road::plain(server.address())))?;
    wandas.befriend("bob", &bob.uri())?;
    wandas.expect(&bob.uri(), Status::Online)?;

    // The un-PUBLISH of Linphone 5.1 has no Content-Length and is never repeated: it is understood at once or lost.
    bobs.publish(Status::Offline)?;
    quote(&[wandas.expect(&bob.uri(), Status::Offline)?]);
    bobs.come_back()?;
    quote(&[wandas.expect(&bob.uri(), Status::Online)?]);
    bobs.order("unpublish")?;
    quote(&[wandas.expect(&bob.uri(), Status::Offline)?]);
    wandas.quit()
}

#[test]
fn a_linphone_that_dies_goes_offline_when_its_publication_expires() -> Result<()> {
    if !available(&[Program::Linphonec, Program::Liblinphone]) {
        return Ok(());
    }
    let server = Server::start(CONFIG)?;
    let bob = Account { publish_expires: Some(4), ..Account::new("bob", server.address()) };
    let alice = Account::new("alice", server.address());
    let mut bobs = Linphone::start(&bob)?;
    let mut alices = Linphone::start(&alice)?;
    let mut wandas = Linphonec::start(&Account::watching("wanda", Road::plain(server.address())))?;
    wandas.befriend("bob", &bob.uri())?;
    alices.befriend(&bob.uri())?;
    wandas.expect(&bob.uri(), Status::Online)?;
    alices.expect(&bob.uri(), Status::Online)?;

    // As long as it lives it refreshes, at 90 % of the 4 seconds: two refreshes go by and nobody sees it offline.
    bobs.event("PUBLISH sip:bob@")?;
    bobs.event("PUBLISH sip:bob@")?;
    bobs.event("PUBLISH sip:bob@")?;
    ensure!(!alices.has_said(&format!("presence {} Offline", bob.uri())), "offline though it refreshes");

    bobs.kill();
    quote(&[wandas.expect(&bob.uri(), Status::Offline)?, alices.expect(&bob.uri(), Status::Offline)?]);
    wandas.quit()
}

#[test]
fn linphones_refresh_their_subscriptions_and_still_see_each_other() -> Result<()> {
    if !available(&[Program::Liblinphone]) {
        return Ok(());
    }
    let server = Server::start(CONFIG)?;
    let bob = Account::new("bob", server.address());
    let alice = Account { subscribe_expires: 4, ..Account::new("alice", server.address()) };
    let mut bobs = Linphone::start(&bob)?;
    let mut alices = Linphone::start(&alice)?;
    alices.befriend(&bob.uri())?;
    alices.expect(&bob.uri(), Status::Online)?;
    // A refresh is answered with a NOTIFY of the whole state: two refreshes later the subscription still stands.
    alices.expect(&bob.uri(), Status::Online)?;
    alices.expect(&bob.uri(), Status::Online)?;
    bobs.publish(Status::Away)?;
    quote(&[alices.expect(&bob.uri(), Status::Away)?]);
    alices.quit()?;
    bobs.quit()
}

#[test]
fn linphones_see_each_other_across_a_crash_of_the_server() -> Result<()> {
    if !available(&[Program::Linphonec, Program::Liblinphone]) {
        return Ok(());
    }
    let mut server = Server::start(CONFIG)?;
    let (alice, bob) = (Account::new("alice", server.address()), Account::new("bob", server.address()));
    let mut alices = Linphone::start(&alice)?;
    let mut bobs = Linphone::start(&bob)?;
    let mut wandas = Linphonec::start(&Account::watching("wanda", Road::plain(server.address())))?;
    alices.befriend(&bob.uri())?;
    bobs.befriend(&alice.uri())?;
    wandas.befriend("bob", &bob.uri())?;
    bobs.publish(Status::Busy)?;
    alices.expect(&bob.uri(), Status::Busy)?;
    wandas.expect(&bob.uri(), Status::Busy)?;
    bobs.expect(&alice.uri(), Status::Online)?;

    for status in [Status::Away, Status::Busy] {
        server.kill()?;
        server.restart()?;
        // Nobody registers, subscribes or publishes anew: the expiries are minutes away. The dialogs and the entity tags
        // of the process before are the ones that must work.
        bobs.publish(status)?;
        quote(&[alices.expect(&bob.uri(), status)?, wandas.expect(&bob.uri(), status)?]);
        alices.publish(status)?;
        quote(&[bobs.expect(&alice.uri(), status)?]);
    }
    alices.quit()?;
    bobs.expect(&alice.uri(), Status::Offline)?;
    wandas.quit()?;
    bobs.quit()?;
    server.stop()?;
    server.verify_files()
}

#[test]
fn baresip_sees_and_publishes() -> Result<()> {
    if !available(&[Program::Baresip]) {
        return Ok(());
    }
    let server = Server::start(CONFIG)?;
    let (mut carols, mut daves, line) = baresip::Baresip::start_two(Road::plain(server.address()))?;
    quote(&[line]);
    carols.order("presence_offline")?;
    quote(&[daves.expect("carol", "Offline")?]);
    carols.order("presence_online")?;
    quote(&[daves.expect("carol", "Online")?]);
    daves.order("presence_offline")?;
    quote(&[carols.expect("dave", "Offline")?]);
    Ok(())
}

#[test]
fn baresip_and_linphone_see_each_other() -> Result<()> {
    if !available(&[Program::Baresip, Program::Liblinphone]) {
        return Ok(());
    }
    let server = Server::start(CONFIG)?;
    let bob = Account::new("bob", server.address());
    let mut bobs = Linphone::start(&bob)?;
    let carol = baresip::Account::new("carol", Road::plain(server.address()), &["bob"]);
    let mut carols = baresip::Baresip::start(&carol)?;
    let carol = format!("sip:carol@{}", server.address());
    bobs.befriend(&carol)?;
    bobs.expect(&carol, Status::Online)?;
    quote(&[carols.expect("bob", "Online")?]);
    carols.order("presence_offline")?;
    quote(&[bobs.expect(&carol, Status::Offline)?]);
    bobs.order("status closed")?;
    quote(&[carols.expect("bob", "Offline")?]);
    bobs.publish(Status::Online)?;
    carols.expect("bob", "Online")?;
    bobs.quit()
}

#[test]
fn sipp_registers() -> Result<()> {
    if !available(&[Program::Sipp]) {
        return Ok(());
    }
    let server = start_for_sipp(2)?;
    let log = sipp::run("register.xml", server.address())?;
    ensure!(sipp::logged(&log, "first")? == sipp::logged(&log, "again")?, "another answer: {log:?}");
    ensure!(sipp::logged(&log, "left")?.is_empty(), "a binding is left: {log:?}");
    Ok(())
}

#[test]
fn sipp_publishes() -> Result<()> {
    if !available(&[Program::Sipp]) {
        return Ok(());
    }
    let server = start_for_sipp(2)?;
    let log = sipp::run("publish.xml", server.address())?;
    ensure!(sipp::logged(&log, "first")? == sipp::logged(&log, "again")?, "another answer: {log:?}");
    let mut tags =
        vec![sipp::logged(&log, "first")?, sipp::logged(&log, "refreshed")?, sipp::logged(&log, "modified")?];
    tags.sort_unstable();
    tags.dedup();
    ensure!(tags.len() == 3, "an entity tag was used twice: {log:?}");
    Ok(())
}

#[test]
fn sipp_subscribes() -> Result<()> {
    if !available(&[Program::Sipp]) {
        return Ok(());
    }
    let server = start_for_sipp(1)?;
    let log = sipp::run("subscribe.xml", server.address())?;
    ensure!(sipp::logged(&log, "first")? == sipp::logged(&log, "again")?, "another answer: {log:?}");
    let cseq = |name| -> Result<u32> { Ok(sipp::logged(&log, name)?.trim().parse()?) };
    ensure!(cseq("cseq1")? < cseq("cseq2")?, "CSeq does not grow: {log:?}");
    Ok(())
}

/// The shortest expiry is a second, so that tests may see things expire.
const CONFIG: &str = "\
[publication]
min_expires = 1
[subscription]
min_expires = 1
[registration]
min_expires = 1
";

/// A server that listens to `transport` besides UDP, with a certificate of `authority` if that goes over TLS, and has users
/// prove themselves as `auth` says.
fn start(transport: Transport, authority: &Authority, auth: &'static str) -> Result<Server> {
    let mut transports = vec![Transport::Udp];
    transports.extend((transport != Transport::Udp).then_some(transport));
    let tls = if transport.is_secure() { authority.server_config() } else { String::new() };
    Server::start_with(&format!("{CONFIG}{tls}"), Start { transports, auth, ..Start::default() })
}

/// A server for SIPp, which wants just what it asks for, and messages in one order: with several shards a NOTIFY may overtake
/// the 200 to the PUBLISH that led to it.
fn start_for_sipp(shards: usize) -> Result<Server> {
    Server::start_with_shards(&format!("{CONFIG}{EXACT_GRANTS}"), shards)
}

/// Shows what a client printed; `cargo test -- --nocapture` lets it be read.
fn quote(lines: &[String]) {
    for line in lines {
        eprintln!("    {line}");
    }
}
