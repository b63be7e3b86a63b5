//! Where users are changed: in a running server, or in its files.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::PathBuf;

use comsipl_core::HashKey;
use comsipl_fdb::{Fdb, FileKind, OpenFault, Opened};

use super::Failure;
use crate::control::{
    Answer, Client, ConnectError, Request, SOCKET_NAME, TalkError, USERS_PER_REQUEST_MAX, UserLine,
};
use crate::node::{StartError, open_registered};
use crate::settings::Settings;
use crate::users::{Outcome, Put, UserChange, apply};

/// A running server, or its files.
pub(super) enum Store {
    /// The server that runs.
    Server(Client),
    /// The file, while no server runs.
    File { opened: Opened, keys: HashKey, realm: Option<String> },
}

/// Whose the file is to be that is made where there is none, or that root has left there: the owner of the directory, who runs the
/// server. Root alone could make it somebody else's.
struct Ownership {
    path: PathBuf,
    /// Whether there was no file.
    is_new: bool,
    /// The directory's owner and group, if we are root, it is another's, and there is no file yet or one of root's.
    owner: Option<(u32, u32)>,
}

impl Ownership {
    fn before(settings: &Settings) -> Self {
        let path = settings.data_dir.join(FileKind::Registered.file_name());
        let found = std::fs::symlink_metadata(&path).ok();
        let is_roots = found.as_ref().is_none_or(is_of_root_alone);
        let owner = std::fs::metadata(&settings.data_dir).ok().map(|dir| (dir.uid(), dir.gid()));
        let is_anothers = |owner: &(u32, u32)| owner.0 != 0 && rustix::process::geteuid().is_root();
        Self { is_new: found.is_none(), owner: owner.filter(|owner| is_roots && is_anothers(owner)), path }
    }

    /// Gives the file to the owner of the directory, or takes a new one away again.
    fn keep(self) -> Result<(), Failure> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        let give = || {
            // The directory's owner could put a link to another's file there meanwhile; only what root has made is given away.
            let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(&self.path)?;
            if !is_of_root_alone(&file.metadata()?) {
                return Err(io::Error::other("it is not the file that was just opened"));
            }
            fchown(&file, Some(user), Some(group))
        };
        give().map_err(|error| {
            if self.is_new {
                let _ = std::fs::remove_file(&self.path);
            }
            Failure::Failed(format!(
                "{} cannot be given to the owner of its directory, who runs the server: {error}\n  help: run this as \
                 that user",
                self.path.display()
            ))
        })
    }
}

/// Whether it is a file of root's that has no other name.
fn is_of_root_alone(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1 && found.uid() == 0
}

/// The realm of all users, as the running server says, or else the configuration.
pub(super) fn realm_in_force(settings: &Settings) -> Option<String> {
    let server = Client::connect(&settings.data_dir.join(SOCKET_NAME)).ok();
    match server.map(|mut server| server.ask(&Request::Realm)) {
        Some(Ok(Answer::Realm { realm })) => realm,
        _ => settings.access.realm.clone(),
    }
}

impl Store {
    /// Connects to the server, or opens the file if there is none.
    pub(super) fn open(settings: &Settings) -> Result<Self, Failure> {
        let socket = settings.data_dir.join(SOCKET_NAME);
        match Client::connect(&socket) {
            Ok(server) => return Ok(Self::Server(server)),
            Err(ConnectError::NoServer) => {}
            Err(error) => return Err(Failure::Failed(error.to_string())),
        }
        let ownership = Ownership::before(settings);
        match open_registered(settings) {
            Ok(opened) => {
                ownership.keep()?;
                let keys = HashKey(opened.file.hash_key());
                Ok(Self::File { opened, keys, realm: settings.access.realm.clone() })
            }
            Err(StartError::File(error)) if matches!(error.fault, OpenFault::Locked) => {
                Err(Failure::Failed(format!(
                    "{} is in use, but nobody answers at {}\n  help: the log of the server that uses it says why it has no \
                     control socket; restart that server, or stop it and try again",
                    error.path.display(),
                    socket.display()
                )))
            }
            Err(error) => {
                // What was made before the disk refused more must not stay in the way of the server. Other faults are those of a
                // file that was there, of which nobody knows whose it should be.
                if matches!(&error, StartError::File(error) if matches!(error.fault, OpenFault::Io { .. })) {
                    let _ = ownership.keep();
                }
                Err(Failure::Failed(error.to_string()))
            }
        }
    }

    /// The realm of all users; `None`: each user's own domain.
    pub(super) fn realm(&mut self) -> Result<Option<String>, Failure> {
        match self {
            Self::File { realm, .. } => Ok(realm.clone()),
            Self::Server(server) => match server.ask(&Request::Realm).map_err(told)? {
                Answer::Realm { realm } => Ok(realm),
                other => Err(strange(&other)),
            },
        }
    }

    /// Changes users, all in the same way; tells what came of each.
    pub(super) fn change(&mut self, changes: Vec<UserChange>) -> Result<Vec<Outcome>, Failure> {
        match self {
            Self::File { opened, keys, .. } => {
                let apply_one = |change: &UserChange| {
                    let partition = keys.aor(change.aor().as_bytes()).partition();
                    apply(&mut opened.partitions[usize::from(partition)], keys, change)
                };
                Ok(changes.iter().map(apply_one).collect())
            }
            Self::Server(server) => {
                let mut outcomes = Vec::with_capacity(changes.len());
                for some in changes.chunks(USERS_PER_REQUEST_MAX) {
                    match server.ask(&request(some)).map_err(told)? {
                        Answer::Outcomes { outcomes: these } if these.len() == some.len() => {
                            outcomes.extend(these);
                        }
                        other => return Err(strange(&other)),
                    }
                }
                Ok(outcomes)
            }
        }
    }

    /// Brings what was changed to the disk; a server does that by itself.
    pub(super) fn close(self) -> Result<(), Failure> {
        match self {
            Self::Server(_) => Ok(()),
            Self::File { opened, .. } => close(&opened.file),
        }
    }
}

/// What `open` is told not to follow a link.
const O_NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

fn close(file: &Fdb) -> Result<(), Failure> {
    file.close().map_err(|error| {
        Failure::Failed(format!(
            "the file could not be brought to disk: {error}\n  help: check the disk and its free space"
        ))
    })
}

/// Changes as they are asked for; they are all of one kind.
fn request(changes: &[UserChange]) -> Request {
    let how = changes.iter().find_map(|change| match change {
        UserChange::Put(put, _) => Some(*put),
        UserChange::Remove(_) => None,
    });
    match how {
        None => {
            Request::RemoveUsers { users: changes.iter().map(|change| change.aor().to_owned()).collect() }
        }
        Some(put) => {
            Request::PutUsers { put, users: changes.iter().filter_map(|it| line(it, put)).collect() }
        }
    }
}

fn line(change: &UserChange, wanted: Put) -> Option<UserLine> {
    match change {
        UserChange::Put(put, secrets) => {
            debug_assert_eq!(*put, wanted, "all in the same way");
            Some(UserLine::of(secrets))
        }
        UserChange::Remove(_) => None,
    }
}

fn told(error: TalkError) -> Failure {
    Failure::Failed(error.to_string())
}

fn strange(answer: &Answer) -> Failure {
    told(TalkError::Strange(format!("{answer:?}").chars().take(200).collect()))
}
