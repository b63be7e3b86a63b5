//! `tests/QUIRKS.md` shows people the table of `core/src/quirks.rs`, and the tests that its rows name exist.

use std::fmt::Write as _;

use comsipl_core::quirks::TABLE;
use comsipl_tests::server::workspace;

const PATH: &str = "tests/QUIRKS.md";

/// Set to write the table anew.
const WRITE: &str = "COMSIPL_WRITE_QUIRKS";

#[test]
fn the_document_shows_the_table() {
    let mut made = String::from(
        "# What phones in the field need\n\n\
         Written from the table in `core/src/quirks.rs` by `COMSIPL_WRITE_QUIRKS=1 cargo test -p comsipl-tests --test quirks`; \
         a test keeps the two alike. Where a row names User-Agents, only phones whose User-Agent begins so are served \
         otherwise than all others.\n\n\
         | phones | User-Agent begins with | what they do | what ComSIPL does | test |\n|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let agents: Vec<String> = row.user_agents.iter().map(|agent| format!("`{agent}`")).collect();
        let agents = if agents.is_empty() { "–".to_owned() } else { agents.join(", ") };
        writeln!(made, "| {} | {agents} | {} | {} | `{}` |", row.phones, row.behaviour, row.answer, row.test)
            .expect("a String takes all that is written");
    }
    let path = workspace().join(PATH);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &made).expect("the table is written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, made, "{PATH} is out of date; {WRITE}=1 writes it anew");
}

#[test]
fn each_row_names_a_scenario() {
    for row in TABLE {
        let scenario = workspace().join("tests/scenarios").join(row.test).with_extension("sip");
        assert!(scenario.is_file(), "{}: there is no {}", row.phones, scenario.display());
    }
}
