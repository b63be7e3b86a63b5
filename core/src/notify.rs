//! The head of a NOTIFY, in either of two looks.
//!
//! `rfc` is for the world (RFC 6665 §4.2.2, RFC 3261 §12.2.1.1). `comsipl` is what installed ComSIPL clients expect, as the
//! customer's document shows it: the Request-URI is the presentity, From carries no tag, and the header fields stand in the
//! document's order.

use crate::event::Capitals;
use crate::header::scan::position;
use crate::locate::ROUTE_BEHIND_STRICT;
use crate::padding::Padding;
use crate::sips::{is_sips, sips_params};
use crate::token::push_number;

/// How NOTIFYs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// By the RFCs, for the world.
    #[default]
    Rfc,
    /// As installed ComSIPL clients expect them.
    Comsipl,
}

/// What Subscription-State says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionStatus {
    /// `active` with the seconds left.
    Active {
        /// Seconds until the subscription ends.
        expires_secs: u32,
    },
    /// `terminated;reason=timeout`: it ran out, was ended by the watcher, or was a poll (RFC 6665 §4.1.3).
    TerminatedTimeout,
}

/// Everything that a NOTIFY's head is made of.
#[derive(Clone, Copy, Debug)]
pub struct NotifyHead<'a> {
    /// Canonical AoR of the presentity.
    pub aor: &'a [u8],
    /// Remote target of the dialog: the watcher's Contact URI.
    pub remote_target: &'a [u8],
    /// Route set as `<uri>,<uri>`, empty without proxies.
    pub route_set: &'a [u8],
    /// Our address as it stands in Via: `host[:port]`.
    pub sent_by: &'a [u8],
    /// Our address as it stands in Contact: where the watcher's requests go, by whatever flow this one leaves.
    pub contact_address: &'a [u8],
    /// Parameters of our Contact URI: the transport by which we are reached; in the `rfc` profile they end with the `gr=` of a
    /// GRUU of ours, and its value follows (see [`own_gruu`]).
    pub contact_params: &'a [u8],
    /// Transport token of the Via.
    pub transport: &'a str,
    /// Branch of this transaction, with the magic cookie.
    pub branch: &'a [u8],
    /// The To URI of the SUBSCRIBE; empty: `sip:` and the AoR.
    pub local_uri: &'a [u8],
    /// Our tag.
    pub local_tag: &'a [u8],
    /// The From URI of the SUBSCRIBE.
    pub remote_uri: &'a [u8],
    /// The From tag of the SUBSCRIBE.
    pub remote_tag: &'a [u8],
    /// The dialog's Call-ID.
    pub call_id: &'a [u8],
    /// Our sequence number.
    pub cseq: u32,
    /// Event package name.
    pub event: &'a str,
    /// How the SUBSCRIBE had it.
    pub capitals: Capitals,
    /// `id` of the Event header field, empty if there is none.
    pub event_id: &'a [u8],
    /// Subscription-State.
    pub status: SubscriptionStatus,
    /// The body; `None` without one.
    pub content: Option<Content<'a>>,
    /// What stands behind the body.
    pub padding: Padding,
}

/// A NOTIFY's body, as its head needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Body type.
    pub kind: &'a str,
    /// What the body begins with before its shared part: a text and the number of the document's version.
    pub opening: Option<(&'a str, u32)>,
    /// Length of the shared part in bytes.
    pub len: usize,
}

/// The Server line of our answers, as one text because every answer has it.
pub const SERVER_LINE: &str = concat!("Server: ComSIPL/", env!("CARGO_PKG_VERSION"), "\r\n");

/// The `rfc` profile's User-Agent, as one text because every NOTIFY has it.
const USER_AGENT_LINE: &str = concat!("User-Agent: ComSIPL/", env!("CARGO_PKG_VERSION"), "\r\n");

/// What names a presentity in the GRUU that is our Contact: user part with its `@`, before our address, and the value of `gr`,
/// the domain: `sip:alice@192.0.2.1;gr=example.com`.
///
/// > Notifiers MUST implement the Globally Routable User Agent URI (GRUU) extension […], and MUST use a GRUU as their local
/// > target. […] (RFC 6665 §4.5.1)
///
/// A SUBSCRIBE to it reaches the same presentity outside of the dialog too.
#[inline]
#[must_use]
pub fn own_gruu(aor: &[u8]) -> (&[u8], &[u8]) {
    // In canonical form it is the only one.
    aor.split_at(position(aor, b'@').map_or(0, |at| at + 1))
}

/// End of the Content-Length line, and the blank line.
const HEAD_END: &[u8] = b"\r\n\r\n";

impl NotifyHead<'_> {
    /// Appends the head, the blank line and the opening of the body included. Returns how many bytes of padding belong behind the body.
    pub fn write(&self, profile: Profile, out: &mut Vec<u8>) -> u8 {
        let start = out.len();
        match profile {
            Profile::Rfc => self.write_rfc(out),
            Profile::Comsipl => self.write_comsipl(out),
        }
        let Some(Content { kind, opening, len }) = self.content else {
            put(out, &[b"Content-Length: 0\r\n\r\n"]);
            return 0;
        };
        let len = len + opening.map_or(0, |(text, version)| text.len() + decimal_len(version));
        put(out, &[b"Content-Type: ", kind.as_bytes(), b"\r\nContent-Length: "]);
        let mut number = itoa::Buffer::new();
        let digits = number.format(len);
        let natural = out.len() - start + digits.len() + HEAD_END.len() + len;
        let padding = match profile {
            Profile::Rfc => self.padding.of(natural, len),
            // Installed clients know the document's bytes.
            Profile::Comsipl => 0,
        };
        if padding == 0 {
            put(out, &[digits.as_bytes(), HEAD_END]);
        } else {
            put(out, &[number.format(len + usize::from(padding)).as_bytes(), HEAD_END]);
        }
        if let Some((text, version)) = opening {
            out.extend_from_slice(text.as_bytes());
            push_number(out, u64::from(version));
        }
        padding
    }

    fn write_rfc(&self, out: &mut Vec<u8>) {
        let strict = strict_first_route(self.route_set);
        put(out, &[b"NOTIFY ", strict.unwrap_or(self.remote_target), b" SIP/2.0\r\nVia: SIP/2.0/"]);
        put(out, &[self.transport.as_bytes(), b" ", self.sent_by, b";branch=", self.branch]);
        if self.route_set.is_empty() {
            put(out, &[b";rport\r\nMax-Forwards: 70\r\nFrom: <"]);
        } else {
            put(out, &[b";rport\r\nMax-Forwards: 70\r\n"]);
            self.write_routes(strict.is_some(), out);
            put(out, &[b"From: <"]);
        }
        if self.local_uri.is_empty() {
            put(out, &[b"sip:", self.aor]);
        } else {
            put(out, &[self.local_uri]);
        }
        put(out, &[b">;tag=", self.local_tag, b"\r\nTo: <", self.remote_uri, b">"]);
        if !self.remote_tag.is_empty() {
            put(out, &[b";tag=", self.remote_tag]);
        }
        put(out, &[b"\r\nCall-ID: ", self.call_id, b"\r\nCSeq: "]);
        push_number(out, u64::from(self.cseq));
        put(out, &[b" NOTIFY\r\n"]);
        let (user, domain) = own_gruu(self.aor);
        self.write_contact(user, domain, out);
        self.write_event(self.capitals, out);
        self.write_status(out);
        put(out, &[USER_AGENT_LINE.as_bytes()]);
    }

    fn write_comsipl(&self, out: &mut Vec<u8>) {
        put(out, &[b"NOTIFY sip:", self.aor, b" SIP/2.0\r\nVia: SIP/2.0/"]);
        put(out, &[self.transport.as_bytes(), b" "]);
        put(out, &[self.sent_by, b";branch=", self.branch, b"\r\n"]);
        if !self.route_set.is_empty() {
            self.write_routes(false, out);
        }
        put(out, &[b"To: <", self.remote_uri, b">"]);
        if !self.remote_tag.is_empty() {
            put(out, &[b";tag=", self.remote_tag]);
        }
        put(out, &[b"\r\nFrom: <sip:", self.aor, b">\r\nCall-ID: ", self.call_id, b"\r\nCSeq: "]);
        push_number(out, u64::from(self.cseq));
        put(out, &[b" NOTIFY\r\nUser-Agent: ComSIPL/1.x\r\n"]);
        // As the document has it, however the SUBSCRIBE did.
        self.write_event(Capitals::default(), out);
        self.write_status(out);
        self.write_contact(b"", b"", out);
    }

    /// Where the watcher's next SUBSCRIBE goes. RFC 3261 §8.1.1.8: with a `sips` URI as Request-URI or first route "the Contact
    /// header field MUST contain a SIPS URI as well".
    #[inline(always)]
    fn write_contact(&self, user: &[u8], domain: &[u8], out: &mut Vec<u8>) {
        if is_sips(self.remote_target) || self.route_set.get(1..).is_some_and(is_sips) {
            put(
                out,
                &[
                    b"Contact: <sips:",
                    user,
                    self.contact_address,
                    sips_params(self.contact_params),
                    domain,
                    b">\r\n",
                ],
            );
        } else {
            put(out, &[b"Contact: <sip:", user, self.contact_address, self.contact_params, domain, b">\r\n"]);
        }
    }

    /// RFC 3261 §12.2.1.1: with a strict first route, that route is the Request-URI and the target goes last.
    fn write_routes(&self, strict: bool, out: &mut Vec<u8>) {
        if !strict {
            put(out, &[b"Route: ", self.route_set, b"\r\n"]);
            return;
        }
        let rest =
            self.route_set.iter().position(|&b| b == b',').map_or(&b""[..], |at| &self.route_set[at + 1..]);
        put(
            out,
            &[
                ROUTE_BEHIND_STRICT,
                rest,
                if rest.is_empty() { b"" } else { b"," },
                b"<",
                self.remote_target,
                b">\r\n",
            ],
        );
    }

    #[inline(always)]
    fn write_event(&self, capitals: Capitals, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Event: ");
        capitals.push(self.event, out);
        if !self.event_id.is_empty() {
            put(out, &[b";id=", self.event_id]);
        }
        put(out, &[b"\r\n"]);
    }

    #[inline(always)]
    fn write_status(&self, out: &mut Vec<u8>) {
        match self.status {
            SubscriptionStatus::Active { expires_secs } => {
                put(out, &[b"Subscription-State: active;expires="]);
                push_number(out, u64::from(expires_secs));
                put(out, &[b"\r\n"]);
            }
            SubscriptionStatus::TerminatedTimeout => {
                put(out, &[b"Subscription-State: terminated;reason=timeout\r\n"]);
            }
        }
    }
}

/// The first route's URI if it is a strict router's (no `lr`, RFC 3261 §12.2.1.1).
fn strict_first_route(route_set: &[u8]) -> Option<&[u8]> {
    let first = crate::dialog::first_route(route_set)?;
    // Nearly all say so at their end, and a look there is cheaper than reading the URI.
    if first.ends_with(b";lr") && !first.contains(&b'?') {
        return None;
    }
    let uri = crate::uri::Uri::parse(first).ok()?;
    (!uri.lr()).then_some(first)
}

/// Decimal digits of a number.
fn decimal_len(number: u32) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Appends the parts one after another.
#[inline]
fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locate::host_of_request;
    use crate::uri::Host;

    const HEAD: NotifyHead<'_> = NotifyHead {
        aor: b"51234@10.0.0.27",
        remote_target: b"sip:51112@10.0.0.141:5062",
        route_set: b"",
        sent_by: b"10.0.0.27",
        contact_address: b"10.0.0.27",
        contact_params: b"",
        transport: "UDP",
        branch: b"z9hG4bK-d1e4c983",
        local_uri: b"sip:51234@10.0.0.27",
        local_tag: b"~3f0123456789abcdef",
        remote_uri: b"sip:51112@10.0.0.27",
        remote_tag: b"rnzgc",
        call_id: b"uyyucrjijinwadl",
        cseq: 633,
        event: "presence",
        capitals: Capitals(0),
        event_id: b"",
        status: SubscriptionStatus::Active { expires_secs: 599 },
        content: Some(Content { kind: "application/pidf+xml", opening: None, len: 253 }),
        padding: Padding::Exactly(0),
    };

    fn text(head: &NotifyHead<'_>, profile: Profile) -> String {
        let mut out = Vec::new();
        head.write(profile, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_comsipl_profile_is_the_customers_document_byte_for_byte() {
        let expected = "NOTIFY sip:51234@10.0.0.27 SIP/2.0\r\n\
            Via: SIP/2.0/UDP 10.0.0.27;branch=z9hG4bK-d1e4c983\r\n\
            To: <sip:51112@10.0.0.27>;tag=rnzgc\r\n\
            From: <sip:51234@10.0.0.27>\r\n\
            Call-ID: uyyucrjijinwadl\r\n\
            CSeq: 633 NOTIFY\r\n\
            User-Agent: ComSIPL/1.x\r\n\
            Event: presence\r\n\
            Subscription-State: active;expires=599\r\n\
            Contact: <sip:10.0.0.27>\r\n\
            Content-Type: application/pidf+xml\r\n\
            Content-Length: 253\r\n\r\n";
        assert_eq!(text(&HEAD, Profile::Comsipl), expected);
    }

    #[test]
    fn the_rfc_profile_goes_to_the_remote_target_within_the_dialog() {
        let head = text(&NotifyHead { contact_params: b";gr=", ..HEAD }, Profile::Rfc);
        assert!(
            head.starts_with(
                "NOTIFY sip:51112@10.0.0.141:5062 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.27;branch="
            )
        );
        assert!(head.contains("\r\nFrom: <sip:51234@10.0.0.27>;tag=~3f0123456789abcdef\r\n"));
        assert!(
            head.contains("\r\nMax-Forwards: 70\r\n")
                && head.contains("\r\nContact: <sip:51234@10.0.0.27;gr=10.0.0.27>\r\n")
        );
        assert!(!head.contains("Route:"));
    }

    #[test]
    fn a_to_uri_that_is_the_aor_need_not_be_given() {
        let mut head = HEAD;
        head.local_uri = b"";
        assert_eq!(text(&head, Profile::Rfc), text(&HEAD, Profile::Rfc));
    }

    #[test]
    fn a_strict_router_becomes_the_request_uri() {
        let mut head = HEAD;
        head.route_set = b"<sip:192.0.2.1>,<sip:192.0.2.2;lr>";
        let strict = text(&head, Profile::Rfc);
        assert!(strict.starts_with("NOTIFY sip:192.0.2.1 SIP/2.0\r\n"));
        assert!(strict.contains("\r\nRoute:<sip:192.0.2.2;lr>,<sip:51112@10.0.0.141:5062>\r\n"));
        head.route_set = b"<sip:192.0.2.1;lr>";
        let loose = text(&head, Profile::Rfc);
        assert!(loose.starts_with("NOTIFY sip:51112@10.0.0.141:5062 SIP/2.0\r\n"));
        assert!(loose.contains("\r\nRoute: <sip:192.0.2.1;lr>\r\n"));
    }

    /// The route behind a strict router was taken for the next hop once.
    ///
    /// > If the first element in the route set indicated a strict router […], the procedures MUST be applied to the
    /// > Request-URI of the request. (RFC 3261 §8.1.2)
    #[test]
    fn the_head_names_the_next_hop() {
        let of = |route_set: &str, remote_target: &str, profile| {
            let (route_set, remote_target) = (route_set.as_bytes(), remote_target.as_bytes());
            let head = text(&NotifyHead { route_set, remote_target, ..HEAD }, profile);
            match host_of_request(head.as_bytes()) {
                Some(Host::Name(host)) => String::from_utf8(host.to_vec()).unwrap(),
                other => panic!("{other:?} in {head}"),
            }
        };
        for (route_set, next_hop) in [
            ("", "phone.example"),
            ("<sip:loose.example;lr>", "loose.example"),
            ("<sip:loose.example;lr>,<sip:strict.example>", "loose.example"),
            ("<sip:strict.example>", "strict.example"),
            ("<sip:strict.example>,<sip:loose.example;lr>", "strict.example"),
            ("<sip:strict.example>,<sip:other.example>", "strict.example"),
        ] {
            for target in ["sip:b@phone.example", "sip:b@phone.example;lr"] {
                assert_eq!(of(route_set, target, Profile::Rfc), next_hop, "{route_set} {target}");
            }
        }
        // This profile knows of no strict routers and sends to the first route, whichever it is.
        let comsipl = of("<sip:strict.example>", "sip:b@phone.example", Profile::Comsipl);
        assert_eq!(comsipl, "strict.example");
    }

    #[test]
    fn padding_is_counted_by_content_length_and_makes_the_length_asked_for() {
        let mut head = HEAD;
        head.padding = Padding::Fit(crate::padding::Run { count: 9, len: 800 });
        let mut out = Vec::new();
        let padding = head.write(Profile::Rfc, &mut out);
        assert!(padding > 0);
        assert_eq!(out.len() + 253 + usize::from(padding), 800);
        let length = format!("\r\nContent-Length: {}\r\n\r\n", 253 + usize::from(padding));
        assert!(out.ends_with(length.as_bytes()));
        out.clear();
        assert_eq!(head.write(Profile::Comsipl, &mut out), 0, "the customer's document has none");
    }

    #[test]
    fn an_opening_is_written_behind_the_head_and_counted() {
        let mut head = HEAD;
        for version in [0, 9, 10, u32::MAX] {
            head.content = Some(Content { kind: "a/b", opening: Some(("<v n=\"", version)), len: 30 });
            let text = text(&head, Profile::Rfc);
            let (head, opening) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(opening, format!("<v n=\"{version}"));
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", opening.len() + 30)));
        }
    }

    #[test]
    fn the_name_of_the_event_is_as_the_watcher_wrote_it() {
        let mut head = HEAD;
        head.capitals = Capitals::of(b"Presence");
        assert!(text(&head, Profile::Rfc).contains("\r\nEvent: Presence\r\n"));
        assert!(text(&head, Profile::Comsipl).contains("\r\nEvent: presence\r\n"));
    }

    #[test]
    fn an_end_names_its_reason_and_no_expiry() {
        let mut head = HEAD;
        head.status = SubscriptionStatus::TerminatedTimeout;
        (head.event_id, head.content) = (b"42", None);
        let ended = text(&head, Profile::Rfc);
        assert!(ended.contains("\r\nSubscription-State: terminated;reason=timeout\r\n"));
        assert!(ended.contains("\r\nEvent: presence;id=42\r\n"));
        assert!(ended.ends_with("\r\nContent-Length: 0\r\n\r\n") && !ended.contains("Content-Type"));
    }
}
