//! The command line.

use crate::message::Transport;
use crate::pace::{Arrivals, Rate};
use crate::profile::Span;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Simulated phones that measure a SIP presence server.
///
/// At a given rate requests leave at times that are known in advance (an open loop), evenly spread or at random as those
/// of independent phones (`--arrivals poisson`); all latencies count from those times.
///
/// Every run ends with an audit: each watcher must show the document that its presentity published last. The exit
/// status is 0 if the audit passes, 1 if not, 2 if the run failed.
#[derive(Clone, Debug, Parser)]
#[command(name = "comsipl-loadgen", version)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// REGISTER: bindings per second
    Register {
        /// Phones
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        users: u32,
        /// REGISTERs per second, or `max`
        #[arg(long, default_value = "max")]
        rate: Rate,
        /// Register again and again for so many seconds, instead of once
        #[arg(long, value_parser = seconds)]
        duration: Option<Duration>,
        /// What all commands understand
        #[command(flatten)]
        common: Common,
    },
    /// SUBSCRIBE: subscriptions per second, with the 200 and the first NOTIFY of each
    Subscribe {
        /// Who watches whom
        #[command(flatten)]
        audience: Audience,
        /// SUBSCRIBEs per second, or `max`
        #[arg(long, default_value = "max")]
        rate: Rate,
        /// Subscribe and refresh again and again for so many seconds, instead of once
        #[arg(long, value_parser = seconds)]
        duration: Option<Duration>,
        /// What all commands understand
        #[command(flatten)]
        common: Common,
    },
    /// PUBLISH without watchers: state changes per second
    Publish {
        /// Phones that publish
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        presentities: u32,
        /// PUBLISHes per second, or `max`
        #[arg(long, default_value = "max")]
        rate: Rate,
        /// Seconds
        #[arg(long, default_value = "10", value_parser = seconds)]
        duration: Duration,
        /// What all commands understand
        #[command(flatten)]
        common: Common,
    },
    /// PUBLISH with watchers: NOTIFYs per second, and how long a state change takes to its watchers
    Fanout {
        /// Who watches whom
        #[command(flatten)]
        audience: Audience,
        /// PUBLISHes per second, or `max`
        #[arg(long, default_value = "max")]
        rate: Rate,
        /// Seconds
        #[arg(long, default_value = "10", value_parser = seconds)]
        duration: Duration,
        /// What all commands understand
        #[command(flatten)]
        common: Common,
    },
    /// Damaged messages of strangers beside subscriptions that must not suffer: does the server live, and not grow?
    ///
    /// Real messages with flipped bits, wrong lengths, endless lines, deep nesting, bombs for XML parsers and more, from many
    /// source ports. With `--server-pid` the server's memory is watched as well.
    Hostile {
        /// Who watches whom
        #[command(flatten)]
        audience: Audience,
        /// Hostile datagrams
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// Hostile datagrams per second at most
        #[arg(long, default_value = "20000", value_parser = per_second)]
        rate: f64,
        /// Source ports that they come from
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
        ports: u16,
        /// MB that the server's memory may grow by
        ///
        /// It keeps answers for 32 s (64*T1), and what it grants to strangers until that expires.
        #[arg(long = "growth", default_value_t = 512)]
        growth_max_mb: u64,
        /// What all commands understand
        #[command(flatten)]
        common: Common,
    },
    /// Even load with phones that come and go, for hours: do memory and descriptors grow, does the server find anything wrong?
    ///
    /// This is the profile `soak`, for as long as you say. Needs `--server-pid` or `--server-command`.
    Soak {
        /// How long, such as 90s, 30m or 72h
        #[arg(long, default_value = "72h", value_parser = span)]
        duration: Duration,
        /// So many times the 2,000 users and their contacts
        #[arg(long, default_value_t = 1.0, value_parser = factor)]
        scale: f64,
        /// Start the server by this command, which must make it listen at `--target`
        #[arg(long)]
        server_command: Option<String>,
        /// What all commands understand
        #[command(flatten)]
        common: Common,
    },
    /// The highest rate without loss and with a 99th percentile under a limit, by search
    Capacity {
        /// What to do at that rate
        #[arg(value_enum)]
        what: Capacity,
        /// Phones that register, for `register`
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        users: u32,
        /// Who watches whom, for the others
        #[command(flatten)]
        audience: Audience,
        /// Most that the 99th percentile of every latency may be, such as `10ms`
        #[arg(long, default_value = "10ms", value_parser = short)]
        limit: Duration,
        /// Seconds of each trial
        #[arg(long, default_value = "5", value_parser = seconds)]
        duration: Duration,
        /// Search until the rates that hold and that do not differ by at most so many percent
        #[arg(long, default_value_t = 5.0, value_parser = percent)]
        precision: f64,
        /// What all commands understand
        #[command(flatten)]
        common: Common,
    },
    /// Run a profile: a day of an office, a celebrity, a storm, a bad network, …
    Run {
        /// One of `profiles`, or a file like those
        profile: String,
        /// So many times the phones and rates of the profile
        #[arg(long, default_value_t = 1.0, value_parser = factor)]
        scale: f64,
        /// Simulate this part of the profile's phones, such as 0.01, instead of the part that it names
        ///
        /// They have all their contacts among themselves and change as often as all do, so everything but the whole
        /// load is as in the whole.
        #[arg(long, value_parser = part)]
        slice: Option<f64>,
        /// So many times the length of its phases
        #[arg(long, default_value_t = 1.0, value_parser = factor)]
        stretch: f64,
        /// Start the server by this command, which must make it listen at `--target`; profiles may kill it or have it succeeded
        #[arg(long)]
        server_command: Option<String>,
        /// What all commands understand
        #[command(flatten)]
        common: Common,
    },
    /// List the profiles, or print one to be copied and changed
    Profiles {
        /// The one to print
        name: Option<String>,
    },
    /// Compare two runs by the JSON that they wrote
    Compare {
        /// The run that the other is compared with
        a: PathBuf,
        /// The other run
        b: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Be the least presence server, on loopback, to learn how fast the generator is on this machine
    ///
    /// Prints its address and process, and ends when its input ends.
    Notifier {
        /// Run on this processor
        #[arg(long)]
        cpu: Option<usize>,
    },
}

/// What a capacity is the capacity of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Capacity {
    /// REGISTERs per second
    Register,
    /// SUBSCRIBEs per second: refreshes, each with its 200 and its NOTIFY
    Subscribe,
    /// PUBLISHes per second, nobody watching
    Publish,
    /// PUBLISHes per second, each told to all watchers
    Fanout,
}

/// Who watches whom.
#[derive(Clone, Copy, Debug, Args)]
pub struct Audience {
    /// Phones that publish
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub presentities: u32,
    /// Watchers of each of them
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub watchers: u32,
}

/// What all commands understand.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The server
    #[arg(long)]
    pub target: SocketAddr,
    /// Measure processor time and memory of this process and its descendants
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Ask the server by this command, once a minute, for what is wrong with it: the JSON of `comsipl status --json`
    #[arg(long, value_name = "COMMAND")]
    pub server_status: Option<String>,
    /// Host part of all addresses of record; by default the server's address
    #[arg(long)]
    pub domain: Option<String>,
    /// Seconds to ask for in Expires
    #[arg(long, default_value_t = 3_600)]
    pub expires: u32,
    /// What carries the messages
    ///
    /// Over TCP the phones open the connections; what the server has to tell them comes by those, and nothing is sent again. A
    /// message counts as received when the generator reads it, since the kernel does not say when it came.
    #[arg(long, value_enum, default_value = "udp")]
    pub transport: Transport,
    /// Connections that the phones share over TCP, up to one for each; by default as many as `--sockets`
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Sockets, each with a source port of its own, that the phones share
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub sockets: u16,
    /// All phones share one source port, as behind a proxy; for one thread, or two: the second one sends
    #[arg(long)]
    pub behind_proxy: bool,
    /// That proxy takes part in overload control (RFC 7339): it sends less when the server says so in Via
    ///
    /// It offers the loss-based scheme, withholds the percentage that the server's newest answer asks for, requests in a dialog
    /// and ends last, and answers 503 to their phones itself.
    #[arg(long, requires = "behind_proxy")]
    pub overload_control: bool,
    /// Local address; by default the one that reaches the server
    #[arg(long)]
    pub source: Option<IpAddr>,
    /// Threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Pin the threads to these processors in turn, such as `0,1`
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Look for datagrams all the time instead of sleeping
    ///
    /// A sleeping thread is woken by the server's sending, at the cost of the server, as no phone behind a network is. For
    /// a generator that has processors to itself.
    #[arg(long)]
    pub poll: bool,
    /// Most unfinished operations at the rate `max`; state changes of `fanout` also want 1,024 NOTIFYs at once at most
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// How requests lie in time at a given rate; a profile that says it itself is left as it is
    #[arg(long, value_enum, default_value = "even")]
    pub arrivals: Arrivals,
    /// Phones that get a 500 or 503 with Retry-After do not come again after it; the request counts as refused
    #[arg(long)]
    pub ignore_retry_after: bool,
    /// Seconds to wait for the last documents before the audit
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub settle: Duration,
    /// Leave subscriptions, publications and bindings behind at the end
    #[arg(long)]
    pub keep: bool,
    /// Make the same Call-IDs, tags and branches again; by default they differ from run to run
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write everything to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// No progress bars
    #[arg(long)]
    pub quiet: bool,
}

impl Command {
    /// What all measuring commands understand, and the rate asked for; none for the others.
    pub fn measurement(&self) -> Option<(&Common, Rate)> {
        match self {
            Self::Register { common, rate, .. }
            | Self::Subscribe { common, rate, .. }
            | Self::Publish { common, rate, .. }
            | Self::Fanout { common, rate, .. } => Some((common, *rate)),
            Self::Run { common, .. } | Self::Soak { common, .. } | Self::Hostile { common, .. } => {
                Some((common, Rate::Max))
            }
            Self::Capacity { .. } | Self::Profiles { .. } | Self::Compare { .. } | Self::Notifier { .. } => {
                None
            }
        }
    }
}

/// A positive number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 =
        text.trim_end_matches('s').parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && seconds < 1e7 => Ok(duration),
        _ => Err("must be more than 0 and less than 10,000,000 seconds".into()),
    }
}

/// A positive number of things a second.
fn per_second(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("must be from 1 to 10,000,000".into()),
    }
}

/// A length of time with its unit.
fn short(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let parsed = units.iter().find_map(|(unit, secs)| {
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        Duration::try_from_secs_f64(number * secs).ok()
    });
    match parsed {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("`{text}` is no time such as 500us, 10ms or 1s")),
    }
}

/// A longer time with its unit.
fn span(text: &str) -> Result<Duration, String> {
    Span::try_from(text.to_owned()).map(|span| span.0)
}

/// A positive number.
fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (1e-6..=1e6).contains(&factor) => Ok(factor),
        _ => Err("must be from 0.000001 to 1,000,000".into()),
    }
}

/// A part of all.
fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if part > 0.0 && part <= 1.0 => Ok(part),
        _ => Err("must be more than 0 and at most 1".into()),
    }
}

/// A share between 0.1% and 50%.
fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if (0.1..=50.0).contains(&percent) => Ok(percent),
        _ => Err("must be from 0.1 to 50".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_all_commands_are_understood() {
        let line = "x fanout --presentities 3 --watchers 4 --rate 10 --duration 2.5s --target 127.0.0.1:5060 --cpus 1,2 \
                    --json out.json --keep --behind-proxy --overload-control";
        let cli = Cli::parse_from(line.split_whitespace());
        let (common, rate) = cli.command.measurement().unwrap();
        assert_eq!(rate, Rate::PerSecond(10.0));
        assert_eq!(common.cpus, [1, 2]);
        let Command::Fanout { duration, .. } = cli.command else { panic!("not a fanout") };
        assert_eq!(duration, Duration::from_millis(2_500));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(short("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(short("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(short("200us"), short("200µs"));
        assert!(short("10").is_err() && short("0ms").is_err() && short("-1s").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "x register",
            "x register --target 127.0.0.1:5060 --users 0",
            "x register --target 127.0.0.1:5060 --rate 0",
            "x fanout --target 127.0.0.1:5060 --duration 0",
            "x fanout --target localhost",
            "x register --target 127.0.0.1:5060 --overload-control",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
