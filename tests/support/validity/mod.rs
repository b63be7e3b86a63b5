//! Whether what the server says is valid: each body against the schema of its type in `tests/schemas`.
//!
//! XML documents go to `xmllint`, all documents of one type in one call; message summaries are read here. A type that
//! nothing here knows is refused, so that no event package comes without its schema.

mod message_summary;
mod versions;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::program::{Program, available};
use crate::server::workspace;
pub use versions::Versions;

/// Bodies that were sent, each once.
#[derive(Debug, Default)]
pub struct Bodies {
    /// By type and text: where it was seen first.
    seen: BTreeMap<(String, String), String>,
}

impl Bodies {
    /// Remembers a body; `whence` is what a report says of it.
    pub fn add(&mut self, content_type: &str, body: &str, whence: impl FnOnce() -> String) {
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.seen.entry((content_type, body.to_owned())).or_insert_with(whence);
    }

    /// Checks them all. XML is left out where `xmllint` is not installed (see [`available`]).
    ///
    /// # Errors
    /// A report: which body is invalid, and why.
    pub fn check(&self) -> Result<(), String> {
        let mut documents: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for ((content_type, body), whence) in &self.seen {
            match format_of(content_type) {
                Some(Format::Xml(schema)) => documents.entry(schema).or_default().push((body, whence)),
                Some(Format::MessageSummary) => message_summary::check(body)
                    .map_err(|why| format!("an invalid message summary: {why}\n{whence}"))?,
                None => {
                    return Err(format!(
                        "{content_type} has no schema: add it to tests/schemas and tests/support/validity\n{whence}"
                    ));
                }
            }
        }
        if documents.is_empty() || !available(&[Program::Xmllint]) {
            return Ok(());
        }
        documents.iter().try_for_each(|(schema, documents)| check_documents(schema, documents))
    }
}

/// How a body is checked.
enum Format {
    /// By `tests/schemas/NAME.rng`.
    Xml(&'static str),
    /// By the grammar of RFC 3842 §5.2.
    MessageSummary,
}

fn format_of(content_type: &str) -> Option<Format> {
    Some(match content_type {
        "application/pidf+xml" => Format::Xml("pidf"),
        PIDF_OF_THE_COMSIPL_PROFILE => Format::Xml("pidf-comsipl"),
        "application/watcherinfo+xml" => Format::Xml("watcherinfo"),
        "application/dialog-info+xml" => Format::Xml("dialog-info"),
        "application/reginfo+xml" => Format::Xml("reginfo"),
        "application/conference-info+xml" => Format::Xml("conference-info"),
        // No RFC defines it: what each element may hold is between the phone and its user.
        "application/x-as-feature-event+xml" => Format::Xml("any"),
        "application/simple-message-summary" => Format::MessageSummary,
        _ => return None,
    })
}

/// Documents of one type, each with what a report says of it.
fn check_documents(schema: &str, documents: &[(&str, &str)]) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut files = Vec::new();
    for (number, (body, _)) in documents.iter().enumerate() {
        let file = folder.path().join(format!("{number}.xml"));
        fs::write(&file, body).map_err(|error| error.to_string())?;
        files.push(file);
    }
    if let Some((index, why)) = xmllint(schema, &files)?.into_iter().next() {
        let (body, whence) = documents[index];
        return Err(format!("an invalid document ({schema}.rng):\n{why}\n{body}\n{whence}"));
    }
    Ok(())
}

/// Those of `files` that are not valid by `tests/schemas/SCHEMA.rng`, by their place in the list, with what `xmllint` says.
fn xmllint(schema: &str, files: &[PathBuf]) -> Result<Vec<(usize, String)>, String> {
    let mut invalid = Vec::new();
    // The length of a command line has a bound.
    for (batch, files) in files.chunks(BATCH_LEN_MAX).enumerate() {
        let output = Command::new("xmllint")
            .args(["--noout", "--nonet", "--relaxng"])
            .arg(schemas().join(schema).with_extension("rng"))
            .args(files)
            .output()
            .map_err(|error| format!("xmllint does not start: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        for (index, file) in files.iter().enumerate() {
            let name = file.to_string_lossy();
            // What is not said to be valid is not: also when the schema itself cannot be read.
            if !said.lines().any(|line| line.strip_prefix(name.as_ref()) == Some(" validates")) {
                let about: Vec<&str> = said.lines().filter(|line| line.starts_with(name.as_ref())).collect();
                let about = if about.is_empty() { said.trim_end().to_owned() } else { about.join("\n") };
                invalid.push((batch * BATCH_LEN_MAX + index, about));
            }
        }
    }
    Ok(invalid)
}

fn schemas() -> PathBuf {
    Path::new(workspace()).join("tests/schemas")
}

/// The type under which [`Bodies::add`] is told a PIDF document of the `comsipl` profile, which is not by the letter.
pub const PIDF_OF_THE_COMSIPL_PROFILE: &str = "application/pidf+xml of comsipl";

/// Most documents of one call.
const BATCH_LEN_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of a folder below `tests/schemas`, and what is wrong with each. A sample is called `SCHEMA_CLAIM`.
    fn samples(folder: &str) -> BTreeMap<String, Option<String>> {
        let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(schemas().join(folder)).expect("the folder is there") {
            let path = entry.expect("a readable folder").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let (schema, _) = name.split_once('_').expect("SCHEMA_CLAIM");
            if schema == "message-summary" {
                let text = fs::read_to_string(&path).expect("readable");
                found.insert(name, message_summary::check(&text).err());
            } else {
                files.entry(schema.to_owned()).or_default().push(path);
            }
        }
        for (schema, files) in files {
            let invalid: BTreeMap<usize, String> =
                xmllint(&schema, &files).expect("xmllint runs").into_iter().collect();
            for (index, file) in files.iter().enumerate() {
                let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
                found.insert(name, invalid.get(&index).cloned());
            }
        }
        found
    }

    #[test]
    fn every_valid_sample_passes() {
        if !available(&[Program::Xmllint]) {
            return;
        }
        let refused: Vec<_> = samples("valid").into_iter().filter(|(_, why)| why.is_some()).collect();
        assert!(refused.is_empty(), "{refused:#?}");
    }

    #[test]
    fn every_invalid_sample_is_refused() {
        if !available(&[Program::Xmllint]) {
            return;
        }
        let samples = samples("invalid");
        let passed: Vec<_> = samples.iter().filter(|(_, why)| why.is_none()).map(|(name, _)| name).collect();
        assert!(passed.is_empty() && samples.len() > 50, "{passed:#?} of {}", samples.len());
    }

    #[test]
    fn one_invalid_body_among_many_is_named() {
        if !available(&[Program::Xmllint]) {
            return;
        }
        let document = |basic: &str| {
            format!(
                "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:a@example.com\">\
                 <tuple id=\"a\"><status><basic>{basic}</basic></status></tuple></presence>"
            )
        };
        let mut bodies = Bodies::default();
        bodies.add("application/pidf+xml", &document("open"), || "first".to_owned());
        bodies.add("application/PIDF+xml;charset=UTF-8", &document("closed"), || "second".to_owned());
        assert_eq!(bodies.check(), Ok(()));
        bodies.add("application/pidf+xml", &document("ajar"), || "third".to_owned());
        let report = bodies.check().expect_err("ajar is no status");
        assert!(
            report.contains("third") && report.contains("ajar") && report.contains("element"),
            "{report}"
        );
    }

    #[test]
    fn a_type_without_a_schema_is_refused() {
        let mut bodies = Bodies::default();
        bodies.add("application/news+xml", "<news/>", || "the second NOTIFY".to_owned());
        let report = bodies.check().expect_err("nobody knows it");
        assert!(report.contains("application/news+xml") && report.contains("the second NOTIFY"), "{report}");
    }
}
