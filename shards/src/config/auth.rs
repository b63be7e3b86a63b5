//! The section `[auth]`: who may do what.

use std::time::Duration;

use comsipl_core::auth::Algorithm;
use comsipl_core::{Aor, Uri};
use toml::{Spanned, Table, Value};

use super::file::{self, Authentication};
use super::print::{number, strings};
use super::{Mistake, check_range, mistake};
use crate::access::{Access, BadRange, Grant, IpRange, PublishFor};

/// Most ranges in one list, and most grants: they are looked through for each request of a stranger.
const RANGES_MAX: usize = 256;
const GRANTS_MAX: usize = 4096;

impl Authentication {
    /// Checks the section and puts it into `access`.
    pub(super) fn apply(self, access: &mut Access) -> Result<(), Mistake> {
        if let Some(realm) = self.realm {
            access.realm = check_realm(&realm)?;
        }
        if let Some(algorithms) = self.algorithms {
            access.algorithms = check_algorithms(&algorithms)?;
        }
        if let Some(secs) = self.nonce_lifetime_s {
            access.nonce_lifetime = Duration::from_secs(check_range(&secs, 10, 86_400, "seconds")?);
        }
        if let Some(bound) = self.nonce_bound {
            access.nonce_bound = bound;
        }
        for (list, ranges) in [
            (self.trusted, &mut access.trusted),
            (self.allow, &mut access.allow),
            (self.deny, &mut access.deny),
        ] {
            if let Some(list) = list {
                *ranges = check_ranges(&list)?;
            }
        }
        if let Some(grants) = self.grant {
            if grants.get_ref().len() > GRANTS_MAX {
                let count = grants.get_ref().len();
                return Err(mistake(
                    &grants,
                    format!("at most {GRANTS_MAX} grants are expected, found {count}"),
                    "let one user publish for several: publish_for is a list",
                ));
            }
            access.grants = grants.get_ref().iter().map(check_grant).collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

/// Whether a text may be a realm: it is written between quotes and repeated by every phone.
pub fn is_realm(text: &str) -> bool {
    (1..=REALM_LEN_MAX).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

/// Longest realm.
const REALM_LEN_MAX: usize = 128;

fn check_realm(value: &Spanned<String>) -> Result<Option<String>, Mistake> {
    let text = value.get_ref();
    if text.is_empty() {
        return Ok(None);
    }
    if is_realm(text) {
        return Ok(Some(text.clone()));
    }
    Err(mistake(
        value,
        format!(
            "1 to {REALM_LEN_MAX} printable ASCII characters without \" and \\ are expected, found {text:?}"
        ),
        "write for example `realm = \"example.net\"`; or \"\" for the domain of each user",
    ))
}

fn check_algorithms(list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<Algorithm>, Mistake> {
    const HELP: &str =
        "write `algorithms = [\"SHA-256\", \"MD5\"]`; phones that are older than RFC 8760 know MD5 only";
    if list.get_ref().is_empty() {
        return Err(mistake(list, "one algorithm at least is expected, found none", HELP));
    }
    let mut wanted = Vec::new();
    for value in list.get_ref() {
        match Algorithm::named(Some(value.get_ref().as_bytes())) {
            Some(algorithm) => wanted.push(algorithm),
            None => {
                let text = value.get_ref();
                return Err(mistake(
                    value,
                    format!("\"SHA-256\" or \"MD5\" is expected, found \"{text}\""),
                    HELP,
                ));
            }
        }
    }
    // The strongest first, however they were written (RFC 8760 §2.3).
    Ok(Algorithm::ALL.into_iter().filter(|it| wanted.contains(it)).collect())
}

fn check_ranges(list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<IpRange>, Mistake> {
    let values = list.get_ref();
    if values.len() > RANGES_MAX {
        return Err(mistake(
            list,
            format!("at most {RANGES_MAX} ranges of addresses are expected, found {}", values.len()),
            "join neighbouring ranges, or leave this to a firewall",
        ));
    }
    let range = |value: &Spanned<String>| {
        value.get_ref().parse().map_err(|bad| match bad {
            BadRange::NoRange => mistake(
                value,
                format!("an IP address or a range of them is expected, found \"{}\"", value.get_ref()),
                "write for example \"192.0.2.7\", \"10.0.0.0/8\" or \"2001:db8::/32\"",
            ),
            BadRange::LongAddress(range) => mistake(
                value,
                format!("zeros are expected behind the bits that count, found \"{}\"", value.get_ref()),
                format!("write \"{range}\" if the whole range is meant"),
            ),
        })
    };
    values.iter().map(range).collect()
}

fn check_grant(grant: &file::Grant) -> Result<Grant, Mistake> {
    let for_whom = &grant.publish_for;
    let publish_for = match for_whom.get_ref() {
        file::PublishFor::Word(word) if word == "*" => PublishFor::Anyone,
        file::PublishFor::Word(word) => PublishFor::Users(vec![check_user(for_whom, word)?]),
        file::PublishFor::Users(users) if users.iter().any(|user| user == "*") => PublishFor::Anyone,
        file::PublishFor::Users(users) => {
            PublishFor::Users(users.iter().map(|user| check_user(for_whom, user)).collect::<Result<_, _>>()?)
        }
    };
    Ok(Grant { user: check_user(&grant.user, grant.user.get_ref())?, publish_for })
}

fn check_user<T>(place: &Spanned<T>, text: &str) -> Result<String, Mistake> {
    parse_user(text).map(|aor| aor.as_str().to_owned()).ok_or_else(|| {
        mistake(
            place,
            format!("the address of a user is expected, found \"{text}\""),
            "write for example \"sip:alice@example.net\"",
        )
    })
}

/// The address-of-record of a user, written with or without `sip:`.
#[must_use]
pub fn parse_user(text: &str) -> Option<Aor> {
    let with_scheme = format!("sip:{text}");
    let uri = Uri::parse(text.as_bytes()).ok().filter(|uri| uri.host.is_some());
    let uri = uri.or_else(|| Uri::parse(with_scheme.as_bytes()).ok())?;
    Aor::of(&uri).ok().filter(|aor| aor.user().is_some())
}

/// The section as it is written.
pub(super) fn print(access: &Access) -> Vec<(&'static str, Value)> {
    let Access { realm, algorithms, nonce_lifetime, nonce_bound, trusted, allow, deny, grants } = access;
    let ranges = |ranges: &[IpRange]| strings(ranges.iter().map(ToString::to_string));
    let grant = |grant: &Grant| {
        let publish_for = match &grant.publish_for {
            PublishFor::Anyone => Value::String("*".to_owned()),
            PublishFor::Users(users) => strings(users.iter().map(|user| format!("sip:{user}"))),
        };
        let user = Value::String(format!("sip:{}", grant.user));
        Value::Table(Table::from_iter([("user".to_owned(), user), ("publish_for".to_owned(), publish_for)]))
    };
    vec![
        ("realm", Value::String(realm.clone().unwrap_or_default())),
        ("algorithms", strings(algorithms.iter().map(|it| it.token().to_owned()))),
        ("nonce_lifetime_s", number(nonce_lifetime.as_secs() as usize)),
        ("nonce_bound", Value::Boolean(*nonce_bound)),
        ("trusted", ranges(trusted)),
        ("allow", ranges(allow)),
        ("deny", ranges(deny)),
        ("grant", Value::Array(grants.iter().map(grant).collect())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{read_text, to_toml};
    use crate::settings::{Auth, Settings};

    fn read(text: &str) -> Result<Settings, Mistake> {
        let mut settings = Settings::default();
        read_text(text, &mut settings).map(|()| settings)
    }

    #[test]
    fn what_is_written_is_read_and_printed() {
        let settings = read(
            r#"
            [server]
            auth = "digest"
            [auth]
            realm = "the realm"
            algorithms = ["md5", "SHA-256"]
            nonce_lifetime_s = 60
            nonce_bound = false
            trusted = ["10.0.0.0/8", "2001:db8::1"]
            allow = ["192.0.2.0/24"]
            deny = ["192.0.2.7"]
            [[auth.grant]]
            user = "sip:desk@Example.net"
            publish_for = ["sip:boss@example.net", "clerk@example.net"]
            [[auth.grant]]
            user = "sip:gateway@example.net"
            publish_for = "*"
            [limits]
            auth_failures_per_minute = 0
            auth_failures_per_source_minute = 20
            requests_per_source_s = 50
            "#,
        )
        .unwrap();
        let range = |text: &str| text.parse::<IpRange>().unwrap();
        let access = Access {
            realm: Some("the realm".to_owned()),
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            nonce_lifetime: Duration::from_secs(60),
            nonce_bound: false,
            trusted: vec![range("10.0.0.0/8"), range("2001:db8::1")],
            allow: vec![range("192.0.2.0/24")],
            deny: vec![range("192.0.2.7")],
            grants: vec![
                Grant {
                    user: "desk@example.net".to_owned(),
                    publish_for: PublishFor::Users(vec![
                        "boss@example.net".to_owned(),
                        "clerk@example.net".to_owned(),
                    ]),
                },
                Grant { user: "gateway@example.net".to_owned(), publish_for: PublishFor::Anyone },
            ],
        };
        let expected = Settings {
            auth: Auth::Digest,
            access,
            auth_failures_per_minute: 0,
            auth_failures_per_source: 20,
            requests_per_source: 50,
            ..Settings::default()
        };
        assert_eq!(settings, expected);
        assert_eq!(read(&to_toml(&expected)).unwrap(), expected, "{}", to_toml(&expected));
    }

    #[test]
    fn each_mistake_is_shown_where_it_stands() {
        for (text, under_caret, what) in [
            ("[auth]\nrealm = \"a\\\"b\"", "\"a\\\"b\"", "printable"),
            ("[auth]\nrealm = \"é\"", "\"é\"", "printable"),
            ("[auth]\nalgorithms = []", "[]", "none"),
            ("[auth]\nalgorithms = [\"MD5\", \"SHA1\"]", "\"SHA1\"", "\"SHA-256\" or \"MD5\""),
            ("[auth]\nnonce_lifetime_s = 9", "9", "10 to 86400 seconds"),
            ("[auth]\nnonce_bound = 1", "1", "boolean"),
            ("[auth]\ntrusted = [\"10.0.0.1/8\"]", "\"10.0.0.1/8\"", "zeros"),
            ("[auth]\nallow = [\"10.0.0.0/8\", \"lan\"]", "\"lan\"", "range"),
            ("[auth]\ndeny = [\"::/200\"]", "\"::/200\"", "range"),
            ("[[auth.grant]]\nuser = \"desk\"\npublish_for = \"*\"", "\"desk\"", "address of a user"),
            ("[[auth.grant]]\nuser = \"a@h\"\npublish_for = [\"h\"]", "[\"h\"]", "found \"h\""),
            ("[[auth.grant]]\nuser = \"a@h\"\npublish_for = 1", "1", "\"*\" or a list"),
            ("[auth]\nrealms = \"a\"", "realms", "unknown field `realms`"),
            ("[server]\nauth = \"basic\"", "\"basic\"", "\"digest\""),
            ("[limits]\nrequests_per_source_s = -1", "-1", "0 to"),
            ("[limits]\nauth_failures_per_minute = 1000001", "1000001", "0 to"),
            ("[limits]\nauth_failures_per_source_minute = -1", "-1", "0 to"),
        ] {
            let mistake = read(text).expect_err(text);
            assert_eq!(&text[mistake.span.clone()], under_caret, "{text}");
            assert!(mistake.what.contains(what), "{text}: {}", mistake.what);
            assert!(!mistake.help.is_empty());
        }
    }

    #[test]
    fn users_are_written_with_and_without_a_scheme() {
        let user = |text: &str| parse_user(text).map(|aor| aor.as_str().to_owned());
        assert_eq!(user("alice@Example.com").as_deref(), Some("alice@example.com"));
        assert_eq!(user("sips:alice@example.com:5061;x").as_deref(), Some("alice@example.com"));
        assert_eq!(user("alice"), None);
        assert_eq!(user("sip:example.com"), None);
        assert_eq!(user("tel:+1"), None);
        assert_eq!(user(""), None);
    }
}
