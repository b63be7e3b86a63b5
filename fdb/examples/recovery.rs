//! How long records take to write, read and recover:
//! `cargo run --release -p comsipl-fdb --example recovery [records] [threads] [folder]`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use comsipl_fdb::schema::{Flow, Presentity, Schema, Subscription};
use comsipl_fdb::{Fdb, FileKind, OpenOptions, Opened, PARTITIONS, RecordBuf, RecordId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let records: usize = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let threads: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(parent)?;
    let path = folder.path().join(FileKind::Presence.file_name());
    let options = OpenOptions { records_max: 1 << 20, threads, hash_key: None };
    let mut opened = Fdb::open(&path, FileKind::Presence, &options)?;
    println!("{records} subscriptions in {PARTITIONS} partitions, {threads} threads, one writer thread");

    let mut ids = Vec::with_capacity(records);
    let start = Instant::now();
    for record in 0..records {
        let partition = record % PARTITIONS;
        let slot = opened.partitions[partition].put(&subscription(record as u64))?;
        ids.push(RecordId { partition: partition as u8, slot });
    }
    report("insert, first time (the file grows)", start.elapsed(), records);

    shuffle(&mut ids);
    measure(&mut opened, &ids, "cold")?;
    // A working set that stays in the processor's caches.
    let warm: Vec<_> = ids.iter().take(1000).copied().cycle().take(records).collect();
    measure(&mut opened, &warm, "warm")?;
    presentities(&mut opened, records.min(100_000))?;

    let start = Instant::now();
    opened.file.sync()?;
    println!("{:<44} {:>10.1} ms", "sync", start.elapsed().as_secs_f64() * 1e3);

    for attempt in ["recovery after a kill", "recovery after a kill, again"] {
        drop(opened);
        opened = Fdb::open(&path, FileKind::Presence, &options)?;
        let recovery = opened.recovery;
        assert_eq!((recovery.torn_dropped, recovery.clean), (0, false));
        println!(
            "{attempt:<44} {:>10.1} ms   {} records, {:.0} ns each",
            recovery.elapsed.as_secs_f64() * 1e3,
            recovery.records,
            recovery.elapsed.as_nanos() as f64 / recovery.records as f64
        );
    }
    let start = Instant::now();
    let mut sum = 0;
    for partition in &opened.partitions {
        for (slot, _) in partition.heads() {
            let (_, fixed) = partition.fixed(slot).ok_or("a head")?;
            sum += Subscription::decode_fixed(&fixed)?.expires_at;
        }
    }
    black_box(sum);
    report("heads() and fixed() of all, one thread", start.elapsed(), records);
    Ok(())
}

fn measure(opened: &mut Opened, ids: &[RecordId], state: &str) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    for (n, id) in ids.iter().enumerate() {
        let partition = &mut opened.partitions[usize::from(id.partition)];
        let (_, fixed) = partition.fixed(id.slot).ok_or("a head")?;
        let mut subscription = Subscription::decode_fixed(&fixed)?;
        subscription.cseq_reserved = n as u32;
        partition.update_fixed(id.slot, &subscription.fixed_words());
    }
    report(&format!("fixed, change, update_fixed, {state}"), start.elapsed(), ids.len());

    let start = Instant::now();
    for id in ids {
        let record = subscription(id.slot.into());
        opened.partitions[usize::from(id.partition)].replace(id.slot, &record)?;
    }
    report(&format!("encode and update, {state}"), start.elapsed(), ids.len());

    let payload = subscription(0).encode()?.with_parts(|parts| parts.concat());
    let fixed = subscription(0).fixed_words();
    let start = Instant::now();
    for id in ids {
        opened.partitions[usize::from(id.partition)].update(id.slot, &fixed, &payload)?;
    }
    report(&format!("update, {state}"), start.elapsed(), ids.len());

    let start = Instant::now();
    for id in ids {
        opened.partitions[usize::from(id.partition)].update_fixed(id.slot, &fixed);
    }
    report(&format!("update_fixed, {state}"), start.elapsed(), ids.len());

    let mut buf = RecordBuf::new();
    let start = Instant::now();
    for id in ids {
        opened.file.read(*id, &mut buf)?;
    }
    report(&format!("read, {state}"), start.elapsed(), ids.len());

    let start = Instant::now();
    let mut sum = 0;
    for id in ids {
        opened.file.read(*id, &mut buf)?;
        sum += Subscription::decode(&buf)?.call_id.len();
    }
    black_box(sum);
    report(&format!("read and decode, {state}"), start.elapsed(), ids.len());

    let start = Instant::now();
    for id in ids {
        black_box(opened.partitions[usize::from(id.partition)].fixed(id.slot));
    }
    report(&format!("fixed, {state}"), start.elapsed(), ids.len());

    let start = Instant::now();
    for id in ids {
        let partition = &mut opened.partitions[usize::from(id.partition)];
        let record = subscription(id.slot.into());
        partition.remove(id.slot);
        // The last slot freed is the first taken.
        assert_eq!(partition.put(&record)?, id.slot);
    }
    report(&format!("remove and insert, {state}"), start.elapsed(), ids.len());
    Ok(())
}

/// Documents of 700 bytes: a head and one chain record each, found by key.
fn presentities(opened: &mut Opened, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let body = [b'x'; 700];
    let presentity = |n: usize, version| Presentity {
        key: (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        version,
        aor: b"51234@10.0.0.27",
        body: &body,
        ..Presentity::default()
    };
    let mut slots = Vec::with_capacity(count);
    for n in 0..count {
        slots.push(opened.partitions[n % PARTITIONS].put(&presentity(n, 0))?);
    }
    let start = Instant::now();
    for (n, slot) in slots.iter().enumerate() {
        opened.partitions[n % PARTITIONS].replace(*slot, &presentity(n, 1))?;
    }
    report("update of a 700 byte document", start.elapsed(), count);
    let mut buf = RecordBuf::new();
    let start = Instant::now();
    for n in 0..count {
        opened.file.read_by_key((n % PARTITIONS) as u8, presentity(n, 0).key, &mut buf)?;
    }
    report("read_by_key of a 700 byte document", start.elapsed(), count);
    for (n, slot) in slots.iter().enumerate() {
        opened.partitions[n % PARTITIONS].remove(*slot);
    }
    Ok(())
}

fn subscription(n: u64) -> Subscription<'static> {
    Subscription {
        presentity: u128::from(n) << 64 | u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        local_tag: n,
        expires_at: 1_700_000_000_000 + n,
        cseq_reserved: 1,
        remote_cseq: 20,
        accepted_at: 1_700_000_000_000,
        flow: Flow { port: 5060, ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 141)), ..Flow::default() },
        aor: b"51234@10.0.0.27",
        remote_uri: b"sip:51112@10.0.0.27",
        remote_tag: b"HBXjpj6IT",
        call_id: b"R3BFg0WqhB-and-twenty-more-bytes",
        remote_target:
            b"sip:51112@10.0.0.141:5060;transport=udp;gr=urn:uuid:00000000-0000-0000-0000-000000000000",
        user_agent: b"LinphoneAndroid/5.1.4 (moto g power 5G)",
        ..Subscription::default()
    }
}

fn report(what: &str, elapsed: Duration, count: usize) {
    println!("{what:<44} {:>10.1} ns each", elapsed.as_nanos() as f64 / count as f64);
}

/// The same order each time.
fn shuffle(ids: &mut [RecordId]) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for at in (1..ids.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ids.swap(at, (state % (at as u64 + 1)) as usize);
    }
}
