//! XML documents that are published, read strictly and in a bounded way.
//!
//! What is copied to watchers must be read by strict parsers, so a document passes only if it is well-formed XML in UTF-8
//! with correct namespaces, without a document type, and within [`bounds`]. Nothing is built: readers keep spans of the
//! text. `pidf` reads with a loop of its own that also hashes what a document means; other formats read by [`Reader`].

pub(crate) mod bounds;
pub(crate) mod fingerprint;
pub(crate) mod malformed;
pub(crate) mod namespace;
mod reader;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod text;

pub(crate) use reader::{Event, Reader};
