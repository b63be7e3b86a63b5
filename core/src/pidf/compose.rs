//! Composition: one document of all live publications of a presentity (RFC 3903 §3, RFC 4479 §3.5).

use super::Basic;
use super::document::{Declaration, Item, Kind, Moved, Pages, With};
use super::write;
use crate::HashKey;
use crate::xml::bounds;
use crate::xml::fingerprint::{self, Key};
use crate::xml::malformed::Malformed;
use crate::xml::namespace::pidf_hash;
use crate::xml::scan::Span;
use crate::xml::text::{attribute_value, mentions};

/// One live publication.
#[derive(Clone, Copy, Debug)]
pub struct Published<'a> {
    /// Number of the publication, unique in the presentity; refreshed and modified publications keep theirs. Earlier
    /// publications should have lower numbers: theirs are the identifiers that are kept when two devices use one.
    pub number: u64,
    /// When its meaning last changed, in milliseconds of any one clock. The person elements of the latest stand
    /// first. A refresh that changes nothing but time stamps (the same [`Summary::fingerprint`] from
    /// [`Composer::read`]) should keep the value, or two devices that refresh in turn change places each time.
    pub published_at_ms: u64,
    /// The document, which [`check`](super::check) has passed.
    pub body: &'a [u8],
}

/// What a document says, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Open if any tuple is open, else closed if any is closed.
    pub basic: Basic,
    /// Hash of the document's meaning: equal for documents that differ in nothing but time stamps (the `timestamp`
    /// elements of tuples, persons and devices), white space between elements, comments, prefixes or spelling. The
    /// same in every run of the server.
    pub fingerprint: u64,
    /// How many tuples it has.
    pub tuples: usize,
}

/// Scheme of the URI in `entity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntityScheme {
    /// `sip:`, what phones ask for.
    #[default]
    Sip,
    /// `sips:`.
    Sips,
    /// `pres:` (RFC 3859), the scheme of RFC 3863 §4.1.1.
    Pres,
}

impl EntityScheme {
    /// The scheme with its colon.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sip => "sip:",
            Self::Sips => "sips:",
            Self::Pres => "pres:",
        }
    }
}

/// Composes documents; keeps its memory from one composition to the next.
///
/// [`compose`](Self::compose) does it in one call. In steps, a document that was [`read`](Self::read) to be checked need
/// not be read again:
///
/// ```
/// # use comsipl_core::pidf::{Composer, Malformed, Published};
/// # fn publish(composer: &mut Composer, body: &[u8], of_another_device: &[u8]) -> Result<Vec<u8>, Malformed> {
/// let summary = composer.read(body)?;
/// // Is it news? Is there room? Then, with nothing read in between:
/// composer.keep(2, 1_700_000_000_000);
/// composer.add(Published { number: 1, published_at_ms: 1_600_000_000_000, body: of_another_device })?;
/// let (mut out, mut note) = (Vec::new(), Vec::new());
/// composer.finish(b"alice@example.com", &mut out, &mut note);
/// # Ok(out)
/// # }
/// # let body = b"<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='a'><tuple id='t'/></presence>";
/// # assert!(publish(&mut Composer::default(), body, body)?.ends_with(b"<tuple id='t'/>\n<tuple id='t-2'/>\n</presence>\n"));
/// # Ok::<(), Malformed>(())
/// ```
///
/// The rules, by which the same publications always give the same bytes, in whatever order they are handed in:
///
/// * Children of the root stand as RFC 3863 §4.4 has them: tuples, notes, extensions (persons, devices, others).
/// * All tuples are kept. Open ones come first, so that a watcher who reads only the first sees the state of the
///   presentity; among equals the order is that of the publications' numbers.
/// * All persons are kept, the last changed first. RFC 4479 §3.2 knows one person; several occurrences with their own
///   `id` are how §3.5 has a compositor pass on what it cannot decide, and a watcher who reads only the first reads
///   the news. Persons, devices, other extensions and notes that say the same (time stamps aside) are given once.
/// * Children are copied byte for byte, with these exceptions: `basic` is put into the letters of the schema; a `note`
///   in `status`, where the schema has none, becomes a note of the tuple; an `id` that an earlier publication uses
///   too gets `-` and the publication's number appended, a missing one is made of it; a note that took its language
///   from its root gets it itself; and declarations of prefixes are added where the composed root cannot have them.
/// * Comments and processing instructions outside of the children are dropped.
#[derive(Default)]
pub struct Composer {
    pages: Pages,
    scheme: EntityScheme,
    /// Number and time of each page.
    sources: Vec<Source>,
    /// Numbers of the pages, the lowest publication first.
    oldest: Vec<u32>,
    /// Numbers of the pages, the last changed first.
    newest: Vec<u32>,
    /// Numbers of the items in the order of [`Self::oldest`].
    items: Vec<u32>,
    /// Declarations on the composed root, beside the default namespace.
    root: Vec<Declaration>,
    /// For each page the declarations of its root that ours does not have: bit `n` for number `n`.
    differing: Vec<u32>,
    /// What was chosen for each item.
    choices: Vec<Choice>,
    /// Identifiers in use, sorted by hash, with the item that has each.
    ids: Vec<(u64, u32)>,
    /// Meanings given already of elements that are given once, sorted.
    given: Vec<u64>,
    /// Identifiers made anew, escaped.
    made: Vec<u8>,
    /// Scratch for one value.
    value: Vec<u8>,
}

/// What is known of a page's publication.
#[derive(Clone, Copy)]
struct Source {
    /// [`Published::number`].
    number: u64,
    /// [`Published::published_at_ms`].
    changed: u64,
}

/// What becomes of an item.
#[derive(Clone, Copy, Default)]
struct Choice {
    /// It is left out, another item saying the same.
    dropped: bool,
    /// Its identifier, as a range of [`Composer::made`]; empty if the published one is kept.
    id: Span,
    /// Hash of the value of that.
    id_hash: u64,
}

impl Composer {
    /// A composer that writes `entity` with `scheme`.
    #[must_use]
    pub fn with_entity_scheme(scheme: EntityScheme) -> Self {
        Self { scheme, ..Self::default() }
    }

    /// A composer whose fingerprints nobody can foresee who does not know `key`. They can be compared with those of
    /// composers with the same key only.
    #[must_use]
    pub fn with_key(key: HashKey) -> Self {
        let mut composer = Self::default();
        composer.pages.key = Key::new(key.0);
        composer
    }

    /// Checks one document and tells what it says. The fingerprint does not cover `entity`, and differs from that of
    /// any composition. What was read or added before is forgotten.
    ///
    /// # Errors
    /// The first fault found.
    pub fn read(&mut self, body: &[u8]) -> Result<Summary, Malformed> {
        self.begin();
        self.pages.read(body)?;
        Ok(self.summary())
    }

    /// What [`Self::read`] has said.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let key = self.pages.key;
        let mut summary = Summary { basic: Basic::Unknown, fingerprint: 0, tuples: 0 };
        let mut hash = fingerprint::Document::new(key, b"", b"");
        for item in &self.pages.items {
            if item.kind == Kind::Tuple {
                summary.basic = summary.basic.or(item.basic);
                summary.tuples += 1;
            }
            hash.child(key, item.id_hash, item.hash);
        }
        summary.fingerprint = hash.finish(key);
        summary
    }

    /// Composes `published`: [`Self::begin`], [`Self::add`] for each, [`Self::finish`].
    ///
    /// # Errors
    /// A fault of one of the documents; `out` and `note` are empty then. None, if [`check`](super::check) has passed
    /// them all.
    pub fn compose(
        &mut self,
        aor: &[u8],
        published: &[Published<'_>],
        out: &mut Vec<u8>,
        note: &mut Vec<u8>,
    ) -> Result<Summary, Malformed> {
        out.clear();
        note.clear();
        self.begin();
        for &published in published {
            self.add(published)?;
        }
        Ok(self.finish(aor, out, note))
    }

    /// Forgets what was read or added before.
    pub fn begin(&mut self) {
        self.pages.clear();
        self.sources.clear();
    }

    /// Adds the document that [`Self::read`] has passed last, with nothing read in between; see [`Published`].
    ///
    /// # Panics
    /// If there is none.
    pub fn keep(&mut self, number: u64, published_at_ms: u64) {
        assert_eq!(self.pages.pages.len(), self.sources.len() + 1, "a document was read");
        self.sources.push(Source { number, changed: published_at_ms });
    }

    /// Adds a publication, in whatever order.
    ///
    /// # Errors
    /// The first fault of the document. [`Self::begin`] or [`Self::read`] must follow then.
    pub fn add(&mut self, published: Published<'_>) -> Result<(), Malformed> {
        let Published { number, published_at_ms, body } = published;
        self.pages.read(body)?;
        self.keep(number, published_at_ms);
        Ok(())
    }

    /// Writes the composed document of what was added into `out`, and into `note` the first note for people that goes
    /// with its state, as plain text: of a tuple in the state of the whole, else about the presentity, else of a
    /// person. Both are emptied first. `aor` is canonical, without scheme.
    ///
    /// Without publications the document has no tuples.
    ///
    /// # Panics
    /// If a document was read and not kept.
    pub fn finish(&mut self, aor: &[u8], out: &mut Vec<u8>, note: &mut Vec<u8>) -> Summary {
        assert_eq!(self.pages.pages.len(), self.sources.len(), "every document is a publication's");
        out.clear();
        note.clear();
        self.choose_order();
        self.choose_root();
        self.choose_items();

        write::presence(self.scheme, aor, out);
        for declaration in &self.root {
            push_attribute(self.pages.text(declaration.document), declaration.span, out);
        }
        out.push(b'>');
        let summary = self.write_items(aor, out);
        out.extend_from_slice(b"\n</presence>\n");
        self.choose_note(summary.basic, note);
        summary
    }

    /// Sorts the publications and their items.
    fn choose_order(&mut self) {
        let sources = &self.sources;
        self.oldest.clear();
        self.oldest.extend(0..sources.len() as u32);
        self.newest.clone_from(&self.oldest);
        self.oldest.sort_unstable_by_key(|&page| {
            let source = sources[page as usize];
            (source.number, source.changed)
        });
        self.newest.sort_unstable_by_key(|&page| {
            let source = sources[page as usize];
            std::cmp::Reverse((source.changed, source.number))
        });
        self.items.clear();
        for &page in &self.oldest {
            let items = self.pages.pages[page as usize].items;
            self.items.extend(items.start..items.end);
        }
    }

    /// Gathers the prefixes of the publishers' roots for ours: the first to declare one has it.
    fn choose_root(&mut self) {
        self.root.clear();
        self.differing.clear();
        self.differing.resize(self.sources.len(), 0);
        for &page in &self.oldest {
            // Up to here; one root declares no prefix twice.
            let earlier = self.root.len();
            let declarations = self.pages.pages[page as usize].declarations;
            for (bit, n) in (declarations.start..declarations.end).enumerate() {
                let declaration = self.pages.declarations[n as usize];
                let prefix = self.prefix_of(declaration);
                // The default namespace of our root is PIDF, and `xml` needs no declaration.
                let ours = if prefix.is_empty() {
                    Some(pidf_hash(self.pages.key))
                } else if prefix == b"xml" {
                    continue;
                } else {
                    let same = |it: &&Declaration| self.prefix_of(**it) == prefix;
                    self.root[..earlier].iter().find(same).map(|it| it.namespace)
                };
                if ours.is_none() && self.root.len() < bounds::ROOT_PREFIXES_MAX {
                    self.root.push(declaration);
                } else if ours != Some(declaration.namespace) {
                    self.differing[page as usize] |= 1 << bit;
                }
            }
        }
    }

    /// Decides for each item whether it is given, and under what identifier.
    fn choose_items(&mut self) {
        self.choices.clear();
        self.choices.resize(self.pages.items.len(), Choice::default());
        self.ids.clear();
        self.made.clear();
        for place in 0..self.items.len() {
            let n = self.items[place];
            let item = self.pages.items[n as usize];
            if !item.kind.has_id() {
                continue;
            }
            if item.id.is_some() {
                match self.ids.binary_search_by_key(&item.id_hash, |id| id.0) {
                    Err(place) => {
                        self.ids.insert(place, (item.id_hash, n));
                        continue;
                    }
                    Ok(place) if self.says_the_same(item, self.ids[place].1) => {
                        self.drop_older(place, n);
                        continue;
                    }
                    Ok(_) => {}
                }
            }
            self.make_id(n);
        }
    }

    /// True when `item` and the item of number `other`, which have one identifier, may be given once.
    fn says_the_same(&self, item: Item, other: u32) -> bool {
        let other = self.pages.items[other as usize];
        item.kind != Kind::Tuple && item.kind == other.kind && item.hash == other.hash
    }

    /// Of two items that say the same keeps the one of the publication that changed last.
    fn drop_older(&mut self, place: usize, item: u32) {
        let other = self.ids[place].1;
        let changed = |item: u32| {
            let page = self.pages.items[item as usize].document;
            self.sources[page as usize].changed
        };
        if changed(item) >= changed(other) {
            self.ids[place].1 = item;
            self.choices[other as usize].dropped = true;
        } else {
            self.choices[item as usize].dropped = true;
        }
    }

    /// Makes an identifier for item `n` of the published one and the number of the publication. Numbers only grow,
    /// so publications to come do not change it.
    fn make_id(&mut self, n: u32) {
        let item = self.pages.items[n as usize];
        let number = self.sources[item.document as usize].number;
        let raw = item.id.map_or(&b""[..], |id| id.of(self.pages.text(item.document)));
        // An identifier is an XML name (xs:ID), so it starts with a letter.
        let raw = if raw.is_empty() { b"t" } else { raw };
        let start = self.made.len();
        for attempt in 0.. {
            self.made.truncate(start);
            self.made.extend_from_slice(raw);
            self.made.push(b'-');
            let mut decimal = itoa::Buffer::new();
            self.made.extend_from_slice(decimal.format(number).as_bytes());
            if attempt > 0 {
                self.made.push(b'-');
                let ordinal = n - self.pages.pages[item.document as usize].items.start;
                self.made.extend_from_slice(decimal.format(ordinal + attempt).as_bytes());
            }
            let hash = self.pages.key.of(attribute_value(&self.made[start..], &mut self.value));
            if let Err(place) = self.ids.binary_search_by_key(&hash, |id| id.0) {
                self.ids.insert(place, (hash, n));
                self.choices[n as usize].id_hash = hash;
                break;
            }
        }
        self.choices[n as usize].id = Span::new(start, self.made.len());
    }

    /// Writes the items in the order of the document.
    fn write_items(&mut self, aor: &[u8], out: &mut Vec<u8>) -> Summary {
        let key = self.pages.key;
        let mut summary = Summary { basic: Basic::Unknown, fingerprint: 0, tuples: 0 };
        let mut hash = fingerprint::Document::new(key, self.scheme.as_str().as_bytes(), aor);
        for open in [true, false] {
            for place in 0..self.items.len() {
                let n = self.items[place] as usize;
                let item = &self.pages.items[n];
                if item.kind == Kind::Tuple && (item.basic == Basic::Open) == open {
                    summary.basic = summary.basic.or(item.basic);
                    summary.tuples += 1;
                    self.write_item(n, &mut hash, out);
                }
            }
        }
        if summary.tuples < self.items.len() {
            self.given.clear();
            self.write_kind(Kind::Note, &mut hash, out);
            for place in 0..self.newest.len() {
                let items = self.pages.pages[self.newest[place] as usize].items;
                for n in items.start as usize..items.end as usize {
                    if self.pages.items[n].kind == Kind::Person {
                        self.write_item(n, &mut hash, out);
                    }
                }
            }
            self.write_kind(Kind::Device, &mut hash, out);
            self.write_kind(Kind::Other, &mut hash, out);
        }
        summary.fingerprint = hash.finish(key);
        summary
    }

    /// Writes the items of one kind in the order of the publications' numbers; those without identifier once.
    fn write_kind(&mut self, kind: Kind, hash: &mut fingerprint::Document, out: &mut Vec<u8>) {
        for place in 0..self.items.len() {
            let n = self.items[place] as usize;
            let item = &self.pages.items[n];
            if item.kind != kind {
                continue;
            }
            if !kind.has_id() {
                let Err(place) = self.given.binary_search(&item.hash) else { continue };
                self.given.insert(place, item.hash);
            }
            self.write_item(n, hash, out);
        }
    }

    /// Writes one item, unless it is dropped, and adds it to the fingerprint.
    fn write_item(&self, n: usize, hash: &mut fingerprint::Document, out: &mut Vec<u8>) {
        let item = self.pages.items[n];
        let Choice { dropped, id, id_hash } = self.choices[n];
        if dropped {
            return;
        }
        let made = id.of(&self.made);
        hash.child(self.pages.key, if made.is_empty() { item.id_hash } else { id_hash }, item.hash);

        let text = self.pages.text(item.document);
        out.push(b'\n');
        out.extend_from_slice(Span { start: item.span.start, end: item.name_end }.of(text));
        self.write_declarations(text, item, out);
        let mut at = item.name_end;
        if !made.is_empty() {
            if let Some(id) = item.id {
                out.extend_from_slice(Span { start: at, end: id.start }.of(text));
                out.extend_from_slice(made);
                at = id.end;
            } else {
                out.extend_from_slice(b" id=\"");
                out.extend_from_slice(made);
                out.push(b'"');
            }
        }
        for edit in &self.pages.edits[item.edits.start as usize..item.edits.end as usize] {
            out.extend_from_slice(Span { start: at, end: edit.span.start }.of(text));
            match edit.with {
                With::Nothing => {}
                With::Basic(basic) => out.extend_from_slice(basic.as_str().as_bytes()),
                With::Language => self.write_language(text, item.document, out),
                With::Moved(moved) => {
                    for &moved in &self.pages.moved[moved.start as usize..moved.end as usize] {
                        out.extend_from_slice(item.indent.of(text));
                        self.write_moved(text, item.document, moved, out);
                    }
                }
            }
            at = edit.span.end;
        }
        out.extend_from_slice(Span { start: at, end: item.span.end }.of(text));
    }

    /// Writes into a start tag the declarations of the publisher's root that the item needs and ours does not have.
    fn write_declarations(&self, text: &[u8], item: Item, out: &mut Vec<u8>) {
        let page = self.pages.pages[item.document as usize];
        let mut differing = self.differing[item.document as usize] & !item.redeclared;
        while differing != 0 {
            let bit = differing.trailing_zeros();
            differing &= differing - 1;
            let declaration = self.pages.declarations[(page.declarations.start + bit) as usize];
            let needed = match declaration.prefix.of(text) {
                b"" => item.uses_default,
                prefix => mentions(item.span.of(text), prefix),
            };
            if needed {
                push_attribute(text, declaration.span, out);
            }
        }
        // Our root gives a default namespace where the publisher's gave none.
        if item.uses_default && !page.has_default {
            out.extend_from_slice(b" xmlns=\"\"");
        }
    }

    /// Writes a note that is moved out of its `status`.
    fn write_moved(&self, text: &[u8], document: u32, moved: Moved, out: &mut Vec<u8>) {
        out.extend_from_slice(Span { start: moved.span.start, end: moved.name_end }.of(text));
        for (bit, n) in (moved.declarations.start..moved.declarations.end).enumerate() {
            if moved.redeclared & (1 << bit) == 0 {
                push_attribute(text, self.pages.declarations[n as usize].span, out);
            }
        }
        if moved.language {
            self.write_language(text, document, out);
        }
        out.extend_from_slice(Span { start: moved.name_end, end: moved.span.end }.of(text));
    }

    /// Writes the `xml:lang` of a publisher's root into a start tag.
    fn write_language(&self, text: &[u8], document: u32, out: &mut Vec<u8>) {
        if let Some(language) = self.pages.pages[document as usize].language {
            push_attribute(text, language.span(), out);
        }
    }

    /// Finds the note that goes with the state.
    fn choose_note(&self, basic: Basic, note: &mut Vec<u8>) {
        if self.pages.notes.is_empty() {
            return;
        }
        let newest = self.newest.iter().flat_map(|&page| {
            let items = self.pages.pages[page as usize].items;
            &self.pages.items[items.start as usize..items.end as usize]
        });
        let oldest = || self.items.iter().map(|&n| &self.pages.items[n as usize]);
        let of_tuple = oldest().filter(|it| it.kind == Kind::Tuple && it.basic == basic);
        let of_presentity = oldest().filter(|it| it.kind == Kind::Note);
        let of_person = newest.filter(|it| it.kind == Kind::Person);
        let first = of_tuple.chain(of_presentity).chain(of_person).find(|it| !it.note.is_empty());
        if let Some(item) = first {
            note.extend_from_slice(item.note.of(&self.pages.notes));
        }
    }

    /// The prefix that a declaration of a page declares.
    fn prefix_of(&self, declaration: Declaration) -> &[u8] {
        declaration.prefix.of(self.pages.text(declaration.document))
    }
}

impl std::fmt::Debug for Composer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composer").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// Appends an attribute as it was published.
fn push_attribute(text: &[u8], attribute: Span, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(attribute.of(text));
}
