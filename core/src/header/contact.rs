//! `Contact`: where a user agent can be reached (RFC 3261 §20.10).

use super::media_type::thousandths;
use super::scan::number_saturating;
use super::{BadValue, NameAddr, Params, Values};

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

    /// Parses one value and gives the parameters with these names along, as [`Params::get`] gives them.
    ///
    /// # Errors
    /// As [`Self::parse`].
    #[inline]
    pub fn parse_finding<const N: usize>(
        value: &'a [u8],
        names: [&str; N],
    ) -> Result<(Self, NamedParams<'a, N>), BadValue> {
        let mut found = [None; N];
        if value == b"*" {
            return Ok((Self::Star, found));
        }
        let (name_addr, end) = NameAddr::parse_each(value, 0, |param| param.note(names, &mut found))?;
        if end != value.len() {
            return Err(BadValue);
        }
        Ok((Self::Addr { name_addr, params: name_addr.params() }, found))
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
pub struct Contacts<'a>(pub(crate) Values<'a>);

impl<'a> Iterator for Contacts<'a> {
    type Item = Result<Contact<'a>, BadValue>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Contact::parse)
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

    #[test]
    fn parameters_found_on_the_way_are_those_found_afterwards() {
        for value in [
            &b"<sip:a@h>;Expires=60;q=0.5;expires=7;x;reg-id=\"1\""[..],
            b"\"Me\" <sip:a@h>",
            b"sip:a@h;q",
            b"*",
            b"<sip:a@h>;expires=",
            b"<sip:a@h>;=",
            b"<sip:a@h>;q=1, <sip:b@h>",
            b"<sip:a@h",
        ] {
            let names = ["expires", "q", "reg-id"];
            let afterwards = Contact::parse(value).map(|contact| match contact {
                Contact::Star => (contact, [None; 3]),
                Contact::Addr { params, .. } => (contact, names.map(|name| params.get(name))),
            });
            assert_eq!(Contact::parse_finding(value, names), afterwards, "{}", value.escape_ascii());
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
