//! SIP messages as text, read independently of the server's own parser.
//!
//! A test that reads the server's messages with the server's parser cannot see what that parser forgives; this reader
//! takes a message apart by the plain words of RFC 3261 §7 and knows nothing of what the headers mean.

use std::net::{IpAddr, SocketAddr};

/// A message, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipText {
    /// The first line.
    pub start: String,
    /// Header fields in their order, compact names written out (RFC 3261 §7.3.3).
    pub headers: Vec<(String, String)>,
    /// What follows the empty line.
    pub body: String,
}

impl SipText {
    /// Takes `bytes` apart; `None` if there is no empty line, or a header line without a colon.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let start = lines.next()?.to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                let (_, value) = headers.last_mut()?;
                value.push(' ');
                value.push_str(line.trim());
            } else {
                let (name, value) = line.split_once(':')?;
                headers.push((long_name(name.trim()).to_owned(), value.trim().to_owned()));
            }
        }
        Some(Self { start, headers, body: body.to_owned() })
    }

    /// The status code, if this is a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The method, if this is a request.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        let (method, rest) = self.start.split_once(' ')?;
        rest.ends_with("SIP/2.0").then_some(method)
    }

    /// The Request-URI, if this is a request.
    #[must_use]
    pub fn request_uri(&self) -> Option<&str> {
        self.method()?;
        self.start.split(' ').nth(1)
    }

    /// The values of all header fields called `name`, which may be written in any case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let name = long_name(name);
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The value of the first header field called `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let name = long_name(name);
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The values of all header fields called `name`, those that share a line told apart (RFC 3261 §7.3.1).
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        let name = long_name(name);
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).flat_map(|(_, v)| split_list(v)).collect()
    }

    /// The sequence number of the CSeq header field.
    #[must_use]
    pub fn cseq(&self) -> Option<u32> {
        self.header("CSeq")?.split_whitespace().next()?.parse().ok()
    }

    /// The method of the CSeq header field.
    #[must_use]
    pub fn cseq_method(&self) -> Option<&str> {
        self.header("CSeq")?.split_whitespace().nth(1)
    }

    /// A parameter of the first header field called `name`, outside of angle brackets.
    #[must_use]
    pub fn param(&self, name: &str, param: &str) -> Option<&str> {
        param_of(self.header(name)?, param)
    }

    /// The text of every element of the body whose local name is `name`, in document order.
    #[must_use]
    pub fn elements(&self, name: &str) -> Vec<String> {
        elements(&self.body, name)
    }
}

/// A parameter of a header field value, outside of angle brackets; an empty text if it has no value.
#[must_use]
pub fn param_of<'a>(value: &'a str, param: &str) -> Option<&'a str> {
    let outside = value.rfind('>').map_or(value, |at| &value[at + 1..]);
    outside.split(';').skip(1).find_map(|p| {
        let (name, value) = p.split_once('=').unwrap_or((p, ""));
        name.trim().eq_ignore_ascii_case(param).then(|| value.trim())
    })
}

/// The URI of a name-addr or addr-spec.
#[must_use]
pub fn uri_of(value: &str) -> &str {
    match (value.find('<'), value.rfind('>')) {
        (Some(open), Some(close)) if open < close => &value[open + 1..close],
        _ => value.split(';').next().unwrap_or(value).trim(),
    }
}

/// The socket address of a SIP URI whose host is an IP address; the port is 5060 when not written.
#[must_use]
pub fn address_of(uri: &str) -> Option<SocketAddr> {
    let rest = uri.strip_prefix("sip:").unwrap_or(uri);
    let rest = rest.split([';', '?']).next()?;
    let host = rest.rsplit('@').next()?;
    host.parse().ok().or_else(|| host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 5060)))
}

/// The elements of a comma-separated list; commas in quotes and in angle brackets do not count.
#[must_use]
pub fn split_list(value: &str) -> Vec<&str> {
    let (mut quoted, mut deep, mut start, mut parts) = (false, 0_usize, 0, Vec::new());
    for (at, c) in value.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '<' if !quoted => deep += 1,
            '>' if !quoted => deep = deep.saturating_sub(1),
            ',' if !quoted && deep == 0 => {
                parts.push(value[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(value[start..].trim());
    parts
}

/// The text of every element of `xml` whose local name is `name`. Enough for elements that hold only text.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some(open) = rest.find('<') {
        rest = &rest[open + 1..];
        let Some(close) = rest.find('>') else { break };
        let tag = &rest[..close];
        rest = &rest[close + 1..];
        let qualified = tag.split([' ', '\r', '\n', '\t', '/']).next().unwrap_or(tag);
        let local = qualified.rsplit(':').next().unwrap_or(qualified);
        if local == name && !tag.starts_with('/') && !tag.starts_with('?') {
            let text = if tag.ends_with('/') { "" } else { rest.split('<').next().unwrap_or("") };
            found.push(text.trim().to_owned());
        }
    }
    found
}

/// The long form of a header field name.
fn long_name(name: &str) -> &str {
    match name {
        "v" => "Via",
        "f" => "From",
        "t" => "To",
        "i" => "Call-ID",
        "m" => "Contact",
        "l" => "Content-Length",
        "c" => "Content-Type",
        "e" => "Content-Encoding",
        "k" => "Supported",
        "o" => "Event",
        "u" => "Allow-Events",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_apart() {
        let message = SipText::read(
            b"NOTIFY sip:bob@192.0.2.2 SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9\r\nTo: <sip:b;x=1>;tag=7\r\n\
              CSeq: 12 NOTIFY\r\nContact: <sip:a,b>, \"x, y\" <sip:c>\r\n\r\n<p:basic a='1'> open </p:basic><basic/>",
        )
        .expect("whole");
        assert_eq!(message.method(), Some("NOTIFY"));
        assert_eq!(message.status(), None);
        assert_eq!(message.request_uri(), Some("sip:bob@192.0.2.2"));
        assert_eq!(message.param("Via", "branch"), Some("z9"));
        assert_eq!(message.param("to", "tag"), Some("7"));
        assert_eq!(message.param("to", "x"), None);
        assert_eq!((message.cseq(), message.cseq_method()), (Some(12), Some("NOTIFY")));
        assert_eq!(message.values("Contact"), ["<sip:a,b>", "\"x, y\" <sip:c>"]);
        assert_eq!(message.elements("basic"), ["open", ""]);
    }

    #[test]
    fn what_lacks_the_empty_line_is_not_read() {
        assert_eq!(SipText::read(b"OPTIONS sip:a SIP/2.0\r\nVia: x\r\n"), None);
    }

    #[test]
    fn addresses_are_found_in_uris() {
        assert_eq!(address_of("sip:bob@192.0.2.2:5070;lr"), Some(([192, 0, 2, 2], 5070).into()));
        assert_eq!(address_of("sip:192.0.2.2"), Some(([192, 0, 2, 2], 5060).into()));
        assert_eq!(uri_of("\"B\" <sip:b;lr>;tag=1"), "sip:b;lr");
    }
}
