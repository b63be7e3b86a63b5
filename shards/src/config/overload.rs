//! The section `[overload]`.

use std::time::Duration;

use toml::Value;

use super::file::Overload;
use super::print::number;
use super::{Mistake, check_range};
use crate::settings::OverloadSettings;

/// Most percent that granted times are shortened by: at least half of what was asked for is granted.
const SPREAD_PERCENT_MAX: i64 = 50;

impl Overload {
    /// Checks what the section says and puts it into `settings`.
    pub(super) fn apply(self, settings: &mut OverloadSettings) -> Result<(), Mistake> {
        if let Some(enabled) = self.enabled {
            settings.is_controlled = enabled;
        }
        if let Some(millis) = self.target_ms {
            settings.target = Duration::from_millis(check_range(&millis, 5, 1000, "milliseconds")?);
        }
        for (value, percent) in [
            (self.expires_spread_percent, &mut settings.expires_spread_percent),
            (self.expires_spread_after_start_percent, &mut settings.expires_spread_after_start_percent),
        ] {
            if let Some(value) = value {
                *percent = check_range(&value, 0, SPREAD_PERCENT_MAX, "percent")? as u8;
            }
        }
        Ok(())
    }
}

/// The section that says exactly `settings`.
pub(super) fn print(settings: &OverloadSettings) -> Vec<(&'static str, Value)> {
    let OverloadSettings {
        is_controlled,
        target,
        expires_spread_percent,
        expires_spread_after_start_percent,
    } = settings;
    vec![
        ("enabled", Value::Boolean(*is_controlled)),
        ("target_ms", number(target.as_millis() as usize)),
        ("expires_spread_percent", number(usize::from(*expires_spread_percent))),
        ("expires_spread_after_start_percent", number(usize::from(*expires_spread_after_start_percent))),
    ]
}
