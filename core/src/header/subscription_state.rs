//! `Subscription-State`: how a NOTIFY says what became of the subscription (RFC 6665 §8.2.3).

use super::BadValue;
use super::params::Params;
use super::scan::{TOKEN, number_saturating, skip};

/// The value of a Subscription-State header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionState<'a> {
    state: &'a [u8],
    params: Params<'a>,
}

impl<'a> SubscriptionState<'a> {
    /// Parses a Subscription-State value.
    ///
    /// # Errors
    /// [`BadValue`] unless it is a token with parameters.
    pub fn parse(value: &'a [u8]) -> Result<Self, BadValue> {
        let end = skip(value, 0, TOKEN);
        if end == 0 {
            return Err(BadValue);
        }
        Ok(Self { state: &value[..end], params: Params::parse(&value[end..])? })
    }

    /// The state as written.
    #[must_use]
    pub const fn state(&self) -> &'a [u8] {
        self.state
    }

    /// Whether the state is `name` (`"active"`, `"pending"`, `"terminated"`), compared without case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.state.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Seconds the subscription still lasts; `None` when absent or malformed.
    #[must_use]
    pub fn expires(&self) -> Option<u32> {
        number_saturating(self.params.value("expires")?).ok()
    }

    /// Why it was terminated, as written.
    #[must_use]
    pub fn reason(&self) -> Option<&'a [u8]> {
        self.params.value("reason")
    }

    /// Seconds to wait before subscribing again; `None` when absent or malformed.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        number_saturating(self.params.value("retry-after")?).ok()
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
    fn state_and_parameters_are_read() {
        let state = SubscriptionState::parse(b"terminated;reason=probation;Retry-After=30").unwrap();
        assert!(state.is("Terminated"));
        assert_eq!(state.reason(), Some(&b"probation"[..]));
        assert_eq!(state.retry_after(), Some(30));
        assert_eq!(state.expires(), None);
        assert_eq!(SubscriptionState::parse(b"active;expires=599").unwrap().expires(), Some(599));
        assert_eq!(SubscriptionState::parse(b";x"), Err(BadValue));
    }
}
