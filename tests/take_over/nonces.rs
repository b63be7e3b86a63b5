//! Credentials that were made for one process, shown to the one that took over from it.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use comsipl_tests::client::phone::{Message, Phone, Request};
use comsipl_tests::client::process::PATIENCE;
use comsipl_tests::server::{Server, Start};
use sha2::{Digest, Sha256};

const USER: &str = "sip:anna@example.org";
const PASSWORD: &str = "open sesame";

/// A nonce goes on counting, so no phone is asked anew; and a count that one process took the other does not take again.
#[test]
fn nonces_and_their_counts_go_on() -> Result<()> {
    let mut server = Server::start_with("", Start { auth: "digest", ..Start::default() })?;
    server.add_user("anna@example.org", PASSWORD)?;
    let mut anna = Anna { phone: Phone::new(server.address())?, cseq: 0 };
    let challenged = anna.register(None)?;
    ensure!(challenged.status() == Some(401), "{}", challenged.text());
    let challenge = challenged.need("WWW-Authenticate")?.to_owned();
    ensure!(param(&challenge, "algorithm")? == "SHA-256", "{challenge}");
    let mut expect = |count, status| {
        let answer = anna.register(Some(&authorization(&challenge, count)?))?;
        ensure!(answer.status() == Some(status), "count {count}: {}", answer.text());
        Ok(answer)
    };
    expect(1, 200)?;
    expect(3, 200)?;
    for count in [4, 5] {
        server.take_over()?;
        expect(count, 200)?;
        for used in [1, 3, count] {
            let refused = expect(used, 401)?;
            ensure!(refused.need("WWW-Authenticate")?.contains("stale=true"), "{}", refused.text());
        }
    }
    expect(2, 200)?;
    server.stop()?;
    server.verify_files()
}

struct Anna {
    phone: Phone,
    cseq: u32,
}

impl Anna {
    fn register(&mut self, authorization: Option<&str>) -> Result<Message> {
        self.cseq += 1;
        let contact = format!("Contact: <sip:anna@{}>", self.phone.address());
        let mut headers = vec![contact.as_str(), "Expires: 600"];
        headers.extend(authorization);
        let request = Request {
            method: "REGISTER",
            uri: "sip:example.org",
            branch: &format!("register-{}", self.cseq),
            from: (USER, "1"),
            to: (USER, None),
            call_id: "registrations",
            cseq: self.cseq,
            headers: &headers,
            body: "",
        };
        self.phone.send(&request.text(&self.phone));
        self.phone.receive(Instant::now() + PATIENCE)?.context("no answer to a REGISTER")
    }
}

/// Authorization (RFC 7616 §3.4) of a REGISTER, with a nonce count.
fn authorization(challenge: &str, count: u32) -> Result<String> {
    let (realm, nonce) = (param(challenge, "realm")?, param(challenge, "nonce")?);
    let hash = |text: String| Sha256::digest(text).iter().map(|it| format!("{it:02x}")).collect::<String>();
    let secret = hash(format!("anna:{realm}:{PASSWORD}"));
    let request = hash("REGISTER:sip:example.org".to_owned());
    let response = hash(format!("{secret}:{nonce}:{count:08x}:0a4f113b:auth:{request}"));
    Ok(format!(
        "Authorization: Digest username=\"anna\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"sip:example.org\", \
         response=\"{response}\", algorithm=SHA-256, qop=auth, nc={count:08x}, cnonce=\"0a4f113b\""
    ))
}

fn param<'a>(challenge: &'a str, name: &str) -> Result<&'a str> {
    let params = challenge.strip_prefix("Digest ").context("another scheme")?.split(',');
    let found = params.filter_map(|it| it.trim().split_once('=')).find(|(known, _)| *known == name);
    Ok(found.with_context(|| format!("no {name} in {challenge}"))?.1.trim_matches('"'))
}
