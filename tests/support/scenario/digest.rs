//! How a phone answers a challenge, written by the plain words of RFC 7616 and independently of the server's own code.

use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::phone::Line;

/// The value of Authorization for `credentials USER PASSWORD [name=value …]`, made of the challenge that `line` got last.
pub(super) fn authorization(line: &mut Line, method: &str, uri: &str, words: &str) -> Result<String, String> {
    let mut words = words.split_whitespace();
    let (Some(user), Some(password)) = (words.next(), words.next()) else {
        return Err("credentials USER PASSWORD [name=value …]".to_owned());
    };
    let wishes: Vec<(&str, &str)> = words
        .map(|word| word.split_once('=').ok_or("wishes are written name=value"))
        .collect::<Result<_, _>>()?;
    let wish = |name: &str| wishes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let known = ["algorithm", "nc", "cnonce", "qop", "uri", "nonce", "realm", "username", "response"];
    if let Some((name, _)) = wishes.iter().find(|(name, _)| !known.contains(name)) {
        return Err(format!("{name} is nothing to be wished for"));
    }
    let challenge = match wish("algorithm") {
        None => line.challenges.first(),
        Some(algorithm) => line.challenges.iter().find(|it| param(it, "algorithm") == Some(algorithm)),
    };
    let challenge = challenge.ok_or("no such challenge came")?.clone();
    let of = |name: &str| param(&challenge, name).unwrap_or_default().to_owned();
    let algorithm = of("algorithm");
    let realm = wish("realm").map_or_else(|| of("realm"), str::to_owned);
    let nonce = wish("nonce").map_or_else(|| of("nonce"), str::to_owned);
    let uri = wish("uri").unwrap_or(uri);
    let count = line.nonce_counts.entry(nonce.clone()).or_insert(0);
    *count += 1;
    let nc = wish("nc").map_or_else(|| format!("{count:08x}"), str::to_owned);
    let cnonce = wish("cnonce").unwrap_or("0a4f113b");
    let hash = |text: String| match algorithm.as_str() {
        "SHA-256" => hex(&Sha256::digest(text)),
        _ => hex(&Md5::digest(text)),
    };
    let (ha1, ha2) = (hash(format!("{user}:{realm}:{password}")), hash(format!("{method}:{uri}")));
    let qop = wish("qop").unwrap_or("auth");
    let (response, protection) = if qop == "-" {
        // RFC 2069: without qop there is neither a client nonce nor a count.
        (hash(format!("{ha1}:{nonce}:{ha2}")), String::new())
    } else {
        let response = hash(format!("{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}"));
        (response, format!(", qop={qop}, nc={nc}, cnonce=\"{cnonce}\""))
    };
    let response = wish("response").unwrap_or(&response);
    let username = wish("username").unwrap_or(user);
    Ok(format!(
        "Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", \
         algorithm={algorithm}{protection}"
    ))
}

/// A parameter of a challenge, without its quotes.
pub(super) fn param<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let params = challenge.strip_prefix("Digest ")?.split(',');
    params
        .filter_map(|param| param.trim().split_once('='))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7616_is_answered_as_there() {
        let mut line = Line::default();
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        for algorithm in ["SHA-256", "MD5"] {
            line.challenges.push(format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, nonce=\"{nonce}\""
            ));
        }
        // "Circle of Life" has spaces, so the scenario's words will not do; its hash is taken from the RFC's other side.
        let value =
            authorization(&mut line, "GET", "/dir/index.html", "Mufasa Circle algorithm=MD5").unwrap();
        let ha1 = hex(&Md5::digest("Mufasa:http-auth@example.org:Circle"));
        let ha2 = hex(&Md5::digest("GET:/dir/index.html"));
        let wanted = hex(&Md5::digest(format!("{ha1}:{nonce}:00000001:0a4f113b:auth:{ha2}")));
        assert!(value.contains(&format!("response=\"{wanted}\"")), "{value}");
        let again = authorization(&mut line, "GET", "/dir/index.html", "Mufasa Circle").unwrap();
        assert!(again.contains("nc=00000002") && again.contains("algorithm=SHA-256"), "{again}");
    }
}
