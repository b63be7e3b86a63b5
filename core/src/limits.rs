//! Every bound of the protocol engine in one place: its reason, and what a sender gets beyond it.

/// Longest SIP message read or written, in bytes: what one UDP datagram carries. Longer ones cannot
/// arrive that way; on a stream they are answered with 413 (Request Entity Too Large), and the connection is closed.
pub const MESSAGE_LEN_MAX: usize = 65_535;

/// Longest head of a message that comes by a stream, in bytes; beyond it 513 (Message Too Large), and the connection is closed.
/// Nobody knows the length of such a message before its head is whole, so this is what an unfinished one can cost.
pub const HEAD_LEN_MAX: usize = 16 * 1024;

/// Most header lines in one message; beyond it the message is malformed (400). Real phones send about 20.
pub const HEADERS_MAX: usize = 128;

/// Longest published document in bytes; beyond it 413 (Request Entity Too Large).
pub const DOCUMENT_LEN_MAX: usize = 64 * 1024;

/// Most bytes that the publications of one presentity may have together; beyond it 413. The document composed of them has
/// to fit one datagram, with the NOTIFY's head and the namespaces gathered on its root.
pub const PRESENTITY_LEN_MAX: usize = 56 * 1024;

/// Most bindings of one AoR; beyond it a new contact is refused with 403.
pub const BINDINGS_PER_AOR_MAX: usize = 32;

/// Longest Contact URI, and longest instance, in bytes; beyond it 400. Real ones have 200 at most.
pub const CONTACT_LEN_MAX: usize = 2048;

/// Most parameters and headers of a Contact URI; beyond it 400. They are compared each with each.
pub const URI_PARAMS_MAX: usize = 16;

/// Longest route set of a dialog in bytes; beyond it 400. It is sent with each NOTIFY.
pub const ROUTE_SET_LEN_MAX: usize = 4096;

/// Most extensions named in one 420 (Bad Extension), so that an answer is not longer than its request.
pub const UNSUPPORTED_LISTED_MAX: usize = 16;

/// Most live publications of one presentity and event package; beyond it 503 with Retry-After.
pub const PUBLICATIONS_PER_PRESENTITY_MAX: usize = 32;

/// Most subscriptions that share one dialog (RFC 6665 §4.5.2 discourages sharing); beyond it 403.
pub const SUBSCRIPTIONS_PER_DIALOG_MAX: usize = 8;

/// Longest address-of-record in canonical form, in bytes; beyond it 414 (Request-URI Too Long).
pub const AOR_LEN_MAX: usize = 512;

/// Most watchers of a presentity that one shard reports to its owner while somebody watches its winfo; beyond it those who came
/// first are not named, and counted.
pub const WATCHERS_REPORTED_MAX: usize = 1000;

/// Longest URI of a watcher that is reported, in bytes; beyond it the watcher is not named, and counted. So a few with endless names
/// cannot take the place of all others.
pub const WATCHER_URI_LEN_MAX: usize = 1024;

/// Most watchers listed in one winfo document, whose bytes are bounded too ([`PRESENTITY_LEN_MAX`]: some 400 watchers with
/// short names); beyond it they are not listed, and counted.
pub const WATCHERS_LISTED_MAX: usize = 1000;
