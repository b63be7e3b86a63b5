//! Nobody can have us flood somebody else (RFC 3261 §26.1.5: "denial of service and amplification").

use std::net::SocketAddr;

use comsipl_benches::{OneShard, phone, publish, subscribe};
use comsipl_shards::reach::{ALLOWANCE, EARNED, REFILL_PER_S};

/// Sends SUBSCRIBEs in whatever name.
const ATTACKER: SocketAddr = address(66);
/// Wants nothing of us.
const VICTIM: SocketAddr = address(9);

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last)), 5060)
}

/// The SUBSCRIBE of a watcher whose Contact is `contact`, within its dialog if there is one.
fn subscribe_for(contact: SocketAddr, watcher: usize, cseq: u32, to_tag: Option<&str>) -> Vec<u8> {
    let text = String::from_utf8(subscribe(watcher, 1, cseq, to_tag)).expect("text");
    let own = comsipl_benches::phone(watcher).to_string();
    // The first is in Via: where Via and Contact agree on another address than the source, that is a NAT, and the source is told.
    text.replacen(&own, "198.51.100.7:5060", 1).replace(&own, &contact.to_string()).into_bytes()
}

/// Ends the turn; says what was sent to `peer`.
fn sent_to(world: &mut OneShard, peer: SocketAddr) -> Vec<String> {
    let now = world.now();
    world.shard.on_turn_end(now);
    let outbox = &world.shard.outbox;
    let text = |message| outbox.parts(message, &world.shard.bodies).concat();
    let to_peer = outbox.messages().iter().filter(|message| message.flow.peer == peer);
    let sent = to_peer.map(|message| String::from_utf8_lossy(&text(message)).into_owned()).collect();
    world.end_turn();
    sent
}

fn bytes(messages: &[String]) -> u64 {
    messages.iter().map(|message| message.len() as u64).sum()
}

/// How many bytes a victim gets whom `source` names in Contact, and what it cost: one SUBSCRIBE each 200 ms for a minute, and a
/// minute of silence.
fn attack(source: SocketAddr, note: &str) -> (OneShard, u64, u64) {
    let mut world = OneShard::open_to_all(4096);
    world.deliver(phone(1), &publish(1, 1, None, Some(note)));
    let (mut received, mut sent) = (0, 0);
    for n in 0..600 {
        if n < 300 {
            let message = subscribe_for(VICTIM, n, 1, None);
            received += message.len() as u64;
            world.deliver(source, &message);
        }
        let all = sent_to(&mut world, VICTIM);
        let notifies: Vec<_> = all.into_iter().filter(|it| it.starts_with("NOTIFY ")).collect();
        sent += bytes(&notifies);
        world.pass(200);
    }
    (world, received, sent)
}

#[test]
fn who_never_answers_is_sent_little_more_than_what_was_paid_for() {
    for source in [ATTACKER, VICTIM] {
        let (world, received, sent) = attack(source, "here");
        let most = ALLOWANCE + EARNED * received + REFILL_PER_S * 120 + 2000;
        assert!(sent > ALLOWANCE && sent <= most, "{sent} bytes for {received}, at most {most}");
        let counters = world.shard.counters();
        assert!(counters.notifies_withheld.get() > 100, "{}", counters.notifies_withheld.get());
        assert_eq!(counters.subscribes_out_of_reach.get(), 0, "each pays for its own NOTIFY");
        assert_eq!(counters.refused_full.get(), 0);
    }
}

#[test]
fn who_cannot_be_reached_is_told_so_and_has_no_subscription() {
    let (mut world, ..) = attack(ATTACKER, &"far away ".repeat(500));
    let mut refused = None;
    for n in 1000..1300 {
        let before = world.shard.counters().subscribes_out_of_reach.get();
        world.deliver(ATTACKER, &subscribe_for(VICTIM, n, 1, None));
        if world.shard.counters().subscribes_out_of_reach.get() > before {
            refused = Some(sent_to(&mut world, ATTACKER));
            break;
        }
        sent_to(&mut world, ATTACKER);
    }
    let refused = refused.expect("the allowance ends");
    assert!(refused[0].starts_with("SIP/2.0 500 "), "{refused:?}");
    assert!(refused[0].contains("\r\nRetry-After: "), "{refused:?}");
    assert!(!refused.iter().any(|message| message.starts_with("NOTIFY ")));
}

#[test]
fn who_answers_is_told_everything() {
    let mut world = OneShard::open_to_all(4096);
    for n in 0..1000 {
        world.deliver(VICTIM, &subscribe_for(VICTIM, n, 1, None));
        world.settle();
    }
    assert_eq!(world.notifies, 1000);
    assert_eq!(world.shard.counters().notifies_withheld.get(), 0);
    assert_eq!(world.shard.counters().subscribes_out_of_reach.get(), 0);
}

/// Who had been told at one place, and so had seen a branch of ours, could once work out the branches of the NOTIFYs that went to
/// the next place, and go on answering them.
#[test]
fn nobody_answers_for_the_place_that_he_sends_us_to() {
    let mut world = OneShard::open_to_all(4096);
    world.deliver(ATTACKER, &subscribe_for(ATTACKER, 1, 1, None));
    let tag = world.first_to_tag().expect("it is accepted");
    let notify =
        sent_to(&mut world, ATTACKER).into_iter().find(|it| it.starts_with("NOTIFY ")).expect("told");
    world.answer();
    assert_eq!(world.shard.counters().notifies_delivered.get(), 1);
    let (mark, check, cseq) = branch_and_cseq(&notify);
    let secret = secret_of(check, cseq);

    world.deliver(ATTACKER, &subscribe_for(VICTIM, 1, 2, Some(&tag)));
    let next = sent_to(&mut world, VICTIM).into_iter().find(|it| it.starts_with("NOTIFY ")).expect("told");
    let (_, check, next_cseq) = branch_and_cseq(&next);
    let made_up = format!("{mark}{:08x}", check_of(secret, next_cseq));
    let answer = format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {VICTIM};branch={made_up}\r\nFrom: <sip:user1@example.com>;tag={tag}\r\n\
         To: <sip:watcher1@example.com>;tag=wT1\r\nCall-ID: c1x1\r\nCSeq: {next_cseq} NOTIFY\r\n\
         Content-Length: 0\r\n\r\n"
    );
    world.deliver(ATTACKER, answer.as_bytes());
    assert_eq!(world.shard.counters().notifies_delivered.get(), 1, "{next}");
    let honest = answer.replace(&made_up, &format!("{mark}{check:08x}"));
    world.deliver(VICTIM, honest.as_bytes());
    assert_eq!(world.shard.counters().notifies_delivered.get(), 2, "only the secret was missing");
}

/// The branch of a NOTIFY without its check, the check, and the sequence number.
fn branch_and_cseq(notify: &str) -> (String, u32, u32) {
    let after = |mark: &str| notify.split(mark).nth(1).unwrap_or_else(|| panic!("{mark} in {notify}"));
    let branch = after("branch=").split([';', '\r']).next().expect("a branch");
    let (mark, check) = branch.split_at(branch.len() - 8);
    let cseq = after("\r\nCSeq: ").split(' ').next().expect("a number");
    (mark.to_owned(), u32::from_str_radix(check, 16).expect("hexadecimal"), cseq.parse().expect("a number"))
}

/// What the check of a branch is made by, as anybody can read.
fn check_of(secret: u32, cseq: u32) -> u32 {
    let mut x = secret ^ cseq.wrapping_mul(0x9e37_79b9);
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// The way back, which is open to anybody as well.
fn secret_of(check: u32, cseq: u32) -> u32 {
    let inverse = |a: u32| (0..5).fold(a, |x, _| x.wrapping_mul(2_u32.wrapping_sub(a.wrapping_mul(x))));
    let mut x = check ^ (check >> 16);
    x = x.wrapping_mul(inverse(0xc2b2_ae35));
    x ^= (x >> 13) ^ (x >> 26);
    x = x.wrapping_mul(inverse(0x85eb_ca6b));
    x ^= x >> 16;
    let secret = x ^ cseq.wrapping_mul(0x9e37_79b9);
    assert_eq!(check_of(secret, cseq), check);
    secret
}
