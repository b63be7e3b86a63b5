//! Digest authentication (RFC 8760) by real clients, over every transport that they have.
//!
//! The server takes no request of anybody who has not proved who he is, so that whatever is seen here has been published and
//! watched by users who did.

use std::path::Path;

use anyhow::{Result, ensure};
use comsipl_core::Transport;
use comsipl_tests::client::authority::Authority;
use comsipl_tests::client::baresip::Baresip;
use comsipl_tests::client::linphone::{Account, Linphone, Status};
use comsipl_tests::client::linphones::Linphones;
use comsipl_tests::client::program::{Program, available};
use comsipl_tests::client::road::Road;
use comsipl_tests::client::web::{Library, WebPhone};
use comsipl_tests::server::Server;

use super::web_phones::{PIDF, pidf};
use super::{quote, start};

#[test]
fn linphones_prove_themselves_by_udp() -> Result<()> {
    linphones(Transport::Udp)
}

#[test]
fn linphones_prove_themselves_by_tcp() -> Result<()> {
    linphones(Transport::Tcp)
}

#[test]
fn linphones_prove_themselves_by_tls() -> Result<()> {
    linphones(Transport::Tls)
}

#[test]
fn baresips_prove_themselves_by_udp() -> Result<()> {
    baresips(Transport::Udp)
}

#[test]
fn baresips_prove_themselves_by_tcp() -> Result<()> {
    baresips(Transport::Tcp)
}

#[test]
fn baresips_prove_themselves_by_tls() -> Result<()> {
    baresips(Transport::Tls)
}

#[test]
fn web_phones_prove_themselves() -> Result<()> {
    web_phones(Transport::Ws)
}

#[test]
fn web_phones_prove_themselves_over_tls() -> Result<()> {
    web_phones(Transport::Wss)
}

#[test]
fn a_linphone_with_the_wrong_password_is_not_let_in() -> Result<()> {
    if !available(&[Program::Liblinphone]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let (server, trust) = (start(Transport::Udp, &authority, "digest")?, authority.certificate());
    let road = road(&server, Transport::Udp, &trust, &["alice"])?;
    let refused =
        Linphone::start_refused(&Account::over("alice", Road { password: Some("another"), ..road }))?;
    quote(&[refused]);
    Ok(())
}

fn linphones(transport: Transport) -> Result<()> {
    if !available(&[Program::Linphonec, Program::Liblinphone]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let (server, trust) = (start(transport, &authority, "digest")?, authority.certificate());
    let mut all = Linphones::start(road(&server, transport, &trust, &Linphones::USERS)?)?;
    quote(&all.follow_bob()?);
    let Linphones { alices, mut bobs, mut wandas, bob, .. } = all;
    for method in ["REGISTER", "PUBLISH", "SUBSCRIBE"] {
        ensure!(bobs.has_proved(method), "nobody asked who sent the {method}");
    }
    for method in ["REGISTER", "SUBSCRIBE"] {
        ensure!(wandas.has_proved(method)?, "nobody asked who sent the {method} of linphonec");
    }
    // What it once proved itself with, it takes for the next request, too.
    bobs.order("unpublish")?;
    quote(&[wandas.expect(&bob, Status::Offline)?]);
    alices.quit()?;
    wandas.quit()?;
    bobs.quit()
}

fn baresips(transport: Transport) -> Result<()> {
    if !available(&[Program::Baresip]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let (server, trust) = (start(transport, &authority, "digest")?, authority.certificate());
    let (mut carols, mut daves, line) =
        Baresip::start_two(road(&server, transport, &trust, &["carol", "dave"])?)?;
    quote(&[line]);
    carols.order("presence_offline")?;
    quote(&[daves.expect("carol", "Offline")?]);
    carols.order("presence_online")?;
    quote(&[daves.expect("carol", "Online")?]);
    for (phone, name) in [(&carols, "carol"), (&daves, "dave")] {
        for method in ["REGISTER", "PUBLISH", "SUBSCRIBE"] {
            ensure!(phone.has_proved(method), "nobody asked {name} who sent the {method}");
        }
    }
    Ok(())
}

fn web_phones(transport: Transport) -> Result<()> {
    if !available(&[Program::WebPhones]) {
        return Ok(());
    }
    let authority = Authority::new()?;
    let (server, trust) = (start(transport, &authority, "digest")?, authority.certificate());
    let road = road(&server, transport, &trust, &["dora", "eve", "fay"])?;
    let mut doras = WebPhone::start(Library::SipJs, "dora", &road.domain(), &road)?;
    let mut eves = WebPhone::start(Library::JsSip, "eve", &road.domain(), &road)?;
    let mut fays = WebPhone::start(Library::SipJs, "fay", &road.domain(), &road)?;
    let dora = format!("sip:dora@{}", road.domain());
    for phone in [&mut eves, &mut fays] {
        phone.watch("presence", &dora, PIDF)?;
        phone.expect("presence", "<basic>closed</basic>")?;
    }
    // The second modifies what the first has published.
    for basic in ["open", "closed"] {
        doras.publish("presence", PIDF, &pidf(basic, "proved"))?;
        for phone in [&mut eves, &mut fays] {
            quote(&[phone.expect("presence", &format!("<basic>{basic}</basic>"))?]);
        }
    }
    // A connection is not what proves them: the next one is asked as the first was, and what was subscribed goes on.
    for phone in [&mut doras, &mut eves, &mut fays] {
        phone.break_connection()?;
    }
    doras.publish("presence", PIDF, &pidf("open", "again"))?;
    for phone in [&mut eves, &mut fays] {
        quote(&[phone.expect("presence", "<basic>open</basic>")?]);
    }
    for (phone, name, methods) in [
        (&doras, "dora", ["REGISTER", "PUBLISH"]),
        (&eves, "eve", ["REGISTER", "SUBSCRIBE"]),
        (&fays, "fay", ["REGISTER", "SUBSCRIBE"]),
    ] {
        for method in methods {
            ensure!(phone.has_proved(method), "nobody asked {name} who sent the {method}");
        }
    }
    Ok(())
}

/// The road to `server` of `users`, whom it is made to know.
fn road<'a>(server: &Server, transport: Transport, trust: &'a Path, users: &[&str]) -> Result<Road<'a>> {
    let at = server.address_of(transport);
    let road = Road { transport, password: Some(PASSWORD), trust: Some(trust), ..Road::plain(at) };
    for user in users {
        server.add_user(&format!("{user}@{}", road.host()), PASSWORD)?;
    }
    Ok(road)
}

const PASSWORD: &str = "fish-and-chips";
