//! Why a request is refused, and what the sender is told.

/// A request that is not granted. Each variant carries the evidence that its answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the request breaks a rule; the text says which.
    BadRequest(&'static str),
    /// 403: understood, and not allowed.
    Forbidden(&'static str),
    /// 404: this server is not responsible for the AoR.
    NotFound,
    /// 405: the method is not served (RFC 3261 §8.2.1); the answer lists `Allow`.
    MethodNotAllowed,
    /// 406: no body type of the event package is acceptable to the watcher (RFC 6665 §3.2.1).
    NotAcceptable,
    /// 412: the entity tag is not (any longer) that of a publication (RFC 3903 §6).
    ConditionalRequestFailed,
    /// 413: the document is longer than [`crate::limits::DOCUMENT_LEN_MAX`].
    EntityTooLarge,
    /// 415: the body's type is not one of the event package; the answer lists `Accept`.
    UnsupportedMediaType,
    /// 416: the Request-URI's scheme is not served.
    UnsupportedUriScheme,
    /// 420: an extension is required that this server does not know; the answer lists `Unsupported`.
    BadExtension,
    /// 423: the wish is shorter than the operator allows; the answer carries `Min-Expires`.
    IntervalTooBrief {
        /// Shortest interval granted, in seconds.
        min_secs: u32,
    },
    /// 439: a phone wants its flow kept, and the first proxy on the way does not do that (RFC 5626 §11.6).
    FirstHopLacksOutbound,
    /// 480, with Warning 380: a `sips` URI was reached without TLS (RFC 5630 §4.1).
    SipsNotAllowed,
    /// 481: no such dialog, or no such subscription in it (RFC 6665 §4.4.1).
    NoSuchSubscription,
    /// 482: the same request came by two ways (RFC 3261 §8.2.2.2).
    MergedRequest,
    /// 489: the event package is not served (RFC 6665 §4.2.1.1); the answer lists `Allow-Events`.
    BadEvent,
    /// 500: the request is older than one already handled (RFC 3261 §10.3 and §12.2.2).
    OutOfOrder,
    /// 500, with Retry-After: NOTIFYs cannot go where this request wants them, for now (RFC 3261 §21.5.1). A 503 would have a proxy
    /// send us no requests of its other users either (§21.5.4).
    OutOfReach {
        /// What the sender is told in `Retry-After`, seconds.
        retry_after_secs: u32,
    },
    /// 503: no room, try later.
    Unavailable {
        /// What the sender is told in `Retry-After`, seconds.
        retry_after_secs: u32,
    },
}

impl Refusal {
    /// The SIP status code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Forbidden(_) => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::ConditionalRequestFailed => 412,
            Self::EntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::UnsupportedUriScheme => 416,
            Self::BadExtension => 420,
            Self::IntervalTooBrief { .. } => 423,
            Self::FirstHopLacksOutbound => 439,
            Self::SipsNotAllowed => 480,
            Self::NoSuchSubscription => 481,
            Self::MergedRequest => 482,
            Self::BadEvent => 489,
            Self::OutOfOrder | Self::OutOfReach { .. } => 500,
            Self::Unavailable { .. } => 503,
        }
    }

    /// The reason phrase: what a person reads in a trace.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest(why) | Self::Forbidden(why) => why,
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::NotAcceptable => "Not Acceptable",
            Self::ConditionalRequestFailed => "Conditional Request Failed",
            Self::EntityTooLarge => "Request Entity Too Large",
            Self::UnsupportedMediaType => "Unsupported Media Type",
            Self::UnsupportedUriScheme => "Unsupported URI Scheme",
            Self::BadExtension => "Bad Extension",
            Self::IntervalTooBrief { .. } => "Interval Too Brief",
            Self::FirstHopLacksOutbound => "First Hop Lacks Outbound Support",
            Self::SipsNotAllowed => "Temporarily Unavailable",
            Self::NoSuchSubscription => "Subscription Does Not Exist",
            Self::MergedRequest => "Loop Detected",
            Self::BadEvent => "Bad Event",
            Self::OutOfOrder => "CSeq Out of Order",
            Self::OutOfReach { .. } => "Watcher Out of Reach",
            Self::Unavailable { .. } => "Service Unavailable",
        }
    }
}
