//! Which tests a file holds, and the comments that belong to each.

use std::path::Path;

use super::citation::{Citation, citations};

/// A test and what it cites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoting {
    /// Its name.
    pub test: String,
    /// The sections, in the order of the text.
    pub citations: Vec<Citation>,
}

/// A scenario file is one test, named as the file.
pub fn of_scenario(path: &str, text: &str) -> Vec<Quoting> {
    let test = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    vec![Quoting { test, citations: cited(text.lines().map(|line| line.strip_prefix('#'))) }]
}

/// The functions under `#[test]` of a Rust file. It is read line by line: rustfmt sees to it that a function ends with a
/// brace below the column where it begins.
pub fn of_rust(text: &str) -> Vec<Quoting> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (mark, line) in lines.iter().enumerate() {
        if line.trim() != "#[test]" {
            continue;
        }
        let above = lines[..mark].iter().rev().take_while(|line| {
            let line = line.trim_start();
            line.starts_with("//") || line.starts_with("#[")
        });
        let first = mark - above.count();
        let Some(head) = (mark..lines.len()).find(|at| lines[*at].trim_start().starts_with("fn ")) else {
            continue;
        };
        let name = lines[head].trim_start().trim_start_matches("fn ");
        let name = name.split(['(', '<']).next().unwrap_or_default();
        // The name in a macro that makes tests is none.
        if name.is_empty() || name.starts_with('$') {
            continue;
        }
        let end = format!("{}}}", &lines[head][..lines[head].len() - lines[head].trim_start().len()]);
        let last = (head..lines.len()).find(|at| lines[*at] == end).unwrap_or(head);
        let citations = cited(lines[first..=last].iter().map(|line| comment(line)));
        if !citations.is_empty() {
            found.push(Quoting { test: name.to_owned(), citations });
        }
    }
    found
}

/// The words of a comment line.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim_start().trim_start_matches("> "))
}

/// What the blocks of comment lines cite, each block for itself. `None` is a line that is no comment.
fn cited<'a>(lines: impl Iterator<Item = Option<&'a str>>) -> Vec<Citation> {
    let mut block = String::new();
    let mut found = Vec::new();
    for line in lines.chain([None]) {
        if let Some(words) = line {
            block.push_str(words.trim());
            block.push(' ');
        } else {
            found.append(&mut citations(block.trim_end()));
            block.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(quoting: &[Quoting]) -> Vec<(&str, Vec<String>)> {
        quoting
            .iter()
            .map(|q| {
                let sections = q.citations.iter().map(|c| format!("{} {}", c.rfc, c.section)).collect();
                (q.test.as_str(), sections)
            })
            .collect()
    }

    #[test]
    fn a_scenario_cites_in_its_comments() {
        let text = "# RFC 3903 §6 step 3: \"If no match\n# is found\".\nbob <- 412\n# RFC 3261 §8.2: why\nbob <- 200\n";
        let found = of_scenario("tests/scenarios/publish_x.sip", text);
        assert_eq!(named(&found), [("publish_x", vec!["3903 6".to_owned(), "3261 8.2".to_owned()])]);
        assert_eq!(found[0].citations[0].text, "step 3: \"If no match is found\".");
    }

    #[test]
    fn a_test_cites_above_and_inside_and_a_function_that_is_none_does_not() {
        let text = "\
/// RFC 3261 §7: above.
#[test]
#[should_panic]
fn above() {
    work();
}

/// RFC 3261 §8: no test.
fn other() {}

mod tests {
    #[test]
    fn inside() {
        // RFC 3581 §4: inside,
        // over two lines.
        if work() {
        }
    }

    // RFC 3261 §9: of nobody.
    #[test]
    fn $name() {}
}
";
        let found = of_rust(text);
        assert_eq!(
            named(&found),
            [("above", vec!["3261 7".to_owned()]), ("inside", vec!["3581 4".to_owned()])]
        );
        assert_eq!(found[1].citations[0].text, "inside, over two lines.");
    }
}
