//! The `reg` package (RFC 3680): who is registered, and with which contacts.
//!
//! Documents always have full state, which the RFC leaves to the server (§4.3: "the server can apply any policy it likes"):
//! a phone has one contact or two, and a watcher that missed a document needs nothing to catch up. A contact that has ended
//! is told as `terminated` for [`TOLD_FOR`](super::TOLD_FOR).

use std::time::Duration;

use super::moments::{push_since, push_until, push_while};
use super::{Compose, EventPackage, everything};
use crate::UnixMillis;
use crate::header::{Params, unquote_into};
use crate::token::{hex16, push_number};
use crate::xml::text::{escape, escape_uri};

/// > Registration state can be sensitive information.  Therefore, all subscriptions to it SHOULD be authenticated and
/// > authorized before approval. … It is RECOMMENDED that a user be allowed to subscribe to their own registration state.
/// > (RFC 3680 §4.6)
///
/// Media type: RFC 3680 §4.5; default expiry: §4.4; least interval: §4.10.
pub(super) const PACKAGE: EventPackage = EventPackage {
    name: "reg",
    number: 6,
    content_type: "application/reginfo+xml",
    template: false,
    own_only: true,
    compose: Compose::Registration,
    opening: Some(OPENING),
    default_expires_secs: Some(3761),
    interval: Some(Duration::from_secs(5)),
    requested_info: everything,
};

/// The beginning of each document up to its version (RFC 3680 §5.1).
const OPENING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                       <reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"";

/// What brought a contact to where it is (RFC 3680 §4.7.1, Figure 2). The other events are those of an administrator who changes
/// bindings, and nobody but their phones does that here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactEvent {
    /// A REGISTER added it.
    Registered,
    /// A REGISTER renewed it.
    Refreshed,
    /// Nobody renewed it in time.
    Expired,
    /// A REGISTER removed it.
    Unregistered,
}

impl ContactEvent {
    /// The event in the letters of the schema.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Refreshed => "refreshed",
            Self::Expired => "expired",
            Self::Unregistered => "unregistered",
        }
    }

    /// Whether the contact is bound after it.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Registered | Self::Refreshed)
    }
}

/// One contact of a registration.
#[derive(Clone, Copy, Debug)]
pub struct ContactInfo<'a> {
    /// Names it among all contacts that its watchers are told of.
    pub id: u64,
    /// What happened to it last.
    pub event: ContactEvent,
    /// When it was bound first; zero: not known.
    pub registered_at: UnixMillis,
    /// When it ends; of one that has ended, until when that is told.
    pub until: UnixMillis,
    /// Call-ID of the last REGISTER.
    pub call_id: &'a [u8],
    /// CSeq of the last REGISTER.
    pub cseq: u32,
    /// Its URI.
    pub uri: &'a [u8],
    /// Its header parameters, as the phone sent them.
    pub params: &'a [u8],
    /// Its display name, as the phone wrote it; empty if it has none.
    pub display_name: &'a [u8],
    /// Its public GRUU (RFC 5627), empty if it has none.
    pub pub_gruu: &'a [u8],
}

/// Appends the document of `aor` (canonical, without scheme) behind its version: `contacts` are those that are bound,
/// `ended` those that were until shortly before. `id` names the registration.
pub fn write<'a>(
    aor: &[u8],
    id: u64,
    contacts: impl Iterator<Item = ContactInfo<'a>>,
    ended: impl Iterator<Item = ContactInfo<'a>>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"\" state=\"full\">\n<registration aor=\"sip:");
    escape_uri(aor, out);
    out.extend_from_slice(b"\" id=\"");
    out.extend_from_slice(&hex16(id));
    out.extend_from_slice(b"\" state=\"");
    let mut contacts = contacts.peekable();
    let mut ended = ended.peekable();
    if contacts.peek().is_some() {
        out.extend_from_slice(b"active");
    } else if let Some(told_until) = ended.peek().map(|contact| contact.until) {
        // RFC 3680 §4.7.1: "When the last contact expires or is removed, the registration transitions to terminated. From
        // there, it immediately transitions back to the init state. This transition is invisible".
        push_while(out, told_until, |out| push(out, "terminated"), |out| push(out, "init"));
    } else {
        out.extend_from_slice(b"init");
    }
    out.extend_from_slice(b"\">\n");
    for contact in contacts {
        write_contact(&contact, out);
    }
    for contact in ended {
        push_while(out, contact.until, |out| write_contact(&contact, out), |_| ());
    }
    out.extend_from_slice(b"</registration>\n</reginfo>\n");
}

fn write_contact(contact: &ContactInfo<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<contact id=\"");
    out.extend_from_slice(&hex16(contact.id));
    push(out, if contact.event.is_active() { "\" state=\"active" } else { "\" state=\"terminated" });
    out.extend_from_slice(b"\" event=\"");
    push(out, contact.event.as_str());
    if contact.event.is_active() {
        if contact.registered_at.0 != 0 {
            out.extend_from_slice(b"\" duration-registered=\"");
            push_since(out, contact.registered_at);
        }
        out.extend_from_slice(b"\" expires=\"");
        push_until(out, contact.until);
    }
    let params = Params::parsed_before(contact.params);
    if let Some(q) = params.value("q") {
        out.extend_from_slice(b"\" q=\"");
        escape(q, out);
    }
    out.extend_from_slice(b"\" callid=\"");
    escape(contact.call_id, out);
    out.extend_from_slice(b"\" cseq=\"");
    push_number(out, contact.cseq.into());
    out.extend_from_slice(b"\"><uri>");
    escape_uri(contact.uri, out);
    out.extend_from_slice(b"</uri>");
    if !contact.display_name.is_empty() {
        let mut name = Vec::new();
        unquote_into(contact.display_name, &mut name);
        out.extend_from_slice(b"<display-name>");
        escape(&name, out);
        out.extend_from_slice(b"</display-name>");
    }
    // "The "unknown-param" element is used to convey contact header field parameters that are not specified in RFC 3261."
    let known =
        |name: &[u8]| ["q", "expires"].iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name));
    for param in params.iter().filter(|param| !known(param.name)) {
        out.extend_from_slice(b"<unknown-param name=\"");
        escape(param.name, out);
        out.extend_from_slice(b"\">");
        escape(param.value.unwrap_or_default(), out);
        out.extend_from_slice(b"</unknown-param>");
    }
    if !contact.pub_gruu.is_empty() {
        out.extend_from_slice(b"<gr:pub-gruu xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" uri=\"");
        escape_uri(contact.pub_gruu, out);
        out.extend_from_slice(b"\"/>");
    }
    out.extend_from_slice(b"</contact>\n");
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::moments::render;
    use crate::event::tests::elements;

    const PHONE: ContactInfo<'_> = ContactInfo {
        id: 0x76,
        event: ContactEvent::Registered,
        registered_at: UnixMillis(1_000_000),
        until: UnixMillis(4_600_000),
        call_id: b"1j9FpLxk3uxtm8tn@192.0.2.1",
        cseq: 54_321,
        uri: b"sip:user@192.0.2.1",
        params: b";q=0.8;+sip.instance=\"<urn:uuid:f81d4fae>\";expires=3600",
        display_name: b"",
        pub_gruu: b"",
    };

    fn document(contacts: &[ContactInfo<'_>], ended: &[ContactInfo<'_>], now: u64) -> String {
        let mut kept = OPENING.as_bytes().to_vec();
        push_number(&mut kept, 0);
        write(b"user@example.com", 0xa9, contacts.iter().copied(), ended.iter().copied(), &mut kept);
        let mut out = Vec::new();
        render(&kept, UnixMillis(now), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_contact_is_told_with_all_that_is_known_of_it() {
        let phone = ContactInfo {
            display_name: br#""User at \"work\"""#,
            pub_gruu: b"sip:user@example.com;gr=hha9s8d-999a",
            ..PHONE
        };
        assert_eq!(
            document(&[phone], &[], 1_001_000),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"0\" state=\"full\">\n\
             <registration aor=\"sip:user@example.com\" id=\"00000000000000a9\" state=\"active\">\n\
             <contact id=\"0000000000000076\" state=\"active\" event=\"registered\" duration-registered=\"1\" \
             expires=\"3599\" q=\"0.8\" callid=\"1j9FpLxk3uxtm8tn@192.0.2.1\" cseq=\"54321\">\
             <uri>sip:user@192.0.2.1</uri><display-name>User at &quot;work&quot;</display-name>\
             <unknown-param name=\"+sip.instance\">&quot;&lt;urn:uuid:f81d4fae&gt;&quot;</unknown-param>\
             <gr:pub-gruu xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" uri=\"sip:user@example.com;gr=hha9s8d-999a\"/>\
             </contact>\n</registration>\n</reginfo>\n"
        );
    }

    #[test]
    fn the_last_contact_that_ends_terminates_the_registration_for_a_while() {
        let ended = ContactInfo { event: ContactEvent::Expired, until: UnixMillis(5_000), ..PHONE };
        let told = document(&[], &[ended], 4_999);
        assert!(told.contains("id=\"00000000000000a9\" state=\"terminated\""), "{told}");
        assert!(told.contains("state=\"terminated\" event=\"expired\" q=\"0.8\""), "{told}");
        assert!(!told.contains("expires="), "{told}");
        let later = document(&[], &[ended], 5_000);
        assert!(later.contains("state=\"init\">\n</registration>"), "{later}");
        assert_eq!(later, document(&[], &[], 5_000));
        let other = document(&[PHONE], &[ended], 4_999);
        assert!(other.contains("state=\"active\">\n<contact"), "{other}");
        assert_eq!(elements(&other).iter().filter(|name| *name == "contact").count(), 2);
    }

    #[test]
    fn what_phones_send_cannot_leave_its_place() {
        let hostile = b"\"/><x a='&<>]]>\x01\x03\x05\xff\r\n";
        let phone = ContactInfo {
            call_id: hostile,
            uri: hostile,
            params: b";\"><b>;n=\"</unknown-param><evil/>&\x02\";q=\"<\"",
            display_name: hostile,
            pub_gruu: hostile,
            ..PHONE
        };
        let text = document(&[phone], &[ContactInfo { event: ContactEvent::Unregistered, ..phone }], 0);
        let names = elements(&text);
        assert!(
            names.iter().all(|name| [
                "reginfo",
                "registration",
                "contact",
                "uri",
                "display-name",
                "unknown-param",
                "pub-gruu"
            ]
            .contains(&name.as_str())),
            "{names:?}"
        );
    }
}
