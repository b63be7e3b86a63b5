//! One published document, read into what composition needs: its children with their places, hashes and changes.
//!
//! Nothing is built: an [`Item`] says where a child of the root stands in the text and which few bytes of it are
//! written otherwise ([`Edit`]).

use super::Basic;
use super::bounds;
use super::fingerprint;
use super::malformed::Malformed;
use super::namespace::{Bindings, Known, xml_hash};
use super::scan::{Attribute, QName, Scanner, Span, Token, text_of};
use super::text::{attribute_value, is_blank, push_char, push_lines, trim};

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
    /// The root's declarations, as a range of [`Pages::declarations`].
    pub(super) declarations: Span,
    /// Its items, as a range of [`Pages::items`].
    pub(super) items: Span,
    /// The root's `xml:lang`.
    pub(super) language: Option<Attribute>,
}

/// Documents that have been read, and the scratch to read more.
#[derive(Default)]
pub(super) struct Pages {
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
    /// Elements that are open, root first.
    frames: Vec<Frame>,
    /// Declarations in scope.
    bindings: Bindings,
    /// Attributes of the current start tag.
    attributes: Vec<Attribute>,
    /// Hashes of the namespaces of these attributes.
    namespaces: Vec<u64>,
    /// Character data since the last tag.
    run: Vec<u8>,
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
    bindings: usize,
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
    }

    /// Reads one document and returns its text, in which all spans are. After an error nothing but [`Pages::clear`]
    /// may follow.
    pub(super) fn read<'a>(&mut self, body: &'a [u8]) -> Result<&'a str, Malformed> {
        let text = text_of(body)?;
        self.frames.clear();
        self.bindings.clear();
        self.run.clear();
        let mut scanner = Scanner::new(text);
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
                        self.open_root(text, name, span)?;
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
                Token::Text if outside => {
                    if !is_blank(span.of(text).as_bytes()) {
                        return Err(Malformed::OutsideRoot(at));
                    }
                }
                Token::CData(_) | Token::Reference(_) if outside => return Err(Malformed::OutsideRoot(at)),
                Token::Text => push_lines(&mut self.run, span.of(text).as_bytes()),
                Token::CData(content) => push_lines(&mut self.run, content.of(text).as_bytes()),
                Token::Reference(char) => push_char(&mut self.run, char),
                Token::Aside => {}
                Token::Done if !outside => return Err(Malformed::Unclosed(at)),
                Token::Done if !rooted => return Err(Malformed::NoRoot),
                Token::Done => return Ok(text),
            }
            if !matches!(token, Token::Text) {
                gap = span.end;
            }
        }
    }

    /// Opens the root.
    fn open_root(&mut self, text: &str, name: QName, tag: Span) -> Result<(), Malformed> {
        self.bindings.enter(text, &self.attributes, 1)?;
        let namespace = self.bindings.element(text, name)?;
        self.check_attributes(text)?;
        if namespace.known != Known::Pidf || name.local.of(text) != "presence" {
            return Err(Malformed::NotPresence(tag.start as usize));
        }
        let entity = self.attributes.iter().find(|attribute| attribute.name.span().of(text) == "entity");
        if entity.is_none_or(|entity| is_blank(entity.value.of(text).as_bytes())) {
            return Err(Malformed::NoEntity(tag.start as usize));
        }
        let language = self.language(text);
        let document = self.pages.len() as u32;
        let items = Span::new(self.items.len(), self.items.len());
        let declarations = self.keep_declarations(text, document);
        self.pages.push(Page { declarations, items, language });
        self.frames.push(Frame {
            name: name.span(),
            tag,
            role: Role::Presence,
            bindings: 0,
            hash: fingerprint::Element::new(namespace.hash, b"presence", 0),
            has_child: false,
            language: false,
            children_end: tag.end,
            declarations,
        });
        Ok(())
    }

    /// Opens an element inside of the root. `gap` is where the white space in front of it begins.
    fn open(&mut self, text: &str, name: QName, tag: Span, gap: u32) -> Result<(), Malformed> {
        let depth = self.frames.len() + 1;
        if depth > bounds::DEPTH_MAX {
            return Err(Malformed::TooDeep(tag.start as usize));
        }
        let around = self.bindings.len();
        self.bindings.enter(text, &self.attributes, depth)?;
        let namespace = self.bindings.element(text, name)?;
        self.check_attributes(text)?;

        let parent = self.frames.last_mut().expect("the root is open");
        let spaced = is_blank(&self.run);
        if !spaced {
            parent.hash.text(&self.run);
        }
        self.run.clear();
        let first_child = !std::mem::replace(&mut parent.has_child, true);
        let role = Role::of(parent.role, namespace.known, name.local.of(text));
        let in_tuple = parent.role == Role::Child(Kind::Tuple);
        let status_declarations = parent.declarations;
        let language = parent.language || self.attributes.iter().any(|it| is_language(it, text));

        // A note speaks the language of the elements around it. The publisher's root is not copied, so what it says
        // about the language is put on the note.
        let document = self.pages.len() - 1;
        let inherited = self.pages[document].language.filter(|_| role.is_note() && !language);
        let mut sum = self.sum_attributes(text, matches!(role, Role::Child(kind) if kind.has_id()));
        if let Some(attribute) = inherited {
            sum = sum.wrapping_add(self.attribute_hash(text, attribute, xml_hash()));
        }

        let name_end = name.local.end;
        if let Role::Child(kind) = role {
            self.push_item(text, name_end, tag, kind)?;
        } else if in_tuple && first_child && spaced {
            self.item().indent = Span { start: gap, end: tag.start };
        } else if in_tuple && role == Role::Note {
            let mut tuple = self.frames.pop().expect("the tuple is open");
            self.place_moved(&mut tuple);
            self.frames.push(tuple);
        }
        if namespace.depth <= 1 && name.prefix.of(text).is_empty() {
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
        let declarations = if role == Role::Status {
            self.keep_declarations(text, document as u32)
        } else {
            Span::default()
        };
        self.frames.push(Frame {
            name: name.span(),
            tag,
            role,
            bindings: around,
            hash: fingerprint::Element::new(namespace.hash, name.local.of(text).as_bytes(), sum),
            has_child: false,
            language,
            children_end: tag.end,
            declarations,
        });
        Ok(())
    }

    /// Closes the innermost element with its end tag, or its empty-element tag.
    fn close(&mut self, text: &str, tag: Span) {
        let mut frame = self.frames.pop().expect("an element is open");
        self.bindings.leave(frame.bindings);
        let basic = match frame.role {
            Role::Basic if !frame.has_child => Basic::read(trim(&self.run)),
            _ => Basic::Unknown,
        };
        if basic != Basic::Unknown {
            frame.hash.text(basic.as_str().as_bytes());
            self.keep_basic(text, basic, Span { start: frame.tag.end, end: tag.start });
        } else if !is_blank(&self.run) || !(frame.has_child || self.run.is_empty()) {
            // White space is content where it stands alone in an element without children.
            frame.hash.text(&self.run);
        }
        if frame.role.is_note() && !frame.has_child {
            self.keep_note();
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
                moved.hash = frame.hash.finish();
                return;
            }
            _ => {}
        }
        let parent = self.frames.last_mut().expect("only the root has no parent");
        parent.hash.child(frame.hash.finish());
        parent.children_end = whole.end;
    }

    /// Begins a child of the root.
    fn push_item(&mut self, text: &str, name_end: u32, tag: Span, kind: Kind) -> Result<(), Malformed> {
        let page = *self.pages.last().expect("the root is open");
        if (page.items.end - page.items.start) as usize == bounds::CHILDREN_MAX {
            return Err(Malformed::TooManyChildren(tag.start as usize));
        }
        let redeclared = self.redeclared(text, page.declarations);
        let id = if kind.has_id() {
            self.attributes.iter().find(|it| it.name.span().of(text) == "id").map(|it| it.value)
        } else {
            None
        };
        let id_hash = id.map_or(0, |id| fingerprint::of(attribute_value(id.of(text), &mut self.value)));
        let edits = self.edits.len();
        let moved = self.moved.len() as u32;
        self.items.push(Item {
            document: self.pages.len() as u32 - 1,
            kind,
            span: tag,
            name_end,
            id,
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
        let item = self.item();
        item.span = span;
        item.hash = frame.hash.finish();
        item.edits.end = edits_end;
    }

    /// Gives the notes that have left their `status` their place: behind the children of the tuple `frame` so far.
    ///
    /// RFC 3863 §4.4: the notes of a tuple stand behind all but the time stamp. Those of `status` go before its own,
    /// as they stood.
    fn place_moved(&mut self, frame: &mut Frame) {
        let moved = Span::new(self.item().moved as usize, self.moved.len());
        if moved.start == moved.end {
            return;
        }
        for moved in &self.moved[moved.start as usize..] {
            frame.hash.child(moved.hash);
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
    fn keep_basic(&mut self, text: &str, basic: Basic, inner: Span) {
        if inner.of(text) != basic.as_str() {
            self.edits.push(Edit { span: inner, with: With::Basic(basic) });
        }
        let item = self.item();
        if item.basic == Basic::Unknown {
            item.basic = basic;
        }
    }

    /// Takes the text of a note, if it is the item's first with any.
    fn keep_note(&mut self) {
        let note = trim(&self.run);
        let start = self.notes.len();
        let item = self.items.last_mut().expect("a note is in a child of the root");
        if item.note == Span::default() && !note.is_empty() {
            self.notes.extend_from_slice(note);
            item.note = Span::new(start, self.notes.len());
        }
    }

    /// Keeps the declarations of the current start tag.
    fn keep_declarations(&mut self, text: &str, document: u32) -> Span {
        let start = self.declarations.len();
        for attribute in &self.attributes {
            let Some(prefix) = attribute.declares(text) else { continue };
            let namespace = self.bindings.declared(text, prefix);
            self.declarations.push(Declaration { document, prefix, span: attribute.span(), namespace });
        }
        Span::new(start, self.declarations.len())
    }

    /// Bit `n` is set when the current start tag declares the prefix of number `n` of `declarations` itself.
    fn redeclared(&self, text: &str, declarations: Span) -> u32 {
        let mut bits = 0;
        let declarations = &self.declarations[declarations.start as usize..declarations.end as usize];
        for prefix in self.attributes.iter().filter_map(|attribute| attribute.declares(text)) {
            for (n, declaration) in declarations.iter().enumerate() {
                if declaration.prefix.of(text) == prefix.of(text) {
                    bits |= 1 << n;
                }
            }
        }
        bits
    }

    /// The `xml:lang` of the current start tag.
    fn language(&self, text: &str) -> Option<Attribute> {
        self.attributes.iter().find(|attribute| is_language(attribute, text)).copied()
    }

    /// Finds the namespaces of the current attributes and checks that no two have one name (Namespaces in XML §6.3).
    fn check_attributes(&mut self, text: &str) -> Result<(), Malformed> {
        self.namespaces.clear();
        for (n, attribute) in self.attributes.iter().enumerate() {
            let is_declaration = attribute.declares(text).is_some();
            let namespace = if is_declaration {
                DECLARATION
            } else {
                self.bindings.attribute(text, attribute.name)?.hash
            };
            let twice = self.attributes[..n].iter().zip(&self.namespaces).any(|(other, &theirs)| {
                theirs == namespace && other.name.local.of(text) == attribute.name.local.of(text)
            });
            if twice {
                return Err(Malformed::DuplicateAttribute(attribute.span().start as usize));
            }
            self.namespaces.push(namespace);
        }
        Ok(())
    }

    /// Sum of the hashes of the current attributes, without declarations, and without `id` if it is told apart.
    fn sum_attributes(&mut self, text: &str, skip_id: bool) -> u64 {
        let mut sum = 0_u64;
        for n in 0..self.attributes.len() {
            let (attribute, namespace) = (self.attributes[n], self.namespaces[n]);
            if namespace == DECLARATION || (skip_id && attribute.name.span().of(text) == "id") {
                continue;
            }
            sum = sum.wrapping_add(self.attribute_hash(text, attribute, namespace));
        }
        sum
    }

    /// Hash of one attribute.
    fn attribute_hash(&mut self, text: &str, attribute: Attribute, namespace: u64) -> u64 {
        let value = attribute_value(attribute.value.of(text), &mut self.value);
        fingerprint::attribute(namespace, attribute.name.local.of(text).as_bytes(), value)
    }
}

impl Role {
    /// The role of the element `local` in an element of role `parent`.
    fn of(parent: Self, known: Known, local: &str) -> Self {
        match (parent, known, local) {
            (Self::Presence, Known::Pidf, "tuple") => Self::Child(Kind::Tuple),
            (Self::Presence, Known::Pidf, "note") => Self::Child(Kind::Note),
            (Self::Presence, Known::DataModel, "person") => Self::Child(Kind::Person),
            (Self::Presence, Known::DataModel, "device") => Self::Child(Kind::Device),
            (Self::Presence, _, _) => Self::Child(Kind::Other),
            (Self::Child(Kind::Tuple), Known::Pidf, "status") => Self::Status,
            (Self::Child(Kind::Tuple), Known::Pidf, "note") => Self::Note,
            (Self::Child(Kind::Person | Kind::Device), Known::DataModel, "note") => Self::Note,
            (
                Self::Child(Kind::Tuple | Kind::Person | Kind::Device),
                Known::Pidf | Known::DataModel,
                "timestamp",
            ) => Self::Timestamp,
            (Self::Status, Known::Pidf, "basic") => Self::Basic,
            (Self::Status, Known::Pidf, "note") => Self::StatusNote,
            _ => Self::Inner,
        }
    }

    /// True for the notes that people read.
    const fn is_note(self) -> bool {
        matches!(self, Self::Note | Self::StatusNote | Self::Child(Kind::Note))
    }
}

/// Stands for the namespace of declarations in the list of the attributes' namespaces.
const DECLARATION: u64 = u64::MAX;

/// True for `xml:lang`; the prefix `xml` cannot be bound to anything else.
fn is_language(attribute: &Attribute, text: &str) -> bool {
    attribute.name.span().of(text) == "xml:lang"
}
