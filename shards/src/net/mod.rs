//! Sockets: bound by [`bind`](bind::bind), waited for by [`Readiness`], read and written in batches by [`mmsg`], written in order by [`Sender`];
//! [`steer`] tells the kernel which socket an answer belongs to, [`throttle`] what to keep out of one in an overload.

pub mod bind;
mod bpf;
pub mod mmsg;
mod readiness;
mod sender;
mod sockaddr;
pub mod steer;
pub mod stream;
pub mod throttle;
mod train;
pub use readiness::Readiness;
pub use sender::{SendFigures, Sender};
