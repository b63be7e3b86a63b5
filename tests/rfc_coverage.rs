//! The table of RFC sections and the tests that prove them says what the tests say.

use comsipl_tests::coverage::{COMMAND, TABLE, table};
use comsipl_tests::server::workspace;

#[test]
fn the_table_says_what_the_tests_quote() {
    let made = table(workspace()).expect("every source can be read");
    let kept = std::fs::read_to_string(workspace().join(TABLE)).unwrap_or_default();
    let other = |ours: &str, theirs: &str| {
        let known: std::collections::HashSet<&str> = theirs.lines().collect();
        ours.lines()
            .filter(|line| !known.contains(line))
            .map(|line| format!("\n    {line}"))
            .collect::<String>()
    };
    assert!(
        made == kept,
        "{TABLE} is out of date; this writes it anew:\n\n    {COMMAND}\n\nmissing:{}\ntoo much:{}",
        other(&made, &kept),
        other(&kept, &made)
    );
}
