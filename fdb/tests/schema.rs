//! Records of every kind go into a file and come out as they were, also for another process.

use std::net::IpAddr;

use comsipl_fdb::schema::{
    AnyRecord, Binding, DecodeError, Flow, Presentity, Publication, Schema, Subscription, User,
};
use comsipl_fdb::{Fdb, FileKind, Kind, OpenOptions, ReadError, RecordBuf, RecordId, inspect};
use proptest::prelude::*;

const OPTIONS: OpenOptions = OpenOptions { records_max: 2048, threads: 1, hash_key: None };

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..60),
        1 => prop::collection::vec(any::<u8>(), 250..300),
    ]
}

fn texts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(text(), 9)
}

fn flow() -> impl Strategy<Value = Flow> {
    let numbers = (any::<u8>(), any::<u8>(), any::<u16>());
    (numbers, any::<IpAddr>(), any::<Option<IpAddr>>()).prop_map(
        |((transport, listener, port), ip, local_ip)| Flow {
            transport,
            listener,
            ip,
            port,
            local_ip,
            connection: 0,
        },
    )
}

const TIME: std::ops::Range<u64> = 0..1 << 48;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_come_out_as_they_went_in(
        texts in texts(),
        body in prop::collection::vec(any::<u8>(), 0..4000),
        key in any::<u128>(),
        numbers in any::<[u64; 4]>(),
        times in (TIME, TIME),
        small in (any::<u8>(), any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>()),
        flow in flow(),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let presence = folder.path().join("presence_w.fdb");
        let registered = folder.path().join("registered.fdb");
        let [a, b, c, d, e, f, g, h, i] = &texts[..] else { panic!("nine texts") };
        let subscription = Subscription {
            presentity: key, local_tag: numbers[0], expires_at: times.0, cseq_reserved: small.3, remote_cseq: small.4,
            accepted_at: times.1, flow, event: small.0, capitals: small.1, flags: small.2, request: numbers[1],
            aor: a, local_uri: b, remote_uri: c, remote_tag: d, call_id: e, remote_target: f, route_set: g,
            event_id: h, user_agent: &i[..i.len().min(37)],
        };
        let presentity = Presentity {
            key, version: numbers[0], fingerprint: numbers[1], basic: small.0, event: small.1 as u8, first_end: small.3, changed_at: times.0, unregistered_at: times.1, aor: a, note: b,
            body: &body,
        };
        let publication = Publication {
            presentity: key, entity_tag: numbers[0], previous_tag: numbers[1], request: numbers[2],
            expires_at: times.0, published_at: times.1, number: small.3, event: small.0, aor: a, content_type: b, body: &body,
        };
        let binding = Binding {
            aor_key: key, reg_id: small.4, first_registered_at: small.3, request: numbers[1], expires_at: times.0, registered_at: times.1, cseq: small.3,
            q: small.1, flow, aor: a, contact: b, params: c, call_id: d, path: e, instance: f, user_agent: g, display_name: &body,
        };
        let user = User { aor_key: key, flags: numbers[0], aor: a, ha1_md5: b, ha1_sha256: c, more: d };

        let mut first = Fdb::open(&presence, FileKind::Presence, &OPTIONS).expect("created");
        let partition = &mut first.partitions[1];
        partition.put(&subscription).expect("room");
        let slot = partition.put(&Presentity { body: b"", ..presentity }).expect("room");
        partition.put(&publication).expect("room");
        partition.replace(slot, &presentity).expect("room");
        let mut second = Fdb::open(&registered, FileKind::Registered, &OPTIONS).expect("created");
        second.partitions[2].put(&binding).expect("room");
        second.partitions[2].put(&user).expect("room");

        let mut buf = RecordBuf::new();
        let id = first.file.read_by_key(1, key, &mut buf).expect("indexed");
        prop_assert_eq!(id, RecordId { partition: 1, slot });
        prop_assert_eq!(Presentity::decode(&buf), Ok(presentity));
        second.file.read_by_key(2, key, &mut buf).expect("indexed");
        prop_assert_eq!(first.file.read_by_key(1, key ^ 1 << 70, &mut buf), Err(ReadError::Missing));

        let expected = [
            AnyRecord::Subscription(subscription),
            AnyRecord::Presentity(presentity),
            AnyRecord::Publication(publication),
            AnyRecord::Binding(binding),
            AnyRecord::User(user),
        ];
        let mut found = 0;
        for path in [&presence, &registered] {
            let reader = Fdb::open_reader(path).expect("opens");
            inspect::for_each_record(&reader, |_, record| {
                assert!(expected.contains(&record), "{record:?}");
                found += 1;
            });
            prop_assert!(inspect::verify(path).expect("opens").is_sound());
        }
        prop_assert_eq!(found, expected.len());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(
        fixed in any::<[u64; 12]>(),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, kind) in [("p.fdb", FileKind::Presence), ("r.fdb", FileKind::Registered)] {
            let mut opened = Fdb::open(&folder.path().join(name), kind, &OPTIONS).expect("created");
            for kind in Kind::ALL.into_iter().filter(|record| record.file() == kind) {
                let slot = opened.partitions[0].insert(kind, &fixed, &payload).expect("room");
                let mut buf = RecordBuf::new();
                opened.partitions[0].read(slot, &mut buf).expect("whole");
                let refused = matches!(AnyRecord::decode(&buf), Err(DecodeError::Texts | DecodeError::Flow));
                prop_assert!(refused || AnyRecord::decode(&buf).is_ok());
            }
        }
    }
}

#[test]
fn what_is_undelivered_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    let mut opened = Fdb::open(&path, FileKind::Presence, &OPTIONS).expect("created");
    assert_eq!(opened.file.undelivered_since(63), 0);
    opened.partitions[63].set_undelivered_since(1_700_000_000_000);
    drop(opened);
    let opened = Fdb::open(&path, FileKind::Presence, &OPTIONS).expect("opens");
    assert_eq!(opened.file.undelivered_since(63), 1_700_000_000_000);
    assert_eq!(opened.file.undelivered_since(62), 0);
}

#[test]
fn secrets_of_users_are_not_printed() {
    let secret = b"0123456789abcdef";
    let user = User { ha1_md5: secret, more: secret, ..User::default() };
    assert!(!format!("{user:?}").contains("abcdef") && !format!("{user:?}").contains("102"));
}
