//! A hierarchical timer wheel: arming, re-arming and cancelling cost a few nanoseconds whatever the number of timers.
//!
//! Four levels of 256 buckets; a tick is 2^13 microseconds (8.192 ms). A timer lies in the level whose span its distance
//! fits, and moves one level down when its bucket comes up. Every timer is a node of a circular list whose anchor is the
//! bucket itself, so unlinking needs no search. Timers are named by dense numbers of the caller's (slab indices).
//!
//! Invariants:
//!   * a node is in exactly one bucket's list, or unlinked (`next == NONE`);
//!   * `current` never passes the start of an occupied bucket without emptying it;
//!   * a timer never fires before its deadline, and at most one tick after it when the wheel is advanced in time.

use crate::chunked::Chunked;
use crate::time::Mono;

/// 2^13 µs a tick: fine enough for T1 (500 ms), coarse enough that four levels span 400 days.
const TICK_SHIFT: u32 = 13;
/// Buckets a level.
const BUCKETS: u32 = 256;
/// Levels of the hierarchy.
const LEVELS: u32 = 4;
/// A tick that does not come.
const NEVER: u64 = u64::MAX;
/// Link value of a node that is in no list.
const NONE: u32 = u32::MAX;
/// Links from here on name buckets, below they name nodes. The bucket after the last level holds what is due.
const BUCKET_BASE: u32 = NONE - LEVELS * BUCKETS - 1;
/// The list of timers that are due and not yet popped.
const DUE: u32 = BUCKET_BASE + LEVELS * BUCKETS;
/// Longest span in ticks; longer timers fire early and are re-armed by their owner, who keeps the true expiry.
const SPAN_TICKS_MAX: u64 = 1 << 31;

/// A timer's links and its deadline in ticks (modulo 2^32).
#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    prev: u32,
    deadline: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self { next: NONE, prev: NONE, deadline: 0 }
    }
}

/// Timers of one kind of thing, named by the thing's dense number.
#[derive(Debug)]
pub struct Wheel {
    nodes: Chunked<Node>,
    anchors: Box<[Node]>,
    /// One bit a bucket, per level: not empty.
    occupied: [[u64; 4]; LEVELS as usize],
    /// Ticks passed.
    current: u64,
    /// No occupied bucket comes up before this tick. It may be too early, because cancelling leaves it as it is: most timers
    /// are cancelled, and looking through the buckets for each would cost more than a look in vain now and then.
    next_event: u64,
    armed: usize,
}

impl Wheel {
    /// Longest span in whole seconds. A longer timer fires when it is over.
    pub const SPAN_SECS: u64 = (SPAN_TICKS_MAX << TICK_SHIFT) / 1_000_000;

    /// A wheel that begins at `now`.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        let anchors = (0..=LEVELS * BUCKETS)
            .map(|i| Node { next: BUCKET_BASE + i, prev: BUCKET_BASE + i, deadline: 0 })
            .collect();
        Self {
            nodes: Chunked::default(),
            anchors,
            occupied: [[0; 4]; LEVELS as usize],
            current: now.0 >> TICK_SHIFT,
            next_event: NEVER,
            armed: 0,
        }
    }

    /// Sets timer `id` to `deadline`, whether or not it is armed already.
    pub fn arm(&mut self, id: u32, deadline: Mono) {
        debug_assert!(id < BUCKET_BASE);
        while self.nodes.len() <= id as usize {
            self.nodes.push_default();
        }
        self.cancel(id);
        // Rounded up: a timer must not fire early. A deadline in the past fires with the next tick.
        let tick = (deadline.0.saturating_add((1 << TICK_SHIFT) - 1)) >> TICK_SHIFT;
        let tick = tick.clamp(self.current + 1, self.current + SPAN_TICKS_MAX);
        self.nodes[id as usize].deadline = tick as u32;
        self.place(id);
        self.armed += 1;
    }

    /// Disarms timer `id`; nothing happens when it is not armed.
    pub fn cancel(&mut self, id: u32) {
        if (id as usize) < self.nodes.len() && self.nodes[id as usize].next != NONE {
            self.unlink(id);
            self.armed -= 1;
            if self.armed == 0 {
                self.next_event = NEVER;
            }
        }
    }

    /// Whether timer `id` is armed.
    #[must_use]
    pub fn is_armed(&self, id: u32) -> bool {
        (id as usize) < self.nodes.len() && self.nodes[id as usize].next != NONE
    }

    /// Whole seconds until timer `id` fires, rounded up so that one that was just set to 600 s reads 600; zero when it is due or
    /// not armed.
    #[must_use]
    pub fn secs_left(&self, id: u32, now: Mono) -> u32 {
        if !self.is_armed(id) {
            return 0;
        }
        let deadline = self.nodes[id as usize].deadline;
        let ticks = u64::from(deadline.wrapping_sub((now.0 >> TICK_SHIFT) as u32));
        if ticks > SPAN_TICKS_MAX {
            // It is behind us.
            return 0;
        }
        // Deadlines are rounded up to a tick.
        const TICK_MASK: u64 = (1 << TICK_SHIFT) - 1;
        let left = (ticks << TICK_SHIFT).saturating_sub((now.0 & TICK_MASK) + TICK_MASK);
        left.div_ceil(1_000_000) as u32
    }

    /// Number of armed timers.
    #[must_use]
    pub const fn armed(&self) -> usize {
        self.armed
    }

    /// Takes one timer that is due at `now`; call until `None`.
    #[inline]
    pub fn pop_due(&mut self, now: Mono) -> Option<u32> {
        let now_tick = now.0 >> TICK_SHIFT;
        // While timers are due that were not taken, `next_event` is the moment at which they were found so: it is looked for
        // anew when the last of them is gone.
        if self.next_event > now_tick {
            self.current = self.current.max(now_tick);
            return None;
        }
        self.pop_found(now_tick)
    }

    /// [`Self::pop_due`] where something happens up to `now_tick`.
    fn pop_found(&mut self, now_tick: u64) -> Option<u32> {
        loop {
            let first = self.node(DUE).next;
            if first != DUE {
                self.unlink(first);
                self.armed -= 1;
                return Some(first);
            }
            if self.next_event <= now_tick {
                self.next_event = self.find_next_event();
            }
            if self.next_event > now_tick {
                self.current = self.current.max(now_tick);
                return None;
            }
            self.step_to(self.next_event);
        }
    }

    /// A moment at which the wheel wants `pop_due`: never later than the earliest timer. `None` when nothing is armed, as far as
    /// was seen up to the moment named before.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        if self.node(DUE).next != DUE {
            return Some(Mono(0));
        }
        (self.next_event != NEVER).then_some(Mono(self.next_event << TICK_SHIFT))
    }

    /// Goes to `tick`, whose buckets are due: upper levels move down, level 0 becomes due.
    fn step_to(&mut self, tick: u64) {
        self.current = tick;
        for level in (1..LEVELS).rev() {
            if tick & ((1 << (8 * level)) - 1) == 0 {
                let slot = ((tick >> (8 * level)) & 255) as u32;
                self.cascade(level, slot);
            }
        }
        let slot = (tick & 255) as u32;
        self.splice_to_due(slot);
    }

    /// Moves every timer of an upper bucket to where it belongs now.
    fn cascade(&mut self, level: u32, slot: u32) {
        let bucket = BUCKET_BASE + level * BUCKETS + slot;
        // The list is taken off its anchor first, because a timer may go back to the same bucket.
        let mut id = self.node(bucket).next;
        if id == bucket {
            return;
        }
        let last = self.node(bucket).prev;
        self.node_mut(last).next = NONE;
        self.node_mut(bucket).next = bucket;
        self.node_mut(bucket).prev = bucket;
        self.set_occupied(level, slot, false);
        while id != NONE {
            let next = self.nodes[id as usize].next;
            self.place(id);
            id = next;
        }
    }

    /// Makes all of a level-0 bucket due, in its order.
    fn splice_to_due(&mut self, slot: u32) {
        let bucket = BUCKET_BASE + slot;
        let (first, last) = (self.node(bucket).next, self.node(bucket).prev);
        if first == bucket {
            return;
        }
        self.node_mut(bucket).next = bucket;
        self.node_mut(bucket).prev = bucket;
        self.set_occupied(0, slot, false);
        let tail = self.node(DUE).prev;
        self.node_mut(tail).next = first;
        self.node_mut(first).prev = tail;
        self.node_mut(last).next = DUE;
        self.node_mut(DUE).prev = last;
    }

    /// Links `id` into the bucket that fits its deadline.
    fn place(&mut self, id: u32) {
        let deadline = self.nodes[id as usize].deadline;
        let distance = deadline.wrapping_sub(self.current as u32);
        let level = match distance {
            0..=0xff => 0,
            0x100..=0xffff => 1,
            0x1_0000..=0xff_ffff => 2,
            _ => 3,
        };
        let comes_up = ((self.current + u64::from(distance)) >> (8 * level)) << (8 * level);
        self.next_event = self.next_event.min(comes_up);
        let slot = (deadline >> (8 * level)) & 255;
        let bucket = BUCKET_BASE + level * BUCKETS + slot;
        let tail = self.node(bucket).prev;
        {
            let node = &mut self.nodes[id as usize];
            node.next = bucket;
            node.prev = tail;
        }
        self.node_mut(tail).next = id;
        self.node_mut(bucket).prev = id;
        self.set_occupied(level, slot, true);
    }

    fn unlink(&mut self, id: u32) {
        let Node { next, prev, .. } = self.nodes[id as usize];
        self.node_mut(prev).next = next;
        self.node_mut(next).prev = prev;
        self.nodes[id as usize].next = NONE;
        if next == prev && (BUCKET_BASE..DUE).contains(&next) {
            let bucket = next - BUCKET_BASE;
            self.set_occupied(bucket / BUCKETS, bucket % BUCKETS, false);
        }
    }

    /// The earliest tick at which an occupied bucket comes up, or [`NEVER`].
    fn find_next_event(&self) -> u64 {
        let mut earliest = NEVER;
        for level in 0..LEVELS {
            let position = self.current >> (8 * level);
            let slot = (position & 255) as u32;
            // A level-0 bucket at the present position is due now; an upper one there is a whole turn away.
            let nearest = u32::from(level > 0);
            if let Some(distance) = self.first_occupied(level, slot, nearest) {
                earliest = earliest.min((position + u64::from(distance)) << (8 * level));
            }
        }
        earliest
    }

    /// Distance (from `nearest` up, at most 256) from `slot` to the first occupied bucket of `level`.
    fn first_occupied(&self, level: u32, slot: u32, nearest: u32) -> Option<u32> {
        let bits = &self.occupied[level as usize];
        let start = (slot + nearest) & 255;
        // Five words: the one `start` lies in (upper bits), the next three, and the first again (lower bits).
        for step in 0..=4 {
            let word_index = ((start >> 6) + step) & 3;
            let mut word = bits[word_index as usize];
            if step == 0 {
                word &= u64::MAX << (start & 63);
            } else if step == 4 {
                word &= !(u64::MAX << (start & 63));
            }
            if word != 0 {
                let found = word_index * 64 + word.trailing_zeros();
                return Some(((found.wrapping_sub(start)) & 255) + nearest);
            }
        }
        None
    }

    fn set_occupied(&mut self, level: u32, slot: u32, on: bool) {
        let word = &mut self.occupied[level as usize][(slot >> 6) as usize];
        let bit = 1 << (slot & 63);
        if on { *word |= bit } else { *word &= !bit }
    }

    #[inline]
    fn node(&self, link: u32) -> &Node {
        if link >= BUCKET_BASE {
            &self.anchors[(link - BUCKET_BASE) as usize]
        } else {
            &self.nodes[link as usize]
        }
    }

    #[inline]
    fn node_mut(&mut self, link: u32) -> &mut Node {
        if link >= BUCKET_BASE {
            &mut self.anchors[(link - BUCKET_BASE) as usize]
        } else {
            &mut self.nodes[link as usize]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_seconds_left_are_those_that_were_asked_for() {
        for begin in [0, 1, 8191, 8192, 5_000_000, 1 << 45] {
            let mut wheel = Wheel::new(Mono(begin));
            let after = |secs: u64| Mono(begin + secs * 1_000_000);
            assert_eq!(wheel.secs_left(3, after(0)), 0, "not armed");
            for (secs, left) in [(1, 1), (600, 600), (7200, 7200), (Wheel::SPAN_SECS + 9, Wheel::SPAN_SECS)] {
                wheel.arm(3, after(secs));
                assert!(u64::from(wheel.secs_left(3, after(0))).abs_diff(left) <= secs / Wheel::SPAN_SECS);
            }
            wheel.arm(3, after(600));
            assert_eq!(wheel.secs_left(3, after(200)), 400);
            assert_eq!(wheel.secs_left(3, after(601)), 0, "late");
            assert_eq!(wheel.pop_due(after(601)), Some(3));
            assert_eq!(wheel.secs_left(3, after(601)), 0);
        }
    }

    #[test]
    fn a_timer_fires_once_and_not_early() {
        let mut wheel = Wheel::new(Mono(0));
        wheel.arm(3, Mono(0) + Duration::from_millis(500));
        assert_eq!(wheel.pop_due(Mono(499_000)), None);
        assert_eq!(wheel.pop_due(Mono(510_000)), Some(3));
        assert_eq!(wheel.pop_due(Mono(10_000_000)), None);
        assert_eq!(wheel.deadline(), None);
    }

    #[test]
    fn an_idle_wheel_need_not_be_woken_before_its_timer() {
        let mut wheel = Wheel::new(Mono(5_000_000));
        let hour = Mono(5_000_000) + Duration::from_secs(3600);
        wheel.arm(0, hour);
        let mut wakes = 0;
        let mut now = Mono(5_000_000);
        while let Some(next) = wheel.deadline() {
            assert!(next > now, "a wake-up must make progress");
            now = next;
            wakes += 1;
            if wheel.pop_due(now) == Some(0) {
                break;
            }
        }
        assert!(now >= hour && now.since(hour) < Duration::from_millis(9));
        assert!(wakes <= 4, "one wake-up a level at most, not one a tick: {wakes}");
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordered_map(begin in 0u64..1_000_000_000_000, ops in prop::collection::vec((0u32..40, 0u64..200_000_000_000, 0u8..4), 1..200)) {
            let mut wheel = Wheel::new(Mono(begin));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = begin;
            for (id, span, op) in ops {
                match op {
                    0 | 1 => { wheel.arm(id, Mono(now + span)); model.insert(id, now + span); }
                    2 => { wheel.cancel(id); model.remove(&id); }
                    _ => {
                        now += span / 7;
                        while let Some(fired) = wheel.pop_due(Mono(now)) {
                            let due = model.remove(&fired);
                            prop_assert!(due.is_some_and(|due| due <= now), "timer {fired} at {due:?} fired at {now}");
                        }
                        for (&id, &due) in &model {
                            prop_assert!(due + 2 * 8192 > now, "timer {id} due {due} missed at {now}");
                            prop_assert!(wheel.is_armed(id));
                        }
                    }
                }
                prop_assert_eq!(wheel.armed(), model.len());
                if let Some(&earliest) = model.values().min() {
                    let next = wheel.deadline();
                    prop_assert!(next.is_some_and(|next| next.0 <= earliest.max(now) + 2 * 8192), "would sleep past a timer: {next:?}");
                }
            }
        }
    }
}
