//! Every bound of the protocol engine in one place: its reason, and what a sender gets beyond it.

/// Longest SIP message read or written, in bytes: what one UDP datagram carries. Longer ones cannot arrive.
pub const MESSAGE_LEN_MAX: usize = 65_535;

/// Most header lines in one message; beyond it the message is malformed (400). Real phones send about 20.
pub const HEADERS_MAX: usize = 128;

/// Longest published document in bytes; beyond it 413 (Request Entity Too Large).
pub const DOCUMENT_LEN_MAX: usize = 64 * 1024;

/// Most bytes that the publications of one presentity may have together; beyond it 413. The document composed of them has
/// to fit one datagram, with the NOTIFY's head and the namespaces gathered on its root.
pub const PRESENTITY_LEN_MAX: usize = 56 * 1024;

/// Most bindings of one AoR; beyond it a new contact is refused with 403.
pub const BINDINGS_PER_AOR_MAX: usize = 32;

/// Most live publications of one presentity and event package; beyond it 503 with Retry-After.
pub const PUBLICATIONS_PER_PRESENTITY_MAX: usize = 32;

/// Most subscriptions that share one dialog (RFC 6665 §4.5.2 discourages sharing); beyond it 403.
pub const SUBSCRIPTIONS_PER_DIALOG_MAX: usize = 8;

/// Longest address-of-record in canonical form, in bytes; beyond it 414 (Request-URI Too Long).
pub const AOR_LEN_MAX: usize = 512;
