//! What is said over the control socket.

use std::collections::BTreeMap;

use comsipl_core::Aor;
use comsipl_core::auth::Hash;
use serde::{Deserialize, Serialize};

use crate::users::{Outcome, Put, UserChange, UserSecrets, is_auth_name};

/// Longest line in either direction, in bytes, its end included; a longer one ends the connection.
pub const LINE_LEN_MAX: usize = 256 * 1024;

/// Most users in one request; beyond it the request is refused.
pub const USERS_PER_REQUEST_MAX: usize = 128;

/// What a tool asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Which realm secrets are to be made for.
    Realm,
    /// What the server does and has.
    Status,
    /// Store users.
    PutUsers {
        /// What is to happen where one is or is not there.
        put: Put,
        /// The users.
        users: Vec<UserLine>,
    },
    /// Remove users.
    RemoveUsers {
        /// Their canonical addresses-of-record.
        users: Vec<String>,
    },
    /// Go on in the server's place; what follows the answer is said in frames ([`crate::restart`]).
    TakeOver {
        /// The version of what is said.
        format: u32,
        /// How many shards the new server is to have.
        shards: usize,
    },
    /// Panic, as a bug would have a shard do. Only builds with debug assertions know this.
    #[cfg(debug_assertions)]
    Panic {
        /// The shard.
        shard: usize,
    },
}

/// What a server does and has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the server.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has served, in seconds.
    pub uptime_secs: u64,
    /// How many shards it has.
    pub shards: usize,
    /// The engine's counters, of all shards together ([`Counters`](crate::counters::Counters)).
    pub engine: BTreeMap<String, u64>,
    /// What happened at the sockets and on the bus ([`NetCounters`](crate::metrics::NetCounters)).
    pub net: BTreeMap<String, u64>,
    /// What the shards have found wrong in their own tables ([`Findings`](crate::audit::Findings)), as far as it is not zero.
    pub findings: BTreeMap<String, u64>,
}

/// A user and the secrets of that user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserLine {
    /// Canonical address-of-record.
    pub aor: String,
    /// The realm that the secrets are made for.
    pub realm: String,
    /// H(A1) by MD5, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ha1_md5: Option<String>,
    /// H(A1) by SHA-256, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ha1_sha256: Option<String>,
    /// The `username` that the phone sends, if it is another than the user part of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_name: Option<String>,
    /// H(A1) by MD5 with the whole address as name, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ha1_address_md5: Option<String>,
    /// The same by SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ha1_address_sha256: Option<String>,
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The realm of all users; `None`: each user's own domain.
    Realm {
        /// As configured.
        realm: Option<String>,
    },
    /// What the server does and has.
    Status(Status),
    /// What came of each user of the request, in order.
    Outcomes {
        /// The outcomes.
        outcomes: Vec<Outcome>,
    },
    /// The server offers what it has.
    TakeOver {
        /// Its process.
        pid: u32,
    },
    /// The request was not carried out, or not to its end.
    Refused {
        /// Why.
        why: String,
    },
}

impl UserLine {
    /// It as it is sent.
    #[must_use]
    pub fn of(secrets: &UserSecrets) -> Self {
        let hex = |hash: &Option<Hash>| {
            let mut text = [0; 2 * Hash::LEN_MAX];
            hash.map(|hash| String::from_utf8_lossy(hash.hex(&mut text)).into_owned())
        };
        Self {
            aor: secrets.aor.to_string(),
            realm: secrets.realm.to_string(),
            ha1_md5: hex(&secrets.md5),
            ha1_sha256: hex(&secrets.sha256),
            auth_name: secrets.auth_name.as_deref().map(str::to_owned),
            ha1_address_md5: hex(&secrets.address_md5),
            ha1_address_sha256: hex(&secrets.address_sha256),
        }
    }

    fn secrets(&self) -> Result<UserSecrets, String> {
        let hash = |text: &Option<String>, name: &str, len: usize| match text {
            None => Ok(None),
            Some(text) => Hash::of_hex(text.as_bytes())
                .filter(|hash| hash.as_bytes().len() == len)
                .map(Some)
                .ok_or_else(|| format!("{}: {name} has {} hexadecimal digits", self.aor, 2 * len)),
        };
        let auth_name = match &self.auth_name {
            Some(name) if !is_auth_name(name) => {
                return Err(format!("{}: auth_name is no name that a phone could send", self.aor));
            }
            name => name.as_deref().map(Into::into),
        };
        Ok(UserSecrets {
            aor: checked(&self.aor)?,
            realm: self.realm.as_str().into(),
            auth_name,
            md5: hash(&self.ha1_md5, "ha1_md5", 16)?,
            sha256: hash(&self.ha1_sha256, "ha1_sha256", 32)?,
            address_md5: hash(&self.ha1_address_md5, "ha1_address_md5", 16)?,
            address_sha256: hash(&self.ha1_address_sha256, "ha1_address_sha256", 32)?,
        })
    }
}

impl Request {
    /// The changes of users that it asks for; empty if it asks for none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn changes(&self) -> Result<Vec<UserChange>, String> {
        let few = |count: usize| {
            if count <= USERS_PER_REQUEST_MAX {
                Ok(())
            } else {
                Err(format!("at most {USERS_PER_REQUEST_MAX} users fit one request, these are {count}"))
            }
        };
        match self {
            Self::Realm | Self::Status | Self::TakeOver { .. } => Ok(Vec::new()),
            #[cfg(debug_assertions)]
            Self::Panic { .. } => Ok(Vec::new()),
            Self::PutUsers { put, users } => {
                few(users.len())?;
                users.iter().map(|user| Ok(UserChange::Put(*put, user.secrets()?))).collect()
            }
            Self::RemoveUsers { users } => {
                few(users.len())?;
                users.iter().map(|aor| Ok(UserChange::Remove(checked(aor)?))).collect()
            }
        }
    }
}

fn checked(aor: &str) -> Result<Box<str>, String> {
    match Aor::from_canonical(aor) {
        Ok(aor) if aor.user().is_some() => Ok(aor.as_str().into()),
        _ => Err(format!("{aor:?} is no canonical address-of-record of a user")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_lines_of_json() {
        let aor = Aor::from_canonical("alice@example.com").unwrap();
        let secrets = UserSecrets { md5: None, ..UserSecrets::of_password(&aor, "example.com", b"x") };
        let request = Request::PutUsers { put: Put::New, users: vec![UserLine::of(&secrets)] };
        let text = serde_json::to_string(&request).unwrap();
        assert!(
            text.starts_with(r#"{"request":"put-users","put":"new","users":[{"aor":"alice@example.com","#)
        );
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(serde_json::from_str::<Request>(r#"{"request":"realm"}"#).unwrap(), Request::Realm);
        let changes = request.changes().unwrap();
        assert!(
            matches!(&changes[..], [UserChange::Put(Put::New, it)] if it.sha256.unwrap().matches(&secrets.sha256.unwrap()))
        );
        assert_eq!(
            serde_json::to_string(&Answer::Outcomes { outcomes: vec![Outcome::Added, Outcome::Full] })
                .unwrap(),
            r#"{"answer":"outcomes","outcomes":["added","full"]}"#
        );
    }

    #[test]
    fn what_is_wrong_with_a_request_is_told() {
        let line = |aor: &str, md5: &str| UserLine {
            aor: aor.to_owned(),
            realm: "h".to_owned(),
            ha1_md5: Some(md5.to_owned()),
            ha1_sha256: None,
            auth_name: None,
            ha1_address_md5: None,
            ha1_address_sha256: None,
        };
        let put = |line: UserLine, count| Request::PutUsers { put: Put::Any, users: vec![line; count] };
        let good = "0123456789abcdef0123456789ABCDEF";
        assert!(put(line("a@h", good), USERS_PER_REQUEST_MAX).changes().is_ok());
        assert!(put(line("a@h", good), USERS_PER_REQUEST_MAX + 1).changes().is_err());
        for (aor, md5) in
            [("h", good), ("A@H", good), ("", good), ("a@h", ""), ("a@h", &good[1..]), ("a@h", "x")]
        {
            assert!(put(line(aor, md5), 1).changes().is_err(), "{aor} {md5}");
        }
        let named = UserLine { auth_name: Some("a\"b".to_owned()), ..line("a@h", good) };
        assert!(put(named, 1).changes().unwrap_err().contains("auth_name"));
        assert!(Request::RemoveUsers { users: vec!["h".to_owned()] }.changes().is_err());
        assert!(serde_json::from_str::<Request>(r#"{"request":"shutdown"}"#).is_err());
    }
}
