//! The security log: who was turned away and why, one line an event, for people and for fail2ban.
//!
//! Events have the target `security` and these fields, always all of them and in this order:
//!
//! ```text
//! event=auth_failed source=192.0.2.1 user=alice@example.com method=REGISTER reason=wrong_password
//! ```
//!
//! `deploy/fail2ban/` has a filter that matches them. What comes faster than [`EVENTS_PER_S`] is counted and told as one event
//! `suppressed`, so that nobody fills the disk from outside.

use std::net::IpAddr;

use comsipl_core::Mono;

/// Events a second that a shard logs; [`EVENTS_AT_ONCE`] of them at once.
pub const EVENTS_PER_S: u64 = 20;

/// Events that a shard logs at once after a quiet time.
pub const EVENTS_AT_ONCE: u64 = 100;

/// Somebody was turned away.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What happened.
    pub event: &'static str,
    /// Where it came from.
    pub source: IpAddr,
    /// Who it claims to be; empty: it says nothing.
    pub user: &'a [u8],
    /// The method of the request.
    pub method: &'a [u8],
    /// Why.
    pub reason: &'static str,
}

/// The security log of one shard.
#[derive(Debug)]
pub struct SecurityLog {
    /// Microseconds' worth of events that may be logged.
    credit: u64,
    at: Mono,
    suppressed: u64,
}

impl SecurityLog {
    /// A log with nothing in it.
    #[must_use]
    pub const fn new(now: Mono) -> Self {
        Self { credit: EVENTS_AT_ONCE * MICROS_EACH, at: now, suppressed: 0 }
    }

    /// Logs an event, unless there were too many.
    pub fn log(&mut self, now: Mono, event: &Event<'_>) {
        let elapsed = now.since(self.at).as_micros() as u64;
        self.at = now;
        self.credit = self.credit.saturating_add(elapsed).min(EVENTS_AT_ONCE * MICROS_EACH);
        if self.credit < MICROS_EACH {
            self.suppressed += 1;
            return;
        }
        self.credit -= MICROS_EACH;
        if self.suppressed > 0 {
            tracing::warn!(target: "security", event = %"suppressed", count = self.suppressed);
            self.suppressed = 0;
        }
        tracing::warn!(
            target: "security",
            event = %event.event,
            source = %event.source.to_canonical(),
            user = %Shown(event.user),
            method = %Shown(event.method),
            reason = %event.reason
        );
    }
}

/// Text of a stranger: letters, digits and what else addresses consist of; anything else is `?`, so that nobody writes a
/// line, a field or an address of his choice into the log.
struct Shown<'a>(&'a [u8]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        if self.0.is_empty() {
            return f.write_char('-');
        }
        for &byte in self.0.iter().take(SHOWN_MAX) {
            let is_harmless = byte.is_ascii_alphanumeric() || b"@.-_+%~:[]".contains(&byte);
            f.write_char(if is_harmless { char::from(byte) } else { '?' })?;
        }
        Ok(())
    }
}

/// Microseconds between two events at full rate.
const MICROS_EACH: u64 = 1_000_000 / EVENTS_PER_S;
/// Most bytes of a stranger's text that are logged.
const SHOWN_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What the log says, as `comsipl serve` writes it to a file.
    fn logged(work: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let subscriber =
            tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).with_target(false).finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn event<'a>(event: &'static str, user: &'a [u8], reason: &'static str) -> Event<'a> {
        Event { event, source: "192.0.2.1".parse().unwrap(), user, method: b"REGISTER", reason }
    }

    #[test]
    fn an_event_is_one_line_with_the_same_fields_always() {
        let mut log = SecurityLog::new(Mono(0));
        let lines = logged(|| {
            log.log(Mono(0), &event("auth_failed", b"alice@example.com", "wrong_password"));
            log.log(Mono(0), &event("auth_failed", b"a\r\nb c=d source=1.2.3.4 \"\xff", "malformed"));
            log.log(
                Mono(0),
                &Event { source: "::ffff:192.0.2.9".parse().unwrap(), ..event("flood", b"", "rate") },
            );
        });
        let tail = |line: &str| line.split_once("WARN ").unwrap().1.to_owned();
        assert_eq!(
            lines.iter().map(|line| tail(line)).collect::<Vec<_>>(),
            [
                "event=auth_failed source=192.0.2.1 user=alice@example.com method=REGISTER reason=wrong_password",
                "event=auth_failed source=192.0.2.1 user=a??b?c?d?source?1.2.3.4??? method=REGISTER reason=malformed",
                "event=flood source=192.0.2.9 user=- method=REGISTER reason=rate",
            ]
        );
    }

    #[test]
    fn a_flood_of_events_is_summed_up() {
        let mut log = SecurityLog::new(Mono(0));
        let lines = logged(|| {
            for _ in 0..EVENTS_AT_ONCE + 50 {
                log.log(Mono(0), &event("flood", b"", "rate"));
            }
            log.log(Mono(1_000_000), &event("flood", b"", "rate"));
        });
        assert_eq!(lines.len() as u64, EVENTS_AT_ONCE + 2);
        assert!(lines[EVENTS_AT_ONCE as usize].ends_with("event=suppressed count=50"), "{lines:?}");
    }

    #[test]
    fn fail2ban_finds_the_source_of_what_it_should_ban_and_nothing_else() {
        let filter = include_str!("../../deploy/fail2ban/filter.d/comsipl.conf");
        let failregex = filter.lines().find_map(|line| line.strip_prefix("failregex = ")).unwrap();
        // fail2ban takes the time stamp off, and <ADDR> stands for an address.
        let pattern = failregex.replace("<ADDR>", "(?P<addr>[0-9A-Fa-f.:]+)");
        let pattern = regex::Regex::new(&pattern).unwrap();
        let banned = |event: Event<'_>| {
            let mut log = SecurityLog::new(Mono(0));
            let lines = logged(|| log.log(Mono(0), &event));
            let find = |line: &str| pattern.captures(line).map(|found| found["addr"].to_owned());
            let found = find(lines[0].split_once(' ').unwrap().1);
            assert_eq!(find(&format!("host comsipl[4711]: {}", lines[0])), found, "in the journal");
            found
        };
        let source = Some("192.0.2.1".to_owned());
        assert_eq!(banned(event("auth_failed", b"eve@example.com", "wrong_password")), source);
        assert_eq!(banned(event("auth_failed", b"eve@example.com", "unknown_user")), source);
        assert_eq!(banned(event("auth_failed", b"eve@example.com", "too_many")), source);
        assert_eq!(banned(event("auth_failed", b"eve@example.com", "replayed")), None);
        assert_eq!(banned(event("flood", b"", "rate")), None, "anybody can send in the name of another");
        assert_eq!(banned(event("acl_denied", b"", "denied")), None);
        assert_eq!(banned(event("out_of_reach", b"sip:bob@example.com", "target_never_answers")), None);
        assert_eq!(banned(event("publish_denied", b"event=flood source=203.0.113.1", "not_granted")), None);
        let six =
            Event { source: "2001:db8::1".parse().unwrap(), ..event("auth_failed", b"x", "unknown_user") };
        assert_eq!(banned(six), Some("2001:db8::1".to_owned()));
    }
}
