//! Packages whose watchers are told the newest publication, whatever else is published.

/// How such a package treats what is published.
#[derive(Debug)]
pub struct Newest {
    /// Checks a published body and appends what watchers are to see of it; the error says in a few words what is wrong.
    pub rewrite: fn(&[u8], &mut Vec<u8>) -> Result<(), &'static str>,
    /// Appends what watchers are told while nothing is published. Nothing appended is a NOTIFY without a body.
    pub without_publication: fn(&mut Vec<u8>),
}

/// The body as it was published.
#[expect(clippy::unnecessary_wraps, reason = "the type of Newest::rewrite")]
pub(super) fn as_published(body: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    out.extend_from_slice(body);
    Ok(())
}

/// No body.
pub(super) fn nothing(_out: &mut Vec<u8>) {}

/// Chooses the newest of a resource's publications.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The body that was read last.
    read: Vec<u8>,
    /// When the chosen one was published, and its number.
    age: Option<(u64, u64)>,
    /// The chosen one.
    chosen: Vec<u8>,
}

impl Choice {
    /// Reads a body.
    pub(super) fn read(&mut self, how: &Newest, body: &[u8]) -> Result<&[u8], &'static str> {
        self.read.clear();
        (how.rewrite)(body, &mut self.read)?;
        Ok(&self.read)
    }

    /// Forgets what was chosen.
    pub(super) fn begin(&mut self) {
        self.age = None;
    }

    /// Takes the body that was read last for one that was published then, under that number.
    pub(super) fn keep(&mut self, number: u64, published_at_ms: u64) {
        if self.age.is_none_or(|age| age < (published_at_ms, number)) {
            self.age = Some((published_at_ms, number));
            std::mem::swap(&mut self.read, &mut self.chosen);
        }
    }

    /// The newest body; `None` without any.
    pub(super) fn chosen(&self) -> Option<&[u8]> {
        self.age.map(|_| &self.chosen[..])
    }
}
