//! What requests are worth to a server that cannot do all, and what became of them by that.

use crate::agent::Op;
use crate::clock::Nanos;
use crate::retransmit::last_sending;
use crate::stats::record;
use hdrhistogram::Histogram;
use serde::Serialize;

/// What a request is worth, the most first: it keeps up or ends what there is, or makes work that was not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Ends a subscription, a binding or a publication.
    #[default]
    End,
    /// A SUBSCRIBE in its dialog.
    Refresh,
    /// A REGISTER of a phone that is bound.
    Reregister,
    /// A REGISTER of one that is not.
    Register,
    /// A PUBLISH.
    Publish,
    /// A SUBSCRIBE that makes a dialog.
    Subscribe,
    /// A SUBSCRIBE for no time.
    Poll,
}

impl Class {
    /// All, in their order.
    pub const ALL: [Self; 7] = [
        Self::End,
        Self::Refresh,
        Self::Reregister,
        Self::Register,
        Self::Publish,
        Self::Subscribe,
        Self::Poll,
    ];

    /// Of an operation of a phone that has a dialog or a binding, or has not.
    pub fn of(op: Op, is_known: bool) -> Self {
        match op {
            Op::Unregister | Op::Unsubscribe | Op::Unpublish => Self::End,
            Op::Subscribe | Op::Visit if is_known => Self::Refresh,
            Op::Subscribe | Op::Visit => Self::Subscribe,
            Op::Register if is_known => Self::Reregister,
            Op::Register => Self::Register,
            Op::Poll => Self::Poll,
            Op::Publish | Op::Race | Op::Refresh | Op::Call => Self::Publish,
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::End => "ends",
            Self::Refresh => "SUBSCRIBE in dialog",
            Self::Reregister => "REGISTER, bound",
            Self::Register => "REGISTER, new",
            Self::Publish => "PUBLISH",
            Self::Subscribe => "SUBSCRIBE, new",
            Self::Poll => "polls",
        }
    }
}

/// What became of the requests of a class.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Requests sent, repetitions by Timer E not among them.
    pub offered: u64,
    /// Answered 500 or 503.
    pub refused: u64,
    /// Given up by Timer F.
    pub given_up: u64,
    /// From the first sending of a request to its 2xx, in microseconds.
    pub admitted: Histogram<u64>,
    /// From the last sending of a request to its 2xx, in microseconds: what was kept waiting in silence is admitted by that.
    pub served: Histogram<u64>,
    /// Those of them that were answered before they were sent again.
    pub at_once: u64,
}

impl Fate {
    /// Nothing was sent.
    pub fn new() -> Self {
        let micros = || Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid");
        Self { offered: 0, refused: 0, given_up: 0, admitted: micros(), served: micros(), at_once: 0 }
    }

    /// A 2xx came at `at` to what was sent at `sent` and, if the transport asks for it, again by Timer E.
    pub fn admit(&mut self, sent: Nanos, at: Nanos, repeats: bool) {
        record(&mut self.admitted, sent, at);
        let again = if repeats { last_sending(at.saturating_sub(sent)) } else { 0 };
        record(&mut self.served, sent + again, at);
        self.at_once += u64::from(again == 0);
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.refused += other.refused;
        self.given_up += other.given_up;
        self.admitted += &other.admitted;
        self.served += &other.served;
        self.at_once += other.at_once;
    }
}

/// A row of the table of classes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClassReport {
    /// The class.
    pub class: Class,
    /// Requests sent, repetitions not among them.
    pub offered: u64,
    /// Answered 2xx.
    pub admitted: u64,
    /// The same before they were sent again.
    pub at_once: u64,
    /// Answered 500 or 503.
    pub refused: u64,
    /// Given up.
    pub given_up: u64,
    /// From the last sending to the 2xx: half are not more.
    pub p50_us: u64,
    /// The same: 99 of 100 are not more.
    pub p99_us: u64,
    /// From the first sending to the 2xx: 99 of 100 are not more.
    pub first_p99_us: u64,
}

impl ClassReport {
    /// The rows of the classes of which anything was sent.
    pub fn table(fates: &[Fate]) -> Vec<Self> {
        let rows = Class::ALL.iter().zip(fates).filter(|(_, fate)| fate.offered > 0);
        rows.map(|(&class, fate)| Self {
            class,
            offered: fate.offered,
            admitted: fate.admitted.len(),
            at_once: fate.at_once,
            refused: fate.refused,
            given_up: fate.given_up,
            p50_us: fate.served.value_at_quantile(0.5),
            p99_us: fate.served.value_at_quantile(0.99),
            first_p99_us: fate.admitted.value_at_quantile(0.99),
        })
        .collect()
    }

    /// The part that was admitted when it was sent first.
    pub fn at_once_share(&self) -> f64 {
        self.at_once as f64 / self.offered.max(1) as f64
    }

    /// How long 99 of 100 wait at most: from the first sending where something ends or keeps up what is there; otherwise from the
    /// last, because what is refused in silence is sent again until there is room.
    pub fn wait_p99_us(&self) -> u64 {
        if matches!(self.class, Class::End | Class::Refresh) { self.first_p99_us } else { self.p99_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_worth_what_it_is_to_those_who_have_something() {
        assert_eq!(Class::of(Op::Subscribe, true), Class::Refresh);
        assert_eq!(Class::of(Op::Subscribe, false), Class::Subscribe);
        assert_eq!(Class::of(Op::Register, true), Class::Reregister);
        assert_eq!(Class::of(Op::Register, false), Class::Register);
        assert_eq!(Class::of(Op::Unsubscribe, true), Class::End);
        assert_eq!(Class::of(Op::Refresh, true), Class::Publish);
    }

    #[test]
    fn classes_of_which_nothing_came_have_no_row() {
        let mut fates = Class::ALL.map(|_| Fate::new());
        fates[Class::Poll as usize].offered = 4;
        fates[Class::Poll as usize].refused = 3;
        fates[Class::Poll as usize].admit(1_000, 3_000_000, true);
        let table = ClassReport::table(&fates);
        assert_eq!(table.len(), 1);
        assert_eq!((table[0].class, table[0].admitted, table[0].p99_us), (Class::Poll, 1, 2_999));
        assert!((table[0].at_once_share() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn what_was_kept_waiting_is_admitted_by_its_last_sending() {
        for (repeats, p99_us, at_once) in [(true, 7_000, 0), (false, 507_000, 1)] {
            let mut fates = Class::ALL.map(|_| Fate::new());
            for class in [Class::Refresh, Class::Poll] {
                fates[class as usize].offered = 1;
                fates[class as usize].admit(0, 507_000_000, repeats);
            }
            let table = ClassReport::table(&fates);
            for row in &table {
                assert!(
                    row.p99_us.abs_diff(p99_us) < 500 && row.first_p99_us.abs_diff(507_000) < 500,
                    "{row:?}"
                );
                assert_eq!(row.at_once, at_once);
            }
            assert!(table[0].wait_p99_us() >= 506_500 && table[1].wait_p99_us() == table[1].p99_us);
        }
    }
}
