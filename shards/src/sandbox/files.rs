//! The half of the sandbox that is about files: Landlock.

use std::fs::File;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, path_beneath_rules,
};

use super::Part;
use crate::settings::Settings;

/// The folder in `/proc` whose files say how long threads were kept waiting. A rule holds for an inode, and the kernel makes a
/// new one for the same name when nobody has used the old one for a while; so it is kept open.
pub(super) fn anchor() -> Option<File> {
    File::open("/proc/self/task").ok()
}

/// Gives up all files but those that a server with these settings opens while it serves.
pub(super) fn confine(settings: &Settings, anchor: Option<&File>) -> Part {
    match restrict(settings, anchor) {
        Ok(status) => match status.ruleset {
            RulesetStatus::FullyEnforced => Part::Full,
            RulesetStatus::PartiallyEnforced => Part::Some,
            RulesetStatus::NotEnforced => Part::None("this kernel has no Landlock".to_owned()),
        },
        Err(error) => Part::None(error.to_string()),
    }
}

fn restrict(settings: &Settings, anchor: Option<&File>) -> Result<RestrictionStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(HANDLED))?
        .handle_access(AccessNet::BindTcp)?
        .create()?
        .add_rules(path_beneath_rules([&settings.data_dir], data_access()))?
        .add_rules(path_beneath_rules(readable(settings), AccessFs::ReadFile | AccessFs::ReadDir))?
        .add_rules(anchor.map(|it| Ok::<_, RulesetError>(PathBeneath::new(it, AccessFs::ReadFile))))?
        .add_rules(
            ports(settings).map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::BindTcp))),
        )?;
    ruleset.restrict_self()
}

/// What is done in the data directory: the two files are read, written and grown, the control socket is made and removed.
fn data_access() -> landlock::BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::ReadDir
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
}

/// TCP ports that may still be bound: our own, when they are listened on anew, and any for a connection that we open from a
/// certain address.
fn ports(settings: &Settings) -> impl Iterator<Item = u16> {
    let own = settings.listen.iter().filter(|it| it.transport.is_stream()).map(|it| it.address.port());
    own.chain([0])
}

/// All that is read while serving; what is not there is left out.
fn readable(settings: &Settings) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = RESOLVER_FILES.iter().chain(&[PROCESSORS]).map(PathBuf::from).collect();
    if settings.listen.iter().any(|it| it.transport.is_secure()) {
        for file in settings.tls.files() {
            // The name may be a link, whose target changes when a certificate is renewed.
            let real = file.canonicalize().ok();
            paths.extend(std::iter::once(file).chain(real).map(|it| place_of(&it)));
        }
        if settings.tls.trust.is_none() {
            paths.extend(SYSTEM_ROOTS.iter().map(PathBuf::from));
            let named = SYSTEM_ROOT_VARIABLES.iter().filter_map(std::env::var_os);
            paths.extend(named.map(PathBuf::from));
        }
    }
    paths
}

/// Where a file that is read again may be by then: a renewed certificate takes the place of the old one under the same name, so
/// the rule is for its folder. A folder in which everything is does not count as that of a certificate.
fn place_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) if !SHARED_FOLDERS.iter().any(|it| folder == Path::new(it)) => folder.to_owned(),
        _ => file.to_owned(),
    }
}

/// The newest version of Landlock whose rights over files are all known here; from version 9 on, named sockets of others, such as
/// the service manager's, would be among them.
const HANDLED: ABI = ABI::V5;

/// What the resolver reads when it starts.
const RESOLVER_FILES: [&str; 3] = ["/etc/resolv.conf", "/etc/hosts", "/proc/sys/kernel/hostname"];

/// By which libc decides, when the first threads allocate, among how many heaps threads share memory: two processors are assumed
/// where it cannot be read.
const PROCESSORS: &str = "/sys/devices/system/cpu/online";

/// Where distributions keep the roots that the system trusts.
const SYSTEM_ROOTS: [&str; 7] = [
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// Variables of the environment that name others.
const SYSTEM_ROOT_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Folders that hold too much to be opened for a certificate's sake: there the file itself is, as it is now.
const SHARED_FOLDERS: [&str; 4] = ["/", "/etc", "/root", "/home"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_may_be_replaced_in_a_folder_of_its_own_only() {
        for (file, place) in [
            ("/etc/comsipl/tls/server.pem", "/etc/comsipl/tls"),
            ("/etc/server.pem", "/etc/server.pem"),
            ("/server.pem", "/server.pem"),
            ("tls/server.pem", "tls"),
            ("server.pem", "."),
        ] {
            assert_eq!(place_of(Path::new(file)), Path::new(place), "{file}");
        }
    }

    #[test]
    fn certificates_are_read_only_where_there_is_tls() {
        let mut settings = Settings::default();
        settings.tls.trust = Some(PathBuf::from("/etc/comsipl/tls/roots.pem"));
        let place = PathBuf::from("/etc/comsipl/tls");
        assert!(!readable(&settings).contains(&place));
        settings.listen = vec![crate::config::parse_listen("tls:127.0.0.1:5061").unwrap()];
        assert!(readable(&settings).contains(&place));
        assert!(!readable(&settings).contains(&PathBuf::from(SYSTEM_ROOTS[0])));
        settings.tls.trust = None;
        assert!(readable(&settings).contains(&PathBuf::from(SYSTEM_ROOTS[0])));
        assert_eq!(ports(&settings).collect::<Vec<_>>(), [5061, 0]);
    }
}
