use comsipl_core::overload::Kind;

use super::*;

const TARGET: Duration = Duration::from_millis(20);
const TURN: Duration = Duration::from_millis(1);

fn bytes(socket_bytes: u64) -> Waiting {
    Waiting { socket_bytes, ..Waiting::default() }
}

/// Own time of ten milliseconds at `now`, in which a megabyte was taken and something was left.
fn work(gauge: &mut LoadGauge, now: u64) {
    for _ in 0..10 {
        gauge.end_turn(Mono(now), TURN, false);
    }
    gauge.note_taken(memory_of(512, 512 << 10));
}

#[test]
fn late_is_what_would_take_longer_than_the_target_and_does_not_shrink() {
    let mut gauge = LoadGauge::new(Mono(0));
    let mut step = |now, socket_bytes| {
        work(&mut gauge, now);
        assert!(gauge.is_due(Mono(now)));
        gauge.measure(Mono(now), bytes(socket_bytes), TARGET)
    };
    let micros = |micros| Some(Duration::from_micros(micros));
    assert_eq!(step(10_000, 9 << 20).late, None, "it has not stood for long");
    assert_eq!(step(20_000, 1 << 20).late, None, "a megabyte is taken in ten milliseconds");
    let first = step(30_000, 3 << 20);
    let signals = Signals { sockets: true, ..Signals::default() };
    assert_eq!(first, Measured { late: micros(0), signals, grows: true, ..Measured::default() });
    assert_eq!(step(40_000, 3 << 20).late, micros(10_000));
    let hardly = step(50_000, 3_000_000);
    assert!(hardly.late == micros(20_000) && hardly.grows, "it breathes");
    let shrunk = step(60_000, 2_800_000);
    assert!(shrunk.late == micros(0) && !shrunk.grows, "it shrinks, so its time begins anew");
    assert_eq!(step(400_000, 3 << 20).late, micros(10_000), "a third of a second in which it was not run");
    assert_eq!(step(410_000, 2 << 20).late, None);
}

#[test]
fn excess_is_the_part_of_what_came_that_waits() {
    let mut gauge = LoadGauge::new(Mono(0));
    let mut excess_after = |now, socket_bytes| {
        work(&mut gauge, now);
        gauge.measure(Mono(now), bytes(socket_bytes), TARGET).excess
    };
    assert_eq!(excess_after(20_000, 3 << 20), 0, "nothing is known of what came before");
    // In a step, as the kernel reckons it.
    let taken = memory_of(512, 512 << 10);
    assert_eq!(excess_after(30_000, (3 << 20) + 2 * taken), WHOLE / 3 * 2);
    assert_eq!(excess_after(40_000, (3 << 20) + 2 * taken), WHOLE / 2, "of both steps");
    assert_eq!(excess_after(50_000, 3 << 20), 0, "it shrinks");
}

#[test]
fn drops_full_lanes_and_a_late_fan_out_count_where_work_is_never_done() {
    let half = Waiting { batches: 32, batches_room: 64, ..Waiting::default() };
    let fan_out = Waiting { presentities: 100, fan_out: 2 * TARGET, ..Waiting::default() };
    for waiting in [Waiting { dropped: 1, ..Waiting::default() }, half, fan_out] {
        let mut gauge = LoadGauge::new(Mono(0));
        work(&mut gauge, 10_000);
        assert_eq!(gauge.measure(Mono(10_000), waiting, TARGET).late, None, "{waiting:?}");
        work(&mut gauge, 30_000);
        let more = Waiting { dropped: 2 * waiting.dropped, ..waiting };
        let late = gauge.measure(Mono(30_000), more, TARGET);
        assert_eq!(late.late, Some(Duration::ZERO), "{waiting:?}");
        gauge.end_turn(Mono(35_000), TURN, true);
        work(&mut gauge, 40_000);
        let more = Waiting { dropped: 3 * waiting.dropped, ..waiting };
        assert_eq!(gauge.measure(Mono(40_000), more, TARGET).late, None, "all was taken once");
    }
    let mut gauge = LoadGauge::new(Mono(0));
    gauge.end_turn(Mono(1_000), TURN, true);
    gauge.begin_turn(Mono(9_000_000));
    gauge.end_turn(Mono(9_000_000), TURN, false);
    assert_eq!(gauge.standing(Mono(9_000_000)), Duration::ZERO, "a burst after a sleep has not waited");
}

#[test]
fn refusing_is_a_part_of_the_time() {
    let mut gauge = LoadGauge::new(Mono(0));
    let refusals = |all, avoidable| Refusals { all, avoidable };
    gauge.note_refusing(Duration::from_millis(4), refusals(32, 32), 64);
    gauge.note_refusing(Duration::from_millis(4), refusals(0, 0), 0);
    gauge.note_refusing(Duration::from_millis(3), refusals(64, 0), 64);
    let measured = gauge.measure(Mono(20_000), Waiting::default(), TARGET);
    assert_eq!((measured.refusing, measured.avoidable), (WHOLE / 4, WHOLE / 10));
    assert_eq!(gauge.measure(Mono(30_000), Waiting::default(), TARGET).refusing, 0);
}

/// A shard in virtual time that takes batches of 64 off a socket.
struct World {
    gauge: LoadGauge,
    control: Control,
    now: u64,
    /// Datagrams that come in a second; with a window, so many are there or under way at most.
    rate: u64,
    window: Option<u64>,
    /// Time up to which datagrams have come, and the part of the next.
    came: u64,
    part: u64,
    waiting: u64,
    dropped: u64,
    /// How often, and for how long, the shard is not run, microseconds.
    hiccups: Option<(u64, u64)>,
    next_hiccup: u64,
    taken_part: u64,
    served: u64,
    refused: u64,
}

/// Microseconds that a request takes, that a refusal takes, that a turn takes beside.
const REQUEST: u64 = 5;
const REFUSAL: u64 = 1;
const BESIDE: u64 = 20;

/// Requests that can be done in a second, about.
const CAPACITY: u64 = 64 * 1_000_000 / (64 * REQUEST + BESIDE);

/// Memory of a datagram, payload, and most that a socket holds.
const MEMORY: u64 = 1280;
const PAYLOAD: u64 = 500;
const ROOM: u64 = (16 << 20) / MEMORY;

impl World {
    fn new(rate: u64) -> Self {
        Self {
            gauge: LoadGauge::new(Mono(0)),
            control: Control::default(),
            now: 0,
            rate,
            window: None,
            came: 0,
            part: 0,
            waiting: 0,
            dropped: 0,
            hiccups: None,
            next_hiccup: 0,
            taken_part: 0,
            served: 0,
            refused: 0,
        }
    }

    fn arrive(&mut self) {
        // Each kind comes as often as the others.
        let kept_out = Kind::ALL.map(|kind| u64::from(self.control.kept_out().share_of(kind)));
        let whole = Kind::ALL.len() as u64 * u64::from(WHOLE);
        let let_in = self.rate * (whole - kept_out.iter().sum::<u64>()) / whole;
        self.part += (self.now - self.came) * let_in;
        self.came = self.now;
        self.waiting += self.part / 1_000_000;
        self.part %= 1_000_000;
        if let Some(window) = self.window {
            self.waiting = self.waiting.min(window);
        }
        self.dropped += self.waiting.saturating_sub(ROOM);
        self.waiting = self.waiting.min(ROOM);
    }

    fn turn(&mut self) {
        if self.waiting == 0 {
            self.now += 50;
            self.arrive();
        }
        let began = self.now;
        self.gauge.begin_turn(Mono(began));
        let count = self.waiting.min(64);
        self.waiting -= count;
        self.gauge.note_taken(memory_of(count, count * PAYLOAD));
        let mut refused = 0;
        for _ in 0..count {
            self.taken_part += u64::from(self.control.taken());
            if self.taken_part >= u64::from(WHOLE) {
                self.taken_part -= u64::from(WHOLE);
            } else {
                refused += 1;
            }
        }
        self.served += count - refused;
        self.refused += refused;
        self.now += BESIDE + (count - refused) * REQUEST + refused * REFUSAL;
        let refusals = Refusals { all: 1, avoidable: 1 };
        self.gauge.note_refusing(Duration::from_micros(refused * REFUSAL), refusals, 1);
        if let Some((every, span)) = self.hiccups
            && self.now >= self.next_hiccup
        {
            self.next_hiccup += every;
            self.now += span;
        }
        self.arrive();
        let (began, span) = (Mono(began), Duration::from_micros(self.now - began));
        self.gauge.end_turn(began, span, count < 64);
        let is_needed = self.gauge.standing(began) >= TARGET || self.control.is_refusing();
        if is_needed && self.gauge.is_due(began) {
            let waiting =
                Waiting { socket_bytes: self.waiting * MEMORY, dropped: self.dropped, ..Waiting::default() };
            self.control.step(began, &self.gauge.measure(began, waiting, TARGET));
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + 1000 * millis;
        while self.now < end {
            self.turn();
        }
    }
}

#[test]
fn a_shard_that_was_not_run_refuses_nothing() {
    // How much comes, how often and for how long the shard is not run: a hypervisor, a neighbour, a quota.
    for (percent, every, span) in [
        (50, 1000, 100),
        (80, 1000, 100),
        (90, 2000, 100),
        (90, 500, 20),
        (50, 10, 3),
        (50, 100, 40),
        (60, 20, 4),
        (10, 5000, 2000),
    ] {
        let mut world = World::new(CAPACITY * percent / 100);
        world.hiccups = Some((1000 * every, 1000 * span));
        world.next_hiccup = 50_000;
        world.run(10_000);
        assert_eq!(world.refused, 0, "{percent} %, {span} ms in {every}");
        assert!(world.served + world.dropped + ROOM >= world.rate * 10, "it drains");
    }
}

#[test]
fn a_window_that_is_kept_full_is_no_overload() {
    for window in [65, 256, 1024, 2500] {
        for hiccups in [None, Some((10_000, 5_000)), Some((1_000_000, 100_000))] {
            let mut world = World::new(100 * CAPACITY);
            (world.window, world.hiccups) = (Some(window), hiccups);
            world.run(10_000);
            assert_eq!(world.refused, 0, "{window}, {hiccups:?}");
        }
    }
}

#[test]
fn what_comes_for_longer_than_it_can_be_done_is_refused_and_then_nothing_is() {
    for (times, least) in [(2, 0.7), (3, 0.7), (10, 0.6)] {
        let mut world = World::new(CAPACITY / 2);
        world.run(1000);
        assert_eq!(world.refused, 0);
        world.rate = times * CAPACITY;
        world.run(80);
        assert_eq!(world.refused, 0, "a burst");
        world.run(420);
        assert!(world.control.is_refusing(), "{times} times for half a second");
        let (served, refused) = (world.served, world.refused);
        world.run(5000);
        let goodput = (world.served - served) as f64 / (5 * CAPACITY) as f64;
        assert!(goodput > least && world.refused > refused, "{times}: {goodput}");
        world.rate = CAPACITY / 2;
        world.run(2500);
        assert!(!world.control.is_refusing(), "{times}: it is over");
        let refused = world.refused;
        world.run(1000);
        assert_eq!(world.refused, refused);
    }
}
