//! `comsipl check-config`.

use std::io::Write;
use std::path::Path;

use super::{Exit, complain};
use crate::config;
use crate::settings::Settings;

/// Checks a file and prints all options in force.
pub(super) fn run(path: &Path) -> Exit {
    let mut settings = Settings::default();
    if let Err(error) = config::read_file(path, &mut settings) {
        complain(&error);
        return Exit::Misused;
    }
    // To a closed pipe there is nothing to say.
    let _ = std::io::stdout().write_all(config::to_toml(&settings).as_bytes());
    if let Err(error) = config::check_exposure(&settings) {
        complain(&error);
        return Exit::Misused;
    }
    Exit::Done
}
