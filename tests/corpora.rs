//! Every input of the fuzz targets' corpora once more: what was found, and what it took to find it, stays mended.

#[path = "fuzz/properties/mod.rs"]
mod properties;

use std::fs;
use std::path::{Path, PathBuf};

/// Most inputs of a corpus, and most bytes: they are read by everybody who runs the tests.
const INPUTS_MAX: usize = 300;
const BYTES_MAX: usize = 300_000;

#[test]
fn every_input_of_the_corpora_keeps_its_properties() {
    let mut failed = Vec::new();
    for &(target, hold) in properties::ALL {
        for (path, bytes) in inputs(target) {
            if std::panic::catch_unwind(|| hold(&bytes)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn corpora_are_small_and_each_has_its_target() {
    let mut folders: Vec<_> = entries(&corpora());
    folders.sort();
    let targets: Vec<_> = properties::ALL.iter().map(|(target, _)| corpora().join(target)).collect();
    assert_eq!(folders, targets, "a corpus for each target, and no other");
    for &(target, _) in properties::ALL {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{target}.rs"));
        assert!(source.is_file(), "{}", source.display());
        let inputs = inputs(target);
        let bytes: usize = inputs.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!((1..=INPUTS_MAX).contains(&inputs.len()), "{target}: {} inputs", inputs.len());
        assert!(bytes <= BYTES_MAX, "{target}: {bytes} bytes");
    }
}

/// A corpus whose inputs are all refused would prove nothing.
#[test]
fn both_parsers_accept_a_part_of_the_corpora() {
    let limits = sipx_sip::Limits::datagram();
    let (mut ours, mut both) = (0, 0);
    for (_, bytes) in inputs("differential") {
        if comsipl_core::msg::parse(&bytes).is_ok() {
            ours += 1;
            both += usize::from(sipx_sip::parse_datagram(bytes.into(), &limits).is_ok());
        }
    }
    assert!(ours >= 30 && both >= 20, "{ours} by ours, {both} of them by both");
    let documents = inputs("pidf");
    let accepted = documents.iter().filter(|(_, bytes)| comsipl_core::pidf::check(bytes).is_ok()).count();
    assert!(accepted >= 20, "{accepted} documents");
}

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The inputs of a target, by name.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths = entries(&corpora().join(target));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}
