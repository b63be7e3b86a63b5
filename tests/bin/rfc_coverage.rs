//! Writes `tests/RFC-COVERAGE.md` anew.

use anyhow::{Context, Result};
use comsipl_tests::coverage::{TABLE, table};
use comsipl_tests::server::workspace;

fn main() -> Result<()> {
    let path = workspace().join(TABLE);
    std::fs::write(&path, table(workspace())?).with_context(|| format!("{TABLE} cannot be written"))?;
    Ok(())
}
