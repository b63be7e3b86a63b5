//! The sections `[tls]` and `[websocket]`.

use std::path::PathBuf;

use serde::Deserialize;
use toml::{Spanned, Table, Value};

use super::print::{strings, word};
use super::{Mistake, check_word, mistake};
use crate::settings::{ClientAuth, IdentityFiles, SipsRule, TlsSettings, TlsVersion, WebSocketSettings};

/// Most certificates that a node shows.
const IDENTITIES_MAX: usize = 64;

/// Most origins that are listed.
const ORIGINS_MAX: usize = 256;

/// `[tls]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub certificate: Option<Spanned<String>>,
    pub key: Option<Spanned<String>>,
    pub identity: Vec<Identity>,
    pub client_auth: Option<Spanned<String>>,
    pub client_ca: Option<Spanned<String>>,
    pub trust: Option<Spanned<String>>,
    pub min_version: Option<Spanned<String>>,
    pub sips: Option<Spanned<String>>,
}

/// One of `[[tls.identity]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub certificate: Spanned<String>,
    pub key: Spanned<String>,
}

/// `[websocket]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    pub origins: Option<Spanned<Vec<Spanned<String>>>>,
    pub client_auth: Option<Spanned<String>>,
}

impl Tls {
    /// Checks the section and puts it into `settings`.
    pub(super) fn apply(self, settings: &mut TlsSettings) -> Result<(), Mistake> {
        let mut identities = Vec::new();
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => match (path(certificate), path(key)) {
                (Some(certificate), Some(key)) => identities.push(IdentityFiles { certificate, key }),
                (None, None) => {}
                _ => return Err(half(certificate)),
            },
            (Some(it), None) | (None, Some(it)) if path(it).is_some() => return Err(half(it)),
            _ => {}
        }
        for it in &self.identity {
            let (Some(certificate), Some(key)) = (path(&it.certificate), path(&it.key)) else {
                return Err(half(&it.certificate));
            };
            if identities.len() == IDENTITIES_MAX {
                return Err(mistake(
                    &it.certificate,
                    format!("at most {IDENTITIES_MAX} certificates are expected"),
                    "one certificate may cover many hosts",
                ));
            }
            identities.push(IdentityFiles { certificate, key });
        }
        if !identities.is_empty() {
            settings.identities = identities;
        }
        if let Some(client_ca) = &self.client_ca {
            settings.client_ca = path(client_ca);
        }
        if let Some(client_auth) = &self.client_auth {
            settings.client_auth = check_client_auth(client_auth, settings)?;
        }
        if let Some(trust) = &self.trust {
            settings.trust = path(trust);
        }
        if let Some(min_version) = &self.min_version {
            settings.min_version = check_word(min_version, &VERSIONS)?;
        }
        if let Some(sips) = &self.sips {
            settings.sips = check_word(sips, &SIPS_RULES)?;
        }
        Ok(())
    }
}

impl WebSocket {
    /// Checks the section and puts it into `settings`; that of `[tls]` has been read.
    pub(super) fn apply(self, settings: &mut WebSocketSettings, tls: &TlsSettings) -> Result<(), Mistake> {
        if let Some(origins) = &self.origins {
            if origins.get_ref().len() > ORIGINS_MAX {
                return Err(mistake(
                    origins,
                    format!("at most {ORIGINS_MAX} origins are expected, found {}", origins.get_ref().len()),
                    "leave the list empty to serve every web page",
                ));
            }
            settings.origins = origins.get_ref().iter().map(check_origin).collect::<Result<_, _>>()?;
        }
        if let Some(client_auth) = &self.client_auth {
            settings.client_auth = check_client_auth(client_auth, tls)?;
        }
        Ok(())
    }
}

/// `[tls]` as it is printed.
pub(super) fn tls_options(settings: &TlsSettings) -> Vec<(&'static str, Value)> {
    let TlsSettings { identities, client_auth, client_ca, trust, min_version, sips } = settings;
    let path = |path: &Option<PathBuf>| {
        Value::String(path.as_ref().map_or_else(String::new, |path| path.display().to_string()))
    };
    let identity = |it: &IdentityFiles| {
        let certificate = ("certificate".to_owned(), path(&Some(it.certificate.clone())));
        let key = ("key".to_owned(), path(&Some(it.key.clone())));
        Value::Table(Table::from_iter([certificate, key]))
    };
    let first = identities.first();
    vec![
        ("certificate", path(&first.map(|it| it.certificate.clone()))),
        ("key", path(&first.map(|it| it.key.clone()))),
        ("identity", Value::Array(identities.iter().skip(1).map(identity).collect())),
        ("client_auth", word(client_auth, &CLIENT_AUTHS)),
        ("client_ca", path(client_ca)),
        ("trust", path(trust)),
        ("min_version", word(min_version, &VERSIONS)),
        ("sips", word(sips, &SIPS_RULES)),
    ]
}

/// `[websocket]` as it is printed.
pub(super) fn web_socket_options(settings: &WebSocketSettings) -> Vec<(&'static str, Value)> {
    let WebSocketSettings { origins, client_auth } = settings;
    vec![("origins", strings(origins.iter().cloned())), ("client_auth", word(client_auth, &CLIENT_AUTHS))]
}

/// A path; the empty one is none.
fn path(value: &Spanned<String>) -> Option<PathBuf> {
    let text = value.get_ref();
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn half(value: &Spanned<String>) -> Mistake {
    mistake::<String>(
        value,
        "a certificate and its key are expected together, found one of them",
        "write both `certificate = \"….pem\"` and `key = \"….pem\"`",
    )
}

fn check_client_auth(value: &Spanned<String>, tls: &TlsSettings) -> Result<ClientAuth, Mistake> {
    let client_auth = check_word(value, &CLIENT_AUTHS)?;
    if client_auth != ClientAuth::None && tls.client_ca.is_none() {
        return Err(mistake(
            value,
            "the roots of clients' certificates are expected, found no `client_ca` under [tls]",
            "write `client_ca = \"….pem\"` under [tls]",
        ));
    }
    Ok(client_auth)
}

/// An origin as browsers write it (RFC 6454 §6.2): scheme and host, the port if it is not the usual one, no path.
fn check_origin(value: &Spanned<String>) -> Result<String, Mistake> {
    let text = value.get_ref().to_ascii_lowercase();
    let host = text.split_once("://").map(|(_, host)| host);
    let is_host = |host: &str| !host.is_empty() && !host.contains(['/', ' ', '?', '#', '@']);
    if text.is_ascii() && (text == "null" || host.is_some_and(is_host)) {
        Ok(text)
    } else {
        Err(mistake(
            value,
            format!(
                "an origin such as \"https://phone.example.com\" is expected, found \"{}\"",
                value.get_ref()
            ),
            "write what browsers send in `Origin`: scheme, host, and the port if it is not the usual one",
        ))
    }
}

/// How the ways of client authentication are written.
const CLIENT_AUTHS: [(&str, ClientAuth); 3] =
    [("none", ClientAuth::None), ("optional", ClientAuth::Optional), ("required", ClientAuth::Required)];
/// How versions of TLS are written.
const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
/// How the rules of `sips` are written.
const SIPS_RULES: [(&str, SipsRule); 2] = [("strict", SipsRule::Strict), ("edge", SipsRule::Edge)];

#[cfg(test)]
mod tests {
    use super::super::{read_text, to_toml};
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn what_is_written_is_read_and_printed() {
        let settings = read(
            r#"
            [tls]
            certificate = "a.pem"
            key = "a.key"
            client_auth = "required"
            client_ca = "ca.pem"
            trust = "roots.pem"
            min_version = "1.3"
            sips = "edge"
            [[tls.identity]]
            certificate = "b.pem"
            key = "b.key"
            [websocket]
            origins = ["https://Phone.example.com", "null", "http://[::1]:8080"]
            client_auth = "optional"
            "#,
        )
        .unwrap();
        let files = |name: &str| IdentityFiles {
            certificate: PathBuf::from(format!("{name}.pem")),
            key: PathBuf::from(format!("{name}.key")),
        };
        assert_eq!(settings.tls.identities, [files("a"), files("b")]);
        assert_eq!(settings.tls.client_auth, ClientAuth::Required);
        assert_eq!(settings.tls.client_ca, Some("ca.pem".into()));
        assert_eq!(settings.tls.trust, Some("roots.pem".into()));
        assert_eq!(settings.tls.min_version, TlsVersion::V1_3);
        assert_eq!(settings.tls.sips, SipsRule::Edge);
        assert_eq!(settings.web_socket.origins, ["https://phone.example.com", "null", "http://[::1]:8080"]);
        assert_eq!(settings.web_socket.client_auth, ClientAuth::Optional);
        assert_eq!(read(&to_toml(&settings)).unwrap(), settings);
    }

    #[test]
    fn mistakes_are_shown_with_what_to_do() {
        for (text, expected) in [
            ("[tls]\ncertificate = \"a.pem\"", "together"),
            ("[tls]\nkey = \"a.pem\"", "together"),
            ("[tls]\ncertificate = \"a.pem\"\nkey = \"\"", "together"),
            ("[[tls.identity]]\ncertificate = \"a.pem\"\nkey = \"\"", "together"),
            ("[tls]\nclient_auth = \"required\"", "client_ca"),
            ("[websocket]\nclient_auth = \"optional\"", "client_ca"),
            ("[tls]\nclient_auth = \"yes\"", "\"none\" or \"optional\" or \"required\""),
            ("[tls]\nmin_version = \"1.1\"", "\"1.2\" or \"1.3\""),
            ("[tls]\nsips = \"lax\"", "\"strict\" or \"edge\""),
            ("[websocket]\norigins = [\"phone.example.com\"]", "https://phone.example.com"),
            ("[websocket]\norigins = [\"https://a/b\"]", "https://phone.example.com"),
            ("[tls]\ncertificates = \"a\"", "unknown field"),
        ] {
            let mistake = read(text).unwrap_err();
            assert!(mistake.what.contains(expected), "{text}: {}", mistake.what);
        }
    }

    fn read(text: &str) -> Result<Settings, Mistake> {
        let mut settings = Settings::default();
        read_text(text, &mut settings).map(|()| settings)
    }
}
