//! What a phone makes of what it hears.

use std::time::Duration;

use comsipl_tests::world::Bytes;
use comsipl_tests::world::sip_text::SipText;

use super::known::{Live, Past, Stage, Window};
use super::package::Package;
use super::request::{Purpose, Transaction};
use super::{LONGEST, Manner, Phone};

impl Phone {
    /// Takes a message of the server; answers go to `out`.
    ///
    /// # Errors
    ///
    /// What the server should not have said.
    pub fn on_message(
        &mut self,
        now: Duration,
        crashes: u32,
        text: &SipText,
        manner: Manner,
        out: &mut Vec<Bytes>,
    ) -> Result<(), String> {
        // An answer over a connection comes once; a phone that slept finds it there.
        if now < self.mute_until && !(self.streams && text.method().is_none()) {
            if let Some(watch) = self.watch_of(text) {
                self.watches[watch].trouble = now;
            }
            return Ok(());
        }
        if text.method().is_some() {
            self.on_notify(now, text, manner, out)
        } else {
            self.on_answer(now, crashes, text)
        }
    }

    pub(super) fn watch_of(&self, text: &SipText) -> Option<usize> {
        let (call_id, tag) = (text.header("Call-ID")?, text.param("To", "tag")?);
        self.watches.iter().position(|w| w.call_id == call_id && w.tag == tag)
    }

    pub(super) fn on_notify(
        &mut self,
        now: Duration,
        text: &SipText,
        manner: Manner,
        out: &mut Vec<Bytes>,
    ) -> Result<(), String> {
        let cseq = text.cseq().ok_or("a NOTIFY without CSeq")?;
        let Some(watch) = self.watch_of(text) else {
            return Err(format!("phone {} was never interested in {}", self.number, text.start));
        };
        let asking = self.is_busy(&Purpose::Subscribe { watch, expires: Duration::ZERO });
        let watch = &mut self.watches[watch];
        let server_tag = text.param("From", "tag");
        let foreign = watch.server_tag.is_some() && watch.server_tag.as_deref() != server_tag;
        if watch.stage == Stage::Over || foreign {
            let status = watch.answers.get(&cseq).copied().filter(|_| !foreign).unwrap_or(481);
            out.push(answer(text, status));
            return Ok(());
        }
        if let Some(&status) = watch.answers.get(&cseq) {
            out.push(answer(text, status));
            return Ok(());
        }
        if cseq <= watch.notified {
            out.push(answer(text, 500));
            return Ok(());
        }
        let package = Package::of(watch.whom);
        if text.header("Event") != Some(package.name()) {
            return Err(format!("Event is {:?}", text.header("Event")));
        }
        let status = match manner {
            Manner::Silent => {
                watch.trouble = now;
                return Ok(());
            }
            Manner::Failing if watch.failures < FAILURES_IN_A_ROW_MAX => 500,
            Manner::Busy if watch.failures < FAILURES_IN_A_ROW_MAX => 503,
            Manner::Forgetful => 481,
            Manner::Good | Manner::Failing | Manner::Busy => 200,
        };
        if package == Package::Dialog {
            // RFC 4235 §4.1: one more for each document; after a restart it may have skipped some.
            let version = version_of(text).ok_or("dialog information without a version")?;
            if watch.version.is_some_and(|before| version <= before) {
                return Err(format!("{}: version {version} follows {:?}", watch.call_id, watch.version));
            }
            watch.version = Some(version);
        }
        watch.server_tag = server_tag.map(str::to_owned);
        watch.notified = cseq;
        watch.answers.insert(cseq, status);
        out.push(answer(text, status));
        let terminated = text.header("Subscription-State").is_some_and(|s| s.starts_with("terminated"));
        match status {
            200 => {
                watch.failures = 0;
                watch.told = true;
                watch.tokens = text.elements("note").into_iter().filter(|n| n.starts_with('d')).collect();
                watch.tokens.sort();
                watch.basics = text.elements("basic");
            }
            481 => watch.stage = Stage::Over,
            _ => {
                watch.failures += 1;
                watch.trouble = now;
            }
        }
        if terminated {
            // A refresh that is under way may have been granted already, for a shorter time.
            if watch.stage == Stage::Live && watch.ends.surely_runs(now) && !asking && !watch.is_shaky {
                return Err(format!("{} was terminated out of the blue", watch.call_id));
            }
            watch.stage = Stage::Over;
        }
        Ok(())
    }

    pub(super) fn on_answer(&mut self, now: Duration, crashes: u32, text: &SipText) -> Result<(), String> {
        let branch = text.param("Via", "branch").unwrap_or("");
        let Some(at) = self.transactions.iter().position(|t| t.branch == branch) else { return Ok(()) };
        let transaction = self.transactions.remove(at);
        let status = text.status().unwrap_or(0);
        let crashed = crashes != transaction.crashes;
        let odd =
            || Err(format!("phone {}: {:?} was answered {}", self.number, transaction.purpose, text.start));
        match (&transaction.purpose, status) {
            (Purpose::Publish { token, expires }, 200) => {
                let etag = text.header("SIP-ETag").ok_or("200 without SIP-ETag")?.to_owned();
                if self.used_tags.contains(&etag) {
                    return Err(format!("entity tag {etag} was given out twice"));
                }
                self.used_tags.push(etag.clone());
                let granted = text.header("Expires").and_then(|e| e.parse().ok()).map(Duration::from_secs);
                if !is_granted(granted, *expires, crashed) {
                    return Err(format!("asked for {expires:?}, granted {granted:?}"));
                }
                let before = self.live.as_ref().map(|l| l.token.clone());
                self.put_aside(now, transaction.power_failed);
                let token = token.clone().or(before).ok_or("a refresh of nothing")?;
                let ends = Window::of(&transaction, now, *expires);
                self.live = Some(Live { etag, token, ends, acked: now, is_shaky: transaction.power_failed });
            }
            // Carried out and not heard of, it may have run out while it was asked for again.
            (Purpose::Publish { expires, .. }, 412) => match &self.live {
                Some(live)
                    if live.ends.surely_runs(now)
                        && now + transaction.clock_step.forward < transaction.started + *expires
                        && !live.is_shaky =>
                {
                    return Err(format!("{} was refused before its time: 412", live.etag));
                }
                Some(_) => self.ran_out(now, transaction.power_failed),
                None => return odd(),
            },
            (Purpose::Unpublish, 200) => self.put_aside(now, transaction.power_failed),
            // The process that carried it out may have died with the answer.
            (Purpose::Unpublish, 412) => match &self.live {
                Some(live) if live.ends.surely_runs(now) && !crashed && !live.is_shaky => return odd(),
                _ => self.ran_out(now, transaction.power_failed),
            },
            (Purpose::Stale, 412) => {}
            (Purpose::Register { expires }, 200) => {
                let listed = contacts(text);
                let there = listed.contains(&self.contact());
                if there == expires.is_zero() {
                    return Err(format!("registered for {expires:?}, and the answer lists {listed:?}"));
                }
                self.registered = now;
                self.is_bound_here = there;
                if transaction.power_failed {
                    self.bound = None;
                    self.maybe_bound = now + (*expires).max(LONGEST);
                } else {
                    self.bound = there.then(|| Window::of(&transaction, now, *expires));
                    self.maybe_bound = Duration::ZERO;
                }
            }
            // RFC 3261 §10.3: with the same Call-ID and CSeq it is out of order when a new process sees it again.
            (Purpose::Register { expires }, 500) if crashed => {
                self.bound = None;
                self.maybe_bound = now + (*expires).max(LONGEST);
            }
            (Purpose::Query, 200) => self.listed = Some(contacts(text)),
            (Purpose::Subscribe { watch, expires }, 200) => {
                let granted = text.header("Expires").and_then(|e| e.parse().ok()).map(Duration::from_secs);
                if !is_granted(granted, *expires, crashed) {
                    return Err(format!("asked for {expires:?}, granted {granted:?}"));
                }
                let watch = &mut self.watches[*watch];
                let tag = text.param("To", "tag").map(str::to_owned);
                if watch.server_tag.is_some() && watch.server_tag != tag && !crashed {
                    return Err(format!("{}: 200 and NOTIFY have different tags", watch.call_id));
                }
                if watch.server_tag != tag {
                    watch.server_tag = tag;
                    // Another dialog, with counts of its own.
                    watch.notified = 0;
                    watch.version = None;
                    watch.told = false;
                    watch.answers.clear();
                }
                watch.ends = Window::of(&transaction, now, *expires);
                (watch.acked, watch.is_shaky) = (now, transaction.power_failed);
                if watch.stage == Stage::Starting {
                    watch.stage = Stage::Live;
                }
            }
            (Purpose::Subscribe { watch, expires }, 481) => {
                let over = matches!(self.watches[*watch].stage, Stage::Over);
                let runs = self.watches[*watch].ends.surely_runs(now) && !self.watches[*watch].is_shaky;
                self.watches[*watch].stage = Stage::Over;
                if runs && !over && !(crashed && expires.is_zero()) {
                    let watch = &self.watches[*watch];
                    return Err(format!("481 {} {}", watch.call_id, watch.tag));
                }
            }
            _ => return odd(),
        }
        Ok(())
    }

    /// Nobody answered: from here on both outcomes are possible.
    pub(super) fn give_up(&mut self, now: Duration, transaction: Transaction) {
        let if_done = |expires| Window::of(&transaction, now, expires);
        match &transaction.purpose {
            Purpose::Publish { token, expires } => {
                let until = if_done(*expires).latest;
                if let Some(live) = self.live.take() {
                    self.lost_tags.push(live.etag);
                    self.ghosts.push((live.token, live.ends.latest.max(until)));
                }
                if let Some(token) = token {
                    self.ghosts.push((token.clone(), until));
                }
            }
            Purpose::Unpublish => {
                if let Some(live) = self.live.take() {
                    self.lost_tags.push(live.etag);
                    self.ghosts.push((live.token, live.ends.latest));
                }
            }
            Purpose::Register { expires } => {
                self.bound = None;
                self.maybe_bound = if_done((*expires).max(LONGEST)).latest;
                self.registered = now;
            }
            Purpose::Subscribe { watch, expires } => {
                let watch = &mut self.watches[*watch];
                watch.acked = now;
                match watch.stage {
                    Stage::Starting => watch.stage = Stage::Over,
                    Stage::Ending => watch.ends.earliest = transaction.started,
                    Stage::Live => {
                        let if_done = if_done(*expires);
                        watch.ends.earliest = watch.ends.earliest.min(if_done.earliest);
                        watch.ends.latest = watch.ends.latest.max(if_done.latest);
                    }
                    Stage::Over => {}
                }
            }
            Purpose::Stale | Purpose::Query => {}
        }
    }

    /// What is published is replaced or taken back.
    pub(super) fn put_aside(&mut self, now: Duration, power_failed: bool) {
        if let Some(Live { etag, token, ends, .. }) = self.live.take() {
            if power_failed {
                self.ghosts.push((token, ends.latest));
                self.lost_tags.push(etag);
                return;
            }
            self.past.push(Past { etag, token, ends, replaced: now });
        }
    }

    /// What is published is not there any more. A power cut may take back that it ran out, and a clock that is set back then
    /// leaves it some time. What has not run out was taken by an earlier power cut, and does not come back.
    pub(super) fn ran_out(&mut self, now: Duration, power_failed: bool) {
        if self.live.as_ref().is_some_and(|live| live.ends.surely_runs(now)) {
            self.live = None;
        } else {
            self.put_aside(now, power_failed);
        }
    }
}

/// The version of a document.
fn version_of(text: &SipText) -> Option<u64> {
    let (_, rest) = text.body.split_once("dialog-info\" version=\"")?;
    rest.split('"').next()?.parse().ok()
}

/// The URIs of the Contact header fields.
fn contacts(text: &SipText) -> Vec<String> {
    let uri = |v: &str| comsipl_tests::world::sip_text::uri_of(v).to_owned();
    text.values("Contact").into_iter().map(uri).collect()
}

/// What is granted is what was asked for (it lies within the server's bounds), or what is left of it when the process died
/// with the first answer.
fn is_granted(granted: Option<Duration>, asked: Duration, crashed: bool) -> bool {
    granted == Some(asked) || (crashed && granted.is_some_and(|granted| granted < asked))
}

/// An answer to a NOTIFY.
fn answer(request: &SipText, status: u16) -> Bytes {
    let mut out = format!("SIP/2.0 {status} Said\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        for value in request.all(name) {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if status == 503 {
        out.push_str("Retry-After: 7\r\n");
    }
    out.push_str("Content-Length: 0\r\n\r\n");
    out.into_bytes().into()
}

/// Failures in a row after which a phone pulls itself together, so that pauses stay short.
const FAILURES_IN_A_ROW_MAX: u32 = 2;
