//! The operations whose instructions are counted.
//!
//! Each is done so often before that buffers have their size and answers end as fast as they are made; time passes as if
//! 160 requests came in a second. Requests come 64 in a turn.

use comsipl_benches::Registrants;
use comsipl_benches::crowd::{Crowd, News, TURN};
use comsipl_benches::message::{options, phone, publish as publish_message, register, subscribe};
use comsipl_benches::one_shard::{OneShard, Overload};

/// One operation.
pub struct Operation {
    /// What it is called on the command line and in the record.
    pub name: &'static str,
    /// What one of it is.
    pub meaning: &'static str,
    /// Does it, the engine's part under measurement; says how often.
    pub run: fn() -> u64,
}

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "notify-100x100",
        meaning: "NOTIFY and its 200, 100 watchers each, with its share of the PUBLISH",
        run: || notify(100, 100, false),
    },
    Operation {
        name: "notify-1000x10",
        meaning: "NOTIFY and its 200, 10 watchers each, with its share of the PUBLISH",
        run: || notify(1000, 10, false),
    },
    Operation {
        name: "notify-proxy",
        meaning: "as notify-100x100, all watchers behind one proxy that stays on the way",
        run: || notify(100, 100, true),
    },
    Operation {
        name: "subscribe",
        meaning: "first SUBSCRIBE, its 200, its NOTIFY with a document, the 200 to that",
        run: first_subscribe,
    },
    Operation {
        name: "subscribe-refresh",
        meaning: "SUBSCRIBE in its dialog, its 200, its NOTIFY, the 200 to that",
        run: refresh,
    },
    Operation {
        name: "subscribe-stranger",
        meaning: "SUBSCRIBE in a dialog that is not known, its 481",
        run: stranger,
    },
    Operation { name: "register", meaning: "first REGISTER of a phone, its 200", run: first_register },
    Operation {
        name: "register-refresh",
        meaning: "REGISTER of a binding that is there, its 200",
        run: register_refresh,
    },
    Operation {
        name: "register-digest",
        meaning: "register-refresh with credentials by SHA-256, the nonce used before, its 200",
        run: register_with_credentials,
    },
    Operation {
        name: "publish",
        meaning: "PUBLISH with another document, its 200; nobody watches",
        run: || publish(News::Changed),
    },
    Operation {
        name: "publish-refresh",
        meaning: "PUBLISH without a body, its 200",
        run: || publish(News::Refreshed),
    },
    Operation { name: "options", meaning: "OPTIONS, its 200", run: ask_options },
    Operation {
        name: "repetition",
        meaning: "REGISTER that came before, the remembered 200",
        run: register_again,
    },
    Operation {
        name: "refusal",
        meaning: "PUBLISH with a document that is refused because more came than can be done, its 503",
        run: || judge(Overload::Answered, false),
    },
    Operation {
        name: "drop",
        meaning: "PUBLISH with a document that is refused, one of sixteen with an answer",
        run: || judge(Overload::Silent, false),
    },
    Operation {
        name: "drop-again",
        meaning: "PUBLISH with a document that was refused before, one of sixteen with an answer",
        run: || judge(Overload::Silent, true),
    },
    Operation {
        name: "admission",
        meaning: "the look at a PUBLISH with a document that is taken although others are refused",
        run: || judge(Overload::Slight, false),
    },
    Operation { name: "turn", meaning: "a turn of the engine with nothing to do", run: turn },
    Operation {
        name: "owner-of-answer",
        meaning: "whose the 200 of a NOTIFY is, where there are two shards",
        run: owner_of_answer,
    },
    Operation {
        name: "owner-of-request",
        meaning: "whose a SUBSCRIBE is, where there are two shards",
        run: owner_of_request,
    },
];

/// Some of `presentities` change as often as a block of CSeq is long, so that every NOTIFY has its share of the record that
/// is written once a block.
fn notify(presentities: usize, watchers: usize, by_proxy: bool) -> u64 {
    let mut crowd = Crowd::watched(presentities, watchers, by_proxy);
    let changing = CHANGING_WATCHERS / watchers;
    assert!(changing <= presentities);
    crowd.world.pass(PASS_MS);
    crowd.change(0..changing);
    let before = crowd.world.notifies;
    crowd.world.measure(true);
    for _ in 0..CSEQ_BLOCK {
        crowd.world.pass(PASS_MS);
        crowd.change(0..changing);
    }
    let told = crowd.world.notifies - before;
    assert_eq!(told, (CSEQ_BLOCK * changing * watchers) as u64, "every watcher is told of every change");
    told
}

fn first_subscribe() -> u64 {
    let mut crowd = Crowd::new(1000, false);
    let done = in_turns(&mut crowd, |crowd| &mut crowd.world, |crowd, n| crowd.subscribe(n, n % 1000));
    assert_eq!(crowd.world.notifies, (TURN * (WARM_TURNS + TURNS)) as u64);
    done
}

fn refresh() -> u64 {
    let mut crowd = Crowd::watched(100, 10, false);
    in_turns(&mut crowd, |crowd| &mut crowd.world, |crowd, n| crowd.refresh(n % 1000))
}

fn stranger() -> u64 {
    in_turns(
        &mut OneShard::new(RECORDS),
        |world| world,
        |world, n| world.deliver(phone(n), &subscribe(n, n % 1000, 2, Some("nobody"))),
    )
}

fn first_register() -> u64 {
    in_turns(&mut OneShard::new(RECORDS), |world| world, |world, n| world.deliver(phone(n), &register(n, 1)))
}

fn register_refresh() -> u64 {
    in_turns(
        &mut OneShard::new(RECORDS),
        |world| world,
        |world, n| world.deliver(phone(n % 1000), &register(n % 1000, 1 + n as u32 / 1000)),
    )
}

fn register_with_credentials() -> u64 {
    let mut phones = Registrants::new(PHONES_WITH_PASSWORDS, RECORDS);
    for n in 0..PHONES_WITH_PASSWORDS {
        // The challenge and the first answer to it.
        phones.deliver(n, 1);
    }
    in_turns(
        &mut phones,
        |phones| &mut phones.world,
        |phones, n| phones.deliver(n % PHONES_WITH_PASSWORDS, 2 + (n / PHONES_WITH_PASSWORDS) as u32),
    )
}

fn register_again() -> u64 {
    in_turns(
        &mut OneShard::new(RECORDS),
        |world| world,
        |world, n| {
            // Others at the end of the warm-up, lest the answers end while they are measured.
            let n = n / (TURN * FRESH_FROM) * TURN + n % TURN;
            world.deliver(phone(n), &register(n, 1));
        },
    )
}

fn publish(news: News) -> u64 {
    in_turns(&mut Crowd::new(1000, false), |crowd| &mut crowd.world, |crowd, n| crowd.publish(n % 1000, news))
}

fn ask_options() -> u64 {
    in_turns(&mut OneShard::new(RECORDS), |world| world, |world, n| world.deliver(phone(n), &options(n, 1)))
}

/// Requests in an overload, each of them new or all of them the same.
fn judge(overload: Overload, again: bool) -> u64 {
    let mut world = OneShard::new(RECORDS);
    world.overload(overload);
    in_turns(
        &mut world,
        |world| world,
        |world, n| {
            let publish = publish_message(1, if again { 1 } else { n as u32 }, None, Some("busy"));
            // A lot may be so low that it is taken in any overload.
            let is_taken = world.takes(phone(n), &publish);
            assert!(is_taken == (overload == Overload::Slight) || n % 16 != 0, "one in sixty-four at most");
        },
    )
}

fn turn() -> u64 {
    let mut crowd = Crowd::watched(100, 10, false);
    crowd.world.measure(true);
    for _ in 0..TURNS {
        crowd.world.pass(1);
        crowd.world.end_turn();
    }
    TURNS as u64
}

fn owner_of_answer() -> u64 {
    let mut crowd = Crowd::new(1, false);
    crowd.subscribe(0, 0);
    crowd.world.end_turn();
    let answer = crowd.world.newest_answer().expect("a NOTIFY was sent").to_vec();
    ask_owner(&answer)
}

fn owner_of_request() -> u64 {
    ask_owner(&subscribe(0, 0, 1, None))
}

fn ask_owner(datagram: &[u8]) -> u64 {
    let mut world = OneShard::one_of(2, RECORDS);
    world.owner_of(datagram);
    world.measure(true);
    for _ in 0..TURNS {
        world.owner_of(datagram);
    }
    TURNS as u64
}

/// Turns with [`TURN`] requests each, number after number; those after the warm-up are measured and counted.
fn in_turns<W>(world: &mut W, shard: fn(&mut W) -> &mut OneShard, request: impl Fn(&mut W, usize)) -> u64 {
    for turn in 0..WARM_TURNS + TURNS {
        shard(world).measure(turn >= WARM_TURNS);
        shard(world).pass(PASS_MS);
        for n in turn * TURN..(turn + 1) * TURN {
            request(world, n);
        }
        shard(world).settle();
    }
    (TURNS * TURN) as u64
}

/// Time from turn to turn.
const PASS_MS: u64 = 400;
/// Turns before: for longer than answers are remembered (64*T1, 32 s).
const WARM_TURNS: usize = 90;
/// In which turn requests begin that are repeated in all that follow.
const FRESH_FROM: usize = 80;
/// Turns that are measured.
const TURNS: usize = 64;
/// NOTIFYs of a dialog for one write of its record.
const CSEQ_BLOCK: usize = 64;
/// Phones that register with credentials.
const PHONES_WITH_PASSWORDS: usize = 1000;
/// Watchers of all presentities that change at once.
const CHANGING_WATCHERS: usize = 1000;
/// Records of a partition of each file.
const RECORDS: u32 = 1 << 16;
