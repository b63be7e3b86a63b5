//! Beyond every bound the sender gets a clear answer, and nobody else notices.

use comsipl_benches::{OneShard, phone, publish, register, subscribe};
use comsipl_core::event::winfo::{split_report, watchers};
use comsipl_core::{AorKey, ConnectionId, Flow, Transport};
use comsipl_shards::Report;
use comsipl_shards::note::Note;

/// Status line and head of the answer to `message`.
fn answer(world: &mut OneShard, n: usize, message: &[u8]) -> String {
    world.deliver(phone(n), message);
    let outbox = &world.shard.outbox;
    let first = outbox.messages().first().expect("every request is answered");
    let head = String::from_utf8_lossy(outbox.head(first)).into_owned();
    world.settle();
    head
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

/// The To tag that an answer gave.
fn to_tag(head: &str) -> String {
    let to = head.split("\r\n").find(|line| line.starts_with("To: ")).expect("every answer has a To");
    to.split_once(";tag=").expect("every answer of a dialog has a tag").1.to_owned()
}

#[test]
fn a_document_that_no_notify_could_carry_is_413() {
    let mut world = OneShard::new(4096);
    let long = "x".repeat(57 * 1024);
    let head = answer(&mut world, 1, &publish(1, 1, None, Some(&long)));
    assert!(head.starts_with("SIP/2.0 413 Request Entity Too Large"), "{head}");
    // Several devices may not add up to it either: what watchers get is composed of all of them.
    let half = "x".repeat(30 * 1024);
    assert_eq!(status(&answer(&mut world, 2, &publish(2, 1, None, Some(&half)))), "200");
    assert_eq!(status(&answer(&mut world, 2, &publish(2, 2, None, Some(&half)))), "413");
    assert_eq!(status(&answer(&mut world, 2, &publish(2, 3, None, Some("short")))), "200");
}

#[test]
fn a_full_table_is_503_with_retry_after_and_others_are_served_on() {
    // 512 records a partition is the smallest table; phones come until one partition is full.
    let mut world = OneShard::new(512);
    let mut accepted = Vec::new();
    let mut refused = 0;
    for n in 0..60_000 {
        let head = answer(&mut world, n, &subscribe(n, n % 7, 1, None));
        match status(&head) {
            "200" => accepted.push((n, to_tag(&head))),
            "503" => {
                refused += 1;
                let retry = head.split("\r\n").find_map(|line| line.strip_prefix("Retry-After: "));
                let secs: u32 = retry.and_then(|secs| secs.parse().ok()).expect("503 says when to come back");
                assert!((10..60).contains(&secs), "spread, so that they do not come back together: {secs}");
            }
            other => panic!("{other}: {head}"),
        }
        if refused > 20 {
            break;
        }
    }
    assert!(refused > 20, "a partition filled up");
    assert_eq!(world.shard.counters().refused_full.get(), refused);
    let before = world.notifies;
    let head = answer(&mut world, 3, &publish(3, 1, None, Some("told to all")));
    // The presentity's partition may be the full one; then the PUBLISH itself is the one that is refused.
    if status(&head) == "503" {
        return;
    }
    assert_eq!(status(&head), "200");
    let (watchers, others): (Vec<_>, Vec<_>) = accepted.into_iter().partition(|(n, _)| n % 7 == 3);
    if world.notifies == before {
        // The publication got the last room of its partition, and the document made of it waits until somebody leaves.
        for (n, tag) in others {
            let leave = String::from_utf8(subscribe(n, n % 7, 2, Some(&tag))).expect("text");
            let leave = leave.replace("\r\nExpires: 3600\r\n", "\r\nExpires: 0\r\n");
            assert_eq!(status(&answer(&mut world, n, leave.as_bytes())), "200");
        }
        let before = world.notifies;
        world.pass(2_000);
        world.settle();
        assert_eq!(world.notifies - before, watchers.len() as u64, "every accepted watcher is told");
        return;
    }
    assert_eq!(world.notifies - before, watchers.len() as u64, "every accepted watcher is told");
}

#[test]
fn more_bindings_than_a_user_may_have_are_refused_and_the_others_stay() {
    let mut world = OneShard::new(4096);
    let contact = |n: u32| {
        let mut message = String::from_utf8(register(1, n)).expect("text");
        message = message.replace("user1@127", &format!("device{n}@127"));
        message.replace("Call-ID: reg-1", &format!("Call-ID: reg-{n}")).into_bytes()
    };
    for n in 1..=32 {
        assert_eq!(status(&answer(&mut world, 1, &contact(n))), "200");
    }
    assert_eq!(status(&answer(&mut world, 1, &contact(33))), "403");
    let head = answer(&mut world, 1, &contact(132));
    assert_eq!(status(&head), "403");
    assert_eq!(world.shard.counters().bindings.get(), 32);
}

#[test]
fn more_publications_than_a_presentity_may_have_are_refused() {
    let mut world = OneShard::new(4096);
    for cseq in 1..=32 {
        assert_eq!(status(&answer(&mut world, 1, &publish(1, cseq, None, Some("a device")))), "200");
    }
    let head = answer(&mut world, 1, &publish(1, 33, None, Some("one too many")));
    assert_eq!(status(&head), "503");
    assert!(head.contains("\r\nRetry-After: "));
}

#[test]
fn more_watchers_than_a_winfo_document_holds_are_counted_and_not_listed() {
    let mut world = OneShard::new(4096);
    const WATCHERS: usize = 1500;
    for n in 0..WATCHERS {
        assert_eq!(status(&answer(&mut world, n, &subscribe(n, 1, 1, None))), "200");
    }
    let unlisted = |world: &OneShard| world.shard.counters().watchers_unlisted.get();
    assert_eq!(unlisted(&world), 0, "nobody asks, so nobody is looked at");
    world.deliver(phone(WATCHERS), &winfo(WATCHERS, 1));
    world.shard.on_turn_end(world.now());
    let messages = world.shard.outbox.messages();
    let sent: Vec<String> = messages
        .iter()
        .map(|message| {
            let parts = world.shard.outbox.parts(message, &world.shard.bodies).concat();
            String::from_utf8_lossy(&parts).into_owned()
        })
        .collect();
    let notify = sent.iter().find(|text| text.starts_with("NOTIFY ")).expect("the state is told");
    let listed = notify.matches("<watcher id=").count();
    assert!((200..1000).contains(&listed) && notify.len() < 60 * 1024, "{listed} in {} bytes", notify.len());
    assert_eq!(unlisted(&world), (WATCHERS - listed) as u64);
}

/// A SUBSCRIBE of watcher `n` to the watchers of `presentity`.
fn winfo(n: usize, presentity: usize) -> Vec<u8> {
    let message = String::from_utf8(subscribe(n, presentity, 1, None)).expect("text");
    let message = message.replace("Event: presence\r\n", "Event: presence.winfo\r\n");
    message.replace("application/pidf+xml", "application/watcherinfo+xml").into_bytes()
}

/// The same message that ends what it subscribes to.
fn ending(message: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(message).replace("Expires: 3600\r\n", "Expires: 0\r\n").into_bytes()
}

/// Brings a SUBSCRIBE to the first of two shards; whether it owns the dialog and says yes.
fn is_taken(world: &mut OneShard, n: usize, message: &[u8]) -> bool {
    let answered = answer(world, n, message);
    status(&answered) == "200"
}

/// A presentity of this shard, or of the other one of two, as a number and a key, and the first of its watchers, whose dialogs are
/// ours. Who owns whom is another with each file.
fn watched(world: &mut OneShard, is_ours: bool) -> (usize, Option<AorKey>, usize) {
    // Each with a presentity of its own: of one that is watched already the other shard is not told again.
    for n in 0..1000 {
        let presentity = n;
        if !is_taken(world, n, &subscribe(n, presentity, 1, None)) {
            continue;
        }
        let notes = std::mem::take(&mut world.shard.notes);
        let key = notes.iter().find_map(|(_, note)| match note {
            Note::Watch { key, .. } => Some(*key),
            _ => None,
        });
        if key.is_none() == is_ours {
            return (presentity, key, n);
        }
    }
    panic!("one of so many users is ours, and one is not");
}

#[test]
fn whoever_polls_winfo_makes_the_shards_report_once_in_a_second() {
    let mut world = OneShard::one_of(2, 4096);
    let (presentity, _, first) = watched(&mut world, true);
    let mut asked = 0;
    let mut next = first + 1;
    let mut poll = |world: &mut OneShard| {
        for n in next..next + 100 {
            is_taken(world, n, &ending(&winfo(n, presentity)));
            for (_, note) in std::mem::take(&mut world.shard.notes) {
                if let Note::WinfoWanted { key, wanted: true } = note {
                    asked += 1;
                    world.shard.on_report(world.now(), Report { key, shard: 1, bytes: Vec::new() });
                }
            }
            world.settle();
        }
        next += 100;
        asked
    };
    let before = world.notifies;
    assert_eq!(poll(&mut world), 1);
    assert!(world.notifies - before > 20, "{} polls were answered", world.notifies - before);
    world.pass(999);
    assert_eq!(poll(&mut world), 1);
    world.pass(1000);
    world.settle();
    assert_eq!(poll(&mut world), 2, "after a second without polls it begins anew");
}

#[test]
fn a_shard_reports_watchers_once_in_a_second_whatever_happens() {
    let mut world = OneShard::one_of(2, 4096);
    let (presentity, key, first) = watched(&mut world, false);
    let key = key.expect("the other shard is told");
    let wanted = |world: &mut OneShard, wanted| {
        world.shard.on_note(world.now(), Note::WinfoWanted { key, wanted });
        world.settle();
    };
    wanted(&mut world, true);
    assert_eq!(world.shard.reports.len(), 1);
    // Asked again and again, and with watchers who come, poll and go, the last one included.
    let mut comes = first + 1;
    for _ in 0..200 {
        wanted(&mut world, true);
        is_taken(&mut world, comes, &subscribe(comes, presentity, 1, None));
        comes += 1;
        is_taken(&mut world, comes, &ending(&subscribe(comes, presentity, 1, None)));
        comes += 1;
    }
    assert_eq!(world.shard.reports.len(), 1);
    world.pass(1000);
    world.settle();
    assert_eq!(world.shard.reports.len(), 2);
    // Nothing is new, so nothing is said.
    world.pass(10_000);
    world.settle();
    assert_eq!(world.shard.reports.len(), 2);
}

#[test]
fn a_report_fits_the_bus_and_names_whoever_watches_first() {
    let mut world = OneShard::one_of(2, 4096);
    let (presentity, key, first) = watched(&mut world, false);
    let key = key.expect("the other shard is told");
    world.shard.on_note(world.now(), Note::WinfoWanted { key, wanted: true });
    world.settle();
    let long = "x".repeat(800);
    let named = |message: Vec<u8>| {
        String::from_utf8_lossy(&message)
            .replace("From: <sip:watcher", &format!("From: <sip:{long}"))
            .into_bytes()
    };
    let mut ended = 0;
    for n in first + 1.. {
        let message = named(subscribe(n, presentity, 1, None));
        let head = answer(&mut world, n, &message);
        if status(&head) != "200" {
            continue;
        }
        let to = head.split("\r\n").find(|line| line.starts_with("To: ")).expect("it has a To");
        let tag = to.split(";tag=").nth(1).expect("a dialog was made").to_owned();
        assert!(is_taken(&mut world, n, &ending(&named(subscribe(n, presentity, 2, Some(&tag))))), "{tag}");
        ended += 1;
        if ended == 64 {
            break;
        }
    }
    let unlisted = world.shard.counters().watchers_unlisted.get();
    world.pass(1000);
    world.settle();
    let report = world.shard.reports.last().expect("the ends are told").1.bytes.clone();
    assert!(report.len() <= 33 * 1024, "{}", report.len());
    let (aor, rest) = split_report(&report).expect("it is whole");
    assert_eq!(aor, format!("user{presentity}@example.com").as_bytes());
    let told: Vec<_> = watchers(rest).collect();
    assert_eq!(told[0].uri, format!("sip:watcher{first}@example.com").as_bytes());
    assert!(told.len() > 30 && told[1..].iter().all(|watcher| !watcher.event.is_active()), "{}", told.len());
    assert_eq!(world.shard.counters().watchers_unlisted.get() - unlisted, 65 - told.len() as u64);
}

/// The flow of a connection.
fn connection(slot: u32) -> Flow {
    let connection = Some(ConnectionId::new(0, slot, 1));
    Flow { transport: Transport::Tcp, connection, ..Flow::udp(0, None, phone(1)) }
}

#[test]
fn a_register_brings_few_devices_to_a_new_connection() {
    let mut world = OneShard::one_of(2, 4096);
    let contacts: Vec<String> = (0..32)
        .map(|n| format!("Contact: <sip:d{n}@192.0.2.1;transport=tcp>;+sip.instance=\"<urn:uuid:{n}>\"\r\n"))
        .collect();
    let mut notes = 0;
    for n in 0..100 {
        let message = String::from_utf8(register(n, 1)).expect("text");
        let (head, rest) = message.split_once("Contact: ").expect("it has one");
        let message = format!("{head}{}{}", contacts.concat(), rest.split_once("\r\n").expect("a line").1);
        world.shard.on_datagram(world.now(), connection(7), message.as_bytes());
        world.settle();
        notes = world.shard.notes.iter().filter(|(_, note)| matches!(note, Note::FlowRenewed { .. })).count();
        if notes > 0 {
            break;
        }
    }
    assert_eq!(notes, 8, "one of a hundred users is ours");
}

#[test]
fn new_connections_take_turns_and_the_newest_counts() {
    const WATCHING: usize = 1100;
    let mut world = OneShard::new(4096);
    for n in 0..WATCHING {
        let message = String::from_utf8(subscribe(n, n, 1, None)).expect("text");
        let message = message.replace(&format!("sip:watcher{n}@"), "sip:watcher@");
        let message = message.replace(&phone(n).to_string(), &phone(0).to_string());
        world.shard.on_datagram(world.now(), connection(1), message.as_bytes());
        world.shard.outbox.clear(&mut world.shard.bodies);
    }
    // None of the NOTIFYs is answered, so each is sent anew by every new connection.
    let by = |world: &mut OneShard, slot| {
        let wanted = connection(slot).connection;
        let count =
            world.shard.outbox.messages().iter().filter(|message| message.flow.connection == wanted).count();
        world.shard.outbox.clear(&mut world.shard.bodies);
        count
    };
    let register = |world: &mut OneShard, slot: u32| {
        let message =
            String::from_utf8(register(0, slot)).expect("text").replace("sip:user0@", "sip:watcher@");
        world.shard.on_datagram(world.now(), connection(slot), message.as_bytes());
    };
    register(&mut world, 2);
    assert_eq!(by(&mut world, 2), 1 + WATCHING, "an answer, and all of them");
    register(&mut world, 3);
    register(&mut world, 4);
    assert_eq!(by(&mut world, 4), 1, "the answer, and nothing in this turn");
    for _ in 0..8 {
        world.shard.on_turn_end(world.now());
    }
    assert_eq!(by(&mut world, 4), WATCHING);
}

#[test]
fn a_request_at_the_wrong_shard_is_refused_and_touches_nothing() {
    // Should the look that finds a datagram's owner and the parser ever disagree, this is what happens.
    let mut world = OneShard::one_of(2, 4096);
    let (mut served, mut refused) = (0, 0);
    for n in 0..200 {
        for message in [register(n, 1), subscribe(n, n, 1, None), publish(n, 1, None, Some("state"))] {
            match status(&answer(&mut world, n, &message)) {
                "200" => served += 1,
                "400" => refused += 1,
                other => panic!("{other}"),
            }
        }
    }
    assert!(served > 200 && refused > 200, "{served} ours, {refused} of the other shard");
}
