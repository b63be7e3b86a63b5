//! A parsed message: borrowed views of the datagram.

use super::Method;
use crate::header::line::{Line, is_empty_line};
use crate::header::scan::number_saturating;
use crate::header::{
    Accept, Addrs, BadValue, CSeq, Contacts, Event, HeaderName, Index, Lines, MediaType, NameAddr,
    SubscriptionState, Values, Via, scan,
};

/// The start line (RFC 3261 §7.1, §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// A request line.
    Request {
        /// The method, [`Method::Other`] if we know no name for it.
        method: Method,
        /// The method as written.
        method_text: &'a [u8],
        /// The Request-URI as written: no white space, not checked further.
        uri: &'a [u8],
    },
    /// A status line.
    Response {
        /// 100 to 699.
        code: u16,
        /// The reason phrase as written.
        reason: &'a [u8],
    },
}

/// A SIP message whose frame and dialog-identifying headers are checked: top Via, From, To, Call-ID and CSeq are there
/// and well-formed, and so are Max-Forwards, Content-Length, Event and Content-Type if present. The other headers are
/// read when they are asked for.
///
/// Folded values are given as written, with their CRLF; the typed views take a fold for white space.
#[derive(Clone)]
pub struct Message<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) start: Start<'a>,
    pub(super) via: Via<'a>,
    pub(super) from: NameAddr<'a>,
    pub(super) to: NameAddr<'a>,
    pub(super) call_id: &'a [u8],
    pub(super) cseq: CSeq<'a>,
    pub(super) max_forwards: Option<u32>,
    pub(super) content_length: Option<u32>,
    /// Start of the first header line.
    pub(super) headers_at: u16,
    /// Whether there is a fold in any header line: a value without one has no CR and no LF.
    pub(super) folded: bool,
    pub(super) index: Index,
}

impl<'a> Message<'a> {
    /// The datagram.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The start line.
    #[must_use]
    pub const fn start(&self) -> Start<'a> {
        self.start
    }

    /// The method of a request; `None` for a response.
    #[must_use]
    pub const fn method(&self) -> Option<Method> {
        match self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// The Request-URI as written; empty for a response.
    #[must_use]
    pub const fn request_uri(&self) -> &'a [u8] {
        match self.start {
            Start::Request { uri, .. } => uri,
            Start::Response { .. } => &[],
        }
    }

    /// The status code of a response, 100 to 699; `None` for a request.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self.start {
            Start::Request { .. } => None,
            Start::Response { code, .. } => Some(code),
        }
    }

    /// The body: as long as Content-Length says, or the rest of the datagram without one (RFC 3261 §18.3).
    #[must_use]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The topmost Via.
    #[must_use]
    pub const fn via(&self) -> &Via<'a> {
        &self.via
    }

    /// The raw Via lines in order; each may hold several Vias.
    pub fn via_lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.lines(HeaderName::Via)
    }

    /// All Vias in order, topmost first; of a line with a malformed one nothing behind it.
    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'a>, BadValue>> + use<'a> {
        self.lines(HeaderName::Via).flat_map(Via::each)
    }

    /// How many Vias there are on all lines.
    #[must_use]
    pub fn via_count(&self) -> usize {
        self.vias().count()
    }

    /// The From header.
    #[must_use]
    pub const fn from(&self) -> &NameAddr<'a> {
        &self.from
    }

    /// The To header.
    #[must_use]
    pub const fn to(&self) -> &NameAddr<'a> {
        &self.to
    }

    /// The Call-ID, compared byte by byte; never empty.
    #[must_use]
    pub const fn call_id(&self) -> &'a [u8] {
        self.call_id
    }

    /// The CSeq header.
    #[must_use]
    pub const fn cseq(&self) -> CSeq<'a> {
        self.cseq
    }

    /// Hops the request may still take; saturates at `u32::MAX`.
    #[must_use]
    pub const fn max_forwards(&self) -> Option<u32> {
        self.max_forwards
    }

    /// The contacts in order.
    #[must_use]
    pub fn contacts(&self) -> Contacts<'a> {
        Contacts::new(self.lines(HeaderName::Contact))
    }

    /// Expires in seconds; beyond `u32` it saturates (RFC 3261 §20.19 calls 2^32-1 the greatest).
    #[must_use]
    pub fn expires(&self) -> Option<Result<u32, BadValue>> {
        Some(number_saturating(self.first(HeaderName::Expires)?))
    }

    /// The event package.
    #[must_use]
    pub fn event(&self) -> Option<Event<'a>> {
        Event::parse(self.first(HeaderName::Event)?).ok()
    }

    /// The media type of the body.
    #[must_use]
    pub fn content_type(&self) -> Option<MediaType<'a>> {
        MediaType::parse(self.first(HeaderName::ContentType)?).ok()
    }

    /// The codings of the body in the order in which they were applied, compared without case.
    pub fn content_encoding(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(HeaderName::ContentEncoding)
    }

    /// The Content-Length; never more than the body holds.
    #[must_use]
    pub const fn content_length(&self) -> Option<u32> {
        self.content_length
    }

    /// The media types the sender can read.
    #[must_use]
    pub fn accept(&self) -> Accept<'a> {
        Accept::new(self.has(HeaderName::Accept), self.values(HeaderName::Accept))
    }

    /// The event packages the sender supports.
    pub fn allow_events(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(HeaderName::AllowEvents)
    }

    /// The methods the sender supports.
    pub fn allow(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(HeaderName::Allow)
    }

    /// Whether the sender supports option `tag`, compared without case.
    #[must_use]
    pub fn supported(&self, tag: &str) -> bool {
        self.lines(HeaderName::Supported).any(|line| scan::has_token(line, tag.as_bytes()))
    }

    /// The option tags the sender requires of us (RFC 3261 §20.32).
    pub fn require(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(HeaderName::Require)
    }

    /// The option tags the sender requires of proxies (RFC 3261 §20.29).
    pub fn proxy_require(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(HeaderName::ProxyRequire)
    }

    /// The entity tag of the publication that a PUBLISH refers to (RFC 3903 §11.3.2).
    #[must_use]
    pub fn if_match(&self) -> Option<&'a [u8]> {
        self.first(HeaderName::SipIfMatch)
    }

    /// The entity tag a 2xx to PUBLISH grants (RFC 3903 §11.3.1).
    #[must_use]
    pub fn entity_tag(&self) -> Option<&'a [u8]> {
        self.first(HeaderName::SipEtag)
    }

    /// The shortest interval a 423 allows, in seconds; `None` when absent or malformed.
    #[must_use]
    pub fn min_expires(&self) -> Option<u32> {
        number_saturating(self.first(HeaderName::MinExpires)?).ok()
    }

    /// Seconds to wait before trying again, without comment and parameters; `None` when absent or malformed.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        let value = self.first(HeaderName::RetryAfter)?;
        let end = scan::skip(value, 0, scan::DIGIT);
        match value.get(end) {
            None | Some(b' ' | b'\t' | b'\r' | b'(' | b';') => number_saturating(&value[..end]).ok(),
            Some(_) => None,
        }
    }

    /// The state of the subscription a NOTIFY is about; `None` when absent or malformed.
    #[must_use]
    pub fn subscription_state(&self) -> Option<SubscriptionState<'a>> {
        SubscriptionState::parse(self.first(HeaderName::SubscriptionState)?).ok()
    }

    /// The Route values in order.
    #[must_use]
    pub fn routes(&self) -> Addrs<'a> {
        Addrs(self.values(HeaderName::Route))
    }

    /// The Record-Route values in order.
    #[must_use]
    pub fn record_routes(&self) -> Addrs<'a> {
        Addrs(self.values(HeaderName::RecordRoute))
    }

    /// The Path values in order (RFC 3327).
    #[must_use]
    pub fn paths(&self) -> Addrs<'a> {
        Addrs(self.values(HeaderName::Path))
    }

    /// What the sender says it is, from User-Agent.
    #[must_use]
    pub fn user_agent(&self) -> Option<&'a [u8]> {
        self.first(HeaderName::UserAgent)
    }

    /// The value of the first line of the header called `name`, in full or compact form, without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        match HeaderName::of(name.as_bytes()) {
            HeaderName::Other => self
                .headers()
                .find(|(written, _)| written.eq_ignore_ascii_case(name.as_bytes()))
                .map(|(_, value)| value),
            known => self.first(known),
        }
    }

    /// All header lines in order: name as written and value.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        let mut at = usize::from(self.headers_at);
        std::iter::from_fn(move || {
            // The parser has read all these lines before, so an error cannot occur.
            if is_empty_line(bytes, at).ok()? {
                return None;
            }
            let line = Line::read(bytes, at).ok()?;
            let name = &bytes[at..line.name_end];
            at = line.next;
            Some((name, &bytes[line.value_start..line.value_end]))
        })
    }

    /// The raw values of all lines of a header.
    #[must_use]
    pub fn lines(&self, name: HeaderName) -> Lines<'a> {
        self.index.lines(self.bytes, name)
    }

    /// The comma-separated values of a header, across lines. Meaningless for headers that are no lists, such as Date.
    #[must_use]
    pub fn values(&self, name: HeaderName) -> Values<'a> {
        Values::new(self.lines(name))
    }

    /// Whether a line of the header is there.
    #[must_use]
    pub const fn has(&self, name: HeaderName) -> bool {
        self.index.has(name)
    }

    /// The value of the first line of a header.
    #[must_use]
    pub fn first(&self, name: HeaderName) -> Option<&'a [u8]> {
        self.index.first(self.bytes, name)
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.bytes.len() - self.body.len();
        write!(f, "Message({} + {} bytes of body)", self.bytes[..end].escape_ascii(), self.body.len())
    }
}
