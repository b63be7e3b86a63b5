//! What requests are worth to a server that cannot do all, and what became of them by that.

use crate::agent::Op;
use crate::clock::{Nanos, SECOND};
use crate::retransmit::last_sending;
use crate::stats::record;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// Requests sent, or withheld; repetitions by Timer E not among them.
    pub offered: u64,
    /// Answered 500 or 503.
    pub refused: u64,
    /// Those of them that were withheld, and refused without being sent.
    pub withheld: u64,
    /// Given up by Timer F.
    pub given_up: u64,
    /// From the first sending of a request to its 2xx, in microseconds.
    pub admitted: Histogram<u64>,
    /// From the last sending of a request to its 2xx, in microseconds: what was kept waiting in silence is admitted by that.
    pub served: Histogram<u64>,
    /// Those of them that were answered before they were sent again.
    pub at_once: u64,
    /// How many were offered in each moment, and how many of those were admitted at once.
    moments: BTreeMap<u64, [u32; 2]>,
}

impl Fate {
    /// Nothing was sent.
    pub fn new() -> Self {
        let micros = || Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid");
        Self {
            offered: 0,
            refused: 0,
            withheld: 0,
            given_up: 0,
            admitted: micros(),
            served: micros(),
            at_once: 0,
            moments: BTreeMap::new(),
        }
    }

    /// A request is sent at `sent` for the first time.
    pub fn offer(&mut self, sent: Nanos) {
        self.offered += 1;
        let moment = sent / MOMENT;
        if self.moments.len() < MOMENTS_MAX || self.moments.contains_key(&moment) {
            self.moments.entry(moment).or_default()[0] += 1;
        }
    }

    /// A 2xx came at `at` to what was sent at `sent` and, if the transport asks for it, again by Timer E.
    pub fn admit(&mut self, sent: Nanos, at: Nanos, repeats: bool) {
        record(&mut self.admitted, sent, at);
        let again = if repeats { last_sending(at.saturating_sub(sent)) } else { 0 };
        record(&mut self.served, sent + again, at);
        self.at_once += u64::from(again == 0);
        if let Some([_, at_once]) = self.moments.get_mut(&(sent / MOMENT)) {
            *at_once += u32::from(again == 0);
        }
    }

    /// By how much the part that was admitted at once is greater than that of another class, if moments in which both were offered
    /// are compared, each by how much can be learned from it (the risk difference of Mantel and Haenszel).
    fn ahead_of(&self, other: &Self) -> Option<f64> {
        let [mut sum, mut weights] = [0.0; 2];
        for (moment, own) in &self.moments {
            let Some(others) = other.moments.get(moment) else { continue };
            let [[offered, done], [offered_other, done_other]] = [own, others].map(|it| it.map(f64::from));
            let weight = offered * offered_other / (offered + offered_other);
            sum += weight * (done / offered - done_other / offered_other);
            weights += weight;
        }
        (weights > 0.0).then(|| sum / weights)
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.refused += other.refused;
        self.withheld += other.withheld;
        self.given_up += other.given_up;
        self.admitted += &other.admitted;
        self.served += &other.served;
        self.at_once += other.at_once;
        for (&moment, [offered, at_once]) in &other.moments {
            let all = self.moments.entry(moment).or_default();
            *all = [all[0] + offered, all[1] + at_once];
        }
    }
}

/// A row of the table of classes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClassReport {
    /// The class.
    pub class: Class,
    /// Requests sent, or withheld; repetitions not among them.
    pub offered: u64,
    /// Answered 2xx.
    pub admitted: u64,
    /// The same before they were sent again.
    pub at_once: u64,
    /// Answered 500 or 503.
    pub refused: u64,
    /// Those of them that were withheld by overload control, and not sent.
    pub withheld: u64,
    /// Given up.
    pub given_up: u64,
    /// From the last sending to the 2xx: half are not more.
    pub p50_us: u64,
    /// The same: 99 of 100 are not more.
    pub p99_us: u64,
    /// From the first sending to the 2xx: 99 of 100 are not more.
    pub first_p99_us: u64,
    /// By how much more of this class than of the next one that is worth less was admitted at once, of those that were sent in
    /// the same moments; none if there is no next, or too few of one of both.
    ///
    /// Whoever is told to come again later is not among the offered meanwhile. So a class whose phones have all been told has
    /// nearly all of its requests in the worst moments, and its part of a whole phase says nothing about its worth.
    pub ahead_of_next: Option<f64>,
}

impl ClassReport {
    /// The rows of the classes of which anything was sent.
    pub fn table(fates: &[Fate]) -> Vec<Self> {
        let rows = Class::ALL.iter().zip(fates).filter(|(_, fate)| fate.offered > 0);
        let is_many = |fate: &Fate| fate.offered >= MANY;
        rows.map(|(&class, fate)| Self {
            ahead_of_next: fates[class as usize + 1..]
                .iter()
                .find(|next| is_many(next))
                .filter(|_| is_many(fate))
                .and_then(|next| fate.ahead_of(next)),
            class,
            offered: fate.offered,
            admitted: fate.admitted.len(),
            at_once: fate.at_once,
            refused: fate.refused,
            withheld: fate.withheld,
            given_up: fate.given_up,
            p50_us: fate.served.value_at_quantile(0.5),
            p99_us: fate.served.value_at_quantile(0.99),
            first_p99_us: fate.admitted.value_at_quantile(0.99),
        })
        .collect()
    }

    /// How long 99 of 100 wait at most: from the first sending where something ends or keeps up what is there; otherwise from the
    /// last, because what is refused in silence is sent again until there is room.
    pub fn wait_p99_us(&self) -> u64 {
        if matches!(self.class, Class::End | Class::Refresh) { self.first_p99_us } else { self.p99_us }
    }
}

/// Requests that are sent within so long meet a server in the same condition.
const MOMENT: Nanos = SECOND / 50;

/// Most moments of a phase in which classes are compared: more than two minutes.
const MOMENTS_MAX: usize = 8192;

/// So many requests of a class are enough to compare it.
const MANY: u64 = 100;

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
        (0..4).for_each(|_| fates[Class::Poll as usize].offer(1_000));
        fates[Class::Poll as usize].refused = 3;
        fates[Class::Poll as usize].admit(1_000, 3_000_000, true);
        let table = ClassReport::table(&fates);
        assert_eq!(table.len(), 1);
        assert_eq!((table[0].class, table[0].admitted, table[0].p99_us), (Class::Poll, 1, 2_999));
        assert_eq!((table[0].offered, table[0].at_once), (4, 1));
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

    #[test]
    fn classes_are_compared_by_what_was_sent_together() {
        let mut fates = Class::ALL.map(|_| Fate::new());
        let send = |fates: &mut [Fate], class: Class, at: u64, offered: u64, done: u64| {
            (0..offered).for_each(|_| fates[class as usize].offer(at));
            (0..done).for_each(|_| fates[class as usize].admit(at, at + 1_000, true));
        };
        // In the worst moment a tenth and nothing; later everything, but hardly anybody of the better class is left to come.
        send(&mut fates, Class::Reregister, 0, 1000, 100);
        send(&mut fates, Class::Publish, 0, 200, 0);
        send(&mut fates, Class::Reregister, SECOND, 20, 20);
        send(&mut fates, Class::Publish, SECOND, 1000, 1000);
        send(&mut fates, Class::Poll, 2 * SECOND, 1000, 1000);
        let row =
            |fates: &[Fate], class| *ClassReport::table(fates).iter().find(|row| row.class == class).unwrap();
        let [registers, publishes] = [row(&fates, Class::Reregister), row(&fates, Class::Publish)];
        assert_eq!([registers, publishes].map(|row| row.at_once * 100 / row.offered), [11, 83]);
        let ahead = registers.ahead_of_next.unwrap();
        assert!((0.08..0.1).contains(&ahead), "{ahead}");
        assert_eq!(publishes.ahead_of_next, None, "they were never sent in the same moment");
        send(&mut fates, Class::Poll, 0, 200, 10);
        let ahead = row(&fates, Class::Publish).ahead_of_next.unwrap();
        assert!((ahead + 0.05).abs() < 1e-9, "{ahead}: the worse one fared better");
    }
}
