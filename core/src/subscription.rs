//! What becomes of a subscription when its NOTIFY is answered, or is not (RFC 6665 §4.2.2, RFC 5057 §5.1).
//!
//! | outcome | subscription |
//! |---|---|
//! | 2xx | stays; suspicion is gone |
//! | 404, 405, 410, 416, 480–485, 489, 501, 604 | removed, no further NOTIFY |
//! | other 3xx–6xx | stays; the newest state is sent again after Retry-After or a growing pause |
//! | 408, or Timer F | first time: suspect, one more NOTIFY after a pause or with the next state; second time: removed |

use std::time::Duration;

/// What the notifier does after a final answer to its NOTIFY, or after none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterNotify {
    /// The watcher has the state.
    Delivered,
    /// The subscription is gone.
    Remove,
    /// The watcher does not have the state; try again after the pause. `wait_for_it`: a newer state does not shorten
    /// the pause.
    Again {
        /// How long to wait.
        pause: Duration,
        /// Whether the pause holds for newer states too (the watcher, or a proxy, asked for quiet).
        wait_for_it: bool,
    },
    /// As `Again`, and the subscription is suspect: the next time-out removes it.
    Suspect {
        /// How long to wait at most.
        pause: Duration,
    },
}

/// Pause before the one NOTIFY that a suspect subscription still gets. A state change sends it earlier.
pub const SUSPECT_PAUSE: Duration = Duration::from_secs(30);
/// First pause after a failure that does not end the subscription; doubles with each failure in a row.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// Longest such pause.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(320);
/// Longest Retry-After that we honour; a watcher that wants longer quiet may unsubscribe.
const RETRY_AFTER_SECS_MAX: u32 = 3600;

/// Decides after a final answer `status`; `failures` counts the failures in a row before this one.
#[must_use]
pub fn after_answer(status: u16, retry_after_secs: Option<u32>, failures: u8, suspect: bool) -> AfterNotify {
    match status {
        200..=299 => AfterNotify::Delivered,
        404 | 405 | 410 | 416 | 480..=485 | 489 | 501 | 604 => AfterNotify::Remove,
        408 => after_silence(suspect),
        _ => {
            if let Some(secs) = retry_after_secs {
                let pause = Duration::from_secs(u64::from(secs.min(RETRY_AFTER_SECS_MAX)));
                return AfterNotify::Again { pause: pause.max(Duration::from_secs(1)), wait_for_it: true };
            }
            let pause = (FAILURE_PAUSE * (1 << u32::from(failures.min(6)))).min(FAILURE_PAUSE_MAX);
            AfterNotify::Again { pause, wait_for_it: false }
        }
    }
}

/// Decides after Timer F.
#[must_use]
pub const fn after_silence(suspect: bool) -> AfterNotify {
    if suspect { AfterNotify::Remove } else { AfterNotify::Suspect { pause: SUSPECT_PAUSE } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_listed_answers_remove_the_subscription() {
        // RFC 6665 §4.2.2: "404, 405, 410, 416, 480-485, 489, 501, or 604 … MUST remove the corresponding subscription"
        let removing: Vec<u16> = (300..700)
            .filter(|&status| after_answer(status, None, 0, false) == AfterNotify::Remove)
            .collect();
        assert_eq!(removing, [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604]);
    }

    #[test]
    fn a_busy_watcher_is_left_alone_for_as_long_as_it_says() {
        let pause = Duration::from_secs(20);
        assert_eq!(after_answer(503, Some(20), 0, false), AfterNotify::Again { pause, wait_for_it: true });
        assert_eq!(
            after_answer(500, None, 3, false),
            AfterNotify::Again { pause: Duration::from_secs(40), wait_for_it: false }
        );
    }

    #[test]
    fn silence_makes_suspect_first_and_removes_then() {
        assert_eq!(after_silence(false), AfterNotify::Suspect { pause: SUSPECT_PAUSE });
        assert_eq!(after_silence(true), AfterNotify::Remove);
        assert_eq!(after_answer(408, None, 0, true), AfterNotify::Remove);
    }
}
