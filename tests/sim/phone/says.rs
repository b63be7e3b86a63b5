//! What a phone says of its own accord.

use std::collections::BTreeMap;
use std::time::Duration;

use comsipl_tests::world::Bytes;

use super::known::{ClockStep, Stage, Watch, Window};
use super::package::Package;
use super::request::{Purpose, T1, Transaction};
use super::{Phone, home};

impl Phone {
    /// Publishes a new state, or the first one. `same_id`: with a tuple id that other phones use too.
    pub fn publish(&mut self, now: Duration, crashes: u32, expires: u32, same_id: bool) -> Bytes {
        self.made += 1;
        let token = format!("d{}v{}", self.number, self.made);
        let id = if same_id { "t".to_owned() } else { format!("t{}", self.number) };
        let user = self.user;
        let package = Package::of(user);
        let body = match package {
            Package::Presence => format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
                 entity=\"sip:u{user}@example.com\"><tuple id=\"{id}\"><status><basic>open</basic></status>\
                 <note>{token}</note></tuple></presence>\r\n"
            ),
            Package::Dialog => format!(
                "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" xmlns:x=\"urn:x\" version=\"0\" \
                 state=\"full\" entity=\"sip:u{user}@example.com\"><dialog id=\"{id}\"><state>early</state>\
                 <x:note>{token}</x:note></dialog></dialog-info>\r\n"
            ),
        };
        let matching = self.if_match();
        let purpose =
            Purpose::Publish { token: Some(token), expires: Duration::from_secs(u64::from(expires)) };
        let extra = format!("{matching}Expires: {expires}\r\nContent-Type: {}\r\n", package.content_type());
        self.send_publish(now, crashes, purpose, &extra, &body)
    }

    /// Refreshes the publication.
    pub fn refresh(&mut self, now: Duration, crashes: u32, expires: u32) -> Bytes {
        let purpose = Purpose::Publish { token: None, expires: Duration::from_secs(u64::from(expires)) };
        let extra = format!("{}Expires: {expires}\r\n", self.if_match());
        self.send_publish(now, crashes, purpose, &extra, "")
    }

    /// Takes the publication back.
    pub fn unpublish(&mut self, now: Duration, crashes: u32) -> Bytes {
        let extra = format!("{}Expires: 0\r\n", self.if_match());
        self.send_publish(now, crashes, Purpose::Unpublish, &extra, "")
    }

    /// Tries an old entity tag, if there was any.
    pub fn try_old_tag(&mut self, now: Duration, crashes: u32, pick: u32) -> Option<Bytes> {
        let current = self.live.as_ref().map(|l| l.etag.as_str());
        let is_old = |t: &&String| Some(t.as_str()) != current && !self.lost_tags.contains(*t);
        let old: Vec<&String> = self.used_tags.iter().filter(is_old).collect();
        let tag = old.get(pick as usize % old.len().max(1))?;
        let extra = format!("SIP-If-Match: {tag}\r\nExpires: 600\r\n");
        Some(self.send_publish(now, crashes, Purpose::Stale, &extra, ""))
    }

    /// Registers for so long; zero ends the registration.
    pub fn register(&mut self, now: Duration, crashes: u32, expires: u32) -> Bytes {
        let purpose = Purpose::Register { expires: Duration::from_secs(u64::from(expires)) };
        let extra = format!("Contact: <{}>;expires={expires}\r\n", self.contact());
        self.send_register(now, crashes, purpose, &extra)
    }

    /// Asks for the bindings of its user.
    pub fn query(&mut self, now: Duration, crashes: u32) -> Bytes {
        self.listed = None;
        self.send_register(now, crashes, Purpose::Query, "")
    }

    /// Subscribes to a user on a new dialog; zero seconds: polls.
    pub fn subscribe(&mut self, now: Duration, crashes: u32, whom: usize, expires: u32) -> Bytes {
        let number = self.watches.len();
        self.watches.push(Watch {
            whom,
            call_id: format!("w{number}@d{}", self.number),
            tag: format!("d{}w{number}", self.number),
            server_tag: None,
            stage: if expires == 0 { Stage::Ending } else { Stage::Starting },
            ends: Window::default(),
            tokens: Vec::new(),
            basics: Vec::new(),
            version: None,
            told: false,
            trouble: Duration::ZERO,
            is_shaky: false,
            acked: Duration::ZERO,
            cseq: 0,
            notified: 0,
            answers: BTreeMap::new(),
            failures: 0,
        });
        self.send_subscribe(now, crashes, number, expires)
    }

    /// Refreshes a subscription; zero seconds: ends it.
    pub fn resubscribe(&mut self, now: Duration, crashes: u32, watch: usize, expires: u32) -> Bytes {
        if expires == 0 {
            self.watches[watch].stage = Stage::Ending;
        }
        self.send_subscribe(now, crashes, watch, expires)
    }

    pub(super) fn if_match(&self) -> String {
        self.live.as_ref().map(|live| format!("SIP-If-Match: {}\r\n", live.etag)).unwrap_or_default()
    }

    pub(super) fn send_publish(
        &mut self,
        now: Duration,
        crashes: u32,
        purpose: Purpose,
        extra: &str,
        body: &str,
    ) -> Bytes {
        self.publish_cseq += 1;
        let (user, number, cseq) = (self.user, self.number, self.publish_cseq);
        let head = format!(
            "From: <sip:u{user}@example.com>;tag=p{number}\r\nTo: <sip:u{user}@example.com>\r\n\
             Call-ID: publish@d{number}\r\nCSeq: {cseq} PUBLISH\r\nEvent: {}\r\n{extra}",
            Package::of(user).name()
        );
        self.start(now, crashes, purpose, &format!("PUBLISH sip:u{user}@example.com"), &head, body)
    }

    pub(super) fn send_register(
        &mut self,
        now: Duration,
        crashes: u32,
        purpose: Purpose,
        extra: &str,
    ) -> Bytes {
        self.register_cseq += 1;
        let (user, number, cseq) = (self.user, self.number, self.register_cseq);
        let head = format!(
            "From: <sip:u{user}@example.com>;tag=r{number}\r\nTo: <sip:u{user}@example.com>\r\n\
             Call-ID: register@d{number}\r\nCSeq: {cseq} REGISTER\r\n{extra}"
        );
        self.start(now, crashes, purpose, "REGISTER sip:example.com", &head, "")
    }

    pub(super) fn send_subscribe(
        &mut self,
        now: Duration,
        crashes: u32,
        number: usize,
        expires: u32,
    ) -> Bytes {
        let (user, contact) = (self.user, self.contact());
        let watch = &mut self.watches[number];
        let package = Package::of(watch.whom);
        watch.cseq += 1;
        let to_tag = watch.server_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let head = format!(
            "From: <sip:u{user}@example.com>;tag={}\r\nTo: <sip:u{}@example.com>{to_tag}\r\nCall-ID: {}\r\n\
             CSeq: {} SUBSCRIBE\r\nContact: <{contact}>\r\nEvent: {}\r\nExpires: {expires}\r\n\
             Accept: {}\r\n",
            watch.tag,
            watch.whom,
            watch.call_id,
            watch.cseq,
            package.name(),
            package.content_type()
        );
        let target = if watch.server_tag.is_some() {
            format!("SUBSCRIBE sip:{}", comsipl_tests::world::SERVER)
        } else {
            format!("SUBSCRIBE sip:u{}@example.com", watch.whom)
        };
        let purpose = Purpose::Subscribe { watch: number, expires: Duration::from_secs(u64::from(expires)) };
        self.start(now, crashes, purpose, &target, &head, "")
    }

    pub(super) fn start(
        &mut self,
        now: Duration,
        crashes: u32,
        purpose: Purpose,
        start: &str,
        head: &str,
        body: &str,
    ) -> Bytes {
        self.made += 1;
        let branch = format!("z9hG4bK-d{}-{}", self.number, self.made);
        let bytes: Bytes = format!(
            "{start} SIP/2.0\r\nVia: SIP/2.0/{} {};branch={branch};rport\r\nMax-Forwards: 70\r\n{head}\
             Content-Length: {}\r\n\r\n{body}",
            if self.streams { "TCP" } else { "UDP" },
            home(self.number),
            body.len()
        )
        .into_bytes()
        .into();
        self.transactions.push(Transaction {
            branch,
            bytes: Bytes::clone(&bytes),
            purpose,
            started: now,
            again_at: now + T1,
            interval: T1,
            crashes,
            over_connection: self.streams,
            clock_step: ClockStep::default(),
            power_failed: false,
        });
        bytes
    }
}
