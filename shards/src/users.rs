//! Users who may register: their records in `registered.fdb`.
//!
//! Only secrets are stored, H(A1) by each algorithm (RFC 7616 §3.4.2), never a password. They hold for one realm; the record
//! says for which by a hash, so that a server whose realm was changed can tell why nobody gets in.

use std::sync::mpsc::Sender;

use comsipl_core::auth::{Algorithm, Hash};
use comsipl_core::{AorKey, HashKey};
use comsipl_fdb::schema::{Schema, User};
use comsipl_fdb::{Fdb, Partition, RecordBuf};
use serde::{Deserialize, Serialize};

use crate::shard::Shard;

/// The secrets of a user.
#[derive(Clone, Debug)]
pub struct UserSecrets {
    /// The address-of-record in canonical form.
    pub aor: Box<str>,
    /// The realm that the secrets are made for.
    pub realm: Box<str>,
    /// H(A1) by MD5, unless the user has none.
    pub md5: Option<Hash>,
    /// H(A1) by SHA-256, unless the user has none.
    pub sha256: Option<Hash>,
}

impl UserSecrets {
    /// The secrets of a user with a password, as phones make them of the user part of their address.
    #[must_use]
    pub fn of_password(aor: &comsipl_core::Aor, realm: &str, password: &[u8]) -> Self {
        let username = username_of(aor);
        let secret = |algorithm: Algorithm| algorithm.secret(&username, realm.as_bytes(), password);
        Self {
            aor: aor.as_str().into(),
            realm: realm.into(),
            md5: Some(secret(Algorithm::Md5)),
            sha256: Some(secret(Algorithm::Sha256)),
        }
    }
}

/// What phones send as `username`: the user part of the address, its escapes resolved.
#[must_use]
pub fn username_of(aor: &comsipl_core::Aor) -> Vec<u8> {
    let mut rest = aor.user().unwrap_or_default().as_bytes();
    let mut username = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                username.push(byte);
                rest = &after[2..];
            }
            _ => {
                username.push(first);
                rest = after;
            }
        }
    }
    username
}

/// What is to happen where a user is or is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Put {
    /// The user must be new.
    New,
    /// The user must be there.
    Known,
    /// Either will do.
    Any,
}

/// A change of one user.
#[derive(Clone, Debug)]
pub enum UserChange {
    /// Stores secrets.
    Put(Put, UserSecrets),
    /// Removes the user with that canonical address-of-record. What is registered stays until it runs out.
    Remove(Box<str>),
}

impl UserChange {
    /// The canonical address-of-record of the user.
    #[must_use]
    pub fn aor(&self) -> &str {
        match self {
            Self::Put(_, secrets) => &secrets.aor,
            Self::Remove(aor) => aor,
        }
    }
}

/// What came of a [`UserChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The user is new.
    Added,
    /// The user was there and has other secrets now.
    Changed,
    /// The user was there and is no more.
    Removed,
    /// The user is there already; nothing has changed.
    Exists,
    /// There is no such user.
    Unknown,
    /// There is no room; nothing has changed.
    Full,
}

/// Changes of users for the shard that owns them.
#[derive(Debug)]
pub struct UserCommand {
    /// The changes, each with a number of the sender's.
    pub changes: Vec<(usize, UserChange)>,
    /// Where the outcomes go, each with the number of its change. Nobody need be there to take them.
    pub answer: Sender<(usize, Outcome)>,
}

impl Shard {
    /// Carries out what another thread wants.
    pub fn on_command(&mut self, command: crate::mailbox::Command) {
        match command {
            crate::mailbox::Command::Resolved(answer) => self.names.answers.push(answer),
            crate::mailbox::Command::Users(UserCommand { changes, answer }) => {
                for (number, change) in changes {
                    let partition = self.keys.aor(change.aor().as_bytes()).partition();
                    debug_assert!(self.files.owns(partition), "commands come to the owner");
                    if !self.files.owns(partition) {
                        continue;
                    }
                    let keys = self.keys;
                    let outcome = apply(self.files.registered_partition_mut(partition), &keys, &change);
                    if outcome == Outcome::Full {
                        tracing::error!("a user could not be stored: registered.fdb or its disk is full");
                    }
                    let _ = answer.send((number, outcome));
                }
            }
        }
    }
}

/// Makes a change in the partition that owns the user.
pub fn apply(partition: &mut Partition, keys: &HashKey, change: &UserChange) -> Outcome {
    let key = keys.aor(change.aor().as_bytes());
    debug_assert_eq!(partition.number(), key.partition(), "the partition of the user");
    let found = partition.find(key.0);
    match (change, found) {
        (UserChange::Remove(_), Some(slot)) => {
            partition.remove(slot);
            Outcome::Removed
        }
        (UserChange::Remove(_) | UserChange::Put(Put::Known, _), None) => Outcome::Unknown,
        (UserChange::Put(Put::New, _), Some(_)) => Outcome::Exists,
        (UserChange::Put(_, secrets), found) => {
            let user = User {
                aor_key: key.0,
                flags: u64::from(realm_mark(keys, secrets.realm.as_bytes())),
                aor: secrets.aor.as_bytes(),
                ha1_md5: secrets.md5.as_ref().map_or(&[], Hash::as_bytes),
                ha1_sha256: secrets.sha256.as_ref().map_or(&[], Hash::as_bytes),
            };
            let (stored, outcome) = match found {
                Some(slot) => (partition.replace(slot, &user), Outcome::Changed),
                None => (partition.put(&user).map(|_| ()), Outcome::Added),
            };
            stored.map_or(Outcome::Full, |()| outcome)
        }
    }
}

/// What is known of a user's secret.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// Here it is.
    Secret(Hash),
    /// There is no such user.
    NoUser,
    /// The user has none for this algorithm.
    NoSecret,
    /// The user has one for another realm.
    OtherRealm,
}

/// Looks a secret up, without a lock, from any thread.
pub fn secret_of(
    registered: &Fdb,
    keys: &HashKey,
    key: AorKey,
    realm: &[u8],
    algorithm: Algorithm,
    record: &mut RecordBuf,
) -> Known {
    if registered.read_by_key(key.partition(), key.0, record).is_err() {
        return Known::NoUser;
    }
    let Ok(user) = User::decode(&*record) else { return Known::NoUser };
    if user.flags as u32 != realm_mark(keys, realm) {
        return Known::OtherRealm;
    }
    let stored = match algorithm {
        Algorithm::Md5 => user.ha1_md5,
        Algorithm::Sha256 => user.ha1_sha256,
    };
    Hash::of_bytes(stored).map_or(Known::NoSecret, Known::Secret)
}

/// The mark of a realm in the flags of a user.
#[must_use]
pub fn realm_mark(keys: &HashKey, realm: &[u8]) -> u32 {
    keys.of(&[b"realm", realm]) as u32
}

#[cfg(test)]
mod tests {
    use comsipl_core::Aor;
    use comsipl_fdb::{FileKind, OpenOptions, Opened};

    use super::*;

    #[test]
    fn a_user_comes_changes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (mut opened, keys) = open(&folder);
        let alice = Aor::from_canonical("alice@example.com").unwrap();
        let put = |how, password: &str| {
            UserChange::Put(how, UserSecrets::of_password(&alice, "example.com", password.as_bytes()))
        };
        let remove = UserChange::Remove("alice@example.com".into());
        let key = keys.aor(alice.as_bytes());
        let mut record = RecordBuf::default();
        let mut secret = |realm: &str, algorithm| {
            let known = secret_of(&opened.file, &keys, key, realm.as_bytes(), algorithm, &mut record);
            (known, algorithm.secret(b"alice", b"example.com", b"two"))
        };
        let partition = &mut opened.partitions[usize::from(key.partition())];
        assert_eq!(apply(partition, &keys, &put(Put::Known, "one")), Outcome::Unknown);
        assert_eq!(apply(partition, &keys, &remove), Outcome::Unknown);
        assert_eq!(apply(partition, &keys, &put(Put::New, "one")), Outcome::Added);
        assert_eq!(apply(partition, &keys, &put(Put::New, "two")), Outcome::Exists);
        assert!(
            matches!(secret("example.com", Algorithm::Md5), (Known::Secret(it), two) if !it.matches(&two))
        );
        assert_eq!(apply(partition, &keys, &put(Put::Any, "two")), Outcome::Changed);
        for algorithm in Algorithm::ALL {
            assert!(matches!(secret("example.com", algorithm), (Known::Secret(it), two) if it.matches(&two)));
            assert!(matches!(secret("example.net", algorithm), (Known::OtherRealm, _)));
        }
        assert_eq!(apply(partition, &keys, &remove), Outcome::Removed);
        assert!(matches!(secret("example.com", Algorithm::Md5), (Known::NoUser, _)));
    }

    #[test]
    fn a_user_may_have_one_secret_only() {
        let folder = tempfile::tempdir().unwrap();
        let (mut opened, keys) = open(&folder);
        let aor = Aor::from_canonical("a%40b@h").unwrap();
        assert_eq!(username_of(&aor), b"a@b");
        let secrets = UserSecrets { sha256: None, ..UserSecrets::of_password(&aor, "h", b"x") };
        let key = keys.aor(aor.as_bytes());
        let partition = &mut opened.partitions[usize::from(key.partition())];
        apply(partition, &keys, &UserChange::Put(Put::Any, secrets));
        let mut record = RecordBuf::default();
        let mut known = |algorithm| secret_of(&opened.file, &keys, key, b"h", algorithm, &mut record);
        assert!(matches!(known(Algorithm::Sha256), Known::NoSecret));
        assert!(matches!(known(Algorithm::Md5), Known::Secret(_)));
    }

    fn open(folder: &tempfile::TempDir) -> (Opened, HashKey) {
        let options = OpenOptions { records_max: 512, threads: 1, hash_key: None };
        let path = folder.path().join("registered.fdb");
        let opened = Fdb::open(&path, FileKind::Registered, &options).unwrap();
        let keys = HashKey(opened.file.hash_key());
        (opened, keys)
    }
}
