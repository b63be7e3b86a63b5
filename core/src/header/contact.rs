//! `Contact`: where a user agent can be reached (RFC 3261 §20.10).

use super::media_type::thousandths;
use super::scan::{element_end, number_saturating, skip_space, trim_end};
use super::{BadValue, Lines, NameAddr, Params};

/// One value of a Contact header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact<'a> {
    /// `*`: all bindings, in a REGISTER that removes them (RFC 3261 §10.2.2).
    Star,
    /// An address.
    Addr {
        /// URI and display name.
        name_addr: NameAddr<'a>,
        /// Parameters of the contact; the same as `name_addr.params()`.
        params: Params<'a>,
    },
}

/// Parameters that were asked for by name, in the order of the names, each as [`Params::get`] gives it.
pub type NamedParams<'a, const N: usize> = [Option<Option<&'a [u8]>>; N];

impl<'a> Contact<'a> {
    /// Parses one value.
    ///
    /// # Errors
    /// [`BadValue`] when it is neither `*` nor a name-addr or addr-spec with parameters.
    pub fn parse(value: &'a [u8]) -> Result<Self, BadValue> {
        if value == b"*" {
            return Ok(Self::Star);
        }
        let name_addr = NameAddr::parse(value)?;
        Ok(Self::Addr { name_addr, params: name_addr.params() })
    }

    /// The URI without angle brackets; `None` for `*`.
    #[must_use]
    pub fn uri(&self) -> Option<&'a [u8]> {
        match self {
            Self::Star => None,
            Self::Addr { name_addr, .. } => Some(name_addr.uri()),
        }
    }

    /// The `expires` parameter in seconds, saturating. A malformed one counts as 3600 for a registrar
    /// (RFC 3261 §20.10).
    #[must_use]
    pub fn expires(&self) -> Option<Result<u32, BadValue>> {
        Some(self.param("expires")?.and_then(seconds).ok_or(BadValue))
    }

    /// The `q` parameter in thousandths; `None` when absent or malformed.
    #[must_use]
    pub fn q(&self) -> Option<u16> {
        preference(self.param("q")??)
    }

    /// A parameter: `None` if it is not there, `Some(None)` if it has no value.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        match self {
            Self::Star => None,
            Self::Addr { params, .. } => params.get(name),
        }
    }
}

/// The contacts of a message in order, across lines and commas.
#[derive(Clone, Debug)]
pub struct Contacts<'a> {
    lines: Lines<'a>,
    /// What is left of the present line.
    rest: &'a [u8],
}

impl<'a> Contacts<'a> {
    /// The contacts on `lines`.
    pub(crate) const fn new(lines: Lines<'a>) -> Self {
        Self { lines, rest: &[] }
    }

    /// The next contact, and its parameters with these names, as [`Params::get`] gives them.
    ///
    /// Reading a contact finds its end, so the commas between them are not looked for before.
    #[inline]
    pub fn next_finding<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Option<Result<(Contact<'a>, NamedParams<'a, N>), BadValue>> {
        loop {
            let at = skip_space(self.rest, 0);
            match self.rest.get(at) {
                None => self.rest = self.lines.next()?,
                // Empty elements are left out.
                Some(b',') => self.rest = &self.rest[at + 1..],
                Some(_) => {
                    self.rest = &self.rest[at..];
                    return Some(self.read(names));
                }
            }
        }
    }

    /// Reads the contact with which `rest` begins.
    #[inline(always)]
    fn read<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<(Contact<'a>, NamedParams<'a, N>), BadValue> {
        let mut found = [None; N];
        if let Ok((name_addr, end)) =
            NameAddr::parse_each(self.rest, 0, |param| param.note(names, &mut found))
        {
            self.rest = &self.rest[end..];
            return Ok((Contact::Addr { name_addr, params: name_addr.params() }, found));
        }
        let (element, rest) = self.rest.split_at(element_end(self.rest, 0));
        self.rest = rest;
        if trim_end(element) == b"*" { Ok((Contact::Star, [None; N])) } else { Err(BadValue) }
    }
}

impl<'a> Iterator for Contacts<'a> {
    type Item = Result<Contact<'a>, BadValue>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_finding([])?.map(|(contact, _)| contact))
    }
}

/// The value of an `expires` parameter (RFC 3261 §20.10): seconds, beyond `u32` saturated; `None` if it is malformed.
#[must_use]
pub fn seconds(value: &[u8]) -> Option<u32> {
    number_saturating(value).ok()
}

/// The value of a `q` parameter (RFC 3261 §20.10) in thousandths; `None` if it is malformed.
#[must_use]
pub fn preference(value: &[u8]) -> Option<u16> {
    thousandths(value).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Values;
    use super::*;

    #[test]
    fn contact_parameters_are_read() {
        let contact =
            Contact::parse(b"\"Me\" <sip:a@h;transport=udp>;expires=60;q=0.5;+sip.instance=\"<urn:x>\"");
        let contact = contact.unwrap();
        assert_eq!(contact.uri(), Some(&b"sip:a@h;transport=udp"[..]));
        assert_eq!(contact.expires(), Some(Ok(60)));
        assert_eq!(contact.q(), Some(500));
        assert_eq!(contact.param("+sip.instance"), Some(Some(&b"\"<urn:x>\""[..])));
        assert_eq!(contact.param("transport"), None);
    }

    /// The contacts of a message with this one Contact line.
    fn contacts(line: &str, check: impl FnOnce(Contacts<'_>)) {
        let text = format!(
            "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=b\r\nFrom: <sip:a@h>;tag=f\r\nTo: <sip:a@h>\r\n\
             Call-ID: c\r\nCSeq: 1 REGISTER\r\nContact: {line}\r\n\r\n"
        );
        check(crate::msg::parse(text.as_bytes()).unwrap().contacts());
    }

    #[test]
    fn parameters_found_on_the_way_are_those_found_afterwards() {
        for value in [
            "<sip:a@h>;Expires=60;q=0.5;expires=7;x;reg-id=\"1\"",
            "\"Me\" <sip:a@h>",
            "sip:a@h;q",
            "*",
            "<sip:a@h>;expires=",
            "<sip:a@h>;=",
            "<sip:a@h",
            "* x",
            "*;expires=0",
            "*73 <sip:a@h>;q=1",
            "* <sip:a@h>",
        ] {
            let names = ["expires", "q", "reg-id"];
            let afterwards = Contact::parse(value.as_bytes()).map(|contact| match contact {
                Contact::Star => (contact, [None; 3]),
                Contact::Addr { params, .. } => (contact, names.map(|name| params.get(name))),
            });
            contacts(value, |mut contacts| {
                assert_eq!(contacts.next_finding(names), Some(afterwards), "{value}");
            });
        }
    }

    #[test]
    fn contacts_are_those_between_the_commas() {
        for line in [
            "<sip:a@h>;q=1, <sip:b@h>,sip:c@h",
            ",, \"x, y\" <sip:a,b@h> , ,*,",
            "<sip:a@h>x, <sip:b@h>",
            "<sip:a@h, <sip:b@h>",
            "\"open <sip:a@h>, sip:b@h",
            "*x, *",
            "*73 <sip:a@h>, * <sip:b@h>, *",
            "",
        ] {
            contacts(line, |contacts| {
                let values = Values::new(contacts.lines.clone());
                let expected: Vec<_> = values.map(Contact::parse).collect();
                assert_eq!(contacts.collect::<Vec<_>>(), expected, "{line}");
            });
        }
    }

    #[test]
    fn star_stands_alone_and_bad_expires_is_told_apart() {
        assert_eq!(Contact::parse(b"*"), Ok(Contact::Star));
        assert_eq!(Contact::parse(b"*;expires=0"), Err(BadValue));
        assert_eq!(Contact::parse(b"<sip:h>;expires=soon").unwrap().expires(), Some(Err(BadValue)));
        assert_eq!(Contact::parse(b"<sip:h>;expires").unwrap().expires(), Some(Err(BadValue)));
        assert_eq!(Contact::parse(b"<sip:h>;expires=9999999999").unwrap().expires(), Some(Ok(u32::MAX)));
    }
}
