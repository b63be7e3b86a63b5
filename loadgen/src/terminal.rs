//! What a run found, for the terminal.

use crate::report::{LATENESS, Percentiles, Report};
use std::fmt;

/// Microseconds in a readable unit.
pub struct Micros(pub u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            us @ ..1_000 => format!("{us} µs"),
            us @ ..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
            us => format!("{:.2} s", us as f64 / 1e6),
        };
        f.pad(&text)
    }
}

/// A number with its thousands apart.
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.measured;
        writeln!(f, "comsipl-loadgen {} · {:.2} s measured", self.command, self.measured_secs)?;
        writeln!(
            f,
            "  agents      {} registering, {} publishing, {} watching, on {} sockets and {} threads",
            Grouped(self.registrants.into()),
            Grouped(self.presentities.into()),
            Grouped(self.watchers.into()),
            self.sockets,
            self.threads
        )?;
        if self.slice < 1.0 {
            writeln!(f, "  slice       {}% of the phones of the profile", self.slice * 100.0)?;
        }
        writeln!(f, "\n  {:<14}{:>14}{:>14}", "", "count", "per second")?;
        for (name, count, rate) in [
            ("REGISTER", counts.registered, self.rates.registers_per_sec),
            ("SUBSCRIBE", counts.subscribed, self.rates.subscribes_per_sec),
            ("PUBLISH", counts.published, self.rates.publishes_per_sec),
            ("NOTIFY", counts.notifies, self.rates.notifies_per_sec),
        ] {
            if count > 0 {
                writeln!(f, "  {name:<14}{:>14}{:>14}", Grouped(count), Grouped(rate.round() as u64))?;
            }
        }
        writeln!(
            f,
            "\n  {:<20}{:>10}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "latency", "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
        let all = &self.percentiles;
        let rows = self.latencies.iter().map(|latencies| (latencies.name(), *all.get(*latencies)));
        for (name, percentiles) in rows.chain([(LATENESS, all.lateness)]) {
            write!(f, "  {name:<20}{:>10}", Grouped(percentiles.count))?;
            let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us, .. } = percentiles;
            for us in [p50_us, p90_us, p99_us, p999_us, max_us] {
                write!(f, "{:>11}", Micros(us))?;
            }
            writeln!(f)?;
        }
        for phase in self.earlier() {
            let (Some(first), Some(percentiles)) = (self.latencies.first(), phase.percentiles) else {
                continue;
            };
            let Percentiles { count, p50_us, p90_us, p99_us, p999_us, max_us, .. } = *percentiles.get(*first);
            write!(f, "  {:<20}{:>10}", format!("… in `{}`", phase.name), Grouped(count))?;
            for us in [p50_us, p90_us, p99_us, p999_us, max_us] {
                write!(f, "{:>11}", Micros(us))?;
            }
            writeln!(f)?;
        }
        for phase in self.phases.iter().filter(|phase| phase.measured && self.overloads) {
            write!(f, "\n  {:<20}{:>10}", format!("in `{}`", phase.name), "offered")?;
            // Only a proxy that takes part in overload control withholds anything.
            let withheld = Some("withheld").filter(|_| self.total.withheld > 0);
            let columns = ["admitted", "at once", "refused"].into_iter().chain(withheld);
            for column in columns.chain(["given up", "p50", "p99", "from first"]) {
                write!(f, "{column:>11}")?;
            }
            writeln!(f)?;
            for row in &phase.classes {
                write!(
                    f,
                    "  {:<20}{:>10}{:>11}",
                    row.class.name(),
                    Grouped(row.offered),
                    Grouped(row.admitted)
                )?;
                let withheld = withheld.map(|_| row.withheld);
                for count in [row.at_once, row.refused].into_iter().chain(withheld).chain([row.given_up]) {
                    write!(f, "{:>11}", Grouped(count))?;
                }
                for us in [row.p50_us, row.p99_us, row.first_p99_us] {
                    write!(f, "{:>11}", Micros(us))?;
                }
                writeln!(f)?;
            }
        }
        if let Some(server) = self.server {
            write!(
                f,
                "\n  server      {:.2} s user, {:.2} s system, {:.2} cores; {:.0} MB in {} processes",
                server.user_secs,
                server.system_secs,
                server.total_secs() / self.measured_secs,
                server.memory_bytes as f64 / 1e6,
                server.processes
            )?;
            if let Some(us) = self.server_us_per_notify {
                write!(f, "; {us:.2} µs for a NOTIFY")?;
            } else if let Some(us) = self.server_us_per_operation {
                write!(f, "; {us:.2} µs for an operation")?;
            }
        }
        let own = &self.generator.usage;
        writeln!(
            f,
            "\n  generator   {:.2} s user, {:.2} s system, {:.0}% busy; {:.0} MB",
            own.user_secs,
            own.system_secs,
            self.generator.busy * 100.0,
            own.memory_bytes as f64 / 1e6
        )?;
        for doubt in &self.generator.doubts {
            writeln!(f, "  BOTTLENECK  the generator: {doubt}")?;
        }
        let total = &self.total;
        let troubles = [
            ("refused", total.refused),
            ("given up (Timer F)", total.timed_out),
            ("sent again (Timer E)", total.retransmissions_sent),
            ("NOTIFYs received again", total.notify_retransmissions),
            ("refused for a while", total.deferred),
            ("withheld (RFC 7339)", total.withheld),
            ("412", total.tag_unknown),
            ("423", total.too_brief),
            ("481", total.dialog_unknown),
            ("late answers", total.stray_answers),
            ("NOTIFYs of no dialog", total.unknown_dialog),
            ("ended by the server", total.ended_by_server),
            ("malformed", total.malformed),
            ("truncated", total.truncated),
            ("wrong documents", total.wrong_document),
            ("connections lost", total.connections_lost),
            ("send errors", total.send_errors),
            ("had to wait for their turn", total.queued),
            ("NOTIFYs ignored by the deaf", total.ignored),
            ("lost on the way", total.link_lost),
            ("doubled on the way", total.link_doubled),
            ("held back on the way", total.link_delayed),
        ];
        let troubles: Vec<_> = troubles
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {}", Grouped(*count)))
            .collect();
        if !troubles.is_empty() {
            writeln!(f, "  whole run   {}", troubles.join(", "))?;
        }
        if let Some(hostile) = &self.hostile {
            let answers: Vec<_> = hostile
                .answers
                .iter()
                .map(|(status, count)| format!("{status} {}", Grouped(*count)))
                .collect();
            writeln!(
                f,
                "  hostile     {} datagrams, {:.0} MB, in {:.1} s; {} answered, {} in silence, {} NOTIFYs",
                Grouped(hostile.sent),
                hostile.sent_bytes as f64 / 1e6,
                hostile.secs,
                Grouped(hostile.answered()),
                Grouped(hostile.silent()),
                Grouped(hostile.notifies)
            )?;
            writeln!(f, "              answers by status: {}", answers.join(", "))?;
        }
        for phase in self.phases.iter().filter(|phase| phase.stalled) {
            writeln!(f, "  STALLED     {} was broken off after {:.1} s", phase.name, phase.secs)?;
        }
        if let Some(audit) = self.audit {
            writeln!(
                f,
                "  audit       {} watchers: {} behind ({} of them turned back), {} lost their subscription",
                Grouped(audit.watchers),
                Grouped(audit.behind),
                Grouped(audit.turned_back),
                Grouped(audit.lost_subscriptions)
            )?;
            writeln!(
                f,
                "              {} superseded, {} duplicates, {} stale, {} out of order, {} CSeq numbers never seen",
                Grouped(total.superseded),
                Grouped(total.duplicates),
                Grouped(total.stale),
                Grouped(total.backward),
                Grouped(audit.missing_cseqs)
            )?;
        }
        let claims = self.verdicts.iter().skip(self.verdicts.len() - self.claims);
        for verdict in claims.filter(|verdict| verdict.passed) {
            writeln!(f, "  SO          {}: {}", verdict.claim, verdict.found)?;
        }
        for claim in &self.unjudged {
            writeln!(f, "  NOT JUDGED  {claim}")?;
        }
        for verdict in self.verdicts.iter().filter(|verdict| !verdict.passed) {
            writeln!(f, "  NOT SO      {}: {}", verdict.claim, verdict.found)?;
        }
        writeln!(f, "  {}", if self.passed { "PASSED" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(Grouped(1_234_567).to_string(), "1,234,567");
        assert_eq!(Grouped(12).to_string(), "12");
        assert_eq!(format!("{:>8}", Grouped(1_000)), "   1,000");
        assert_eq!(Micros(999).to_string(), "999 µs");
        assert_eq!(Micros(1_500).to_string(), "1.50 ms");
        assert_eq!(Micros(2_000_000).to_string(), "2.00 s");
    }
}
