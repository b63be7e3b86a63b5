//! A look at a message that may have to be refused.

use super::Class;
use crate::header::line::some_lines;
use crate::header::{HeaderName, NameAddr, Via};
use crate::msg::{Malformed, Method, peek, plain_branch};

/// What a look at a message finds: its class and its topmost Via, and no more than these need. Whoever refuses it looks again.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// What it is worth.
    pub class: Class,
    /// From the start line on.
    pub(super) bytes: &'a [u8],
    /// The value of the topmost Via line, and the same with what ends the line.
    via: &'a [u8],
    via_line: &'a [u8],
}

impl<'a> Offer<'a> {
    /// Looks at a message. What cannot be read is [`Class::Poll`] and has no [Via](Self::via).
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        let bytes = peek::head(bytes);
        let mut offer = Self { class: Class::Poll, bytes, via: &[], via_line: &[] };
        if bytes.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/")) {
            offer.class = Class::Answer;
        } else if let Some(method) = method(bytes)
            && offer.read(method).is_err()
        {
            (offer.via, offer.via_line) = (&[], &[]);
            offer.class = Class::Poll;
        }
        offer
    }

    /// Reads as far as a request of that method has to be read.
    fn read(&mut self, method: Method) -> Result<(), Malformed> {
        let letters: &[u8] = match method {
            Method::Subscribe => b"vte",
            // Contact is `m` in short.
            Method::Register => b"vcme",
            Method::Publish => b"ve",
            _ => b"v",
        };
        let (mut ends, mut in_dialog) = (false, false);
        let mut lines = some_lines(self.bytes, letters);
        while let Some(line) = lines.next()? {
            let value = &self.bytes[line.value_start..line.value_end];
            match line.name {
                HeaderName::Via if self.via.is_empty() => {
                    self.via = value;
                    self.via_line = &self.bytes[line.value_start..line.next];
                    if letters.len() == 1 {
                        break;
                    }
                }
                HeaderName::To if method == Method::Subscribe => {
                    in_dialog = NameAddr::parse(value).is_ok_and(|to| to.tag().is_some());
                }
                HeaderName::Contact if method == Method::Register => ends |= value.ends_with(b";expires=0"),
                HeaderName::Expires => ends = !value.is_empty() && value.iter().all(|&digit| digit == b'0'),
                _ => {}
            }
        }
        self.class = match method {
            // An ACK ends what was refused, and is answered by nobody (RFC 3261 §17).
            Method::Cancel | Method::Ack => Class::End,
            Method::Subscribe if in_dialog && ends => Class::End,
            Method::Subscribe if in_dialog => Class::Refresh,
            Method::Subscribe if ends => Class::Poll,
            Method::Subscribe => Class::Subscribe,
            Method::Register | Method::Publish if ends => Class::End,
            // Whoever knows whether the user is registered makes it a `Reregister`.
            Method::Register => Class::Register,
            Method::Publish => Class::Publish,
            Method::Options => Class::Reregister,
            _ => Class::Poll,
        };
        Ok(())
    }

    /// The topmost Via; every request that can be refused with an answer has one.
    #[must_use]
    pub fn via(&self) -> Option<Via<'a>> {
        Via::parse_at(self.via, 0).ok().map(|(via, _)| via)
    }

    /// The method as written.
    #[must_use]
    pub fn method_text(&self) -> &'a [u8] {
        self.bytes.split(|&byte| byte == b' ').next().unwrap_or_default()
    }

    /// What repetitions of a request have in common and other requests have not: the branch (RFC 3261 §17.2.3), or, if it comes
    /// from before the magic cookie, Call-ID and CSeq.
    #[must_use]
    #[inline]
    pub fn identity(&self) -> [&'a [u8]; 2] {
        let branch = plain_branch(self.via_line).or_else(|| self.via()?.branch());
        match branch.filter(|branch| branch.starts_with(b"z9hG4bK")) {
            Some(branch) => [branch, b""],
            None => [HeaderName::CallId, HeaderName::CSeq]
                .map(|name| peek::peek_header(self.bytes, name).unwrap_or_default()),
        }
    }

    /// The URI of To, which in a REGISTER is the address of record (RFC 3261 §10.2).
    #[must_use]
    pub fn to_uri(&self) -> Option<&'a [u8]> {
        NameAddr::parse(peek::peek_header(self.bytes, HeaderName::To)?).ok().map(|to| to.uri())
    }

    /// Whether the sender takes part in overload control (RFC 7339 §4.1).
    #[must_use]
    pub fn takes_part(&self) -> bool {
        self.via().is_some_and(|via| via.takes_part())
    }
}

/// The method of a request, if there is one.
fn method(bytes: &[u8]) -> Option<Method> {
    let end = bytes.iter().take(METHOD_LEN_MAX + 1).position(|&byte| byte == b' ')?;
    (end > 0).then(|| Method::of(&bytes[..end]))
}

/// No method that is served, or that anybody uses, has a longer name.
const METHOD_LEN_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, more: &str) -> String {
        let to = if more.contains("To:") { "" } else { "To: <sip:a@example.com>\r\n" };
        format!(
            "{method} sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx;rport\r\nFrom: <sip:b@example.com>;tag=f\r\n\
             {to}Call-ID: c\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
        )
    }

    #[test]
    fn a_look_tells_the_class() {
        let in_dialog = "To: <sip:a@example.com>;tag=t\r\n";
        for (method, more, class) in [
            ("SUBSCRIBE", "Expires: 3600\r\n".to_owned(), Class::Subscribe),
            ("SUBSCRIBE", String::new(), Class::Subscribe),
            ("SUBSCRIBE", "expires : 0\r\n".to_owned(), Class::Poll),
            ("SUBSCRIBE", format!("{in_dialog}Expires: 3600\r\n"), Class::Refresh),
            ("SUBSCRIBE", format!("Expires: 0\r\n{in_dialog}"), Class::End),
            ("SUBSCRIBE", "t: \"x;tag=y\" <sip:a@example.com;tag=t>\r\nTo:\r\n".to_owned(), Class::Subscribe),
            ("REGISTER", "Expires: 3600\r\n".to_owned(), Class::Register),
            ("REGISTER", "Expires: 0\r\n".to_owned(), Class::End),
            ("REGISTER", "m: <sip:a@192.0.2.1>;expires=0\r\n".to_owned(), Class::End),
            ("PUBLISH", "SIP-If-Match: x\r\n".to_owned(), Class::Publish),
            ("PUBLISH", "Expires: 0\r\n".to_owned(), Class::End),
            ("PUBLISH", "Expires:\r\n".to_owned(), Class::Publish),
            ("PUBLISH", "Event: presence\r\n 0\r\nX-Expires: 0\r\n".to_owned(), Class::Publish),
            ("CANCEL", String::new(), Class::End),
            ("ACK", String::new(), Class::End),
            ("OPTIONS", String::new(), Class::Reregister),
            ("INVITE", String::new(), Class::Poll),
        ] {
            let text = request(method, &more);
            assert_eq!(Offer::of(text.as_bytes()).class, class, "{text}");
        }
        assert_eq!(Offer::of(b"SIP/2.0 200 OK\r\n").class, Class::Answer);
        assert_eq!(Offer::of(b"\r\nSIP/2.0 200 OK\r\n").class, Class::Answer);
    }

    #[test]
    fn what_cannot_be_read_comes_last_and_is_not_answered() {
        for text in [
            "",
            "x",
            "\0\0\0\0\0",
            " SUBSCRIBE",
            "SUBSCRIBE sip:a SIP/2.0\r\nVia: nonsense\r\n\r\n",
            "SUBSCRIBE sip:a SIP/2.0\r\n\r\n",
        ] {
            let offer = Offer::of(text.as_bytes());
            assert!(offer.via().is_none(), "{text}");
            assert!(!offer.class.is_always_taken());
        }
        for method in ["SUBSCRIBE", "PUBLISH", "REGISTER"] {
            let whole = request(method, "Expires: 0\r\n");
            for len in 0..whole.len() - 2 {
                let offer = Offer::of(&whole.as_bytes()[..len]);
                assert!(offer.class == Class::Poll && offer.via().is_none(), "{method} {len}");
            }
            assert!(Offer::of(whole.as_bytes()).via().is_some());
        }
    }

    #[test]
    fn repetitions_are_known_by_their_branch() {
        let text = request("PUBLISH", "");
        assert_eq!(Offer::of(text.as_bytes()).identity(), [&b"z9hG4bKx"[..], b""]);
        let old = text.replace("z9hG4bKx", "7");
        assert_eq!(Offer::of(old.as_bytes()).identity(), [&b"c"[..], b"1 PUBLISH"]);
        let older = text.replace(";branch=z9hG4bKx", "");
        assert_eq!(Offer::of(older.as_bytes()).identity(), [&b"c"[..], b"1 PUBLISH"]);
        assert_eq!(Offer::of(b"PUBLISH sip:a SIP/2.0\r\n\r\n").identity(), [&b""[..], b""]);
    }

    #[test]
    fn who_takes_part_is_known_by_his_via() {
        let direct = request("PUBLISH", "");
        let takes_part = |params: &str| Offer::of(direct.replace(";rport", params).as_bytes()).takes_part();
        assert!(!takes_part(";rport"));
        assert!(takes_part(";oc;oc-algo=\"loss\""));
        assert!(takes_part(";OC;oc-algo=\"A,loss\""));
        assert!(takes_part(";oc"), "the default is loss");
        assert!(!takes_part(";oc;oc-algo=\"rate\""), "an algorithm that is not served");
        assert!(!takes_part(";oc-algo=\"loss\""));
    }
}
