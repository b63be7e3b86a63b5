//! A real process, really killed: every change that it acknowledged is there, and every record is whole.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use comsipl_fdb::{CHAIN_BYTES, Fdb, FileKind, INLINE_BYTES, Kind, OpenOptions, RecordBuf, inspect};

const CHILD: &str = "COMSIPL_FDB_KILL";
const OPTIONS: OpenOptions = OpenOptions { records_max: 2048, threads: 2, hash_key: None };
const RECORDS: u64 = 50;
/// Lives of the process, each ended by SIGKILL.
const LIVES: u64 = 25;

fn fixed(record: u64, version: u64) -> [u64; 12] {
    let mut fixed = [version; 12];
    (fixed[0], fixed[1]) = (record, 0);
    fixed
}

/// Only every other version brings another payload; the ones between change the fixed words alone.
fn payload(version: u64) -> Vec<u8> {
    let version = version & !1;
    let length = (version * 97 % (INLINE_BYTES + 2 * CHAIN_BYTES) as u64) as usize;
    vec![version as u8; length]
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_forever(Path::new(&path));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    let mut acknowledged = [0u64; RECORDS as usize];
    for life in 0..LIVES {
        let mut child = Command::new(std::env::current_exe().expect("a test has a program"))
            .args(["--exact", "what_was_acknowledged_survives_sigkill", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut note = |line: String| {
            let Some(("done", numbers)) = line.split_once(' ') else { return false };
            let [record, version, "."] = numbers.split(' ').collect::<Vec<_>>()[..] else { return false };
            let version: u64 = version.parse().expect("a number");
            acknowledged[record.parse::<usize>().expect("a number")] = version;
            true
        };
        // Some hundred changes, another number in every life; then the kill comes while it is at the next ones.
        let mut left = 200 + life * 37;
        while left > 0 {
            left -= u64::from(note(lines.next().expect("it writes forever")));
        }
        child.kill().expect("killed");
        child.wait().expect("dead");
        // What it still said before it died.
        lines.for_each(|line| {
            note(line);
        });
        check(&path, &acknowledged);
    }
}

/// The life of the process: changes records and says so, after each change.
fn write_forever(path: &Path) -> ! {
    let mut opened = Fdb::open(path, FileKind::Presence, &OPTIONS).expect("opens");
    let partition = &mut opened.partitions[17];
    let mut out = std::io::stdout().lock();
    let mut versions: Vec<(u32, u64)> = Vec::new();
    for record in 0..RECORDS {
        versions.push(match partition.find(record.into()) {
            Some(slot) => (slot, partition.fixed(slot).expect("found").1[2]),
            None => (partition.insert(Kind::Presentity, &fixed(record, 0), &payload(0)).expect("room"), 0),
        });
    }
    let mut round = 0usize;
    loop {
        round += 1;
        let record = round * 31 % RECORDS as usize;
        let (slot, version) = &mut versions[record];
        *version += 1;
        let fixed = fixed(record as u64, *version);
        if version.is_multiple_of(2) {
            partition.update(*slot, &fixed, &payload(*version)).expect("room");
        } else {
            partition.update_fixed(*slot, &fixed);
        }
        // The line ends in a mark, so that one that was cut is known.
        writeln!(out, "done {record} {version} .").expect("someone listens");
    }
}

fn check(path: &Path, acknowledged: &[u64]) {
    let opened = Fdb::open(path, FileKind::Presence, &OPTIONS).expect("opens");
    assert_eq!((opened.recovery.torn_dropped, opened.recovery.records), (0, RECORDS));
    let partition = &opened.partitions[17];
    let mut buf = RecordBuf::new();
    for (record, &acknowledged) in acknowledged.iter().enumerate() {
        let slot = partition.find(record as u128).expect("there");
        partition.read(slot, &mut buf).expect("whole");
        let version = buf.fixed()[2];
        assert_eq!(*buf.fixed(), fixed(record as u64, version));
        assert!(buf.payload() == payload(version), "record {record} version {version}: a mixture");
        assert!(version >= acknowledged, "record {record}: {version}, but {acknowledged} was acknowledged");
    }
    let report = inspect::verify(path).expect("opens");
    assert_eq!((report.torn, report.bad_chains, report.busy, report.orphan_chains), (0, 0, 0, 0));
}
