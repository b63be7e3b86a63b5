//! Sockets: bound by [`bind`](bind::bind), read and written in batches by [`mmsg`], written in order by [`Sender`].

pub mod bind;
pub mod mmsg;
mod sender;
pub use sender::{SendFigures, Sender};
