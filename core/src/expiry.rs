//! How long something is granted for.

use crate::refusal::Refusal;

/// Bounds and default of an expiry that a client asks for, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryPolicy {
    /// Shortest granted; a shorter wish is answered 423 (Interval Too Brief) with Min-Expires.
    pub min_secs: u32,
    /// Granted when the client names none.
    pub default_secs: u32,
    /// Longest granted; a longer wish is shortened.
    pub max_secs: u32,
}

/// RFC 3261 §10.3 and RFC 6665 §4.2.1.1 allow 423 only for wishes below one hour.
const TOO_BRIEF_BELOW_SECS: u32 = 3600;

impl ExpiryPolicy {
    /// The seconds nearest to `secs` that are granted.
    #[must_use]
    pub const fn clamp(self, secs: u32) -> u32 {
        if secs < self.min_secs {
            self.min_secs
        } else if secs > self.max_secs {
            self.max_secs
        } else {
            secs
        }
    }

    /// The seconds granted for a wish; zero (an end) is always granted.
    ///
    /// > If and only if the expiration interval is greater than zero AND smaller than one hour AND less than a
    /// > notifier-configured minimum, the notifier MAY return a 423 (Interval Too Brief) error (RFC 6665 §4.2.1.1)
    ///
    /// # Errors
    ///
    /// [`Refusal::IntervalTooBrief`] when the wish is shorter than the minimum.
    pub const fn grant(self, wish_secs: Option<u32>) -> Result<u32, Refusal> {
        let wish = match wish_secs {
            Some(wish) => wish,
            None => self.default_secs,
        };
        if wish > 0 && wish < TOO_BRIEF_BELOW_SECS && wish < self.min_secs {
            return Err(Refusal::IntervalTooBrief { min_secs: self.min_secs });
        }
        // The grant must not exceed the wish, so only the maximum may shorten it.
        Ok(if wish > self.max_secs { self.max_secs } else { wish })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: ExpiryPolicy = ExpiryPolicy { min_secs: 60, default_secs: 3600, max_secs: 7200 };

    #[test]
    fn only_a_wish_between_zero_and_the_minimum_is_too_brief() {
        assert_eq!(POLICY.grant(Some(0)), Ok(0));
        assert_eq!(POLICY.grant(Some(59)), Err(Refusal::IntervalTooBrief { min_secs: 60 }));
        assert_eq!(POLICY.grant(Some(60)), Ok(60));
        assert_eq!(POLICY.grant(Some(u32::MAX)), Ok(7200));
        assert_eq!(POLICY.grant(None), Ok(3600));
    }

    #[test]
    fn a_wish_of_an_hour_is_never_too_brief() {
        let slow = ExpiryPolicy { min_secs: 7200, default_secs: 7200, max_secs: 86_400 };
        assert_eq!(slow.grant(Some(3600)), Ok(3600));
        assert_eq!(slow.grant(Some(3599)), Err(Refusal::IntervalTooBrief { min_secs: 7200 }));
    }
}
