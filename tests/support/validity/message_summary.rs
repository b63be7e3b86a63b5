//! `application/simple-message-summary`, read by the grammar of RFC 3842 §5.2.
//!
//! ```text
//! status line CRLF [account CRLF] *(count line CRLF) [CRLF 1*(header CRLF)]
//! ```

/// Whether `text` is a message summary.
///
/// # Errors
/// The line that is none, and why.
pub fn check(text: &str) -> Result<(), String> {
    let mut lines = lines(text)?.into_iter().peekable();
    let status = lines.next().ok_or("it is empty")?;
    match field(status) {
        Some((name, value)) if name.eq_ignore_ascii_case("Messages-Waiting") => {
            if !["yes", "no"].iter().any(|status| value.eq_ignore_ascii_case(status)) {
                return Err(format!("neither yes nor no: {status:?}"));
            }
        }
        _ => return Err(format!("it begins with {status:?} instead of Messages-Waiting")),
    }
    if let Some((name, uri)) = lines.peek().and_then(|line| field(line))
        && name.eq_ignore_ascii_case("Message-Account")
    {
        // RFC 3842 §3.5: "the account URI MUST NOT be delimited with angle brackets".
        if uri.starts_with('<') || !uri.contains(':') || uri.contains([' ', '\t']) {
            return Err(format!("no URI: {uri:?}"));
        }
        lines.next();
    }
    while let Some(line) = lines.next() {
        if !line.is_empty() {
            check_counts(line)?;
            continue;
        }
        // What follows the empty line are headers to the end, one at least.
        let mut headers = lines.by_ref();
        let mut any = false;
        for header in &mut headers {
            any = true;
            if field(header).is_none() {
                return Err(format!("no header: {header:?}"));
            }
        }
        if !any {
            return Err("no header follows the empty line".to_owned());
        }
    }
    Ok(())
}

/// The lines, each of which ends in CRLF; folded ones are one.
fn lines(text: &str) -> Result<Vec<&str>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut from = 0;
        let end = loop {
            let end = rest[from..]
                .find("\r\n")
                .map(|at| from + at)
                .ok_or_else(|| format!("no CRLF after {rest:?}"))?;
            // A space or tab goes on with the line; an empty line cannot be gone on with.
            if end > 0 && rest[end + 2..].starts_with([' ', '\t']) {
                from = end + 2;
            } else {
                break end;
            }
        };
        let line = &rest[..end];
        if line.replace("\r\n", "").contains(['\r', '\n']) {
            return Err(format!("half a line break in {line:?}"));
        }
        found.push(line);
        rest = &rest[end + 2..];
    }
    Ok(found)
}

/// Name and value around a colon; spaces may stand on both sides of it.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim_end_matches([' ', '\t']);
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c);
    (!name.is_empty() && name.chars().all(is_token)).then_some((name, value.trim()))
}

/// `class: new/old`, or `class: new/old (new/old)`.
fn check_counts(line: &str) -> Result<(), String> {
    let wrong = || format!("no counts of a class of messages: {line:?}");
    let (class, counts) = field(line).ok_or_else(wrong)?;
    if !CLASSES.iter().any(|known| known.eq_ignore_ascii_case(class)) {
        return Err(wrong());
    }
    let (all, urgent) = match counts.split_once('(') {
        Some((all, urgent)) => (all, Some(urgent.strip_suffix(')').ok_or_else(wrong)?)),
        None => (counts, None),
    };
    for pair in [Some(all), urgent].into_iter().flatten() {
        let (new, old) = pair.split_once('/').ok_or_else(wrong)?;
        for count in [new.trim(), old.trim()] {
            // RFC 3842 §5.2: "MUST NOT exceed 2^32-1".
            if !count.bytes().all(|b| b.is_ascii_digit()) || count.parse::<u32>().is_err() {
                return Err(wrong());
            }
        }
    }
    Ok(())
}

/// The classes of RFC 3458 §6.2.
const CLASSES: [&str; 6] =
    ["voice-message", "fax-message", "pager-message", "multimedia-message", "text-message", "none"];
