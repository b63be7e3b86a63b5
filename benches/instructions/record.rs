//! What was counted before: `benches/instructions.toml`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::callgrind::Count;

/// Instructions for each operation, and where they were counted.
#[derive(Serialize, Deserialize)]
pub struct Record {
    /// Where.
    pub conditions: Conditions,
    /// By operation.
    pub instructions: BTreeMap<String, u64>,
}

/// What decides how many instructions the same source takes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// What the processor can do, of what libraries ask for.
    pub processor: String,
    /// The compiler.
    pub rustc: String,
    /// The C library and valgrind itself.
    pub system: String,
}

impl Record {
    /// The record, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read() -> anyhow::Result<Option<Self>> {
        match std::fs::read_to_string(path()) {
            Ok(text) => Ok(Some(toml::from_str(&text).with_context(|| path().display().to_string())?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path().display().to_string()),
        }
    }

    /// Writes `counts` over those of `before`; `is_all`: nothing else is kept.
    ///
    /// # Errors
    /// It cannot be written, or would mix conditions.
    pub fn write(
        before: Option<Self>,
        conditions: Conditions,
        counts: BTreeMap<String, u64>,
        is_all: bool,
    ) -> anyhow::Result<()> {
        let mut instructions = match before {
            Some(before) if !is_all => {
                let difference = before.conditions.difference(&conditions);
                anyhow::ensure!(difference.is_none(), "recorded elsewhere: only all can be recorded");
                before.instructions
            }
            _ => BTreeMap::new(),
        };
        instructions.extend(counts);
        let text = toml::to_string(&Self { conditions, instructions })?;
        std::fs::write(path(), format!("{HEADING}{text}")).with_context(|| path().display().to_string())
    }
}

impl Conditions {
    /// Those of this machine.
    ///
    /// # Errors
    /// A program does not say its version.
    pub fn here(count: &Count) -> anyhow::Result<Self> {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let libc =
            first_line("getconf", "GNU_LIBC_VERSION").unwrap_or_else(|_| "another C library".to_owned());
        Ok(Self {
            processor: count.processor.clone(),
            rustc: first_line(&rustc, "--version")?,
            system: format!("{libc}, {}", first_line("valgrind", "--version")?),
        })
    }

    /// How `other` differs, if it does.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let pairs =
            [(&self.processor, &other.processor), (&self.rustc, &other.rustc), (&self.system, &other.system)];
        let differing = pairs.iter().filter(|(a, b)| a != b).map(|(a, b)| format!("{a}, here {b}"));
        let text = differing.collect::<Vec<_>>().join("; ");
        (!text.is_empty()).then_some(text)
    }
}

/// Where the record is.
#[must_use]
pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

/// The first line that a program prints.
fn first_line(program: &str, argument: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg(argument).output().with_context(|| program.to_owned())?;
    let text = String::from_utf8(output.stdout)?;
    text.lines().next().map(str::to_owned).with_context(|| format!("{program} {argument} says nothing"))
}

const HEADING: &str = "\
# Instructions that the engine takes for each operation, counted by callgrind.
# Written by `cargo run --release -p comsipl-benches --bin instructions -- --record`; checked by the test command.
";
