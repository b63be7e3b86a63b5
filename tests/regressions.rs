//! Defects that were once in the server, each told and kept out by one test.
//!
//! Where one shard is enough it is driven by hand ([`OneShard`]); where several shards, a crash or the clock take part, a
//! whole server runs in virtual time ([`talk::Talk`]).

#[path = "regressions/talk.rs"]
mod talk;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use comsipl_benches::{OneShard, phone, publish, register, subscribe};
use comsipl_core::limits::{BINDINGS_PER_AOR_MAX, SUBSCRIPTIONS_PER_DIALOG_MAX, UNSUPPORTED_LISTED_MAX};
use comsipl_tests::world::Crash;
use comsipl_tests::world::sip_text::SipText;

use talk::{Talk, altered, ask, ok_to, register_contacts, sent, status_of};

#[test]
fn a_binding_named_by_instance_and_by_uri_is_not_changed_twice() {
    // A REGISTER named one binding by its instance and reg-id in one Contact, and by its URI in the next. Both changes were
    // carried out: the second removal met a slot that was free already and the shard panicked; where the second change was an
    // update it revived the freed slot, and the shard panicked when that ran out.
    for second in [0, 60] {
        let mut world = OneShard::new(512);
        let device = "+sip.instance=\"<urn:uuid:00000000-0000-4000-8000-000000000001>\";reg-id=1";
        // A flow is registered alone (RFC 5626 §6).
        let first = format!("<sip:a@192.0.2.1>;{device}");
        assert_eq!(status_of(&mut world, 1, &register_contacts("u", 1, &first)), 200);
        assert_eq!(status_of(&mut world, 1, &register_contacts("u", 2, "<sip:b@192.0.2.1>")), 200);
        let twice = format!("<sip:z@192.0.2.1>;{device};expires=0, <sip:a@192.0.2.1>;expires={second}");
        assert_eq!(status_of(&mut world, 1, &register_contacts("u", 3, &twice)), 400);

        let listed = ask(&mut world, 1, &register_contacts("u", 4, ""));
        assert_eq!(listed.values("Contact").len(), 2, "a refused REGISTER changes nothing: {listed:?}");
        for seconds in [61, 3600] {
            world.pass(seconds * 1000);
            world.settle();
        }
        assert_eq!(world.shard.counters().bindings.get(), 0, "both run out as ever");
    }
}

#[test]
fn a_register_that_takes_long_to_compare_is_refused() {
    // Contacts were compared each with each, and so were the parameters of their URIs, without a bound: one datagram of
    // 64 KB kept a shard busy for more than a second, during which it served nobody.
    let mut world = OneShard::new(512);
    for ending in [";expires=0", ""] {
        let contacts: Vec<String> = (0..3000).map(|n| format!("<sip:{:x}>{ending}", 0xa000 + n)).collect();
        let crowd = register_contacts("crowd", 1, &contacts.join(","));
        assert!(crowd.len() < 65_535, "it fits a datagram");
        assert_eq!(status_of(&mut world, 1, &crowd), 403);
    }
    let parameters = |count| (0..count).map(|n| format!(";{n:x}")).collect::<String>();
    let contact = |count| format!("<sip:x@192.0.2.1{}>", parameters(count));
    for count in [10_000, 100] {
        assert_eq!(status_of(&mut world, 1, &register_contacts("long", 1, &contact(count))), 400);
    }
    assert_eq!(world.shard.counters().bindings.get(), 0);

    // What real phones send is far below the bounds.
    assert_eq!(status_of(&mut world, 1, &register_contacts("long", 2, &contact(8))), 200);
    let some: Vec<String> = (0..BINDINGS_PER_AOR_MAX).map(|n| format!("<sip:{n}@192.0.2.1>")).collect();
    assert_eq!(status_of(&mut world, 1, &register_contacts("crowd", 2, &some.join(", "))), 200);
}

#[test]
fn subscriptions_of_one_call_id_and_tag_are_few() {
    // SUBSCRIBEs outside of a dialog that all had one Call-ID and one From tag, and a higher CSeq each time, made a dialog
    // each. All of these have one hash, and each further SUBSCRIBE read the records of all the others.
    let mut world = OneShard::new(512);
    let mut tags = Vec::new();
    for cseq in 1..=20 {
        let answer = ask(&mut world, 1, &subscribe(1, 2, cseq, None));
        match answer.status() {
            Some(200) => tags.push(answer.param("To", "tag").expect("a dialog has a tag").to_owned()),
            status => assert_eq!(status, Some(403), "{answer:?}"),
        }
    }
    assert_eq!(tags.len(), SUBSCRIPTIONS_PER_DIALOG_MAX);
    assert_eq!(world.shard.counters().subscriptions.get(), SUBSCRIPTIONS_PER_DIALOG_MAX as u64);

    // Others are served, even one that happens to use the same Call-ID.
    assert_eq!(status_of(&mut world, 5, &subscribe(5, 2, 1, None)), 200);
    let other_tag = altered(subscribe(1, 2, 50, None), &[(";tag=wT1\r\n", ";tag=other\r\n")]);
    assert_eq!(status_of(&mut world, 1, &other_tag), 200);

    // One that ends makes room for one.
    let end = altered(subscribe(1, 2, 60, Some(&tags[0])), &[("Expires: 3600", "Expires: 0")]);
    assert_eq!(status_of(&mut world, 1, &end), 200);
    assert_eq!(status_of(&mut world, 1, &subscribe(1, 2, 61, None)), 200);
    assert_eq!(status_of(&mut world, 1, &subscribe(1, 2, 62, None)), 403);

    // When all have run out there is room for all.
    world.pass(3_601_000);
    world.settle();
    assert_eq!(world.shard.counters().subscriptions.get(), 0);
    for cseq in 70..70 + SUBSCRIPTIONS_PER_DIALOG_MAX as u32 {
        assert_eq!(status_of(&mut world, 1, &subscribe(1, 2, cseq, None)), 200);
    }
}

#[test]
fn the_last_watcher_of_a_restless_presentity_is_reached() {
    // Each change of a presentity began the walk over its watchers anew. Where it changed in every turn, and the first
    // watchers were late with their answers, the walk looked at those again and again and never came to the last ones.
    const WATCHERS: usize = 20_000;
    const TURNS: u32 = 200;
    const ANSWERED_AFTER_TURNS: u32 = 4;
    let mut world = OneShard::new(2048);
    for n in 0..WATCHERS {
        world.deliver(phone(n), &subscribe(n, 0, 1, None));
        if n % 64 == 63 {
            world.settle();
        }
    }
    world.settle();

    let mut waiting: BTreeSet<usize> = (0..WATCHERS).collect();
    let mut late: VecDeque<(u32, usize, Vec<u8>)> = VecDeque::new();
    let mut tag: Option<String> = None;
    for turn in 1..=TURNS {
        world.pass(5);
        while let Some((_, n, answer)) = late.pop_front_if(|(sent, ..)| turn - *sent >= ANSWERED_AFTER_TURNS)
        {
            world.deliver(phone(n), &answer);
        }
        world.deliver(phone(0), &publish(0, turn, tag.as_deref(), Some(&format!("state {turn}"))));
        tag = world.newest_entity_tag();
        assert!(tag.is_some(), "the PUBLISH of turn {turn} is accepted");
        let now = world.now();
        world.shard.on_turn_end(now);
        for notify in sent(&mut world).iter().filter(|message| message.method() == Some("NOTIFY")) {
            let call_id = notify.header("Call-ID").expect("a NOTIFY has one");
            let n = call_id.strip_prefix('c').and_then(|rest| rest.strip_suffix("x0")).expect("ours");
            let n = n.parse().expect("a watcher's number");
            waiting.remove(&n);
            late.push_back((turn, n, ok_to(notify)));
        }
        if waiting.is_empty() {
            return;
        }
    }
    panic!("{} of {WATCHERS} watchers were told nothing in {TURNS} turns", waiting.len());
}

#[test]
fn a_document_cached_for_the_last_watcher_is_not_shown_to_the_next() {
    // A presentity waited in the fan-out's queue when its last watcher left. The NOTIFY that said good-bye put the document
    // into the cache; the next change found nobody to tell and left the cache alone; and whoever subscribed then, before the
    // queue came to that presentity, was shown the document before the change, and never the newest.
    let mut world = OneShard::new(512);
    let subscribed = ask(&mut world, 9, &subscribe(9, 2, 1, None));
    let to_tag = subscribed.param("To", "tag").expect("a dialog has a tag").to_owned();
    let mut tag = None;
    let mut say = |world: &mut OneShard, cseq, note: &str| {
        world.deliver(phone(2), &publish(2, cseq, tag.as_deref(), Some(note)));
        tag = world.newest_entity_tag();
        assert!(tag.is_some(), "{note} is accepted");
    };
    say(&mut world, 1, "first");
    world.settle();
    world.pass(1000);

    // All this comes in one turn, so that the fan-out does not run in between.
    say(&mut world, 2, "second");
    sent(&mut world);
    let end = altered(subscribe(9, 2, 2, Some(&to_tag)), &[("Expires: 3600", "Expires: 0")]);
    world.deliver(phone(9), &end);
    let last = sent(&mut world).pop().expect("a NOTIFY ends the subscription");
    assert!(
        last.header("Subscription-State").is_some_and(|state| state.starts_with("terminated")),
        "{last:?}"
    );
    assert_eq!(last.elements("note"), ["second"]);
    world.deliver(phone(9), &ok_to(&last));
    say(&mut world, 3, "third");
    sent(&mut world);
    world.deliver(phone(8), &subscribe(8, 2, 1, None));
    let first = sent(&mut world).pop().expect("a NOTIFY follows the 200");
    assert_eq!(first.elements("note"), ["third"]);
}

#[test]
fn a_user_who_was_forgotten_in_between_does_not_begin_with_old_versions() {
    // The versions of a user's documents grow with the wall clock, or by one. The last watcher of a user who had published
    // nothing left, so the user's shard forgot her and the last version with her; a new watcher came to the watchers' shard
    // before that and knew the version. What she published in the same millisecond got a version that was not higher: the
    // watchers' shard took it for old news, and its watcher saw her closed while she was open.
    let mut talk = Talk::new(2);
    let moment = Duration::from_micros(100);
    // By the hashes of names and Call-IDs, about half of the users live on another shard than their watchers.
    for user in 0..12 {
        let watcher = 100 + user;
        let subscribed = talk.ask(watcher, &subscribe(watcher, user, 1, None));
        let to_tag = subscribed[0].param("To", "tag").expect("a dialog has a tag").to_owned();
        // From here to the last PUBLISH it is one millisecond.
        let into = talk.world.now().subsec_micros() % 1000;
        talk.hear(Duration::from_micros(u64::from(1000 - into)));
        let begun = talk.world.wall();
        talk.say(user, &publish(user, 1, None, Some("here")));
        let heard = talk.hear(moment);
        let tag = heard.iter().find_map(|message| message.header("SIP-ETag")).expect("accepted").to_owned();
        let nothing = altered(publish(user, 2, Some(&tag), None), &[("Expires: 3600", "Expires: 0")]);
        talk.say(user, &nothing);
        talk.hear(moment);
        let end = altered(subscribe(watcher, user, 2, Some(&to_tag)), &[("Expires: 3600", "Expires: 0")]);
        talk.polite = false;
        talk.say(watcher, &end);
        let last = talk.hear(moment).pop().expect("a NOTIFY ends the subscription");
        assert_eq!((last.method(), last.elements("basic")), (Some("NOTIFY"), vec!["closed".to_owned()]));
        // The last answer of the old watcher and the SUBSCRIBE of the new one come in one turn.
        talk.polite = true;
        let tags = [(format!("tag=wT{watcher}"), format!("tag=next{watcher}"))];
        let tags = tags.each_ref().map(|(from, to)| (from.as_str(), to.as_str()));
        talk.say(watcher, &ok_to(&last));
        talk.say(watcher, &altered(subscribe(watcher, user, 3, None), &tags));
        let heard = talk.hear(moment);
        assert_eq!(heard[0].status(), Some(200), "{heard:?}");
        talk.say(user, &publish(user, 3, None, Some("here again")));
        let mut heard = talk.hear(moment);
        assert_eq!(talk.world.wall(), begun, "all of it took place in one millisecond");
        heard.extend(talk.hear(Duration::from_secs(60)));
        let told = heard.iter().rfind(|message| message.method() == Some("NOTIFY"));
        let told = told.map(|notify| notify.elements("basic"));
        assert_eq!(told, Some(vec!["open".to_owned()]), "user {user}\n{}", talk.world.story());
    }
}

#[test]
fn a_subscription_that_was_ending_at_a_crash_ends_after_it() {
    // A silent watcher ended its subscription while a NOTIFY was under way. The process died before the last NOTIFY had run
    // its time, but longer after the SUBSCRIBE than what a start takes for recent; its successor took the last NOTIFY for
    // sent, waited for its end, and kept the subscription for ever.
    let mut talk = Talk::new(2);
    talk.polite = false;
    let subscribed = talk.ask(1, &subscribe(1, 2, 1, None));
    let to_tag = subscribed[0].param("To", "tag").expect("a dialog has a tag").to_owned();
    talk.hear(Duration::from_secs(1));
    let end = altered(subscribe(1, 2, 2, Some(&to_tag)), &[("Expires: 3600", "Expires: 0")]);
    assert_eq!(talk.ask(1, &end)[0].status(), Some(200));
    talk.hear(Duration::from_secs(45));
    assert!(talk.world.records_in_use().presence > 0, "its end is not over yet");
    talk.world.crash(Crash::of_process(Duration::from_secs(2)));
    talk.hear(Duration::from_secs(2 + 120));
    assert_eq!(talk.world.records_in_use().presence, 0, "\n{}", talk.world.story());
}

#[test]
fn an_answer_lists_a_few_unknown_extensions_only() {
    // Each extension named in Require got a line of its own in the 420: 60 KB of them were answered by 512 KB, which no
    // datagram carries.
    let mut world = OneShard::new(512);
    let options = format!(
        "OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK.o;rport\r\n\
         From: <sip:a@example.com>;tag=f\r\nTo: <sip:a@example.com>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\n\
         Max-Forwards: 70\r\nRequire: {}a\r\nContent-Length: 0\r\n\r\n",
        "a,".repeat(30_000)
    );
    let answer = ask(&mut world, 1, options.as_bytes());
    assert_eq!(answer.status(), Some(420));
    let listed = answer.all("Unsupported").count();
    assert!((1..=UNSUPPORTED_LISTED_MAX).contains(&listed), "{listed} lines");
    assert!(answer.values("Unsupported").iter().all(|extension| *extension == "a"));
}

#[test]
fn answers_are_kept_when_traffic_grows() {
    // Answers lay in a ring that turned early while traffic was light, to stay small. When traffic grew, the new answers
    // overwrote those in front of them, though most of the ring had never been used; a REGISTER sent again was taken for a new
    // one then and got 500, because its CSeq was not higher.
    const USERS: u64 = 50;
    let mut world = OneShard::new(512);
    let mut answered: VecDeque<(u64, usize, Vec<u8>, Vec<u8>)> = VecDeque::new();
    let mut count = 0;
    for (seconds, per_second) in [(80, 100), (40, 1000)] {
        for _ in 0..seconds {
            for _ in 0..per_second {
                world.pass(1000 / per_second);
                let (n, cseq) = ((count % USERS) as usize, 1 + (count / USERS) as u32);
                count += 1;
                let request = register(n, cseq);
                world.deliver(phone(n), &request);
                let answer = world.shard.outbox.newest_head().expect("an answer").to_vec();
                assert!(answer.starts_with(b"SIP/2.0 200 "));
                world.end_turn();
                answered.push_back((world.now().mono.0, n, request, answer));
            }
            // Some of each age up to 31 s are sent again.
            let now = world.now().mono.0;
            while answered.pop_front_if(|(at, ..)| now - *at > 31_000_000).is_some() {}
            for (at, n, request, answer) in answered.iter().step_by(97) {
                world.deliver(phone(*n), request);
                let again = world.shard.outbox.newest_head().expect("an answer");
                assert!(again == answer, "after {} us: {}", now - at, again.escape_ascii());
                world.end_turn();
            }
        }
    }
    assert_eq!(world.shard.counters().answers_forgotten_early.get(), 0);
}

#[test]
fn a_register_whose_answer_died_with_the_process_is_answered_when_it_comes_again() {
    // A REGISTER was stored, and the process died before the 200 was sent. The retransmission met a binding with its own
    // Call-ID and CSeq, was said to be out of order and got 500: the phone believed that it was not registered.
    let mut talk = Talk::new(2);
    talk.world.crash_before_next_send(Crash::of_process(Duration::from_millis(300)));
    talk.say(1, &register(1, 7));
    assert!(talk.hear(Duration::from_millis(500)).is_empty(), "the answer is lost");
    assert!(talk.world.is_up());
    assert_eq!(talk.world.records_in_use().registered, 1, "the binding is stored");
    for _ in 0..2 {
        let answer = talk.ask(1, &register(1, 7)).remove(0);
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        let contacts = answer.values("Contact");
        assert!(matches!(contacts[..], [contact] if contact.contains("<sip:user1@")), "{contacts:?}");
    }
    assert_eq!(talk.world.records_in_use().registered, 1);
    assert_eq!(talk.ask(1, &register(1, 8))[0].status(), Some(200), "the next one goes on from there");
}

#[test]
fn a_subscription_added_to_a_dialog_reserves_the_sequence_numbers_of_the_dialog() {
    // A subscription that joined a dialog (another "id" of Event) was stored as if its sequence numbers began at 1. When the
    // one that was there before had ended, and the process died, the successor went on far below what the watcher had seen,
    // and the watcher refused every NOTIFY.
    const CHANGES: u32 = 4300; // more than what a start skips
    let mut talk = Talk::new(2);
    let subscribed = talk.ask(1, &subscribe(1, 2, 1, None));
    let to_tag = subscribed[0].param("To", "tag").expect("a dialog has a tag").to_owned();
    let mut tag: Option<String> = None;
    let newest = |heard: &[SipText]| {
        let notifies = heard.iter().filter(|message| message.method() == Some("NOTIFY"));
        notifies.filter_map(SipText::cseq).max()
    };
    let mut highest = newest(&subscribed).expect("the first NOTIFY");
    for change in 1..=CHANGES {
        let heard = talk.ask(2, &publish(2, change, tag.as_deref(), Some(&format!("state {change}"))));
        tag = heard.iter().find_map(|message| message.header("SIP-ETag")).map(str::to_owned);
        assert_eq!(newest(&heard), Some(highest + 1), "each change is told once");
        highest += 1;
    }
    let other = [("Event: presence\r\n", "Event: presence;id=2\r\n")];
    let joined = talk.ask(1, &altered(subscribe(1, 2, 2, Some(&to_tag)), &other));
    assert_eq!(newest(&joined), Some(highest + 1), "one dialog, one sequence");
    let end = altered(subscribe(1, 2, 3, Some(&to_tag)), &[("Expires: 3600", "Expires: 0")]);
    highest = newest(&talk.ask(1, &end)).expect("the last NOTIFY of the first subscription");

    talk.world.crash(Crash::of_process(Duration::from_secs(1)));
    let mut heard = talk.hear(Duration::from_secs(10));
    heard.extend(talk.ask(2, &publish(2, CHANGES + 1, tag.as_deref(), Some("after the crash"))));
    let lowest =
        heard.iter().filter(|message| message.method() == Some("NOTIFY")).filter_map(SipText::cseq).min();
    let lowest = lowest.expect("the second subscription is told on");
    assert!(lowest > highest, "CSeq {lowest} after {highest}\n{}", talk.world.story());
}

#[test]
fn a_cancel_reaches_the_shard_that_answered_its_subscribe() {
    // A CANCEL was answered by the shard that happened to receive it. That one did not know the SUBSCRIBE unless it was also
    // the owner of its Call-ID, and said 481 of a request that the server had answered.
    let mut talk = Talk::new(4);
    for n in 0..16 {
        let request = subscribe(n, 50, 1, None);
        assert_eq!(talk.ask(n, &request)[0].status(), Some(200));
        let cancel = altered(request, &[("SUBSCRIBE sip:", "CANCEL sip:"), ("1 SUBSCRIBE", "1 CANCEL")]);
        let unknown = altered(cancel.clone(), &[("branch=z9hG4bK.s", "branch=z9hG4bK.unknown")]);
        assert_eq!(talk.ask(n, &unknown)[0].status(), Some(481));
        assert_eq!(talk.ask(n, &cancel)[0].status(), Some(200), "phone {n}");
    }
}

#[test]
fn a_document_that_found_no_room_is_composed_after_a_restart() {
    // A publication was stored while its document found no room in the file. After a restart with more room nobody remembered
    // that, and a phone that said the same again changed nothing: watchers were told the old state for ever.
    const TOLD: usize = 70_000;
    let mut world = OneShard::new(512);
    let mut tag = ask(&mut world, 0, &publish(0, 1, None, Some("first")));
    let long = "y".repeat(1500);
    let mut refused = 0;
    // The first refusal is of some partition; all of them are full when many in a row are refused.
    for n in 1..60_000 {
        let status = status_of(&mut world, n, &publish(n, 1, None, Some(&long)));
        refused = if status == 503 { refused + 1 } else { 0 };
        if refused == 600 {
            break;
        }
    }
    assert_eq!(refused, 600, "the file is full");
    let mut newest = None;
    for (cseq, size) in (2..).zip((200..9000).step_by(7)) {
        let note = format!("change {cseq} {}", "z".repeat(size));
        let changes = world.shard.counters().changes.get();
        let if_match = tag.header("SIP-ETag").expect("a tag").to_owned();
        world.pass(1);
        tag = ask(&mut world, 0, &publish(0, cseq, Some(&if_match), Some(&note)));
        assert_eq!(tag.status(), Some(200), "the publication finds room as long as its document does");
        if world.shard.counters().changes.get() == changes {
            newest = Some((cseq, note));
            break;
        }
    }
    let (cseq, note) = newest.expect("a document that finds no room");

    let mut world = world.started_again(4096, 600_000);
    world.settle();
    let told = |world: &mut OneShard, n: usize| {
        world.deliver(phone(n), &subscribe(n, 0, 1, None));
        world.shard.on_turn_end(world.now());
        let heard = sent(world);
        heard.iter().any(|message| message.body.contains(&note))
    };
    assert!(told(&mut world, TOLD), "a start with room composes what found none");
    let if_match = tag.header("SIP-ETag").expect("a tag");
    let again = ask(&mut world, 0, &publish(0, cseq + 1, Some(if_match), Some(&note)));
    assert_eq!(again.status(), Some(200));
    assert!(told(&mut world, TOLD + 1));
}
