//! Variables of a scenario, and texts that use and set them.
//!
//! `${name}` stands for the value of a variable; in an expectation `${name=}` takes whatever stands there as its value,
//! and `${}` lets anything stand there.

use std::collections::BTreeMap;

/// The variables of a scenario.
pub(super) type Variables = BTreeMap<String, String>;

/// A piece of a text with variables.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Value(&'a str),
    Capture(&'a str),
}

/// Writes the values of variables into `text`.
pub(super) fn expand(text: &str, variables: &Variables) -> Result<String, String> {
    let mut out = String::new();
    for piece in pieces(text)? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Value(name) => out.push_str(value(name, variables)?),
            Piece::Capture(_) => return Err(format!("`{text}` can only be expected, not written")),
        }
    }
    Ok(out)
}

/// Whether `actual` is what `pattern` describes, as a whole; sets the variables that the pattern captures.
pub(super) fn matches(pattern: &str, actual: &str, variables: &mut Variables) -> Result<bool, String> {
    let mut captured = Vec::new();
    let mut rest = actual;
    let mut open: Option<&str> = None;
    for piece in pieces(pattern)? {
        let literal = match piece {
            Piece::Text(text) => text,
            Piece::Value(name) => value(name, variables)?,
            Piece::Capture(name) => {
                open = Some(name);
                continue;
            }
        };
        match open.take() {
            None => match rest.strip_prefix(literal) {
                Some(after) => rest = after,
                None => return Ok(false),
            },
            Some(name) => match rest.find(literal) {
                Some(at) => {
                    captured.push((name.to_owned(), rest[..at].to_owned()));
                    rest = &rest[at + literal.len()..];
                }
                None => return Ok(false),
            },
        }
    }
    match open {
        Some(name) => captured.push((name.to_owned(), rest.to_owned())),
        None if !rest.is_empty() => return Ok(false),
        None => {}
    }
    variables.extend(captured.into_iter().filter(|(name, _)| !name.is_empty()));
    Ok(true)
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let end = rest[at..].find('}').ok_or_else(|| format!("`{text}` lacks a closing brace"))?;
        let name = &rest[at + 2..at + end];
        pieces.push(match name.strip_suffix('=') {
            Some(name) => Piece::Capture(name),
            None if name.is_empty() => Piece::Capture(""),
            None => Piece::Value(name),
        });
        rest = &rest[at + end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn value<'a>(name: &str, variables: &'a Variables) -> Result<&'a str, String> {
    variables.get(name).map(String::as_str).ok_or_else(|| format!("no variable is called `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_written_and_captured() {
        let mut variables = Variables::from([("tag".to_owned(), "7".to_owned())]);
        assert_eq!(expand("a;tag=${tag}", &variables).as_deref(), Ok("a;tag=7"));
        assert!(expand("${none}", &variables).is_err());
        assert_eq!(matches("${n=} NOTIFY", "12 NOTIFY", &mut variables), Ok(true));
        assert_eq!(variables["n"], "12");
        assert_eq!(matches("active;expires=${e=}", "active;expires=599", &mut variables), Ok(true));
        assert_eq!(variables["e"], "599");
        assert_eq!(matches("<${}>;tag=${tag}", "<sip:x>;tag=7", &mut variables), Ok(true));
    }

    #[test]
    fn what_differs_does_not_match_and_sets_nothing() {
        let mut variables = Variables::new();
        assert_eq!(matches("${n=} NOTIFY", "12 SUBSCRIBE", &mut variables), Ok(false));
        assert_eq!(matches("60", "600", &mut variables), Ok(false));
        assert_eq!(matches("600", "60", &mut variables), Ok(false));
        assert!(variables.is_empty());
    }
}
