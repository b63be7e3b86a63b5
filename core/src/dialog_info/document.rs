//! Published documents, read into what composition needs: where each dialog stands, under what id and in what state.

use super::{Refused, State};
use crate::xml::bounds;
use crate::xml::fingerprint::Key;
use crate::xml::malformed::Malformed;
use crate::xml::namespace::Known;
use crate::xml::scan::{Attribute, Span, append_text};
use crate::xml::text::{attribute_value, trim};
use crate::xml::{Event, Reader};

/// A child of the root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Number of its document in the order of reading.
    pub(super) page: u32,
    /// The whole element.
    pub(super) span: Span,
    /// End of the element's name in its start tag: where declarations may be put in.
    pub(super) name_end: u32,
    /// Of a dialog: the value of its `id` as written, and the hash of what it reads.
    pub(super) id: Option<(Span, u64)>,
    /// Of a dialog: its state.
    pub(super) state: State,
    /// Of a dialog: its `duration` (RFC 4235 §4.1.3), which is no news.
    pub(super) duration: Span,
    /// What is not told of it, as a range of [`Pages::cuts`].
    pub(super) cuts: Span,
    /// Bit `n` is set when its start tag declares the prefix of the root's declaration `n` itself.
    pub(super) redeclared: u32,
    /// True when an element in it takes the root's default namespace, or takes none for want of a declaration.
    pub(super) uses_default: bool,
}

/// A namespace declaration of a root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declaration {
    /// The declared prefix, empty for the default namespace.
    pub(super) prefix: Span,
    /// The declaration as written.
    pub(super) span: Span,
    /// True when it declares, as the default, what our root does.
    pub(super) is_ours: bool,
}

/// What is known of one document as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    text: Span,
    /// The root's declarations, as a range of [`Pages::declarations`].
    pub(super) declarations: Span,
    /// True when the root declares a default namespace.
    pub(super) has_default: bool,
}

/// Documents that have been read.
#[derive(Default)]
pub(super) struct Pages {
    /// The documents.
    pub(super) pages: Vec<Page>,
    /// Children of their roots.
    pub(super) items: Vec<Item>,
    /// Declarations of their roots.
    pub(super) declarations: Vec<Declaration>,
    /// Session descriptions: they "are not included unless explicitly requested and explicitly authorized" (RFC 4235 §3.3),
    /// and nothing here authorizes anybody.
    pub(super) cuts: Vec<Span>,
    texts: Vec<u8>,
    reader: Reader,
    value: Vec<u8>,
}

/// Where in a dialog the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    State,
    Duration(u32),
    Description,
    Other,
}

/// A dialog's parts while it is read.
#[derive(Clone, Copy)]
struct Parts {
    state: Option<State>,
    inside: Inside,
}

impl Pages {
    /// Forgets all documents.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
        self.items.clear();
        self.declarations.clear();
        self.cuts.clear();
        self.texts.clear();
    }

    /// The text of a document, in which its spans are.
    pub(super) fn text(&self, page: u32) -> &[u8] {
        self.pages[page as usize].text.of(&self.texts)
    }

    /// What is not told of an item.
    pub(super) fn cuts_of(&self, item: &Item) -> &[Span] {
        &self.cuts[item.cuts.start as usize..item.cuts.end as usize]
    }

    /// Reads one document more. After an error nothing but [`Pages::clear`] may follow.
    pub(super) fn read(&mut self, key: Key, body: &[u8]) -> Result<(), Refused> {
        let mut texts = std::mem::take(&mut self.texts);
        let mut reader = std::mem::take(&mut self.reader);
        let start = texts.len();
        let result = append_text(body, &mut texts).map_err(Refused::from).and_then(|len| {
            let items = self.items.len();
            let page = Page {
                text: Span::new(start, start + len),
                declarations: Span::new(self.declarations.len(), self.declarations.len()),
                has_default: false,
            };
            self.pages.push(page);
            let text = &texts[start..];
            let mut parts = Parts { state: None, inside: Inside::Other };
            reader.read(key, text, len, |event| self.take(key, text, event, &mut parts))?;
            self.check_size(items, len)
        });
        self.reader = reader;
        self.texts = texts;
        result
    }

    /// Declarations of the root that are needed are repeated on each of its children, so their number is bounded by what
    /// they take together.
    fn check_size(&self, first_item: usize, len: usize) -> Result<(), Refused> {
        let page = self.pages.last().expect("the document that was read");
        let declarations = page.declarations.start as usize..page.declarations.end as usize;
        let repeated = self.declarations[declarations].iter().filter(|declaration| !declaration.is_ours);
        let repeated: usize = repeated.map(|it| (it.span.end - it.span.start) as usize + 1).sum();
        let items = self.items.len() - first_item;
        if len + items * repeated > crate::limits::DOCUMENT_LEN_MAX {
            return Err(Refused::Malformed);
        }
        Ok(())
    }

    fn take(&mut self, key: Key, text: &[u8], event: Event<'_>, parts: &mut Parts) -> Result<(), Refused> {
        match event {
            Event::Open { depth, name, namespace, tag, attributes } => {
                let known = namespace.known == Known::DialogInfo;
                let local = name.local().of(text);
                if depth == 1 {
                    if !known || local != b"dialog-info" {
                        return Err(Refused::Malformed);
                    }
                    return self.take_root(text, attributes);
                }
                if depth == 2 {
                    let is_dialog = known && local == b"dialog";
                    *parts = Parts { state: None, inside: Inside::Other };
                    self.push_item(key, text, tag, name.end, attributes, is_dialog)?;
                }
                let item = self.items.last_mut().expect("a child of the root is open");
                if namespace.depth <= 1 && !name.has_prefix() {
                    item.uses_default = true;
                }
                if depth == 4 && known && item.id.is_some() && local == b"session-description" {
                    self.cuts.push(tag);
                    item.cuts.end += 1;
                    parts.inside = Inside::Description;
                }
                if depth == 3 && known && item.id.is_some() {
                    parts.inside = match local {
                        b"state" if parts.state.is_none() => Inside::State,
                        b"state" => return Err(Refused::Dialog),
                        b"duration" => Inside::Duration(tag.start),
                        _ => Inside::Other,
                    };
                }
                Ok(())
            }
            Event::Close { depth: 3, text: content, end } => {
                match std::mem::replace(&mut parts.inside, Inside::Other) {
                    Inside::State => {
                        parts.state = Some(State::read(trim(content)).ok_or(Refused::Dialog)?);
                    }
                    Inside::Duration(start) => {
                        let item = self.items.last_mut().expect("a child of the root is open");
                        item.duration = Span { start, end };
                    }
                    Inside::Description | Inside::Other => {}
                }
                Ok(())
            }
            Event::Close { depth: 4, end, .. } => {
                if parts.inside == Inside::Description {
                    self.cuts.last_mut().expect("it was opened").end = end;
                    parts.inside = Inside::Other;
                }
                Ok(())
            }
            Event::Close { depth: 2, end, .. } => {
                let item = self.items.last_mut().expect("a child of the root is open");
                item.span.end = end;
                if item.id.is_some() {
                    item.state = parts.state.ok_or(Refused::Dialog)?;
                }
                Ok(())
            }
            Event::Close { .. } => Ok(()),
        }
    }

    /// Takes the root's start tag. Its `version` and `entity` are the publisher's business; what watchers get has ours.
    fn take_root(&mut self, text: &[u8], attributes: &[Attribute]) -> Result<(), Refused> {
        for attribute in attributes {
            if attribute.declares {
                let prefix = attribute.declared();
                let value = attribute.value(text, &mut self.value);
                let is_ours = prefix.is_empty() && value == crate::xml::namespace::DIALOG_INFO.as_bytes();
                self.declarations.push(Declaration { prefix, span: attribute.span(), is_ours });
                let page = self.pages.last_mut().expect("the document at hand");
                page.declarations.end += 1;
                page.has_default |= prefix.is_empty();
            } else if attribute.name.span().of(text) == b"state" {
                match trim(attribute.value(text, &mut self.value)) {
                    b"full" => {}
                    b"partial" => return Err(Refused::Partial),
                    _ => return Err(Refused::Malformed),
                }
            }
        }
        Ok(())
    }

    fn push_item(
        &mut self,
        key: Key,
        text: &[u8],
        tag: Span,
        name_end: u32,
        attributes: &[Attribute],
        is_dialog: bool,
    ) -> Result<(), Refused> {
        let page = self.pages.last().expect("the document at hand");
        let number = self.pages.len() as u32 - 1;
        let of_page = self.items.iter().rev().take_while(|item| item.page == number).count();
        if of_page == bounds::CHILDREN_MAX {
            return Err(Refused::Malformed);
        }
        let mut redeclared = 0;
        let declarations = page.declarations.start as usize..page.declarations.end as usize;
        for attribute in attributes.iter().filter(|attribute| attribute.declares) {
            for (n, declaration) in self.declarations[declarations.clone()].iter().enumerate() {
                if declaration.prefix.of(text) == attribute.declared().of(text) {
                    redeclared |= 1 << n;
                }
            }
        }
        let mut id = None;
        if is_dialog {
            let attribute = attributes.iter().find(|it| it.name.span().of(text) == b"id");
            let raw = attribute.map(|it| it.raw).filter(|raw| !raw.is_empty()).ok_or(Refused::Dialog)?;
            id = Some((raw, key.of(attribute_value(raw.of(text), &mut self.value))));
        }
        self.items.push(Item {
            page: number,
            span: tag,
            name_end,
            id,
            state: State::Terminated,
            duration: Span::default(),
            cuts: Span::new(self.cuts.len(), self.cuts.len()),
            redeclared,
            uses_default: false,
        });
        Ok(())
    }
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}
