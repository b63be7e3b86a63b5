//! 503 to a request that was only looked at.

use std::net::SocketAddr;

use super::{Feedback, Offer};
use crate::header::line::some_lines;
use crate::header::scan::line_break;
use crate::header::{HeaderName, NameAddr, Via};
use crate::msg::{push_number, push_unfolded, push_via_line};
use crate::padding::Run;

/// To whom a request is refused, and what else he is told.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Where the request came from.
    pub source: SocketAddr,
    /// For whoever takes part in overload control.
    pub feedback: Option<Feedback>,
    /// When a user agent is to try again. What a proxy has brought is told by its Vias, and nothing is said then:
    ///
    /// > A SIP server that is in overload and has started to throttle incoming traffic MUST reject some requests from
    /// > non-participating clients with a 503 (Service Unavailable) response without the Retry-After header.
    /// > (RFC 7339 §5.10.2)
    ///
    /// because a proxy would take it for all its users (RFC 3261 §21.5.4).
    pub retry_after_secs: Option<u32>,
    /// The messages before it that go where it goes: it gets their length if it can, so that the kernel is given them as one.
    pub run: Run,
}

impl Offer<'_> {
    /// Writes a 503 (Service Unavailable) to the request with this topmost `via`, and tells whether it could: not to what lacks
    /// anything that an answer must repeat (RFC 3261 §8.2.6.2). Nothing is kept (§8.2.7).
    pub fn push_refusal(&self, out: &mut Vec<u8>, via: &Via<'_>, refused: &Refused) -> bool {
        let start = out.len();
        let Some(is_forwarded) = self.push_repeated(out, via, refused) else {
            out.truncate(start);
            return false;
        };
        if let Some(secs) = refused.retry_after_secs
            && !is_forwarded
            && !via.takes_part()
        {
            out.extend_from_slice(b"Retry-After: ");
            push_number(out, u64::from(secs));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        let len = out.len() - start;
        let padding = refused.run.target(len) - len;
        if padding > 0 {
            // The only place where spaces belong to the grammar is the end of the reason (RFC 3261 §25.1, Reason-Phrase).
            let reason_end = start + STATUS.len();
            out.resize(start + len + padding, b' ');
            out.copy_within(reason_end..start + len, reason_end + padding);
            out[reason_end..reason_end + padding].fill(b' ');
        }
        true
    }

    /// Status line, Vias, From, To, Call-ID and CSeq, if all of them are there; tells whether there is more than one Via.
    fn push_repeated(&self, out: &mut Vec<u8>, via: &Via<'_>, refused: &Refused) -> Option<bool> {
        out.extend_from_slice(STATUS);
        out.extend_from_slice(b"\r\n");
        let mut top = Some(via);
        let mut is_forwarded = false;
        let [mut from, mut to, mut call_id, mut cseq] = [None; 4];
        // From, To, Call-ID (`i` in short), CSeq and Via begin so.
        let mut lines = some_lines(self.bytes, b"ftciv");
        while let Some(line) = lines.next().ok()? {
            let value = &self.bytes[line.value_start..line.value_end];
            let place = match line.name {
                HeaderName::Via => {
                    is_forwarded |= top.is_none_or(|via| via.raw().len() < value.len());
                    let breaks = line.folded || line_break(value).is_some();
                    push_via_line(out, value, top.take(), refused.source, breaks, refused.feedback);
                    continue;
                }
                HeaderName::From => &mut from,
                HeaderName::To => &mut to,
                HeaderName::CallId => &mut call_id,
                HeaderName::CSeq => &mut cseq,
                _ => continue,
            };
            *place = Some(value).filter(|it| !it.is_empty());
        }
        let (from, to, call_id, cseq) = (from?, to?, call_id?, cseq?);
        out.extend_from_slice(b"From: ");
        push_unfolded(out, from);
        out.extend_from_slice(b"\r\nTo: ");
        push_unfolded(out, to);
        if !NameAddr::parse(to).is_ok_and(|to| to.tag().is_some()) {
            // RFC 3261 §8.2.6.2 wants a tag, the same for a repetition; a constant one will do where there is no dialog.
            out.extend_from_slice(b";tag=overload");
        }
        out.extend_from_slice(b"\r\nCall-ID: ");
        push_unfolded(out, call_id);
        out.extend_from_slice(b"\r\nCSeq: ");
        push_unfolded(out, cseq);
        out.extend_from_slice(b"\r\n");
        Some(is_forwarded)
    }
}

const STATUS: &[u8] = b"SIP/2.0 503 Service Unavailable";

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "192.0.2.7:5070";

    fn refused(text: &str, feedback: Option<Feedback>, retry_after: Option<u32>) -> Option<String> {
        let mut out = Vec::new();
        let refused = Refused {
            source: SOURCE.parse().unwrap(),
            feedback,
            retry_after_secs: retry_after,
            run: Run::default(),
        };
        let offer = Offer::of(text.as_bytes());
        let written = offer.via().is_some_and(|via| offer.push_refusal(&mut out, &via, &refused));
        assert_eq!(written, !out.is_empty());
        written.then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_refusal_repeats_what_an_answer_must_repeat() {
        let request = "PUBLISH sip:a@example.com SIP/2.0\r\nv: SIP/2.0/UDP phone;branch=z9hG4bKx;rport\r\n\
            Via: SIP/2.0/UDP a, SIP/2.0/UDP b\r\nf: <sip:a@example.com>;tag=f\r\nt: <sip:a@example.com>\r\ni: c\r\n\
            CSeq: 7\r\n PUBLISH\r\nExpires: 3600\r\nContent-Length: 1\r\n\r\nx";
        let answer = "SIP/2.0 503 Service Unavailable\r\n\
            Via: SIP/2.0/UDP phone;branch=z9hG4bKx;received=192.0.2.7;rport=5070\r\nVia: SIP/2.0/UDP a, SIP/2.0/UDP b\r\n\
            From: <sip:a@example.com>;tag=f\r\nTo: <sip:a@example.com>;tag=overload\r\nCall-ID: c\r\nCSeq: 7 PUBLISH\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(refused(request, None, Some(21)).unwrap(), answer);
        let feedback = Some(Feedback { loss_percent: 30, seq_ms: 5007 });
        assert_eq!(refused(request, feedback, Some(21)).unwrap(), answer, "the client does not take part");
        let in_dialog = request.replace("t: <sip:a@example.com>", "t: <sip:a@example.com>;tag=t");
        assert!(refused(&in_dialog, None, None).unwrap().contains("\r\nTo: <sip:a@example.com>;tag=t\r\n"));
        assert_eq!(refused(&request.replace("i: c\r\n", ""), None, None), None);
        assert_eq!(refused("SIP/2.0 200 OK\r\n", None, None), None, "nobody answers answers");
    }

    #[test]
    fn who_takes_part_is_told_how_much_less_to_send() {
        let request = "OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKx;oc;oc-algo=\"loss,A\"\r\n\
            From: <sip:p@example.com>;tag=f\r\nTo: <sip:example.com>\r\nCall-ID: c\r\nCSeq: 7 OPTIONS\r\n\r\n";
        let told = refused(request, Some(Feedback { loss_percent: 30, seq_ms: 5007 }), None).unwrap();
        let via = told.split("\r\n").nth(1).unwrap();
        assert_eq!(
            via,
            "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKx;oc=30;oc-algo=\"loss\";oc-validity=500;oc-seq=5.007"
        );
        let untold = refused(request, None, None).unwrap();
        assert!(
            untold.contains("z9hG4bKx;oc;oc-algo=\"loss,A\"\r\n"),
            "without overload control it stays as it is"
        );
    }

    #[test]
    fn only_a_phone_is_told_when_to_come_again() {
        let direct = "PUBLISH sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKx;rport\r\n\
            From: <sip:a@example.com>;tag=f\r\nTo: <sip:a@example.com>\r\nCall-ID: c\r\nCSeq: 7 PUBLISH\r\n\r\n";
        let is_told = |text: &str| refused(text, None, Some(7)).unwrap().contains("\r\nRetry-After: 7\r\n");
        assert!(is_told(direct));
        for more in [", SIP/2.0/UDP phone;branch=z9hG4bKy", "\r\nv: SIP/2.0/UDP phone;branch=z9hG4bKy", ";oc"]
        {
            assert!(!is_told(&direct.replace(";rport", &format!(";rport{more}"))), "{more}");
        }
    }

    #[test]
    fn no_line_break_of_a_request_ends_a_line_of_its_refusal() {
        let request = "PUBLISH sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKx;a=\"\rb\"\r\n\
            From: <sip:a@example.com>;tag=f\rX: y\r\nTo: <sip:a@example.com>\r\n \r\nCall-ID: c\r\nCSeq: 7 PUBLISH\r\n\r\n";
        let text = refused(request, None, None).unwrap();
        assert_eq!(text.matches('\r').count(), text.matches("\r\n").count(), "{text}");
        assert!(text.contains(";tag=f X: y\r\n"), "{text}");
    }

    #[test]
    fn refusals_to_one_next_hop_get_one_length() {
        let request = "PUBLISH sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKx\r\n\
            From: <sip:a@example.com>;tag=f\r\nTo: <sip:a@example.com>\r\nCall-ID: c\r\nCSeq: 7 PUBLISH\r\n\r\n";
        let mut outbox = crate::Outbox::default();
        let source = SOURCE.parse().unwrap();
        let flow = crate::Flow::udp(0, None, source);
        for more in 0..20 {
            let request = request.replace("ID: c", &format!("ID: {}", "c".repeat(1 + 7 * more % 11)));
            let run = outbox.run_to(&flow);
            let refused = Refused { source, feedback: None, retry_after_secs: None, run };
            let offer = Offer::of(request.as_bytes());
            outbox.send(flow, |out| assert!(offer.push_refusal(out, &offer.via().unwrap(), &refused)));
        }
        let text = |place: usize| std::str::from_utf8(outbox.head(&outbox.messages()[place])).unwrap();
        assert!(
            text(3).starts_with("SIP/2.0 503 Service Unavailable\r\nVia"),
            "a phone's few are left alone"
        );
        let lens: Vec<_> = (0..20).map(|place| text(place).len()).collect();
        assert!(lens[5..].iter().all(|&len| len == lens[19]), "{lens:?}");
        for place in 0..20 {
            let refusal = crate::msg::parse(text(place).as_bytes()).unwrap();
            assert_eq!(refusal.status(), Some(503));
            assert!(text(place).ends_with("\r\nCSeq: 7 PUBLISH\r\nContent-Length: 0\r\n\r\n"));
        }
    }
}
