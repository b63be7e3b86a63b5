//! `Via`: where a message went and where its answer goes (RFC 3261 §20.42, RFC 3581).

use super::BadValue;
use super::params::{Params, scan};
use super::scan::{HOST, TOKEN, port, port_at, skip, skip_space, trim_end, value_end};
use super::span::Span;

/// One value of a Via header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    raw: &'a [u8],
    transport: Span,
    /// From the sent-protocol to the end of sent-by, without parameters.
    head: Span,
    host: Span,
    /// 0 if none is written.
    port: u16,
    rport: Rport,
    /// Empty without a branch.
    branch: Span,
    /// Empty without `received`.
    received: Span,
    /// Behind sent-by there is nothing but a branch and perhaps an empty `rport`, in this order and without white space.
    is_usual: bool,
}

/// The `rport` parameter of a Via (RFC 3581 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rport {
    /// Not there.
    Absent,
    /// There without a value: the sender asks for its source port.
    Asked,
    /// Filled in.
    Port(u16),
}

impl<'a> Via<'a> {
    /// Parses a value that holds exactly one Via.
    ///
    /// # Errors
    /// [`BadValue`] when it does not: sent-protocol, sent-by, a parameter list, or one of `branch`, `rport` and
    /// `received` is malformed.
    pub fn parse(value: &'a [u8]) -> Result<Self, BadValue> {
        let (via, end) = Self::parse_at(value, 0)?;
        if end == value.len() { Ok(via) } else { Err(BadValue) }
    }

    /// The Vias on one line, up to the first that is malformed.
    ///
    /// Their own grammar says where each ends, as it does for the topmost one: a bracket in a parameter opens nothing.
    pub(crate) fn each(line: &'a [u8]) -> impl Iterator<Item = Result<Self, BadValue>> + use<'a> {
        let mut at = Some(0);
        std::iter::from_fn(move || {
            let read = Self::parse_at(line, at.take()?);
            if let Ok((_, end)) = read {
                // Nothing behind the last comma is no Via.
                at = line.get(end + 1..).is_some_and(|rest| !rest.trim_ascii().is_empty()).then_some(end + 1);
            }
            Some(read.map(|(via, _)| via))
        })
    }

    /// Parses the Via that begins at `at`; also gives the position of the comma behind it, or of the end.
    // Called, as `NameAddr::parse` is.
    #[inline(never)]
    pub(crate) fn parse_at(bytes: &'a [u8], at: usize) -> Result<(Self, usize), BadValue> {
        let start = skip_space(bytes, at);
        let (transport, space, host_start) = match bytes.get(start..start + UDP.len()) {
            Some(text) if text == UDP => (start + 8, start + 11, skip_space(bytes, start + 12)),
            _ => {
                let (transport, space) = sent_protocol(bytes, start)?;
                (transport, space, skip_space(bytes, space))
            }
        };
        let transport = Span::new(start, transport, space)?;
        if host_start == space {
            return Err(BadValue);
        }
        let host_end = match bytes.get(host_start) {
            Some(b'[') => {
                let close = skip_ipv6(bytes, host_start + 1);
                if bytes.get(close) != Some(&b']') {
                    return Err(BadValue);
                }
                close + 1
            }
            _ => skip(bytes, host_start, HOST),
        };
        if host_end == host_start {
            return Err(BadValue);
        }
        let colon = skip_space(bytes, host_end);
        let (sent_by_port, end) = match bytes.get(colon) {
            Some(b':') => port_at(bytes, skip_space(bytes, colon + 1))?,
            _ => (0, host_end),
        };
        if let Some((from, to, rport)) = branch_and_rport(bytes, end) {
            let via = Self {
                raw: &bytes[start..],
                transport,
                head: Span::new(start, start, end)?,
                host: Span::new(start, host_start, host_end)?,
                port: sent_by_port,
                rport,
                branch: Span::new(start, from, to)?,
                received: Span::default(),
                is_usual: true,
            };
            return Ok((via, bytes.len()));
        }
        let mut branch = Span::default();
        let mut rport = Rport::Absent;
        let mut received = Span::default();
        let after = scan(bytes, end, |param| {
            let is = |name: &[u8]| param.name == name || param.name.eq_ignore_ascii_case(name);
            let slot = match param.name.len() {
                6 if is(b"branch") => &mut branch,
                8 if is(b"received") => &mut received,
                5 if is(b"rport") => {
                    rport = match param.value {
                        _ if rport != Rport::Absent => return Err(BadValue),
                        None => Rport::Asked,
                        Some((from, to)) if from == to => Rport::Asked,
                        Some((from, to)) => Rport::Port(port(&bytes[from..to])?),
                    };
                    return Ok(());
                }
                _ => return Ok(()),
            };
            match param.value {
                Some((from, to)) if from != to && slot.is_empty() => *slot = Span::new(start, from, to)?,
                _ => return Err(BadValue),
            }
            Ok(())
        })?;
        let via = Self {
            raw: trim_end(&bytes[start..after]),
            transport,
            head: Span::new(start, start, end)?,
            host: Span::new(start, host_start, host_end)?,
            port: sent_by_port,
            rport,
            branch,
            received,
            is_usual: false,
        };
        Ok((via, after))
    }

    /// The bytes of this one value in the message.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// `SIP/2.0/UDP host:port` as written: all before the parameters.
    #[must_use]
    pub fn head(&self) -> &'a [u8] {
        self.head.of(self.raw)
    }

    /// Transport token as written, `UDP` or another; compared without case.
    #[must_use]
    pub fn transport(&self) -> &'a [u8] {
        self.transport.of(self.raw)
    }

    /// Host of sent-by as written, an IPv6 address with its brackets.
    #[must_use]
    pub fn host(&self) -> &'a [u8] {
        self.host.of(self.raw)
    }

    /// Port of sent-by, if it is written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        (self.port != 0).then_some(self.port)
    }

    /// The transaction's branch; never empty.
    #[must_use]
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.branch.of_some(self.raw)
    }

    /// Whether the sender wants its answer at its source port (RFC 3581).
    #[must_use]
    pub const fn rport(&self) -> Rport {
        self.rport
    }

    /// The `received` parameter as written. In a request it is what the sender claims, and worth nothing.
    #[must_use]
    pub fn received(&self) -> Option<&'a [u8]> {
        self.received.of_some(self.raw)
    }

    /// The Via as written but for `rport`, if it is as nearly every phone writes it: otherwise it must be taken apart for this.
    #[inline]
    pub(crate) fn usual_without_rport(&self) -> Option<&'a [u8]> {
        let rport: &[u8] = if self.rport == Rport::Absent { b"" } else { RPORT };
        self.is_usual.then(|| &self.raw[..self.raw.len() - rport.len()])
    }

    /// Whether the sender takes part in overload control by loss: `oc` stands there, and "loss" is among the algorithms that it
    /// knows, which is the default (RFC 7339 §4.1, §4.2).
    #[must_use]
    pub fn takes_part(&self) -> bool {
        let params = self.params();
        let knows_loss = |algorithms: &[u8]| {
            algorithms.split(|&byte| byte == b',').any(|name| {
                let name = name.trim_ascii().strip_prefix(b"\"").unwrap_or(name.trim_ascii());
                name.strip_suffix(b"\"").unwrap_or(name).trim_ascii().eq_ignore_ascii_case(b"loss")
            })
        };
        params.has("oc") && params.value("oc-algo").is_none_or(knows_loss)
    }

    /// All parameters.
    #[must_use]
    pub fn params(&self) -> Params<'a> {
        Params(&self.raw[self.head.end()..])
    }
}

/// The sent-protocol of nearly every topmost Via here, and the white space behind it.
const UDP: &[u8] = b"SIP/2.0/UDP ";
/// The wish for an answer to the source's port (RFC 3581 §3).
const RPORT: &[u8] = b";rport";

/// Reads `SIP / 2.0 / UDP` with white space and any tokens; gives start and end of the transport.
fn sent_protocol(bytes: &[u8], at: usize) -> Result<(usize, usize), BadValue> {
    let mut at = at;
    for _ in 0..2 {
        let end = skip(bytes, at, TOKEN);
        let slash = skip_space(bytes, end);
        if end == at || bytes.get(slash) != Some(&b'/') {
            return Err(BadValue);
        }
        at = skip_space(bytes, slash + 1);
    }
    let end = skip(bytes, at, TOKEN);
    if end == at { Err(BadValue) } else { Ok((at, end)) }
}

/// Where the branch lies, and whether `rport` follows, if these are all that stands from `at` to the end, without white space: what
/// nearly every phone sends.
#[inline(always)]
fn branch_and_rport(bytes: &[u8], at: usize) -> Option<(usize, usize, Rport)> {
    let branch = bytes.get(at..)?.strip_prefix(b";branch=")?;
    let len = value_end(branch, 0);
    let rport = match &branch[len..] {
        _ if len == 0 => return None,
        b"" => Rport::Absent,
        rest if rest == RPORT => Rport::Asked,
        _ => return None,
    };
    let from = at + b";branch=".len();
    Some((from, from + len, rport))
}

/// The end of the characters of an IPv6 address from `at` on; zone names do not belong in SIP.
fn skip_ipv6(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(&byte) = bytes.get(at) {
        if !(byte.is_ascii_hexdigit() || byte == b':' || byte == b'.') {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_may_stand_around_every_separator() {
        let via =
            Via::parse(b"SIP / 2.0\r\n / UDP  host.example : 5062 ; branch = z9hG4bKx ; rport").unwrap();
        assert_eq!(via.transport(), b"UDP");
        assert_eq!(via.host(), b"host.example");
        assert_eq!(via.port(), Some(5062));
        assert_eq!(via.branch(), Some(&b"z9hG4bKx"[..]));
        assert_eq!(via.rport(), Rport::Asked);
    }

    #[test]
    fn ipv6_references_keep_their_brackets() {
        let via = Via::parse(b"SIP/2.0/UDP [2001:db8::9:1]:5060;branch=b;received=2001:db8::9:255").unwrap();
        assert_eq!(via.host(), b"[2001:db8::9:1]");
        assert_eq!(via.port(), Some(5060));
        assert_eq!(via.received(), Some(&b"2001:db8::9:255"[..]));
    }

    /// A bracket in a parameter of the topmost Via once hid the comma behind it from whoever listed all Vias, so that the list
    /// had one that was malformed where the parser had read two.
    #[test]
    fn each_via_of_a_line_ends_where_the_topmost_one_does() {
        let each = |line| Via::each(line).map(|it| it.ok().and_then(|via| via.branch())).collect::<Vec<_>>();
        let line = b"SIP/2.0/UDP a;branch=1;x=<, SIP/2.0/UDP b;y=\",\";branch=2 ,SIP/2.0/TCP c;branch=3, ";
        assert_eq!(each(line), [Some(&b"1"[..]), Some(b"2"), Some(b"3")]);
        assert_eq!(each(b"SIP/2.0/UDP a;branch=1, b, SIP/2.0/UDP c"), [Some(&b"1"[..]), None]);
        assert_eq!(each(b""), [None]);
    }

    #[test]
    fn a_usual_one_without_rport_is_told_as_it_was_written() {
        let plain = |text| Via::parse(text).unwrap().usual_without_rport();
        assert_eq!(plain(b"SIP/2.0/UDP h:5060;branch=b"), Some(&b"SIP/2.0/UDP h:5060;branch=b"[..]));
        assert_eq!(plain(b"SIP/2.0/TLS h;branch=b;rport"), Some(&b"SIP/2.0/TLS h;branch=b"[..]));
        for text in [
            &b"SIP/2.0/UDP h"[..],
            b"SIP/2.0/UDP h;rport;branch=b",
            b"SIP/2.0/UDP h;branch=b;rport=",
            b"SIP/2.0/UDP h;branch=b;received=192.0.2.1",
            b"SIP/2.0/UDP h;branch=b;rport;oc",
            b"SIP/2.0/UDP h;branch=b ;rport",
        ] {
            assert_eq!(plain(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn rport_is_absent_asked_or_a_port() {
        let rport = |text| Via::parse(text).map(|via| via.rport());
        assert_eq!(rport(b"SIP/2.0/UDP h;branch=b"), Ok(Rport::Absent));
        assert_eq!(rport(b"SIP/2.0/UDP h;branch=b;rport"), Ok(Rport::Asked));
        assert_eq!(rport(b"SIP/2.0/UDP h;branch=b;rport="), Ok(Rport::Asked));
        assert_eq!(rport(b"SIP/2.0/UDP h;branch=b;rport=9"), Ok(Rport::Port(9)));
        assert_eq!(rport(b"SIP/2.0/UDP h;branch=b;rport=99999"), Err(BadValue));
    }

    #[test]
    fn broken_ones_are_refused() {
        for value in [
            &b""[..],
            b"SIP/2.0/UDP",
            b"SIP/2.0/UDP ",
            b"SIP/2.0 host",
            b"SIP/2.0/UDPhost",
            b"SIP/2.0/UDP host:port",
            b"SIP/2.0/UDP host:",
            b"SIP/2.0/UDP host:0",
            b"SIP/2.0/UDP 2001:db8::1",
            b"SIP/2.0/UDP [2001:db8::1",
            b"SIP/2.0/UDP host;;branch=x",
            b"SIP/2.0/UDP host;branch=",
            b"SIP/2.0/UDP host;branch=a;branch=b",
            b"SIP/2.0/UDP host, SIP/2.0/UDP other",
        ] {
            assert_eq!(Via::parse(value), Err(BadValue), "{}", value.escape_ascii());
        }
    }
}
