//! Citations in the text of a comment: `RFC 3261 §10.3 step 7: "…"`.

use std::fmt;
use std::str::FromStr;

/// A section that a comment cites, and what it says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    /// Number of the RFC.
    pub rfc: u16,
    /// The section of it.
    pub section: Section,
    /// What follows, up to the next citation.
    pub text: String,
}

/// Number of a section: `4.2.1`, or `B.3` of an appendix. Sorts as a reader expects it, with appendices last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Section(Vec<Part>);

/// One part of a section's number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u16),
    Appendix(char),
}

impl FromStr for Section {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let part = |part: &str| match part.parse() {
            Ok(number) => Ok(Part::Number(number)),
            Err(_) => match part.as_bytes() {
                [letter] if letter.is_ascii_uppercase() => Ok(Part::Appendix(char::from(*letter))),
                _ => Err(()),
            },
        };
        text.split('.').map(part).collect::<Result<Vec<Part>, ()>>().map(Self)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            match part {
                Part::Number(number) => write!(f, "{dot}{number}")?,
                Part::Appendix(letter) => write!(f, "{dot}{letter}")?,
            }
        }
        Ok(())
    }
}

/// Every section that `comment` cites. A `§` without an RFC in front of it belongs to the last RFC named; one before any
/// RFC is named belongs to another text and is left out.
pub fn citations(comment: &str) -> Vec<Citation> {
    // (number of the RFC, the section, where it begins with its RFC, where its text begins)
    let mut found: Vec<(u16, Section, usize, usize)> = Vec::new();
    let mut last = None;
    let mut at = 0;
    while let Some(mark) = comment[at..].find('§').map(|offset| at + offset) {
        let (rfc, start) = rfc_before(comment, mark).map_or((last, mark), |(rfc, start)| (Some(rfc), start));
        let digits = mark + '§'.len_utf8();
        let len = comment[digits..]
            .find(|c: char| !(c.is_ascii_digit() || c.is_ascii_uppercase() || c == '.'))
            .unwrap_or(comment.len() - digits);
        let number = comment[digits..digits + len].trim_end_matches('.');
        last = rfc;
        at = digits + number.len();
        if let (Some(rfc), Ok(section)) = (rfc, number.parse()) {
            found.push((rfc, section, start, at));
        }
    }
    let mut cited: Vec<Citation> = Vec::with_capacity(found.len());
    for (i, (rfc, section, start, from)) in found.iter().enumerate() {
        let until = found.get(i + 1).map_or(comment.len(), |(_, _, start, _)| *start);
        // A citation in parentheses follows what it is about.
        let text = match comment[..*start].strip_suffix('(') {
            Some(before) => {
                let after = if i == 0 { 0 } else { found[i - 1].3 };
                let before = before.get(after..).unwrap_or_default();
                before.rfind(". ").map_or(before, |end| &before[end + 2..])
            }
            None => &comment[*from..until],
        };
        let text = text.trim_matches([' ', ':', ',', ';', '(', ')']).trim_start_matches('.').trim_start();
        // In "§3.3.2 and §3.3.3: text" the text is about both.
        let text =
            ["and", "with"].iter().find_map(|word| text.strip_suffix(word)).map_or(text, str::trim_end);
        cited.push(Citation { rfc: *rfc, section: section.clone(), text: text.to_owned() });
    }
    for i in (1..cited.len()).rev() {
        if cited[i - 1].text.is_empty() {
            cited[i - 1].text = cited[i].text.clone();
        }
    }
    cited
}

/// The RFC that is named right in front of `mark`, and where that begins.
fn rfc_before(comment: &str, mark: usize) -> Option<(u16, usize)> {
    let before = comment[..mark].trim_end();
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let number = before[before.len() - digits..].parse().ok()?;
    let start = before[..before.len() - digits].strip_suffix("RFC ")?.len();
    Some((number, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cited(comment: &str) -> Vec<(u16, String, String)> {
        let plain = |c: Citation| (c.rfc, c.section.to_string(), c.text);
        citations(comment).into_iter().map(plain).collect()
    }

    fn of(rfc: u16, section: &str, text: &str) -> (u16, String, String) {
        (rfc, section.to_owned(), text.to_owned())
    }

    #[test]
    fn a_citation_ends_where_the_next_begins() {
        assert_eq!(
            cited("RFC 3903 §4.4: carries a body; §6 step 5: \"The ESC stores …\". RFC 6665 §4.2.2: told."),
            [
                of(3903, "4.4", "carries a body"),
                of(3903, "6", "step 5: \"The ESC stores …\"."),
                of(6665, "4.2.2", "told."),
            ]
        );
    }

    #[test]
    fn sections_named_together_share_their_text() {
        assert_eq!(
            cited("RFC 4475 §3.3.2 and §3.3.3: schemes nobody knows."),
            [of(4475, "3.3.2", "schemes nobody knows."), of(4475, "3.3.3", "schemes nobody knows.")]
        );
        assert_eq!(cited("RFC 6665 §4.5.2 with RFC 3265 §3.1.2: ids").len(), 2);
    }

    #[test]
    fn a_section_of_no_rfc_is_left_out() {
        assert_eq!(cited("ComSIPL document §4: a packet"), []);
        assert_eq!(cited("as RFC 3261 has it"), []);
        assert_eq!(cited("RFC 5626 §B.1 one"), [of(5626, "B.1", "one")]);
    }

    #[test]
    fn a_section_in_parentheses_follows_what_it_is_about() {
        assert_eq!(
            cited("Out of order. CSeq and Via are repeated (RFC 3261 §8.1.1), RFC 4475 §3.3.1: headers."),
            [of(3261, "8.1.1", "CSeq and Via are repeated"), of(4475, "3.3.1", "headers.")]
        );
    }
}
