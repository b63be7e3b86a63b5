//! The template-package `winfo` (RFC 3857) with its documents (RFC 3858): who watches whom.
//!
//! The shards that have watchers of a presentity report them to its owner as bytes ([`begin_report`], [`push_watcher`]), and
//! the owner writes the document. Documents always have full state, as §4.3 of RFC 3857 allows ("the server can apply any
//! policy it likes").

use std::time::Duration;

use super::moments::{push_since, push_until, push_while};
use super::{Compose, EventPackage, everything};
use crate::UnixMillis;
use crate::limits::{AOR_LEN_MAX, WATCHER_URI_LEN_MAX};
use crate::token::hex16;
use crate::xml::text::{escape, escape_uri};

/// > … all watcherinfo subscriptions SHOULD be authenticated and then authorized before approval. … It is RECOMMENDED that
/// > user A be allowed to subscribe to their own watcher information for any package. (RFC 3857 §4.6)
///
/// Media type: RFC 3857 §4.5; default expiry: §4.4; least interval: §4.10.
pub(super) const PACKAGE: EventPackage = EventPackage {
    name: "presence.winfo",
    number: 7,
    content_type: "application/watcherinfo+xml",
    template: true,
    own_only: true,
    compose: Compose::Watchers,
    opening: Some(OPENING),
    default_expires_secs: Some(3600),
    interval: Some(Duration::from_secs(5)),
    requested_info: everything,
};

/// The beginning of each document up to its version (RFC 3858 §3).
const OPENING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                       <watcherinfo xmlns=\"urn:ietf:params:xml:ns:watcherinfo\" version=\"";

/// What brought a watcher's subscription to where it is (RFC 3857 §4.7.1, Figure 1). Everyone whose SUBSCRIBE is accepted is
/// `active`, and whoever is refused is told so before there is a subscription, so that nobody is ever `rejected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherEvent {
    /// It was accepted.
    Subscribe = 0,
    /// It ran out, or the watcher ended it.
    Timeout = 1,
    /// The server gave it up, because the watcher does not answer or does not know it any more.
    Deactivated = 2,
}

impl WatcherEvent {
    const ALL: [Self; 3] = [Self::Subscribe, Self::Timeout, Self::Deactivated];

    /// The event in the letters of the schema.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Timeout => "timeout",
            Self::Deactivated => "deactivated",
        }
    }

    /// Whether the watcher watches after it.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Subscribe)
    }
}

/// One watcher's subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watcher<'a> {
    /// Names it among all subscriptions.
    pub id: u64,
    /// What happened to it last.
    pub event: WatcherEvent,
    /// When it began; zero: not known.
    pub subscribed_at: UnixMillis,
    /// When it ends; of one that has ended, until when that is told.
    pub until: UnixMillis,
    /// The watcher's URI.
    pub uri: &'a [u8],
}

/// Bytes of a watcher in a report before its URI.
const FIXED_LEN: usize = 8 + 1 + 8 + 8 + 2;

/// A report of the watchers of `aor` (canonical) that names nobody yet.
#[must_use]
pub fn begin_report(aor: &[u8]) -> Vec<u8> {
    let aor = &aor[..aor.len().min(AOR_LEN_MAX)];
    let mut report = (aor.len() as u16).to_le_bytes().to_vec();
    report.extend_from_slice(aor);
    report
}

/// The AoR of a report, and its watchers for [`watchers`]; `None` if it is damaged.
#[must_use]
pub fn split_report(report: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = report.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_le_bytes(*len).into())
}

/// Appends a watcher to those of a report. `false`: it is not appended, because the report would be longer than `len_max`, or
/// its URI is longer than [`WATCHER_URI_LEN_MAX`].
#[must_use]
pub fn push_watcher(watcher: &Watcher<'_>, len_max: usize, report: &mut Vec<u8>) -> bool {
    let len = watcher.uri.len();
    if len > WATCHER_URI_LEN_MAX || report.len() + FIXED_LEN + len > len_max {
        return false;
    }
    report.extend_from_slice(&watcher.id.to_le_bytes());
    report.push(watcher.event as u8);
    report.extend_from_slice(&watcher.subscribed_at.0.to_le_bytes());
    report.extend_from_slice(&watcher.until.0.to_le_bytes());
    report.extend_from_slice(&(len as u16).to_le_bytes());
    report.extend_from_slice(watcher.uri);
    true
}

/// The watchers of a report, up to where it is damaged.
pub fn watchers(report: &[u8]) -> impl Iterator<Item = Watcher<'_>> {
    let mut rest = report;
    std::iter::from_fn(move || {
        let (fixed, more) = rest.split_first_chunk::<FIXED_LEN>()?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| fixed[at + n]));
        let len = u16::from_le_bytes([fixed[25], fixed[26]]);
        let (uri, more) = more.split_at_checked(usize::from(len))?;
        rest = more;
        Some(Watcher {
            id: word(0),
            event: *WatcherEvent::ALL.get(usize::from(fixed[8]))?,
            subscribed_at: UnixMillis(word(9)),
            until: UnixMillis(word(17)),
            uri,
        })
    })
}

/// Appends the document about the watchers of `aor` (canonical, without scheme) in `package`, behind its version. It lists
/// as many of `watchers` as `len_max` bytes hold, and returns how many it does not list.
pub fn write<'a>(
    aor: &[u8],
    package: &str,
    watchers: impl Iterator<Item = Watcher<'a>>,
    len_max: usize,
    out: &mut Vec<u8>,
) -> usize {
    const END: &[u8] = b"</watcher-list>\n</watcherinfo>\n";
    out.extend_from_slice(b"\" state=\"full\">\n<watcher-list resource=\"sip:");
    escape_uri(aor, out);
    out.extend_from_slice(b"\" package=\"");
    escape(package.as_bytes(), out);
    out.extend_from_slice(b"\">\n");
    let mut unlisted = 0;
    for watcher in watchers {
        let before = out.len();
        if watcher.event.is_active() {
            write_watcher(&watcher, out);
        } else {
            push_while(out, watcher.until, |out| write_watcher(&watcher, out), |_| ());
        }
        if out.len() + END.len() > len_max {
            out.truncate(before);
            unlisted += 1;
        }
    }
    out.extend_from_slice(END);
    unlisted
}

fn write_watcher(watcher: &Watcher<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<watcher id=\"");
    out.extend_from_slice(&hex16(watcher.id));
    out.extend_from_slice(if watcher.event.is_active() {
        b"\" status=\"active\" event=\""
    } else {
        b"\" status=\"terminated\" event=\""
    });
    out.extend_from_slice(watcher.event.as_str().as_bytes());
    if watcher.event.is_active() {
        if watcher.subscribed_at.0 != 0 {
            out.extend_from_slice(b"\" duration-subscribed=\"");
            push_since(out, watcher.subscribed_at);
        }
        out.extend_from_slice(b"\" expiration=\"");
        push_until(out, watcher.until);
    }
    out.extend_from_slice(b"\">");
    escape_uri(watcher.uri, out);
    out.extend_from_slice(b"</watcher>\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::moments::render;
    use crate::event::tests::elements;
    use crate::token::push_number;

    const BOB: Watcher<'_> = Watcher {
        id: 7,
        event: WatcherEvent::Subscribe,
        subscribed_at: UnixMillis(1_000_000),
        until: UnixMillis(4_600_000),
        uri: b"sip:bob@example.com",
    };

    fn document(watchers: &[Watcher<'_>], now: u64) -> String {
        let mut kept = OPENING.as_bytes().to_vec();
        push_number(&mut kept, 3);
        let unlisted = write(b"alice@example.com", "presence", watchers.iter().copied(), 1 << 16, &mut kept);
        assert_eq!(unlisted, 0);
        let mut out = Vec::new();
        render(&kept, UnixMillis(now), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn watchers_are_listed_with_their_times() {
        assert_eq!(
            document(&[BOB], 1_509_000),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <watcherinfo xmlns=\"urn:ietf:params:xml:ns:watcherinfo\" version=\"3\" state=\"full\">\n\
             <watcher-list resource=\"sip:alice@example.com\" package=\"presence\">\n\
             <watcher id=\"0000000000000007\" status=\"active\" event=\"subscribe\" duration-subscribed=\"509\" \
             expiration=\"3091\">sip:bob@example.com</watcher>\n</watcher-list>\n</watcherinfo>\n"
        );
    }

    #[test]
    fn one_who_ended_is_told_as_terminated_for_a_while() {
        for event in [WatcherEvent::Timeout, WatcherEvent::Deactivated] {
            let gone = Watcher { event, ..BOB };
            let told = document(&[gone], 4_599_999);
            let expected = format!("status=\"terminated\" event=\"{}\">sip:bob@", event.as_str());
            assert!(told.contains(&expected), "{told}");
            assert_eq!(document(&[gone], 4_600_000), document(&[], 4_600_000));
        }
    }

    #[test]
    fn beyond_the_length_watchers_are_not_listed_and_counted() {
        let many = || (0..1000).map(|id| Watcher { id, ..BOB });
        let mut out = Vec::new();
        let unlisted = write(b"alice@example.com", "presence", many(), 20_000, &mut out);
        let listed = out.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"<watcher id")).count();
        assert!((100..200).contains(&listed), "{listed}");
        assert_eq!(unlisted, 1000 - listed);
        assert!(out.len() <= 20_000 && out.ends_with(b"</watcherinfo>\n"));
    }

    #[test]
    fn what_watchers_send_cannot_leave_its_place() {
        let uri = b"sip:<b>&\"'@\x01\x02\x03\xff]]></watcher><evil/>";
        let text = document(&[Watcher { uri, ..BOB }], 0);
        assert_eq!(elements(&text), ["watcherinfo", "watcher-list", "watcher"]);
    }

    #[test]
    fn a_report_takes_no_more_than_it_may() {
        let name = [b'x'; WATCHER_URI_LEN_MAX + 1];
        let (short, long) = (&name[..WATCHER_URI_LEN_MAX], &name[..]);
        let mut report = Vec::new();
        assert!(!push_watcher(&Watcher { uri: long, ..BOB }, 1 << 20, &mut report));
        assert!(!push_watcher(&Watcher { uri: short, ..BOB }, WATCHER_URI_LEN_MAX, &mut report));
        assert!(report.is_empty());
        for _ in 0..100 {
            let before = report.len();
            if !push_watcher(&Watcher { uri: short, ..BOB }, 10_000, &mut report) {
                assert_eq!(report.len(), before);
            }
        }
        // A shorter one may find room where a longer one did not.
        assert!(push_watcher(&BOB, 10_000, &mut report));
        assert!(report.len() <= 10_000);
        assert_eq!(watchers(&report).count(), 10);
    }

    proptest! {
        #[test]
        fn a_report_reads_back(aor in prop::collection::vec(any::<u8>(), 0..AOR_LEN_MAX), uris in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5), event in 0usize..3, a: u64, b: u64, cut in 0usize..30) {
            let sent: Vec<Watcher<'_>> = uris
                .iter()
                .map(|uri| Watcher { id: a, event: WatcherEvent::ALL[event], subscribed_at: UnixMillis(b), until: UnixMillis(a ^ b), uri })
                .collect();
            let mut report = begin_report(&aor);
            for watcher in &sent {
                prop_assert!(push_watcher(watcher, 1 << 20, &mut report));
            }
            let (named, rest) = split_report(&report).unwrap();
            prop_assert_eq!(named, aor);
            prop_assert_eq!(watchers(rest).collect::<Vec<_>>(), sent);
            report.truncate(report.len().saturating_sub(cut));
            prop_assert!(split_report(&report).is_none_or(|(_, rest)| watchers(rest).count() <= uris.len()));
        }
    }
}
