//! `comsipl user import`: many users from a CSV file.

use std::collections::HashMap;
use std::fmt;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Instant;

use comsipl_core::auth::Hash;
use csv::StringRecord;
use indicatif::{ProgressBar, ProgressStyle};

use super::store::Store;
use super::{Failure, password, say, undone};
use crate::config::parse_user;
use crate::control::USERS_PER_REQUEST_MAX;
use crate::settings::Settings;
use crate::users::{Outcome, Put, UserChange, UserSecrets, is_auth_name};

/// Imports a file.
pub(super) fn run(settings: &Settings, path: &Path) -> Result<(), Failure> {
    let file = std::fs::File::open(path).map_err(|error| {
        Failure::Misused(format!(
            "cannot read {}: {error}\n  help: `comsipl user --help` shows a file to import",
            path.display()
        ))
    })?;
    let begin = Instant::now();
    let mut store = Store::open(settings)?;
    let realm = store.realm()?;
    let users = read(file, realm.as_deref())
        .map_err(|mistakes| Failure::Misused(Shown { path, mistakes: &mistakes }.to_string()))?;
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} users, {eta} left");
        ProgressBar::new(users.len() as u64)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    } else {
        ProgressBar::hidden()
    };
    let (mut added, mut changed) = (0_usize, 0_usize);
    let mut rest = users;
    while !rest.is_empty() {
        let later = rest.split_off(rest.len().min(USERS_PER_REQUEST_MAX));
        let count = rest.len() as u64;
        let names: Vec<Box<str>> = rest.iter().map(|secrets| secrets.aor.clone()).collect();
        let changes = rest.into_iter().map(|secrets| UserChange::Put(Put::Any, secrets)).collect();
        let told = |added: usize, changed: usize| {
            say(&format!("{added} users were added and {changed} changed before this went wrong:"))
        };
        let outcomes = match store.change(changes) {
            Ok(outcomes) => outcomes,
            Err(failure) => {
                bar.abandon();
                told(added, changed)?;
                return Err(failure);
            }
        };
        added += outcomes.iter().filter(|outcome| **outcome == Outcome::Added).count();
        changed += outcomes.iter().filter(|outcome| **outcome == Outcome::Changed).count();
        let is_done = |outcome: &Outcome| matches!(outcome, Outcome::Added | Outcome::Changed);
        if let Some((user, outcome)) = names.iter().zip(&outcomes).find(|(_, outcome)| !is_done(outcome)) {
            bar.abandon();
            store.close()?;
            told(added, changed)?;
            return Err(undone(user, Some(*outcome)));
        }
        bar.inc(count);
        rest = later;
    }
    bar.finish_and_clear();
    store.close()?;
    say(&format!("{added} users added, {changed} changed, in {:.1} s", begin.elapsed().as_secs_f64()))
}

/// What is wrong with a line of the file.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    line: u64,
    what: String,
    help: &'static str,
}

/// The mistakes of a file, as they are shown.
struct Shown<'a> {
    path: &'a Path,
    mistakes: &'a [Mistake],
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Mistake { line, what, help }) in self.mistakes.iter().take(SHOWN_MAX).enumerate() {
            let start = if n == 0 { "" } else { "\nerror: " };
            write!(f, "{start}{}:{line}: {what}\n  help: {help}", self.path.display())?;
        }
        if self.mistakes.len() > SHOWN_MAX {
            write!(f, "\n… and {} mistakes more", self.mistakes.len() - SHOWN_MAX)?;
        }
        f.write_str("\nnothing is changed")
    }
}

/// Which column holds what.
struct Columns {
    user: usize,
    password: Option<usize>,
    ha1_md5: Option<usize>,
    ha1_sha256: Option<usize>,
    auth_name: Option<usize>,
}

/// Reads all users of a file, or finds all mistakes in it.
fn read(file: impl Read, realm: Option<&str>) -> Result<Vec<UserSecrets>, Vec<Mistake>> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let columns = reader.headers().map_err(|error| vec![unreadable(&error)]).and_then(|headers| {
        Columns::of(headers).map_err(|what| vec![Mistake { line: 1, what, help: HEADER_HELP }])
    })?;
    let (mut users, mut mistakes) = (Vec::new(), Vec::new());
    let mut lines: HashMap<Box<str>, u64> = HashMap::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                mistakes.push(unreadable(&error));
                break;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        match columns.secrets(&record, realm) {
            Ok(secrets) => match lines.insert(secrets.aor.clone(), line) {
                None => users.push(secrets),
                Some(before) => mistakes.push(Mistake {
                    line,
                    what: format!("{} stands in line {before} already", secrets.aor),
                    help: "keep one of the two lines",
                }),
            },
            Err((what, help)) => mistakes.push(Mistake { line, what, help }),
        }
    }
    if mistakes.is_empty() { Ok(users) } else { Err(mistakes) }
}

impl Columns {
    fn of(headers: &StringRecord) -> Result<Self, String> {
        let mut columns = [None; NAMES.len()];
        for (at, header) in headers.iter().enumerate() {
            let Some(name) = NAMES.iter().position(|name| header.trim().eq_ignore_ascii_case(name)) else {
                return Err(format!("a column {} is expected, found \"{header}\"", NAMES.join(", ")));
            };
            if columns[name].replace(at).is_some() {
                return Err(format!("the column {} is expected once, found twice", NAMES[name]));
            }
        }
        let [user, password, ha1_md5, ha1_sha256, auth_name] = columns;
        let user = user.ok_or("a column user is expected, found none")?;
        if password.is_some() == (ha1_md5.is_some() || ha1_sha256.is_some()) {
            return Err("a column password is expected, or ha1_md5 and ha1_sha256 or one of them".to_owned());
        }
        Ok(Self { user, password, ha1_md5, ha1_sha256, auth_name })
    }

    fn secrets(
        &self,
        record: &StringRecord,
        realm: Option<&str>,
    ) -> Result<UserSecrets, (String, &'static str)> {
        let columns = [Some(self.user), self.password, self.ha1_md5, self.ha1_sha256, self.auth_name];
        let count = columns.iter().flatten().count();
        if record.len() != count {
            let help = "put a text with commas into double quotes";
            return Err((format!("{count} columns are expected, found {}", record.len()), help));
        }
        let text = |column: Option<usize>| column.and_then(|at| record.get(at));
        let user = text(Some(self.user)).unwrap_or_default().trim();
        let aor = parse_user(user).ok_or_else(|| {
            (
                format!("the address of a user is expected, found \"{user}\""),
                "write for example alice@example.net",
            )
        })?;
        let realm = realm.unwrap_or(aor.host());
        let auth_name = text(self.auth_name).filter(|name| !name.is_empty());
        if auth_name.is_some_and(|name| !is_auth_name(name)) {
            return Err((
                "a name that a phone could send is expected in auth_name, found another".to_owned(),
                "write a name without quotes, backslashes and control characters, or none",
            ));
        }
        if let Some(password) = text(self.password) {
            password::check(password)
                .map_err(|why| (why.to_owned(), "write a password behind the address"))?;
            return Ok(match auth_name {
                Some(name) => UserSecrets::of_name(&aor, realm, name, password.as_bytes()),
                None => UserSecrets::of_password(&aor, realm, password.as_bytes()),
            });
        }
        let hash = |column, len: usize, help| match text(column).map(str::trim) {
            None | Some("") => Ok(None),
            Some(digits) => match Hash::of_hex(digits.as_bytes()).filter(|it| it.as_bytes().len() == len) {
                Some(hash) => Ok(Some(hash)),
                // What is wrong may be a password in the wrong column, so it is not shown.
                None => {
                    Err((format!("{} hexadecimal digits are expected, found something else", 2 * len), help))
                }
            },
        };
        let secrets = UserSecrets {
            aor: aor.as_str().into(),
            realm: realm.into(),
            auth_name: auth_name.map(Into::into),
            address_md5: None,
            address_sha256: None,
            md5: hash(self.ha1_md5, 16, "ha1_md5 is MD5(user:realm:password)")?,
            sha256: hash(self.ha1_sha256, 32, "ha1_sha256 is SHA-256(user:realm:password)")?,
        };
        if secrets.md5.is_none() && secrets.sha256.is_none() {
            return Err(("a hash is expected, found none".to_owned(), "write ha1_md5, ha1_sha256 or both"));
        }
        Ok(secrets)
    }
}

fn unreadable(error: &csv::Error) -> Mistake {
    let line = error.position().map_or(1, csv::Position::line);
    Mistake { line, what: format!("a line of CSV in UTF-8 is expected: {error}"), help: HEADER_HELP }
}

/// The columns that there may be.
const NAMES: [&str; 5] = ["user", "password", "ha1_md5", "ha1_sha256", "auth_name"];
const HEADER_HELP: &str =
    "the first line is `user,password` or `user,ha1_md5,ha1_sha256`; `comsipl user --help` shows a file";
/// Most mistakes that are shown one by one.
const SHOWN_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use comsipl_core::auth::Algorithm;

    use super::*;

    fn mistakes(text: &str) -> Vec<(u64, String)> {
        let mistakes = read(text.as_bytes(), None).expect_err(text);
        mistakes.into_iter().map(|mistake| (mistake.line, mistake.what)).collect()
    }

    #[test]
    fn passwords_become_hashes_for_the_realm() {
        let text = "Password,user\r\n\"battery, staple\",sip:bob@Example.net\r\n x ,alice@h\r\n";
        let users = read(text.as_bytes(), None).unwrap();
        assert_eq!(&*users[0].aor, "bob@example.net");
        let wanted = Algorithm::Md5.secret(b"bob", b"example.net", b"battery, staple");
        assert!(users[0].md5.unwrap().matches(&wanted));
        let wanted = Algorithm::Sha256.secret(b"alice", b"all", b" x ");
        let users = read(text.as_bytes(), Some("all")).unwrap();
        assert!(users[1].sha256.unwrap().matches(&wanted));
    }

    #[test]
    fn hashes_of_other_servers_are_taken_as_they_are() {
        let text = "user,ha1_md5\nalice@h,900150983cd24fb0d6963f7d28e17f72\n";
        let users = read(text.as_bytes(), None).unwrap();
        assert!(users[0].md5.unwrap().matches(&Algorithm::Md5.hash(&[b"abc"])));
        assert!(users[0].sha256.is_none());
    }

    #[test]
    fn a_phone_may_have_a_name_of_its_own_for_authentication() {
        let text = "user,auth_name,password\nalice@h,x-1,secret\nbob@h,,secret\n";
        let users = read(text.as_bytes(), None).unwrap();
        assert_eq!(users[0].auth_name.as_deref(), Some("x-1"));
        assert!(users[0].md5.unwrap().matches(&Algorithm::Md5.secret(b"x-1", b"h", b"secret")));
        assert_eq!(users[1].auth_name, None);
        assert!(users[1].address_md5.unwrap().matches(&Algorithm::Md5.secret(b"bob@h", b"h", b"secret")));
        assert_eq!(mistakes("user,auth_name,password\nalice@h,a\\b,x\n")[0].0, 2);
    }

    #[test]
    fn every_mistake_is_found_with_its_line() {
        assert_eq!(mistakes("user\n")[0].0, 1);
        assert!(mistakes("alice@h,secret\n")[0].1.contains("found \"alice@h\""));
        assert!(mistakes("user,password,password\n")[0].1.contains("twice"));
        assert!(mistakes("user,password,ha1_md5\n")[0].1.contains("a column password is expected, or"));
        assert!(mistakes("")[0].1.contains("column"));
        let found =
            mistakes("user,password\nalice,x\nbob@h,\nbob@h,x\n\"two\nlines@h\",x\nbob@h,y\ncarol@h,a,b\n");
        let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 5, 7, 8], "{found:?}");
        assert!(found[3].1.contains("line 4"), "{found:?}");
        let found = mistakes("user,ha1_md5,ha1_sha256\na@h,,\nb@h,secret,\n");
        assert!(found[0].1.contains("found none") && !found[1].1.contains("secret"));
    }

    #[test]
    fn mistakes_are_shown_like_those_of_a_compiler() {
        let mistakes: Vec<_> =
            (2..30).map(|line| Mistake { line, what: "wrong".to_owned(), help: "right" }).collect();
        let shown = Shown { path: Path::new("users.csv"), mistakes: &mistakes }.to_string();
        assert!(shown.starts_with("users.csv:2: wrong\n  help: right\nerror: users.csv:3:"), "{shown}");
        assert!(shown.ends_with("… and 8 mistakes more\nnothing is changed"), "{shown}");
    }
}
