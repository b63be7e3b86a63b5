//! The command line.
//!
//! Exit codes, which scripts may rely on:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; `serve`: stopped by a signal, everything on disk |
//! | 1 | `serve`: failed while running; `fdb verify`: damage was found; `fdb inspect`: the file cannot be read; `user`: not done; `status`: no server, or something is wrong |
//! | 2 | the command line or the configuration is wrong; nothing was touched |
//! | 3 | `serve` could not start, or take over: address or data directory in use, file damaged … |
//! | 130 | `serve`: a second signal ended it at once |

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, ConfigError};
use crate::settings::Settings;

mod banner;
mod check_config;
mod fdb;
mod log;
mod serve;
mod status;
mod user;

use serve::ServeArgs;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done = 0,
    Failed = 1,
    Misused = 2,
    NotStarted = 3,
    Interrupted = FORCED_EXIT as isize,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Exit code of a server that is ended by a second signal, and of a question that is answered by one.
const FORCED_EXIT: i32 = 130;

/// A SIP presence server: phones REGISTER, PUBLISH and SUBSCRIBE, watchers are told by NOTIFY.
///
/// Without a command it serves, with defaults that fit a trial on one machine.
#[derive(Debug, Parser)]
#[command(name = "comsipl", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGINT or SIGTERM (the default).
    Serve(ServeArgs),
    /// Check a configuration file and print all options in force.
    #[command(after_help = CHECK_EXAMPLES)]
    CheckConfig {
        /// The file, as for `serve --config`.
        file: PathBuf,
    },
    /// Say what a running server does and has, and whether anything is wrong with it.
    Status(status::StatusArgs),
    /// Add, change, remove, list or import the users who may register.
    User(user::UserArgs),
    /// Look into presence_w.fdb and registered.fdb, also while a server uses them.
    Fdb {
        #[command(subcommand)]
        command: fdb::FdbCommand,
    },
}

/// Does what the command line of the process says.
#[must_use]
pub fn run() -> ExitCode {
    run_args(std::env::args_os()).into()
}

fn run_args(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors", too, which go to standard output; a closed pipe there is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() { Exit::Misused } else { Exit::Done };
        }
    };
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(args),
        Command::CheckConfig { file } => check_config::run(&file),
        Command::Status(args) => status::run(args),
        Command::User(args) => user::run(args),
        Command::Fdb { command } => fdb::run(command),
    }
}

/// The settings of a server for the tools that only need to know where its files are and what stands in its configuration: the
/// defaults, overridden by the file, overridden by the directory.
fn settings_of(config: Option<&Path>, data_dir: Option<PathBuf>) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    if let Some(path) = config {
        config::read_file(path, &mut settings)?;
    }
    if let Some(data_dir) = data_dir {
        settings.data_dir = data_dir;
    }
    Ok(settings)
}

/// Writes to standard error. Where nobody takes it, nothing is told: that is no reason to end, as it would be to `eprint!`.
fn tell(text: impl Display) {
    let _ = write!(std::io::stderr(), "{text}");
}

/// Says on standard error what went wrong.
fn complain(error: &impl Display) {
    tell(format_args!("error: {error}\n"));
}

const EXAMPLES: &str = "\
Examples:
  comsipl                                     serve udp:127.0.0.1:5060, files in ./comsipl-data
  comsipl --listen udp:127.0.0.1:0            let the system choose a port; the line `ready` tells it
  comsipl serve --config /etc/comsipl.toml    serve as the file says
  comsipl serve --listen udp:0.0.0.0:5060 --auth none --domain example.net
                                              serve the network, where others decide who reaches us
  comsipl serve --listen udp:0.0.0.0:5060 --auth digest --domain example.net
                                              serve the network; users prove themselves by their passwords
  comsipl serve --config /etc/comsipl.toml    once more, while it runs: the new process takes over
  comsipl user add alice@example.net          let somebody register
  comsipl check-config /etc/comsipl.toml      is the file right?
  comsipl fdb inspect comsipl-data/presence_w.fdb

Exit codes: 0 done, 1 failed, 2 wrong command line or configuration, 3 could not start, 130 forced by a second signal.";

const CHECK_EXAMPLES: &str = "\
Examples:
  comsipl check-config /etc/comsipl.toml
  comsipl check-config new.toml && systemctl restart comsipl

Exit codes: 0 the file is right, 2 it is not.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve_with_the_same_options() {
        let bare = Cli::try_parse_from(["comsipl", "--shards", "2", "--listen", "[::1]:0"]).unwrap();
        assert!(bare.command.is_none());
        let named =
            Cli::try_parse_from(["comsipl", "serve", "--shards", "2", "--listen", "[::1]:0"]).unwrap();
        match named.command {
            Some(Command::Serve(args)) => assert_eq!(format!("{args:?}"), format!("{:?}", bare.serve)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for args in [
            &["--shards", "0"][..],
            &["--shards", "65"],
            &["--listen", "sctp:127.0.0.1:5060"],
            &["--listen", "127.0.0.1"],
            &["--domain", "a@b"],
            &["--auth", "basic"],
            &["--shards", "2", "serve"],
            &["serve", "--fork"],
            &["fdb"],
            &["fdb", "inspect"],
        ] {
            let args = ["comsipl"].iter().chain(args);
            assert!(Cli::try_parse_from(args.clone()).is_err(), "{args:?}");
        }
    }
}
