//! What the stories have in common: altered messages, answers as phones give them, and phones in a world.

use std::time::Duration;

use comsipl_benches::{OneShard, phone};
use comsipl_shards::settings::{Auth, Settings};
use comsipl_tests::world::sip_text::SipText;
use comsipl_tests::world::{Bytes, Happening, SERVER, Setup, World};

/// The message with each first text replaced by the second one, which must be there.
pub fn altered(message: Vec<u8>, changes: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::from_utf8(message).expect("text");
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        text = text.replace(from, to);
    }
    text.into_bytes()
}

/// A REGISTER of `user` for an hour; `contacts` is the value of its Contact header field, empty for a query.
pub fn register_contacts(user: &str, cseq: u32, contacts: &str) -> Vec<u8> {
    let contact = if contacts.is_empty() { String::new() } else { format!("Contact: {contacts}\r\n") };
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK.{user}{cseq};rport\r\n\
         From: <sip:{user}@example.com>;tag=f\r\nTo: <sip:{user}@example.com>\r\nCall-ID: register-{user}\r\n\
         CSeq: {cseq} REGISTER\r\nMax-Forwards: 70\r\n{contact}Expires: 3600\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// 200 to a request of the server.
pub fn ok_to(request: &SipText) -> Vec<u8> {
    let mut answer = "SIP/2.0 200 OK\r\n".to_owned();
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        for value in request.all(name) {
            answer.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    answer.push_str("Content-Length: 0\r\n\r\n");
    answer.into_bytes()
}

/// Everything in the outbox of a shard, in its order; the outbox is empty afterwards.
pub fn sent(world: &mut OneShard) -> Vec<SipText> {
    let shard = &mut world.shard;
    let mut messages = Vec::new();
    for message in shard.outbox.messages() {
        let bytes = shard.outbox.parts(message, &shard.bodies).concat();
        messages.push(SipText::read(&bytes).expect("a whole message"));
    }
    shard.outbox.clear(&mut shard.bodies);
    messages
}

/// Brings a request to the shard and returns the answer; what else it led to is carried out and answered.
pub fn ask(world: &mut OneShard, n: usize, request: &[u8]) -> SipText {
    world.deliver(phone(n), request);
    let answer = world.shard.outbox.messages().first().expect("every request is answered");
    let answer = SipText::read(world.shard.outbox.head(answer)).expect("a whole message");
    world.settle();
    answer
}

/// The status of [`ask`]'s answer.
pub fn status_of(world: &mut OneShard, n: usize, request: &[u8]) -> u16 {
    let answer = ask(world, n, request);
    answer.status().unwrap_or_else(|| panic!("{} is no answer", answer.start))
}

/// Phones around a whole server, each at the address [`phone`] gives it.
pub struct Talk {
    /// The server.
    pub world: World,
    /// Whether NOTIFYs are answered as they come.
    pub polite: bool,
}

impl Talk {
    /// A new server with `shards` shards, and polite phones.
    pub fn new(shards: usize) -> Self {
        let settings = Settings {
            listen: vec![comsipl_core::Listen::udp(SERVER)],
            auth: Auth::None,
            ..Setup::default().settings
        };
        Self { world: World::new(Setup { shards, settings, ..Setup::default() }), polite: true }
    }

    /// Phone `n` sends something.
    pub fn say(&mut self, n: usize, message: &[u8]) {
        self.world.send(phone(n), SERVER, message.to_vec());
    }

    /// Lets `span` pass; what phones got meanwhile.
    pub fn hear(&mut self, span: Duration) -> Vec<SipText> {
        let until = self.world.now() + span;
        let mut heard = Vec::new();
        while let Some(happening) = self.world.next(until) {
            let Happening::PhoneGot { from, to, bytes, .. } = happening else { continue };
            let message = SipText::read(&bytes).expect("the server writes whole messages");
            if self.polite && message.method() == Some("NOTIFY") {
                self.world.send(to, from, Bytes::from(ok_to(&message)));
            }
            heard.push(message);
        }
        heard
    }

    /// Phone `n` sends a request; what phones get within a tenth of a second, the answer first.
    pub fn ask(&mut self, n: usize, request: &[u8]) -> Vec<SipText> {
        self.say(n, request);
        let heard = self.hear(Duration::from_millis(100));
        let answer = heard.first().and_then(SipText::status);
        assert!(answer.is_some(), "the first is no answer: {heard:?}\n{}", self.world.story());
        heard
    }
}
