//! How long does it take to write a message: the head of a NOTIFY, and the answer to a request?

use std::hint::black_box;

use comsipl_benches::{message, phone, subscribe};
use comsipl_core::event::Capitals;
use comsipl_core::msg::{parse, respond};
use comsipl_core::{Content, NotifyHead, Padding, Profile, Run, SubscriptionStatus};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, notify, answer);
criterion_main!(benches);

/// A NOTIFY in both looks, and behind a proxy.
fn notify(c: &mut Criterion) {
    let mut group = c.benchmark_group("build/notify");
    let through_proxy = NotifyHead { route_set: b"<sip:127.0.0.9:5060;lr>", ..HEAD };
    let mut out = Vec::with_capacity(2048);
    for (name, head, profile) in [
        ("rfc", &HEAD, Profile::Rfc),
        ("rfc, one route", &through_proxy, Profile::Rfc),
        ("comsipl", &HEAD, Profile::Comsipl),
    ] {
        out.clear();
        head.write(profile, &mut out);
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                black_box(head).write(profile, &mut out)
            });
        });
    }
    group.finish();
}

/// 200 to a SUBSCRIBE, from a phone and through a proxy.
fn answer(c: &mut Criterion) {
    let mut group = c.benchmark_group("build/answer");
    let direct = subscribe(1, 1, 1, None);
    let proxied = message::by_proxy(&direct);
    let mut out = Vec::with_capacity(2048);
    for (name, request) in [("200", &direct), ("200, two Vias", &proxied)] {
        let request = parse(request).expect("well-formed");
        let mut write = || {
            out.clear();
            respond(&mut out, black_box(&request), 200, "OK", Some(b"c0mS1pL7a9"), phone(1))
                .header("Contact", b"<sip:127.0.0.1:5060>")
                .number("Expires", 3600)
                .content_length(0)
                .end();
            out.len()
        };
        group.throughput(Throughput::Bytes(write() as u64));
        group.bench_function(name, |b| b.iter(&mut write));
    }
    group.finish();
}

/// What a NOTIFY to a Linphone says.
const HEAD: NotifyHead<'static> = NotifyHead {
    aor: b"user7@example.com",
    remote_target: b"sip:watcher1@127.0.0.1:10001;transport=udp",
    route_set: b"",
    sent_by: b"127.0.0.1:5060",
    contact_address: b"127.0.0.1:5060",
    contact_params: b";gr=",
    transport: "UDP",
    branch: b"z9hG4bK-07f3a1c95b20de84-0c3a-9f51",
    local_uri: b"",
    local_tag: b"c0mS1pL7a9",
    remote_uri: b"sip:watcher1@example.com",
    remote_tag: b"HBXjpj6ITa",
    call_id: b"R3BFg0WqhB-7741@192.168.1.141",
    cseq: 4711,
    event: "presence",
    capitals: Capitals(0),
    event_id: b"",
    status: SubscriptionStatus::Active { expires_secs: 3541 },
    content: Some(Content { kind: "application/pidf+xml", opening: None, len: 489 }),
    padding: Padding::Fit(Run { count: 0, len: 0 }),
};
