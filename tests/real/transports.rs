//! Desk phones over connections: Linphone and baresip by TCP and TLS.

use anyhow::{Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::authority::Authority;
use comsipl_tests::client::baresip::Baresip;
use comsipl_tests::client::linphone::{Account, Linphone, Status};
use comsipl_tests::client::linphones::Linphones;
use comsipl_tests::client::program::{Program, available};
use comsipl_tests::client::road::Road;

use super::{quote, start};

#[test]
fn linphones_see_each_other_by_tcp() -> Result<()> {
    linphones(Transport::Tcp)
}

#[test]
fn linphones_see_each_other_by_tls() -> Result<()> {
    linphones(Transport::Tls)
}

#[test]
fn baresips_see_each_other_by_tcp() -> Result<()> {
    baresips(Transport::Tcp)
}

#[test]
fn baresips_see_each_other_by_tls() -> Result<()> {
    baresips(Transport::Tls)
}

#[test]
fn a_linphone_that_was_off_the_network_sees_by_tcp_what_it_missed() -> Result<()> {
    if !available(&[Program::Liblinphone]) {
        return Ok(());
    }
    let server = start(Transport::Tcp, &Authority::new()?, "none")?;
    let road = Road { transport: Transport::Tcp, ..Road::plain(server.address_of(Transport::Tcp)) };
    let (alice, bob) = (Account::over("alice", road), Account::over("bob", road));
    let mut alices = Linphone::start(&alice)?;
    let mut bobs = Linphone::start(&bob)?;
    alices.befriend(&bob.uri())?;
    alices.expect(&bob.uri(), Status::Online)?;
    alices.leave_network()?;
    bobs.publish(Status::Busy)?;
    alices.join_network()?;
    quote(&[alices.expect(&bob.uri(), Status::Busy)?]);
    bobs.publish(Status::Away)?;
    quote(&[alices.expect(&bob.uri(), Status::Away)?]);
    alices.quit()?;
    bobs.quit()
}

#[test]
fn linphones_by_tcp_see_each_other_after_a_crash_of_the_server() -> Result<()> {
    if !available(&[Program::Liblinphone]) {
        return Ok(());
    }
    let mut server = start(Transport::Tcp, &Authority::new()?, "none")?;
    let road = Road { transport: Transport::Tcp, ..Road::plain(server.address_of(Transport::Tcp)) };
    let (alice, bob) = (Account::over("alice", road), Account::over("bob", road));
    let mut alices = Linphone::start(&alice)?;
    let mut bobs = Linphone::start(&bob)?;
    alices.befriend(&bob.uri())?;
    alices.expect(&bob.uri(), Status::Online)?;
    // Every connection is gone with the process. A Linphone that does not get through at once waits for a minute or for
    // its network to change.
    server.kill()?;
    server.restart()?;
    for phone in [&mut alices, &mut bobs] {
        phone.leave_network()?;
        phone.join_network()?;
    }
    for status in [Status::Busy, Status::Away] {
        bobs.publish(status)?;
        quote(&[alices.expect(&bob.uri(), status)?]);
    }
    alices.quit()?;
    bobs.quit()?;
    server.stop()?;
    server.verify_files()
}

fn linphones(transport: Transport) -> Result<()> {
    if !available(&[Program::Linphonec, Program::Liblinphone]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let server = start(transport, &authority, "none")?;
    let trust = authority.certificate();
    let road = Road { transport, trust: Some(&trust), ..Road::plain(server.address_of(transport)) };
    let mut all = Linphones::start(road)?;
    quote(&all.follow_bob()?);
    let Linphones { mut alices, mut bobs, mut wandas, alice, bob } = all;
    for status in [Status::Busy, Status::Away, Status::Online] {
        alices.publish(status)?;
        bobs.expect(&alice, status)?;
    }
    // No phone has a listener of this transport: what it was told came by the connection that it had opened.
    ensure!(
        alices.trace(&format!("Via: SIP/2.0/{} 127.0.0.1", transport.via_token())),
        "not told by {transport:?}"
    );
    bobs.order("unpublish")?;
    quote(&[wandas.expect(&bob, Status::Offline)?]);
    alices.quit()?;
    bobs.expect(&alice, Status::Offline)?;
    wandas.quit()?;
    bobs.quit()
}

fn baresips(transport: Transport) -> Result<()> {
    if !available(&[Program::Baresip]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let server = start(transport, &authority, "none")?;
    let trust = authority.certificate();
    let road = Road { transport, trust: Some(&trust), ..Road::plain(server.address_of(transport)) };
    let (mut carols, mut daves, line) = Baresip::start_two(road)?;
    quote(&[line]);
    carols.order("presence_offline")?;
    quote(&[daves.expect("carol", "Offline")?]);
    carols.order("presence_online")?;
    quote(&[daves.expect("carol", "Online")?]);
    Ok(())
}
