//! A phone that subscribes.

use super::dialog::Dialog;
use super::request::ATTEMPTS_MAX;
use super::{Answer, Cause, NotifyReaction, Op, Reaction, Requests, Told};
use crate::audit::{Notice, Verdict, Watch};
use crate::clock::Nanos;
use crate::ident::{Ident, Kind};
use crate::message::{self, Inside, Request, Style};
use std::net::SocketAddr;

/// A phone that watches one presentity.
#[derive(Debug)]
pub struct Watcher {
    /// Whom it watches.
    pub presentity: u32,
    /// Number in its own address.
    name: u32,
    /// Its requests.
    pub requests: Requests,
    /// What it was told.
    pub watch: Watch,
    generation: u8,
    active: bool,
    /// When the last news came, in milliseconds of the run.
    told_ms: u32,
    /// SUBSCRIBEs whose NOTIFY has not come.
    owed: u8,
    dialog: Option<Dialog>,
}

impl Watcher {
    /// A phone that will ask for `expires` seconds.
    pub fn new(presentity: u32, name: u32, expires: u32) -> Self {
        Self {
            presentity,
            name,
            requests: Requests::new(expires),
            watch: Watch::default(),
            generation: 0,
            active: false,
            told_ms: 0,
            owed: 0,
            dialog: None,
        }
    }

    /// Begins `op`; the request is then what [`Watcher::write`] writes. False if there is nothing to do.
    pub fn start(&mut self, op: Op, intended: Nanos) -> bool {
        if op == Op::Unsubscribe && self.dialog.is_none() {
            return false;
        }
        if op == Op::Poll {
            self.forget_dialog();
        }
        self.requests.begin(op, intended, self.dialog.is_some());
        self.owe();
        true
    }

    /// Begins the running operation again.
    pub fn start_again(&mut self) {
        if self.requests.begin_again(self.dialog.is_some()) {
            self.owe();
        }
    }

    /// The server owes a NOTIFY for the running SUBSCRIBE, and perhaps still for the one before.
    fn owe(&mut self) {
        self.owed = (self.owed + 1).min(2);
    }

    /// Writes the running request.
    pub fn write(&self, out: &mut Vec<u8>, style: &Style, index: u32, local: &str) {
        let Some(transaction) = self.requests.running else { return };
        let from = self.ident(index);
        let expires = self.requests.expires();
        let request = Request { from, name: self.name, local, cseq: transaction.cseq, expires };
        let inside = self.dialog.as_ref().filter(|_| transaction.in_dialog).map(|dialog| Inside {
            target: dialog.target(),
            remote_tag: dialog.remote_tag(),
            routes: dialog.routes(),
        });
        message::subscribe(out, style, request, self.presentity, inside);
    }

    /// Takes an answer to a SUBSCRIBE.
    pub fn on_answer(&mut self, answer: &Answer<'_>) -> Reaction {
        let Some(transaction) = self.requests.answered_by(answer) else { return Reaction::Stray };
        let op = transaction.op;
        if answer.status < 200 {
            return Reaction::Provisional;
        }
        if (200..300).contains(&answer.status) {
            self.accept(answer, op);
            return Reaction::Accepted;
        }
        // Nothing is owed for a SUBSCRIBE that was refused.
        self.owed = self.owed.saturating_sub(1);
        if self.requests.lengthen(answer) {
            return Reaction::Again(Cause::TooBrief);
        }
        if let Some(seconds) = self.requests.defer(answer) {
            return Reaction::Later(seconds);
        }
        let is_forgotten = answer.status == 481 && transaction.in_dialog;
        if is_forgotten {
            self.forget_dialog();
            if op != Op::Unsubscribe && transaction.attempts < ATTEMPTS_MAX {
                return Reaction::Again(Cause::DialogUnknown);
            }
        }
        self.requests.running = None;
        if is_forgotten && op == Op::Unsubscribe {
            Reaction::Accepted
        } else {
            Reaction::Refused(answer.status)
        }
    }

    /// Takes a 2xx to the running request.
    fn accept(&mut self, answer: &Answer<'_>, op: Op) {
        if let Some(running) = &mut self.requests.running {
            running.answered = true;
            if running.notified || op == Op::Unsubscribe {
                self.requests.running = None;
            }
        }
        self.active = op == Op::Subscribe;
        match (&mut self.dialog, answer.remote_tag, answer.contact) {
            (Some(dialog), Some(tag), Some(target)) if dialog.remote_tag() == tag => {
                dialog.refresh_target(target);
            }
            (dialog @ None, Some(tag), Some(target)) => {
                // RFC 3261 §12.1.2: "The route set MUST be set to the list of URIs in the Record-Route header
                // field from the response, taken in reverse order".
                *dialog = Some(Dialog::new(tag, target, answer.routes.iter().rev()));
            }
            _ => {}
        }
    }

    /// Takes a NOTIFY.
    pub fn on_notify(&mut self, told: &Told<'_>) -> NotifyReaction {
        let mut reaction = NotifyReaction {
            status: 481,
            verdict: None,
            first_since: None,
            skipped: 0,
            ended_by_server: false,
        };
        let (Some(remote_tag), true) = (told.remote_tag, told.local_tag_fits) else { return reaction };
        let subscribing = self.requests.running.is_some_and(|running| running.op != Op::Unsubscribe);
        match &mut self.dialog {
            _ if told.generation != self.generation => return reaction,
            Some(dialog) if dialog.remote_tag() != remote_tag => return reaction,
            None if !subscribing => return reaction,
            _ if !told.event_fits => return NotifyReaction { status: 489, ..reaction },
            _ if told.terminated.is_none() => return NotifyReaction { status: 400, ..reaction },
            Some(dialog) => {
                if let Some(target) = told.contact {
                    dialog.refresh_target(target);
                }
            }
            dialog @ None => {
                let Some(target) = told.contact else { return NotifyReaction { status: 400, ..reaction } };
                *dialog = Some(Dialog::new(remote_tag, target, told.routes.iter()));
            }
        }
        let terminated = told.terminated == Some(true);
        let before = self.watch.newest();
        let verdict = self.watch.observe(Notice {
            cseq: told.cseq,
            branch: told.branch,
            state: told.state,
            owed: self.owed > 0,
            terminated,
        });
        reaction.verdict = Some(verdict);
        reaction.status = match verdict {
            Verdict::Backward | Verdict::Retransmission { refused: true } => 500,
            _ => 200,
        };
        match verdict {
            Verdict::Retransmission { .. } | Verdict::Backward => return reaction,
            Verdict::Fresh if before > 0 => reaction.skipped = told.state - before - 1,
            Verdict::Repeated => self.owed -= 1,
            _ => {}
        }
        if let Some(running) = self.requests.running.as_mut().filter(|running| running.op != Op::Unsubscribe)
        {
            // What came before we asked was not asked for.
            if !running.notified && told.at >= running.intended {
                reaction.first_since = Some(running.intended);
                running.notified = true;
                // What overtakes the NOTIFY of a refresh may have been on its way before; that one still comes.
                if verdict != Verdict::Repeated && !running.in_dialog {
                    self.owed = self.owed.saturating_sub(1);
                }
            }
            if running.answered && running.notified {
                self.requests.running = None;
            }
        }
        if terminated && self.active {
            let unsubscribes = self.requests.running.is_some_and(|running| running.op == Op::Unsubscribe);
            reaction.ended_by_server = !unsubscribes;
            self.active = false;
        }
        reaction
    }

    /// Takes note of news; whether there was some less than a second before (RFC 4235 §3.10).
    pub fn is_hasty(&mut self, now: Nanos) -> bool {
        // Rounded down, so that a full second never looks shorter.
        let now_ms = (now / 1_000_000) as u32;
        let before = std::mem::replace(&mut self.told_ms, now_ms);
        before > 0 && now_ms.wrapping_sub(before) < 999
    }

    /// Timer F, or Timer N (RFC 6665 §4.1.2.4): the running request is given up.
    pub fn give_up(&mut self) {
        if self.requests.running.take().is_some_and(|running| !running.notified) {
            self.owed = self.owed.saturating_sub(1);
        }
    }

    /// Whether it is subscribed.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Where its requests go; none for the configured server.
    pub fn next_hop(&self) -> Option<SocketAddr> {
        let in_dialog = self.requests.running.is_some_and(|running| running.in_dialog);
        self.dialog.as_ref().filter(|_| in_dialog)?.next_hop()
    }

    /// Its present name.
    pub fn ident(&self, index: u32) -> Ident {
        Ident { kind: Kind::Watcher, index, generation: self.generation }
    }

    /// The next SUBSCRIBE is an initial one with a new Call-ID.
    pub fn forget_dialog(&mut self) {
        self.dialog = None;
        self.active = false;
        self.owed = 0;
        self.generation = self.generation.wrapping_add(1);
        self.watch.new_dialog();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::support::answer;
    use crate::message::support::style;

    fn told(cseq: u32, state: u32) -> Told<'static> {
        Told {
            cseq,
            branch: cseq,
            local_tag_fits: true,
            remote_tag: Some(b"srv"),
            contact: Some(b"sip:10.0.0.9:5071"),
            event_fits: true,
            terminated: Some(false),
            state,
            at: 1_000,
            ..Told::default()
        }
    }

    fn text(watcher: &Watcher) -> String {
        let mut out = Vec::new();
        watcher.write(&mut out, &style(), 3, "127.0.0.1:9");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_dialog_is_learned_from_the_200() {
        let mut watcher = Watcher::new(0, 0, 600);
        watcher.start(Op::Subscribe, 5);
        assert!(text(&watcher).starts_with("SUBSCRIBE sip:p0000000@example.com"));
        let routes: [&[u8]; 2] = [b"<sip:10.0.0.1;lr>", b"<sip:10.0.0.2:5064;lr>"];
        assert_eq!(watcher.on_answer(&Answer { routes: &routes, ..answer(200, 20) }), Reaction::Accepted);
        assert!(watcher.is_active() && watcher.requests.running.is_some());
        assert_eq!(watcher.on_notify(&told(1, 0)).first_since, Some(5));
        assert!(watcher.requests.running.is_none());
        watcher.start(Op::Subscribe, 9);
        let text = text(&watcher);
        assert!(text.starts_with("SUBSCRIBE sip:10.0.0.9:5071 SIP/2.0"), "{text}");
        assert!(text.contains("Route: <sip:10.0.0.2:5064;lr>\r\nRoute: <sip:10.0.0.1;lr>\r\n"), "{text}");
        assert_eq!(watcher.next_hop(), Some("10.0.0.2:5064".parse().unwrap()));
    }

    #[test]
    fn the_dialog_is_learned_from_a_notify_that_overtakes_the_200() {
        let mut watcher = Watcher::new(0, 0, 600);
        watcher.start(Op::Subscribe, 5);
        let initial = text(&watcher);
        let reaction = watcher.on_notify(&told(1, 4));
        assert_eq!((reaction.status, reaction.verdict), (200, Some(Verdict::Fresh)));
        assert_eq!(text(&watcher), initial, "a retransmission is the same request");
        assert!(!watcher.is_active());
        assert_eq!(watcher.on_answer(&answer(200, 20)), Reaction::Accepted);
        assert!(watcher.is_active() && watcher.requests.running.is_none());
        assert_eq!(watcher.on_answer(&answer(200, 20)), Reaction::Stray);
    }

    #[test]
    fn strangers_are_answered_481() {
        let mut watcher = Watcher::new(0, 0, 600);
        assert_eq!(watcher.on_notify(&told(1, 1)).status, 481, "nobody subscribed");
        watcher.start(Op::Subscribe, 0);
        watcher.on_answer(&answer(200, 20));
        assert_eq!(watcher.on_notify(&Told { remote_tag: Some(b"other"), ..told(1, 1) }).status, 481);
        assert_eq!(watcher.on_notify(&Told { local_tag_fits: false, ..told(1, 1) }).status, 481);
        assert_eq!(watcher.on_notify(&Told { generation: 1, ..told(1, 1) }).status, 481);
        assert_eq!(watcher.on_notify(&Told { event_fits: false, ..told(1, 1) }).status, 489);
        assert_eq!(watcher.on_notify(&Told { terminated: None, ..told(1, 1) }).status, 400);
        assert_eq!(watcher.on_notify(&told(1, 1)).status, 200);
    }

    #[test]
    fn a_refused_interval_is_asked_for_longer() {
        let mut watcher = Watcher::new(0, 0, 60);
        watcher.start(Op::Subscribe, 7);
        let brief = Answer { min_expires: Some(900), ..answer(423, 20) };
        assert_eq!(watcher.on_answer(&brief), Reaction::Again(Cause::TooBrief));
        watcher.start_again();
        assert!(text(&watcher).contains("CSeq: 21 SUBSCRIBE") && text(&watcher).contains("Expires: 900\r\n"));
        // A server that asks for the same again is not believed.
        assert_eq!(watcher.on_answer(&Answer { cseq: 21, ..brief }), Reaction::Refused(423));
        assert!(watcher.requests.running.is_none());
    }

    #[test]
    fn a_lost_dialog_is_made_anew_with_another_call_id() {
        let mut watcher = Watcher::new(0, 0, 600);
        watcher.start(Op::Subscribe, 0);
        watcher.on_answer(&answer(200, 20));
        watcher.on_notify(&told(9, 1));
        watcher.start(Op::Subscribe, 0);
        assert_eq!(watcher.on_answer(&answer(481, 21)), Reaction::Again(Cause::DialogUnknown));
        watcher.start_again();
        assert_eq!(watcher.ident(3).generation, 1);
        assert!(text(&watcher).starts_with("SUBSCRIBE sip:p0000000@example.com"));
        let reaction = watcher.on_notify(&Told { generation: 1, ..told(1, 1) });
        assert_eq!(reaction.verdict, Some(Verdict::Repeated), "a lower CSeq is no step back in a new dialog");
    }

    #[test]
    fn the_end_of_a_subscription_is_ours_or_the_servers() {
        for ours in [true, false] {
            let mut watcher = Watcher::new(0, 0, 600);
            watcher.start(Op::Subscribe, 0);
            watcher.on_answer(&answer(200, 20));
            watcher.on_notify(&told(1, 1));
            if ours {
                watcher.start(Op::Unsubscribe, 0);
                assert!(text(&watcher).contains("Expires: 0\r\n"));
            }
            let reaction = watcher.on_notify(&Told { terminated: Some(true), ..told(2, 0) });
            assert_eq!((reaction.status, reaction.ended_by_server), (200, !ours));
            assert!(!watcher.is_active());
        }
    }

    #[test]
    fn a_refresh_excuses_one_repeated_notify() {
        let mut watcher = Watcher::new(0, 0, 600);
        watcher.start(Op::Subscribe, 0);
        watcher.on_answer(&answer(200, 20));
        assert_eq!(watcher.on_notify(&told(1, 0)).verdict, Some(Verdict::Repeated));
        watcher.on_notify(&told(2, 1));
        assert_eq!(watcher.on_notify(&told(3, 1)).verdict, Some(Verdict::Duplicate));
        watcher.start(Op::Subscribe, 0);
        assert_eq!(watcher.on_notify(&told(4, 1)).verdict, Some(Verdict::Repeated));
        assert_eq!(watcher.on_notify(&told(5, 1)).verdict, Some(Verdict::Duplicate));
    }

    #[test]
    fn news_that_overtake_the_notify_of_a_refresh_do_not_make_that_a_duplicate() {
        let mut watcher = Watcher::new(0, 0, 600);
        watcher.start(Op::Subscribe, 0);
        watcher.on_answer(&answer(200, 20));
        watcher.on_notify(&told(1, 1));
        assert_eq!(
            watcher.on_notify(&told(2, 1)).verdict,
            Some(Verdict::Duplicate),
            "a new one owes no second"
        );
        watcher.start(Op::Subscribe, 0);
        watcher.on_answer(&answer(200, 21));
        assert_eq!(watcher.on_notify(&told(3, 2)).verdict, Some(Verdict::Fresh));
        assert_eq!(watcher.on_notify(&told(4, 2)).verdict, Some(Verdict::Repeated));
        assert_eq!(watcher.on_notify(&told(5, 2)).verdict, Some(Verdict::Duplicate));
    }

    #[test]
    fn a_poll_is_a_subscription_for_no_time_in_a_dialog_of_its_own() {
        let mut watcher = Watcher::new(0, 0, 600);
        for generation in 1..3 {
            watcher.start(Op::Poll, 7);
            assert!(text(&watcher).contains("Expires: 0\r\n"));
            let cseq = watcher.requests.running.unwrap().cseq;
            assert_eq!(watcher.on_answer(&answer(200, cseq)), Reaction::Accepted);
            let last = Told { generation, terminated: Some(true), ..told(1, 4) };
            let reaction = watcher.on_notify(&last);
            assert_eq!((reaction.status, reaction.first_since), (200, Some(7)));
            assert!(!reaction.ended_by_server && !watcher.is_active() && watcher.requests.running.is_none());
        }
    }

    #[test]
    fn skipped_states_are_counted_after_the_first() {
        let mut watcher = Watcher::new(0, 0, 600);
        watcher.start(Op::Subscribe, 0);
        assert_eq!(watcher.on_notify(&told(1, 7)).skipped, 0);
        assert_eq!(watcher.on_notify(&told(2, 10)).skipped, 2);
    }
}
