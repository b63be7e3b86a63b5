//! The ComSIPL server.

use std::process::ExitCode;

fn main() -> ExitCode {
    comsipl_shards::cli::run()
}
