//! `comsipl user`: who may register.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use comsipl_core::{Aor, HashKey};
use comsipl_fdb::schema::AnyRecord;
use comsipl_fdb::{Fdb, FileKind, OpenError, OpenFault, inspect};
use serde_json::json;

use super::{Exit, complain, settings_of};
use crate::config;
use crate::settings::Settings;
use crate::users::{
    AUTH_NAME_LEN_MAX, Outcome, Put, UserChange, UserSecrets, auth_name_of, is_auth_name, realm_mark,
};

mod import;
mod password;
mod store;

use password::PasswordArgs;
use store::Store;

/// Options of `comsipl user`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
    /// Configuration file of the server: where its files are, and its realm.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Directory of the server's files. [default: ./comsipl-data]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user. Without an option the password is asked for, or read from standard input.
    Add {
        /// The user's address, for example alice@example.net.
        #[arg(value_name = "USER", value_parser = user_value)]
        user: Aor,
        #[command(flatten)]
        auth_name: AuthNameArgs,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Give a user another password.
    Passwd {
        /// The user's address.
        #[arg(value_name = "USER", value_parser = user_value)]
        user: Aor,
        #[command(flatten)]
        auth_name: AuthNameArgs,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Remove users. What their phones have registered runs out by itself.
    Remove {
        /// The users' addresses.
        #[arg(value_name = "USER", value_parser = user_value, required = true)]
        users: Vec<Aor>,
    },
    /// List all users.
    List {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Add or change all users of a CSV file, whose first line says which columns there are: `user`, and `password` or
    /// `ha1_md5` and `ha1_sha256`. A file with a mistake changes nothing.
    Import {
        /// The file.
        #[arg(value_name = "FILE.csv")]
        file: PathBuf,
    },
}

/// Options that name what a phone sends as user name.
#[derive(Debug, Args)]
struct AuthNameArgs {
    /// The user name that the phone proves itself by, if that is neither the part before the @ nor the whole address; phones call
    /// it authentication name or user ID. `passwd` keeps what was given before.
    #[arg(long, value_name = "NAME", value_parser = auth_name_value)]
    auth_name: Option<String>,
}

fn auth_name_value(text: &str) -> Result<String, String> {
    if is_auth_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name of 1 to {AUTH_NAME_LEN_MAX} bytes without quotes, backslashes and control characters is expected"
        ))
    }
}

fn user_value(text: &str) -> Result<Aor, String> {
    config::parse_user(text)
        .ok_or_else(|| "the address of a user is expected, as alice@example.net".to_owned())
}

/// Why a command did not do what it should.
enum Failure {
    /// The command line, the configuration or an input file is wrong.
    Misused(String),
    /// It could not be done.
    Failed(String),
    /// Somebody ended it while a question was asked.
    Interrupted,
}

/// Does what the command says.
pub(super) fn run(args: UserArgs) -> Exit {
    let settings = match settings_of(args.config.as_deref(), args.data_dir) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return Exit::Misused;
        }
    };
    let result = match args.command {
        UserCommand::Add { user, auth_name, password } => {
            put(&settings, Put::New, &user, auth_name.auth_name, &password)
        }
        UserCommand::Passwd { user, auth_name, password } => {
            let auth_name = match auth_name.auth_name {
                Some(name) => Ok(Some(name)),
                None => stored_auth_name(&settings, &user),
            };
            auth_name.and_then(|auth_name| put(&settings, Put::Known, &user, auth_name, &password))
        }
        UserCommand::Remove { users } => remove(&settings, &users),
        UserCommand::List { json } => list(&settings, json),
        UserCommand::Import { file } => import::run(&settings, &file),
    };
    match result {
        Ok(()) => Exit::Done,
        Err(Failure::Misused(why)) => {
            complain(&why);
            Exit::Misused
        }
        Err(Failure::Failed(why)) => {
            complain(&why);
            Exit::Failed
        }
        Err(Failure::Interrupted) => Exit::Interrupted,
    }
}

/// The name for authentication that a user has; where it cannot be read, the user must not be given a password without it.
fn stored_auth_name(settings: &Settings, user: &Aor) -> Result<Option<String>, Failure> {
    let path = settings.data_dir.join(FileKind::Registered.file_name());
    let file = match Fdb::open_reader(&path) {
        Ok(file) => file,
        Err(OpenError { fault: OpenFault::Io { source, .. }, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Failure::Failed(error.to_string())),
    };
    let mut found = None;
    inspect::for_each_record(&file, |_, record| {
        if let AnyRecord::User(stored) = record
            && stored.aor == user.as_bytes()
        {
            found = auth_name_of(&stored).map(|name| String::from_utf8_lossy(name).into_owned());
        }
    });
    Ok(found)
}

fn put(
    settings: &Settings,
    put: Put,
    user: &Aor,
    auth_name: Option<String>,
    password: &PasswordArgs,
) -> Result<(), Failure> {
    // Before anything is opened: whoever types takes his time.
    let password = password.read(user.as_str())?;
    let mut store = Store::open(settings)?;
    let realm = store.realm()?.unwrap_or_else(|| user.host().to_owned());
    let secrets = match auth_name {
        Some(name) => UserSecrets::of_name(user, &realm, &name, password.as_bytes()),
        None => UserSecrets::of_password(user, &realm, password.as_bytes()),
    };
    let outcomes = store.change(vec![UserChange::Put(put, secrets)])?;
    store.close()?;
    match outcomes.first() {
        Some(Outcome::Added) => say(&format!("{user} is added")),
        Some(Outcome::Changed) => say(&format!("{user} has another password")),
        Some(Outcome::Exists) => Err(Failure::Failed(format!(
            "{user} exists\n  help: `comsipl user passwd {user}` gives a user another password"
        ))),
        Some(Outcome::Unknown) => Err(Failure::Failed(format!(
            "{user} does not exist\n  help: `comsipl user add {user}` adds a user"
        ))),
        other => Err(undone(user.as_str(), other.copied())),
    }
}

fn remove(settings: &Settings, users: &[Aor]) -> Result<(), Failure> {
    let mut store = Store::open(settings)?;
    let outcomes =
        store.change(users.iter().map(|user| UserChange::Remove(user.as_str().into())).collect())?;
    store.close()?;
    let of = |wanted: Outcome| {
        let with = users.iter().zip(&outcomes).filter(move |(_, outcome)| **outcome == wanted);
        with.map(|(user, _)| user.as_str()).collect::<Vec<_>>()
    };
    let (removed, unknown) = (of(Outcome::Removed), of(Outcome::Unknown));
    if !removed.is_empty() {
        say(&format!("removed: {}", removed.join(" ")))?;
    }
    let is_undone = |outcome: &Outcome| matches!(outcome, Outcome::Busy | Outcome::Unanswered);
    if let Some((user, outcome)) = users.iter().zip(&outcomes).find(|(_, outcome)| is_undone(outcome)) {
        return Err(undone(user.as_str(), Some(*outcome)));
    }
    if unknown.is_empty() {
        Ok(())
    } else {
        let unknown = unknown.join(" ");
        Err(Failure::Failed(format!(
            "no such user: {unknown}\n  help: `comsipl user list` shows those there are"
        )))
    }
}

/// A user as it is listed.
struct Listed {
    aor: String,
    auth_name: Option<String>,
    algorithms: Vec<&'static str>,
    /// Whether the secrets are for the realm in force.
    realm_ok: bool,
}

fn list(settings: &Settings, json: bool) -> Result<(), Failure> {
    let path = settings.data_dir.join(FileKind::Registered.file_name());
    // Reading disturbs no server and needs none.
    let file = Fdb::open_reader(&path).map_err(|error| Failure::Failed(error.to_string()))?;
    let realm = store::realm_in_force(settings);
    let keys = HashKey(file.hash_key());
    let mut users = Vec::new();
    inspect::for_each_record(&file, |_, record| {
        if let AnyRecord::User(user) = record {
            let aor = String::from_utf8_lossy(user.aor).into_owned();
            let host = aor.rsplit_once('@').map_or("", |(_, host)| host);
            let mark = realm_mark(&keys, realm.as_deref().unwrap_or(host).as_bytes());
            let algorithms = [("SHA-256", user.ha1_sha256), ("MD5", user.ha1_md5)];
            let algorithms = algorithms.into_iter().filter(|(_, it)| !it.is_empty()).map(|(name, _)| name);
            let algorithms = algorithms.collect();
            let auth_name = auth_name_of(&user).map(|name| String::from_utf8_lossy(name).into_owned());
            users.push(Listed { aor, auth_name, algorithms, realm_ok: user.flags as u32 == mark });
        }
    });
    users.sort_by(|a, b| a.aor.cmp(&b.aor));
    let mut out = BufWriter::new(io::stdout().lock());
    match print_list(&users, json, &mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn print_list(users: &[Listed], json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        for user in users {
            let line = json!({ "user": user.aor, "auth_name": user.auth_name, "algorithms": user.algorithms, "realm_ok": user.realm_ok });
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    if !users.is_empty() {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["user", "auth name", "algorithms", "note"]);
        for user in users {
            let note = if user.realm_ok { "" } else { "for another realm: needs a new password" };
            table.add_row([
                user.aor.as_str(),
                user.auth_name.as_deref().unwrap_or_default(),
                &user.algorithms.join(" "),
                note,
            ]);
        }
        writeln!(out, "{table}")?;
    }
    writeln!(out, "{} users", users.len())
}

/// Says on standard output what was done; to a closed pipe there is nothing to say.
fn say(text: &str) -> Result<(), Failure> {
    let _ = writeln!(io::stdout(), "{text}");
    Ok(())
}

/// Why a user was not changed who should have been.
fn undone(user: &str, outcome: Option<Outcome>) -> Failure {
    Failure::Failed(match outcome {
        Some(Outcome::Busy) => format!("{user}: the server is too busy\n  help: try again"),
        Some(Outcome::Unanswered) => format!(
            "{user}: the server stops or is stuck, and may have made the change or not\n  help: look into its log, and try \
             again"
        ),
        _ => format!(
            "{user}: there is no room\n  help: check the disk and its free space, and registered_records_max under [storage]"
        ),
    })
}

const EXAMPLES: &str = "\
The commands work while a server uses the files, through control.sock in its data directory, and without one.
Only hashes of passwords are stored.

Examples:
  comsipl user add alice@example.net                       asks for the password
  echo secret | comsipl user add alice@example.net         reads it
  comsipl user passwd alice@example.net --password-file f
  comsipl user remove alice@example.net bob@example.net
  comsipl user list --json
  comsipl user import users.csv --config /etc/comsipl.toml

A file to import:
  user,password
  alice@example.net,correct horse
  bob@example.net,\"battery, staple\"
A further column auth_name has the user names of phones that send neither the part before the @ nor the whole address.

Exit codes: 0 done, 1 failed, 2 wrong command line, configuration or file to import, 130 interrupted.";
