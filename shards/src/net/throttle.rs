//! A program for the kernel that keeps a part of the requests out of a socket.
//!
//! In an overload that refusing alone does not end, what is refused would take more time than what is done. A socket filter
//! (`SO_ATTACH_FILTER`, socket(7); it needs no privilege) drops a datagram before it takes room in the socket, so it costs us
//! nothing, and what is not dropped does not wait behind it, as it does where a full socket drops.
//!
//! The program knows kinds of requests by the first letters, and a SUBSCRIBE in a dialog by `;gr=` in the Request-URI, which is
//! our Contact. Whether one is dropped is drawn from a keyed hash of a piece of it in which the branch and the Call-ID lie: a
//! repetition has the same bytes and the same fate. Answers, ACK, CANCEL, OPTIONS, what is too short to be a request that counts,
//! and what comes from where a trusted proxy sends less when it is told to (RFC 7339), is never dropped.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::AsFd;

use comsipl_core::overload::{KeptOut, Kind, Share, WHOLE};
use libc::sock_filter;
use socket2::{Domain, SockFilter, SockRef};

use super::bpf::{
    Label, NETWORK_HEADER, Program, SIP, add_index, give_value, jump_if_at_least, jump_if_at_least_index,
    jump_if_equal, load_index, load_index_from, load_length, load_value, load_word, operate, store, to_index,
};
use crate::access::IpRange;

/// What the sockets of a shard are given; at first nothing is kept out.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Sources from which the program in the sockets keeps nothing out.
    let_in: Vec<IpRange>,
    /// The key of the lots, drawn anew for each time in which something is kept out.
    key: [u32; 2],
    attached: KeptOut,
    /// Whether the kernel has refused a program, so that it is not asked again.
    is_refused: bool,
}

impl Throttle {
    /// Lets everything in, for whoever goes on with the sockets.
    pub fn end(&mut self, sockets: &[impl AsFd]) {
        self.set(sockets, KeptOut::NONE, &[], || 0);
    }

    /// Whether the kernel keeps out what it is told to, as far as is known.
    #[must_use]
    pub const fn works(&self) -> bool {
        !self.is_refused
    }

    /// Whether something is kept out.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.attached.is_none()
    }

    /// Keeps out so much from now on, and nothing that comes from `let_in`, if that differs by enough to be worth a system call for
    /// each socket. `draw` is asked for a new key where nothing was kept out before.
    pub fn set(
        &mut self,
        sockets: &[impl AsFd],
        kept_out: KeptOut,
        let_in: &[IpRange],
        mut draw: impl FnMut() -> u32,
    ) {
        let differs = |kind| kept_out.share_of(kind).abs_diff(self.attached.share_of(kind)) >= STEP_MIN;
        let is_worth_it = if kept_out.is_none() {
            self.is_on()
        } else {
            Kind::ALL.into_iter().any(differs) || self.let_in != let_in
        };
        if self.is_refused || !is_worth_it {
            return;
        }
        if !self.is_on() {
            self.key = [draw(), draw()];
        }
        self.attached = kept_out;
        self.let_in.clear();
        self.let_in.extend_from_slice(let_in);
        let result = sockets.iter().try_for_each(|socket| self.attach_to(&SockRef::from(socket)));
        if let Err(error) = result {
            tracing::warn!(%error, "the kernel keeps no requests out, so those that are too many are refused one by one");
            self.is_refused = true;
            self.attached = KeptOut::NONE;
            for socket in sockets {
                // Those that have none have none.
                let _ = let_everything_in(&SockRef::from(socket));
            }
        }
    }

    fn attach_to(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if self.attached.is_none() {
            return let_everything_in(socket);
        }
        let is_ipv6 = socket.domain()? == Domain::IPV6;
        let program = program(is_ipv6, &self.let_in, &self.attached, self.key);
        let program: Vec<_> = program.iter().map(|it| SockFilter::new(it.code, it.jt, it.jf, it.k)).collect();
        socket.attach_filter(&program)
    }
}

/// Lets everything into a socket that another process has had before us.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn let_everything_in(socket: &SockRef<'_>) -> io::Result<()> {
    match socket.detach_filter() {
        // There was none.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// The least difference of a share that is worth a system call.
const STEP_MIN: Share = WHOLE / 32;

/// The program: it gives how many bytes of a datagram are let in, all or none.
fn program(is_ipv6: bool, sources: &[IpRange], kept_out: &KeptOut, key: [u32; 2]) -> Vec<sock_filter> {
    let mut program = Program::default();
    let [let_in, new, in_dialog, draw] = [(); 4].map(|()| program.label());
    let judge = |program: &mut Program, kind: Kind| match kept_out.share_of(kind) {
        0 => program.jump(let_in),
        share => {
            program.extend([load_value(share), store(SHARE)]);
            program.jump(draw);
        }
    };

    // A load beyond the end would drop a datagram, so the short ones are told apart at first.
    program.extend([load_length(), jump_if_at_least(PAYLOAD + HASHED.end, 1, 0)]);
    program.jump(let_in);
    for range in sources {
        let_in_from(&mut program, range, is_ipv6, let_in);
    }
    program.extend([load_word(PAYLOAD)]);
    for start in [SIP, word(*b"ACK "), word(*b"CANC"), word(*b"OPTI")] {
        program.extend([jump_if_equal(start, 0, 1)]);
        program.jump(let_in);
    }
    for (start, kind) in [(word(*b"REGI"), Kind::Register), (word(*b"PUBL"), Kind::Publish)] {
        let next = program.label();
        program.extend([jump_if_equal(start, 1, 0)]);
        program.jump(next);
        judge(&mut program, kind);
        program.place(next);
    }
    program.extend([jump_if_equal(word(*b"SUBS"), 1, 0)]);
    program.jump(new);
    for offset in GRUU_OFFSETS {
        program.extend([load_word(PAYLOAD + offset), jump_if_equal(word(*b";gr="), 0, 1)]);
        program.jump(in_dialog);
    }
    program.place(new);
    judge(&mut program, Kind::New);
    program.place(in_dialog);
    judge(&mut program, Kind::InDialog);

    program.place(draw);
    let [start, factor] = key;
    program.extend([load_index(start)]);
    for offset in HASHED.step_by(4) {
        program.extend([load_word(PAYLOAD + offset), add_index()]);
        // Odd, so that nothing is lost; what is mixed best are the upper bits.
        program.extend([operate(libc::BPF_MUL, factor | 1), to_index()]);
    }
    let lot_bits = WHOLE.ilog2();
    program.extend([operate(libc::BPF_RSH, u32::BITS - lot_bits), load_index_from(SHARE)]);
    program.extend([jump_if_at_least_index(1, 0), give_value(0)]);
    program.place(let_in);
    program.extend([give_value(u32::MAX)]);
    program.finish()
}

/// Lets a datagram in if its sender is in a range.
fn let_in_from(program: &mut Program, range: &IpRange, is_ipv6: bool, let_in: Label) {
    let (address, source) = match range.address() {
        IpAddr::V4(address) if !is_ipv6 => (vec![address.to_bits()], 12),
        IpAddr::V6(address) if is_ipv6 => {
            let bits = address.to_bits();
            ((0..4).map(|index| (bits >> (96 - 32 * index)) as u32).collect(), 8)
        }
        _ => return,
    };
    let other = program.label();
    for (index, own) in (0..).zip(address) {
        let bits = u32::from(range.bits()).saturating_sub(32 * index).min(32);
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        program.extend([
            load_word(NETWORK_HEADER.wrapping_add(source + 4 * index)),
            operate(libc::BPF_AND, mask),
            jump_if_equal(own & mask, 1, 0),
        ]);
        program.jump(other);
    }
    program.jump(let_in);
    program.place(other);
}

const fn word(text: [u8; 4]) -> u32 {
    u32::from_be_bytes(text)
}

/// Where the payload begins: a socket filter sees the UDP header.
const PAYLOAD: u32 = 8;

/// Where `;gr=` begins in a Request-URI that is our Contact, whose user part is the watched user's: from the shortest to 48 bytes
/// of user and address. Longer ones count as new.
const GRUU_OFFSETS: Range<u32> = 22..70;

/// What the lot is drawn from: most of the topmost Via and what follows it.
const HASHED: Range<u32> = 64..224;

/// The scratch word that has the share of the datagram's kind.
const SHARE: u32 = 0;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const KEY: [u32; 2] = [0x1234_5678, 0x9e37_79b9];

    struct Listener {
        socket: UdpSocket,
        throttle: Throttle,
        let_in: Vec<IpRange>,
    }

    impl Listener {
        fn new(ip: &str) -> Self {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { socket, throttle: Throttle::default(), let_in: Vec::new() }
        }

        fn keep_out(&mut self, level: Share) {
            let mut key = KEY.into_iter();
            self.throttle.set(&[&self.socket], KeptOut::of(level), &self.let_in, || key.next().unwrap());
            assert!(!self.throttle.is_refused, "this kernel takes the program");
        }

        /// How many of 512 different datagrams come in, and whether each fares alike when it comes again.
        fn come_in(&self, datagram: impl Fn(u32) -> String) -> usize {
            let phone = UdpSocket::bind((self.socket.local_addr().unwrap().ip(), 0)).unwrap();
            // Loopback delivers before the sender's call returns.
            let comes_in = |text: &str| {
                phone.send_to(text.as_bytes(), self.socket.local_addr().unwrap()).unwrap();
                self.socket.recv_from(&mut [0; 2048]).is_ok_and(|(len, _)| len == text.len())
            };
            let mut count = 0;
            for index in 0..512 {
                let text = datagram(index);
                let fate = comes_in(&text);
                assert_eq!(comes_in(&text), fate, "a repetition of {text}");
                count += usize::from(fate);
            }
            count
        }
    }

    fn request(start: &str, index: u32) -> String {
        let branch = index.wrapping_mul(0x9e37_79b1);
        format!(
            "{start} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK{branch:x};rport\r\nFrom: <sip:a@example.com>;tag=f\r\n\
             To: <sip:a@example.com>\r\nCall-ID: 7@192.0.2.7\r\nCSeq: 1 X\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n{:40}\r\n\r\n",
            "X: y"
        )
    }

    const SUBSCRIBE: &str = "SUBSCRIBE sip:alice@example.com";
    const REFRESH: &str = "SUBSCRIBE sip:alice@192.0.2.1:5060;gr=example.com";
    const REGISTER: &str = "REGISTER sip:example.com";
    const PUBLISH: &str = "PUBLISH sip:alice@example.com";

    #[test]
    fn a_share_of_each_kind_is_kept_out_and_repetitions_fare_alike() {
        for ip in ["127.0.0.1", "::1"] {
            let mut listener = Listener::new(ip);
            let coming = |listener: &Listener| {
                [SUBSCRIBE, PUBLISH, REGISTER, REFRESH]
                    .map(|start| listener.come_in(|index| request(start, index)))
            };
            assert_eq!(coming(&listener), [512; 4]);
            listener.keep_out(WHOLE / 2);
            let [subscribe, others @ ..] = coming(&listener);
            assert!((200..312).contains(&subscribe), "{subscribe} of 512 with half kept out");
            assert_eq!(others, [512; 3]);
            listener.keep_out(KeptOut::LEVEL_MAX);
            for count in coming(&listener) {
                assert!((8..80).contains(&count), "{count} of 512 with a sixteenth let in");
            }
            listener.keep_out(0);
            assert_eq!(coming(&listener), [512; 4]);
        }
    }

    #[test]
    fn what_must_come_in_does() {
        let mut listener = Listener::new("127.0.0.1");
        listener.keep_out(KeptOut::LEVEL_MAX);
        for start in ["OPTIONS sip:example.com", "ACK sip:a@example.com", "CANCEL sip:a@example.com"] {
            assert_eq!(listener.come_in(|index| request(start, index)), 512, "{start}");
        }
        let answer = |index| request("SIP/2.0 200 OK", index);
        assert_eq!(listener.come_in(answer), 512);
        for short in ["\r\n\r\n", "x", "SIP/2.0 200 OK\r\n", "SUBSCRIBE sip:a@b SIP/2.0\r\n\r\n"] {
            assert_eq!(listener.come_in(|_| short.to_owned()), 512, "{short}");
        }
        let unknown = listener.come_in(|index| request("INVITE sip:a@example.com", index));
        assert!(unknown < 80, "{unknown} of what is not served");
    }

    #[test]
    fn what_comes_from_certain_sources_is_not_kept_out() {
        for (ip, sources, comes_in) in [
            ("127.0.0.1", &["127.0.0.1"][..], true),
            ("127.0.0.1", &["192.0.2.0/24", "127.0.0.0/8"], true),
            ("127.0.0.1", &["192.0.2.0/24", "::1", "127.0.0.2"], false),
            ("::1", &["2001:db8::/32", "::/127"], true),
            ("::1", &["2001:db8::/32", "127.0.0.1", "::2"], false),
        ] {
            let mut listener = Listener::new(ip);
            listener.keep_out(KeptOut::LEVEL_MAX);
            assert!(listener.come_in(|index| request(PUBLISH, index)) < 80);
            // They are known when one of them is heard, which may be later.
            listener.let_in = sources.iter().map(|it| it.parse().unwrap()).collect();
            listener.keep_out(KeptOut::LEVEL_MAX);
            let count = listener.come_in(|index| request(PUBLISH, index));
            assert_eq!(count == 512, comes_in, "{ip} {sources:?}");
            listener.let_in.clear();
            listener.keep_out(KeptOut::LEVEL_MAX);
            assert!(
                listener.come_in(|index| request(PUBLISH, index)) < 80,
                "nobody there takes part any more"
            );
        }
    }

    #[test]
    fn who_goes_on_with_a_socket_lets_everything_in() {
        let mut listener = Listener::new("127.0.0.1");
        listener.keep_out(KeptOut::LEVEL_MAX);
        for _ in 0..2 {
            let_everything_in(&SockRef::from(&listener.socket)).unwrap();
        }
        assert_eq!(listener.come_in(|index| request(PUBLISH, index)), 512);
    }
}
