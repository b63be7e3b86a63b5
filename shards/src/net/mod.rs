//! Sockets: bound by [`bind`](bind::bind), read and written in batches by [`mmsg`], written in order by [`Sender`]; [`steer`] tells the kernel
//! which socket an answer belongs to.

pub mod bind;
pub mod mmsg;
mod sender;
mod sockaddr;
pub mod steer;
pub mod stream;
mod train;
pub use sender::{SendFigures, Sender};
