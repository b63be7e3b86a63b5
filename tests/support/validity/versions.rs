//! Versions of the documents of a subscription, counted as a watcher counts them.
//!
//! RFC 3858 §3, RFC 3680 §5.1 and RFC 4235 §4.1 have the same words: "Versions start at 0, and increment by one for each new
//! document sent" to a subscriber. A watcher that sees a gap believes that it has lost state, and asks for all of it.

use std::collections::BTreeMap;

use crate::world::sip_text::SipText;

/// What each subscription was told last.
#[derive(Debug, Default)]
pub struct Versions {
    last: BTreeMap<Subscription, Told>,
}

/// Call-ID, From, To and Event.
type Subscription = [String; 4];

#[derive(Debug)]
struct Told {
    cseq: u32,
    version: u64,
    /// The process has died since: its successor may leave numbers out, and must not use one again.
    restarted: bool,
}

impl Versions {
    /// Looks at a message of the server; only NOTIFYs with a document of a versioned type count.
    ///
    /// # Errors
    /// When the version is not the one that follows.
    pub fn look_at(&mut self, message: &SipText) -> Result<(), String> {
        let versioned = message.header("Content-Type").is_some_and(|it| VERSIONED.contains(&it));
        if message.method() != Some("NOTIFY") || !versioned {
            return Ok(());
        }
        let cseq = message.cseq().ok_or("a NOTIFY without CSeq")?;
        let version = version(&message.body).ok_or("a document without a version")?;
        let name = |name| message.header(name).unwrap_or_default().to_owned();
        let subscription = ["Call-ID", "From", "To", "Event"].map(name);
        let told = self.last.get(&subscription);
        let expected = match told {
            None => version == 0,
            Some(told) if told.cseq == cseq => version == told.version,
            Some(told) if told.restarted => version > told.version,
            Some(told) => version == told.version + 1,
        };
        if !expected {
            return Err(format!("version {version} in NOTIFY {cseq} follows {told:?}"));
        }
        let restarted = told.is_some_and(|told| told.restarted && told.cseq == cseq);
        self.last.insert(subscription, Told { cseq, version, restarted });
        Ok(())
    }

    /// The process has died.
    pub fn on_restart(&mut self) {
        self.last.values_mut().for_each(|told| told.restarted = true);
    }
}

/// The `version` of a document's root element.
fn version(body: &str) -> Option<u64> {
    let root = body.split('<').find(|tag| tag.starts_with(|c: char| c.is_alphabetic()))?;
    let value = root.split('>').next()?.split_once("version=\"")?.1;
    value.split('"').next()?.parse().ok()
}

/// The types whose documents count up; one of a conference is as its focus has published it.
const VERSIONED: [&str; 3] =
    ["application/watcherinfo+xml", "application/dialog-info+xml", "application/reginfo+xml"];

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(call_id: &str, cseq: u32, version: u64) -> SipText {
        let text = format!(
            "NOTIFY sip:a@192.0.2.1 SIP/2.0\r\nCall-ID: {call_id}\r\nCSeq: {cseq} NOTIFY\r\nEvent: dialog\r\n\
             Content-Type: application/dialog-info+xml\r\n\r\n<?xml version=\"1.0\"?>\n<dialog-info version=\"{version}\"/>"
        );
        SipText::read(text.as_bytes()).expect("a message")
    }

    #[test]
    fn each_subscription_counts_from_zero_and_a_retransmission_does_not_count() {
        let mut versions = Versions::default();
        for (call_id, cseq, version) in
            [("a", 1, 0), ("a", 1, 0), ("b", 7, 0), ("a", 2, 1), ("a", 2, 1), ("b", 8, 1)]
        {
            assert_eq!(versions.look_at(&notify(call_id, cseq, version)), Ok(()), "{call_id} {cseq}");
        }
    }

    #[test]
    fn what_does_not_follow_is_seen() {
        for (first, second) in [((1, 0), (2, 2)), ((1, 0), (2, 0)), ((1, 0), (1, 1))] {
            let mut versions = Versions::default();
            assert_eq!(versions.look_at(&notify("a", first.0, first.1)), Ok(()));
            assert!(versions.look_at(&notify("a", second.0, second.1)).is_err(), "{second:?}");
        }
        assert!(Versions::default().look_at(&notify("a", 1, 1)).is_err());
    }

    #[test]
    fn a_restart_may_leave_numbers_out_once() {
        let mut versions = Versions::default();
        assert_eq!(versions.look_at(&notify("a", 1, 0)), Ok(()));
        versions.on_restart();
        assert_eq!(versions.look_at(&notify("a", 65, 64)), Ok(()));
        assert!(versions.look_at(&notify("a", 66, 99)).is_err());
        versions.on_restart();
        assert!(versions.look_at(&notify("a", 66, 64)).is_err());
    }
}
