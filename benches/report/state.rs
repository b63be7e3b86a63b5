//! What the report says of state: in memory, and in a database.

use crate::bars::grouped;
use crate::content::{Block, FANOUT, RATE, REQUESTS, US, shown, table, times};
use crate::results::Results;

/// What is held, and what it takes.
pub fn held(results: &Results) -> Vec<Block> {
    let row = |name: &str, question: &str| {
        vec![
            name.to_owned(),
            results.cell(question, "kamailio", RATE),
            results.cell(question, "comsipl", RATE),
        ]
    };
    let mut rows = vec![
        row("state of one subscription, bytes", "state of a subscription"),
        row("state of one presentity with its document, bytes", "state of a presentity"),
        row("resident memory for each subscription when all had just subscribed, bytes", "memory"),
        row("strangers answered per second", "strangers"),
        row("answers again after `kill -9`, ms", "restart"),
    ];
    if let Some(row) = rows.last_mut() {
        row[1].push_str(", without them");
        row[2].push_str(", with them");
    }
    let it = &results.conditions;
    vec![
        Block::Heading("State".to_owned()),
        Block::Text(format!(
            "{} presentities that {} subscriptions watch, and one more each.",
            grouped(it.holding),
            grouped(it.held)
        )),
        table(&["", "Kamailio", "ComSIPL"], rows),
        Block::Text(
            "State: what is left when transactions are over. Of Kamailio the shared memory that is given out three seconds later; \
             of ComSIPL its memory, both files included, when it has just been started with them, with all that an \
             idle server has taken off. A subscription: the difference between this crowd and the same presentities with one \
             watcher each, by subscriptions; a presentity: what those take beyond their one subscription. Resident memory: what \
             the processes grew by (pages shared between them once; of ComSIPL with its files), with presentities and with the \
             transactions that they remember, Kamailio for a second, ComSIPL for the 32 s of Timer J."
                .to_owned(),
        ),
    ]
}

/// Kamailio with its state in a database.
pub fn databases(results: &Results) -> Vec<Block> {
    let rows = REQUESTS.iter().copied().chain([FANOUT]).map(|question| {
        let rate = |server| results.middle(question, server, RATE);
        let us = |server| results.middle(question, server, US);
        let mut row =
            vec![if question == FANOUT { format!("NOTIFY, {question}") } else { question.to_owned() }];
        for server in ["durable", "relaxed", "comsipl"] {
            row.extend([results.cell(question, server, RATE), shown(us(server))]);
        }
        row.extend(["durable", "relaxed"].map(|server| times(rate("comsipl"), rate(server))));
        row.extend(["durable", "relaxed"].map(|server| times(us(server), us("comsipl"))));
        row
    });
    let it = &results.conditions;
    vec![
        Block::Heading("Kamailio with its state in PostgreSQL".to_owned()),
        Block::Text(format!(
            "PostgreSQL {} on the same processors, its time counted with Kamailio's {} processes; subscriptions and bindings \
             written through. \"Waits\": `synchronous_commit=on`, every commit waits for the disk. \"Relaxed\": `off`, a power \
             cut may take the last half second; ComSIPL promises the like (a killed server loses nothing, a power cut at most \
             the last second). Asked once.",
            it.postgres, it.kamailio_db_processes
        )),
        table(
            &[
                "",
                "waits: per second",
                "µs",
                "relaxed: per second",
                "µs",
                "ComSIPL: per second",
                "µs",
                "rate, ComSIPL / waits",
                "/ relaxed",
                "µs, waits / ComSIPL",
                "relaxed / ComSIPL",
            ],
            rows.collect(),
        ),
    ]
}
