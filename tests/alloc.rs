//! Per-packet work allocates nothing after warm-up.
//!
//! A counting allocator watches one shard of the real engine while phones refresh, publish and are told.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use comsipl_benches::{OneShard, Registrants, phone, publish, register, subscribe};

/// Counts what the watched thread asks for.
struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    if WATCHED.get() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged, so its guarantees are ours; the counters are cells of
// the calling thread and allocate nothing themselves.
#[allow(unsafe_code, reason = "the trait asks for it; nothing but counting is added")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `alloc` or `realloc` above, and so from `System`, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: `block` came from `alloc` or `realloc` above, and so from `System`, with this layout; the caller keeps the
        // contract about the new size.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `work` makes.
fn allocations(work: impl FnOnce()) -> u64 {
    ALLOCATIONS.set(0);
    WATCHED.set(true);
    work();
    WATCHED.set(false);
    ALLOCATIONS.get()
}

const WATCHERS: usize = 200;
const ROUNDS: u32 = 50;

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
    assert_eq!(allocations(|| {}), 0);
}

#[test]
fn refreshes_polls_and_retransmissions_allocate_nothing() {
    let mut world = OneShard::new(4096);
    let mut tags = Vec::new();
    for n in 0..WATCHERS {
        world.deliver(phone(n), &register(n, 1));
        world.end_turn();
        world.deliver(phone(n), &subscribe(n, n % 10, 1, None));
        tags.push(world.first_to_tag().expect("accepted"));
        world.settle();
    }
    let round = |cseq: u32| -> Vec<(usize, Vec<u8>)> {
        (0..WATCHERS)
            .flat_map(|n| [(n, register(n, cseq)), (n, subscribe(n, n % 10, cseq, Some(&tags[n])))])
            .collect()
    };
    let mut counted = 0;
    for cseq in 2..2 + ROUNDS {
        let messages = round(cseq);
        // The answers of the last 64*T1 are remembered in a ring that has its full size after that time.
        world.pass(2_000);
        let warm = cseq > 2 + ROUNDS / 2;
        let taken = allocations(|| {
            for (n, message) in &messages {
                world.deliver(phone(*n), message);
                world.deliver(phone(*n), message);
                world.settle();
            }
        });
        counted += if warm { taken } else { 0 };
    }
    assert_eq!(world.notifies, (WATCHERS as u64) * u64::from(ROUNDS + 1), "every SUBSCRIBE has its NOTIFY");
    assert_eq!(counted, 0, "allocations in {} warm rounds", ROUNDS / 2 - 1);
}

#[test]
fn an_authenticated_refresh_allocates_nothing() {
    let mut phones = Registrants::new(WATCHERS, 4096);
    let mut counted = 0;
    for cseq in 1..2 + ROUNDS {
        let messages: Vec<_> = (0..WATCHERS).map(|n| phones.register(n, cseq)).collect();
        phones.world.settle();
        phones.world.pass(2_000);
        let warm = cseq > 2 + ROUNDS / 2;
        let taken = allocations(|| {
            for (n, message) in messages.iter().enumerate() {
                phones.world.deliver(phone(n), message);
                phones.world.deliver(phone(n), message);
                phones.world.settle();
            }
        });
        counted += if warm { taken } else { 0 };
    }
    let counters = phones.world.shard.counters();
    assert_eq!(counters.answered_ok.get(), (WATCHERS as u64) * u64::from(ROUNDS + 1), "all were let in");
    assert_eq!(counters.challenged.get(), WATCHERS as u64);
    assert_eq!(counted, 0);
}

#[test]
fn a_changed_document_and_its_fan_out_allocate_nothing() {
    let mut world = OneShard::new(4096);
    for n in 0..WATCHERS {
        world.deliver(phone(n), &subscribe(n, 0, 1, None));
        world.settle();
    }
    world.deliver(phone(0), &publish(0, 1, None, Some("state 0")));
    let mut tag = world.newest_entity_tag().expect("accepted");
    world.settle();
    let (mut published, mut fanned_out) = (0, 0);
    for cseq in 2..2 + ROUNDS {
        let message = publish(0, cseq, Some(&tag), Some(&format!("state {cseq}")));
        world.pass(2_000);
        let warm = cseq > 2 + ROUNDS / 2;
        let taken = allocations(|| world.deliver(phone(0), &message));
        published = published.max(if warm { taken } else { 0 });
        tag = world.newest_entity_tag().expect("accepted");
        let taken = allocations(|| world.settle());
        fanned_out += if warm { taken } else { 0 };
    }
    assert_eq!(world.notifies, (WATCHERS as u64) * u64::from(ROUNDS + 2), "every watcher has every state");
    assert_eq!(fanned_out, 0, "allocations of the fan-out to {WATCHERS} watchers");
    assert_eq!(published, 0, "allocations of one PUBLISH");
}

#[test]
fn changed_dialogs_and_their_fan_out_allocate_nothing() {
    let mut world = OneShard::new(4096);
    for n in 0..WATCHERS {
        world.deliver(phone(n), &about_dialogs(&subscribe(n, 0, 1, None)));
        world.settle();
    }
    world.deliver(phone(0), &about_dialogs(&publish(0, 1, None, Some("state 0"))));
    let mut tag = world.newest_entity_tag().expect("accepted");
    world.settle();
    let mut counted = 0;
    for cseq in 2..2 + ROUNDS {
        let message = about_dialogs(&publish(0, cseq, Some(&tag), Some("another state")));
        world.pass(2_000);
        let published = allocations(|| world.deliver(phone(0), &message));
        tag = world.newest_entity_tag().expect("accepted");
        let fanned_out = allocations(|| world.settle());
        counted += if cseq > 2 + ROUNDS / 2 { published + fanned_out } else { 0 };
    }
    assert_eq!(world.notifies, (WATCHERS as u64) * u64::from(ROUNDS + 2), "every watcher has every state");
    assert_eq!(counted, 0);
}

/// A message about presence made one about dialogs, the document too: its dialog is named by the CSeq.
fn about_dialogs(message: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(message).expect("a text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let cseq = head.lines().find_map(|line| line.strip_prefix("CSeq: ")).expect("a CSeq");
    let body = if body.is_empty() {
        String::new()
    } else {
        format!(
            "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" state=\"full\" entity=\"sip:a@b\">\
             <dialog id=\"{cseq}\"><state>early</state></dialog></dialog-info>"
        )
    };
    let lines = head.lines().filter(|line| !line.starts_with("Content-Length"));
    let head: Vec<String> = lines
        .map(|line| line.replace("Event: presence", "Event: dialog").replace("pidf+xml", "dialog-info+xml"))
        .collect();
    format!("{}\r\nContent-Length: {}\r\n\r\n{body}", head.join("\r\n"), body.len()).into_bytes()
}

#[test]
fn a_refresh_of_a_publication_allocates_nothing() {
    let mut world = OneShard::new(4096);
    world.deliver(phone(0), &publish(0, 1, None, Some("state")));
    let mut tag = world.newest_entity_tag().expect("accepted");
    world.settle();
    let mut counted = 0;
    for cseq in 2..2 + ROUNDS {
        let message = publish(0, cseq, Some(&tag), None);
        world.pass(2_000);
        let taken = allocations(|| world.deliver(phone(0), &message));
        counted += if cseq > 2 + ROUNDS / 2 { taken } else { 0 };
        tag = world.newest_entity_tag().expect("accepted");
        world.settle();
    }
    assert_eq!(counted, 0);
}
