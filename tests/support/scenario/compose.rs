//! The messages that phones send: defaults, what the scenario writes over them, and bodies.

use std::fmt::Write as _;

use super::digest;
use super::pattern::{Variables, expand};
use super::phone::{Dialog, Phone};
use super::syntax::{BlockLine, Step};
use crate::world::sip_text::SipText;

/// A message under construction.
#[derive(Debug, Default)]
struct Draft {
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<String>,
    tuples: Vec<String>,
}

/// What goes wrong with a line of the block.
type Fault = (usize, String);

/// A request of `phone`'s line.
pub(super) fn request(
    phone: &mut Phone,
    line_name: &str,
    method: &str,
    uri: Option<&str>,
    step: &Step,
    variables: &Variables,
    branch: u32,
) -> Result<Vec<u8>, Fault> {
    let fault = |why| (step.line, why);
    let (name, via, over) = (phone.name.clone(), phone.via, phone.over);
    let line = phone.line(line_name);
    let dialog = match uri {
        Some(_) => None,
        None => {
            let no_dialog = || fault(format!("{name} has no dialog"));
            Some(line.dialog.clone().ok_or_else(no_dialog)?)
        }
    };
    let uri = match (&dialog, uri) {
        (Some(dialog), _) => dialog.target.clone(),
        (None, Some(uri)) => expand(uri, variables).map_err(fault)?,
        (None, None) => unreachable!("without a URI there is a dialog"),
    };
    let (call_id, from, to) = match &dialog {
        Some(Dialog { call_id, local, remote, .. }) => (call_id.clone(), local.clone(), remote.clone()),
        None => (
            line.call_id(&name, line_name, method),
            format!("<sip:{name}@example.com>;tag={}", line.tag),
            format!("<{uri}>"),
        ),
    };
    let written = |wanted: &str| {
        let of =
            |l: &BlockLine| header_of(&l.text).filter(|(n, _)| n.eq_ignore_ascii_case(wanted)).map(|h| h.1);
        step.block.iter().find_map(of)
    };
    let call_id = match written("Call-ID") {
        Some(written) => expand(&written, variables).map_err(fault)?,
        None => call_id,
    };
    let cseq = if written("CSeq").is_some() { 0 } else { line.next_cseq(&call_id) };
    let mut draft = Draft { start: format!("{method} {uri} SIP/2.0"), ..Draft::default() };
    draft.add("Via", format!("SIP/2.0/{} {via};branch=z9hG4bK-{name}-{branch};rport", over.via_token()));
    for route in dialog.iter().flat_map(|d| &d.routes) {
        draft.add("Route", route.clone());
    }
    draft.add("Max-Forwards", "70".to_owned());
    draft.add("From", from);
    draft.add("To", to);
    draft.add("Call-ID", call_id);
    draft.add("CSeq", format!("{cseq} {method}"));
    if method == "SUBSCRIBE" {
        let transport = if over.is_stream() { format!(";transport={}", over.word()) } else { String::new() };
        draft.add("Contact", format!("<sip:{name}@{via}{transport}>"));
    }
    if matches!(method, "SUBSCRIBE" | "PUBLISH") {
        draft.add("Event", "presence".to_owned());
    }
    draft.write_over(&step.block, variables)?;
    for block_line in &step.block {
        if let Some(words) = block_line.text.strip_prefix(CREDENTIALS) {
            let fault = |why| (block_line.line, why);
            let words = expand(words, variables).map_err(fault)?;
            let value = digest::authorization(phone.line(line_name), method, &uri, &words).map_err(fault)?;
            draft.add("Authorization", value);
        }
    }
    let entity = uri.split(';').next().unwrap_or(&uri).to_owned();
    Ok(draft.finish(&entity))
}

/// An answer to `request`, with the status and the lines of `block`.
pub(super) fn response(
    request: &SipText,
    status: u16,
    tag: &str,
    block: &[BlockLine],
    variables: &Variables,
) -> Result<Vec<u8>, Fault> {
    let mut draft = Draft { start: format!("SIP/2.0 {status} {}", reason(status)), ..Draft::default() };
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        for value in request.all(name) {
            let mut value = value.to_owned();
            if name == "To" && !value.contains(";tag=") && status != 100 {
                let _ = write!(value, ";tag={tag}");
            }
            draft.add(name, value);
        }
    }
    draft.write_over(block, variables)?;
    Ok(draft.finish(""))
}

/// A message written out in full: each line of the block is one line, the first empty one ends the head.
pub(super) fn raw(block: &[BlockLine], variables: &Variables) -> Result<Vec<u8>, Fault> {
    let mut out = String::new();
    for line in block {
        let text = body_line(&line.text).ok_or((line.line, "a raw line begins with |".to_owned()))?;
        out.push_str(&expand(text, variables).map_err(|why| (line.line, why))?);
        out.push_str("\r\n");
    }
    Ok(out.into_bytes())
}

impl Draft {
    fn add(&mut self, name: &str, value: String) {
        self.headers.push((name.to_owned(), value));
    }

    /// Applies the lines of a block: headers replace defaults of their name, `Name -` takes one away.
    fn write_over(&mut self, block: &[BlockLine], variables: &Variables) -> Result<(), Fault> {
        let mut replaced: Vec<String> = Vec::new();
        for line in block {
            let fault = |why| (line.line, why);
            if line.text.starts_with(CREDENTIALS) {
                continue;
            }
            if let Some(text) = body_line(&line.text) {
                self.body.push(expand(text, variables).map_err(fault)?);
            } else if let Some(tuple) = line.text.strip_prefix("pidf:") {
                self.tuples.push(expand(tuple.trim(), variables).map_err(fault)?);
            } else if let Some(name) = line.text.strip_suffix(" -") {
                self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
                replaced.push(name.to_lowercase());
                if name.eq_ignore_ascii_case("Content-Length") {
                    self.add("Content-Length", String::new());
                }
            } else if let Some((name, value)) = header_of(&line.text) {
                let value = expand(&value, variables).map_err(fault)?;
                if replaced.contains(&name.to_lowercase()) {
                    self.add(&name, value);
                    continue;
                }
                replaced.push(name.to_lowercase());
                let at = self.headers.iter().position(|(n, _)| n.eq_ignore_ascii_case(&name));
                match at {
                    Some(at) => self.headers[at] = (name, value),
                    None => self.headers.push((name, value)),
                }
            } else {
                return Err(fault("neither a header, nor a body line, nor pidf:".to_owned()));
            }
        }
        Ok(())
    }

    fn finish(mut self, entity: &str) -> Vec<u8> {
        let has = |draft: &Self, name: &str| draft.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let body = if self.tuples.is_empty() { joined(&self.body) } else { pidf(entity, &self.tuples) };
        if !body.is_empty() && !has(&self, "Content-Type") {
            self.add("Content-Type", "application/pidf+xml".to_owned());
        }
        if !has(&self, "Content-Length") {
            self.add("Content-Length", body.len().to_string());
        }
        let mut out = self.start;
        out.push_str("\r\n");
        for (name, value) in self.headers {
            if name == "Content-Length" && value.is_empty() {
                continue;
            }
            let _ = write!(out, "{name}: {value}\r\n");
        }
        out.push_str("\r\n");
        out.push_str(&body);
        out.into_bytes()
    }
}

/// A document of tuples written `ID BASIC [@TIMESTAMP] [NOTE…]`.
fn pidf(entity: &str, tuples: &[String]) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n\
         <presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"{entity}\">\r\n"
    );
    for tuple in tuples {
        let mut words = tuple.split_whitespace().peekable();
        let (id, basic) = (words.next().unwrap_or("t"), words.next().unwrap_or("open"));
        let stamp = words.next_if(|w| w.starts_with('@')).map(|w| w[1..].to_owned());
        let note = words.collect::<Vec<_>>().join(" ");
        let _ = write!(out, " <tuple id=\"{id}\"><status><basic>{basic}</basic></status>");
        if !note.is_empty() {
            let _ = write!(out, "<note>{note}</note>");
        }
        if let Some(stamp) = stamp {
            let _ = write!(out, "<timestamp>{stamp}</timestamp>");
        }
        out.push_str("</tuple>\r\n");
    }
    out.push_str("</presence>\r\n");
    out
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

/// How a line begins that asks for an answer to the last challenge.
const CREDENTIALS: &str = "credentials ";

/// The text of a body line: what follows `|` and one space.
fn body_line(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('|')?;
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

/// The name and value of a header line.
fn header_of(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (name != "pidf" && !name.is_empty() && name.bytes().all(is_token))
        .then(|| (name.to_owned(), value.trim().to_owned()))
}

/// A reason phrase.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        200..=299 => "OK",
        481 => "Subscription Does Not Exist",
        _ => "Because",
    }
}
