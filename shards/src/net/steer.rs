//! A program for the kernel that brings the answers to our NOTIFYs to the socket of the shard that waits for them.
//!
//! Without it the kernel spreads datagrams over the sockets of a listener by their addresses, and with N shards all but one
//! in N answers arrive at the wrong one and are handed over by the bus. The branch of a NOTIFY names the partition of its
//! subscription (`z9hG4bK~PP…`), and an answer repeats the branch, so a classic BPF program can choose: it needs no privilege
//! and no tools (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)).
//!
//! Everything else is spread by the sender's address and port, so that the requests of one phone stay in order. A program
//! that is wrong, or that the kernel refuses, costs a hand-over and never an answer: whoever receives a datagram computes
//! its owner again.

use std::net::SocketAddr;

use comsipl_core::PARTITIONS;
use libc::sock_filter;

use super::bpf::{
    NETWORK_HEADER, SIP, add_index, give, jump, jump_if_at_least, jump_if_equal, load, load_byte_at_index,
    load_half, load_index, load_index_from, load_length, load_word, operate, store, store_index, to_index,
};

/// The end of the magic cookie and the mark of our branches.
const MARK: u32 = u32::from_be_bytes(*b"4bK~");
/// Where the mark may stand: behind the shortest status line and Via, and before the longest that we look at.
const MARK_OFFSETS: std::ops::Range<u32> = 36..200;

// Scratch words of the program.
const OFFSET: u32 = 0;
const DIGIT: u32 = 1;
const LOW: u32 = 2;
const HIGH: u32 = 3;

/// The program for a listener on `address` whose `shards` sockets were bound in the order of the shards.
#[must_use]
pub fn program(address: SocketAddr, shards: usize) -> Vec<sock_filter> {
    let shards = u32::try_from(shards).expect("there are at most 64 shards");
    // An answer that says `200 OK` and repeats our Via as we wrote it has the mark just here.
    let usual = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP ;branch=z9hG".len() + address.to_string().len();
    let usual = u32::try_from(usual).expect("an address is short");
    let others = MARK_OFFSETS.filter(|&offset| offset != usual);
    let offsets: Vec<u32> = std::iter::once(usual).chain(others).collect();

    let found = partition_at_index(shards);
    let found_len = u32::try_from(found.len()).expect("a few dozen");
    // Each look is four instructions; both ends of the search are reached by a jump whose width is 32 bits.
    let looks = 4 * u32::try_from(offsets.len()).expect("a few hundred");
    let not_an_answer = looks + 1 + found_len;
    // A load beyond the end of a datagram would end the program and choose the first socket, so the shortest are told apart.
    let mut program = vec![load_length(), jump_if_at_least(4, 1, 0), jump(not_an_answer + 3)];
    program.extend([load_word(0), jump_if_equal(SIP, 1, 0), jump(not_an_answer)]);
    for (index, &offset) in offsets.iter().enumerate() {
        let rest = looks - 4 * (u32::try_from(index).expect("a few hundred") + 1);
        program.push(load_word(offset));
        program.push(jump_if_equal(MARK, 0, 2));
        program.push(load_index(offset + 4));
        // Past the other looks, and the jump that ends an unsuccessful search.
        program.push(jump(rest + 1));
    }
    program.push(jump(found_len));
    program.extend(found);
    program.extend(by_sender(address, shards));
    program
}

/// Reads two hexadecimal digits at the index register and returns the shard of that partition.
fn partition_at_index(shards: u32) -> Vec<sock_filter> {
    let mut code = vec![store_index(OFFSET)];
    code.push(load_byte_at_index(0));
    code.extend(digit());
    code.extend([operate(libc::BPF_LSH, 4), store(HIGH), load_index_from(OFFSET), load_byte_at_index(1)]);
    code.extend(digit());
    code.extend([load_index_from(HIGH), add_index()]);
    code.extend([operate(libc::BPF_AND, PARTITIONS as u32 - 1), operate(libc::BPF_MOD, shards), give()]);
    code
}

/// The value of the lower-case hexadecimal digit in the accumulator: its low four bits, and nine more for a letter.
fn digit() -> [sock_filter; 8] {
    [
        store(DIGIT),
        operate(libc::BPF_AND, 15),
        store(LOW),
        load(DIGIT),
        operate(libc::BPF_RSH, 6),
        operate(libc::BPF_MUL, 9),
        load_index_from(LOW),
        add_index(),
    ]
}

/// Returns a shard by the sender's address and port.
fn by_sender(address: SocketAddr, shards: u32) -> Vec<sock_filter> {
    // Source address (its last four bytes, which differ most) and source port behind a header of the usual length.
    let (ip, port) = if address.is_ipv4() { (12, 20) } else { (20, 40) };
    vec![
        load_half(NETWORK_HEADER.wrapping_add(port)),
        operate(libc::BPF_MUL, 0x9e37_79b1),
        to_index(),
        load_word(NETWORK_HEADER.wrapping_add(ip)),
        operate(libc::BPF_MUL, 0x85eb_ca6b),
        add_index(),
        // The upper bits are the mixed ones.
        operate(libc::BPF_RSH, 16),
        operate(libc::BPF_MOD, shards),
        give(),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::bind::bind;
    use super::*;

    /// Which of the listener's sockets has a datagram.
    fn arrived(sockets: &[UdpSocket]) -> Vec<usize> {
        // Loopback delivers before the sender's call returns.
        let has = |socket: &UdpSocket| socket.recv_from(&mut [0; 2048]).is_ok();
        (0..sockets.len()).filter(|&shard| has(&sockets[shard])).collect()
    }

    fn answer(reason: &str, via: &str, partition: u8) -> String {
        format!(
            "SIP/2.0 {reason}\r\nVia: SIP/2.0/UDP {via}branch=z9hG4bK~{partition:02x}0000000712345678;rport=5060\r\n\
             From: <sip:a@example.com>;tag=1\r\nContent-Length: 0\r\n\r\n"
        )
    }

    #[test]
    fn answers_reach_the_shard_that_waits_for_them() {
        for ip in ["127.0.0.1", "::1"] {
            let listener = bind(SocketAddr::new(ip.parse().unwrap(), 0), 3, 1 << 16).unwrap();
            assert!(listener.steered, "this kernel takes the program");
            let phone = UdpSocket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
            for partition in 0..64u8 {
                for (reason, via) in [
                    ("200 OK", format!("{};", listener.address)),
                    ("481 Subscription Does Not Exist", format!("{};", listener.address)),
                    ("200 OK", format!("{};received=192.0.2.200;", listener.address)),
                    ("200 OK", "presence.example.com:5060 ; ".to_owned()),
                ] {
                    phone.send_to(answer(reason, &via, partition).as_bytes(), listener.address).unwrap();
                    assert_eq!(arrived(&listener.sockets), [usize::from(partition) % 3], "{reason} {via}");
                }
            }
        }
    }

    #[test]
    fn whatever_else_comes_arrives_once_and_always_at_the_same_shard() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 4, 1 << 16).unwrap();
        let mut reached = [false; 4];
        for _ in 0..64 {
            let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut shards = Vec::new();
            for datagram in
                ["", "x", "\r\n\r\n", "SIP/", "SIP/2.0 200 OK\r\n", "SUBSCRIBE sip:a@b SIP/2.0\r\n\r\n"]
            {
                phone.send_to(datagram.as_bytes(), listener.address).unwrap();
                let at = arrived(&listener.sockets);
                assert_eq!(at.len(), 1, "{datagram:?} is lost or doubled");
                // A broken answer may go to the first shard, which is as good as any.
                if !datagram.starts_with("SIP/") {
                    shards.push(at[0]);
                }
            }
            shards.dedup();
            assert_eq!(shards.len(), 1, "requests of one phone stay together");
            reached[shards[0]] = true;
        }
        assert_eq!(reached, [true; 4]);
    }
}
