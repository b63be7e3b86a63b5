//! The documents that are published, and how a state is found again in what comes back.

use super::{Style, decimal, uri};
use crate::clock::Nanos;
use crate::ident::{Kind, Salt};

/// Length of a run's mark in a note; the state follows it.
const MARK_LEN: usize = 14;

/// The state that a document announces; written into its note and found again by [`find_state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whose state.
    pub presentity: u32,
    /// Counts the states of this presentity from 1.
    pub number: u32,
    /// When the PUBLISH was meant to be sent.
    pub intended: Nanos,
}

/// The event package of RFC 4235; of all others it is assumed that they carry PIDF.
pub(super) const DIALOG: &str = "dialog";

/// The type of the documents of the event package.
pub(super) fn media_type(style: &Style) -> &'static [u8] {
    if &*style.package == DIALOG { b"application/dialog-info+xml" } else { b"application/pidf+xml" }
}

/// The document of a state at a time, as the event package wants it.
pub(super) fn write(out: &mut Vec<u8>, style: &Style, state: State, at: Nanos) {
    if &*style.package == DIALOG {
        dialog_info(out, style, state);
    } else {
        pidf(out, style, state, at);
    }
}

/// The PIDF document (RFC 3863) of a state at a time, as Linphone writes it, with a note.
fn pidf(out: &mut Vec<u8>, style: &Style, state: State, at: Nanos) {
    out.extend_from_slice(
        b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
          <presence xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
          xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
          xmlns:pidfonline=\"http://www.linphone.org/xsds/pidfonline.xsd\" entity=\"",
    );
    uri(out, style, Kind::Presentity, state.presentity);
    out.extend_from_slice(
        b"\" xmlns=\"urn:ietf:params:xml:ns:pidf\">\n <tuple id=\"n5z2og\">\n  <status>\n   <basic>open</basic>\n   \
          <pidfonline:online/>\n  </status>\n  <contact priority=\"0.8\">",
    );
    uri(out, style, Kind::Presentity, state.presentity);
    out.extend_from_slice(b"</contact>\n  <note>");
    note(out, style, state);
    out.extend_from_slice(b"</note>\n  <timestamp>");
    date_time(out, style.wall_start_secs + at / crate::clock::SECOND);
    out.extend_from_slice(b"</timestamp>\n </tuple>\n</presence>\n");
}

/// The dialog-info document (RFC 4235 §4) of a state: a phone with one call, whose states follow each other in a
/// circle. The name of the call is what the state is found by.
fn dialog_info(out: &mut Vec<u8>, style: &Style, state: State) {
    out.extend_from_slice(
        b"<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"",
    );
    decimal(out, u64::from(state.number));
    out.extend_from_slice(b"\" state=\"full\" entity=\"");
    uri(out, style, Kind::Presentity, state.presentity);
    out.extend_from_slice(b"\">\n <dialog id=\"");
    note(out, style, state);
    out.extend_from_slice(b"\" direction=\"initiator\">\n  <state>");
    let states: [&[u8]; 4] = [b"trying", b"early", b"confirmed", b"terminated"];
    out.extend_from_slice(states[(state.number.wrapping_sub(1) % 4) as usize]);
    out.extend_from_slice(b"</state>\n </dialog>\n</dialog-info>\n");
}

/// What tells which state a document announces.
fn note(out: &mut Vec<u8>, style: &Style, state: State) {
    out.extend_from_slice(&mark(style.salt));
    hex(out, u64::from(state.presentity), 8);
    out.push(b'-');
    hex(out, u64::from(state.number), 8);
    out.push(b'-');
    hex(out, state.intended, 16);
}

/// What the notes of this run begin with.
pub fn mark(salt: Salt) -> [u8; MARK_LEN] {
    let mut text = Vec::with_capacity(MARK_LEN);
    text.extend_from_slice(b"State");
    hex(&mut text, salt.0, 8);
    text.push(b'-');
    text.try_into().expect("five letters, eight digits and a dash")
}

/// The state whose note is in `body`, the newest if there are several; `finder` looks for the run's [`mark`].
pub fn find_state(body: &[u8], finder: &memchr::memmem::Finder<'_>) -> Option<State> {
    finder
        .find_iter(body)
        .filter_map(|at| {
            let text = body.get(at + MARK_LEN..at + MARK_LEN + 34)?;
            Some(State {
                presentity: unhex(&text[..8])? as u32,
                number: unhex(&text[9..17])? as u32,
                intended: unhex(&text[18..])?,
            })
        })
        .max_by_key(|state| state.number)
}

/// The low `4 * digits` bits of a number in hexadecimal digits.
pub(super) fn hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    for i in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * i) & 15) as usize]);
    }
}

fn unhex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// Seconds since 1970 as RFC 3339 wants them, in UTC.
pub fn date_time(out: &mut Vec<u8>, seconds: u64) {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March put the leap day at the end; 719,468 days lie between March of year 0 and 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let mut field = |number: u64, digits: usize, after: u8| {
        let mut text = Vec::with_capacity(4);
        decimal(&mut text, number);
        out.extend(std::iter::repeat_n(b'0', digits - text.len()));
        out.extend_from_slice(&text);
        out.push(after);
    };
    field(year, 4, b'-');
    field(month, 2, b'-');
    field(day, 2, b'T');
    field(rest / 3_600, 2, b':');
    field(rest / 60 % 60, 2, b':');
    field(rest % 60, 2, b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::support::style;
    use memchr::memmem::Finder;

    #[test]
    fn the_newest_of_several_notes_counts() {
        let mut body = Vec::new();
        for number in [4, 9, 2] {
            pidf(&mut body, &style(), State { presentity: 1, number, intended: 0 }, 0);
        }
        let finder_mark = mark(style().salt);
        assert_eq!(find_state(&body, &Finder::new(&finder_mark)).unwrap().number, 9);
    }

    #[test]
    fn white_space_behind_a_document_changes_nothing() {
        let state = State { presentity: 1, number: 4, intended: 9 };
        let mut body = Vec::new();
        pidf(&mut body, &style(), state, 0);
        body.extend_from_slice(b" \n\n   \r\n");
        assert_eq!(find_state(&body, &Finder::new(&mark(style().salt))), Some(state));
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            let mut out = Vec::new();
            date_time(&mut out, seconds);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
