//! Bits flip in the files of a server that is down, or the files are cut short. It refuses to start and says why, or it
//! starts, and then nobody is told what was never published, what is missing is counted, and what is whole is served.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use comsipl_fdb::FileKind;
use comsipl_tests::world::sip_text::SipText;
use comsipl_tests::world::{Crash, Happening, SERVER, Setup, World};
use proptest::prelude::*;

/// Users, each with a device that registers and publishes, and a watcher.
const USERS: usize = 24;

/// What is done to a file.
#[derive(Clone, Debug)]
enum Damage {
    /// Flips a bit of a byte, counted among those that are not zero.
    Flip { place: u32, bit: u8 },
    /// Cuts the file to that many bytes, of 2^32.
    Cut { to: u32 },
}

fn damage() -> impl Strategy<Value = (bool, Damage)> {
    let flip = (any::<u32>(), 0..8_u8).prop_map(|(place, bit)| Damage::Flip { place, bit });
    let cut = any::<u32>().prop_map(|to| Damage::Cut { to });
    (any::<bool>(), prop_oneof![12 => flip, 1 => cut])
}

/// Does that to the file.
fn inflict<'a>(path: &Path, damages: impl Iterator<Item = &'a Damage>) {
    let file = File::options().read(true).write(true).open(path).expect("there");
    let bytes = std::fs::read(path).expect("there");
    let used: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    for damage in damages {
        let len = file.metadata().expect("there").len();
        match *damage {
            Damage::Flip { place, bit } => {
                let at = used[place as usize % used.len()] as u64;
                if at < len {
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at).expect("read");
                    file.write_all_at(&[byte[0] ^ 1 << bit], at).expect("written");
                }
            }
            Damage::Cut { to } => file.set_len((len * u64::from(to)) >> 32).expect("cut"),
        }
    }
}

/// A world, and what its phones were told.
struct Town {
    world: World,
    made: u32,
    /// Answers, by branch.
    answers: Vec<(String, SipText)>,
    /// What each watcher was told last: the marks in it.
    told: Vec<Option<Vec<String>>>,
    refused: Option<String>,
    wrong: Option<String>,
}

impl Town {
    fn new() -> Self {
        let mut setup = Setup::default();
        (setup.settings.presence_records_max, setup.settings.registered_records_max) = (512, 512);
        Self {
            world: World::new(setup),
            made: 0,
            answers: Vec::new(),
            told: vec![None; USERS],
            refused: None,
            wrong: None,
        }
    }

    /// Sends a request, and waits two seconds for what comes of it.
    fn ask(&mut self, user: usize, method: &str, to_tag: &str, extra: &str, body: &str) -> Option<SipText> {
        self.made += 1;
        let branch = format!("z9hG4bK-{}", self.made);
        let uri = if method == "REGISTER" {
            "sip:example.com".to_owned()
        } else {
            format!("sip:u{user}@example.com")
        };
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:u{user}@example.com>;tag=f{user}\r\nTo: <sip:u{user}@example.com>{to_tag}\r\n\
             Call-ID: {method}-{user}\r\nCSeq: {} {method}\r\nContact: <sip:u{user}@{}>\r\n{extra}\
             Content-Length: {}\r\n\r\n{body}",
            phone(user),
            self.made,
            phone(user),
            body.len()
        );
        self.world.send(phone(user), SERVER, text.into_bytes());
        self.pass(Duration::from_secs(2));
        self.answers.iter().position(|(of, _)| *of == branch).map(|at| self.answers.remove(at).1)
    }

    /// Lets time pass; each NOTIFY is looked at and answered.
    fn pass(&mut self, span: Duration) {
        let until = self.world.now() + span;
        while let Some(happening) = self.world.next(until) {
            match happening {
                Happening::Refused { why } => self.refused = Some(why),
                Happening::PhoneGot { to, bytes, .. } => {
                    let text = SipText::read(&bytes).expect("the server sends SIP");
                    if text.method() == Some("NOTIFY") {
                        self.on_notify(usize::from(to.port()) - PORT, &text);
                    } else if let Some(branch) = text.param("Via", "branch") {
                        self.answers.push((branch.to_owned(), text));
                    }
                }
                _ => {}
            }
        }
    }

    fn on_notify(&mut self, user: usize, text: &SipText) {
        let mut answer = "SIP/2.0 200 OK\r\n".to_owned();
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            answer.push_str(&format!("{name}: {}\r\n", text.header(name).expect("it has it")));
        }
        answer.push_str("Content-Length: 0\r\n\r\n");
        self.world.send(phone(user), SERVER, answer.into_bytes());
        let marks: Vec<String> =
            text.elements("note").into_iter().filter(|note| note.starts_with('m')).collect();
        let known = |mark: &String| *mark == mark_of(user, 0) || *mark == mark_of(user, 1);
        let of_user = text.param("From", "tag").is_some()
            && text.header("Call-ID") == Some(&format!("SUBSCRIBE-{user}"));
        if !of_user || !marks.iter().all(known) {
            self.wrong = Some(format!("watcher {user} was told {marks:?} in {:?}", text.header("Call-ID")));
        }
        if !text.body.is_empty() {
            self.told[user] = Some(marks);
        }
    }
}

/// The mark of what a user published as his `version`-th state, which is long enough to need more than one record for some.
fn mark_of(user: usize, version: usize) -> String {
    format!("m{user}v{version}{}", "x".repeat(user * 40))
}

fn body_of(user: usize, version: usize) -> String {
    format!(
        "<?xml version=\"1.0\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:u{user}@example.com\">\
         <tuple id=\"t\"><status><basic>open</basic></status><note>{}</note></tuple></presence>\r\n",
        mark_of(user, version)
    )
}

const PORT: usize = 20_000;

fn phone(user: usize) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([192, 0, 2, 1], u16::try_from(PORT + user).expect("few users")))
}

const PUBLISHED: &str = "Event: presence\r\nExpires: 3600\r\n";
const SUBSCRIBED: &str = "Event: presence\r\nAccept: application/pidf+xml\r\nExpires: 3600\r\n";

fn check(synced: bool, damages: &[(bool, Damage)]) -> Result<(), TestCaseError> {
    let mut town = Town::new();
    let (mut entity_tags, mut dialogs) = (Vec::new(), Vec::new());
    for user in 0..USERS {
        let registered = town.ask(user, "REGISTER", "", "Expires: 3600\r\n", "").expect("answered");
        prop_assert_eq!(registered.status(), Some(200));
        let typed = format!("{PUBLISHED}Content-Type: application/pidf+xml\r\n");
        let first = town.ask(user, "PUBLISH", "", &typed, &body_of(user, 0)).expect("answered");
        let matching = format!("SIP-If-Match: {}\r\n{typed}", first.header("SIP-ETag").expect("a tag"));
        let second = town.ask(user, "PUBLISH", "", &matching, &body_of(user, 1)).expect("answered");
        entity_tags.push(second.header("SIP-ETag").expect("a tag").to_owned());
        let subscribed = town.ask(user, "SUBSCRIBE", "", SUBSCRIBED, "").expect("answered");
        dialogs.push(format!(";tag={}", subscribed.param("To", "tag").expect("a tag")));
    }
    let whole = |user| Some(vec![mark_of(user, 1)]);
    prop_assert!((0..USERS).all(|user| town.told[user] == whole(user)), "{:?}", town.wrong);

    town.told.fill(None);
    if synced {
        town.world.sync();
    }
    town.world.crash(Crash::of_process(Duration::from_secs(1)));
    for (kind, registered) in [(FileKind::Registered, true), (FileKind::Presence, false)] {
        let its = damages.iter().filter(|(of, _)| *of == registered).map(|(_, damage)| damage);
        inflict(&town.world.data_dir().join(kind.file_name()), its);
    }
    town.world.may_refuse_files();
    town.pass(Duration::from_secs(30));
    if let Some(why) = &town.refused {
        prop_assert!(why.contains(".fdb"), "it says of which file: {}", why);
        return Ok(());
    }

    let mut missing = BTreeSet::new();
    for user in 0..USERS {
        let matching = format!("SIP-If-Match: {}\r\n{PUBLISHED}", entity_tags[user]);
        match town.ask(user, "PUBLISH", "", &matching, "").expect("answered").status() {
            Some(200) => {}
            Some(412) => _ = missing.insert(("publication", user)),
            other => prop_assert!(false, "{:?}", other),
        }
        match town.ask(user, "SUBSCRIBE", &dialogs[user], SUBSCRIBED, "").expect("answered").status() {
            Some(200) => {
                let published = !missing.contains(&("publication", user));
                prop_assert!(
                    !published || town.told[user] == whole(user),
                    "watcher {} was told {:?}",
                    user,
                    town.told[user]
                );
            }
            Some(481) => _ = missing.insert(("subscription", user)),
            other => prop_assert!(false, "{:?}", other),
        }
        let listed = town.world_lists(user);
        prop_assert!(listed.iter().all(|uri| *uri == format!("sip:u{user}@{}", phone(user))), "{:?}", listed);
        if listed.is_empty() {
            missing.insert(("binding", user));
        }
    }
    prop_assert_eq!(&town.wrong, &None);
    prop_assert_eq!(town.world.check_counters(), Ok(()));
    let dropped = town.world.dropped();
    // With an extent that was never on disk as many go as it has room for.
    let of_one = if damages.iter().any(|(_, damage)| matches!(damage, Damage::Cut { .. })) { 512 } else { 1 };
    prop_assert!(missing.len() as u64 <= dropped * of_one, "{:?} are missing, {} counted", missing, dropped);
    Ok(())
}

impl Town {
    /// The contacts that the registrar lists.
    fn world_lists(&mut self, user: usize) -> Vec<String> {
        self.made += 1;
        let branch = format!("z9hG4bK-{}", self.made);
        let text = format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:u{user}@example.com>;tag=q\r\nTo: <sip:u{user}@example.com>\r\nCall-ID: query-{user}\r\n\
             CSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n",
            phone(user)
        );
        self.world.send(phone(user), SERVER, text.into_bytes());
        self.pass(Duration::from_secs(2));
        let at = self.answers.iter().position(|(of, _)| *of == branch).expect("answered");
        let answer = self.answers.remove(at).1;
        let uri = |value: &str| comsipl_tests::world::sip_text::uri_of(value).to_owned();
        answer.values("Contact").into_iter().map(uri).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_refused_or_counted_and_never_served(synced in any::<bool>(), damages in prop::collection::vec(damage(), 1..30)) {
        check(synced, &damages)?;
    }
}

#[test]
fn without_damage_nothing_is_missing() {
    check(false, &[]).expect("all is there");
}
