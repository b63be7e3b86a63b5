//! Datagrams that the kernel may be given as one message, to be cut at equal lengths.

use std::net::{IpAddr, SocketAddr};

use super::mmsg::Datagram;

/// Most datagrams in a train (`UDP_MAX_SEGMENTS` of Linux before 6.9).
const DATAGRAMS_MAX: usize = 64;
/// Most bytes in a train: a bit less than what an IPv4 packet can carry.
const BYTES_MAX: usize = 65_000;
/// Longest datagram that travels in a train. The kernel refuses to cut at more than what the link carries, and most links
/// carry 1,500 bytes.
const SEGMENT_MAX: usize = 1_400;
const _: () = assert!(comsipl_core::PADDED_LEN_MAX <= SEGMENT_MAX, "what is padded is to travel in trains");

/// Datagrams that follow one another to one address, all of one length but the last, which may be shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    pub(super) peer: SocketAddr,
    pub(super) local_ip: Option<IpAddr>,
    /// How many datagrams.
    pub(super) count: usize,
    /// Length of each but the last.
    pub(super) segment_len: usize,
    /// Length of all.
    bytes: usize,
    /// A shorter one has ended it.
    closed: bool,
}

impl Train {
    /// A train of one.
    pub(super) fn of(datagram: &Datagram<'_>) -> Self {
        let len = datagram.len();
        Self {
            peer: datagram.peer,
            local_ip: datagram.local_ip,
            count: 1,
            segment_len: len,
            bytes: len,
            closed: len == 0 || len > SEGMENT_MAX,
        }
    }

    /// A train of one of its datagrams.
    pub(super) fn one(self) -> Self {
        Self { count: 1, ..self }
    }

    /// Takes `datagram` in as the last, if it fits; says whether.
    pub(super) fn couple(&mut self, datagram: &Datagram<'_>) -> bool {
        let len = datagram.len();
        let fits = !self.closed
            && len > 0
            && len <= self.segment_len
            && self.count < DATAGRAMS_MAX
            && self.bytes + len <= BYTES_MAX
            && self.peer == datagram.peer
            && self.local_ip == datagram.local_ip;
        if fits {
            self.count += 1;
            self.bytes += len;
            self.closed = len < self.segment_len;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(port: u16, payload: &[u8]) -> Datagram<'_> {
        let peer = SocketAddr::from(([127, 0, 0, 1], port));
        Datagram { peer, local_ip: None, parts: [payload, b"", b""] }
    }

    #[test]
    fn equal_lengths_to_one_address_are_coupled_until_a_shorter_one() {
        let long = [b'x'; 700];
        let mut train = Train::of(&datagram(1, &long));
        assert!(train.couple(&datagram(1, &long)));
        assert!(!train.couple(&datagram(2, &long)), "another address");
        assert!(!train.couple(&Datagram { local_ip: Some([127, 0, 0, 1].into()), ..datagram(1, &long) }));
        assert!(!train.couple(&datagram(1, &[b'x'; 701])), "longer");
        assert!(!train.couple(&datagram(1, b"")), "empty");
        assert!(train.couple(&datagram(1, &long[..699])));
        assert!(!train.couple(&datagram(1, &long)), "after the shorter one");
        assert_eq!((train.count, train.segment_len), (3, 700));
    }

    #[test]
    fn a_train_is_bounded() {
        let long = [b'x'; 1_400];
        let mut train = Train::of(&datagram(1, &long));
        while train.couple(&datagram(1, &long)) {}
        assert_eq!((train.count, train.bytes), (46, 64_400));
        let mut train = Train::of(&datagram(1, b"short"));
        while train.couple(&datagram(1, b"short")) {}
        assert_eq!(train.count, 64);
        let too_long = [b'x'; 1_401];
        assert!(!Train::of(&datagram(1, &too_long)).couple(&datagram(1, &too_long)));
    }
}
