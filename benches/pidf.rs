//! What does it cost to check a published presence document, and to compose those of one and of three devices?
//!
//! `publish` is what a PUBLISH of a user with one device takes: the document is read once, and composed of what was read.
//!
//! The documents are what phones send: a plain one of Linphone (489 bytes) and one with rich presence.

use std::hint::black_box;

use comsipl_core::pidf::{Basic, Composer, Published, check, write_bare};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const LINPHONE: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<presence xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" ",
    "xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" ",
    "xmlns:pidfonline=\"http://www.linphone.org/xsds/pidfonline.xsd\" ",
    "entity=\"sip:51234@10.0.0.27\" xmlns=\"urn:ietf:params:xml:ns:pidf\">\n",
    " <tuple id=\"n5z2og\">\n  <status>\n   <basic>open</basic>\n   <pidfonline:online/>\n  </status>\n",
    "  <contact priority=\"0.8\">sip:51234@10.0.0.27</contact>\n",
    "  <timestamp>2023-12-17T16:45:04Z</timestamp>\n </tuple>\n</presence>\n",
);

const RICH: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" ",
    "xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" entity=\"sip:51234@10.0.0.27\">",
    "<tuple id=\"n5z2og\"><status><basic>closed</basic></status>",
    "<contact>sip:51234@10.0.0.27</contact><note xml:lang=\"en\">In a meeting</note></tuple>",
    "<dm:person id=\"p1\"><rpid:activities><rpid:meeting/></rpid:activities>",
    "<dm:note>Back at five</dm:note><dm:timestamp>2026-01-01T10:00:00Z</dm:timestamp></dm:person>",
    "<dm:device id=\"d1\"><dm:deviceID>urn:uuid:48662e19</dm:deviceID></dm:device></presence>",
);

/// The publications of the devices whose documents are `bodies`.
fn published<'a>(bodies: &[&'a str]) -> Vec<Published<'a>> {
    let number = |(body, number): (&&'a str, u64)| Published {
        number,
        published_at_ms: number,
        body: body.as_bytes(),
    };
    bodies.iter().zip(1..).map(number).collect()
}

fn pidf(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pidf");
    group.throughput(Throughput::Bytes(LINPHONE.len() as u64));
    group.bench_function("check", |bencher| bencher.iter(|| check(black_box(LINPHONE.as_bytes()))));
    let mut composer = Composer::default();
    group.bench_function("read", |bencher| bencher.iter(|| composer.read(black_box(LINPHONE.as_bytes()))));
    let (mut out, mut note) = (Vec::new(), Vec::new());
    for (name, body) in [("publish", LINPHONE), ("publish rich", RICH)] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                composer.read(black_box(body.as_bytes())).expect("a legal document");
                composer.keep(1, 1);
                composer.finish(b"51234@10.0.0.27", &mut out, &mut note)
            });
        });
    }
    for (name, bodies) in [
        ("compose 1 device", &[LINPHONE][..]),
        ("compose 1 rich device", &[RICH]),
        ("compose 3 devices", &[LINPHONE, RICH, LINPHONE]),
    ] {
        let published = published(bodies);
        group.throughput(Throughput::Bytes(bodies.iter().map(|body| body.len() as u64).sum()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| composer.compose(b"51234@10.0.0.27", black_box(&published), &mut out, &mut note));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("write bare", |bencher| {
        bencher.iter(|| write_bare(black_box(b"51234@10.0.0.27"), Basic::Open, &mut out));
    });
    group.finish();
}

criterion_group!(benches, pidf);
criterion_main!(benches);
