//! The elements of a document, one after another.

use super::bounds;
use super::fingerprint::Key;
use super::malformed::Malformed;
use super::namespace::{Bindings, Namespace};
use super::run::Run;
use super::scan::{Attribute, QName, Scanner, Span, Token};

/// What a [`Reader`] comes to.
pub(crate) enum Event<'a> {
    /// An element begins.
    Open {
        /// How deep it stands; the root is 1.
        depth: usize,
        /// Its name.
        name: QName,
        /// Its namespace.
        namespace: Namespace,
        /// Its start tag.
        tag: Span,
        /// Its attributes, declarations among them.
        attributes: &'a [Attribute],
    },
    /// An element ends.
    Close {
        /// How deep it stood.
        depth: usize,
        /// Its character data since the last tag: all of it for an element without children.
        text: &'a [u8],
        /// Byte behind the element.
        end: u32,
    },
}

/// Reads documents; keeps its memory from one to the next.
#[derive(Default)]
pub(crate) struct Reader {
    /// Elements that are open, root first: the name as written, and how many declarations were in scope around it.
    open: Vec<(Span, u8)>,
    bindings: Bindings,
    attributes: Vec<Attribute>,
    namespaces: Vec<u64>,
    run: Run,
}

impl Reader {
    /// Reads the `len` bytes of `text` that [`append_text`](super::scan::append_text) has checked and padded, and tells
    /// `visit` of each element.
    ///
    /// # Errors
    /// The first fault of the document, or the first that `visit` finds.
    pub(crate) fn read<E: From<Malformed>>(
        &mut self,
        key: Key,
        text: &[u8],
        len: usize,
        mut visit: impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open.clear();
        self.bindings.clear();
        self.run.clear();
        let mut scanner = Scanner::new(text, len);
        let mut rooted = false;
        loop {
            let (token, span) = scanner.next(&mut self.attributes)?;
            let at = span.start as usize;
            let outside = self.open.is_empty();
            match token {
                Token::Start { name, empty } => {
                    if outside && std::mem::replace(&mut rooted, true) {
                        return Err(Malformed::OutsideRoot(at).into());
                    }
                    let namespace = self.enter(key, text, name, at)?;
                    visit(Event::Open {
                        depth: self.open.len(),
                        name,
                        namespace,
                        tag: span,
                        attributes: &self.attributes,
                    })?;
                    if empty {
                        self.leave(text, span.end, &mut visit)?;
                    }
                }
                Token::End(name) => {
                    let fits = self.open.last().is_some_and(|(open, _)| open.of(text) == name.of(text));
                    if !fits {
                        return Err(Malformed::EndTag(at).into());
                    }
                    self.leave(text, span.end, &mut visit)?;
                }
                Token::Text { blank, .. } if outside => {
                    if !blank {
                        return Err(Malformed::OutsideRoot(at).into());
                    }
                }
                Token::Text { blank, plain } => self.run.push(text, span, blank, plain),
                Token::CData(_) | Token::Reference(_) if outside => {
                    return Err(Malformed::OutsideRoot(at).into());
                }
                Token::CData(content) => self.run.push_section(text, content),
                Token::Reference(char) => self.run.push_char(text, char),
                Token::Aside => {}
                Token::Done if !outside => return Err(Malformed::Unclosed(at).into()),
                Token::Done if !rooted => return Err(Malformed::NoRoot.into()),
                Token::Done => return Ok(()),
            }
        }
    }

    /// Begins an element; gives its namespace.
    fn enter(&mut self, key: Key, text: &[u8], name: QName, at: usize) -> Result<Namespace, Malformed> {
        if self.open.len() == bounds::DEPTH_MAX {
            return Err(Malformed::TooDeep(at));
        }
        let around = self.bindings.len();
        self.open.push((name.span(), around));
        self.run.clear();
        let depth = self.open.len() as u8;
        self.namespaces.clear();
        for attribute in &self.attributes {
            let declared = match attribute.declares {
                true => self.bindings.enter(key, text, attribute, depth)?.hash,
                false => 0,
            };
            self.namespaces.push(declared);
        }
        let namespace = self.bindings.element(key, text, name)?;
        for n in 0..self.attributes.len() {
            let attribute = self.attributes[n];
            if !attribute.declares {
                self.namespaces[n] = self.bindings.attribute(key, text, attribute.name)?.hash;
            }
            // Namespaces in XML §6.3: no two attributes of an element have one name.
            let local = attribute.name.local().of(text);
            let twice = self.attributes[..n].iter().zip(&self.namespaces).any(|(other, &theirs)| {
                other.declares == attribute.declares
                    && (attribute.declares || theirs == self.namespaces[n])
                    && other.name.local().of(text) == local
            });
            if twice {
                return Err(Malformed::DuplicateAttribute(attribute.span().start as usize));
            }
        }
        Ok(namespace)
    }

    /// Ends the innermost element.
    fn leave<E>(
        &mut self,
        text: &[u8],
        end: u32,
        visit: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        visit(Event::Close { depth: self.open.len(), text: self.run.of(text), end })?;
        self.run.clear();
        if let Some((_, around)) = self.open.pop() {
            self.bindings.leave(around);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::scan::append_text;

    /// The elements of a document as `depth:name`, and `depth/text` at their ends.
    fn told(document: &str) -> Result<Vec<String>, Malformed> {
        let mut text = Vec::new();
        let len = append_text(document.as_bytes(), &mut text)?;
        let mut told = Vec::new();
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a text");
        Reader::default().read::<Malformed>(Key::default(), &text, len, |event| {
            told.push(match event {
                Event::Open { depth, name, .. } => format!("{depth}:{}", string(name.local().of(&text))),
                Event::Close { depth, text, .. } => format!("{depth}/{}", string(text)),
            });
            Ok(())
        })?;
        Ok(told)
    }

    #[test]
    fn elements_come_in_their_order() {
        let document = "<?xml version='1.0'?><a><b x='1'>t<![CDATA[<]]>&amp;</b> <p:c xmlns:p='u'/></a>\n";
        assert_eq!(told(document).unwrap(), ["1:a", "2:b", "2/t<&", "2:c", "2/", "1/"]);
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for (document, fault) in [
            ("", Malformed::NoRoot),
            ("<a>", Malformed::Unclosed(3)),
            ("<a></b>", Malformed::EndTag(3)),
            ("</a>", Malformed::EndTag(0)),
            ("<a/><a/>", Malformed::OutsideRoot(4)),
            ("<a/>x", Malformed::OutsideRoot(4)),
            ("<a/>&lt;", Malformed::OutsideRoot(4)),
            ("<p:a/>", Malformed::Namespace(1)),
            ("<a><b xmlns:p='u'/><p:c/></a>", Malformed::Namespace(20)),
            ("<a x='1' x='2'/>", Malformed::DuplicateAttribute(9)),
            ("<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>", Malformed::DuplicateAttribute(35)),
        ] {
            assert_eq!(told(document), Err(fault), "{document}");
        }
        let deep = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
        assert!(told(&deep(bounds::DEPTH_MAX)).is_ok());
        assert!(matches!(told(&deep(bounds::DEPTH_MAX + 1)), Err(Malformed::TooDeep(_))));
    }
}
