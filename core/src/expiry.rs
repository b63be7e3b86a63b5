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

/// What one request is granted: within a policy, and shortened by chance, so that clients that came together (after a power cut,
/// say) do not come together again for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    policy: ExpiryPolicy,
    /// By how many thousandths.
    shorten_permille: u16,
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

    /// What is granted to one request, shortened by so many thousandths, at most a thousand; a random number spreads the
    /// refreshes of many clients.
    #[must_use]
    pub const fn shortened(self, permille: u16) -> Grant {
        debug_assert!(permille <= 1000);
        Grant { policy: self, shorten_permille: permille }
    }
}

impl Grant {
    /// The seconds granted for a wish; zero (an end) is always granted.
    ///
    /// > If and only if the expiration interval is greater than zero AND smaller than one hour AND less than a
    /// > notifier-configured minimum, the notifier MAY return a 423 (Interval Too Brief) error (RFC 6665 §4.2.1.1)
    ///
    /// What is granted is never longer than the wish (RFC 6665 §4.2.1.1: "MAY shorten the interval but MUST NOT lengthen
    /// it"; RFC 3903 §6 and RFC 3261 §10.3 let the server choose as well), and chance never makes it shorter than the
    /// minimum.
    ///
    /// # Errors
    ///
    /// [`Refusal::IntervalTooBrief`] when the wish is shorter than the minimum.
    pub const fn grant(self, wish_secs: Option<u32>) -> Result<u32, Refusal> {
        let ExpiryPolicy { min_secs, default_secs, max_secs } = self.policy;
        let wish = match wish_secs {
            Some(wish) => wish,
            None => default_secs,
        };
        if wish > 0 && wish < TOO_BRIEF_BELOW_SECS && wish < min_secs {
            return Err(Refusal::IntervalTooBrief { min_secs });
        }
        let most = if wish > max_secs { max_secs } else { wish };
        let shortened = most - (most as u64 * self.shorten_permille as u64 / 1000) as u32;
        Ok(if most <= min_secs {
            most
        } else if shortened < min_secs {
            min_secs
        } else {
            shortened
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: ExpiryPolicy = ExpiryPolicy { min_secs: 60, default_secs: 3600, max_secs: 7200 };

    #[test]
    fn only_a_wish_between_zero_and_the_minimum_is_too_brief() {
        assert_eq!(POLICY.shortened(0).grant(Some(0)), Ok(0));
        assert_eq!(POLICY.shortened(0).grant(Some(59)), Err(Refusal::IntervalTooBrief { min_secs: 60 }));
        assert_eq!(POLICY.shortened(0).grant(Some(60)), Ok(60));
        assert_eq!(POLICY.shortened(0).grant(Some(u32::MAX)), Ok(7200));
        assert_eq!(POLICY.shortened(0).grant(None), Ok(3600));
    }

    #[test]
    fn a_wish_of_an_hour_is_never_too_brief() {
        let slow = ExpiryPolicy { min_secs: 7200, default_secs: 7200, max_secs: 86_400 };
        assert_eq!(slow.shortened(0).grant(Some(3600)), Ok(3600));
        assert_eq!(slow.shortened(0).grant(Some(3599)), Err(Refusal::IntervalTooBrief { min_secs: 7200 }));
    }

    #[test]
    fn chance_shortens_within_the_policy_and_never_lengthens() {
        for permille in [0, 1, 100, 250, 1000] {
            for wish in [0, 60, 61, 600, 3600, 7200, 100_000, u32::MAX] {
                let granted = POLICY.shortened(permille).grant(Some(wish)).unwrap();
                let most = wish.min(POLICY.max_secs);
                assert!(granted <= most, "{wish} {permille}");
                assert!(granted >= most.min(POLICY.min_secs), "{wish} {permille}");
                assert!(u64::from(granted) * 1000 >= u64::from(most) * u64::from(1000 - permille));
            }
        }
        assert_eq!(POLICY.shortened(100).grant(Some(3600)), Ok(3240));
        assert_eq!(POLICY.shortened(100).grant(Some(60)), Ok(60), "the minimum stays");
        assert_eq!(POLICY.shortened(100).grant(Some(59)), Err(Refusal::IntervalTooBrief { min_secs: 60 }));
    }
}
