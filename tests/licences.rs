//! All that is built into ComSIPL comes from the registry and under a licence that `deny.toml` allows, also where `cargo deny` is not
//! installed.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_dependency_has_an_allowed_licence_and_comes_from_the_registry() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let policy = std::fs::read_to_string(format!("{root}/deny.toml")).expect("deny.toml");
    let allowed = allowed_by(&policy);
    assert!(allowed.contains(&"MIT"), "{allowed:?}");
    let version = Command::new("rustc").arg("-vV").output().expect("rustc");
    let version = String::from_utf8(version.stdout).expect("text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root)
        .output()
        .expect("cargo");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100, "all of them: {}", packages.len());
    let mut wrong = Vec::new();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{} is under \"{licence}\"", package["name"]));
        }
        let source = package["source"].as_str();
        if source.is_some_and(|it| it != "registry+https://github.com/rust-lang/crates.io-index") {
            wrong.push(format!("{} comes from {source:?}", package["name"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (expression, is) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND ISC", true),
        // AND binds more tightly.
        ("GPL-3.0 AND MIT OR ISC", true),
        ("GPL-3.0 AND (MIT OR ISC)", false),
        ("ISC AND (GPL-3.0 OR (MIT))", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("(MIT", false),
        ("MIT ISC", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), is, "{expression}");
    }
}

/// The licences that the policy allows.
fn allowed_by(policy: &str) -> Vec<&str> {
    let list = policy.split_once("\nallow = [").and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.expect("a list of licences");
    list.split('"').skip(1).step_by(2).collect()
}

/// Whether a licence expression (SPDX 2.3, annex D, and `/` for OR as crates once wrote) can be met by the allowed licences.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = &words[..];
    any_of(&mut words, allowed) == Some(true) && words.is_empty()
}

/// `a OR b`; `None`: it is no expression.
fn any_of(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut is = all_of(words, allowed)?;
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        is |= all_of(words, allowed)?;
    }
    Some(is)
}

/// `a AND b`.
fn all_of(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut is = one(words, allowed)?;
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        is &= one(words, allowed)?;
    }
    Some(is)
}

/// A licence, perhaps with an exception, or an expression in parentheses.
fn one(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let is = any_of(words, allowed)?;
            *words = words.strip_prefix(&[")"])?;
            Some(is)
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(allowed.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        [licence, rest @ ..] if !["AND", "OR", "WITH", ")"].contains(licence) => {
            *words = rest;
            Some(allowed.contains(licence))
        }
        _ => None,
    }
}
