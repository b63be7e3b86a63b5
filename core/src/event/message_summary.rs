//! The `message-summary` package (RFC 3842): how many messages wait in somebody's mailbox.
//!
//! A message store publishes the summary; watchers get it in one spelling. Headers of single messages are left out:
//!
//! > Message headers MUST NOT be included in an initial NOTIFY … Message headers included in subsequent notifications MUST
//! > only correspond to messages added since the previous notification for that subscription. (RFC 3842 §3.5)
//!
//! What one subscription was told before is not what another one was, and a state is told again after a failure; without
//! the headers both rules hold for all. An empty mailbox is told in words, never by an empty body: there are phones
//! (Samsung's) that do not understand that.

use std::time::Duration;

use super::newest::Newest;
use super::{Compose, EventPackage, everything};
use crate::Uri;
use crate::token::push_number;

/// Default expiry: RFC 3842 §3.4; least interval: §3.11.
pub(super) const PACKAGE: EventPackage = EventPackage {
    name: "message-summary",
    number: 3,
    content_type: "application/simple-message-summary",
    template: false,
    own_only: false,
    compose: Compose::Newest(&Newest { rewrite, without_publication }),
    opening: None,
    default_expires_secs: Some(3600),
    interval: Some(Duration::from_secs(1)),
    requested_info: everything,
};

/// Most summary lines, one a class of messages; there are five classes (RFC 3458 §6.2) and whatever systems add.
const SUMMARY_LINES_MAX: usize = 32;

/// What is told while nothing is published.
fn without_publication(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Messages-Waiting: no\r\n");
}

/// Checks a summary by the grammar of RFC 3842 §5.2 and appends it without message headers. A line may end in LF alone,
/// and the last one without either; an account may be in angle brackets. Neither is told so:
///
/// > Note that the account URI MUST NOT be delimited with angle brackets ("<" and ">"). (RFC 3842 §3.5)
fn rewrite(body: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    const WRONG: &str = "Bad Message Summary";
    let mut lines = body.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let (name, status) = lines.next().and_then(field).ok_or(WRONG)?;
    if !name.eq_ignore_ascii_case(b"Messages-Waiting") {
        return Err(WRONG);
    }
    let status: &[u8] = match status {
        yes if yes.eq_ignore_ascii_case(b"yes") => b"yes",
        no if no.eq_ignore_ascii_case(b"no") => b"no",
        _ => return Err(WRONG),
    };
    push(out, &[b"Messages-Waiting: ", status, b"\r\n"]);
    for (number, line) in lines.enumerate() {
        if line.is_empty() {
            // What follows are headers of messages, or nothing.
            return Ok(());
        }
        let (name, value) = field(line).ok_or(WRONG)?;
        if name.eq_ignore_ascii_case(b"Message-Account") {
            if number != 0 {
                return Err(WRONG);
            }
            let bare = value.strip_prefix(b"<").and_then(|value| value.strip_suffix(b">")).unwrap_or(value);
            Uri::parse(bare).map_err(|_| "Bad Message Account")?;
            push(out, &[b"Message-Account: ", bare, b"\r\n"]);
        } else {
            if number > SUMMARY_LINES_MAX {
                return Err("Too Many Classes of Messages");
            }
            let [new, old] =
                counts(value.split(|&byte| byte == b'(').next().unwrap_or_default()).ok_or(WRONG)?;
            push(out, &[name, b": "]);
            push_counts(new, old, out);
            if let Some(open) = value.iter().position(|&byte| byte == b'(') {
                let urgent = value[open + 1..].strip_suffix(b")").ok_or(WRONG)?;
                let [new, old] = counts(urgent).ok_or(WRONG)?;
                out.extend_from_slice(b" (");
                push_counts(new, old, out);
                out.push(b')');
            }
            out.extend_from_slice(b"\r\n");
        }
    }
    Ok(())
}

/// A line taken apart at its colon: a token and a value of visible characters, spaces around them taken away.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_value = |byte: &u8| *byte >= b' ' && *byte != 0x7f;
    (!name.is_empty() && name.iter().all(is_name) && !value.is_empty() && value.iter().all(is_value))
        .then_some((name, value))
}

/// `msgcount SLASH msgcount`.
///
/// > All counters have a maximum value of 4,294,967,295 ((2^32) - 1). Notifiers MUST NOT generate a request with a larger
/// > value. (RFC 3842 §3.5)
fn counts(text: &[u8]) -> Option<[u32; 2]> {
    let slash = text.iter().position(|&byte| byte == b'/')?;
    let count = |digits: &[u8]| {
        let digits = digits.trim_ascii();
        let value = digits.iter().try_fold(0_u32, |value, digit| {
            let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
            Some(value.saturating_mul(10).saturating_add(digit))
        })?;
        (!digits.is_empty()).then_some(value)
    };
    Some([count(&text[..slash])?, count(&text[slash + 1..])?])
}

fn push_counts(new: u32, old: u32, out: &mut Vec<u8>) {
    push_number(out, u64::from(new));
    out.push(b'/');
    push_number(out, u64::from(old));
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Result<String, &'static str> {
        let mut out = Vec::new();
        rewrite(body.as_bytes(), &mut out).map(|()| String::from_utf8(out).expect("text stays text"))
    }

    #[test]
    fn the_example_of_the_rfc_is_told_without_its_message_headers() {
        // RFC 3842 §4.1, message A5
        let body = "Messages-Waiting: yes\r\nMessage-Account: sip:alice@vmail.example.com\r\n\
                    Voice-Message: 4/8 (1/2)\r\n\r\nTo: <alice@atlanta.example.com>\r\n\
                    From: <bob@biloxi.example.com>\r\nSubject: carpool tomorrow?\r\n";
        let expected = "Messages-Waiting: yes\r\nMessage-Account: sip:alice@vmail.example.com\r\n\
                        Voice-Message: 4/8 (1/2)\r\n";
        assert_eq!(told(body).as_deref(), Ok(expected));
    }

    #[test]
    fn an_account_loses_its_angle_brackets() {
        let body = "Messages-Waiting: no\r\nMessage-Account: <sip:alice@example.com>\r\n";
        assert_eq!(
            told(body).as_deref(),
            Ok("Messages-Waiting: no\r\nMessage-Account: sip:alice@example.com\r\n")
        );
    }

    #[test]
    fn counts_do_not_exceed_32_bits() {
        let body = "messages-waiting:YES\nvoice-message : 4294967296/99999999999999999999 ( 7 / 4294967295 )";
        let expected = "Messages-Waiting: yes\r\nvoice-message: 4294967295/4294967295 (7/4294967295)\r\n";
        assert_eq!(told(body).as_deref(), Ok(expected));
    }

    #[test]
    fn what_the_grammar_does_not_have_is_refused() {
        for body in [
            "",
            "\r\n",
            "Voice-Message: 1/2\r\n",
            "Messages-Waiting: perhaps\r\n",
            "Messages-Waiting: yes\r\nVoice-Message: 1\r\n",
            "Messages-Waiting: yes\r\nVoice-Message: a/b\r\n",
            "Messages-Waiting: yes\r\nVoice-Message: 1/2 (3/4\r\n",
            "Messages-Waiting: yes\r\nVoice-Message: /\r\n",
            "Messages-Waiting: yes\r\nVoice-Message: 1/2\r\nMessage-Account: sip:a@b\r\n",
            "Messages-Waiting: yes\r\nMessage-Account: nobody\r\n",
            "Messages-Waiting: yes\r\nno colon\r\n",
            "Messages-Waiting: yes\r\nVoice Message: 1/2\r\n",
        ] {
            assert!(told(body).is_err(), "{body:?}");
        }
        let many = "x: 1/1\r\n".repeat(SUMMARY_LINES_MAX + 2);
        assert_eq!(told(&format!("Messages-Waiting: yes\r\n{many}")), Err("Too Many Classes of Messages"));
    }
}
