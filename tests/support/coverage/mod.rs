//! The table `RFC section → tests`, made from what the tests themselves quote.
//!
//! A scenario names its section in a comment (`# RFC nnnn §x: "…"`), a Rust test in a comment above or inside it. Nothing
//! else is written down anywhere, so the table cannot claim a test that does not exist.

mod citation;
mod source;
mod titles;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use citation::{Citation, Section, citations};
pub use source::{Quoting, of_rust, of_scenario};
pub use titles::title;

/// Where the table stands, seen from the root of the workspace.
pub const TABLE: &str = "tests/RFC-COVERAGE.md";

/// The command that writes the table anew.
pub const COMMAND: &str = "cargo run -p comsipl-tests --bin rfc-coverage";

/// The whole file, as it should be for the tests below `workspace`.
///
/// # Errors
/// When a file cannot be read, or cites an RFC whose title [`title`] does not know.
pub fn table(workspace: &Path) -> io::Result<String> {
    let mut rows = Rows::new();
    for path in sources(workspace)? {
        let text = fs::read_to_string(workspace.join(&path))?;
        let path = path.to_string_lossy().into_owned();
        let quoting = if path.ends_with(".sip") { of_scenario(&path, &text) } else { of_rust(&text) };
        for Quoting { test, citations } in quoting {
            for Citation { rfc, section, text } in citations {
                let place = (path.clone(), test.clone());
                rows.entry((rfc, section)).or_default().entry(place).or_insert(text);
            }
        }
    }
    render(&rows).map_err(io::Error::other)
}

/// What each section is quoted for, by the test's file and name.
type Rows = BTreeMap<(u16, Section), BTreeMap<(String, String), String>>;

fn render(rows: &Rows) -> Result<String, String> {
    let mut out =
        format!("{INTRODUCTION}Made by `{COMMAND}`; a test compares it with what the tests quote.\n");
    let mut last = None;
    for ((rfc, section), tests) in rows {
        if last != Some(*rfc) {
            last = Some(*rfc);
            let title = title(*rfc).ok_or_else(|| {
                format!("a test cites RFC {rfc}: add its title to tests/support/coverage/titles.rs")
            })?;
            let _ = write!(
                out,
                "\n## RFC {rfc}: {title}\n\n| section | test | what it says there |\n|---|---|---|\n"
            );
        }
        for ((path, test), text) in tests {
            let _ = writeln!(out, "| §{section} | [{test}]({}) | {} |", link(path), shortened(text));
        }
    }
    Ok(out)
}

/// `path` as seen from the table.
fn link(path: &str) -> String {
    path.strip_prefix("tests/").map_or_else(|| format!("../{path}"), str::to_owned)
}

/// The start of what is quoted, fit for a cell of a table.
fn shortened(text: &str) -> String {
    let mut short = String::new();
    for word in text.split_whitespace() {
        if short.chars().count() + word.chars().count() > TEXT_LEN_MAX {
            short.push_str(" …");
            break;
        }
        if !short.is_empty() {
            short.push(' ');
        }
        short.push_str(word);
    }
    short.replace('|', "\\|").replace('<', "&lt;")
}

/// Everything that may quote, in a fixed order.
fn sources(workspace: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (folder, extension) in [
        ("core/src", "rs"),
        ("fdb/src", "rs"),
        ("fdb/tests", "rs"),
        ("loadgen/src", "rs"),
        ("shards/src", "rs"),
        ("shards/tests", "rs"),
        ("tests", "rs"),
        ("tests/scenarios", "sip"),
    ] {
        if workspace.join(folder).is_dir() {
            collect(workspace, Path::new(folder), extension, &mut found)?;
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn collect(workspace: &Path, folder: &Path, extension: &str, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(workspace.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            // What npm installs is not ours, and the tests of this module cite what they make up.
            if entry.file_name() != "node_modules" && entry.file_name() != "coverage" {
                collect(workspace, &path, extension, found)?;
            }
        } else if path.extension().is_some_and(|ext| ext == extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// Most characters of a quotation in a cell.
const TEXT_LEN_MAX: usize = 90;

const INTRODUCTION: &str = "\
# Which test proves which section

A scenario (`tests/scenarios/*.sip`) quotes the sentence that it proves in its first lines, a Rust test in a comment above or
inside it. This table is made of these quotations: one row for each test and section.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_cut_between_words_and_cannot_break_the_table() {
        assert_eq!(shortened("a | b <basic>"), "a \\| b &lt;basic>");
        let long = shortened(&"word ".repeat(50));
        assert!(long.ends_with("word …") && long.chars().count() < 100, "{long}");
    }

    #[test]
    fn rows_are_sorted_by_number_and_not_by_letter() {
        let mut rows = Rows::new();
        for section in ["10.3", "9", "4.2.10", "4.2.2"] {
            let section: Section = section.parse().expect("a section");
            let place = ("tests/scenarios/a.sip".to_owned(), "a".to_owned());
            rows.insert((3261, section), BTreeMap::from([(place, "text".to_owned())]));
        }
        let table = render(&rows).expect("a known RFC");
        let order: Vec<&str> =
            table.lines().filter_map(|line| line.strip_prefix("| §")?.split(' ').next()).collect();
        assert_eq!(order, ["4.2.2", "4.2.10", "9", "10.3"]);
        assert!(table.contains("## RFC 3261: SIP: Session Initiation Protocol\n"), "{table}");
    }

    #[test]
    fn an_rfc_without_a_title_is_an_error() {
        let place = ("tests/scenarios/a.sip".to_owned(), "a".to_owned());
        let rows = BTreeMap::from([(
            (1, "1".parse().expect("a section")),
            BTreeMap::from([(place, String::new())]),
        )]);
        assert!(render(&rows).is_err());
    }
}
