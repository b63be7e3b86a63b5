//! What a file and a record hold.

use std::fmt;

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `registered.fdb`: users and bindings.
    Registered,
    /// `presence_w.fdb`: publications, presence documents, watchers' subscriptions.
    Presence,
}

impl FileKind {
    /// The name that the file has in the data directory.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Registered => "registered.fdb",
            Self::Presence => "presence_w.fdb",
        }
    }

    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Registered => 1,
            Self::Presence => 2,
        }
    }

    pub(crate) const fn of(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Registered),
            2 => Some(Self::Presence),
            _ => None,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered => "registered",
            Self::Presence => "presence",
        })
    }
}

/// What a head record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A watcher's subscription.
    Subscription,
    /// The composed document of a presentity.
    Presentity,
    /// One publication of a presentity.
    Publication,
    /// One contact of a registered user.
    Binding,
    /// A user who may register.
    User,
}

impl Kind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 5] =
        [Self::Subscription, Self::Presentity, Self::Publication, Self::Binding, Self::User];

    /// The file that holds records of this kind.
    #[must_use]
    pub const fn file(self) -> FileKind {
        match self {
            Self::Subscription | Self::Presentity | Self::Publication => FileKind::Presence,
            Self::Binding | Self::User => FileKind::Registered,
        }
    }

    /// Whether records of this kind are found by key through the partition's [`Index`](crate::Index): their first two
    /// fixed words are the key, low half first.
    #[must_use]
    pub const fn indexed(self) -> bool {
        matches!(self, Self::Presentity | Self::User)
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Subscription => 2,
            Self::Presentity => 3,
            Self::Publication => 4,
            Self::Binding => 5,
            Self::User => 6,
        }
    }

    pub(crate) const fn of(code: u8) -> Option<Self> {
        match code {
            2 => Some(Self::Subscription),
            3 => Some(Self::Presentity),
            4 => Some(Self::Publication),
            5 => Some(Self::Binding),
            6 => Some(Self::User),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subscription => "subscription",
            Self::Presentity => "presentity",
            Self::Publication => "publication",
            Self::Binding => "binding",
            Self::User => "user",
        })
    }
}

/// Kind code of a slot that holds nothing.
pub(crate) const FREE: u8 = 0;
/// Kind code of a record that continues another's payload.
pub(crate) const CHAIN: u8 = 1;
/// Kind code of a record that can be none; never stored.
pub(crate) const SPOILED: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_kinds_are_one_to_one() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.code()), Some(kind));
            assert!(![FREE, CHAIN, SPOILED].contains(&kind.code()));
        }
        for kind in [FileKind::Registered, FileKind::Presence] {
            assert_eq!(FileKind::of(kind.code()), Some(kind));
        }
        assert_eq!((Kind::of(FREE), Kind::of(CHAIN), FileKind::of(0)), (None, None, None));
    }
}
