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
    /// The `username` that the phone sends, if that is another than the user part of the address.
    pub auth_name: Option<Box<str>>,
    /// H(A1) by MD5, unless the user has none.
    pub md5: Option<Hash>,
    /// H(A1) by SHA-256, unless the user has none.
    pub sha256: Option<Hash>,
    /// The same for phones that send the whole address as `username`; H(A1) has the name in it.
    pub address_md5: Option<Hash>,
    /// The same by SHA-256.
    pub address_sha256: Option<Hash>,
}

/// Most bytes of a user's name for authentication.
pub const AUTH_NAME_LEN_MAX: usize = 128;

/// Whether a text may be a user's name for authentication: what fits a quoted string without escapes.
#[must_use]
pub fn is_auth_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\' | 0x7f);
    (1..=AUTH_NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

impl UserSecrets {
    /// The secrets of a user with a password, as phones make them of the user part of their address, or of all of it.
    #[must_use]
    pub fn of_password(aor: &comsipl_core::Aor, realm: &str, password: &[u8]) -> Self {
        let username = username_of(aor);
        let address = [&username, aor.host().as_bytes()].join(&b'@');
        let secret = |algorithm: Algorithm, name: &[u8]| algorithm.secret(name, realm.as_bytes(), password);
        Self {
            aor: aor.as_str().into(),
            realm: realm.into(),
            auth_name: None,
            md5: Some(secret(Algorithm::Md5, &username)),
            sha256: Some(secret(Algorithm::Sha256, &username)),
            address_md5: Some(secret(Algorithm::Md5, &address)),
            address_sha256: Some(secret(Algorithm::Sha256, &address)),
        }
    }

    /// The secrets of a user whose phone sends `auth_name` for authentication, whatever its address is.
    #[must_use]
    pub fn of_name(aor: &comsipl_core::Aor, realm: &str, auth_name: &str, password: &[u8]) -> Self {
        let secret =
            |algorithm: Algorithm| algorithm.secret(auth_name.as_bytes(), realm.as_bytes(), password);
        Self {
            aor: aor.as_str().into(),
            realm: realm.into(),
            auth_name: Some(auth_name.into()),
            md5: Some(secret(Algorithm::Md5)),
            sha256: Some(secret(Algorithm::Sha256)),
            address_md5: None,
            address_sha256: None,
        }
    }

    /// What is stored behind the hashes of the record: the name for authentication, or the hashes for the whole address, 16 bytes of
    /// MD5 and 32 of SHA-256; [`HAS_AUTH_NAME`] says which.
    fn more(&self) -> Vec<u8> {
        match &self.auth_name {
            Some(name) => name.as_bytes().to_vec(),
            None => {
                let hashes = [&self.address_md5, &self.address_sha256];
                hashes.iter().copied().flatten().flat_map(Hash::as_bytes).copied().collect()
            }
        }
    }
}

/// The name for authentication that a stored user has.
#[must_use]
pub fn auth_name_of<'a>(user: &User<'a>) -> Option<&'a [u8]> {
    (user.flags & HAS_AUTH_NAME != 0).then_some(user.more)
}

/// The hash for the whole address that a stored user has.
fn address_hash<'a>(user: &User<'a>, algorithm: Algorithm) -> &'a [u8] {
    if user.flags & HAS_AUTH_NAME != 0 {
        return &[];
    }
    match (user.more.len(), algorithm) {
        (MD5_LEN | BOTH_LEN, Algorithm::Md5) => &user.more[..MD5_LEN],
        (SHA256_LEN | BOTH_LEN, Algorithm::Sha256) => &user.more[user.more.len() - SHA256_LEN..],
        _ => &[],
    }
}

/// In the flags of a stored user, above the mark of the realm.
const HAS_AUTH_NAME: u64 = 1 << 32;
const MD5_LEN: usize = 16;
const SHA256_LEN: usize = 32;
const BOTH_LEN: usize = MD5_LEN + SHA256_LEN;

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
    /// The server is too busy; nothing has changed.
    Busy,
    /// The server stops, or is stuck; it may have changed or not.
    Unanswered,
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
            #[cfg(debug_assertions)]
            crate::mailbox::Command::Panic => panic!("somebody asked for it"),
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
            let named = if secrets.auth_name.is_some() { HAS_AUTH_NAME } else { 0 };
            let more = secrets.more();
            let user = User {
                aor_key: key.0,
                flags: u64::from(realm_mark(keys, secrets.realm.as_bytes())) | named,
                aor: secrets.aor.as_bytes(),
                ha1_md5: secrets.md5.as_ref().map_or(&[], Hash::as_bytes),
                ha1_sha256: secrets.sha256.as_ref().map_or(&[], Hash::as_bytes),
                more: &more,
            };
            let (stored, outcome) = match found {
                Some(slot) => (partition.replace(slot, &user), Outcome::Changed),
                None => (partition.put(&user).map(|_| ()), Outcome::Added),
            };
            stored.map_or(Outcome::Full, |()| outcome)
        }
    }
}

/// What a user calls himself in credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Username<'a> {
    /// The user part of the address.
    User,
    /// The whole address.
    Address,
    /// A name that may be that user's own.
    Own(&'a [u8]),
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
    username: Username<'_>,
    realm: &[u8],
    algorithm: Algorithm,
    record: &mut RecordBuf,
) -> Known {
    let Some(user) = read(registered, key, record) else { return Known::NoUser };
    let is_called_so = match (username, auth_name_of(&user)) {
        (Username::Own(name), Some(own)) => name == own,
        (Username::Own(_), None) => false,
        (Username::User | Username::Address, own) => own.is_none(),
    };
    if !is_called_so {
        return Known::NoUser;
    }
    if user.flags as u32 != realm_mark(keys, realm) {
        return Known::OtherRealm;
    }
    let stored = match (username, algorithm) {
        (Username::Address, algorithm) => address_hash(&user, algorithm),
        (_, Algorithm::Md5) => user.ha1_md5,
        (_, Algorithm::Sha256) => user.ha1_sha256,
    };
    Hash::of_bytes(stored).map_or(Known::NoSecret, Known::Secret)
}

/// The only algorithm by which a user can prove himself, if there is only one.
pub fn only_algorithm_of(registered: &Fdb, key: AorKey, record: &mut RecordBuf) -> Option<Algorithm> {
    let user = read(registered, key, record)?;
    match (user.ha1_md5.is_empty(), user.ha1_sha256.is_empty()) {
        (false, true) => Some(Algorithm::Md5),
        (true, false) => Some(Algorithm::Sha256),
        _ => None,
    }
}

fn read<'r>(registered: &Fdb, key: AorKey, record: &'r mut RecordBuf) -> Option<User<'r>> {
    registered.read_by_key(key.partition(), key.0, record).ok()?;
    User::decode(&*record).ok()
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
            let (file, user) = (&opened.file, Username::User);
            let known = secret_of(file, &keys, key, user, realm.as_bytes(), algorithm, &mut record);
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
        let (file, user) = (&opened.file, Username::User);
        let mut known = |algorithm| secret_of(file, &keys, key, user, b"h", algorithm, &mut record);
        assert!(matches!(known(Algorithm::Sha256), Known::NoSecret));
        assert!(matches!(known(Algorithm::Md5), Known::Secret(_)));
        assert_eq!(only_algorithm_of(&opened.file, key, &mut record), Some(Algorithm::Md5));
    }

    #[test]
    fn a_user_is_known_by_the_names_that_phones_send() {
        let folder = tempfile::tempdir().unwrap();
        let (mut opened, keys) = open(&folder);
        let aor = Aor::from_canonical("alice@example.com").unwrap();
        let key = keys.aor(aor.as_bytes());
        let put = |opened: &mut Opened, secrets| {
            let partition = &mut opened.partitions[usize::from(key.partition())];
            apply(partition, &keys, &UserChange::Put(Put::Any, secrets));
        };
        let known = |opened: &Opened, username, name: &str, algorithm: Algorithm| {
            let mut record = RecordBuf::default();
            let realm = b"example.com";
            match secret_of(&opened.file, &keys, key, username, realm, algorithm, &mut record) {
                Known::Secret(it) => it.matches(&algorithm.secret(name.as_bytes(), realm, b"x")),
                _ => false,
            }
        };
        let own = Username::Own(b"x-1234");
        put(&mut opened, UserSecrets::of_password(&aor, "example.com", b"x"));
        for algorithm in Algorithm::ALL {
            assert!(known(&opened, Username::User, "alice", algorithm));
            assert!(known(&opened, Username::Address, "alice@example.com", algorithm));
            assert!(!known(&opened, own, "x-1234", algorithm));
        }
        put(
            &mut opened,
            UserSecrets { address_md5: None, ..UserSecrets::of_password(&aor, "example.com", b"x") },
        );
        assert!(known(&opened, Username::Address, "alice@example.com", Algorithm::Sha256));
        assert!(!known(&opened, Username::Address, "alice@example.com", Algorithm::Md5));
        put(&mut opened, UserSecrets::of_name(&aor, "example.com", "x-1234", b"x"));
        for algorithm in Algorithm::ALL {
            assert!(known(&opened, own, "x-1234", algorithm));
            assert!(!known(&opened, Username::Own(b"x-123"), "x-1234", algorithm));
            assert!(!known(&opened, Username::User, "x-1234", algorithm));
            assert!(!known(&opened, Username::Address, "x-1234", algorithm));
        }
    }

    #[test]
    fn names_for_authentication_fit_a_quoted_string() {
        assert!(is_auth_name("x-1234") && is_auth_name("alice@other.example") && is_auth_name("Zoë W"));
        for text in ["", "a\"b", "a\\b", "a\r\nb", &"x".repeat(AUTH_NAME_LEN_MAX + 1)] {
            assert!(!is_auth_name(text), "{text:?}");
        }
    }

    fn open(folder: &tempfile::TempDir) -> (Opened, HashKey) {
        let options = OpenOptions { records_max: 512, threads: 1, hash_key: None };
        let path = folder.path().join("registered.fdb");
        let opened = Fdb::open(&path, FileKind::Registered, &options).unwrap();
        let keys = HashKey(opened.file.hash_key());
        (opened, keys)
    }
}
