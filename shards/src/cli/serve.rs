//! `comsipl serve`.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::banner::Banner;
use super::log::{self, LogFormat};
use super::{Exit, FORCED_EXIT, complain, settings_of, tell};
use crate::config::{self, ConfigError, ListenError, parse_listen};
use crate::node::{Ended, Node, Prepared, Reloader, Running, StartError, Stopper, shards_of};
use crate::restart::inherited::Inherited;
use crate::restart::predecessor::Predecessor;
use crate::restart::service_manager::{self, KeptSocket};
use crate::sandbox::Sandbox;
use crate::settings::{Auth, IdentityFiles, Listen, SandboxMode, Settings};

/// Options of `comsipl serve`. Each overrides what the configuration file says.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Configuration file; without it the defaults are used.
    ///
    /// deploy/config/comsipl.toml describes every option.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; may be given more than once.
    ///
    /// TRANSPORT is udp, tcp, tls, ws or wss. Port 0 lets the system choose. What is not loopback needs `--auth digest` or
    /// `--auth none`. [default: udp:127.0.0.1:5060 and tcp:127.0.0.1:5060]
    #[arg(long, value_name = "[TRANSPORT:]ADDR:PORT", value_parser = listen_value)]
    listen: Vec<Listen>,
    /// Directory of the two files; made if there is none. [default: ./comsipl-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Number of shards, 1 to 64. [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=config::SHARDS_MAX as i64))]
    shards: Option<u16>,
    /// Domain to serve; may be given more than once. [default: any]
    #[arg(long = "domain", value_name = "NAME", value_parser = domain_value)]
    domains: Vec<String>,
    /// Certificate for listeners tls and wss, PEM; the server's own first, then those up to the root.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Whether requests are authenticated.
    ///
    /// One of them is needed to listen on addresses that other machines can reach.
    #[arg(long, value_enum)]
    auth: Option<AuthArg>,
    /// Refuse to start where a server uses the data directory, instead of going on in its place.
    #[arg(long)]
    no_take_over: bool,
    /// Keep what the server does not need: all files and system calls, as `sandbox = "off"` does.
    #[arg(long)]
    no_sandbox: bool,
    /// What to log: error, warn, info, debug, trace, or a filter such as `info,comsipl_shards=debug`.
    #[arg(long, value_name = "LEVEL", env = "COMSIPL_LOG", default_value = "info")]
    log: String,
    /// How to log.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

/// What may be written behind `--auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AuthArg {
    /// Anyone who reaches the server may do anything.
    None,
    /// Users prove themselves by a password; see `comsipl user --help`.
    Digest,
}

fn listen_value(text: &str) -> Result<Listen, String> {
    parse_listen(text).map_err(|error: ListenError| format!("{error}; {}", error.help()))
}

fn domain_value(text: &str) -> Result<String, String> {
    config::parse_domain(text).map_err(|expected| format!("{expected} is expected"))
}

/// Serves until a signal comes.
pub(super) fn run(args: ServeArgs) -> Exit {
    // Before there are threads.
    let kept = service_manager::kept_sockets();
    if let Err(error) = log::start(&args.log, args.log_format) {
        complain(&error);
        return Exit::Misused;
    }
    let settings = match args.settings() {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return Exit::Misused;
        }
    };
    // A listener that others can reach, or an address that stands there twice: the same for the file and for options.
    if let Err(error) = config::check_exposure(&settings) {
        complain(&error);
        return Exit::Misused;
    }
    if let Some(address) = config::first_duplicate(&settings.listen) {
        complain(&format!("{address} is to be listened on twice"));
        return Exit::Misused;
    }
    match serve(&settings, &args, kept) {
        Ok(exit) => exit,
        Err(error) => {
            complain(&error);
            Exit::NotStarted
        }
    }
}

fn serve(settings: &Settings, args: &ServeArgs, kept: Vec<KeptSocket>) -> Result<Exit, StartError> {
    // Before anything that takes time, so that a signal during recovery is not the abrupt end.
    let mut signals = Signals::catch().map_err(StartError::Threads)?;
    let (mut running, _sandbox) = begin(settings, args, kept)?;
    let shards = running.engine_counters().len();
    loop {
        signals.forward(running.stopper(), running.reloader()).map_err(StartError::Threads)?;
        let addresses: Vec<_> = running.addresses().iter().copied().map(|it| it.to_string()).collect();
        tell(format_args!("ready: listening on {}\n", addresses.join(" ")));
        service_manager::tell_ready(running.listening_sockets());
        match running.wait() {
            Ok(Ended::Stopped) => {
                tracing::info!("stopped");
                return Ok(Exit::Done);
            }
            Ok(Ended::HandedOver) => return Ok(Exit::Done),
            Ok(Ended::TakenBack(inherited)) => match go_on(settings, shards, inherited) {
                Ok(again) => running = again,
                Err(error) => {
                    complain(&error);
                    // Not what a start that fails says: the service manager is to start us again.
                    return Ok(Exit::Failed);
                }
            },
            Err(failure) => {
                complain(&failure);
                return Ok(Exit::Failed);
            }
        }
    }
}

/// Goes on after another process could not take over: with as many shards as before, because connections and sockets are dealt out
/// among them, and within the sandbox the number of processors may be told differently.
fn go_on(settings: &Settings, shards: usize, inherited: Inherited) -> Result<Running, StartError> {
    let settings = Settings { shards: Some(shards), ..settings.clone() };
    Prepared::new(settings, inherited.sockets)?.open_files(inherited.given_up, TAKE_BACK_SPAN)?.start()
}

/// Starts the node: with what a server has that uses the data directory, or with what the service manager has kept, or anew.
/// Whichever it is, nothing has been read from the network when the process enters the sandbox.
fn begin(
    settings: &Settings,
    args: &ServeArgs,
    kept: Vec<KeptSocket>,
) -> Result<(Running, Sandbox), StartError> {
    let found =
        if args.no_take_over { None } else { Predecessor::ask(&settings.data_dir, shards_of(settings))? };
    let Some((mut predecessor, sockets)) = found else {
        let sockets =
            kept.into_iter().filter_map(|it| it.listening(&settings.listen, shards_of(settings))).collect();
        let node = Node::go_on(settings.clone(), Inherited { sockets, ..Inherited::default() })?;
        let sandbox = Sandbox::enter(settings)?;
        show(&node, settings, &sandbox, args.log_format);
        return Ok((node.start()?, sandbox));
    };
    tell(format_args!("taking over from pid {}\n", predecessor.pid()));
    let prepared = Prepared::new(settings.clone(), sockets)?;
    prepared.look_at_files()?;
    // While the other still serves: one that is required and cannot be had costs nobody anything so.
    let sandbox = Sandbox::enter(settings)?;
    let given_up = predecessor.release()?;
    let node = prepared.open_files(given_up, RELEASE_SPAN)?;
    show(&node, settings, &sandbox, args.log_format);
    Ok((node.start_if(|| predecessor.succeed())?, sandbox))
}

fn show(node: &Node, settings: &Settings, sandbox: &Sandbox, format: LogFormat) {
    let banner = Banner { node, settings, sandbox };
    match format {
        LogFormat::Human => tell(&banner),
        LogFormat::Json => banner.log(),
    }
    banner.warn();
}

/// How long the files of a predecessor may be locked when it has closed them: until its process has ended, if it died.
const RELEASE_SPAN: Duration = Duration::from_secs(5);

/// How long a process that was to take over may keep the files when it failed: until it has noticed and ended.
const TAKE_BACK_SPAN: Duration = Duration::from_secs(60);

impl ServeArgs {
    /// The defaults, overridden by the file, overridden by the options.
    fn settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = settings_of(self.config.as_deref(), self.data_dir.clone())?;
        if !self.listen.is_empty() {
            settings.listen.clone_from(&self.listen);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            settings.tls.identities =
                vec![IdentityFiles { certificate: certificate.clone(), key: key.clone() }];
        }
        if let Some(shards) = self.shards {
            settings.shards = Some(usize::from(shards));
        }
        if !self.domains.is_empty() {
            settings.domains.clone_from(&self.domains);
        }
        match self.auth {
            Some(AuthArg::None) => settings.auth = Auth::None,
            Some(AuthArg::Digest) => settings.auth = Auth::Digest,
            None => {}
        }
        if self.no_sandbox {
            settings.sandbox = SandboxMode::Off;
        }
        Ok(settings)
    }
}

/// SIGINT and SIGTERM: the first stops the node, a second ends the process at once. SIGHUP: certificates are read again.
struct Signals {
    /// What they are for now; a stop that came when there was nothing is not forgotten.
    target: Arc<Mutex<Target>>,
    /// Where they come from, until somebody listens there.
    pipes: Option<(UnixStream, UnixStream)>,
}

#[derive(Default)]
struct Target {
    stop_asked: bool,
    node: Option<(Stopper, Reloader)>,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        let (stops, writer) = UnixStream::pair()?;
        let second = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Actions run in this order: the first signal passes the first action by and arms it.
            flag::register_conditional_shutdown(signal, FORCED_EXIT, Arc::clone(&second))?;
            flag::register(signal, Arc::clone(&second))?;
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        let (reloads, writer) = UnixStream::pair()?;
        low_level::pipe::register(SIGHUP, writer)?;
        Ok(Self { target: Arc::default(), pipes: Some((stops, reloads)) })
    }

    /// From now on signals, also those that have come already, reach this node and no other.
    fn forward(&mut self, stopper: Stopper, reloader: Reloader) -> std::io::Result<()> {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if target.stop_asked {
            stopper.stop();
        }
        target.node = Some((stopper, reloader));
        drop(target);
        let Some((mut stops, mut reloads)) = self.pipes.take() else { return Ok(()) };
        let target = Arc::clone(&self.target);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if stops.read_exact(&mut [0; 1]).is_ok() {
                tracing::info!("stopping; a second signal ends the process at once");
                service_manager::tell_stopping();
                let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
                target.stop_asked = true;
                if let Some((stopper, _)) = &target.node {
                    stopper.stop();
                }
            }
        })?;
        let target = Arc::clone(&self.target);
        std::thread::Builder::new().name("reloads".to_owned()).spawn(move || {
            while reloads.read_exact(&mut [0; 1]).is_ok() {
                if let Some((_, reloader)) = &target.lock().unwrap_or_else(PoisonError::into_inner).node {
                    reloader.reload();
                }
            }
        })?;
        Ok(())
    }
}
