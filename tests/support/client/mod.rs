//! Real SIP clients, driven by tests: each a process with its own home directory, on loopback.

pub mod authority;
pub mod baresip;
pub mod linphone;
pub mod linphones;
pub mod phone;
pub mod process;
pub mod program;
pub mod proof;
pub mod road;
pub mod sipp;
pub mod web;
