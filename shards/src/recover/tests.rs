use comsipl_core::event::EventPackage;

use super::*;
use crate::records::{StoredDocument, StoredPublicationRecord};
use crate::testing::engine::{Engine, by_udp, field, ok, publish, subscribe};

/// The slots of a shard's records of one kind, with their partitions.
fn slots(shard: &Shard, kind: Kind) -> Vec<(u8, u32)> {
    let of =
        |number| shard.files.presence_partition(number).heads().map(move |(slot, kind)| (number, slot, kind));
    let all = shard.files.own_numbers().flat_map(of);
    all.filter(|&(.., it)| it == kind).map(|(number, slot, _)| (number, slot)).collect()
}

/// Rewrites the publication whose document holds `text`.
fn rewrite_publication(shard: &mut Shard, text: &[u8], change: impl Fn(&mut StoredPublicationRecord<'_>)) {
    for (number, slot) in slots(shard, Kind::Publication) {
        let mut record = RecordBuf::default();
        let partition = shard.files.presence_partition_mut(number);
        partition.read(slot, &mut record).unwrap();
        let mut stored = records::publication(&record).unwrap();
        if stored.body.windows(text.len()).any(|it| it == text) {
            change(&mut stored);
            records::update_publication(partition, slot, &stored).unwrap();
        }
    }
}

/// A package number that no version of ours has given.
const UNKNOWN: u8 = 250;

#[test]
fn records_of_an_unknown_package_are_left_alone_and_counted() {
    assert!(EventPackage::by_number(UNKNOWN).is_none());
    let mut engine = Engine::new();
    engine.deliver(by_udp(), &publish(1, "open"));
    let engine = engine.restart(|shard| {
        rewrite_publication(shard, b"open", |stored| stored.event = UNKNOWN);
        for (number, slot) in slots(shard, Kind::Presentity) {
            let mut record = RecordBuf::default();
            let partition = shard.files.presence_partition_mut(number);
            partition.read(slot, &mut record).unwrap();
            let stored = records::document(&record).unwrap();
            records::update_document(partition, slot, &StoredDocument { event: UNKNOWN, ..stored }).unwrap();
        }
    });
    let shard = &engine.shard;
    assert_eq!(shard.counters.unreadable_records.get(), 2);
    assert_eq!((shard.presentities.len(), shard.presentities.publications.in_use()), (0, 0));
    // Hours later, when a publication of ours would have run out, they are there for the version that knows them.
    let mut engine = engine;
    engine.pass(std::time::Duration::from_secs(7200));
    let kept = [Kind::Publication, Kind::Presentity].map(|kind| slots(&engine.shard, kind).len());
    assert_eq!(kept, [1, 1]);
}

#[test]
fn of_two_documents_of_a_user_the_newer_stays() {
    // A document was removed and another one written; a power cut took the removal, and the publication of the other one. Its
    // owner knew one of them, readers found the other one, and whoever subscribed was told what nobody had published any more.
    for by in [-1, 1] {
        let mut engine = Engine::new();
        engine.deliver(by_udp(), &publish(1, "open"));
        let mut engine = engine.restart(|shard| {
            let (number, slot) = slots(shard, Kind::Presentity)[0];
            let mut record = RecordBuf::default();
            let partition = shard.files.presence_partition_mut(number);
            partition.read(slot, &mut record).unwrap();
            let stored = records::document(&record).unwrap();
            let version = stored.version.checked_add_signed(by).unwrap();
            let other = StoredDocument { version, fingerprint: 7, body: b"left over", ..stored };
            records::insert_document(partition, &other).unwrap();
        });
        let kept = slots(&engine.shard, Kind::Presentity);
        assert_eq!(kept.len(), 1, "{by}");
        // It is composed again of what is published.
        let told = engine.deliver(by_udp(), &subscribe("UDP")).concat();
        assert!(told.contains("<basic>open</basic>") && !told.contains("left over"), "{told}");
    }
}

#[test]
fn a_damaged_publication_leaves_the_others_their_document() {
    let mut engine = Engine::new();
    engine.deliver(by_udp(), &publish(1, "closed"));
    engine.deliver(by_udp(), &publish(2, "open"));
    let mut engine = engine.restart(|shard| {
        rewrite_publication(shard, b"closed", |stored| stored.body = b"<presence");
    });
    let before = engine.shard.counters.unreadable_records.get();
    // What has just been published is read from its record then.
    engine.deliver(by_udp(), &publish(3, "closed"));
    assert!(engine.shard.counters.unreadable_records.get() > before);
    let sent = engine.deliver(by_udp(), &subscribe("UDP"));
    let notify = sent.iter().find(|it| it.starts_with("NOTIFY ")).expect("the state is told");
    let tuples = ["t1", "t2", "t3"].map(|id| notify.contains(&format!("id=\"{id}\"")));
    assert_eq!(tuples, [false, true, true], "{notify}");
}

/// Stores the heartbeat, as the thread that syncs does.
fn heartbeat(engine: &Engine) {
    engine.shard.files.presence.heartbeat(engine.now.wall.0);
}

/// The clock is set back by an hour.
fn set_back(engine: &mut Engine) {
    engine.now.wall.0 -= 3_600_000;
}

#[test]
fn what_is_granted_by_a_clock_that_was_set_back_outlives_a_crash_before_the_next_heartbeat() {
    for while_running in [false, true] {
        let mut engine = Engine::new();
        heartbeat(&engine);
        set_back(&mut engine);
        if !while_running {
            engine = engine.restart(|_| ());
        }
        // For an hour: by this clock that ends when the heartbeat was.
        engine.deliver(by_udp(), &publish(1, "open"));
        engine.deliver(by_udp(), &subscribe("UDP"));
        let mut engine = engine.restart(|_| ());
        let there = |engine: &Engine| {
            (engine.shard.presentities.publications.in_use(), engine.shard.subscriptions.len())
        };
        engine.pass(std::time::Duration::from_secs(3590));
        assert_eq!(there(&engine), (1, 1), "while running: {while_running}");
        engine.pass(std::time::Duration::from_secs(20));
        assert_eq!(there(&engine).0, 0, "and no longer than was granted");
    }
}

#[test]
fn what_changes_by_a_clock_that_was_set_back_is_owed_after_a_crash_before_the_next_heartbeat() {
    let mut engine = Engine::new();
    let notify = engine.deliver(by_udp(), &subscribe("UDP"));
    let notify = notify.iter().find(|it| it.starts_with("NOTIFY ")).expect("the first state");
    engine.deliver(by_udp(), &ok(notify));
    engine.pass(std::time::Duration::from_secs(600));
    heartbeat(&engine);
    let mut engine = engine.restart(|_| ());
    assert!(engine.turn().is_empty(), "nothing is owed");
    set_back(&mut engine);
    let mut engine = engine.restart(|_| ());
    engine.turn();
    let lost = engine.deliver(by_udp(), &publish(1, "open"));
    assert!(lost.iter().any(|it| it.starts_with("NOTIFY ")));
    let mut engine = engine.restart(|_| ());
    let told = engine.turn();
    assert!(told.iter().any(|it| it.starts_with("NOTIFY ") && it.contains("open")), "{told:?}");
}

#[test]
fn subscriptions_of_one_dialog_count_together_after_a_start() {
    let mut engine = Engine::new();
    let sent = engine.deliver(by_udp(), &subscribe("UDP"));
    let to = field(&sent[0], "To").to_owned();
    assert!(to.contains(";tag="), "{to}");
    engine.deliver(by_udp(), &ok(&sent[1]));
    let second = subscribe("UDP")
        .replace("branch=z9hG4bKs1", "branch=z9hG4bKs2")
        .replace("To: <sip:alice@example.com>", &format!("To: {to}"))
        .replace("CSeq: 1", "CSeq: 2")
        .replace("Event: presence", "Event: presence;id=2");
    let sent = engine.deliver(by_udp(), &second);
    engine.deliver(by_udp(), &ok(&sent[1]));
    // Another dialog, which counts by itself.
    let other = subscribe("UDP").replace("z9hG4bKs1", "z9hG4bKs3").replace("Call-ID: c1", "Call-ID: c2");
    engine.deliver(by_udp(), &other);
    let mut engine = engine.restart(|_| ());
    let ids = 0..engine.shard.subscriptions.high_water() as u32;
    let shared: Vec<bool> = ids.map(|id| engine.shard.subscriptions[id].shared_dialog).collect();
    assert_eq!(shared.iter().filter(|&&it| it).count(), 2, "{shared:?}");
    let told = engine.turn();
    let cseq_of = |call_id: &str| {
        let notifies = told.iter().filter(|it| it.starts_with("NOTIFY") && it.contains(call_id));
        notifies.map(|it| field(it, "CSeq").to_owned()).collect::<Vec<_>>()
    };
    let (ours, others) = (cseq_of("Call-ID: c1"), cseq_of("Call-ID: c2"));
    assert_eq!((ours.len(), others.len()), (2, 1), "{told:#?}");
    assert_ne!(ours[0], ours[1], "no number of a dialog is used twice");
}

/// More watchers than are told in a turn.
const CROWD: usize = 300;

fn is_notify(message: &&String) -> bool {
    message.starts_with("NOTIFY ")
}

/// Whether it tells somebody of alice.
fn is_of_alice(message: &&String) -> bool {
    is_notify(message) && message.contains("entity=\"sip:alice@example.com\"")
}

/// A shard with a crowd that watches alice and one watcher of carol's, all of whom have been told, killed and started again.
fn killed_with_a_crowd() -> Engine {
    let mut engine = Engine::new();
    engine.deliver(by_udp(), &publish(1, "open"));
    let watch = |n: usize| {
        let subscribe = subscribe("UDP").replace("branch=z9hG4bKs1", &format!("branch=z9hG4bKs{n}"));
        subscribe.replace("Call-ID: c1", &format!("Call-ID: w{n}"))
    };
    let to_carol = watch(CROWD).replace("alice", "carol");
    for subscribe in (0..CROWD).map(watch).chain([to_carol]) {
        let sent = engine.deliver(by_udp(), &subscribe);
        engine.deliver(by_udp(), &ok(&sent[1]));
    }
    engine.restart(|_| ())
}

#[test]
fn what_changes_after_a_start_is_told_before_what_the_start_owes() {
    let mut engine = killed_with_a_crowd();
    let due = |engine: &Engine| {
        let counters = engine.shard.counters();
        (counters.presentities_due.get(), counters.presentities_left_over.get())
    };
    let sent = engine.deliver(by_udp(), &publish(2, "open").replace("alice", "carol"));
    let told: Vec<&String> = sent.iter().filter(is_notify).collect();
    assert!(told[0].contains("sip:carol@example.com"), "{}", told[0]);
    let to_alice = sent.iter().filter(is_of_alice).count();
    assert_eq!(to_alice, told.len() - 1, "she was left over, too, and is told once");
    assert!((200..CROWD).contains(&to_alice), "{to_alice}");
    assert_eq!(due(&engine), (1, 1), "alice");
    let (stands, waited) = engine.shard.fan_out_stands(engine.now);
    assert_eq!((stands, waited), (0, Duration::ZERO), "no reason to refuse anything");
    let rest = engine.turn();
    assert_eq!(rest.iter().filter(is_notify).count(), CROWD - to_alice);
    assert_eq!(due(&engine), (0, 0));
}

#[test]
fn a_change_amid_what_a_start_owes_reaches_everybody() {
    let mut engine = killed_with_a_crowd();
    let first = engine.turn();
    let first: Vec<&String> = first.iter().filter(is_of_alice).collect();
    assert!(first.iter().all(|it| it.contains("<basic>open")));
    assert!((200..CROWD).contains(&first.len()), "{}", first.len());
    // Some have answered before the change, some after it.
    let (before, after) = first.split_at(first.len() / 2);
    let answers = |of: &[&String]| of.iter().map(|it| ok(it)).collect::<Vec<_>>();
    for answer in answers(before) {
        engine.take(by_udp(), &answer);
    }
    let mut told = engine.deliver(by_udp(), &publish(2, "closed"));
    for answer in answers(after) {
        told.extend(engine.deliver(by_udp(), &answer));
    }
    told.extend(engine.turn());
    let mut watchers: Vec<&str> = told
        .iter()
        .filter(|it| is_of_alice(it) && it.contains("<basic>closed"))
        .map(|it| field(it, "Call-ID"))
        .collect();
    assert_eq!(watchers.len(), CROWD, "each once");
    watchers.sort_unstable();
    watchers.dedup();
    assert_eq!(watchers.len(), CROWD);
    assert_eq!(engine.shard.counters().presentities_due.get(), 0);
}

#[test]
fn what_a_start_owes_is_owed_by_the_next_until_it_was_told() {
    let mut engine = killed_with_a_crowd();
    heartbeat(&engine);
    let killed_at = engine.now.wall.0;
    engine.now.wall.0 += 1_800_000;
    let mut engine = engine.restart(|_| ());
    // That tells not all.
    engine.pass(Duration::from_secs(1));
    assert_eq!(engine.shard.counters().presentities_left_over.get(), 1);
    let files = &engine.shard.files;
    for number in files.own_numbers() {
        let since = files.presence.undelivered_since(number);
        assert!((1..=killed_at).contains(&since), "{since}");
    }
}

#[test]
fn who_went_over_to_those_that_changed_and_is_gone_is_forgotten() {
    let mut engine = killed_with_a_crowd();
    let told = [engine.turn(), engine.turn()].concat();
    let to_carols = told.iter().find(|it| it.contains("Call-ID: w300\r\n")).expect("a NOTIFY of carol");
    let ours = field(to_carols, "From");
    let mut engine = engine.restart(|_| ());
    // She has something new to tell, and then nobody watches her any more, all in one turn.
    engine.take(by_udp(), &publish(2, "open").replace("alice", "carol"));
    let end = subscribe("UDP")
        .replace("branch=z9hG4bKs1", "branch=z9hG4bKend")
        .replace("To: <sip:alice@example.com>", &format!("To: {ours}"))
        .replace("alice", "carol")
        .replace("Call-ID: c1", "Call-ID: w300")
        .replace("CSeq: 1", "CSeq: 2")
        .replace("Expires: 3600", "Expires: 0");
    engine.take(by_udp(), &end);
    let sent = engine.sent();
    let last = sent.iter().find(|it| it.contains("terminated")).expect("the last NOTIFY");
    engine.take(by_udp(), &ok(last));
    assert_eq!((engine.shard.watched.len(), engine.shard.subscriptions.len()), (2, CROWD));
    engine.shard.input_waits = true;
    engine.turn();
    assert_eq!(engine.shard.watched.len(), 1, "carol is forgotten");
    engine.shard.input_waits = false;
    engine.turn();
    engine.turn();
    assert_eq!((engine.shard.watched.len(), engine.shard.counters().presentities_due.get()), (1, 0));
}
