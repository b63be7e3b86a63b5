//! What is legal is read.

use comsipl_core::aor::Aor;
use comsipl_core::header::{HeaderName, unquote_into};
use comsipl_core::msg::{Contact, Method, Start, peek};
use comsipl_core::uri::{Scheme, Uri};

use super::speech::{base, read, response, wire, with};

/// RFC 4475 §3.1.1.1: every liberty of the grammar with white space, case, folds and compact forms at once.
#[test]
fn white_space_and_folds_everywhere() {
    let bytes = wire(
        "SUBSCRIBE sip:carla@desk.example.net;colour SIP/2.0
T :
\tsip:carla@desk.example.net ;   tag   =   t0
fROM   : \"Dora \\\"D\\\\\"   <sip:dora@example.org>
  ;
  tag = f0
mAX-fORWARDS: 0068
Call-Id: odd@192.0.2.40
Content-Length   : 4
cseq: 0009
  SUBSCRIBE
VIA  : SIP  /   2.0
 /UDP
    192.0.2.40;branch=plain
s :
Of-Tomorrow:   first half
 second half
Unread: ;;,,;;,;
o: presence
 ;id = 9
Route:
 <sip:edge.example.net;lr;depth=2;flag>
v:  SIP  / 2.0  / TCP     edge.example.net   ;
  branch  =   z9hG4bKtwo  ,
 SIP  /    2.0   / UDP  10.9.8.7   ; branch=
 z9hG4bKthree
m:\"<sip:not@this>\\\"\" <sip:dora@example.org> ; colour =
      green ;
  flag ; q = 0.33

body",
    );
    let message = read(&bytes);
    assert_eq!(message.method(), Some(Method::Subscribe));
    assert_eq!(message.to().uri(), b"sip:carla@desk.example.net");
    assert_eq!(message.to().tag(), Some(&b"t0"[..]));
    assert_eq!(message.from().tag(), Some(&b"f0"[..]));
    let mut name = Vec::new();
    unquote_into(message.from().display(), &mut name);
    assert_eq!(name, b"Dora \"D\\");
    assert_eq!(message.max_forwards(), Some(68));
    assert_eq!(message.cseq().number, 9);
    assert_eq!(message.content_length(), Some(4));
    assert_eq!(message.body(), b"body");
    assert_eq!((message.via().transport(), message.via().host()), (&b"UDP"[..], &b"192.0.2.40"[..]));
    let branches: Vec<_> = message.vias().map(|via| via.unwrap().branch().unwrap()).collect();
    assert_eq!(branches, [&b"plain"[..], b"z9hG4bKtwo", b"z9hG4bKthree"]);
    assert_eq!((message.via_count(), message.via_lines().count()), (3, 2));
    assert_eq!(message.event().unwrap().id(), Some(&b"9"[..]));
    assert_eq!(message.header("Subject"), Some(&b""[..]));
    assert_eq!(message.header("of-tomorrow").unwrap(), b"first half\r\n second half");
    let route = message.routes().next().unwrap().unwrap();
    assert!(Uri::parse(route.uri()).unwrap().lr());
    let contact = message.contacts().next().unwrap().unwrap();
    assert_eq!(contact.q(), Some(330));
    assert_eq!(contact.param("colour"), Some(Some(&b"green"[..])));
    assert_eq!(message.headers().count(), 14);
}

/// RFC 4475 §3.1.1.2: all characters a token, a user part and a quoted string may hold. We refuse the escaped NUL of that
/// section, as a NUL in a head helps nobody but an attacker; other escaped control characters pass.
#[test]
fn the_whole_range_of_valid_characters() {
    let method = "A-b.C!d%e*f_g+h`i'j~0987";
    let bytes = base()
        .replace(
            "OPTIONS sip:bob@example.net",
            &format!("{method} sip:Q-r_s.t!u~v*w'x(y)z&=+$,;?/0:p-W_.!~*'()&=+$,@example.com"),
        )
        .replace("1 OPTIONS", &format!("1 {method}"))
        .replace("To: <", "To: \"ding\\\u{7} gone\\\u{7f}\" <")
        .replace("From: <", "From: one~` two'+_ three*%!.- <");
    let bytes = wire(&bytes);
    let message = read(&bytes);
    assert_eq!(message.method(), Some(Method::Other));
    assert_eq!(message.cseq().method_text, method.as_bytes());
    let uri = Uri::parse(message.request_uri()).unwrap();
    assert_eq!(uri.user, Some(&b"Q-r_s.t!u~v*w'x(y)z&=+$,;?/0"[..]));
    assert_eq!(uri.password, Some(&b"p-W_.!~*'()&=+$,"[..]));
    assert_eq!(message.from().display(), b"one~` two'+_ three*%!.-");
    assert_eq!(message.to().display(), b"\"ding\\\x07 gone\\\x7f\"");
}

/// RFC 4475 §3.1.1.3: an escaped `@` and `:` in the user part belong to the user.
#[test]
fn escaped_reserved_characters_stay_in_the_user_part() {
    let bytes = wire(&base().replace("sip:bob@example.net SIP", "sip:tel%3A5%40pbx@example.net SIP"));
    let uri = Uri::parse(read(&bytes).request_uri()).unwrap();
    assert_eq!(uri.scheme, Scheme::Sip);
    assert_eq!(Aor::of(&uri).unwrap().as_str(), "tel%3A5%40pbx@example.net");
}

/// RFC 4475 §3.1.1.4: an escaped NUL is a character of the user part like any other, and stays escaped.
#[test]
fn escaped_nulls_do_not_end_a_name() {
    let bytes = wire(&base().replace("<sip:bob@", "<sip:a%00z@"));
    let uri = Uri::parse(read(&bytes).to().uri()).unwrap();
    assert_eq!(Aor::of(&uri).unwrap().as_str(), "a%00z@example.net");
    assert!(!uri.matches(&Uri::parse(b"sip:a@example.net").unwrap()));
}

/// RFC 4475 §3.1.1.5: `%` in a method is no escape.
#[test]
fn methods_are_not_unescaped() {
    let bytes = wire(&base().replace("OPTIONS", "%4FPT%49ONS"));
    let message = read(&bytes);
    assert_eq!(message.method(), Some(Method::Other));
    assert_eq!(message.cseq().method_text, b"%4FPT%49ONS");
}

/// RFC 4475 §3.1.1.6: no white space between display name and angle bracket.
#[test]
fn a_display_name_may_touch_its_bracket() {
    let bytes = wire(&base().replace("From: <", "From: caller<").replace("To: <", "To: \"Bob\"<"));
    let message = read(&bytes);
    assert_eq!((message.from().display(), message.to().display()), (&b"caller"[..], &b"\"Bob\""[..]));
    assert_eq!(message.from().uri(), b"sip:alice@example.org");
}

/// RFC 4475 §3.1.1.7: long values, names and lists.
#[test]
fn long_values_are_read() {
    let long = "x".repeat(3000);
    let vias =
        (0..33).map(|i| format!("Via: SIP/2.0/UDP h{i}.example;branch=z9hG4bK{i}\n")).collect::<String>();
    let text = base()
        .replace("Max-Forwards", &format!("{vias}Unknown-{}: {long}\nMax-Forwards", &long[..200]))
        .replace("tag=f1", &format!("tag=f{long};unknown{long}"))
        .replace("To: <", &format!("To: \"{long}\" <"));
    let bytes = wire(&text);
    let message = read(&bytes);
    assert_eq!(message.via_count(), 34);
    assert_eq!(message.from().tag().unwrap().len(), 3001);
    assert_eq!(message.to().display().len(), 3002);
}

/// RFC 4475 §3.1.1.8: what follows the body in a datagram is not ours to read.
#[test]
fn bytes_behind_the_body_are_ignored() {
    let bytes = wire(&format!("{}MESSAGE sip:next@example.com SIP/2.0\n\n", base()));
    let message = read(&bytes);
    assert_eq!((message.method(), message.body()), (Some(Method::Options), &b""[..]));
}

/// RFC 4475 §3.1.1.9: semicolons in the user part begin no parameters.
#[test]
fn semicolons_in_the_user_part_belong_to_the_user() {
    let bytes = wire(&base().replace("sip:bob@example.net SIP", "sip:desk;room=7%40hq@example.com SIP"));
    let uri = Uri::parse(read(&bytes).request_uri()).unwrap();
    assert_eq!(uri.user, Some(&b"desk;room=7%40hq"[..]));
    assert!(uri.params.is_empty());
}

/// RFC 4475 §3.1.1.10: Vias of transports we do not speak.
#[test]
fn unknown_transports_are_read() {
    let bytes = wire(&base().replace(
        "Max-Forwards",
        "Via: SIP/2.0/SCTP a.example;branch=z9hG4bK1\nVia: SIP/2.0/PIGEON b.example:99;branch=z9hG4bK5\n\
         Via: SIP/2.0/TLS c.example;branch=z9hG4bK3\nMax-Forwards",
    ));
    let message = read(&bytes);
    let transports: Vec<_> = message.vias().map(|via| via.unwrap().transport()).collect();
    assert_eq!(transports, [&b"UDP"[..], b"SCTP", b"PIGEON", b"TLS"]);
}

/// RFC 4475 §3.1.1.11: a body may hold any bytes, NUL and line breaks among them.
#[test]
fn bodies_are_not_looked_into() {
    let mut bytes =
        wire(&base().replace("Content-Length: 0", "Content-Type: multipart/mixed;boundary=7a\nl: 8"));
    bytes.extend_from_slice(b"\0\r\n\n\r\xff\r\nrest");
    let message = read(&bytes);
    assert_eq!(message.body(), b"\0\r\n\n\r\xff\r\n");
    assert_eq!(message.content_type().unwrap().param("boundary"), Some(&b"7a"[..]));
}

/// RFC 4475 §3.1.1.12: a reason phrase in UTF-8 with odd characters.
#[test]
fn reason_phrases_may_be_any_text() {
    let bytes = wire(&response("200 Всё хорошо: 好 / 100 %"));
    let message = read(&bytes);
    assert_eq!(message.status(), Some(200));
    assert!(
        matches!(message.start(), Start::Response { reason, .. } if reason.ends_with("100 %".as_bytes()))
    );
}

/// RFC 4475 §3.1.1.13: no reason phrase; the space in front of it is there, or left out by some.
#[test]
fn reason_phrases_may_be_empty() {
    for line in ["100 ", "100"] {
        let bytes = wire(&response(line));
        assert_eq!(read(&bytes).start(), Start::Response { code: 100, reason: b"" });
    }
}

/// RFC 4475 §3.1.2.11: a Request-URI with escaped headers is well-formed; what it asks for is another matter.
#[test]
fn headers_in_the_request_uri_are_seen() {
    let bytes =
        wire(&base().replace("sip:bob@example.net SIP", "sip:bob@example.net?Subject=%C3%BC%20x SIP"));
    assert_eq!(Uri::parse(read(&bytes).request_uri()).unwrap().headers, Some(&b"Subject=%C3%BC%20x"[..]));
}

/// RFC 4475 §3.1.2.12: a Date in a wrong zone; we do not read it, so it does no harm.
#[test]
fn headers_we_do_not_use_may_be_wrong() {
    let bytes = wire(&with("Date: Mon, 31 Feb 2028 25:00:00 CET\nWarning: not a warning"));
    assert_eq!(read(&bytes).header("date"), Some(&b"Mon, 31 Feb 2028 25:00:00 CET"[..]));
}

/// RFC 4475 §3.1.2.13: a contact with `?` outside angle brackets is malformed, and only that contact.
#[test]
fn a_malformed_contact_is_refused_alone() {
    let bytes = wire(&with("Contact: sip:a@example.com?Priority=high, <sip:b@example.com>"));
    let message = read(&bytes);
    let contacts: Vec<_> = message.contacts().map(|contact| contact.is_ok()).collect();
    assert_eq!(contacts, [false, true]);
}

/// RFC 4475 §3.2.1: the magic cookie and nothing behind it is a branch that tells nothing apart, yet well-formed.
#[test]
fn a_branch_may_be_the_magic_cookie_alone() {
    let bytes = wire(&base().replace("z9hG4bKtort", "z9hG4bK"));
    assert_eq!(read(&bytes).via().branch(), Some(&b"z9hG4bK"[..]));
}

/// RFC 4475 §3.3.2 and §3.3.3: schemes nobody knows.
#[test]
fn unknown_schemes_are_read_and_named() {
    for uri in ["carrier-pigeon:loft-9/coop", "x.y+z://192.0.2.60:8"] {
        let bytes = wire(&base().replace("sip:bob@example.net SIP", &format!("{uri} SIP")));
        let uri = Uri::parse(read(&bytes).request_uri()).unwrap();
        assert_eq!(uri.scheme, Scheme::Other);
        assert!(Aor::of(&uri).is_err());
    }
}

/// RFC 4475 §3.3.4: unknown schemes in From, To and Contact.
#[test]
fn unknown_schemes_in_headers_are_read() {
    let bytes = wire(
        &with("Contact: <badge:0017>")
            .replace("To: <sip:bob@example.net>", "To: <shelf:A-12>")
            .replace("From: <sip:alice@example.org>", "From: <http://blog.example/me>"),
    );
    let message = read(&bytes);
    assert_eq!(
        (message.to().uri(), message.from().uri()),
        (&b"shelf:A-12"[..], &b"http://blog.example/me"[..])
    );
    assert_eq!(message.contacts().next().unwrap().unwrap().uri(), Some(&b"badge:0017"[..]));
}

/// RFC 4475 §3.3.5: option tags over lines and commas.
#[test]
fn option_tags_are_listed() {
    let bytes = wire(&with(
        "Require: fly, hover\nRequire: third\nProxy-Require: float\n\
         k: PATH, ,eventlist",
    ));
    let message = read(&bytes);
    let require: Vec<_> = message.require().collect();
    assert_eq!(require, [&b"fly"[..], b"hover", b"third"]);
    assert_eq!(message.proxy_require().count(), 1);
    assert!(message.supported("path") && message.supported("eventlist") && !message.supported(""));
}

/// RFC 4475 §3.3.6: an unknown Content-Type.
#[test]
fn unknown_media_types_are_read() {
    let bytes = wire(&with("Content-Type: application/hieroglyphs\nContent-Encoding: gzip , deflate"));
    let message = read(&bytes);
    assert!(message.content_type().unwrap().is("Application/Hieroglyphs"));
    assert_eq!(message.content_encoding().collect::<Vec<_>>(), [&b"gzip"[..], b"deflate"]);
}

/// RFC 4475 §3.3.7: an unknown authorization scheme; commas in it separate parameters, not values.
#[test]
fn unknown_authorization_is_kept_whole() {
    let bytes = wire(&with("Authorization: Handshake grip=firm, more=\"a,b\""));
    assert_eq!(
        read(&bytes).first(HeaderName::Authorization),
        Some(&b"Handshake grip=firm, more=\"a,b\""[..])
    );
}

/// RFC 4475 §3.3.11: no hops left is for the server to refuse, not for the parser.
#[test]
fn max_forwards_may_be_zero() {
    let bytes = wire(&base().replace("Max-Forwards: 70", "Max-Forwards: 0"));
    assert_eq!(read(&bytes).max_forwards(), Some(0));
}

/// RFC 4475 §3.3.12, §3.3.13: a parameter of the contact is not one of its URI.
#[test]
fn contact_and_uri_parameters_are_kept_apart() {
    let bytes = wire(&with("Contact: sip:a@192.0.2.1;colour\nm: <sip:b@192.0.2.1;colour>, *"));
    let message = read(&bytes);
    let contacts: Vec<_> = message.contacts().map(Result::unwrap).collect();
    assert_eq!(contacts[0].param("colour"), Some(None));
    assert_eq!(contacts[0].uri(), Some(&b"sip:a@192.0.2.1"[..]));
    assert_eq!(contacts[1].param("colour"), None);
    assert!(Uri::parse(contacts[1].uri().unwrap()).unwrap().params.has("colour"));
    assert_eq!(contacts[2], Contact::Star);
}

/// RFC 4475 §3.3.14: escaped headers in a contact.
#[test]
fn headers_in_a_contact_are_kept() {
    let bytes = wire(&with("Contact: <sip:a@example.com?Priority=high>"));
    let contact = read(&bytes).contacts().next().unwrap().unwrap();
    assert_eq!(Uri::parse(contact.uri().unwrap()).unwrap().headers, Some(&b"Priority=high"[..]));
}

/// RFC 4475 §3.3.15: an Accept that does not name what we could send; RFC 3261 §20.1: an empty one accepts nothing.
#[test]
fn accept_tells_what_is_wanted() {
    let accept = |value: &str| {
        let bytes = wire(&with(value));
        let message = read(&bytes);
        (message.accept().is_present(), message.accept().allows("application/pidf+xml"))
    };
    assert_eq!(accept("X-None: x"), (false, false));
    assert_eq!(accept("Accept: text/x-runes"), (true, false));
    assert_eq!(accept("Accept:"), (true, false));
    assert_eq!(accept("Accept: text/plain, Application/PIDF+XML;q=0.1"), (true, true));
    assert_eq!(accept("Accept: */*, application/pidf+xml;q=0"), (true, false));
    assert_eq!(accept("Accept: text/plain\nAccept: application/*;q=0.5"), (true, true));
    assert_eq!(accept("Accept: application/*;q=0.0, */*"), (true, false));
}

/// RFC 4475 §3.4.1: a client of RFC 2543: no branch, no From tag, parameters outside brackets.
#[test]
fn clients_of_the_old_standard_are_read() {
    let bytes = wire(
        &base()
            .replace(";branch=z9hG4bKtort", "")
            .replace("From: <sip:alice@example.org>;tag=f1", "From: sip:alice@example.org;user=phone"),
    );
    let message = read(&bytes);
    assert_eq!((message.via().branch(), message.from().tag()), (None, None));
    assert_eq!(message.from().uri(), b"sip:alice@example.org");
}

/// RFC 5118 §4.1, §4.4: IPv6 references wherever a host may stand.
#[test]
fn ipv6_references_are_read_everywhere() {
    let bytes = wire(
        &with("Contact: \"Caller\" <sip:caller@[2001:db8::1]:5070>")
            .replace("sip:bob@example.net SIP", "sip:[2001:db8::10]:5070 SIP")
            .replace("UDP 192.0.2.7:5060", "UDP [2001:db8::77]:5090"),
    );
    let message = read(&bytes);
    let uri = Uri::parse(message.request_uri()).unwrap();
    assert_eq!(uri.socket_addr(), Some("[2001:db8::10]:5070".parse().unwrap()));
    assert_eq!((message.via().host(), message.via().port()), (&b"[2001:db8::77]"[..], Some(5090)));
}

/// RFC 5118 §4.3: `[2001:db8::10:5070]` without a port is an address whose last group is 5070.
#[test]
fn an_ambiguous_port_is_part_of_the_address() {
    let uri = Uri::parse(b"sip:[2001:db8::10:5070]").unwrap();
    assert_eq!(uri.port, None);
    assert_eq!(uri.socket_addr(), Some("[2001:db8::10:5070]:5060".parse().unwrap()));
}

/// RFC 5118 §4.5: `received` with and without brackets.
#[test]
fn received_may_have_brackets_or_not() {
    for received in ["2001:db8::9:255", "[2001:db8::9:255]"] {
        let bytes = wire(&base().replace(";branch", &format!(";received={received};branch")));
        assert_eq!(read(&bytes).via().received(), Some(received.as_bytes()));
    }
}

/// RFC 5118 §4.9: an IPv4 address inside an IPv6 one.
#[test]
fn mapped_addresses_are_read() {
    let uri = Uri::parse(b"sip:user@[::ffff:192.0.2.10]:19823").unwrap();
    assert_eq!(uri.socket_addr(), Some("[::ffff:192.0.2.10]:19823".parse().unwrap()));
}

/// RFC 3261 §7.5: line breaks in front of the start line are skipped.
#[test]
fn line_breaks_in_front_are_skipped() {
    let bytes = [b"\r\n\r\n".to_vec(), wire(&base())].concat();
    assert_eq!(read(&bytes).method(), Some(Method::Options));
    assert_eq!(peek::peek_request(&bytes), Some((Method::Options, &b"sip:bob@example.net"[..])));
}

/// RFC 3261 §18.3: without Content-Length the body of a datagram is its rest.
#[test]
fn the_body_without_content_length_is_the_rest() {
    let bytes = wire(&format!("{}a\nb", base().replace("Content-Length: 0\n", "")));
    let message = read(&bytes);
    assert_eq!((message.content_length(), message.body()), (None, &b"a\r\nb"[..]));
}

/// RFC 3261 §7.3.3: a message in compact forms only.
#[test]
fn compact_forms_are_the_same_headers() {
    let bytes = wire(
        "PUBLISH sip:a@h SIP/2.0\nv: SIP/2.0/UDP h;branch=z9\nf: <sip:a@h>;tag=1\nt: <sip:a@h>\ni: c\nCSeq: 1 PUBLISH\n\
         o: presence\nc: application/pidf+xml\ne: deflate\nk: path\nm: <sip:a@h>\nu: presence\ns: x\nl: 0\n\n",
    );
    let message = read(&bytes);
    assert!(message.event().unwrap().is("presence"));
    assert!(message.content_type().unwrap().is("application/pidf+xml"));
    assert!(message.supported("path"));
    assert_eq!(message.header("Content-Encoding"), message.header("E"));
    assert_eq!(message.allow_events().next(), Some(&b"presence"[..]));
    assert_eq!(message.call_id(), b"c");
}

/// RFC 3261 §25.1 `quoted-string`: separators in a display name separate nothing, and it need not be UTF-8.
#[test]
fn display_names_hide_nothing() {
    let mut bytes =
        wire(&with("Contact: \"a, <sip:x@h>;expires=1\" <sip:a@h>;expires=2, \"b\\\\\" <sip:b@h>"));
    let at = bytes.windows(4).position(|four| four == b"To: ").unwrap() + 4;
    bytes.splice(at..at, *b"\"\xff;tag=no\\\"\xfe\" ");
    let message = read(&bytes);
    assert_eq!(message.to().tag(), None);
    assert_eq!(message.to().uri(), b"sip:bob@example.net");
    let expires: Vec<_> = message.contacts().map(|contact| contact.unwrap().expires()).collect();
    assert_eq!(expires, [Some(Ok(2)), None]);
}

/// RFC 3261 §20.14: Content-Lengths that agree do no harm.
#[test]
fn equal_content_lengths_are_let_pass() {
    let bytes = wire(&with("l: 00"));
    assert_eq!(read(&bytes).content_length(), Some(0));
}

/// RFC 3261 §20.19: Expires beyond 2^32-1 saturates; RFC 4475 §3.1.2.4 puts one into a request.
#[test]
fn overlarge_expires_saturates() {
    let bytes = wire(&with("Expires: 99999999999999999999"));
    assert_eq!(read(&bytes).expires(), Some(Ok(u32::MAX)));
    let bytes = wire(&with("Expires: 10 minutes"));
    assert!(read(&bytes).expires().unwrap().is_err());
}
