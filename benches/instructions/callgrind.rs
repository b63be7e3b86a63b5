//! Running an operation below callgrind, and reading what it counted.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Context as _;

use crate::operation::Operation;

/// What was counted of one operation.
pub struct Count {
    /// Its name.
    pub operation: &'static str,
    /// For one of it.
    pub instructions: f64,
    /// What the processor that valgrind shows to the program can do, of what changes counts.
    pub processor: String,
}

/// Does an operation; says how often, and on which processor.
pub fn run_below(operation: &Operation) {
    println!("{} {}", (operation.run)(), processor());
}

/// Counts an operation.
///
/// # Errors
/// valgrind is not there, or the operation fails.
pub fn count(operation: &'static Operation) -> anyhow::Result<Count> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("callgrind.out");
    let (done, processor) = run(operation, &file)?;
    let text = std::fs::read_to_string(&file).context("callgrind leaves no file")?;
    let total: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .context("callgrind's file has no total")?
        .trim()
        .parse()?;
    anyhow::ensure!(total > 0, "nothing was counted: the engine's work is not seen");
    Ok(Count { operation: operation.name, instructions: total as f64 / done as f64, processor })
}

/// Where the instructions of an operation go, by callgrind's own program; its file stays.
///
/// # Errors
/// As [`count`], or the operation is not done.
pub fn profile(operation: &'static Operation) -> anyhow::Result<String> {
    let file = env::temp_dir().join(format!("callgrind.out.{}", operation.name));
    let (done, _) = run(operation, &file)?;
    let list = |inclusive: &str| -> anyhow::Result<Vec<Line>> {
        let output = Command::new("callgrind_annotate")
            .args(["--auto=no", "--show-percs=no", "--threshold=100", inclusive])
            .arg(&file)
            .output()
            .context("callgrind_annotate, which comes with valgrind")?;
        Ok(checked(output, "callgrind_annotate")?.lines().filter_map(Line::parse).collect())
    };
    let own = list("--inclusive=no")?;
    let inclusive = list("--inclusive=yes")?;
    let engine = inclusive.iter().filter(|line| !HARNESS.iter().any(|name| line.function.contains(name)));
    Ok(format!(
        "instructions of {}, the mean of {done}; {} stays, for kcachegrind and callgrind_annotate\n\n\
         by function, with what is inlined into it\n{}\n\
         by source file, wherever it is inlined\n{}\n\
         by function and source file, with what they call\n{}",
        operation.name,
        file.display(),
        top(own.iter().map(|line| (line.function.clone(), line.instructions)), done),
        top(own.iter().map(|line| (line.file.clone(), line.instructions)), done),
        top(engine.map(|line| (format!("{} ({})", line.function, line.file), line.instructions)), done),
    ))
}

/// A line of a listing of `callgrind_annotate`.
struct Line {
    instructions: u64,
    file: String,
    function: String,
}

impl Line {
    /// Reads `1,234,567  file:function [object]`; `None` for everything else that a listing has.
    fn parse(line: &str) -> Option<Self> {
        let (instructions, rest) = line.trim().split_once(' ')?;
        let instructions = instructions.replace(',', "").parse().ok()?;
        let (file, function) = rest.trim().split_once(':')?;
        let function = function.split(" [").next().unwrap_or(function);
        Some(Self { instructions, file: short(file), function: function.to_owned() })
    }
}

/// A source file by its name within its crate.
fn short(file: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
    let root = Path::new(root).canonicalize().unwrap_or_default();
    if let Ok(ours) = Path::new(file).strip_prefix(root) {
        return ours.display().to_string();
    }
    let parts: Vec<&str> = file.split('/').collect();
    let after = |name: &str, and: usize| parts.iter().position(|part| *part == name).map(|at| at + and);
    // The standard library: /rustc/HASH/library/…; crates: …/registry/src/INDEX/CRATE/….
    let from = after("library", 1).or_else(|| after("registry", 3)).unwrap_or_default();
    parts.get(from..).unwrap_or_default().join("/")
}

/// Runs this program below callgrind: how often the operation was done, and the processor.
fn run(operation: &Operation, file: &Path) -> anyhow::Result<(u64, String)> {
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={ENGINE_WORK}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe()?)
        .args(["--run", operation.name])
        .output()
        .context("valgrind (the Debian package has its name)")?;
    let said = checked(output, operation.name)?;
    let (done, processor) = said.trim().split_once(' ').context("the operation says nothing")?;
    Ok((done.parse()?, processor.to_owned()))
}

/// What a program printed.
fn checked(output: Output, what: &str) -> anyhow::Result<String> {
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{what}: {}\n{error}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The names that take most, for one operation.
fn top(lines: impl Iterator<Item = (String, u64)>, done: u64) -> String {
    let mut sums = BTreeMap::new();
    for (name, instructions) in lines {
        *sums.entry(name).or_insert(0) += instructions;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, instructions)| Reverse(*instructions));
    let one = |(name, instructions): &(String, u64)| {
        format!("{:>10.1}  {name}\n", *instructions as f64 / done as f64)
    };
    sums.iter().take(LINES).map(one).collect()
}

/// What of this processor changes counts: libraries choose by it. Below valgrind, what valgrind can do of it.
fn processor() -> String {
    let mut words = vec![env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        let found = [
            ("sse4.2", is_x86_feature_detected!("sse4.2")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ];
        words.extend(found.iter().filter(|(_, is_there)| *is_there).map(|(word, _)| word));
    }
    words.join(" ")
}

/// The function in and below which is counted, as callgrind names it.
const ENGINE_WORK: &str = "comsipl_benches::one_shard::engine_work*";
/// Functions around the engine.
const HARNESS: &[&str] =
    &["comsipl_benches", "instructions::", "std::rt::", "std::sys::backtrace", "libc_start", "main", "0x"];
/// Lines of a listing.
const LINES: usize = 30;
