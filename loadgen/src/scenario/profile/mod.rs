//! Profiles: runs described by files that a user can copy and change.

mod check;
mod text;

use super::{Common, Contact, Plan};
use crate::agent::Op;
use crate::chance::Chance;
use crate::expect::Expect;
use crate::link::Link;
use crate::pace::Arrivals;
use crate::report::Latencies;
use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
pub use text::Span;
use text::{Group, OpText, PhaseText, Watchers};

/// The profiles that come with the program: name and text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("steady-lync", include_str!("../../../profiles/steady-lync.toml")),
    ("linphone", include_str!("../../../profiles/linphone.toml")),
    ("blf-office", include_str!("../../../profiles/blf-office.toml")),
    ("celebrity", include_str!("../../../profiles/celebrity.toml")),
    ("storm", include_str!("../../../profiles/storm.toml")),
    ("overload", include_str!("../../../profiles/overload.toml")),
    ("dead-watchers", include_str!("../../../profiles/dead-watchers.toml")),
    ("lossy", include_str!("../../../profiles/lossy.toml")),
    ("etag-race", include_str!("../../../profiles/etag-race.toml")),
    ("kill", include_str!("../../../profiles/kill.toml")),
    ("take-over", include_str!("../../../profiles/take-over.toml")),
    ("soak", include_str!("../../../profiles/soak.toml")),
];

/// A profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is for; the first line is its title.
    pub about: String,
    /// The event package; `presence` if none is given.
    package: Option<String>,
    /// How operations lie in time; as the command line says if this does not.
    arrivals: Option<Arrivals>,
    /// The part of the phones that is simulated, if it is not all.
    slice: Option<f64>,
    /// Seconds to ask for in Expires.
    expires: Option<u32>,
    /// Whether more is offered than the server can do.
    #[serde(default)]
    overloads: bool,
    /// Whether a phone that is refused for a while does not come again.
    #[serde(default)]
    ignores_retry_after: bool,
    /// Whether presentities, registrants and owners of one number are one user.
    #[serde(default)]
    users: bool,
    #[serde(default)]
    link: Link,
    #[serde(default)]
    presentities: Vec<Group>,
    #[serde(default)]
    registrants: Vec<Group>,
    #[serde(default)]
    watchers: Vec<Watchers>,
    #[serde(rename = "phase")]
    phases: Vec<PhaseText>,
    #[serde(rename = "expect", default)]
    expects: Vec<Expect>,
}

/// How a run differs from its profile.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// So many times the phones, and the rates that are given as numbers.
    pub scale: f64,
    /// So many times the length of the phases that have one.
    pub stretch: f64,
    /// This part of the phones instead of the one that the profile names.
    pub slice: Option<f64>,
}

/// The name and the text of a profile that comes with the program or lies in a file.
pub fn find(name: &str) -> anyhow::Result<(String, String)> {
    if let Some((name, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        return Ok(((*name).into(), (*text).into()));
    }
    let path = Path::new(name);
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("there is no profile `{name}`, and no such file can be read"))?;
    let stem = path.file_stem().map_or(name.into(), |stem| stem.to_string_lossy().into_owned());
    Ok((stem, text))
}

impl Profile {
    /// Reads the text of a profile.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// Whether it kills the server, or has another one take over.
    pub fn restarts(&self) -> bool {
        self.phases.iter().any(|phase| phase.kill_after.is_some() || phase.take_over_every.is_some())
    }

    /// Whether it claims something about the server's process.
    pub fn needs_server(&self) -> bool {
        self.expects.iter().any(Expect::needs_server)
    }

    /// How long its longest phase lasts.
    pub fn longest(&self) -> Option<Duration> {
        self.phases.iter().filter_map(|phase| Some(phase.lasts?.0)).max()
    }

    /// The run of this profile, with random contacts from `seed`.
    pub fn plan(&self, name: &str, common: &Common, size: Size, seed: u64) -> anyhow::Result<Plan> {
        ensure!(self.link.is_sound(), "the shares of [link] must be from 0 to 1, and together at most 1");
        let slice = size.slice.or(self.slice).unwrap_or(1.0);
        ensure!(slice > 0.0 && slice <= 1.0, "a slice is more than 0 and at most 1");
        // A slice has its share of the phones, who have all their contacts and change as often as all do.
        let size = Size { scale: size.scale * slice, ..size };
        let common = &Common { arrivals: self.arrivals.unwrap_or(common.arrivals), ..*common };
        let presentities = ranges(&self.presentities, size.scale)?;
        let registrants = ranges(&self.registrants, size.scale)?;
        let find = |name: &str| {
            let found = presentities.iter().find(|(group, _)| group == name).map(|(_, range)| range.clone());
            found.with_context(|| format!("there are no presentities `{name}`"))
        };
        let mut plan = Plan::empty(name.to_string());
        plan.users = self.users;
        plan.slice = slice;
        plan.overloads = self.overloads;
        plan.ignores_retry_after = self.ignores_retry_after || common.ignores_retry_after;
        if let Some(package) = &self.package {
            ensure!(
                !package.is_empty() && package.bytes().all(|b| b.is_ascii_graphic()),
                "that is no event package"
            );
            plan.package = package.clone().into();
        }
        plan.link = self.link;
        plan.expires = self.expires;
        plan.expects.clone_from(&self.expects);
        plan.presentities = presentities.last().map_or(0, |(_, range)| range.end);
        plan.registrants = registrants.last().map_or(0, |(_, range)| range.end);
        let apart: Vec<_> = self.presentities.iter().filter(|group| group.apart).collect();
        ensure!(apart.len() <= 1, "one group at most can be set apart");
        if let [group] = apart[..] {
            plan.apart = find(&group.name)?;
        }

        let mut contacts = Vec::new();
        let mut watchers: Vec<(String, Range<u32>)> = Vec::new();
        let mut deaf = Vec::new();
        let mut chance = Chance::new(seed);
        // Those that are audited come first, whatever their order in the file.
        let special = |group: &&Watchers| group.deaf || group.polls || group.visits;
        let ordinary = self.watchers.iter().filter(|group| !special(group));
        for group in ordinary.chain(self.watchers.iter().filter(special)) {
            let first = contacts.len();
            let of = group.of.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
            match (group.each, &group.contacts) {
                (Some(each), None) => {
                    let each = if group.scaled { scaled(each, size.scale) } else { each };
                    for _ in 0..each {
                        for presentity in of.iter().cloned().flatten() {
                            let owner = contacts.len() as u32;
                            contacts.push(Contact { presentity, owner });
                        }
                    }
                }
                (None, Some(draw)) => draw.draw(&of, find(&draw.owners)?, &mut chance, &mut contacts)?,
                _ => bail!("watchers `{}` need either `each` or `contacts`", group.name),
            }
            ensure!(contacts.len() < 1 << 31, "more than two thousand million watchers");
            let range = first as u32..contacts.len() as u32;
            if group.deaf {
                deaf.push(range.clone());
            }
            if !special(&group) {
                plan.audited = range.end;
            }
            watchers.push((group.name.clone(), range));
        }
        if self.watchers.iter().all(|group| special(&group)) {
            plan.audited = 0;
        }
        ensure!(deaf.len() <= 1, "one group at most can be deaf");
        plan.deaf = deaf.pop().unwrap_or(0..0);
        plan.watchers = contacts.len() as u32;
        plan.contacts = Some(contacts.into());

        for text in &self.phases {
            let phase = text.phase(common, size, |op, who| {
                let groups = match op {
                    OpText::Register => &registrants,
                    OpText::Publish | OpText::Race | OpText::Refresh | OpText::Call => &presentities,
                    OpText::Subscribe | OpText::Poll | OpText::Visit => &watchers,
                };
                let group = self.watchers.iter().find(|group| group.name == who);
                let (polls, visits) = group.map_or((false, false), |group| (group.polls, group.visits));
                let can = match op {
                    OpText::Subscribe => !polls && !visits,
                    OpText::Poll => polls,
                    OpText::Visit => visits,
                    _ => true,
                };
                ensure!(can, "`{who}` cannot {op:?}");
                let found = groups.iter().find(|(group, _)| group == who).map(|(_, range)| range.clone());
                found.with_context(|| format!("phase `{}`: nobody called `{who}` can {op:?}", text.name))
            })?;
            plan.phases.push(phase);
        }
        ensure!(plan.phases.iter().any(|phase| phase.measured), "no phase is measured");
        self.check_claims()?;
        let last = self.phases.last().is_some_and(|phase| phase.settle.is_some());
        ensure!(plan.audited == 0 || last, "the last phase has to settle, for the audit is taken then");
        plan.phases.extend(common.clean_up(&[Op::Unsubscribe, Op::Unpublish, Op::Unregister]));
        plan.latencies = self.latencies();
        Ok(plan)
    }

    /// What the measured phases are about.
    fn latencies(&self) -> &'static [Latencies] {
        let does = |op: OpText| {
            let mut measured = self.phases.iter().filter(|phase| phase.measured);
            measured.any(|phase| phase.works.iter().any(|work| work.op == op))
        };
        let subscribes = [OpText::Subscribe, OpText::Poll, OpText::Visit].into_iter().any(does);
        match (self.watchers.is_empty(), subscribes, does(OpText::Register), self.apart()) {
            (true, _, true, _) => &[Latencies::PublishAnswer, Latencies::RegisterAnswer],
            (true, ..) => &[Latencies::PublishAnswer],
            (_, false, _, true) => {
                &[Latencies::PublishNotify, Latencies::PublishNotifyApart, Latencies::PublishAnswer]
            }
            (_, false, ..) => &[Latencies::PublishNotify, Latencies::PublishAnswer],
            (_, true, false, _) => {
                &[Latencies::PublishNotify, Latencies::PublishAnswer, Latencies::SubscribeNotify]
            }
            (_, true, true, _) => &[
                Latencies::PublishNotify,
                Latencies::PublishAnswer,
                Latencies::SubscribeNotify,
                Latencies::RegisterAnswer,
            ],
        }
    }

    fn apart(&self) -> bool {
        self.presentities.iter().any(|group| group.apart)
    }
}

/// The numbers of the members of each group, one group after the other.
fn ranges(groups: &[Group], scale: f64) -> anyhow::Result<Vec<(String, Range<u32>)>> {
    let mut next = 0u32;
    groups
        .iter()
        .map(|group| {
            let count = if group.fixed { group.count } else { scaled(group.count, scale) };
            let start = next;
            next = next.checked_add(count).filter(|&next| next < 1 << 31).context("too many phones")?;
            Ok((group.name.clone(), start..next))
        })
        .collect()
}

/// A number of phones at a scale, one at least.
fn scaled(count: u32, scale: f64) -> u32 {
    (f64::from(count) * scale).round().max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::pace::Rate;
    use crate::scenario::PerAgent;

    const COMMON: Common = Common {
        window: 8,
        settle: SECOND,
        keep: false,
        ignores_retry_after: false,
        arrivals: Arrivals::Even,
    };
    const AS_IS: Size = Size { scale: 1.0, stretch: 1.0, slice: None };

    fn plan(text: &str, size: Size) -> anyhow::Result<Plan> {
        Profile::parse(text)?.plan("test", &COMMON, size, 7)
    }

    #[test]
    fn the_shipped_profiles_are_sound() {
        for (name, text) in SHIPPED {
            let profile = Profile::parse(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let plan = profile.plan(name, &COMMON, Size { scale: 0.01, ..AS_IS }, 1);
            let plan = plan.unwrap_or_else(|error| panic!("{name}: {error:#}"));
            profile.check_expiry(&plan, plan.expires.unwrap_or(3_600)).unwrap();
            assert!(profile.about.lines().next().is_some_and(|line| line.len() < 100), "{name} has a title");
            assert!(!plan.expects.is_empty(), "{name} claims something");
        }
    }

    const GROUPS: &str = "
        about = 'test'
        presentities = [{ name = 'a', count = 10, apart = true, fixed = true }, { name = 'b', count = 100 }]
        registrants = [{ name = 'r', count = 5 }]
        [[watchers]]
        name = 'deaf'
        of = ['a']
        each = 2
        deaf = true
        [[watchers]]
        name = 'live'
        of = ['a', 'b']
        each = 3
        [[phase]]
        name = 'work'
        measured = true
        for = '2s'
        works = [{ do = 'publish', who = 'b', every = '10s' }, { do = 'subscribe', who = 'deaf', rate = 5 }]
        [[phase]]
        name = 'settle'
        settle = '1s'
    ";

    #[test]
    fn groups_become_ranges() {
        let plan = plan(GROUPS, Size { scale: 2.0, stretch: 3.0, slice: None }).unwrap();
        assert_eq!((plan.presentities, plan.registrants, plan.apart.clone()), (210, 10, 0..10));
        // The deaf ones come last, though they are written first.
        assert_eq!((plan.audited, plan.watchers, plan.deaf.clone()), (630, 650, 630..650));
        let works = &plan.phases[0].works;
        assert_eq!((works[0].agents.clone(), works[1].agents.clone()), (10..210, 630..650));
        assert_eq!((works[0].rate, works[1].rate), (Rate::PerSecond(20.0), Rate::PerSecond(10.0)));
        assert_eq!(works[0].amount, PerAgent::For(6 * SECOND));
        assert_eq!((plan.contact(3).presentity, plan.contact(213).presentity), (3, 3));
    }

    #[test]
    fn a_slice_is_a_part_of_the_phones_and_of_the_rates() {
        let size = Size { slice: Some(0.1), ..AS_IS };
        let sliced = plan(GROUPS, size).unwrap();
        assert_eq!((sliced.presentities, sliced.registrants, sliced.slice), (20, 1, 0.1));
        assert_eq!(sliced.phases[0].works[1].rate, Rate::PerSecond(0.5));
        assert!(plan(GROUPS, Size { slice: Some(1.5), ..AS_IS }).is_err());
    }

    #[test]
    fn mistakes_are_told() {
        for (from, to) in [
            ("who = 'b'", "who = 'live'"),
            ("do = 'subscribe'", "do = 'poll'"),
            ("every = '10s'", "every = '10s', rate = 3"),
            ("measured = true", ""),
            ("each = 3", "each = 3\nnonsense = 1"),
            ("'2s'", "'2 weeks'"),
            ("about = 'test'", "about = 'test'\nlink = { loss = 1.5 }"),
        ] {
            let text = GROUPS.replace(from, to);
            assert!(text != GROUPS && plan(&text, AS_IS).is_err(), "{to}");
        }
    }

    #[test]
    fn what_would_expire_has_to_be_refreshed() {
        let profile = Profile::parse(GROUPS).unwrap();
        let plan = |stretch| profile.plan("test", &COMMON, Size { stretch, ..AS_IS }, 1).unwrap();
        profile.check_expiry(&plan(1.0), 60).unwrap();
        let error = profile.check_expiry(&plan(100.0), 60).unwrap_err();
        assert!(error.to_string().contains("deaf"), "{error}");
    }
}
