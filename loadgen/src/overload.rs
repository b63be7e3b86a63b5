//! What a proxy makes of a server's word that it should send less (RFC 7339, the loss-based scheme).
//!
//! The server says so in the topmost Via of its answers; the newest word counts, until its validity ends. Which requests are
//! withheld is drawn by the default algorithm (§7.2), with two categories: what is sent in a dialog and what ends something is
//! withheld only when everything else is and that is not enough. A proxy can tell no more, least of all who is registered.

use crate::chance::Chance;
use crate::class::Class;
use crate::clock::{Nanos, SECOND};
use comsipl_core::header::unquote;
use comsipl_core::msg::Via;

/// What a server asks of a client that takes part, and the lots of the client's requests.
#[derive(Debug)]
pub struct OverloadControl {
    /// The newest word, and when it ends.
    told: Option<(Word, Nanos)>,
    /// How many requests of each category there were lately.
    requests: [u64; 2],
    /// When they count half.
    ages_at: Nanos,
    chance: Chance,
}

/// What one answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// Tells which of two is newer.
    seq: u64,
    /// By how many percent requests are to be reduced.
    loss_percent: u8,
    validity: Nanos,
}

/// Whether a request is withheld before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Category {
    /// It makes work that was not there.
    First,
    /// It keeps up or ends what is there.
    Second,
}

impl OverloadControl {
    /// The server has said nothing.
    pub fn new(seed: u64) -> Self {
        Self { told: None, requests: [0; 2], ages_at: 0, chance: Chance::new(seed) }
    }

    /// Takes what an answer that came at `at` says in its topmost Via.
    pub fn learn(&mut self, via: &Via<'_>, at: Nanos) {
        let Some(word) = Word::read(via) else { return };
        if self.in_effect(at).is_none_or(|told| word.seq > told.seq) {
            // The word that ends overload control is kept as well, lest an older one that comes late begins it again.
            let kept = if word.validity == 0 { VALIDITY } else { word.validity };
            self.told = Some((word, at + kept));
        }
    }

    /// Whether a request of a class that would be sent now for the first time is withheld.
    pub fn withholds(&mut self, class: Class, now: Nanos) -> bool {
        let category = Category::of(class);
        if now >= self.ages_at {
            self.requests.iter_mut().for_each(|count| *count /= 2);
            self.ages_at = now + AGES_AFTER;
        }
        self.requests[category as usize] += 1;
        let loss = self.in_effect(now).map_or(0.0, |word| f64::from(word.loss_percent) / 100.0);
        if loss == 0.0 {
            return false;
        }
        let [first, second] = self.requests.map(|count| count as f64);
        let all = loss * (first + second);
        let part = match category {
            Category::First => all / first,
            Category::Second => (all - first) / second,
        };
        self.chance.part() < part
    }

    /// The word that has not ended yet.
    fn in_effect(&self, now: Nanos) -> Option<Word> {
        self.told.filter(|&(_, until)| now < until).map(|(word, _)| word)
    }
}

impl Word {
    /// None if the server does not take part, or says what nobody can follow.
    fn read(via: &Via<'_>) -> Option<Self> {
        let params = via.params();
        let percent = number(params.value("oc")?)?;
        let is_loss = params.value("oc-algo").is_some_and(|algo| unquote(algo).eq_ignore_ascii_case(b"loss"));
        let validity_ms = match params.get("oc-validity") {
            None => VALIDITY / (SECOND / 1000),
            Some(value) => number(value?)?,
        };
        let (whole, fraction) = split(params.value("oc-seq")?)?;
        let seq = number(whole).filter(|_| whole.len() <= SEQ_WHOLE_MAX)? * 10u64.pow(SEQ_FRACTION_MAX)
            + number(fraction)? * 10u64.pow(SEQ_FRACTION_MAX.checked_sub(fraction.len() as u32)?);
        if !is_loss || percent > 100 || validity_ms > VALIDITY_MAX_MS {
            return None;
        }
        // RFC 7339 §5.7: "when the value of the "oc-validity" parameter is 0, the client SHOULD disregard the value in the "oc"
        // parameter."
        let loss_percent = if validity_ms == 0 { 0 } else { percent as u8 };
        Some(Self { seq, loss_percent, validity: validity_ms * (SECOND / 1000) })
    }
}

impl Category {
    fn of(class: Class) -> Self {
        if matches!(class, Class::End | Class::Refresh) { Self::Second } else { Self::First }
    }
}

/// Digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// What stands before and after the dot.
fn split(seq: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = seq.iter().position(|&byte| byte == b'.')?;
    Some((&seq[..dot], &seq[dot + 1..]))
}

/// How long a word holds that does not say so itself (RFC 7339 §4.3).
const VALIDITY: Nanos = SECOND / 2;

/// Longest validity that is believed: an hour.
const VALIDITY_MAX_MS: u64 = 3_600_000;

/// Most digits of `oc-seq` before its dot, and after it (RFC 7339 §9).
const SEQ_WHOLE_MAX: usize = 12;
const SEQ_FRACTION_MAX: u32 = 5;

/// How often what was sent before counts half, where the categories are weighed.
const AGES_AFTER: Nanos = SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    fn control(params: &str, at: Nanos) -> OverloadControl {
        let mut control = OverloadControl::new(7);
        hear(&mut control, params, at);
        control
    }

    fn hear(control: &mut OverloadControl, params: &str, at: Nanos) {
        let via = format!("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx;rport=5060{params}");
        control.learn(&Via::parse(via.as_bytes()).unwrap(), at);
    }

    fn told(loss: u32, seq: &str) -> String {
        format!(";oc={loss};oc-algo=\"loss\";oc-validity=500;oc-seq={seq}")
    }

    /// Of so many requests of each class, how many are withheld.
    fn withheld<const N: usize>(
        control: &mut OverloadControl,
        now: Nanos,
        requests: [(Class, usize); N],
    ) -> [usize; N] {
        // As they come: mixed.
        let rounds = 1000;
        let mut withheld = [0; N];
        for _ in 0..rounds {
            for (place, (class, each)) in requests.iter().enumerate() {
                withheld[place] += (0..*each).filter(|_| control.withholds(*class, now)).count();
            }
        }
        withheld
    }

    /// The part of polls that is withheld, in percent.
    fn percent(control: &mut OverloadControl, now: Nanos) -> usize {
        withheld(control, now, [(Class::Poll, 10)])[0].div_ceil(100)
    }

    #[test]
    fn as_much_is_withheld_as_the_server_says() {
        for (loss, least, most) in [(0, 0, 0), (1, 1, 2), (30, 28, 32), (99, 98, 100), (100, 100, 100)] {
            let found = percent(&mut control(&told(loss, "5.1"), 0), 1);
            assert!((least..=most).contains(&found), "{found} for {loss}");
        }
        assert!(!OverloadControl::new(7).withholds(Class::Poll, 1), "nothing was said");
    }

    #[test]
    fn dialogs_and_ends_come_second() {
        let mix = [(Class::Poll, 3), (Class::Publish, 3), (Class::Refresh, 3), (Class::End, 1)];
        let [poll, publish, refresh, end] = withheld(&mut control(&told(30, "5.1"), 0), 1, mix);
        assert!(poll.abs_diff(1500) < 150 && publish.abs_diff(1500) < 150, "{poll} {publish}");
        assert_eq!((refresh, end), (0, 0), "a half of the others is enough");
        let [poll, publish, refresh, end] = withheld(&mut control(&told(80, "5.1"), 0), 1, mix);
        assert!(poll >= 2970 && publish >= 2970, "{poll} {publish}");
        assert!(refresh.abs_diff(1500) < 150 && end.abs_diff(500) < 60, "{refresh} {end}");
        let all = withheld(&mut control(&told(100, "5.1"), 0), 1, mix);
        assert_eq!(all, [3000, 3000, 3000, 1000]);
    }

    #[test]
    fn the_newest_word_counts_in_whatever_order_they_come() {
        let mut control = control(&told(0, "10.2"), 0);
        for late in [told(100, "10.1"), told(100, "9.99999"), told(100, "10.2"), told(100, "10.10")] {
            hear(&mut control, &late, 1);
            assert_eq!(percent(&mut control, 2), 0, "{late}");
        }
        hear(&mut control, &told(100, "10.20001"), 3);
        assert_eq!(percent(&mut control, 4), 100);
        hear(&mut control, &told(0, "100.0"), 5);
        assert_eq!(percent(&mut control, 6), 0, "they are numbers, not texts");
    }

    #[test]
    fn a_word_lapses_and_is_not_drawn_out_by_being_repeated() {
        let mut control = control(&told(100, "10.2"), 0);
        hear(&mut control, &told(100, "10.2"), VALIDITY - 2);
        assert_eq!(percent(&mut control, VALIDITY - 1), 100);
        assert_eq!(percent(&mut control, VALIDITY), 0);
        hear(&mut control, &told(100, "3.0"), VALIDITY + 1);
        assert_eq!(percent(&mut control, VALIDITY + 2), 100, "a server that counts anew is heard then");
        hear(&mut control, ";oc=100;oc-algo=\"loss\";oc-seq=4.0", VALIDITY + 3);
        assert_eq!(percent(&mut control, 2 * VALIDITY + 2), 100, "the validity is 500 ms");
        assert_eq!(percent(&mut control, 2 * VALIDITY + 3), 0);
    }

    #[test]
    fn overload_control_ends_when_the_server_says_so() {
        let mut control = control(&told(100, "10.2"), 0);
        hear(&mut control, ";oc=100;oc-algo=\"loss\";oc-validity=0;oc-seq=10.3", 1);
        assert_eq!(percent(&mut control, 2), 0, "whatever `oc` says");
        hear(&mut control, &told(100, "10.2"), 3);
        assert_eq!(percent(&mut control, 4), 0, "that was said before");
    }

    #[test]
    fn what_makes_no_sense_is_not_heard() {
        for garbage in [
            "",
            ";oc;oc-algo=\"loss\"",
            ";oc=;oc-algo=\"loss\";oc-seq=9.0",
            ";oc=101;oc-algo=\"loss\";oc-seq=9.0",
            ";oc=-1;oc-algo=\"loss\";oc-seq=9.0",
            ";oc=99999999999999999999999;oc-algo=\"loss\";oc-seq=9.0",
            ";oc=50;oc-algo=\"rate\";oc-seq=9.0",
            ";oc=50;oc-algo=\"loss,rate\";oc-seq=9.0",
            ";oc=50;oc-seq=9.0",
            ";oc=50;oc-algo=\"loss\"",
            ";oc=50;oc-algo=\"loss\";oc-seq=9",
            ";oc=50;oc-algo=\"loss\";oc-seq=.9",
            ";oc=50;oc-algo=\"loss\";oc-seq=9.",
            ";oc=50;oc-algo=\"loss\";oc-seq=9.123456",
            ";oc=50;oc-algo=\"loss\";oc-seq=1234567890123.0",
            ";oc=50;oc-algo=\"loss\";oc-validity;oc-seq=9.0",
            ";oc=50;oc-algo=\"loss\";oc-validity=soon;oc-seq=9.0",
            ";oc=50;oc-algo=\"loss\";oc-validity=3600001;oc-seq=9.0",
            ";oc-algo=\"loss\";oc-validity=500;oc-seq=9.0",
        ] {
            let mut control = control(garbage, 0);
            assert_eq!(control.told, None, "{garbage}");
            hear(&mut control, &told(100, "1.0"), 1);
            hear(&mut control, garbage, 2);
            assert_eq!(percent(&mut control, 3), 100, "{garbage}");
        }
        let whole = ";OC=20;OC-ALGO=loss;oc-validity=3600000;oc-seq=999999999999.99999";
        assert_eq!(control(whole, 0).told.unwrap().0.loss_percent, 20);
    }
}
