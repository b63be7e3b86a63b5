//! Composition: one document of all dialogs that are published of a user.

use super::document::{Item, Pages};
use super::{END, Refused, write_root};
use crate::HashKey;
use crate::limits::PRESENTITY_LEN_MAX;
use crate::pidf::Published;
use crate::token::push_number;
use crate::xml::fingerprint::Key;
use crate::xml::scan::Span;
use crate::xml::text::{attribute_value, mentions};

/// Longest composed document in bytes; what tells least of the dialogs beyond is left out. It leaves room for a NOTIFY's
/// head in a datagram. Published documents have [`PRESENTITY_LEN_MAX`] together, so only namespaces that are repeated on
/// many dialogs lead here.
const COMPOSED_LEN_MAX: usize = PRESENTITY_LEN_MAX + 4096;

/// What a document says, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Hash of the document's meaning: equal for documents that differ in nothing but the duration of dialogs.
    pub fingerprint: u64,
    /// Where, in what was written, the first dialog ends, its line end included; zero without dialogs.
    pub first_end: u32,
}

/// Composes documents; keeps its memory from one composition to the next.
///
/// The rules, by which the same publications always give the same bytes, in whatever order they are handed in:
///
/// * All dialogs are kept, byte for byte, but for what follows. Confirmed ones come first, then early, proceeding, trying and terminated ones, so
///   that a phone that looks at the first alone sees the state that matters; among equals the order is that of the
///   publications' numbers. What else the publishers' roots hold follows (RFC 4235 §4.4).
/// * Ids are unique (RFC 4235 §4.1.1): of two dialogs with one id the one of the later publication gets the publication's
///   number behind it.
/// * Session descriptions are left out (RFC 4235 §3.3).
/// * Namespace declarations of a publisher's root that a child needs are put into its start tag.
#[derive(Default)]
pub struct Composer {
    key: Key,
    pages: Pages,
    /// Number of each page's publication.
    sources: Vec<u64>,
    /// Items in the order of the document.
    order: Vec<u32>,
    /// Hashes of the ids taken, sorted.
    ids: Vec<u64>,
    /// Ids made anew, and where in them that of each item is; empty if it keeps its own.
    made: Vec<u8>,
    made_ids: Vec<Span>,
    /// Scratch: a value, and what a document means.
    value: Vec<u8>,
    meaning: Vec<u8>,
}

impl Composer {
    /// A composer whose fingerprints nobody can foresee who does not know `key`.
    #[must_use]
    pub fn with_key(key: HashKey) -> Self {
        Self { key: Key::new(key.0), ..Self::default() }
    }

    /// Checks one document and gives the fingerprint of its meaning, which differs from that of any composition. What was
    /// read or added before is forgotten.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn read(&mut self, body: &[u8]) -> Result<u64, Refused> {
        self.begin();
        self.pages.read(self.key, body)?;
        self.meaning.clear();
        for declaration in &self.pages.declarations {
            self.meaning.extend_from_slice(declaration.span.of(self.pages.text(0)));
        }
        for item in &self.pages.items {
            push_meaning(item.span.of(self.pages.text(0)), item, &[], &mut self.meaning);
        }
        Ok(self.key.of(&self.meaning))
    }

    /// Forgets what was read or added before.
    pub fn begin(&mut self) {
        self.pages.clear();
        self.sources.clear();
    }

    /// Adds the document that [`Self::read`] has passed last, with nothing read in between, as the publication of that
    /// number.
    ///
    /// # Panics
    /// If there is none.
    pub fn keep(&mut self, number: u64) {
        assert_eq!(self.pages.pages.len(), self.sources.len() + 1, "a document was read");
        self.sources.push(number);
    }

    /// Adds a publication, in whatever order.
    ///
    /// # Errors
    /// Why its document is refused. [`Self::begin`] or [`Self::read`] must follow then.
    pub fn add(&mut self, published: Published<'_>) -> Result<(), Refused> {
        self.pages.read(self.key, published.body)?;
        self.keep(published.number);
        Ok(())
    }

    /// Writes the document of what was added into `out`, which is emptied first, but for [`OPENING`](super::OPENING) and
    /// version. `aor` is canonical, without scheme.
    ///
    /// # Panics
    /// If a document was read and not kept.
    pub fn finish(&mut self, aor: &[u8], out: &mut Vec<u8>) -> Summary {
        assert_eq!(self.pages.pages.len(), self.sources.len(), "every document is a publication's");
        out.clear();
        write_root(aor, out);
        self.meaning.clear();
        self.meaning.extend_from_slice(out);
        self.make_ids();
        self.choose_order();
        let mut first_end = 0;
        for place in 0..self.order.len() {
            let n = self.order[place];
            let item = self.pages.items[n as usize];
            let written = out.len();
            self.write_item(item, self.made_ids[n as usize].of(&self.made), out);
            if out.len() + END.len() > COMPOSED_LEN_MAX {
                out.truncate(written);
                break;
            }
            push_meaning(&out[written..out.len() - 1], &item, self.pages.cuts_of(&item), &mut self.meaning);
            if first_end == 0 && item.id.is_some() {
                first_end = u32::try_from(out.len()).expect("a document is short");
            }
        }
        out.extend_from_slice(END);
        Summary { fingerprint: self.key.of(&self.meaning), first_end }
    }

    /// Sorts the items: dialogs by their states, then the others; publications by their numbers.
    fn choose_order(&mut self) {
        let (items, sources) = (&self.pages.items, &self.sources);
        self.order.clear();
        self.order.extend(0..items.len() as u32);
        self.order.sort_unstable_by_key(|&n| {
            let item = &items[n as usize];
            (item.id.is_none(), item.state, sources[item.page as usize], n)
        });
    }

    /// Makes other ids for dialogs whose own are taken. Earlier publications choose first, so that what others publish later
    /// changes no id.
    fn make_ids(&mut self) {
        self.ids.clear();
        self.made.clear();
        self.made_ids.clear();
        self.made_ids.resize(self.pages.items.len(), Span::default());
        self.order.clear();
        self.order.extend(0..self.pages.items.len() as u32);
        let (items, sources) = (&self.pages.items, &self.sources);
        self.order.sort_unstable_by_key(|&n| (sources[items[n as usize].page as usize], n));
        for place in 0..self.order.len() {
            let n = self.order[place];
            let item = self.pages.items[n as usize];
            if let Some((raw, hash)) = item.id
                && !self.take_id(hash)
            {
                self.made_ids[n as usize] = self.make_id(place, item, raw);
            }
        }
    }

    /// Makes an id of the published one, the number of the publication and, if there must be more, the place of the item among all in
    /// the order of publications. Gives where it lies in `made`.
    fn make_id(&mut self, place: usize, item: Item, raw: Span) -> Span {
        let start = self.made.len();
        for attempt in 0.. {
            self.made.truncate(start);
            self.made.extend_from_slice(raw.of(self.pages.text(item.page)));
            self.made.push(b'-');
            push_number(&mut self.made, self.sources[item.page as usize]);
            if attempt > 0 {
                self.made.push(b'-');
                push_number(&mut self.made, place as u64 + attempt);
            }
            let hash = self.key.of(attribute_value(&self.made[start..], &mut self.value));
            if self.take_id(hash) {
                break;
            }
        }
        Span::new(start, self.made.len())
    }

    /// Takes an id; says whether it was free.
    fn take_id(&mut self, hash: u64) -> bool {
        let place = self.ids.binary_search(&hash);
        if let Err(place) = place {
            self.ids.insert(place, hash);
        }
        place.is_err()
    }

    /// Writes one item, under the id `made` if there is one.
    fn write_item(&self, item: Item, made: &[u8], out: &mut Vec<u8>) {
        let text = self.pages.text(item.page);
        out.extend_from_slice(Span { start: item.span.start, end: item.name_end }.of(text));
        self.write_declarations(text, item, out);
        let mut at = item.name_end;
        if let Some((raw, _)) = item.id.filter(|_| !made.is_empty()) {
            out.extend_from_slice(Span { start: at, end: raw.start }.of(text));
            out.extend_from_slice(made);
            at = raw.end;
        }
        for cut in self.pages.cuts_of(&item) {
            out.extend_from_slice(Span { start: at, end: cut.start }.of(text));
            at = cut.end;
        }
        out.extend_from_slice(Span { start: at, end: item.span.end }.of(text));
        out.push(b'\n');
    }

    /// Writes into a start tag the declarations of the publisher's root that the item needs and ours does not have.
    fn write_declarations(&self, text: &[u8], item: Item, out: &mut Vec<u8>) {
        let page = self.pages.pages[item.page as usize];
        let declarations = page.declarations.start as usize..page.declarations.end as usize;
        for (n, declaration) in self.pages.declarations[declarations].iter().enumerate() {
            if declaration.is_ours || item.redeclared & (1 << n) != 0 {
                continue;
            }
            let needed = match declaration.prefix.of(text) {
                b"" => item.uses_default,
                b"xml" => false,
                prefix => mentions(item.span.of(text), prefix),
            };
            if needed {
                out.push(b' ');
                out.extend_from_slice(declaration.span.of(text));
            }
        }
        // Our root gives a default namespace where the publisher's gave none.
        if item.uses_default && !page.has_default {
            out.extend_from_slice(b" xmlns=\"\"");
        }
    }
}

impl std::fmt::Debug for Composer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composer").finish_non_exhaustive()
    }
}

/// Appends what is news of an item that was written as `text`, without `cuts`: all but its duration. What else is written
/// otherwise than it was published stands in its start tag, so places are counted from its end.
fn push_meaning(text: &[u8], item: &Item, cuts: &[Span], meaning: &mut Vec<u8>) {
    let behind = |at: u32| {
        let cut: u32 = cuts.iter().filter(|cut| cut.start >= at).map(|cut| cut.end - cut.start).sum();
        text.len() - (item.span.end - at - cut) as usize
    };
    let (start, end) = match item.duration {
        duration if duration.is_empty() => (text.len(), text.len()),
        duration => (behind(duration.start), behind(duration.end)),
    };
    meaning.extend_from_slice(&text[..start]);
    meaning.extend_from_slice(&text[end..]);
    meaning.push(b'\n');
}
