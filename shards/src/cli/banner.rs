//! What the server says when it starts.

use std::fmt;

use comsipl_fdb::{FileKind, Recovery};

use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::settings::{Auth, Settings};

/// The message of a start.
pub struct Banner<'a> {
    pub node: &'a Node,
    pub settings: &'a Settings,
    pub sandbox: &'a Sandbox,
}

impl Banner<'_> {
    /// The same as an event of the log.
    pub fn log(&self) {
        let recovered = self.node.recovered();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = self.listen(),
            data_dir = self.data_dir(),
            shards = self.node.shards(),
            pinned = self.node.pinned(),
            domains = self.domains(),
            sandbox = %self.sandbox,
            registered = found(&recovered.registered, self.node.is_successor()),
            presence = found(&recovered.presence, self.node.is_successor()),
            "starting"
        );
    }

    /// Warns of what somebody should look at.
    pub fn warn(&self) {
        let recovered = self.node.recovered();
        for (kind, recovery) in
            [(FileKind::Registered, &recovered.registered), (FileKind::Presence, &recovered.presence)]
        {
            if recovery.torn_dropped > 0 || recovery.extents_lost > 0 || recovery.marks_damaged {
                tracing::warn!(
                    file = kind.file_name(),
                    records_dropped = recovery.torn_dropped,
                    extents_lost = recovery.extents_lost,
                    "damage was found and dropped: a power cut or a failing disk; all watchers are told again"
                );
            } else if recovery.machine_died {
                tracing::warn!(
                    file = kind.file_name(),
                    "the machine went down: what was stored after the last sync may be missing; all watchers are told again"
                );
            }
        }
    }

    fn listen(&self) -> String {
        self.node.addresses().into_iter().map(|it| it.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn data_dir(&self) -> String {
        let dir = &self.settings.data_dir;
        dir.canonicalize().unwrap_or_else(|_| dir.clone()).display().to_string()
    }

    fn domains(&self) -> String {
        if self.settings.domains.is_empty() { "any".to_owned() } else { self.settings.domains.join(" ") }
    }

    fn shards(&self) -> String {
        let shards = self.node.shards();
        if self.node.pinned() { format!("{shards}, each on a core of its own") } else { shards.to_string() }
    }
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovered = self.node.recovered();
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &str| writeln!(f, "  {name:<16}{value}");
        writeln!(f, "ComSIPL {}, a SIP presence server", env!("CARGO_PKG_VERSION"))?;
        row(f, "listening on", &self.listen())?;
        row(f, "data in", &self.data_dir())?;
        row(f, "shards", &self.shards())?;
        row(f, "domains", &self.domains())?;
        row(f, "sandbox", &self.sandbox.to_string())?;
        row(f, FileKind::Presence.file_name(), &found(&recovered.presence, self.node.is_successor()))?;
        row(f, FileKind::Registered.file_name(), &found(&recovered.registered, self.node.is_successor()))?;
        if let Some(granted) = self.node.recv_buffer().filter(|&it| it < self.settings.socket_buffer) {
            row(
                f,
                "note",
                &format!(
                    "the system grants receive buffers of {} KiB where {} are wanted: before heavy traffic set \
                     net.core.rmem_max={2} and net.core.wmem_max={2} by sysctl",
                    granted >> 10,
                    self.settings.socket_buffer >> 10,
                    self.settings.socket_buffer
                ),
            )?;
        }
        let wanted = self.settings.streams.connections_max;
        let streams = self.settings.listen.iter().any(|it| it.transport.is_stream());
        if streams && self.node.connections_max() < wanted {
            row(
                f,
                "note",
                &format!(
                    "the system grants descriptors for {} connections where {wanted} are wanted: before heavy traffic raise \
                     the limit of open files (LimitNOFILE of the unit, `ulimit -Hn`)",
                    self.node.connections_max()
                ),
            )?;
        }
        let address = self.node.addresses().first().map_or_else(String::new, |it| it.address.to_string());
        let domain = self.settings.domains.first().unwrap_or(&address);
        if self.settings.auth == Auth::Digest {
            writeln!(
                f,
                "  users have passwords: `comsipl user add alice@{domain} --data-dir {}` makes one",
                self.data_dir()
            )?;
            return Ok(());
        }
        let file = self.settings.data_dir.join(FileKind::Presence.file_name());
        writeln!(f, "  try it: give Linphone the user \"alice\", the domain \"{domain}\" and the proxy")?;
        writeln!(
            f,
            "    <sip:{address};transport=udp>, any password, and let it publish its presence; then look at"
        )?;
        writeln!(f, "    comsipl fdb inspect {}", file.display())
    }
}

/// What was found in a file, for people; `handed_over`: a server let go of it just now.
fn found(recovery: &Recovery, handed_over: bool) -> String {
    if recovery.created {
        return "new".to_owned();
    }
    let mut text = format!("{} records, ", recovery.records);
    if recovery.clean {
        text += "closed cleanly";
        if recovery.torn_dropped > 0 {
            text += &format!(", {} damaged records dropped", recovery.torn_dropped);
        }
    } else if handed_over && recovery.redone == 0 && recovery.torn_dropped == 0 {
        text += "handed over";
    } else {
        text += &format!(
            "not closed cleanly{}; {} half-done changes finished, {} damaged records dropped",
            last_alive(recovery.last_heartbeat_ms),
            recovery.redone,
            recovery.torn_dropped
        );
    }
    text + &format!(", read in {} ms", recovery.elapsed.as_millis())
}

/// When the server was last known to be alive.
fn last_alive(heartbeat_ms: u64) -> String {
    let millis = i64::try_from(heartbeat_ms).ok().filter(|&millis| millis > 0);
    match millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()) {
        Some(time) => format!(", last alive {time:.0}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SandboxMode;

    #[test]
    fn the_start_says_where_what_and_how_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            listen: ["127.0.0.1:0", "[::1]:0"].map(|it| crate::config::parse_listen(it).unwrap()).to_vec(),
            data_dir: folder.path().join("data"),
            shards: Some(2),
            // A sandbox would be one of all tests.
            sandbox: SandboxMode::Off,
            ..Settings::default()
        };
        let node = Node::open(settings.clone()).unwrap();
        let sandbox = Sandbox::enter(&settings).unwrap();
        let text = Banner { node: &node, settings: &settings, sandbox: &sandbox }.to_string();
        for address in node.addresses() {
            assert!(text.contains(&address.to_string()), "{text}");
        }
        for part in [
            "/data",
            "shards          2",
            "domains         any",
            "sandbox         off",
            "new",
            "Linphone",
            "comsipl fdb inspect",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_crash_is_told_with_its_time() {
        let mut recovery = Recovery::default();
        recovery.records = 12;
        recovery.last_heartbeat_ms = 1_700_000_000_500;
        assert_eq!(
            found(&recovery, false),
            "12 records, not closed cleanly, last alive 2023-11-14T22:13:20Z; 0 half-done changes finished, 0 damaged \
             records dropped, read in 0 ms"
        );
        assert_eq!(found(&recovery, true), "12 records, handed over, read in 0 ms");
        recovery.redone = 1;
        assert!(found(&recovery, true).contains("not closed cleanly"), "the server died meanwhile");
    }
}
