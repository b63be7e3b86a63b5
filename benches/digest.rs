//! What does it cost to challenge somebody, to check credentials, and to use a nonce count?

use std::hint::black_box;
use std::time::Duration;

use comsipl_core::auth::{Algorithm, Credentials, Nonce, Nonces};
use comsipl_core::{HashKey, Mono};
use criterion::{Criterion, criterion_group, criterion_main};

const REALM: &[u8] = b"example.com";

fn digest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("digest");
    let nonces = Nonces::new(HashKey([1, 2]), [3; 32], Duration::from_secs(300), 1 << 16);
    let now = Mono(1_000_000);
    group.bench_function("issue", |bencher| bencher.iter(|| nonces.issue(now, black_box(7), REALM, None)));
    let nonce = nonces.issue(now, 7, REALM, None);
    for (name, algorithm) in [("check-sha-256", Algorithm::Sha256), ("check-md5", Algorithm::Md5)] {
        let secret = algorithm.secret(b"alice", REALM, b"secret");
        let value = format!(
            "Digest username=\"alice\", realm=\"example.com\", nonce=\"{}\", uri=\"sip:example.com\", \
             response=\"{}\", algorithm={}, cnonce=\"0a4f113b\", nc=00000001, qop=auth",
            String::from_utf8_lossy(&nonce),
            "0".repeat(2 * secret.as_bytes().len()),
            algorithm.token()
        );
        // Wrong credentials cost what right ones do.
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let credentials = Credentials::parse(black_box(value.as_bytes())).expect("well-formed");
                let protection = credentials.protection.expect("with qop");
                let fresh = matches!(nonces.examine(now, credentials.nonce, REALM, None), Nonce::Fresh(_));
                fresh && credentials.prove(&protection, algorithm, &secret, b"REGISTER")
            });
        });
    }
    let Nonce::Fresh(id) = nonces.examine(now, &nonce, REALM, None) else { return };
    let mut count = 0;
    group.bench_function("spend", |bencher| {
        bencher.iter(|| {
            count = count % 4000 + 1;
            nonces.spend(id, black_box(count))
        });
    });
    group.finish();
}

criterion_group!(benches, digest);
criterion_main!(benches);
