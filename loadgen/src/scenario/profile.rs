//! Profiles: runs described by files that a user can copy and change.

use super::contacts::Contacts;
use super::{Common, Contact, Ends, PerAgent, Phase, Plan, Work};
use crate::agent::Op;
use crate::clock::{Nanos, nanos};
use crate::expect::Expect;
use crate::link::Link;
use crate::pace::Rate;
use crate::report::Latencies;
use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// The profiles that come with the program: name and text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("steady-lync", include_str!("../../profiles/steady-lync.toml")),
    ("celebrity", include_str!("../../profiles/celebrity.toml")),
    ("storm", include_str!("../../profiles/storm.toml")),
    ("dead-watchers", include_str!("../../profiles/dead-watchers.toml")),
    ("lossy", include_str!("../../profiles/lossy.toml")),
    ("etag-race", include_str!("../../profiles/etag-race.toml")),
    ("kill", include_str!("../../profiles/kill.toml")),
    ("soak", include_str!("../../profiles/soak.toml")),
];

/// A profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is for; the first line is its title.
    pub about: String,
    /// Seconds to ask for in Expires.
    expires: Option<u32>,
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

/// Phones that publish or register.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    count: u32,
    /// Their latencies are measured by themselves.
    #[serde(default)]
    apart: bool,
    /// The number does not grow with `--scale`.
    #[serde(default)]
    fixed: bool,
}

/// Phones that watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watchers {
    name: String,
    /// The presentities that they watch.
    of: Vec<String>,
    /// Watchers of each presentity.
    each: Option<u32>,
    /// Users with contacts instead.
    contacts: Option<Contacts>,
    /// Their number grows with `--scale`, rather than that of the presentities.
    #[serde(default)]
    scaled: bool,
    /// They never answer a NOTIFY, and are not audited.
    #[serde(default)]
    deaf: bool,
    /// They ask now and then instead of subscribing, and are not audited.
    #[serde(default)]
    polls: bool,
}

/// A part of a run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseText {
    name: String,
    #[serde(default)]
    measured: bool,
    /// All phones lose what they know at its beginning.
    #[serde(default)]
    forget: bool,
    /// The server is killed and started again so long after its beginning.
    kill_after: Option<Span>,
    /// Works go on for so long; without, each phone does its work once.
    #[serde(rename = "for")]
    lasts: Option<Span>,
    /// Wait until every watcher shows what was published last, at most so long.
    settle: Option<Span>,
    #[serde(default)]
    works: Vec<WorkText>,
}

/// What phones do in a phase.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkText {
    #[serde(rename = "do")]
    op: OpText,
    /// The group that does it.
    who: String,
    /// So many in a second.
    rate: Option<f64>,
    /// Each phone once in this time.
    every: Option<Span>,
    /// All of them, spread over this time, and once each.
    over: Option<Span>,
}

/// What a phone does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OpText {
    Register,
    Publish,
    Subscribe,
    Poll,
    Race,
}

/// A length of time such as `500ms`, `30s`, `15m` or `72h`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
        let parsed = units.iter().find_map(|(unit, secs)| {
            let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
            Duration::try_from_secs_f64(number * secs).ok()
        });
        parsed
            .filter(|span| !span.is_zero())
            .map(Self)
            .ok_or(format!("`{text}` is no time such as 30s or 15m"))
    }
}

/// How a run differs from its profile.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// So many times the phones, and the rates that are given as numbers.
    pub scale: f64,
    /// So many times the length of the phases that have one.
    pub stretch: f64,
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

    /// Whether it kills the server.
    pub fn kills(&self) -> bool {
        self.phases.iter().any(|phase| phase.kill_after.is_some())
    }

    /// Whether it claims something about the server's process.
    pub fn needs_server(&self) -> bool {
        self.expects.iter().any(Expect::needs_server)
    }

    /// The run of this profile, with random contacts from `seed`.
    pub fn plan(&self, name: &str, common: &Common, size: Size, seed: u64) -> anyhow::Result<Plan> {
        ensure!(self.link.is_sound(), "the shares of [link] must be from 0 to 1, and together at most 1");
        let presentities = ranges(&self.presentities, size.scale)?;
        let registrants = ranges(&self.registrants, size.scale)?;
        let find = |name: &str| {
            let found = presentities.iter().find(|(group, _)| group == name).map(|(_, range)| range.clone());
            found.with_context(|| format!("there are no presentities `{name}`"))
        };
        let mut plan = Plan::empty(name.to_string());
        plan.users = self.users;
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
        let mut seed = seed;
        // Those that are audited come first, whatever their order in the file.
        let special = |group: &&Watchers| group.deaf || group.polls;
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
                (None, Some(draw)) => draw.draw(&of, find(&draw.owners)?, &mut seed, &mut contacts)?,
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
                    OpText::Publish | OpText::Race => &presentities,
                    OpText::Subscribe | OpText::Poll => &watchers,
                };
                let polls = self.watchers.iter().any(|group| group.name == who && group.polls);
                ensure!(
                    !matches!(op, OpText::Subscribe | OpText::Poll) || polls == (op == OpText::Poll),
                    "`{who}` cannot {op:?}"
                );
                let found = groups.iter().find(|(group, _)| group == who).map(|(_, range)| range.clone());
                found.with_context(|| format!("phase `{}`: nobody called `{who}` can {op:?}", text.name))
            })?;
            plan.phases.push(phase);
        }
        ensure!(plan.phases.iter().any(|phase| phase.measured), "no phase is measured");
        for expect in &self.expects {
            if let Some(name) = expect.phase() {
                let found = self.phases.iter().find(|phase| phase.name == name);
                let found =
                    found.with_context(|| format!("a claim is about a phase `{name}` that is not there"))?;
                let timed = matches!(expect, Expect::Latency { .. });
                ensure!(
                    !timed || found.measured,
                    "a claim is about latencies of `{name}`, which is not measured"
                );
            }
            if let Expect::Count { counter, .. } = expect {
                let counts = serde_json::to_value(crate::stats::Counts::default())?;
                ensure!(counts.get(counter).is_some(), "there is no counter `{counter}`");
            }
        }
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
        let subscribes = does(OpText::Subscribe) || does(OpText::Poll);
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

    /// Fails if something would expire in a run of this length that nobody refreshes.
    pub fn check_expiry(&self, plan: &Plan, expires: u32) -> anyhow::Result<()> {
        let limit = nanos(Duration::from_secs(expires.into())) / 10 * 8;
        for (text, phase) in self.phases.iter().zip(&plan.phases) {
            let lasts = phase.works.iter().filter_map(|work| match work.amount {
                PerAgent::For(time) => Some(time),
                PerAgent::Once => None,
            });
            if lasts.max().is_none_or(|lasts| lasts < limit) {
                continue;
            }
            let is_refreshed = |op: OpText, who: &str| {
                let mut works = text.works.iter().filter(|work| work.op == op && work.who == who);
                works.any(|work| work.every.is_some_and(|every| nanos(every.0) <= limit / 8 * 9))
            };
            let groups = self.presentities.iter().map(|group| (OpText::Publish, &group.name));
            let groups = groups.chain(self.registrants.iter().map(|group| (OpText::Register, &group.name)));
            let subscribing = self.watchers.iter().filter(|group| !group.polls);
            for (op, who) in groups.chain(subscribing.map(|group| (OpText::Subscribe, &group.name))) {
                let ever = self.phases.iter().flat_map(|phase| &phase.works);
                let mut ever = ever.filter(|work| work.op == op && work.who == *who);
                ensure!(
                    ever.next().is_none() || is_refreshed(op, who),
                    "phase `{}` is longer than 80% of {expires} s, and `{who}` do not {op:?} every so often in it",
                    text.name
                );
            }
        }
        Ok(())
    }
}

impl PhaseText {
    fn phase(
        &self,
        common: &Common,
        size: Size,
        find: impl Fn(OpText, &str) -> anyhow::Result<Range<u32>>,
    ) -> anyhow::Result<Phase> {
        let stretched = |span: Span| nanos(span.0.mul_f64(size.stretch)).max(1);
        let amount = self.lasts.map_or(PerAgent::Once, |lasts| PerAgent::For(stretched(lasts)));
        let mut works = Vec::with_capacity(self.works.len());
        for work in &self.works {
            let agents = find(work.op, &work.who)?;
            let count = f64::from(agents.end - agents.start);
            let in_time = |span: Nanos| Rate::PerSecond(count * 1e9 / span as f64);
            let (rate, amount) = match (work.rate, work.every, work.over) {
                (None, None, None) => (Rate::Max, amount),
                (Some(rate), None, None) if rate > 0.0 => (Rate::PerSecond(rate * size.scale), amount),
                (None, Some(every), None) => (in_time(nanos(every.0)), amount),
                (None, None, Some(over)) => (in_time(stretched(over)), PerAgent::Once),
                _ => bail!("phase `{}`: give one of `rate`, `every` and `over`", self.name),
            };
            let op = match work.op {
                OpText::Register => Op::Register,
                OpText::Publish => Op::Publish,
                OpText::Subscribe => Op::Subscribe,
                OpText::Poll => Op::Poll,
                OpText::Race => Op::Race,
            };
            works.push(Work { amount, agents, ..common.work(op, rate) });
        }
        let ends = self.settle.map_or(Ends::Done, |settle| Ends::Settled(nanos(settle.0)));
        ensure!(!works.is_empty() || self.settle.is_some(), "phase `{}` has nothing to do", self.name);
        Ok(Phase {
            measured: self.measured,
            ends,
            forgets: self.forget,
            kill_after: self.kill_after.map(stretched),
            ..Phase::new(self.name.clone(), works)
        })
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
    use crate::pace::Arrivals;

    const COMMON: Common = Common { window: 8, settle: SECOND, keep: false, arrivals: Arrivals::Even };
    const AS_IS: Size = Size { scale: 1.0, stretch: 1.0 };

    fn plan(text: &str, size: Size) -> anyhow::Result<Plan> {
        Profile::parse(text)?.plan("test", &COMMON, size, 7)
    }

    #[test]
    fn the_shipped_profiles_are_sound() {
        for (name, text) in SHIPPED {
            let profile = Profile::parse(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let plan = profile.plan(name, &COMMON, Size { scale: 0.01, stretch: 1.0 }, 1);
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
        let plan = plan(GROUPS, Size { scale: 2.0, stretch: 3.0 }).unwrap();
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
        let plan = |stretch| profile.plan("test", &COMMON, Size { scale: 1.0, stretch }, 1).unwrap();
        profile.check_expiry(&plan(1.0), 60).unwrap();
        let error = profile.check_expiry(&plan(100.0), 60).unwrap_err();
        assert!(error.to_string().contains("deaf"), "{error}");
    }
}
