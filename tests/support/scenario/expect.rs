//! What a scenario expects of a message.

use super::pattern::{Variables, expand, matches};
use crate::world::sip_text::SipText;

/// Checks one line of an expectation; the error says what is there instead.
pub(super) fn check(line: &str, message: &SipText, variables: &mut Variables) -> Result<(), String> {
    if let Some(rest) = line.strip_prefix("order:") {
        return check_order(rest, message);
    }
    let (name, op, operand) = split(line).ok_or("not an expectation")?;
    match name {
        "start" => check_value(&[message.start.as_str()], op, operand, variables),
        "body" if op == "empty" => {
            if message.body.is_empty() {
                Ok(())
            } else {
                Err(format!("the body is {:?}", message.body))
            }
        }
        "body" => check_value(&[message.body.as_str()], op, operand, variables),
        _ if name.starts_with('<') => check_elements(name, op, operand, message, variables),
        _ => {
            let whole: Vec<&str> = message.all(name).collect();
            let values = message.values(name);
            match op {
                "#" => check_count(&values, operand),
                ":" => {
                    let both: Vec<&str> = whole.iter().chain(&values).copied().collect();
                    check_value(&both, op, operand, variables)
                }
                _ => check_value(&whole, op, operand, variables),
            }
            .map_err(|why| format!("{name}: {why}"))
        }
    }
}

/// Takes a line apart: `Name: value`, or `Name OPERATOR value`.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if let Some(name) = name.strip_suffix(':') {
        return Some((name, ":", rest.trim()));
    }
    let (op, operand) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
    OPERATORS.contains(&op).then(|| (name, if op == "=" { ":" } else { op }, operand.trim()))
}

fn check_value(values: &[&str], op: &str, operand: &str, variables: &mut Variables) -> Result<(), String> {
    let there = || match values {
        [] => "it is not there".to_owned(),
        values => format!("it is {}", values.join(" | ")),
    };
    let ok = match op {
        ":" => {
            let mut any = false;
            for value in values {
                any = any || matches(operand, value, variables)?;
            }
            any
        }
        "~" => {
            let text = expand(operand, variables)?;
            values.iter().any(|v| v.contains(&text))
        }
        "!~" => {
            let text = expand(operand, variables)?;
            !values.iter().any(|v| v.contains(&text))
        }
        "!=" => {
            let text = expand(operand, variables)?;
            !values.is_empty() && !values.contains(&text.as_str())
        }
        "*" => !values.is_empty(),
        "!" => values.is_empty(),
        ">" | "<=" => {
            let bound = number(&expand(operand, variables)?).ok_or("there is no number to compare with")?;
            let found = values.first().and_then(|v| number(v));
            found.is_some_and(|found| if op == ">" { found > bound } else { found <= bound })
        }
        _ => return Err(format!("`{op}` does not fit here")),
    };
    if ok { Ok(()) } else { Err(there()) }
}

fn check_elements(
    name: &str,
    op: &str,
    operand: &str,
    message: &SipText,
    variables: &mut Variables,
) -> Result<(), String> {
    let texts = message.elements(name.trim_matches(['<', '>']));
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    match op {
        "#" => check_count(&refs, operand),
        ":" => check_value(&[refs.join(", ").as_str()], op, operand, variables),
        _ => check_value(&refs, op, operand, variables),
    }
    .map_err(|why| format!("{name}: {why}"))
}

fn check_count(values: &[&str], operand: &str) -> Result<(), String> {
    if operand.parse() == Ok(values.len()) {
        Ok(())
    } else {
        Err(format!("there are {}: {}", values.len(), values.join(" | ")))
    }
}

/// Whether the header fields named come in this order, each of them.
fn check_order(names: &str, message: &SipText) -> Result<(), String> {
    let order: Vec<&str> = message.headers.iter().map(|(n, _)| n.as_str()).collect();
    let mut from = 0;
    for name in names.split(',').map(str::trim) {
        match order[from..].iter().position(|n| n.eq_ignore_ascii_case(name)) {
            Some(at) => from += at + 1,
            None => return Err(format!("{name} is not where it should be: {}", order.join(", "))),
        }
    }
    Ok(())
}

/// The number that a text begins with.
fn number(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    text[..digits].parse().ok()
}

/// What may stand between a name and a value.
const OPERATORS: [&str; 10] = ["~", "!~", "!=", "*", "!", ">", "<=", "#", "=", "empty"];

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> SipText {
        SipText::read(
            b"SIP/2.0 200 OK\r\nExpires: 600\r\nContact: <sip:a>;expires=60, <sip:b>;expires=90\r\n\
              CSeq: 7 REGISTER\r\n\r\n<a><basic>open</basic><basic>closed</basic></a>",
        )
        .expect("whole")
    }

    fn checked(line: &str) -> bool {
        check(line, &message(), &mut Variables::from([("n".to_owned(), "6".to_owned())])).is_ok()
    }

    #[test]
    fn what_is_true_passes() {
        for line in [
            "Expires: 600",
            "Expires <= 600",
            "Expires > 599",
            "Contact: <sip:b>;expires=90",
            "Contact ~ <sip:a>",
            "Contact # 2",
            "Contact !~ <sip:c>",
            "Expires *",
            "Path !",
            "CSeq > ${n}",
            "CSeq: ${cseq=} REGISTER",
            "<basic> = open, closed",
            "<basic> # 2",
            "body ~ <basic>open",
            "start: SIP/2.0 200 ${}",
            "order: Expires, CSeq",
        ] {
            assert!(checked(line), "{line}");
        }
    }

    #[test]
    fn what_is_false_fails() {
        for line in [
            "Expires: 60",
            "Expires > 600",
            "Contact # 1",
            "Contact !~ <sip:a>",
            "Expires !",
            "Path *",
            "Path: x",
            "Path != x",
            "Expires != 600",
            "<basic> = open",
            "body empty",
            "body !~ open",
            "order: CSeq, Expires",
            "Expires 600",
        ] {
            assert!(!checked(line), "{line}");
        }
    }
}
