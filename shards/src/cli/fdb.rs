//! `comsipl fdb`: looking into the files, also while a server uses them.

use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use comsipl_fdb::inspect::{self, VerifyReport};
use comsipl_fdb::schema::{self, AnyRecord};
use comsipl_fdb::{Fdb, Kind, RecordId};
use serde_json::{Value, json};

use super::{Exit, complain};

/// What can be done with a file.
#[derive(Debug, Subcommand)]
pub enum FdbCommand {
    /// Show the records of a file.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Read every record of a file and check it. Exit code 1 if something is damaged.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// presence_w.fdb or registered.fdb.
        file: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Options of `comsipl fdb inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// presence_w.fdb or registered.fdb.
    file: PathBuf,
    /// Print one JSON object a line, with all that is stored (secrets excepted).
    #[arg(long)]
    json: bool,
    /// Show records of this kind only.
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Show no more records than this. [default: 1000; with --json: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Show what is about this address-of-record only, for example alice@example.net.
    #[arg(long, value_name = "AOR")]
    aor: Option<String>,
}

/// The kinds of records as they are written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindArg {
    /// A watcher's subscription.
    Subscription,
    /// What watchers of somebody are told.
    Presentity,
    /// What one phone has published.
    Publication,
    /// A contact of a registered user.
    Binding,
    /// A user who may register.
    User,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Subscription => Self::Subscription,
            KindArg::Presentity => Self::Presentity,
            KindArg::Publication => Self::Publication,
            KindArg::Binding => Self::Binding,
            KindArg::User => Self::User,
        }
    }
}

/// Does what the command says.
pub(super) fn run(command: FdbCommand) -> Exit {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = match command {
        FdbCommand::Inspect(args) => inspect(&args, &mut out),
        FdbCommand::Verify { file, json } => verify(&file, json, &mut out),
    };
    match result.and_then(|exit| out.flush().map(|()| exit)) {
        Ok(exit) => exit,
        // Whoever reads us has seen enough, as in `comsipl fdb inspect FILE | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            complain(&format!("cannot write to standard output: {error}"));
            Exit::Failed
        }
    }
}

/// Shows records.
fn inspect(args: &InspectArgs, out: &mut impl Write) -> io::Result<Exit> {
    let file = match Fdb::open_reader(&args.file) {
        Ok(file) => file,
        Err(error) => {
            complain(&error);
            return Ok(Exit::Failed);
        }
    };
    let kind = args.kind.map(Kind::from);
    let aor = args.aor.as_deref().map(canonical_aor);
    let limit = args.limit.unwrap_or(if args.json { usize::MAX } else { ROWS_MAX });
    let mut table = table(&["record", "kind", "address-of-record", "what", "until"]);
    let (mut matching, mut shown) = (0_usize, 0_usize);
    let mut result = Ok(());
    inspect::for_each_record(&file, |id, record| {
        let record = Shown::of(&record);
        if kind.is_some_and(|kind| kind != record.kind)
            || aor.as_ref().is_some_and(|aor| aor.as_bytes() != record.aor)
        {
            return;
        }
        matching += 1;
        if shown == limit || result.is_err() {
            return;
        }
        shown += 1;
        if args.json {
            result = writeln!(out, "{}", record.json(id));
        } else {
            table.add_row(record.row(id));
        }
    });
    result?;
    if !args.json {
        if shown > 0 {
            writeln!(out, "{table}")?;
        }
        let of = if shown < matching { format!(" of {matching}") } else { String::new() };
        let usage = file.usage();
        writeln!(
            out,
            "{shown}{of} records; the {} file holds {} in {} slots, {} KiB on disk",
            file.kind(),
            usage.records(),
            usage.slots_used(),
            usage.bytes_reserved() >> 10
        )?;
    }
    Ok(Exit::Done)
}

/// Checks a file.
fn verify(path: &Path, json: bool, out: &mut impl Write) -> io::Result<Exit> {
    let report = match inspect::verify(path) {
        Ok(report) => report,
        Err(error) => {
            complain(&error);
            return Ok(Exit::Failed);
        }
    };
    if json {
        writeln!(out, "{}", report_json(path, &report))?;
    } else {
        let mut table = table(&["what", "records"]);
        for (kind, count) in Kind::ALL.into_iter().zip(report.records) {
            if kind.file() == report.kind {
                table.add_row([kind.to_string(), count.to_string()]);
            }
        }
        table.add_row(["continuations".to_owned(), report.chain_records.to_string()]);
        for (name, count) in faults(&report).into_iter().filter(|(_, count)| *count > 0) {
            table.add_row([name.replace('_', " "), count.to_string()]);
        }
        writeln!(out, "{table}")?;
        for problem in &report.problems {
            writeln!(out, "{problem}")?;
        }
        let verdict = if report.is_sound() { "sound" } else { "DAMAGED" };
        writeln!(out, "{}: {verdict}, {} records", path.display(), report.total())?;
    }
    Ok(if report.is_sound() { Exit::Done } else { Exit::Failed })
}

/// What may be wrong with a file, with its count.
fn faults(report: &VerifyReport) -> [(&'static str, u64); 5] {
    [
        ("torn", report.torn),
        ("bad_chains", report.bad_chains),
        ("undecodable", report.undecodable),
        ("busy", report.busy),
        ("orphan_chains", report.orphan_chains),
    ]
}

fn report_json(path: &Path, report: &VerifyReport) -> Value {
    let mut value = json!({
        "file": path.display().to_string(),
        "kind": report.kind.to_string(),
        "sound": report.is_sound(),
        "chain_records": report.chain_records,
        "slots_used": report.usage.slots_used(),
        "bytes_reserved": report.usage.bytes_reserved(),
        "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    value["records"] =
        Kind::ALL.iter().zip(report.records).map(|(kind, count)| (kind.to_string(), json!(count))).collect();
    for (name, count) in faults(report) {
        value[name] = json!(count);
    }
    value
}

/// A record as it is shown.
struct Shown<'a> {
    kind: Kind,
    aor: &'a [u8],
    /// In one phrase, for people.
    what: String,
    /// When it ends, Unix milliseconds.
    expires_at: Option<u64>,
    /// All that is stored, kind and address-of-record aside.
    fields: Value,
}

impl<'a> Shown<'a> {
    fn of(record: &AnyRecord<'a>) -> Self {
        match record {
            AnyRecord::Subscription(it) => Self {
                kind: Kind::Subscription,
                aor: it.aor,
                what: format!("watched by {} at {}", text(it.remote_uri), peer(&it.flow)),
                expires_at: Some(it.expires_at),
                fields: json!({
                    "presentity": hex_key(it.presentity),
                    "local_tag": hex(it.local_tag),
                    "cseq_reserved": it.cseq_reserved,
                    "remote_cseq": it.remote_cseq,
                    "accepted_at": time(it.accepted_at),
                    "flow": flow(&it.flow),
                    "event": it.event,
                    "capitals": it.capitals,
                    "flags": it.flags,
                    "request": hex(it.request),
                    "local_uri": text(it.local_uri),
                    "remote_uri": text(it.remote_uri),
                    "remote_tag": text(it.remote_tag),
                    "call_id": text(it.call_id),
                    "remote_target": text(it.remote_target),
                    "route_set": text(it.route_set),
                    "event_id": text(it.event_id),
                    "user_agent": text(it.user_agent),
                }),
            },
            AnyRecord::Presentity(it) => Self {
                kind: Kind::Presentity,
                aor: it.aor,
                what: format!(
                    "version {} of {}, {} bytes, note \"{}\"",
                    it.version,
                    time(it.changed_at),
                    it.body.len(),
                    text(it.note)
                ),
                expires_at: None,
                fields: json!({
                    "key": hex_key(it.key),
                    "version": it.version,
                    "fingerprint": hex(it.fingerprint),
                    "event": it.event,
                    "basic": it.basic,
                    "first_end": it.first_end,
                    "changed_at": time(it.changed_at),
                    "note": text(it.note),
                    "body": text(it.body),
                }),
            },
            AnyRecord::Publication(it) => Self {
                kind: Kind::Publication,
                aor: it.aor,
                what: format!("published {}, {} bytes", text(it.content_type), it.body.len()),
                expires_at: Some(it.expires_at),
                fields: json!({
                    "presentity": hex_key(it.presentity),
                    "entity_tag": hex(it.entity_tag),
                    "previous_tag": hex(it.previous_tag),
                    "request": hex(it.request),
                    "published_at": time(it.published_at),
                    "number": it.number,
                    "event": it.event,
                    "content_type": text(it.content_type),
                    "body": text(it.body),
                }),
            },
            AnyRecord::Binding(it) => Self {
                kind: Kind::Binding,
                aor: it.aor,
                what: format!("registered at {}", text(it.contact)),
                expires_at: Some(it.expires_at),
                fields: json!({
                    "aor_key": hex_key(it.aor_key),
                    "reg_id": it.reg_id,
                    "registered_at": time(it.registered_at),
                    "cseq": it.cseq,
                    "q": f64::from(it.q) / 1000.0,
                    "flow": flow(&it.flow),
                    "contact": text(it.contact),
                    "display_name": text(it.display_name),
                    "params": text(it.params),
                    "call_id": text(it.call_id),
                    "path": text(it.path),
                    "instance": text(it.instance),
                    "user_agent": text(it.user_agent),
                }),
            },
            AnyRecord::User(it) => Self {
                kind: Kind::User,
                aor: it.aor,
                what: "may register".to_owned(),
                expires_at: None,
                // The secrets stay where they are.
                fields: json!({
                    "aor_key": hex_key(it.aor_key),
                    "flags": it.flags,
                    "has_md5": !it.ha1_md5.is_empty(),
                    "has_sha256": !it.ha1_sha256.is_empty(),
                }),
            },
        }
    }

    fn row(&self, id: RecordId) -> [String; 5] {
        let until = self.expires_at.map(time).unwrap_or_default();
        [id.to_string(), self.kind.to_string(), text(self.aor), self.what.clone(), until]
    }

    fn json(mut self, id: RecordId) -> Value {
        self.fields["record"] = json!(id.to_string());
        self.fields["kind"] = json!(self.kind.to_string());
        self.fields["aor"] = json!(text(self.aor));
        if let Some(expires_at) = self.expires_at {
            self.fields["expires_at"] = json!(time(expires_at));
        }
        self.fields
    }
}

/// A table of the kind we print.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

/// Bytes from the network as text that a terminal is safe from.
fn text(bytes: &[u8]) -> String {
    let printable =
        |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(bytes).chars().map(printable).collect()
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn hex_key(key: u128) -> String {
    format!("{key:032x}")
}

/// Unix milliseconds as RFC 3339 in UTC.
fn time(millis: u64) -> String {
    let timestamp = i64::try_from(millis).ok().and_then(|it| jiff::Timestamp::from_millisecond(it).ok());
    timestamp.map_or_else(|| millis.to_string(), |timestamp| format!("{timestamp:.0}"))
}

fn peer(flow: &schema::Flow) -> SocketAddr {
    SocketAddr::new(flow.ip, flow.port)
}

fn flow(flow: &schema::Flow) -> Value {
    json!({
        "transport": flow.transport,
        "listener": flow.listener,
        "peer": peer(flow).to_string(),
        "local_ip": flow.local_ip.as_ref().map(IpAddr::to_string),
        "connection": flow.connection,
    })
}

/// An address-of-record as the files have it: without scheme, the host in lower case.
fn canonical_aor(written: &str) -> String {
    let lower = written.to_ascii_lowercase();
    let scheme = ["sip:", "sips:", "pres:"].into_iter().find(|scheme| lower.starts_with(scheme));
    let rest = &written[scheme.map_or(0, str::len)..];
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{user}@{}", host.to_ascii_lowercase()),
        None => rest.to_ascii_lowercase(),
    }
}

/// Most rows of a table, unless more are asked for.
const ROWS_MAX: usize = 1000;

const INSPECT_EXAMPLES: &str = "\
Examples:
  comsipl fdb inspect comsipl-data/presence_w.fdb
  comsipl fdb inspect comsipl-data/presence_w.fdb --aor alice@example.net
  comsipl fdb inspect comsipl-data/registered.fdb --kind binding --limit 20
  comsipl fdb inspect comsipl-data/presence_w.fdb --json | jq 'select(.kind == \"subscription\") | .user_agent'";

const VERIFY_EXAMPLES: &str = "\
Examples:
  comsipl fdb verify comsipl-data/presence_w.fdb
  comsipl fdb verify comsipl-data/registered.fdb --json | jq .sound

Exit codes: 0 the file is sound, 1 it is damaged or cannot be read.";

#[cfg(test)]
mod tests {
    use comsipl_fdb::schema::{Binding, Presentity, Publication, Subscription, User};
    use comsipl_fdb::{FileKind, OpenOptions};

    use super::*;

    #[test]
    fn records_are_shown_and_filtered_for_people_and_for_programs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("presence_w.fdb");
        let mut opened = open(&path, FileKind::Presence);
        let aor = b"alice@example.net";
        let partition = &mut opened.partitions[3];
        partition
            .put(&Presentity { key: 3, version: 7, aor, body: b"<presence/>", ..Presentity::default() })
            .unwrap();
        let expires_at = 1_700_000_000_000;
        partition
            .put(&Publication {
                presentity: 3,
                aor,
                expires_at,
                content_type: b"application/pidf+xml",
                ..Publication::default()
            })
            .unwrap();
        let remote_uri = b"sip:bob\x1b[31m@example.net";
        partition
            .put(&Subscription {
                presentity: 3,
                aor: b"carol@example.net",
                remote_uri,
                ..Subscription::default()
            })
            .unwrap();

        let all = show(&path, &[]);
        for part in
            ["alice@example.net", "version 7", "application/pidf+xml", "2023-11-14T22:13:20Z", "3 records;"]
        {
            assert!(all.contains(part), "{part} in\n{all}");
        }
        assert!(!all.contains('\x1b'), "a name may not steer the terminal");
        assert!(show(&path, &["--aor", "SIP:carol@Example.NET"]).contains("1 records;"));
        assert!(show(&path, &["--kind", "publication"]).contains("1 records;"));
        assert!(show(&path, &["--limit", "2"]).contains("2 of 3 records;"));

        let lines = show(&path, &["--json", "--aor", "alice@example.net"]);
        let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), 2);
        let presentity = records.iter().find(|it| it["kind"] == "presentity").unwrap();
        assert_eq!((&presentity["version"], &presentity["body"]), (&json!(7), &json!("<presence/>")));
    }

    #[test]
    fn secrets_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registered.fdb");
        let mut opened = open(&path, FileKind::Registered);
        let (aor, secret) = (b"alice@example.net", b"0123456789abcdef");
        let user = User { aor_key: 64, aor, ha1_md5: secret, more: secret, ..User::default() };
        opened.partitions[0].put(&user).unwrap();
        opened.partitions[1]
            .put(&Binding { aor_key: 65, aor, contact: b"sip:alice@10.0.0.1", ..Binding::default() })
            .unwrap();
        for args in [&[][..], &["--json"]] {
            let shown = show(&path, args);
            assert!(shown.contains("sip:alice@10.0.0.1"), "{shown}");
            assert!(!shown.contains("0123456789abcdef") && !shown.contains("30313233"), "{shown}");
        }
    }

    #[test]
    fn a_sound_file_verifies_and_a_foreign_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("presence_w.fdb");
        let mut opened = open(&path, FileKind::Presence);
        opened.partitions[0].put(&Presentity { key: 64, aor: b"a@b", ..Presentity::default() }).unwrap();
        let mut out = Vec::new();
        assert_eq!(verify(&path, false, &mut out).unwrap(), Exit::Done);
        assert!(String::from_utf8(out).unwrap().contains("sound, 1 records"));
        let mut out = Vec::new();
        assert_eq!(verify(&path, true, &mut out).unwrap(), Exit::Done);
        let report: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&report["sound"], &report["records"]["presentity"]), (&json!(true), &json!(1)));

        let foreign = folder.path().join("notes.txt");
        std::fs::write(&foreign, "nothing of ours").unwrap();
        assert_eq!(verify(&foreign, false, &mut Vec::new()).unwrap(), Exit::Failed);
        assert_eq!(verify(&folder.path().join("missing"), false, &mut Vec::new()).unwrap(), Exit::Failed);
    }

    fn open(path: &Path, kind: FileKind) -> comsipl_fdb::Opened {
        Fdb::open(path, kind, &OpenOptions { records_max: 512, threads: 1, hash_key: None }).unwrap()
    }

    fn show(path: &Path, args: &[&str]) -> String {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            inspect: InspectArgs,
        }
        let path = path.to_str().unwrap();
        let line = <Line as clap::Parser>::parse_from(["inspect", path].iter().chain(args));
        let mut out = Vec::new();
        assert_eq!(inspect(&line.inspect, &mut out).unwrap(), Exit::Done);
        String::from_utf8(out).unwrap()
    }
}
