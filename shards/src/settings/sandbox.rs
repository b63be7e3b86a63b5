//! What an operator may say of the sandbox.

/// Whether the server gives up what it does not need before it reads its first packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// As far as this kernel can.
    #[default]
    On,
    /// Wholly, or the server does not start.
    Required,
    /// Not at all.
    Off,
}
