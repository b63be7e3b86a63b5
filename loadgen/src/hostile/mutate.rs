//! Damage: what is done to a message before it is sent.

use super::originals;
use crate::chance::Chance;
use crate::message::Style;
use std::collections::BTreeMap;

/// Longest datagram over IPv4: a packet without its heads.
const DATAGRAM_MAX: usize = 65_507;

/// One kind of damage.
type Damage = fn(&mut Vec<u8>, &mut Chance);

/// All kinds that need no second message.
const KINDS: &[(&str, Damage)] = &[
    ("untouched", |_, _| {}),
    ("bits flipped", |bytes, chance| flip_bits(bytes, chance)),
    ("bytes replaced", |bytes, chance| replace_bytes(bytes, chance)),
    ("bytes removed", remove_bytes),
    ("bytes put in", put_in_bytes),
    ("truncated", truncate),
    ("lines doubled", double_lines),
    ("lines in another order", reorder_lines),
    ("overlong line", lengthen_line),
    ("many lines", repeat_line),
    ("wrong length", falsify_length),
    ("rubbish for text", rubbish),
    ("huge number", huge_number),
    ("compact and folded", respell),
    ("nested", nest),
    ("hostile document", hostile_document),
    ("no SIP", no_sip),
];

/// Damages a message once, twice or three times, and notes how.
pub fn damage(
    bytes: &mut Vec<u8>,
    style: &Style,
    local: &str,
    chance: &mut Chance,
    done: &mut BTreeMap<&'static str, u64>,
) {
    for _ in 0..1 + chance.below(3) {
        let (name, work) = KINDS[chance.below(KINDS.len())];
        work(bytes, chance);
        *done.entry(name).or_default() += 1;
    }
    if chance.once_in(20) {
        let mut other = Vec::new();
        originals::write(&mut other, style, local, chance);
        let (mine, theirs) = (chance.below(bytes.len() + 1), chance.below(other.len()));
        bytes.truncate(mine);
        bytes.extend_from_slice(&other[theirs..]);
        *done.entry("two in one").or_default() += 1;
    }
    bytes.truncate(DATAGRAM_MAX);
}

fn flip_bits(bytes: &mut [u8], chance: &mut Chance) {
    if bytes.is_empty() {
        return;
    }
    for _ in 0..1 + chance.below(8) {
        let at = chance.below(bytes.len());
        bytes[at] ^= 1 << chance.below(8);
    }
}

fn replace_bytes(bytes: &mut [u8], chance: &mut Chance) {
    if bytes.is_empty() {
        return;
    }
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(bytes.len());
        let marks = b"\r\n\0 \t:;,=<>\"\\@?[]()/%&*.-_~\x7f\x80\xff0";
        bytes[at] = marks[chance.below(marks.len())];
    }
}

fn remove_bytes(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(bytes.len());
    let end = bytes.len().min(at + 1 + chance.below(20));
    bytes.drain(at..end);
}

fn put_in_bytes(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(bytes.len() + 1);
    let what = chance.pick(&[
        &b"\r\n\r\n"[..],
        b"\r\n ",
        b"\n",
        b"\0\0",
        b"\"",
        b"<",
        b";;",
        b",,",
        b"\\\"",
        b"%00",
        b"*",
    ]);
    bytes.splice(at..at, what.iter().copied());
}

fn truncate(bytes: &mut Vec<u8>, chance: &mut Chance) {
    bytes.truncate(chance.below(bytes.len() + 1));
}

/// Where the lines of the head begin and end, the first line and the empty one left out.
fn lines(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(len) = memchr::memmem::find(&bytes[at..], b"\r\n") {
        if len == 0 {
            break;
        }
        if at > 0 {
            found.push((at, at + len + 2));
        }
        at += len + 2;
    }
    found
}

/// A line of the head, if there is any.
fn any_line(bytes: &[u8], chance: &mut Chance) -> Option<(usize, usize)> {
    let lines = lines(bytes);
    (!lines.is_empty()).then(|| lines[chance.below(lines.len())])
}

fn double_lines(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..1 + chance.below(3) {
        let Some((from, to)) = any_line(bytes, chance) else { return };
        let line = bytes[from..to].to_vec();
        let Some((at, _)) = any_line(bytes, chance) else { return };
        bytes.splice(at..at, line);
    }
}

fn reorder_lines(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..1 + chance.below(5) {
        let Some((from, to)) = any_line(bytes, chance) else { return };
        let line: Vec<u8> = bytes.drain(from..to).collect();
        let at = any_line(bytes, chance).map_or(from, |(at, _)| at);
        bytes.splice(at..at, line);
    }
}

/// A line of up to 60 KB.
fn lengthen_line(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let Some((_, to)) = any_line(bytes, chance) else { return };
    let filler = chance.pick(&[
        &b"x"[..],
        b" ",
        b";p=v",
        b",",
        b"(",
        b"\"",
        b"\\",
        b"<",
        b"\r\n ",
        b"%41",
        b"\xf0\x9f\x98\x80",
    ]);
    let times = 1 + chance.up_to(1 << 15) / filler.len();
    bytes.splice(to - 2..to - 2, filler.repeat(times));
}

/// A line as often as fits, or nearly so.
fn repeat_line(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let Some((from, to)) = any_line(bytes, chance) else { return };
    let line = bytes[from..to].to_vec();
    let times = chance.up_to(1 << 11).min(DATAGRAM_MAX / line.len());
    bytes.splice(to..to, line.repeat(times));
}

fn falsify_length(bytes: &mut Vec<u8>, chance: &mut Chance) {
    const NAME: &[u8] = b"Content-Length: ";
    let Some(at) = memchr::memmem::find(bytes, NAME).map(|at| at + NAME.len()) else { return };
    let len = memchr::memchr(b'\r', &bytes[at..]).unwrap_or(0);
    let wrong = chance.pick(&[
        "0",
        "1",
        "99999",
        "-1",
        "4294967296",
        "18446744073709551616",
        "",
        "0x10",
        "1 1",
        "1, 2",
        "1e3",
    ]);
    bytes.splice(at..at + len, wrong.bytes());
}

/// Bytes that are no UTF-8, or too much of it.
fn rubbish(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(bytes.len() + 1);
    let what = chance.pick(&[
        &b"\xc0\x80"[..],
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xff\xfe",
        b"\xe2\x80\xae",
        b"\xef\xbf\xbe",
        b"\xf0\x9f",
        b"\xef\xbb\xbf",
        b"\x1b[2J",
    ]);
    bytes.splice(at..at, what.repeat(1 + chance.below(20)));
}

/// Some number of the head becomes a huge one.
fn huge_number(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let digits: Vec<usize> = (1..bytes.len().min(2_000))
        .filter(|&at| bytes[at].is_ascii_digit() && !bytes[at - 1].is_ascii_digit())
        .collect();
    if digits.is_empty() {
        return;
    }
    let at = digits[chance.below(digits.len())];
    let len = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let huge = chance.pick(&[
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "99999999999999999999",
        "00000000000000000001",
        "-1",
    ]);
    bytes.splice(at..at + len, huge.bytes());
}

/// Compact names, other case, folds and spaces: legal, and seldom met (RFC 3261 §7.3).
fn respell(bytes: &mut Vec<u8>, chance: &mut Chance) {
    const COMPACT: [(&[u8], &[u8]); 8] = [
        (b"\r\nVia: ", b"\r\nv:"),
        (b"\r\nFrom: ", b"\r\nF :"),
        (b"\r\nTo: ", b"\r\nt\t: "),
        (b"\r\nCall-ID: ", b"\r\ni:\r\n "),
        (b"\r\nContact: ", b"\r\nM: \r\n\t"),
        (b"\r\nEvent: ", b"\r\no:"),
        (b"\r\nContent-Length: ", b"\r\nl:   "),
        (b"\r\nContent-Type: ", b"\r\nc:"),
    ];
    for (long, short) in COMPACT {
        if chance.once_in(2)
            && let Some(at) = memchr::memmem::find(bytes, long)
        {
            bytes.splice(at..at + long.len(), short.iter().copied());
        }
    }
}

/// Something within itself, hundreds of times.
fn nest(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let (open, close) =
        [("<a>", "</a>"), ("(", ")"), ("\"<", ">\""), ("<presence>", ""), ("[", "]"), ("%25", "")]
            [chance.below(6)];
    let times = chance.up_to(1 << 12);
    let at = chance.below(bytes.len() + 1);
    bytes.splice(at..at, [open.repeat(times), close.repeat(times)].concat().into_bytes());
}

/// A PUBLISH with a document that no reader should like.
fn hostile_document(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return };
    let root = "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:x@y\"";
    let times = chance.up_to(1 << 11);
    let document = match chance.below(8) {
        0 => "<!DOCTYPE p [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]><p>&b;</p>"
            .to_owned(),
        1 => format!("<!DOCTYPE p SYSTEM \"file:///etc/passwd\">{root}/>"),
        2 => format!("{root}>{}", "<tuple id=\"a\">".repeat(times)),
        3 => format!(
            "{root}{}/>",
            (0..times).map(|it| format!(" xmlns:n{it}=\"urn:{it}\"")).collect::<String>()
        ),
        4 => format!("{root}{}/>", " a=\"1\"".repeat(times)),
        5 => format!(
            "{root}>{}</presence>",
            "<tuple id=\"a\"><status><basic>open</basic></status></tuple>".repeat(times)
        ),
        6 => format!(
            "{root}>{}</presence>",
            "<note>&#x10ffff;&#0;<![CDATA[]]]]><![CDATA[>]]></note>".repeat(times)
        ),
        _ => format!("{root}>{}</presence>", "<!--".repeat(times)),
    };
    bytes.truncate(end + 4);
    bytes.extend_from_slice(document.as_bytes());
    // Half of them say how long they are, so that they are read.
    if chance.once_in(2) {
        const NAME: &[u8] = b"Content-Length: ";
        if let Some(at) = memchr::memmem::find(bytes, NAME).map(|at| at + NAME.len()) {
            let len = memchr::memchr(b'\r', &bytes[at..]).unwrap_or(0);
            bytes.splice(at..at + len, document.len().to_string().into_bytes());
        }
    }
}

/// What other protocols send, or nobody.
fn no_sip(bytes: &mut Vec<u8>, chance: &mut Chance) {
    bytes.clear();
    match chance.below(8) {
        0 => {}
        1 => bytes.extend_from_slice(b"\r\n\r\n"),
        2 => bytes.extend_from_slice(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        3 => bytes.extend_from_slice(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        4 => bytes.extend_from_slice(
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03",
        ),
        5 => bytes.extend_from_slice(b"\x00\x01\x00\x00\x21\x12\xa4\x42"),
        6 => bytes.resize(chance.below(DATAGRAM_MAX), 0),
        _ => {
            let len = chance.below(1_500);
            bytes.extend((0..len).map(|_| chance.next() as u8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::support::style;

    fn datagrams(seed: u64, count: usize) -> (Vec<Vec<u8>>, BTreeMap<&'static str, u64>) {
        let (mut chance, mut done) = (Chance::new(seed), BTreeMap::new());
        let all = (0..count).map(|_| {
            let mut bytes = Vec::new();
            originals::write(&mut bytes, &style(), "192.0.2.1:5060", &mut chance);
            damage(&mut bytes, &style(), "192.0.2.1:5060", &mut chance, &mut done);
            bytes
        });
        (all.collect(), done)
    }

    #[test]
    fn originals_are_well_formed() {
        let mut chance = Chance::new(5);
        for _ in 0..2_000 {
            let mut bytes = Vec::new();
            originals::write(&mut bytes, &style(), "192.0.2.1:5060", &mut chance);
            assert!(comsipl_core::msg::parse(&bytes).is_ok(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_seed_makes_the_same_datagrams_and_all_kinds_of_damage() {
        let (all, done) = datagrams(7, 5_000);
        assert_eq!(all, datagrams(7, 5_000).0);
        assert_ne!(all, datagrams(8, 5_000).0);
        assert_eq!(done.len(), KINDS.len() + 1);
        assert!(all.iter().all(|bytes| bytes.len() <= DATAGRAM_MAX));
        // Damage must leave enough whole for what is behind the parser to be reached.
        let whole = all.iter().filter(|bytes| comsipl_core::msg::parse(bytes).is_ok()).count();
        assert!((500..4_000).contains(&whole), "{whole}");
    }
}
