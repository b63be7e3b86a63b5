//! Event packages beside presence, asked for by SIPp.

use anyhow::Result;
use comsipl_tests::client::program::{Program, available};
use comsipl_tests::client::sipp;

use super::start_for_sipp;

#[test]
fn a_busy_lamp_follows_the_dialogs_of_its_phone() -> Result<()> {
    if !available(&[Program::Sipp]) {
        return Ok(());
    }
    let server = start_for_sipp(1)?;
    sipp::run("dialog.xml", server.address()).map(drop)
}

#[test]
fn the_lamp_of_a_mailbox_follows_its_summary() -> Result<()> {
    if !available(&[Program::Sipp]) {
        return Ok(());
    }
    let server = start_for_sipp(1)?;
    sipp::run("message_summary.xml", server.address()).map(drop)
}
