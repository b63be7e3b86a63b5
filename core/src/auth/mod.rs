//! Digest authentication (RFC 8760, RFC 7616, RFC 3261 §22): challenges, credentials, nonces and secrets.
//!
//! A nonce says by itself when it was made, and that we made it; nothing is kept for a challenge. What is kept is which nonce
//! counts were used, in a table of fixed size. So a flood of requests without credentials costs no memory.
//!
//! ```text
//! Nonces::issue      -> the nonce of a challenge
//! Challenge::write   -> one WWW-Authenticate for each algorithm, the strongest first
//! Credentials::parse <- Authorization
//! Nonces::examine    -> fresh, expired or none of ours
//! Credentials::prove -> whether the sender knows the secret
//! Nonces::spend      -> whether this nonce count is used for the first time
//! ```
//!
//! [`Meters`] count what sources have done, failures above all, in another table of fixed size.

mod algorithm;
pub use algorithm::{Algorithm, Hash};
mod asserted;
pub use asserted::{asserted_identity, asserts_identity};
mod challenge;
pub use challenge::Challenge;
mod credentials;
pub use credentials::{BadCredentials, CREDENTIALS_LEN_MAX, Credentials, Protection};
mod meters;
pub use meters::{Meter, Meters};
#[cfg(test)]
mod meters_tests;
mod nonce;
pub use nonce::{NONCE_LEN, Nonce, NonceEstate, NonceId, Nonces, Source};
mod replay;
pub use replay::{COUNT_MAX, SpentCounts};
#[cfg(test)]
mod replay_tests;
mod sync;
