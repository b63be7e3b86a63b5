//! Phones with passwords.

use comsipl_core::auth::{Algorithm, Hash};

use crate::message::register;
use crate::one_shard::OneShard;

/// Phones that register with passwords, the algorithm of whose credentials is SHA-256.
pub struct Registrants {
    /// The shard.
    pub world: OneShard,
    /// The nonce of each phone that has been challenged, and how often it was used.
    nonces: Vec<(String, u32)>,
}

impl Registrants {
    /// A shard that challenges, with so many users who have passwords.
    #[must_use]
    pub fn new(users: usize, records: u32) -> Self {
        let mut world = OneShard::challenging(records);
        for n in 0..users {
            world.put_user(&format!("user{n}@example.com"), &password(n));
        }
        Self { world, nonces: vec![(String::new(), 0); users] }
    }

    /// The next REGISTER of phone `n`, which is challenged first if it was not yet.
    ///
    /// # Panics
    /// If it is not challenged then.
    pub fn register(&mut self, n: usize, cseq: u32) -> Vec<u8> {
        if self.nonces[n].0.is_empty() {
            // With another branch than any that follows; RFC 3261 §8.1.1.5 bounds the number by 2^31.
            self.world.deliver(crate::phone(n), &register(n, (1 << 31) - 1));
            self.nonces[n].0 = self.world.newest_nonce().expect("it is challenged");
        }
        let (nonce, count) = &mut self.nonces[n];
        *count += 1;
        with_credentials(&register(n, cseq), n, nonce, *count)
    }

    /// Brings the next REGISTER of phone `n`; see [`Self::register`].
    ///
    /// # Panics
    /// If it is not accepted.
    pub fn deliver(&mut self, n: usize, cseq: u32) {
        let message = self.register(n, cseq);
        self.world.deliver(crate::phone(n), &message);
        assert!(self.world.newest_is_ok(), "good credentials are accepted");
    }
}

/// A REGISTER with the credentials of user `n`.
fn with_credentials(message: &[u8], n: usize, nonce: &str, count: u32) -> Vec<u8> {
    let hash = |parts: &[&[u8]]| hex(Algorithm::Sha256.hash(parts));
    let a1 = hash(&[format!("user{n}").as_bytes(), b"example.com", password(n).as_bytes()]);
    let a2 = hash(&[b"REGISTER", b"sip:example.com"]);
    let count = format!("{count:08x}");
    let response =
        hash(&[a1.as_bytes(), nonce.as_bytes(), count.as_bytes(), b"0a4f113b", b"auth", a2.as_bytes()]);
    let text = String::from_utf8_lossy(message);
    text.replace(
        "Content-Length: 0\r\n",
        &format!(
            "Authorization: Digest realm=\"example.com\", nonce=\"{nonce}\", algorithm=SHA-256, username=\"user{n}\", \
             uri=\"sip:example.com\", response=\"{response}\", cnonce=\"0a4f113b\", nc={count}, qop=auth\r\n\
             Content-Length: 0\r\n"
        ),
    )
    .into_bytes()
}

fn password(n: usize) -> String {
    format!("password {n}")
}

fn hex(hash: Hash) -> String {
    let mut text = [0; 2 * Hash::LEN_MAX];
    String::from_utf8_lossy(hash.hex(&mut text)).into_owned()
}
