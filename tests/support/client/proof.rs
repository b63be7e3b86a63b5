//! Whether a client has proved who its user is, as far as its own trace tells.

/// Whether a request of that method with credentials (RFC 3261 §22.2) is among `lines`, the lines of SIP messages.
pub fn is_given(lines: &[String], method: &str) -> bool {
    let start = format!("{method} sip:");
    lines.iter().enumerate().filter(|(_, line)| line.starts_with(&start)).any(|(at, _)| {
        let mut head = lines[at..].iter().take_while(|line| !line.is_empty());
        head.any(|line| {
            line.strip_prefix("Authorization:").is_some_and(|value| value.trim_start().starts_with("Digest "))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_belong_to_the_request_whose_head_they_stand_in() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let two = lines(
            "REGISTER sip:a SIP/2.0\r\n\r\nREGISTER sip:a SIP/2.0\r\nCSeq: 2 REGISTER\r\n\
             Authorization:  Digest username=\"a\"\r\n\r\nPUBLISH sip:a@b SIP/2.0\r\n\r\n",
        );
        assert!(is_given(&two, "REGISTER"));
        assert!(!is_given(&two, "PUBLISH"));
        assert!(!is_given(&two[..2], "REGISTER"), "the first has none");
    }
}
