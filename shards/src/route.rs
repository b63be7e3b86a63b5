//! Who owns a datagram, from its bytes alone.
//!
//! REGISTER and PUBLISH belong to the hash of their AoR; SUBSCRIBE, and the answers to our NOTIFYs, to the hash of their
//! Call-ID (which the branch of the answer names too). Everything else is answered by whoever got it.

use comsipl_core::header::{HeaderName, NameAddr};
use comsipl_core::msg::{Method, peek};

use crate::ahead::Ahead;
use crate::shard::{Owner, Shard};
use crate::sipp::marked;

impl Shard {
    /// Who must handle `datagram`; looks at as few bytes as it can.
    #[must_use]
    pub fn owner_of(&mut self, datagram: &[u8]) -> Owner {
        self.ahead = None;
        if self.shards == 1 {
            return Owner::Shard(0);
        }
        match self.partition_of(datagram) {
            Some(partition) => Owner::Shard(self.shard_of(partition)),
            None => Owner::Anyone,
        }
    }

    fn partition_of(&mut self, datagram: &[u8]) -> Option<u8> {
        let Some((method, uri)) = peek::peek_request(datagram) else {
            let branch = peek::peek_response_branch(datagram)?;
            if let Some(mark) = marked(branch) {
                return Some(mark.partition);
            }
            return Some(self.keys.call_id_partition(peek::peek_call_id(datagram)?));
        };
        match method {
            // What may be cancelled is a SUBSCRIBE, if anything (RFC 6665 §4.6).
            Method::Subscribe | Method::Cancel => {
                Some(self.keys.call_id_partition(peek::peek_call_id(datagram)?))
            }
            Method::Publish => {
                let key = self.keys.aor_of_uri(uri, &mut self.scratch.aor)?;
                self.ahead = Some(Ahead::Publications(key));
                Some(key.partition())
            }
            Method::Register => {
                let to = NameAddr::parse(peek::peek_header(datagram, HeaderName::To)?).ok()?;
                let key = self.keys.aor_of_uri(to.uri(), &mut self.scratch.aor)?;
                self.ahead = Some(Ahead::Bindings(key));
                Some(key.partition())
            }
            _ => None,
        }
    }
}
