//! `Event`: the event package a SUBSCRIBE, NOTIFY or PUBLISH is about (RFC 6665 §8.2.1).

use super::BadValue;
use super::params::Params;
use super::scan::{TOKEN, skip};

/// The value of an Event header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    package: &'a [u8],
    params: Params<'a>,
}

impl<'a> Event<'a> {
    /// Parses an Event value.
    ///
    /// # Errors
    /// [`BadValue`] unless it is a token with parameters.
    #[inline]
    pub fn parse(value: &'a [u8]) -> Result<Self, BadValue> {
        let end = skip(value, 0, TOKEN);
        if end == 0 {
            return Err(BadValue);
        }
        Ok(Self { package: &value[..end], params: Params::parse(&value[end..])? })
    }

    /// The package with its templates as written: `presence`, `presence.winfo`.
    #[must_use]
    pub const fn package(&self) -> &'a [u8] {
        self.package
    }

    /// Whether the package is `name`, compared without case: phones exist that write `Presence`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.package.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The `id` parameter: tells subscriptions of one dialog apart (RFC 6665 §4.5.2), compared byte by byte.
    #[must_use]
    pub fn id(&self) -> Option<&'a [u8]> {
        self.params.value("id")
    }

    /// The value of a parameter of the package.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.params.get(name)
    }

    /// All parameters.
    #[must_use]
    pub const fn params(&self) -> Params<'a> {
        self.params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ignores_case_and_id_is_found() {
        let event = Event::parse(b"Presence ; ID=7;x=\"y\"").unwrap();
        assert!(event.is("presence"));
        assert!(!event.is("presence.winfo"));
        assert_eq!(event.id(), Some(&b"7"[..]));
        assert_eq!(event.param("x"), Some(Some(&b"\"y\""[..])));
        assert_eq!(Event::parse(b";id=7"), Err(BadValue));
        assert_eq!(Event::parse(b"presence junk"), Err(BadValue));
    }
}
