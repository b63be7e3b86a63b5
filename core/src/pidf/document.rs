//! One published document, read into what composition needs: its children with their places, hashes and changes.
//!
//! Nothing is built: an [`Item`] says where a child of the root stands in the text and which few bytes of it are
//! written otherwise ([`Edit`]).

use super::Basic;
use crate::xml::bounds;
use crate::xml::fingerprint::{self, Key};
use crate::xml::malformed::Malformed;
use crate::xml::namespace::{Bindings, Known, xml_hash};
use crate::xml::run::Run;
use crate::xml::scan::{Attribute, QName, Scanner, Span, Token, append_text};
use crate::xml::text::{is_blank, trim};

/// What a child of the root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `tuple` (RFC 3863 §4.1.2).
    Tuple,
    /// `note` about the presentity (RFC 3863 §4.1.6).
    Note,
    /// `person` (RFC 4479 §3.2).
    Person,
    /// `device` (RFC 4479 §3.4).
    Device,
    /// Any other extension.
    Other,
}

impl Kind {
    /// True when the element is told from others by its `id`.
    pub(super) const fn has_id(self) -> bool {
        matches!(self, Self::Tuple | Self::Person | Self::Device)
    }
}

/// A child of the root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Number of its document in the order of reading.
    pub(super) document: u32,
    /// What it is.
    pub(super) kind: Kind,
    /// The whole element.
    pub(super) span: Span,
    /// End of the element's name in its start tag: where attributes may be put in.
    pub(super) name_end: u32,
    /// Value of its `id` as written.
    pub(super) id: Option<Span>,
    /// Hash of the value of its `id`; zero without.
    pub(super) id_hash: u64,
    /// Hash of its meaning, the `id` left out where [`Kind::has_id`].
    pub(super) hash: u64,
    /// State of a tuple.
    pub(super) basic: Basic,
    /// First note in it that has text, as a range of [`Pages::notes`].
    pub(super) note: Span,
    /// Changes, as a range of [`Pages::edits`].
    pub(super) edits: Span,
    /// Notes of [`Pages::moved`] from here on have left their `status`, but have no place yet.
    moved: u32,
    /// White space in front of the first child element, for what is moved in.
    pub(super) indent: Span,
    /// Bit `n` is set when its start tag declares the prefix of the root's declaration `n` itself.
    pub(super) redeclared: u32,
    /// True when an element in it takes the root's default namespace, or takes none for want of a declaration.
    pub(super) uses_default: bool,
}

/// A place in an item that is written otherwise than it was published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    /// The bytes that are left out.
    pub(super) span: Span,
    /// What stands there instead.
    pub(super) with: With,
}

/// What an [`Edit`] puts in.
#[derive(Clone, Copy, Debug)]
pub(super) enum With {
    /// Nothing.
    Nothing,
    /// The state in the letters of the schema.
    Basic(Basic),
    /// The language that the publisher's root gave.
    Language,
    /// Notes that are moved out of `status`, as a range of [`Pages::moved`].
    Moved(Span),
}

/// A note that is moved out of `status`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    /// The whole element.
    pub(super) span: Span,
    /// End of its name in its start tag.
    pub(super) name_end: u32,
    /// The declarations of the `status` that it leaves, as a range of [`Pages::declarations`].
    pub(super) declarations: Span,
    /// Bit `n` is set when the note declares the prefix of declaration `n` of the `status` itself.
    pub(super) redeclared: u32,
    /// True when it takes the language of the root.
    pub(super) language: bool,
    /// Hash of its meaning.
    pub(super) hash: u64,
}

/// A namespace declaration of a root, or of a `status` with notes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declaration {
    /// Number of its document in the order of reading.
    pub(super) document: u32,
    /// The declared prefix, empty for the default namespace.
    pub(super) prefix: Span,
    /// The declaration as written.
    pub(super) span: Span,
    /// Hash of the namespace's name; zero for none.
    pub(super) namespace: u64,
}

/// What is known of one document as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// Its text, as a range of [`Pages::texts`].
    text: Span,
    /// The root's declarations, as a range of [`Pages::declarations`].
    pub(super) declarations: Span,
    /// Its items, as a range of [`Pages::items`].
    pub(super) items: Span,
    /// The root's `xml:lang`.
    pub(super) language: Option<Attribute>,
    /// True when the root declares a default namespace.
    pub(super) has_default: bool,
}

/// Documents that have been read, and the scratch to read more.
#[derive(Default)]
pub(super) struct Pages {
    /// Key of all hashes.
    pub(super) key: Key,
    /// The documents.
    pub(super) pages: Vec<Page>,
    /// Children of their roots.
    pub(super) items: Vec<Item>,
    /// Changes in items.
    pub(super) edits: Vec<Edit>,
    /// Notes to move.
    pub(super) moved: Vec<Moved>,
    /// Declarations to repeat.
    pub(super) declarations: Vec<Declaration>,
    /// Texts of notes, unescaped.
    pub(super) notes: Vec<u8>,
    /// Texts of the documents, each with its padding.
    texts: Vec<u8>,
    /// Elements that are open, root first.
    frames: Vec<Frame>,
    /// Declarations in scope.
    bindings: Bindings,
    /// Attributes of the current start tag.
    attributes: Vec<Attribute>,
    /// Hash of the namespace of each; of a declaration, of the namespace that it declares.
    namespaces: Vec<u64>,
    /// Character data since the last tag.
    run: Run,
    /// Scratch for the value of one attribute.
    value: Vec<u8>,
}

/// What an element means, by where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Presence,
    Child(Kind),
    Status,
    Basic,
    /// A note anywhere but in `status`.
    Note,
    StatusNote,
    Timestamp,
    Inner,
}

/// An element that is open.
struct Frame {
    /// Its name as written.
    name: Span,
    /// Where its start tag begins and ends.
    tag: Span,
    role: Role,
    /// How many declarations were in scope around it.
    bindings: u8,
    /// Its meaning so far.
    hash: fingerprint::Element,
    /// True once a child element has begun.
    has_child: bool,
    /// True when `xml:lang` is given here or further out, the root not counted.
    language: bool,
    /// Where the last child element ended that is not a time stamp.
    children_end: u32,
    /// Declarations of a `status`, as a range of [`Pages::declarations`].
    declarations: Span,
}

impl Pages {
    /// Forgets all documents.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
        self.items.clear();
        self.edits.clear();
        self.moved.clear();
        self.declarations.clear();
        self.notes.clear();
        self.texts.clear();
    }

    /// Reads one document more. After an error nothing but [`Pages::clear`] may follow.
    pub(super) fn read(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut texts = std::mem::take(&mut self.texts);
        let start = texts.len();
        let result = append_text(body, &mut texts)
            .and_then(|len| self.read_text(&texts[start..], Span::new(start, start + len)));
        self.texts = texts;
        result
    }

    /// The text of a document, in which its spans are.
    pub(super) fn text(&self, document: u32) -> &[u8] {
        self.pages[document as usize].text.of(&self.texts)
    }

    /// Reads the document whose padded text is `text`, and whose place is `place`.
    fn read_text(&mut self, text: &[u8], place: Span) -> Result<(), Malformed> {
        self.frames.clear();
        self.bindings.clear();
        self.run.clear();
        let mut scanner = Scanner::new(text, (place.end - place.start) as usize);
        let mut rooted = false;
        // Where the white space in front of the current token begins.
        let mut gap = 0;
        loop {
            let (token, span) = scanner.next(&mut self.attributes)?;
            let at = span.start as usize;
            let outside = self.frames.is_empty();
            match token {
                Token::Start { name, empty } => {
                    if !outside {
                        self.open(text, name, span, gap)?;
                    } else if rooted {
                        return Err(Malformed::OutsideRoot(at));
                    } else {
                        self.open_root(text, place, name, span)?;
                        rooted = true;
                    }
                    if empty {
                        self.close(text, span);
                    }
                }
                Token::End(name) => {
                    let frame = self.frames.last().ok_or(Malformed::EndTag(at))?;
                    if frame.name.of(text) != name.of(text) {
                        return Err(Malformed::EndTag(at));
                    }
                    self.close(text, span);
                }
                Token::Text { blank, plain } => {
                    if !outside {
                        self.run.push(text, span, blank, plain);
                    } else if !blank {
                        return Err(Malformed::OutsideRoot(at));
                    }
                    continue;
                }
                Token::CData(_) | Token::Reference(_) if outside => return Err(Malformed::OutsideRoot(at)),
                Token::CData(content) => self.run.push_section(text, content),
                Token::Reference(char) => self.run.push_char(text, char),
                Token::Aside => {}
                Token::Done if !outside => return Err(Malformed::Unclosed(at)),
                Token::Done if !rooted => return Err(Malformed::NoRoot),
                Token::Done => return Ok(()),
            }
            gap = span.end;
        }
    }

    /// Opens the root of the document whose place is `place`.
    fn open_root(&mut self, text: &[u8], place: Span, name: QName, tag: Span) -> Result<(), Malformed> {
        let at = tag.start as usize;
        let declares = self.take_declarations(text, 1)?;
        let namespace = self.bindings.element(self.key, text, name)?;
        self.check_attributes(text)?;
        if namespace.known != Known::Pidf || name.local().of(text) != b"presence" {
            return Err(Malformed::NotPresence(at));
        }
        let entity = self.attributes.iter().find(|it| it.name.span().of(text) == b"entity");
        if entity.is_none_or(|entity| is_blank(entity.raw.of(text))) {
            return Err(Malformed::NoEntity(at));
        }
        let language = self.language(text);
        let document = self.pages.len() as u32;
        let items = Span::new(self.items.len(), self.items.len());
        let declarations = if declares { self.keep_declarations(document) } else { Span::default() };
        let has_default = self.bindings.has_default();
        self.pages.push(Page { text: place, declarations, items, language, has_default });
        self.frames.push(Frame {
            name: name.span(),
            tag,
            role: Role::Presence,
            bindings: 0,
            hash: fingerprint::Element::new(self.key, namespace.hash, b"presence", 0),
            has_child: false,
            language: false,
            children_end: tag.end,
            declarations,
        });
        Ok(())
    }

    /// Opens an element inside of the root. `gap` is where the white space in front of it begins.
    fn open(&mut self, text: &[u8], name: QName, tag: Span, gap: u32) -> Result<(), Malformed> {
        let depth = self.frames.len() + 1;
        if depth > bounds::DEPTH_MAX {
            return Err(Malformed::TooDeep(tag.start as usize));
        }
        let around = self.bindings.len();
        // Most elements have no attributes.
        let plain = self.attributes.is_empty();
        let declares = !plain && self.take_declarations(text, depth as u8)?;
        let namespace = self.bindings.element(self.key, text, name)?;
        if !plain {
            self.check_attributes(text)?;
        }

        let parent = self.frames.last_mut().expect("the root is open");
        let spaced = self.run.is_blank();
        if !spaced {
            parent.hash.text(self.key, self.run.of(text));
        }
        self.run.clear();
        let first_child = !std::mem::replace(&mut parent.has_child, true);
        let local = name.local().of(text);
        let role = Role::of(parent.role, namespace.known, local);
        let in_tuple = parent.role == Role::Child(Kind::Tuple);
        let status_declarations = parent.declarations;
        let language = parent.language || (!plain && self.language(text).is_some());

        // A note speaks the language of the elements around it. The publisher's root is not copied, so what it says
        // about the language is put on the note.
        let document = self.pages.len() - 1;
        let inherited = self.pages[document].language.filter(|_| role.is_note() && !language);
        let mut sum = 0;
        if !plain {
            sum = self.sum_attributes(text, matches!(role, Role::Child(kind) if kind.has_id()));
        }
        if let Some(attribute) = inherited {
            sum = sum.wrapping_add(self.attribute_hash(text, attribute, xml_hash(self.key)));
        }

        let name_end = name.end;
        if let Role::Child(kind) = role {
            self.push_item(text, name_end, tag, kind, declares)?;
        } else if in_tuple && first_child && spaced {
            self.item().indent = Span { start: gap, end: tag.start };
        } else if in_tuple && role == Role::Note {
            let mut tuple = self.frames.pop().expect("the tuple is open");
            self.place_moved(&mut tuple);
            self.frames.push(tuple);
        }
        if namespace.depth <= 1 && !name.has_prefix() {
            self.item().uses_default = true;
        }
        if role == Role::StatusNote {
            let redeclared = self.redeclared(text, status_declarations);
            let start = if spaced { gap } else { tag.start };
            // Both spans get their end when the note closes.
            self.edits.push(Edit { span: Span { start, end: tag.end }, with: With::Nothing });
            self.moved.push(Moved {
                span: tag,
                name_end,
                declarations: status_declarations,
                redeclared,
                language: inherited.is_some(),
                hash: 0,
            });
        } else if inherited.is_some() {
            self.edits.push(Edit { span: Span { start: name_end, end: name_end }, with: With::Language });
        }
        let declarations = if role == Role::Status && declares {
            self.keep_declarations(document as u32)
        } else {
            Span::default()
        };
        self.frames.push(Frame {
            name: name.span(),
            tag,
            role,
            bindings: around,
            hash: fingerprint::Element::new(self.key, namespace.hash, local, sum),
            has_child: false,
            language,
            children_end: tag.end,
            declarations,
        });
        Ok(())
    }

    /// Closes the innermost element with its end tag, or its empty-element tag.
    fn close(&mut self, text: &[u8], tag: Span) {
        let mut frame = self.frames.pop().expect("an element is open");
        self.bindings.leave(frame.bindings);
        let run = self.run.of(text);
        let basic = match frame.role {
            Role::Basic if !frame.has_child => Basic::read(trim(run)),
            _ => Basic::Unknown,
        };
        if basic != Basic::Unknown {
            frame.hash.text(self.key, basic.as_str().as_bytes());
            self.keep_basic(text, basic, Span { start: frame.tag.end, end: tag.start });
        } else if !self.run.is_blank() || !(frame.has_child || run.is_empty()) {
            // White space is content where it stands alone in an element without children.
            frame.hash.text(self.key, run);
        }
        if frame.role.is_note() && !frame.has_child {
            self.keep_note(text);
        }
        self.run.clear();
        let whole = Span { start: frame.tag.start, end: tag.end };
        match frame.role {
            Role::Presence | Role::Timestamp => return,
            Role::Child(_) => return self.close_item(frame, whole),
            Role::StatusNote => {
                let cut = self.edits.iter_mut().rev().find(|edit| matches!(edit.with, With::Nothing));
                cut.expect("pushed when the note opened").span.end = whole.end;
                let moved = self.moved.last_mut().expect("pushed when the note opened");
                moved.span = whole;
                moved.hash = frame.hash.finish(self.key);
                return;
            }
            _ => {}
        }
        let parent = self.frames.last_mut().expect("only the root has no parent");
        parent.hash.child(self.key, frame.hash.finish(self.key));
        parent.children_end = whole.end;
    }

    /// Begins a child of the root.
    fn push_item(
        &mut self,
        text: &[u8],
        name_end: u32,
        tag: Span,
        kind: Kind,
        declares: bool,
    ) -> Result<(), Malformed> {
        let page = *self.pages.last().expect("the root is open");
        if (page.items.end - page.items.start) as usize == bounds::CHILDREN_MAX {
            return Err(Malformed::TooManyChildren(tag.start as usize));
        }
        let redeclared = if declares { self.redeclared(text, page.declarations) } else { 0 };
        let id = if kind.has_id() {
            self.attributes.iter().find(|it| it.name.span().of(text) == b"id").copied()
        } else {
            None
        };
        let id_hash = id.map_or(0, |id| self.key.of(id.value(text, &mut self.value)));
        let edits = self.edits.len();
        let moved = self.moved.len() as u32;
        self.items.push(Item {
            document: self.pages.len() as u32 - 1,
            kind,
            span: tag,
            name_end,
            id: id.map(|id| id.raw),
            id_hash,
            hash: 0,
            basic: Basic::Unknown,
            note: Span::default(),
            edits: Span::new(edits, edits),
            moved,
            indent: Span::default(),
            redeclared,
            uses_default: false,
        });
        let page = self.pages.last_mut().expect("the root is open");
        page.items.end += 1;
        Ok(())
    }

    /// Ends a child of the root, which takes the whole of `span`.
    fn close_item(&mut self, mut frame: Frame, span: Span) {
        self.place_moved(&mut frame);
        let edits_end = self.edits.len() as u32;
        let hash = frame.hash.finish(self.key);
        let item = self.item();
        item.span = span;
        item.hash = hash;
        item.edits.end = edits_end;
    }

    /// Gives the notes that have left their `status` their place: behind the children of the tuple `frame` so far.
    ///
    /// RFC 3863 §4.4: the notes of a tuple stand behind all but the time stamp. Those of `status` go before its own,
    /// as they stood.
    fn place_moved(&mut self, frame: &mut Frame) {
        let moved = Span::new(self.item().moved as usize, self.moved.len());
        if moved.is_empty() {
            return;
        }
        for moved in &self.moved[moved.start as usize..] {
            frame.hash.child(self.key, moved.hash);
        }
        let place = Span { start: frame.children_end, end: frame.children_end };
        self.edits.push(Edit { span: place, with: With::Moved(moved) });
        self.item().moved = moved.end;
    }

    /// The child of the root that is open.
    fn item(&mut self) -> &mut Item {
        self.items.last_mut().expect("a child of the root is open")
    }

    /// Takes the state of a tuple, which stands in `inner`.
    fn keep_basic(&mut self, text: &[u8], basic: Basic, inner: Span) {
        if inner.of(text) != basic.as_str().as_bytes() {
            self.edits.push(Edit { span: inner, with: With::Basic(basic) });
        }
        let item = self.item();
        if item.basic == Basic::Unknown {
            item.basic = basic;
        }
    }

    /// Takes the text of a note, if it is the item's first with any.
    fn keep_note(&mut self, text: &[u8]) {
        let note = trim(self.run.of(text));
        let start = self.notes.len();
        let item = self.items.last_mut().expect("a note is in a child of the root");
        if item.note == Span::default() && !note.is_empty() {
            self.notes.extend_from_slice(note);
            item.note = Span::new(start, self.notes.len());
        }
    }

    /// Takes the declarations among the attributes of an element at `depth`; says whether there are any.
    fn take_declarations(&mut self, text: &[u8], depth: u8) -> Result<bool, Malformed> {
        self.namespaces.clear();
        let mut declares = false;
        for attribute in &self.attributes {
            let namespace = if attribute.declares {
                declares = true;
                self.bindings.enter(self.key, text, attribute, depth)?.hash
            } else {
                0
            };
            self.namespaces.push(namespace);
        }
        Ok(declares)
    }

    /// Keeps the declarations of the current start tag.
    fn keep_declarations(&mut self, document: u32) -> Span {
        let start = self.declarations.len();
        for (attribute, &namespace) in self.attributes.iter().zip(&self.namespaces) {
            if attribute.declares {
                let (prefix, span) = (attribute.declared(), attribute.span());
                self.declarations.push(Declaration { document, prefix, span, namespace });
            }
        }
        Span::new(start, self.declarations.len())
    }

    /// Bit `n` is set when the current start tag declares the prefix of number `n` of `declarations` itself.
    fn redeclared(&self, text: &[u8], declarations: Span) -> u32 {
        let mut bits = 0;
        let declarations = &self.declarations[declarations.start as usize..declarations.end as usize];
        for attribute in self.attributes.iter().filter(|attribute| attribute.declares) {
            for (n, declaration) in declarations.iter().enumerate() {
                if declaration.prefix.of(text) == attribute.declared().of(text) {
                    bits |= 1 << n;
                }
            }
        }
        bits
    }

    /// The `xml:lang` of the current start tag; the prefix `xml` cannot be bound to anything else.
    fn language(&self, text: &[u8]) -> Option<Attribute> {
        self.attributes
            .iter()
            .find(|it| it.name.has_prefix() && it.name.span().of(text) == b"xml:lang")
            .copied()
    }

    /// Finds the namespaces of the current attributes and checks that no two have one name (Namespaces in XML §6.3).
    fn check_attributes(&mut self, text: &[u8]) -> Result<(), Malformed> {
        for n in 0..self.attributes.len() {
            let attribute = self.attributes[n];
            if !attribute.declares {
                self.namespaces[n] = self.bindings.attribute(self.key, text, attribute.name)?.hash;
            }
            let namespace = self.namespaces[n];
            let local = attribute.name.local().of(text);
            let twice = self.attributes[..n].iter().zip(&self.namespaces).any(|(other, &theirs)| {
                other.declares == attribute.declares
                    && (attribute.declares || theirs == namespace)
                    && other.name.local().of(text) == local
            });
            if twice {
                return Err(Malformed::DuplicateAttribute(attribute.span().start as usize));
            }
        }
        Ok(())
    }

    /// Sum of the hashes of the current attributes, without declarations, and without `id` if it is told apart.
    fn sum_attributes(&mut self, text: &[u8], skip_id: bool) -> u64 {
        let mut sum = 0_u64;
        for n in 0..self.attributes.len() {
            let (attribute, namespace) = (self.attributes[n], self.namespaces[n]);
            if attribute.declares || (skip_id && attribute.name.span().of(text) == b"id") {
                continue;
            }
            sum = sum.wrapping_add(self.attribute_hash(text, attribute, namespace));
        }
        sum
    }

    /// Hash of one attribute.
    fn attribute_hash(&mut self, text: &[u8], attribute: Attribute, namespace: u64) -> u64 {
        let value = attribute.value(text, &mut self.value);
        self.key.attribute(namespace, attribute.name.local().of(text), value)
    }
}

impl Role {
    /// The role of the element `local` in an element of role `parent`.
    fn of(parent: Self, known: Known, local: &[u8]) -> Self {
        match (parent, known, local) {
            (Self::Presence, Known::Pidf, b"tuple") => Self::Child(Kind::Tuple),
            (Self::Presence, Known::Pidf, b"note") => Self::Child(Kind::Note),
            (Self::Presence, Known::DataModel, b"person") => Self::Child(Kind::Person),
            (Self::Presence, Known::DataModel, b"device") => Self::Child(Kind::Device),
            (Self::Presence, _, _) => Self::Child(Kind::Other),
            (Self::Child(Kind::Tuple), Known::Pidf, b"status") => Self::Status,
            (Self::Child(Kind::Tuple), Known::Pidf, b"note") => Self::Note,
            (Self::Child(Kind::Person | Kind::Device), Known::DataModel, b"note") => Self::Note,
            (
                Self::Child(Kind::Tuple | Kind::Person | Kind::Device),
                Known::Pidf | Known::DataModel,
                b"timestamp",
            ) => Self::Timestamp,
            (Self::Status, Known::Pidf, b"basic") => Self::Basic,
            (Self::Status, Known::Pidf, b"note") => Self::StatusNote,
            _ => Self::Inner,
        }
    }

    /// True for the notes that people read.
    const fn is_note(self) -> bool {
        matches!(self, Self::Note | Self::StatusNote | Self::Child(Kind::Note))
    }
}
