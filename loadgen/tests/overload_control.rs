//! A run as a proxy that takes part in overload control (RFC 7339), against a server that says how much less it wants.

use clap::Parser as _;
use comsipl_loadgen::cli::Cli;
use comsipl_loadgen::report::Report;
use comsipl_loadgen::run;
use std::net::UdpSocket;
use std::thread;

/// Runs a command line against a server that accepts everything and tells `word` to those who take part.
fn measure(word: &'static str, line: &str) -> Report {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = socket.local_addr().unwrap().to_string();
    let server = socket.try_clone().unwrap();
    // It ends with the test, as nobody sends to it any more.
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, source)) = server.recv_from(&mut buffer) {
            let request = std::str::from_utf8(&buffer[..len]).unwrap();
            server.send_to(accept(request, word).as_bytes(), source).unwrap();
        }
    });
    let words = ["comsipl-loadgen"].into_iter().chain(line.split_whitespace());
    run::run(&Cli::parse_from(words.chain(["--target", &target, "--quiet"])).command).unwrap()
}

/// A 200 to a request.
fn accept(request: &str, word: &str) -> String {
    let mut answer = String::from("SIP/2.0 200 OK\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        if ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name)) {
            answer += &line.replace(OFFER, word);
            answer += "\r\n";
        }
    }
    answer + "Content-Length: 0\r\n\r\n"
}

/// What a client writes that takes part.
const OFFER: &str = ";oc;oc-algo=\"loss\"";

/// One request after the other.
const REGISTERS: &str = "register --users 50 --window 1 --behind-proxy --overload-control";

#[test]
fn nothing_is_sent_to_a_server_that_wants_nothing() {
    let report = measure(";oc=100;oc-algo=\"loss\";oc-validity=3600000;oc-seq=1.0", REGISTERS);
    let total = report.total;
    assert_eq!((total.requests_sent, total.registered), (1, 1), "before the server had said anything");
    assert_eq!((total.withheld, total.refused), (49 + 1, 50), "the others, and the end of the one binding");
    assert!(!report.passed, "they are refused to their phones");
    let classes = report.phases.iter().flat_map(|phase| &phase.classes);
    let of_class: Vec<_> = classes.map(|row| (row.offered, row.withheld, row.refused)).collect();
    assert_eq!(of_class, [(50, 49, 49)], "in the phase that is measured");
}

#[test]
fn everything_is_sent_to_a_server_that_has_time_or_does_not_take_part() {
    for word in [";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1.0", OFFER] {
        let report = measure(word, REGISTERS);
        assert!(report.passed, "{report}");
        assert_eq!((report.total.requests_sent, report.total.withheld), (100, 0));
    }
}
