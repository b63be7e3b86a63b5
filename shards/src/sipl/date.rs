//! The Date header field.

/// The line of the present second: made once for all answers of that second.
#[derive(Debug, Default)]
pub(crate) struct DateLine {
    unix_secs: u64,
    line: Vec<u8>,
}

impl DateLine {
    /// `Date` with its line end, or nothing in a year that the form has no room for.
    pub(super) fn line(&mut self, unix_secs: u64) -> &[u8] {
        if self.unix_secs != unix_secs || self.line.is_empty() {
            self.unix_secs = unix_secs;
            self.line.clear();
            push_date(unix_secs, &mut self.line);
        }
        &self.line
    }
}

/// Appends `Date` (RFC 3261 §20.17, the RFC 1123 form): phones without a clock set theirs by it.
fn push_date(unix_secs: u64, out: &mut Vec<u8>) {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let (days, secs) = (unix_secs / 86_400, unix_secs % 86_400);
    let (year, month, day) = civil(days);
    if year > 9999 {
        // The form has four digits for it.
        return;
    }
    let mut line = *b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    let mut two = |at: usize, number: u64| {
        line[at] = b'0' + (number / 10) as u8;
        line[at + 1] = b'0' + (number % 10) as u8;
    };
    two(11, day);
    two(18, year / 100);
    two(20, year % 100);
    two(23, secs / 3600);
    two(26, secs / 60 % 60);
    two(29, secs % 60);
    line[6..9].copy_from_slice(DAYS[(days % 7) as usize]);
    line[14..17].copy_from_slice(MONTHS[month]);
    out.extend_from_slice(&line);
}

/// Year, month (from 0) and day (from 1) of a day counted from 1 January 1970, in the Gregorian calendar.
///
/// Counted from a 1 March, leap days come last in a year, and a month begins at a fixed day of it.
const fn civil(days: u64) -> (u64, usize, u64) {
    // Days from 1 March of the year 0, and the eras of 400 years in them.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    (era * 400 + year_of_era + (month < 2) as u64, month as usize, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(unix_secs: u64) -> String {
        let mut out = Vec::new();
        push_date(unix_secs, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_form_is_that_of_rfc_1123() {
        assert_eq!(date(0), "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
        assert_eq!(date(1_289_676_567), "Date: Sat, 13 Nov 2010 19:29:27 GMT\r\n");
        assert_eq!(date(u64::MAX / 1000), "");
    }

    #[test]
    fn a_line_is_that_of_its_second() {
        let mut line = DateLine::default();
        for unix_secs in [0, 0, 1, 1_289_676_567, u64::MAX / 1000, u64::MAX / 1000, 1] {
            assert_eq!(line.line(unix_secs), date(unix_secs).as_bytes());
        }
    }

    #[test]
    fn every_day_is_that_of_the_calendar() {
        for day in 0..200_000u64 {
            let at = day * 86_400 + day % 86_400;
            let time = jiff::Timestamp::from_second(at.cast_signed()).unwrap();
            assert_eq!(date(at), time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string());
        }
    }
}
