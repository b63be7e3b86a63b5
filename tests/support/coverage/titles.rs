//! Titles of the RFCs that tests cite.

/// The title of an RFC; `None` if no test has cited it so far.
pub fn title(rfc: u16) -> Option<&'static str> {
    TITLES.binary_search_by_key(&rfc, |(number, _)| *number).ok().map(|at| TITLES[at].1)
}

/// Sorted by number. "Session Initiation Protocol (SIP)" stands as "SIP".
const TITLES: &[(u16, &str)] = &[
    (1123, "Requirements for Internet Hosts - Application and Support"),
    (1321, "The MD5 Message-Digest Algorithm"),
    (2069, "An Extension to HTTP : Digest Access Authentication"),
    (2396, "Uniform Resource Identifiers (URI): Generic Syntax"),
    (2543, "SIP: Session Initiation Protocol"),
    (2606, "Reserved Top Level DNS Names"),
    (2617, "HTTP Authentication: Basic and Digest Access Authentication"),
    (2782, "A DNS RR for specifying the location of services (DNS SRV)"),
    (3261, "SIP: Session Initiation Protocol"),
    (3262, "Reliability of Provisional Responses in SIP"),
    (3263, "SIP: Locating SIP Servers"),
    (3265, "SIP-Specific Event Notification"),
    (3311, "The SIP UPDATE Method"),
    (3323, "A Privacy Mechanism for SIP"),
    (3325, "Private Extensions to SIP for Asserted Identity within Trusted Networks"),
    (3327, "SIP Extension Header Field for Registering Non-Adjacent Contacts"),
    (3339, "Date and Time on the Internet: Timestamps"),
    (3420, "Internet Media Type message/sipfrag"),
    (3428, "SIP Extension for Instant Messaging"),
    (3458, "Message Context for Internet Mail"),
    (3515, "The SIP Refer Method"),
    (3581, "An Extension to SIP for Symmetric Response Routing"),
    (3608, "SIP Extension Header Field for Service Route Discovery During Registration"),
    (3680, "A SIP Event Package for Registrations"),
    (3840, "Indicating User Agent Capabilities in SIP"),
    (3841, "Caller Preferences for SIP"),
    (3842, "A Message Summary and Message Waiting Indication Event Package for SIP"),
    (3856, "A Presence Event Package for SIP"),
    (3857, "A Watcher Information Event Template-Package for SIP"),
    (3858, "An Extensible Markup Language (XML) Based Format for Watcher Information"),
    (3863, "Presence Information Data Format (PIDF)"),
    (3903, "SIP Extension for Event State Publication"),
    (3966, "The tel URI for Telephone Numbers"),
    (3986, "Uniform Resource Identifier (URI): Generic Syntax"),
    (4028, "Session Timers in SIP"),
    (4235, "An INVITE-Initiated Dialog Event Package for SIP"),
    (4291, "IP Version 6 Addressing Architecture"),
    (4320, "Actions Addressing Identified Issues with the SIP Non-INVITE Transaction"),
    (4321, "Problems Identified Associated with the SIP Non-INVITE Transaction"),
    (4475, "SIP Torture Test Messages"),
    (4479, "A Data Model for Presence"),
    (4480, "RPID: Rich Presence Extensions to the Presence Information Data Format (PIDF)"),
    (
        4481,
        "Timed Presence Extensions to PIDF to Indicate Status Information for Past and Future Time Intervals",
    ),
    (4482, "CIPID: Contact Information for the Presence Information Data Format"),
    (4575, "A SIP Event Package for Conference State"),
    (4660, "Functional Description of Event Notification Filtering"),
    (4661, "An Extensible Markup Language (XML)-Based Format for Event Notification Filtering"),
    (4662, "A SIP Event Notification Extension for Resource Lists"),
    (4745, "Common Policy: A Document Format for Expressing Privacy Preferences"),
    (4916, "Connected Identity in SIP"),
    (5025, "Presence Authorization Rules"),
    (5057, "Multiple Dialog Usages in SIP"),
    (5118, "SIP Torture Test Messages for Internet Protocol Version 6 (IPv6)"),
    (5196, "SIP User Agent Capability Extension to Presence Information Data Format (PIDF)"),
    (5246, "The Transport Layer Security (TLS) Protocol Version 1.2"),
    (5262, "Presence Information Data Format (PIDF) Extension for Partial Presence"),
    (5263, "SIP Extension for Partial Notification of Presence Information"),
    (5280, "Internet X.509 Public Key Infrastructure Certificate and CRL Profile"),
    (5367, "Subscriptions to Request-Contained Resource Lists in SIP"),
    (5389, "Session Traversal Utilities for NAT (STUN)"),
    (5393, "Addressing an Amplification Vulnerability in SIP Forking Proxies"),
    (5626, "Managing Client-Initiated Connections in SIP"),
    (5627, "Obtaining and Using Globally Routable User Agent URIs (GRUUs) in SIP"),
    (5628, "Registration Event Package Extension for SIP Globally Routable User Agent URIs (GRUUs)"),
    (5630, "The Use of the SIPS URI Scheme in SIP"),
    (5839, "An Extension to SIP Events for Conditional Event Notification"),
    (5875, "An Extensible Markup Language (XML) Configuration Access Protocol (XCAP) Diff Event Package"),
    (5922, "Domain Certificates in SIP"),
    (5923, "Connection Reuse in SIP"),
    (5952, "A Recommendation for IPv6 Address Text Representation"),
    (5954, "Essential Correction for IPv6 ABNF and URI Comparison in RFC 3261"),
    (6011, "SIP User Agent Configuration"),
    (6026, "Correct Transaction Handling for 2xx Responses to SIP INVITE Requests"),
    (6066, "Transport Layer Security (TLS) Extensions: Extension Definitions"),
    (6086, "SIP INFO Method and Package Framework"),
    (6223, "Indication of Support for Keep-Alive"),
    (6234, "US Secure Hash Algorithms (SHA and SHA-based HMAC and HKDF)"),
    (6446, "SIP Event Notification Extension for Notification Rate Control"),
    (6455, "The WebSocket Protocol"),
    (6665, "SIP-Specific Event Notification"),
    (7118, "The WebSocket Protocol as a Transport for SIP"),
    (7235, "Hypertext Transfer Protocol (HTTP/1.1): Authentication"),
    (7339, "SIP Overload Control"),
    (7415, "SIP Rate Control"),
    (7616, "HTTP Digest Access Authentication"),
    (7617, "The Basic HTTP Authentication Scheme"),
    (8141, "Uniform Resource Names (URNs)"),
    (8224, "Authenticated Identity Management in SIP"),
    (8446, "The Transport Layer Security (TLS) Protocol Version 1.3"),
    (8599, "Push Notification with SIP"),
    (8760, "The SIP Digest Access Authentication Scheme"),
    (9110, "HTTP Semantics"),
    (9112, "HTTP/1.1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_title_is_found() {
        assert!(TITLES.is_sorted_by(|(a, _), (b, _)| a < b));
        assert_eq!(title(3903), Some("SIP Extension for Event State Publication"));
        assert_eq!(title(1), None);
    }
}
