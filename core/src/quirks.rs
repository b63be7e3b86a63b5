//! What phones in the field need beyond the RFCs, in one table.
//!
//! A row names phones by what their User-Agent begins with, says what they do, and what is done about it: for some, NOTIFYs
//! are made in another way; for the others, something is done for everybody, and the row says where that is tested.
//! `tests/QUIRKS.md` shows the table to people; a test keeps the two alike.

/// Longest beginning of a User-Agent that a row may name: so many bytes are kept with a subscription.
pub const USER_AGENT_SEEN: usize = 40;

/// What a phone needs to be different in what it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// A `dialog` must be there even while there is none.
    pub never_without_dialog: bool,
    /// One `dialog` and no more.
    pub single_dialog: bool,
    /// Longest message that it takes, in bytes.
    pub message_len_max: Option<u16>,
    /// The challenge to answer by MD5 and no other.
    pub md5_alone: bool,
}

impl Quirks {
    /// Nothing special.
    const NONE: Self =
        Self { never_without_dialog: false, single_dialog: false, message_len_max: None, md5_alone: false };

    /// What the watcher of that User-Agent needs.
    #[must_use]
    pub fn of(user_agent: &[u8]) -> Self {
        // Nearly everybody's first letters are no row's.
        let Some(first) = user_agent.first_chunk() else { return Self::NONE };
        if !FIRST_LETTERS.contains(&small(*first)) {
            return Self::NONE;
        }
        TABLE.iter().find(|row| row.is_of(user_agent)).map_or(Self::NONE, |row| row.needs)
    }
}

/// Four letters in one number, capitals made small; some other characters become others too, which does no harm here.
const fn small(letters: [u8; 4]) -> u32 {
    u32::from_le_bytes(letters) | u32::from_le_bytes([b' '; 4])
}

/// The first four letters of the User-Agents of [`TABLE`].
static FIRST_LETTERS: [u32; 13] = [
    small(*b"yeal"),
    small(*b"bria"),
    small(*b"aast"),
    small(*b"link"),
    small(*b"cisc"),
    small(*b"sipu"),
    small(*b"pjsu"),
    small(*b"pjsi"),
    small(*b"micr"),
    small(*b"aste"),
    small(*b"sip."),
    small(*b"jssi"),
    small(*b"bare"),
];

/// One row.
#[derive(Debug)]
pub struct Row {
    /// The phones, for people.
    pub phones: &'static str,
    /// What their User-Agents begin with, compared without case; empty: nothing depends on who it is.
    pub user_agents: &'static [&'static str],
    /// What they do.
    pub behaviour: &'static str,
    /// What is done about it.
    pub answer: &'static str,
    /// The part of the answer that is for them alone.
    pub needs: Quirks,
    /// The scenario that shows it.
    pub test: &'static str,
}

impl Row {
    fn is_of(&self, user_agent: &[u8]) -> bool {
        let begins = |text: &&str| {
            user_agent.get(..text.len()).is_some_and(|it| it.eq_ignore_ascii_case(text.as_bytes()))
        };
        self.user_agents.iter().any(begins)
    }
}

/// The table.
pub static TABLE: &[Row] = &[
    Row {
        phones: "Yealink, Bria, Aastra",
        user_agents: &["Yealink", "Bria", "Aastra"],
        behaviour: "take dialog information without any `dialog` for no answer: the lamp keeps its last state",
        answer: "are told one dialog that is `terminated` while there is none",
        needs: Quirks { never_without_dialog: true, ..Quirks::NONE },
        test: "quirk_idle_dialog",
    },
    Row {
        phones: "Linksys and Cisco SPA",
        user_agents: &["Linksys/SPA", "Cisco/SPA", "Sipura/SPA"],
        behaviour: "the SPA962 restarts when it gets several `dialog` elements",
        answer: "are told the one dialog that says most: confirmed before early before the rest",
        needs: Quirks { single_dialog: true, ..Quirks::NONE },
        test: "quirk_single_dialog",
    },
    Row {
        phones: "pjsip: pjsua, MicroSIP, Asterisk",
        user_agents: &["pjsua", "pjsip", "MicroSIP", "Asterisk PBX"],
        behaviour: "drop messages of more than 4,000 bytes (`PJSIP_MAX_PKT_LEN`) without a word",
        answer: "get the basic state where the whole would be longer, and no body where that would be, too",
        needs: Quirks { message_len_max: Some(4000), ..Quirks::NONE },
        test: "quirk_message_of_4000_bytes",
    },
    Row {
        phones: "SIP.js, JsSIP, baresip before 3.11",
        user_agents: &["SIP.js/", "JsSIP ", "baresip v0", "baresip v1", "baresip v2"],
        behaviour: "give up when there is a challenge that is not MD5, or when the first is not",
        answer: "get the challenge by MD5 alone, where it is offered",
        needs: Quirks { md5_alone: true, ..Quirks::NONE },
        test: "quirk_md5_alone",
    },
    Row {
        phones: "Samsung",
        user_agents: &[],
        behaviour: "fail on a first NOTIFY about waiting messages that has no body",
        answer: "all are told `Messages-Waiting: no` where nothing is published",
        needs: Quirks::NONE,
        test: "package_state_apart",
    },
    Row {
        phones: "Polycom",
        user_agents: &[],
        behaviour: "ignore NOTIFYs whose CSeq goes back",
        answer: "CSeq only grows, over restarts of the server too",
        needs: Quirks::NONE,
        test: "crash_subscriptions_go_on",
    },
    Row {
        phones: "JsSIP, SIP.js",
        user_agents: &[],
        behaviour: "compare the name of the event package with the case in which they wrote it, and refuse others with 489",
        answer: "each NOTIFY has the name as its SUBSCRIBE had it (RFC 6665 §8.2.1 compares to the byte, too)",
        needs: Quirks::NONE,
        test: "subscribe_event_name_without_case",
    },
    Row {
        phones: "baresip",
        user_agents: &[],
        behaviour: "looks for `<basic>` to the letter, and for `application/pidf+xml` without parameters",
        answer: "XML is told with the prefixes with which it was published; Content-Type has no parameters",
        needs: Quirks::NONE,
        test: "quirk_baresip_watches",
    },
    Row {
        phones: "baresip",
        user_agents: &[],
        behaviour: "its refreshing PUBLISH has a Content-Type and an empty body",
        answer: "what has no bytes is no body",
        needs: Quirks::NONE,
        test: "publish_baresip_refresh",
    },
    Row {
        phones: "Linphone",
        user_agents: &[],
        behaviour: "its last PUBLISH has no Content-Length",
        answer: "over UDP the datagram's end is the body's (RFC 3261 §18.3)",
        needs: Quirks::NONE,
        test: "publish_remove_without_content_length",
    },
    Row {
        phones: "Linphone",
        user_agents: &[],
        behaviour: "each refreshing PUBLISH has the whole document with a new time stamp",
        answer: "a document that differs in its time stamps alone is no news",
        needs: Quirks::NONE,
        test: "publish_linphone_refresh",
    },
    Row {
        phones: "Linphone",
        user_agents: &[],
        behaviour: "takes the GRUU that it is given as its Contact from then on",
        answer: "a request for a GRUU is served as one for its address-of-record",
        needs: Quirks::NONE,
        test: "register_gruu",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_are_known_by_their_user_agent() {
        let of = |text: &str| Quirks::of(text.as_bytes());
        assert_eq!(of("Yealink SIP-T46S 66.85.0.5"), Quirks { never_without_dialog: true, ..Quirks::NONE });
        assert_eq!(of("Bria 5 release 5.8.3"), Quirks { never_without_dialog: true, ..Quirks::NONE });
        assert_eq!(of("Linksys/SPA962-6.1.5(a)"), Quirks { single_dialog: true, ..Quirks::NONE });
        assert_eq!(of("MicroSIP/3.21.3"), Quirks { message_len_max: Some(4000), ..Quirks::NONE });
        assert_eq!(of("PJSUA v2.14 Linux-6.1"), Quirks { message_len_max: Some(4000), ..Quirks::NONE });
        for other in ["", "Linphone/5.1", "Grandstream GXP2170", "baresip v3.9.0", "Br\u{ef}a"] {
            assert_eq!(of(other), Quirks::NONE, "{other}");
        }
    }

    #[test]
    fn each_row_is_found_by_what_is_kept_of_a_user_agent() {
        for row in TABLE {
            for text in row.user_agents {
                assert!(text.len() <= USER_AGENT_SEEN, "{text}");
                assert_eq!(Quirks::of(text.as_bytes()), row.needs, "{text}");
                assert!(FIRST_LETTERS.contains(&small(*text.as_bytes().first_chunk().unwrap())), "{text}");
            }
        }
    }

    #[test]
    fn a_row_that_names_phones_needs_something() {
        assert!(TABLE.iter().all(|row| row.user_agents.is_empty() == (row.needs == Quirks::NONE)));
    }
}
