//! What a test needs installed, and what happens when it is not.

use std::net::UdpSocket;
use std::path::PathBuf;

use crate::server::workspace;

/// Something that a test of real clients cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The console Linphone.
    Linphonec,
    /// The library under all Linphones, with its headers and a C compiler.
    Liblinphone,
    /// The baresip user agent.
    Baresip,
    /// The SIPp traffic generator.
    Sipp,
    /// Node with the libraries that `npm ci` puts into `tests/real/web`.
    WebPhones,
    /// The XML checker of libxml2.
    Xmllint,
}

impl Program {
    /// The Debian packages that bring it.
    pub fn packages(self) -> &'static str {
        match self {
            Self::Linphonec => "linphone-cli",
            Self::Liblinphone => "liblinphone-dev gcc libc6-dev",
            Self::Baresip => "baresip-core",
            Self::Sipp => "sip-tester",
            Self::WebPhones => "nodejs npm",
            Self::Xmllint => "libxml2-utils",
        }
    }

    /// Why it cannot be used here; `None`: it can.
    fn missing(self) -> Option<String> {
        let needed: &[&str] = match self {
            Self::Linphonec => &["linphonec"],
            Self::Liblinphone => &["cc"],
            Self::Baresip => &["baresip"],
            Self::Sipp => &["sipp"],
            Self::WebPhones => &["node"],
            Self::Xmllint => &["xmllint"],
        };
        for name in needed {
            if on_path(name).is_none() {
                return Some(format!("{name} is not installed (Debian: {})", self.packages()));
            }
        }
        if self == Self::Liblinphone && !PathBuf::from("/usr/include/linphone/core.h").exists() {
            return Some(format!("linphone/core.h is not installed (Debian: {})", self.packages()));
        }
        if self == Self::WebPhones && !workspace().join("tests/real/web/node_modules/sip.js").exists() {
            return Some("SIP.js and JsSIP are not installed (npm ci in tests/real/web)".to_owned());
        }
        if self == Self::Linphonec && !has_route() {
            return Some("linphonec takes this machine for offline: it needs a default route".to_owned());
        }
        None
    }
}

/// Whether everything in `needed` can be used. If not, says so, and the test that asked returns as skipped.
///
/// # Panics
/// When something is missing and `COMSIPL_REQUIRE_CLIENTS=1`: the test command of the project wants all of them.
pub fn available(needed: &[Program]) -> bool {
    let missing: Vec<String> = needed.iter().filter_map(|program| program.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join("; ");
    let required = std::env::var_os("COMSIPL_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
    assert!(!required, "COMSIPL_REQUIRE_CLIENTS=1, but {missing}");
    eprintln!("SKIPPED: {missing}");
    false
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether packets to the world would leave this machine: what linphonec asks before it sends anything at all. Nothing
/// is sent here; "connecting" a datagram socket only looks up the route.
fn has_route() -> bool {
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else { return false };
    socket.connect("198.51.100.1:9").is_ok()
        && socket.local_addr().is_ok_and(|address| !address.ip().is_loopback())
}
