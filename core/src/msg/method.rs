//! Request methods.

/// A request method; names are compared with case (RFC 3261 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// REGISTER (RFC 3261 §10).
    Register,
    /// PUBLISH (RFC 3903).
    Publish,
    /// SUBSCRIBE (RFC 6665).
    Subscribe,
    /// NOTIFY (RFC 6665).
    Notify,
    /// OPTIONS (RFC 3261 §11).
    Options,
    /// INVITE (RFC 3261 §13).
    Invite,
    /// ACK (RFC 3261 §13).
    Ack,
    /// CANCEL (RFC 3261 §9).
    Cancel,
    /// BYE (RFC 3261 §15).
    Bye,
    /// MESSAGE (RFC 3428).
    Message,
    /// INFO (RFC 6086).
    Info,
    /// PRACK (RFC 3262).
    Prack,
    /// UPDATE (RFC 3311).
    Update,
    /// REFER (RFC 3515).
    Refer,
    /// Any other method.
    Other,
}

impl Method {
    /// The method called `name`.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"REGISTER" => Self::Register,
            b"PUBLISH" => Self::Publish,
            b"SUBSCRIBE" => Self::Subscribe,
            b"NOTIFY" => Self::Notify,
            b"OPTIONS" => Self::Options,
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"CANCEL" => Self::Cancel,
            b"BYE" => Self::Bye,
            b"MESSAGE" => Self::Message,
            b"INFO" => Self::Info,
            b"PRACK" => Self::Prack,
            b"UPDATE" => Self::Update,
            b"REFER" => Self::Refer,
            _ => Self::Other,
        }
    }

    /// The name on the wire; empty for [`Self::Other`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "REGISTER",
            Self::Publish => "PUBLISH",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Options => "OPTIONS",
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Cancel => "CANCEL",
            Self::Bye => "BYE",
            Self::Message => "MESSAGE",
            Self::Info => "INFO",
            Self::Prack => "PRACK",
            Self::Update => "UPDATE",
            Self::Refer => "REFER",
            Self::Other => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_with_case() {
        assert_eq!(Method::of(b"SUBSCRIBE"), Method::Subscribe);
        assert_eq!(Method::of(b"Subscribe"), Method::Other);
        assert_eq!(Method::of(Method::Prack.as_str().as_bytes()), Method::Prack);
    }
}
