//! The steps of a scenario file; `tests/scenarios/README.md` describes the format.

use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::Transport;
use comsipl_shards::resolve::Found;

use crate::world::sip_text::SipText;
use crate::world::{NameEntry, Secret};

/// A step, where it stands, and the indented lines below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Line of the file, from 1.
    pub line: usize,
    /// The step as it is written.
    pub text: String,
    /// What it says.
    pub verb: Verb,
    /// The lines below it, without their indentation.
    pub block: Vec<BlockLine>,
}

/// One indented line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockLine {
    /// Line of the file, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// A phone and one of its lines: `bob` or `bob/2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    /// The phone.
    pub phone: String,
    /// The line; empty when not written.
    pub line: String,
}

impl Who {
    fn parse(text: &str) -> Self {
        let (phone, line) = text.split_once('/').unwrap_or((text, ""));
        Self { phone: phone.to_owned(), line: line.to_owned() }
    }

    /// As it is written.
    pub fn name(&self) -> String {
        if self.line.is_empty() { self.phone.clone() } else { format!("{}/{}", self.phone, self.line) }
    }
}

/// When a message must come, counted from the step before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct When {
    /// Not earlier.
    pub earliest: Duration,
    /// Not later.
    pub latest: Duration,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// `settings name=value …`
    Settings(Vec<(String, String)>),
    /// `shards N`
    Shards(usize),
    /// `phone NAME at ADDRESS [via ADDRESS] [over TRANSPORT]`
    Phone { name: String, at: SocketAddr, via: Option<SocketAddr>, over: Transport },
    /// `NAME closes`
    Closes { phone: String },
    /// `NAME is cut off`
    CutOff { phone: String },
    /// `NAME connects [from ADDRESS]`
    Connects { phone: String, from: Option<SocketAddr> },
    /// `NAME listens over TRANSPORT`, `NAME listens no more over TRANSPORT`
    Listens { phone: String, over: Transport, listens: bool },
    /// `user ADDRESS PASSWORD`
    User { aor: String, secret: Secret },
    /// `name HOST is ADDRESS|unknown|silent [over TRANSPORT] [for SPAN] [slowly SPAN]`
    Name { host: String, entry: NameEntry },
    /// `NAME moves to ADDRESS`
    Moves { phone: String, to: SocketAddr },
    /// `NAME answers STATUS` or `NAME answers nothing`
    Answers { phone: String, status: Option<u16> },
    /// `NAME forgets`
    Forgets { phone: String },
    /// `NAME -> METHOD URI`; no URI: `in-dialog`
    Request { who: Who, method: String, uri: Option<String> },
    /// `NAME -> STATUS`
    Response { who: Who, status: u16 },
    /// `NAME -> again`
    Again { who: Who },
    /// `NAME -> raw`
    Raw { who: Who },
    /// `NAME <- STATUS [again]`, `NAME <- METHOD [URI] [again]`
    Expect { who: Who, what: Expected, again: bool, when: When },
    /// `TIME_PASSES SPAN`
    TimePasses(Duration),
    /// `nothing for SPAN`
    Nothing(Duration),
    /// `crash [of the machine] [before send] [for SPAN] [with N shards] [with the clock SPAN forward|back]`
    Crash { machine: bool, before_send: bool, down: Duration, shards: Option<usize>, clock_ms: i64 },
    /// `all is on disk`
    Sync,
    /// `the clock is set SPAN forward`, `the clock is set SPAN back`: by so many milliseconds
    Clock(i64),
    /// `each turn takes SPAN`
    Turns(Duration),
    /// `set NAME = TEXT`
    Set { name: String, value: String },
    /// `check TEXT != TEXT` or `check TEXT = TEXT`
    Check { left: String, equal: bool, right: String },
    /// `server takes N%`
    Takes(u32),
    /// `records presence=N registered=N`
    Records(Vec<(String, u64)>),
}

/// The kind of message that is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// A response with this status.
    Status(u16),
    /// A request with this method, and this Request-URI if one is written.
    Request(String, Option<String>),
}

impl Expected {
    /// Whether `message` is of this kind, Request-URI aside.
    pub fn is(&self, message: &SipText) -> bool {
        match self {
            Self::Status(status) => message.status() == Some(*status),
            Self::Request(method, _) => message.method() == Some(method),
        }
    }
}

/// Reads a whole file; the error says the line and what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<Step>, (usize, String)> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if raw.starts_with([' ', '\t']) {
            let step =
                steps.last_mut().ok_or((line, "an indented line without a step above it".to_owned()))?;
            step.block.push(BlockLine { line, text: trimmed.to_owned() });
        } else {
            let verb = parse_verb(trimmed).map_err(|why| (line, why))?;
            steps.push(Step { line, text: trimmed.to_owned(), verb, block: Vec::new() });
        }
    }
    Ok(steps)
}

fn parse_verb(text: &str) -> Result<Verb, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["settings", pairs @ ..] => pairs
            .iter()
            .map(|p| p.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())))
            .collect::<Option<_>>()
            .map(Verb::Settings)
            .ok_or("settings are written name=value".to_owned()),
        ["shards", count] => Ok(Verb::Shards(parse_as(count)?)),
        ["phone", name, "at", at, rest @ ..] => {
            let (via, rest) = match rest {
                ["via", via, rest @ ..] => (Some(parse_as(via)?), rest),
                rest => (None, rest),
            };
            let over = match rest {
                [] => Transport::Udp,
                ["over", over] => parse_transport(over)?,
                _ => return Err("phone NAME at ADDRESS [via ADDRESS] [over TRANSPORT]".to_owned()),
            };
            Ok(Verb::Phone { name: (*name).to_owned(), at: parse_as(at)?, via, over })
        }
        ["user", aor, password, rest @ ..] => {
            let password = (*password).to_owned();
            let secret = match rest {
                [] => Secret::Password(password),
                ["as", name] => Secret::Named { name: (*name).to_owned(), password },
                ["by", "MD5"] => Secret::Md5(password),
                _ => return Err("user AOR PASSWORD, or behind it as NAME, or by MD5".to_owned()),
            };
            Ok(Verb::User { aor: (*aor).to_owned(), secret })
        }
        ["name", host, "is", what, rest @ ..] => parse_name(host, what, rest),
        ["TIME_PASSES", span] => Ok(Verb::TimePasses(parse_span(span)?)),
        ["nothing", "for", span] => Ok(Verb::Nothing(parse_span(span)?)),
        ["crash", rest @ ..] => parse_crash(rest),
        ["all", "is", "on", "disk"] => Ok(Verb::Sync),
        ["the", "clock", "is", "set", span, way] => Ok(Verb::Clock(parse_clock(span, way)?)),
        ["each", "turn", "takes", span] => Ok(Verb::Turns(parse_span(span)?)),
        ["set", name, "=", ..] => {
            let value = text.split_once('=').map_or("", |(_, v)| v).trim();
            Ok(Verb::Set { name: (*name).to_owned(), value: value.to_owned() })
        }
        ["check", left, op @ ("=" | "!="), right] => {
            Ok(Verb::Check { left: (*left).to_owned(), equal: *op == "=", right: (*right).to_owned() })
        }
        ["records", pairs @ ..] => pairs
            .iter()
            .map(|p| p.split_once('=').and_then(|(n, v)| Some((n.to_owned(), v.parse().ok()?))))
            .collect::<Option<_>>()
            .map(Verb::Records)
            .ok_or("records are written file=number".to_owned()),
        ["server", "takes", percent] => {
            let percent = percent.strip_suffix('%').ok_or("server takes N%")?;
            Ok(Verb::Takes(parse_as(percent)?))
        }
        [phone, "moves", "to", to] => Ok(Verb::Moves { phone: (*phone).to_owned(), to: parse_as(to)? }),
        [phone, "answers", "nothing"] => Ok(Verb::Answers { phone: (*phone).to_owned(), status: None }),
        [phone, "answers", status] => {
            Ok(Verb::Answers { phone: (*phone).to_owned(), status: Some(parse_as(status)?) })
        }
        [phone, "closes"] => Ok(Verb::Closes { phone: (*phone).to_owned() }),
        [phone, "is", "cut", "off"] => Ok(Verb::CutOff { phone: (*phone).to_owned() }),
        [phone, "connects"] => Ok(Verb::Connects { phone: (*phone).to_owned(), from: None }),
        [phone, "connects", "from", from] => {
            Ok(Verb::Connects { phone: (*phone).to_owned(), from: Some(parse_as(from)?) })
        }
        [phone, "listens", "over", over] => {
            Ok(Verb::Listens { phone: (*phone).to_owned(), over: parse_transport(over)?, listens: true })
        }
        [phone, "listens", "no", "more", "over", over] => {
            Ok(Verb::Listens { phone: (*phone).to_owned(), over: parse_transport(over)?, listens: false })
        }
        [phone, "forgets"] => Ok(Verb::Forgets { phone: (*phone).to_owned() }),
        [who, "->", rest @ ..] => parse_sending(Who::parse(who), rest),
        [who, "<-", rest @ ..] => parse_expectation(Who::parse(who), rest),
        _ => Err("not a step".to_owned()),
    }
}

fn parse_name(host: &str, what: &str, mut words: &[&str]) -> Result<Verb, String> {
    let (mut over, mut ttl, mut after) = (Transport::Udp, Duration::from_secs(60), Some(Duration::ZERO));
    loop {
        words = match words {
            [] => break,
            ["over", word, rest @ ..] => {
                over = parse_transport(word)?;
                rest
            }
            ["for", span, rest @ ..] => {
                ttl = parse_span(span)?;
                rest
            }
            ["slowly", span, rest @ ..] => {
                after = Some(parse_span(span)?);
                rest
            }
            _ => return Err("name HOST is WHAT [over TRANSPORT] [for SPAN] [slowly SPAN]".to_owned()),
        };
    }
    let found = match what {
        "unknown" => Vec::new(),
        "silent" => {
            after = None;
            Vec::new()
        }
        addresses => addresses
            .split(',')
            .map(|address| Ok(Found { transport: over, address: parse_as(address)? }))
            .collect::<Result<_, String>>()?,
    };
    Ok(Verb::Name { host: host.to_owned(), entry: NameEntry { found, after, ttl } })
}

fn parse_transport(word: &str) -> Result<Transport, String> {
    Transport::by_word(word.as_bytes()).ok_or_else(|| format!("{word} is no transport"))
}

fn parse_crash(mut words: &[&str]) -> Result<Verb, String> {
    let (mut machine, mut before_send, mut down, mut shards, mut clock_ms) =
        (false, false, Duration::ZERO, None, 0);
    loop {
        words = match words {
            [] => return Ok(Verb::Crash { machine, before_send, down, shards, clock_ms }),
            ["of", "the", "machine", rest @ ..] => {
                machine = true;
                rest
            }
            ["before", "send", rest @ ..] => {
                before_send = true;
                rest
            }
            ["for", span, rest @ ..] => {
                down = parse_span(span)?;
                rest
            }
            ["with", count, "shards", rest @ ..] => {
                shards = Some(parse_as(count)?);
                rest
            }
            ["with", "the", "clock", span, way, rest @ ..] => {
                clock_ms = parse_clock(span, way)?;
                rest
            }
            _ => {
                let all = "crash [of the machine] [before send] [for SPAN] [with N shards] [with the clock SPAN forward|back]";
                return Err(all.to_owned());
            }
        };
    }
}

/// How far the wall clock is set, in milliseconds.
fn parse_clock(span: &str, way: &str) -> Result<i64, String> {
    let millis = i64::try_from(parse_span(span)?.as_millis()).map_err(|_| format!("{span} is too long"))?;
    match way {
        "forward" => Ok(millis),
        "back" => Ok(-millis),
        _ => Err(format!("forward or back, not {way}")),
    }
}

fn parse_sending(who: Who, words: &[&str]) -> Result<Verb, String> {
    match words {
        ["again"] => Ok(Verb::Again { who }),
        ["raw"] => Ok(Verb::Raw { who }),
        [status, ..] if is_status(status) => Ok(Verb::Response { who, status: parse_as(status)? }),
        [method, "in-dialog"] => Ok(Verb::Request { who, method: (*method).to_owned(), uri: None }),
        [method, uri] => {
            Ok(Verb::Request { who, method: (*method).to_owned(), uri: Some((*uri).to_owned()) })
        }
        _ => Err("what is sent is METHOD URI, METHOD in-dialog, a status, again or raw".to_owned()),
    }
}

fn parse_expectation(who: Who, words: &[&str]) -> Result<Verb, String> {
    let (what, rest) = match words {
        [status, rest @ ..] if is_status(status) => (Expected::Status(parse_as(status)?), rest),
        [method, rest @ ..] => {
            let method = (*method).to_owned();
            match rest {
                [uri, rest @ ..] if !matches!(*uri, "again" | "after" | "within") => {
                    (Expected::Request(method, Some((*uri).to_owned())), rest)
                }
                _ => (Expected::Request(method, None), rest),
            }
        }
        [] => return Err("what is expected?".to_owned()),
    };
    let (again, rest) = match rest {
        ["again", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let when = match rest {
        [] => When { earliest: Duration::ZERO, latest: PROMPTLY },
        ["within", span] => When { earliest: Duration::ZERO, latest: parse_span(span)? },
        ["after", span] => {
            let (earliest, latest) = match span.split_once("..") {
                Some((earliest, latest)) => (parse_span(earliest)?, parse_span(latest)?),
                None => (parse_span(span)?, parse_span(span)? + TIMER_SLACK),
            };
            When { earliest, latest }
        }
        _ => return Err("after SPAN, after SPAN..SPAN or within SPAN".to_owned()),
    };
    Ok(Verb::Expect { who, what, again, when })
}

/// Reads `500ms`, `5s`, `2m` or `1h`.
fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = parse_as(digits)?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err(format!("{text} is not a span of time")),
    }
}

fn parse_as<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} cannot be read"))
}

fn is_status(word: &str) -> bool {
    word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit())
}

/// What comes at once may take this long: turns, hand-overs and notes take a little virtual time.
pub(super) const PROMPTLY: Duration = Duration::from_millis(100);

/// Timers fire never early and at most this much late.
const TIMER_SLACK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_their_blocks_are_read() {
        let steps =
            parse("# why\nbob/2 -> SUBSCRIBE sip:a@b\n    Event: presence\n    # aside\n\nbob/2 <- 200\n")
                .expect("fine");
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[0].line, 2);
        assert_eq!(steps[0].block, [BlockLine { line: 3, text: "Event: presence".to_owned() }]);
        let who = Who { phone: "bob".to_owned(), line: "2".to_owned() };
        assert_eq!(
            steps[0].verb,
            Verb::Request {
                who: who.clone(),
                method: "SUBSCRIBE".to_owned(),
                uri: Some("sip:a@b".to_owned())
            }
        );
        let when = When { earliest: Duration::ZERO, latest: PROMPTLY };
        assert_eq!(steps[1].verb, Verb::Expect { who, what: Expected::Status(200), again: false, when });
    }

    #[test]
    fn spans_of_expectations_are_read() {
        let when = |text| match parse_verb(text) {
            Ok(Verb::Expect { when, .. }) => (when.earliest.as_millis(), when.latest.as_millis()),
            other => panic!("{other:?}"),
        };
        assert_eq!(when("bob <- NOTIFY after 500ms"), (500, 550));
        assert_eq!(when("bob <- NOTIFY sip:x after 60s..62s"), (60_000, 62_000));
        assert_eq!(when("bob <- NOTIFY again within 1m"), (0, 60_000));
    }

    #[test]
    fn what_is_no_step_is_refused_with_its_line() {
        assert_eq!(parse("\nbob => 200\n"), Err((2, "not a step".to_owned())));
        assert_eq!(parse("TIME_PASSES soon"), Err((1, " cannot be read".to_owned())));
    }
}
