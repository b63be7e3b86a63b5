//! What a client that takes part is told: the overload control parameters of Via (RFC 7339 §4).

use crate::msg::push_number;

/// How long what a client is told holds, in milliseconds: the default of RFC 7339 §4.3.
pub const VALIDITY_MS: u16 = 500;

/// The parameters that go into the topmost Via of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// By how many percent the client is to reduce its requests (RFC 7339 §7.1); zero: overload control is not in effect.
    pub loss_percent: u8,
    /// Tells two values apart and says which is newer: the time of the value in milliseconds since 1970, which grows across a
    /// restart as well.
    ///
    /// > Note: A timestamp can be used as a value of the "oc-seq" parameter. (RFC 7339 §4.4)
    pub seq_ms: u64,
}

impl Feedback {
    /// Appends the parameters, each with its semicolon.
    ///
    /// > if the server is currently not in an overload condition, it MUST set the value of the "oc" parameter to be 0 and MAY
    /// > insert an "oc-validity=0" parameter (RFC 7339 §5.1)
    pub fn push(&self, out: &mut Vec<u8>) {
        debug_assert!(self.loss_percent <= 100);
        out.extend_from_slice(b";oc=");
        push_number(out, u64::from(self.loss_percent));
        out.extend_from_slice(b";oc-algo=\"loss\";oc-validity=");
        let validity = if self.loss_percent == 0 { 0 } else { VALIDITY_MS };
        push_number(out, u64::from(validity));
        out.extend_from_slice(b";oc-seq=");
        push_number(out, self.seq_ms / 1000);
        let millis = (self.seq_ms % 1000) as u16;
        out.push(b'.');
        out.extend([millis / 100, millis / 10 % 10, millis % 10].map(|digit| b'0' + digit as u8));
    }

    /// Whether a Via parameter of this name is one of overload control, which an answer has anew.
    #[must_use]
    pub fn is_parameter(name: &[u8]) -> bool {
        ["oc", "oc-algo", "oc-validity", "oc-seq"].iter().any(|it| name.eq_ignore_ascii_case(it.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_as_the_rfc_has_them() {
        let text = |feedback: Feedback| {
            let mut out = Vec::new();
            feedback.push(&mut out);
            String::from_utf8(out).unwrap()
        };
        // RFC 7339 §6.
        assert_eq!(
            text(Feedback { loss_percent: 20, seq_ms: 1_282_321_615_782 }),
            ";oc=20;oc-algo=\"loss\";oc-validity=500;oc-seq=1282321615.782"
        );
        assert_eq!(
            text(Feedback { loss_percent: 0, seq_ms: 1_282_321_892_009 }),
            ";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1282321892.009"
        );
    }
}
