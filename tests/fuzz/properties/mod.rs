//! What must hold whatever the bytes are: the properties that the fuzz targets check, and that `tests/corpora.rs` checks again
//! with every input of their corpora.
//!
//! | target | input | holds |
//! |---|---|---|
//! | `message` | a datagram | what was parsed and is written again reads the same; peeks agree with the parser; answers can be read |
//! | `framing` | a stream | the same messages and pings, however the stream is cut; the parser sees their ends |
//! | `routing` | a datagram | a message that parses goes to the shard that its parsed fields name |
//! | `differential` | a datagram | where `sipx-sip` accepts it as well, both have read the same |
//! | `credentials` | an Authorization value | what was read and is written again reads the same; a proof holds for its own secret only |
//! | `pidf` | documents | other XML parsers agree; the composition is read again with the same meaning, in whatever order |
//! | `documents` | a package's documents | the same for the other packages that publish |
//! | `fdb_open` | changes to a valid file | opening never panics; no record is served that nobody wrote; recovery is done once |
//! | `websocket` | a handshake and frames | the same messages and answers, however the bytes come |
//! | `engine` | datagrams to a server of two shards | all that it sends can be read, and it goes on serving |

// Each target uses one of these modules.
#![allow(dead_code)]

pub mod credentials;
pub mod differential;
pub mod documents;
pub mod engine;
pub mod fdb_open;
pub mod framing;
pub mod message;
pub mod pidf;
pub mod routing;
pub mod websocket;

use comsipl_core::pidf::Published;

/// Checks an input; panics if something does not hold.
pub type Hold = fn(&[u8]);

/// Names of the targets, which are those of their corpora, and what each checks.
pub const ALL: &[(&str, Hold)] = &[
    ("credentials", credentials::hold),
    ("differential", differential::hold),
    ("documents", documents::hold),
    ("engine", engine::hold),
    ("fdb_open", fdb_open::hold),
    ("framing", framing::hold),
    ("message", message::hold),
    ("pidf", pidf::hold),
    ("routing", routing::hold),
    ("websocket", websocket::hold),
];

/// What stands between the parts of an input that has several.
pub const SEPARATOR: &[u8] = b"\n====\n";

/// The parts of an input.
pub fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = bytes.windows(SEPARATOR.len()).position(|it| it == SEPARATOR) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + SEPARATOR.len()..];
    }
    parts.push(bytes);
    parts
}

/// Publications with these bodies, a second apart, in their order and in the opposite one.
pub fn published<'b>(bodies: &[&'b [u8]]) -> [Vec<Published<'b>>; 2] {
    let published =
        |(number, &body): (u64, &&'b [u8])| Published { number, published_at_ms: 1_000 * number, body };
    let forth: Vec<_> = (1..).zip(bodies).map(published).collect();
    let back = forth.iter().rev().copied().collect();
    [forth, back]
}
