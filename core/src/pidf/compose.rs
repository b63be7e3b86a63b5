//! Composition: one document of all live publications of a presentity (RFC 3903 §3, RFC 4479 §3.5).

use smallvec::SmallVec;

use super::Basic;
use super::bounds;
use super::document::{Declaration, Item, Kind, Moved, Pages, With};
use super::fingerprint;
use super::malformed::Malformed;
use super::namespace::{PIDF, pidf_hash};
use super::scan::Span;
use super::text::{attribute_value, escape_uri};
use super::write;
use crate::limits::PUBLICATIONS_PER_PRESENTITY_MAX;

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
    /// Numbers of the pages, the last changed first.
    newest: Vec<u32>,
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

/// The publications in the order in which they are read; all that a node allows fit without allocation.
type Sources<'a> = SmallVec<[Source<'a>; PUBLICATIONS_PER_PRESENTITY_MAX]>;

/// A publication as a page.
struct Source<'a> {
    /// [`Published::number`].
    number: u64,
    /// [`Published::published_at_ms`].
    changed: u64,
    /// [`Published::body`].
    body: &'a [u8],
    /// The text of the body, in which the spans of the page are.
    text: &'a str,
}

impl<'a> Source<'a> {
    /// A publication that is not read yet.
    fn new(published: &Published<'a>) -> Self {
        let &Published { number, published_at_ms: changed, body } = published;
        Self { number, changed, body, text: "" }
    }
}

/// What becomes of an item.
#[derive(Clone, Copy, Default)]
struct Choice {
    /// It is left out, another item saying the same.
    dropped: bool,
    /// Its identifier, as a range of [`Composer::made`]; empty if the published one is kept.
    id: Span,
}

impl Composer {
    /// A composer that writes `entity` with `scheme`.
    #[must_use]
    pub fn with_entity_scheme(scheme: EntityScheme) -> Self {
        Self { scheme, ..Self::default() }
    }

    /// Checks one document and tells what it says. The fingerprint does not cover `entity`, and differs from that of
    /// any composition.
    ///
    /// # Errors
    /// The first fault found.
    pub fn read(&mut self, body: &[u8]) -> Result<Summary, Malformed> {
        self.pages.clear();
        self.pages.read(body)?;
        let mut summary = Summary { basic: Basic::Unknown, fingerprint: 0, tuples: 0 };
        let mut hash = fingerprint::Document::new(b"", b"");
        for item in &self.pages.items {
            if item.kind == Kind::Tuple {
                summary.basic = summary.basic.or(item.basic);
                summary.tuples += 1;
            }
            hash.child(&item.id_hash.to_le_bytes(), item.hash);
        }
        summary.fingerprint = hash.finish();
        Ok(summary)
    }

    /// Writes the composed document of `published` into `out`, and into `note` the first note for people that goes
    /// with its state, as plain text: of a tuple in the state of the whole, else about the presentity, else of a
    /// person. Both are emptied first. `aor` is canonical, without scheme.
    ///
    /// Without publications the document has no tuples.
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
        let sources = self.read_all(published)?;
        let sources = &sources[..];
        self.choose_root(sources);
        self.choose_items(sources);

        write::prolog(out);
        out.extend_from_slice(b"<presence xmlns=\"");
        out.extend_from_slice(PIDF.as_bytes());
        out.extend_from_slice(b"\" entity=\"");
        out.extend_from_slice(self.scheme.as_str().as_bytes());
        escape_uri(aor, out);
        out.push(b'"');
        for declaration in &self.root {
            push_attribute(sources[declaration.document as usize].text, declaration.span, out);
        }
        out.push(b'>');
        let summary = self.write_items(aor, sources, out);
        out.extend_from_slice(b"\n</presence>\n");
        self.choose_note(summary.basic, note);
        Ok(summary)
    }

    /// Reads the publications in the order of their numbers.
    fn read_all<'a>(&mut self, published: &[Published<'a>]) -> Result<Sources<'a>, Malformed> {
        self.pages.clear();
        let mut sources: Sources<'a> = published.iter().map(Source::new).collect();
        sources.sort_unstable_by_key(|source| (source.number, source.changed));
        for source in &mut sources {
            source.text = self.pages.read(source.body)?;
        }
        self.newest.clear();
        self.newest.extend(0..sources.len() as u32);
        self.newest.sort_unstable_by_key(|&page| {
            let source = &sources[page as usize];
            std::cmp::Reverse((source.changed, source.number))
        });
        Ok(sources)
    }

    /// Gathers the prefixes of the publishers' roots for ours: the first to declare one has it.
    fn choose_root(&mut self, sources: &[Source<'_>]) {
        self.root.clear();
        self.differing.clear();
        for page in &self.pages.pages {
            let mut differing = 0;
            for (bit, n) in (page.declarations.start..page.declarations.end).enumerate() {
                let declaration = self.pages.declarations[n as usize];
                let prefix = prefix_of(sources, declaration);
                // The default namespace of our root is PIDF, and `xml` needs no declaration.
                let ours = if prefix.is_empty() {
                    Some(pidf_hash())
                } else if prefix == "xml" {
                    continue;
                } else {
                    let same = |it: &&Declaration| prefix_of(sources, **it) == prefix;
                    self.root.iter().find(same).map(|it| it.namespace)
                };
                if ours.is_none() && self.root.len() < bounds::ROOT_PREFIXES_MAX {
                    self.root.push(declaration);
                } else if ours != Some(declaration.namespace) {
                    differing |= 1 << bit;
                }
            }
            self.differing.push(differing);
        }
    }

    /// Decides for each item whether it is given, and under what identifier.
    fn choose_items(&mut self, sources: &[Source<'_>]) {
        self.choices.clear();
        self.choices.resize(self.pages.items.len(), Choice::default());
        self.ids.clear();
        self.made.clear();
        for n in 0..self.pages.items.len() {
            let item = self.pages.items[n];
            if !item.kind.has_id() {
                continue;
            }
            if item.id.is_some() {
                match self.ids.binary_search_by_key(&item.id_hash, |id| id.0) {
                    Err(place) => {
                        self.ids.insert(place, (item.id_hash, n as u32));
                        continue;
                    }
                    Ok(place) if self.says_the_same(item, self.ids[place].1) => {
                        self.drop_older(sources, place, n as u32);
                        continue;
                    }
                    Ok(_) => {}
                }
            }
            self.make_id(sources, n);
        }
    }

    /// True when `item` and the item of number `other`, which have one identifier, may be given once.
    fn says_the_same(&self, item: Item, other: u32) -> bool {
        let other = self.pages.items[other as usize];
        item.kind != Kind::Tuple && item.kind == other.kind && item.hash == other.hash
    }

    /// Of two items that say the same keeps the one of the publication that changed last.
    fn drop_older(&mut self, sources: &[Source<'_>], place: usize, item: u32) {
        let other = self.ids[place].1;
        let changed = |item: u32| {
            let page = self.pages.items[item as usize].document;
            sources[page as usize].changed
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
    fn make_id(&mut self, sources: &[Source<'_>], n: usize) {
        let item = self.pages.items[n];
        let number = sources[item.document as usize].number;
        let raw = item.id.map_or("", |id| id.of(sources[item.document as usize].text));
        // An identifier is an XML name (xs:ID), so it starts with a letter.
        let raw = if raw.is_empty() { "t" } else { raw };
        let start = self.made.len();
        for attempt in 0_usize.. {
            self.made.truncate(start);
            self.made.extend_from_slice(raw.as_bytes());
            self.made.push(b'-');
            let mut decimal = itoa::Buffer::new();
            self.made.extend_from_slice(decimal.format(number).as_bytes());
            if attempt > 0 {
                self.made.push(b'-');
                let ordinal = n - self.pages.pages[item.document as usize].items.start as usize;
                self.made.extend_from_slice(decimal.format(ordinal + attempt).as_bytes());
            }
            let made = std::str::from_utf8(&self.made[start..]).expect("made of a str and digits");
            let hash = fingerprint::of(attribute_value(made, &mut self.value));
            if let Err(place) = self.ids.binary_search_by_key(&hash, |id| id.0) {
                self.ids.insert(place, (hash, n as u32));
                break;
            }
        }
        self.choices[n].id = Span::new(start, self.made.len());
    }

    /// Writes the items in the order of the document.
    fn write_items(&mut self, aor: &[u8], sources: &[Source<'_>], out: &mut Vec<u8>) -> Summary {
        let mut summary = Summary { basic: Basic::Unknown, fingerprint: 0, tuples: 0 };
        let mut hash = fingerprint::Document::new(self.scheme.as_str().as_bytes(), aor);
        for open in [true, false] {
            for n in 0..self.pages.items.len() {
                let item = self.pages.items[n];
                if item.kind == Kind::Tuple && (item.basic == Basic::Open) == open {
                    summary.basic = summary.basic.or(item.basic);
                    summary.tuples += 1;
                    self.write_item(sources, n, &mut hash, out);
                }
            }
        }
        self.given.clear();
        self.write_kind(sources, Kind::Note, &mut hash, out);
        for place in 0..self.newest.len() {
            let items = self.pages.pages[self.newest[place] as usize].items;
            for n in items.start..items.end {
                if self.pages.items[n as usize].kind == Kind::Person {
                    self.write_item(sources, n as usize, &mut hash, out);
                }
            }
        }
        self.write_kind(sources, Kind::Device, &mut hash, out);
        self.write_kind(sources, Kind::Other, &mut hash, out);
        summary.fingerprint = hash.finish();
        summary
    }

    /// Writes the items of one kind in the order of the publications' numbers; those without identifier once.
    fn write_kind(
        &mut self,
        sources: &[Source<'_>],
        kind: Kind,
        hash: &mut fingerprint::Document,
        out: &mut Vec<u8>,
    ) {
        for n in 0..self.pages.items.len() {
            let item = self.pages.items[n];
            if item.kind != kind {
                continue;
            }
            if !kind.has_id() {
                let Err(place) = self.given.binary_search(&item.hash) else { continue };
                self.given.insert(place, item.hash);
            }
            self.write_item(sources, n, hash, out);
        }
    }

    /// Writes one item, unless it is dropped, and adds it to the fingerprint.
    fn write_item(
        &mut self,
        sources: &[Source<'_>],
        n: usize,
        hash: &mut fingerprint::Document,
        out: &mut Vec<u8>,
    ) {
        let item = self.pages.items[n];
        let Choice { dropped, id } = self.choices[n];
        if dropped {
            return;
        }
        let text = sources[item.document as usize].text;
        let made = std::str::from_utf8(&self.made[id.start as usize..id.end as usize])
            .expect("made of a str and digits");
        let written = if made.is_empty() { item.id.map_or("", |id| id.of(text)) } else { made };
        hash.child(attribute_value(written, &mut self.value), item.hash);

        out.push(b'\n');
        out.extend_from_slice(Span { start: item.span.start, end: item.name_end }.of(text).as_bytes());
        self.write_declarations(text, item, out);
        let mut at = item.name_end;
        if !made.is_empty() {
            if let Some(id) = item.id {
                out.extend_from_slice(Span { start: at, end: id.start }.of(text).as_bytes());
                out.extend_from_slice(made.as_bytes());
                at = id.end;
            } else {
                out.extend_from_slice(b" id=\"");
                out.extend_from_slice(made.as_bytes());
                out.push(b'"');
            }
        }
        for edit in &self.pages.edits[item.edits.start as usize..item.edits.end as usize] {
            out.extend_from_slice(Span { start: at, end: edit.span.start }.of(text).as_bytes());
            match edit.with {
                With::Nothing => {}
                With::Basic(basic) => out.extend_from_slice(basic.as_str().as_bytes()),
                With::Language => self.write_language(text, item.document, out),
                With::Moved(moved) => {
                    for &moved in &self.pages.moved[moved.start as usize..moved.end as usize] {
                        out.extend_from_slice(item.indent.of(text).as_bytes());
                        self.write_moved(text, item.document, moved, out);
                    }
                }
            }
            at = edit.span.end;
        }
        out.extend_from_slice(Span { start: at, end: item.span.end }.of(text).as_bytes());
    }

    /// Writes into a start tag the declarations of the publisher's root that the item needs and ours does not have.
    fn write_declarations(&self, text: &str, item: Item, out: &mut Vec<u8>) {
        let page = self.pages.pages[item.document as usize];
        let declarations =
            &self.pages.declarations[page.declarations.start as usize..page.declarations.end as usize];
        let differing = self.differing[item.document as usize] & !item.redeclared;
        for (bit, declaration) in
            declarations.iter().enumerate().filter(|(bit, _)| differing & (1 << bit) != 0)
        {
            debug_assert!(bit < bounds::ATTRIBUTES_MAX);
            let needed = match declaration.prefix.of(text) {
                "" => item.uses_default,
                prefix => mentions(item.span.of(text), prefix),
            };
            if needed {
                push_attribute(text, declaration.span, out);
            }
        }
        // Our root gives a default namespace where the publisher's gave none.
        if item.uses_default && !declarations.iter().any(|it| it.prefix.of(text).is_empty()) {
            out.extend_from_slice(b" xmlns=\"\"");
        }
    }

    /// Writes a note that is moved out of its `status`.
    fn write_moved(&self, text: &str, document: u32, moved: Moved, out: &mut Vec<u8>) {
        out.extend_from_slice(Span { start: moved.span.start, end: moved.name_end }.of(text).as_bytes());
        for (bit, n) in (moved.declarations.start..moved.declarations.end).enumerate() {
            if moved.redeclared & (1 << bit) == 0 {
                push_attribute(text, self.pages.declarations[n as usize].span, out);
            }
        }
        if moved.language {
            self.write_language(text, document, out);
        }
        out.extend_from_slice(Span { start: moved.name_end, end: moved.span.end }.of(text).as_bytes());
    }

    /// Writes the `xml:lang` of a publisher's root into a start tag.
    fn write_language(&self, text: &str, document: u32, out: &mut Vec<u8>) {
        if let Some(language) = self.pages.pages[document as usize].language {
            push_attribute(text, language.span(), out);
        }
    }

    /// Finds the note that goes with the state.
    fn choose_note(&self, basic: Basic, note: &mut Vec<u8>) {
        let newest = self.newest.iter().flat_map(|&page| {
            let items = self.pages.pages[page as usize].items;
            &self.pages.items[items.start as usize..items.end as usize]
        });
        let of_tuple = self.pages.items.iter().filter(|it| it.kind == Kind::Tuple && it.basic == basic);
        let of_presentity = self.pages.items.iter().filter(|it| it.kind == Kind::Note);
        let of_person = newest.filter(|it| it.kind == Kind::Person);
        let first = of_tuple.chain(of_presentity).chain(of_person).find(|it| it.note != Span::default());
        if let Some(item) = first {
            note.extend_from_slice(&self.pages.notes[item.note.start as usize..item.note.end as usize]);
        }
    }
}

impl std::fmt::Debug for Composer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composer").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// Appends an attribute as it was published.
fn push_attribute(text: &str, attribute: Span, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(attribute.of(text).as_bytes());
}

/// True when `prefix:` occurs in an element, in a name or in content that may be a qualified name.
fn mentions(element: &str, prefix: &str) -> bool {
    memchr::memmem::find_iter(element.as_bytes(), prefix.as_bytes())
        .any(|at| element.as_bytes().get(at + prefix.len()) == Some(&b':'))
}

/// The prefix that a declaration of a page declares.
fn prefix_of<'a>(sources: &[Source<'a>], declaration: Declaration) -> &'a str {
    declaration.prefix.of(sources[declaration.document as usize].text)
}
