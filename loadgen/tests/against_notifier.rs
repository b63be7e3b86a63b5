//! Whole runs against the built-in notifier: right ones pass, and every fault of the notifier is found.

use clap::Parser as _;
use comsipl_loadgen::cli::Cli;
use comsipl_loadgen::notifier::{Faults, Notifier};
use comsipl_loadgen::report::Report;
use comsipl_loadgen::run;

/// Runs a command line against a notifier with these faults.
fn measure(faults: Faults, line: &str) -> Report {
    let notifier = Notifier::start(faults).unwrap();
    let target = notifier.address().to_string();
    let words = ["comsipl-loadgen"].into_iter().chain(line.split_whitespace());
    let cli = Cli::parse_from(words.chain(["--target", &target, "--quiet", "--sockets", "4"]));
    run::run(&cli.command).unwrap()
}

#[test]
fn every_watcher_is_told_every_state_at_a_fixed_rate() {
    let report = measure(
        Faults::default(),
        "fanout --presentities 10 --watchers 5 --rate 200 --duration 0.5 --threads 2",
    );
    assert!(report.passed, "{report}");
    assert_eq!(report.total.published, 10 + 100 + 10, "first states, changes, and removals");
    assert_eq!(report.total.fresh, (10 + 100) * 5);
    assert_eq!(report.percentiles.publish_notify.count, 500);
    assert_eq!(report.percentiles.lateness.count, 100);
    let audit = report.audit.unwrap();
    assert_eq!((audit.watchers, audit.behind, audit.missing_cseqs), (50, 0, 0));
    let total = report.total;
    assert_eq!(
        (total.duplicates, total.stale, total.backward, total.superseded, total.active),
        (0, 0, 0, 0, 0)
    );
    assert_eq!(total.terminated, 50, "every subscription is ended");
}

#[test]
fn behind_a_proxy_a_second_thread_may_send() {
    for polls in ["", "--poll"] {
        let line = "fanout --presentities 20 --watchers 40 --duration 0.3 --behind-proxy --threads 2";
        let report = measure(Faults::default(), &format!("{line} {polls}"));
        assert!(report.passed, "{report}");
        assert_eq!((report.sockets, report.threads), (1, 1));
        assert_eq!(report.total.fresh, (report.total.published - 20) * 40, "removals are not fresh");
        assert_eq!((report.total.retransmissions_sent, report.total.send_errors), (0, 0));
    }
}

#[test]
fn over_tcp_all_is_told_by_the_connection_and_nothing_is_sent_twice() {
    let notifier = Notifier::start_tcp(Faults::default()).unwrap();
    let target = notifier.address().to_string();
    let line = "comsipl-loadgen fanout --presentities 10 --watchers 30 --rate 200 --duration 0.5 --transport tcp \
                --connections 1 --quiet --target";
    let cli = Cli::parse_from(line.split_whitespace().chain([&*target]));
    let report = run::run(&cli.command).unwrap();
    assert!(report.passed, "{report}");
    assert_eq!((report.transport.via(), report.sockets), ("TCP", 1));
    assert_eq!(report.total.published, 10 + 100 + 10, "first states, changes, and removals");
    assert_eq!(report.total.fresh, (10 + 100) * 30);
    assert_eq!(report.percentiles.publish_notify.count, 100 * 30);
    assert_eq!(report.total.retransmissions_sent, 0);
    assert_eq!((report.total.malformed, report.total.connections_lost), (0, 0));
}

#[test]
fn the_closed_loop_supersedes_nothing() {
    let report = measure(Faults::default(), "fanout --presentities 3 --watchers 5 --duration 0.3 --window 8");
    assert!(report.passed, "{report}");
    assert!(report.measured.published > 10);
    assert_eq!((report.total.superseded, report.total.queued), (0, 0));
    assert_eq!(report.total.fresh, (report.total.published - 3) * 5);
}

#[test]
fn subscriptions_are_made_and_refreshed_in_their_dialogs() {
    let report = measure(
        Faults { notify_first: true, ..Faults::default() },
        "subscribe --presentities 4 --watchers 5 --rate 400 --duration 0.25 --keep",
    );
    assert!(report.passed, "{report}");
    // Of all the run: what is answered after the quarter of a second is no part of the measured time.
    assert_eq!(report.total.subscribed, 100);
    assert_eq!(report.percentiles.subscribe_notify.count, 100);
    assert_eq!((report.total.fresh, report.total.repeated), (20, 80));
    assert_eq!(report.total.duplicates, 0, "a NOTIFY that answers a refresh is none");
}

#[test]
fn registrations_and_publications_pass() {
    let report = measure(Faults::default(), "register --users 300");
    assert!(report.passed, "{report}");
    assert_eq!((report.measured.registered, report.total.registered), (300, 600));
    let report = measure(Faults::default(), "publish --presentities 20 --rate 200 --duration 0.2 --keep");
    assert!(report.passed, "{report}");
    assert_eq!((report.percentiles.publish_answer.count, report.total.published), (40, 60));
}

#[test]
fn lost_requests_are_sent_again() {
    let report = measure(Faults { lose_request: 10, ..Faults::default() }, "register --users 50 --keep");
    assert!(report.passed, "{report}");
    assert_eq!((report.total.registered, report.total.timed_out), (50, 0));
    assert!(report.total.retransmissions_sent >= 5);
}

#[test]
fn retransmitted_notifies_are_no_duplicates() {
    let report = measure(
        Faults { repeat_notify: 5, ..Faults::default() },
        "fanout --presentities 4 --watchers 5 --rate 100 --duration 0.2",
    );
    assert!(report.passed, "{report}");
    assert_eq!((report.total.notify_retransmissions, report.total.duplicates), ((4 + 20) * 5 / 5, 0));
}

#[test]
fn duplicates_are_counted_but_harmless() {
    let report = measure(
        Faults { duplicate_notify: 5, ..Faults::default() },
        "fanout --presentities 4 --watchers 5 --rate 100 --duration 0.2",
    );
    assert!(report.passed, "{report}");
    assert_eq!((report.total.notify_retransmissions, report.total.duplicates), (0, (4 + 20) * 5 / 5));
}

#[test]
fn a_lost_notify_fails_the_audit() {
    // 100 first NOTIFYs and the one of every watcher's last state: number 200 is lost.
    let report = measure(
        Faults { lose_notify: 200, ..Faults::default() },
        "fanout --presentities 10 --watchers 10 --rate 50 --duration 0.2 --settle 0.2",
    );
    assert!(!report.passed, "{report}");
    assert_eq!(report.audit.unwrap().behind, 1);
    assert_eq!(report.audit.unwrap().turned_back, 0);
}

#[test]
fn an_older_state_shown_last_fails_the_audit() {
    let report = measure(
        Faults { stale_notify: 200, ..Faults::default() },
        "fanout --presentities 10 --watchers 10 --rate 50 --duration 0.2 --settle 0.2",
    );
    assert!(!report.passed, "{report}");
    let audit = report.audit.unwrap();
    assert_eq!((audit.behind, audit.turned_back, report.total.stale), (1, 1, 1));
}

#[test]
fn a_forgotten_tag_and_a_brief_interval_are_recovered_from() {
    let report = measure(
        Faults { forget_tag: 4, min_expires: 60, ..Faults::default() },
        "fanout --presentities 5 --watchers 2 --rate 100 --duration 0.2 --expires 30",
    );
    assert!(report.passed, "{report}");
    assert!(report.total.tag_unknown >= 4);
    assert_eq!(report.total.too_brief, 5 + 10);
}

#[test]
fn a_run_that_outlives_its_subscriptions_is_refused() {
    let cli = Cli::parse_from("x publish --duration 60 --expires 60 --target 127.0.0.1:9 --quiet".split(' '));
    assert!(run::run(&cli.command).unwrap_err().to_string().contains("--expires"));
}

#[test]
fn an_unknown_server_process_is_an_error() {
    let cli = Cli::parse_from(
        "x register --users 1 --target 127.0.0.1:9 --server-pid 4294967295 --quiet".split(' '),
    );
    assert!(run::run(&cli.command).is_err());
}

#[test]
fn a_run_becomes_a_page_and_can_be_compared_with_itself() {
    let report = measure(
        Faults::default(),
        "fanout --presentities 4 --watchers 5 --rate 200 --duration 0.4 --server-pid 1",
    );
    let page = comsipl_loadgen::page(&report);
    assert!(page.contains("PASSED") && page.contains("PUBLISH → NOTIFY"), "{page}");
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.matches("<svg").count() >= 2, "latencies and rates: {page}");
    assert!(!page.contains("http"), "nothing is loaded from elsewhere");
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    let json = serde_json::to_value(&report).unwrap();
    let compared = comsipl_loadgen::compare::compare(&json, &json);
    assert!(compared.rows.len() >= 5);
    assert!(compared.rows.iter().all(|row| row.ratio == Some(1.0)), "{compared}");
}

/// Writes a profile and runs it against a notifier without faults.
fn run_profile(name: &str, text: &str) -> Report {
    run_faulty(Faults::default(), name, text)
}

fn run_faulty(faults: Faults, name: &str, text: &str) -> Report {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    measure(faults, &format!("run {} --threads 2", path.display()))
}

#[test]
fn a_profile_has_users_who_poll_and_come_back_after_a_loss_of_power() {
    let report = run_profile(
        "users",
        r#"
        about = "test"
        users = true
        presentities = [{ name = "users", count = 20 }]
        registrants = [{ name = "users", count = 20 }]
        watchers = [
            { name = "contacts", of = ["users"], contacts = { owners = "users", mean = 5, max = 10 } },
            { name = "polls", of = ["users"], contacts = { owners = "users", mean = 1, max = 1 }, polls = true },
        ]
        phase = [
            { name = "log on", works = [{ do = "register", who = "users" }, { do = "publish", who = "users" }] },
            { name = "subscribe", works = [{ do = "subscribe", who = "contacts" }] },
            { name = "day", measured = true, for = "200ms", works = [
                { do = "poll", who = "polls", every = "100ms" }, { do = "publish", who = "users", rate = 100 } ] },
            { name = "back", measured = true, forget = true, works = [
                { do = "subscribe", who = "contacts", over = "200ms" }, { do = "publish", who = "users", over = "200ms" } ] },
            { name = "settle", settle = "5s" },
        ]
        expect = [
            { kind = "latency", phase = "day", of = "publish-notify", percentile = "max", at_most_ms = 5000 },
            { kind = "within", phase = "back", at_most_secs = 5 },
            { kind = "count", counter = "stale", at_most = 0 },
        ]
        "#,
    );
    assert!(report.passed, "{report}");
    let phase = |name: &str| report.phases.iter().find(|phase| phase.name == name).unwrap();
    assert_eq!(phase("subscribe").counts.subscribed, 100, "20 users with 5 contacts");
    assert_eq!(phase("day").counts.subscribed, 40, "20 polls twice");
    assert_eq!(phase("day").percentiles.unwrap().subscribe_notify.count, 40);
    assert_eq!(phase("day").percentiles.unwrap().publish_notify.count, 100, "20 changes for 5 watchers");
    assert_eq!(phase("back").counts.subscribed, 100);
    assert_eq!(report.audit.unwrap().watchers, 100, "who polls is not audited");
    assert_eq!(report.verdicts.iter().filter(|verdict| verdict.claim.contains("at most")).count(), 2);
}

#[test]
fn deaf_watchers_are_not_audited_and_never_answer() {
    let report = run_profile(
        "deaf",
        r#"
        about = "test"
        presentities = [{ name = "star", count = 1, apart = true }, { name = "others", count = 9 }]
        watchers = [
            { name = "live", of = ["star", "others"], each = 3 },
            { name = "deaf", of = ["others"], each = 2, deaf = true },
        ]
        phase = [
            { name = "subscribe", works = [{ do = "subscribe", who = "live" }, { do = "subscribe", who = "deaf" }] },
            { name = "changes", measured = true, works = [
                { do = "publish", who = "star" }, { do = "publish", who = "others" } ] },
            { name = "settle", settle = "5s" },
        ]
        "#,
    );
    assert!(report.passed, "{report}");
    assert_eq!(report.audit.unwrap().watchers, 30);
    assert_eq!(report.total.ignored, 18 * 3, "the first NOTIFY, a change, and the last");
    let percentiles = report.percentiles;
    assert_eq!((percentiles.publish_notify_apart.count, percentiles.publish_notify.count), (3, 27));
}

#[test]
fn a_bad_network_loses_and_doubles_what_is_retransmitted() {
    let report = run_profile(
        "bad",
        r#"
        about = "test"
        link = { loss = 0.05, duplicate = 0.2, reorder = 0.1, held_ms = 5 }
        registrants = [{ name = "phones", count = 200 }]
        phase = [{ name = "register", measured = true, works = [{ do = "register", who = "phones" }] }]
        "#,
    );
    assert!(report.passed, "{report}");
    let total = report.total;
    assert!(total.registered >= 200 && total.retransmissions_sent > 0, "{report}");
    assert!(total.link_lost > 0 && total.link_doubled > 0 && total.link_delayed > 0);
    assert!(total.stray_answers > 0, "an answer that came twice");
}

#[test]
fn a_profile_that_kills_needs_a_server_to_kill() {
    let cli = Cli::parse_from("x run kill --target 127.0.0.1:9 --quiet".split(' '));
    assert!(run::run(&cli.command).unwrap_err().to_string().contains("--server-command"));
    let cli = Cli::parse_from("x run no-such-profile --target 127.0.0.1:9 --quiet".split(' '));
    assert!(run::run(&cli.command).unwrap_err().to_string().contains("no-such-profile"));
}

#[test]
fn who_is_refused_for_a_while_comes_again() {
    let report = measure(
        Faults { busy: 7, ..Faults::default() },
        "subscribe --presentities 4 --watchers 25 --rate 1000 --duration 0.2",
    );
    assert!(report.passed, "{report}");
    assert_eq!((report.total.subscribed, report.total.refused), (200 + 100, 0), "all come and go");
    assert!(report.total.deferred >= 200 / 7, "{report}");
    assert_eq!(report.percentiles.subscribe_notify.count, 200, "counted from the first time");
}

#[test]
fn a_refresh_of_a_publication_that_is_told_is_a_duplicate() {
    let report = run_profile(
        "refresh",
        r#"
        about = "test"
        presentities = [{ name = "phones", count = 10 }]
        watchers = [{ name = "friends", of = ["phones"], each = 3 }]
        phase = [
            { name = "subscribe", works = [{ do = "subscribe", who = "friends" }] },
            { name = "first", works = [{ do = "publish", who = "phones" }] },
            { name = "refresh", measured = true, works = [{ do = "refresh", who = "phones" }] },
            { name = "settle", settle = "5s" },
        ]
        expect = [{ kind = "count", counter = "duplicates", at_most = 0, claim = "No refresh is told" }]
        "#,
    );
    // The notifier tells whatever is published.
    assert!(!report.passed, "{report}");
    assert_eq!((report.measured.published, report.total.duplicates), (10, 30));
    assert_eq!(report.audit.unwrap().behind, 0);
    let failed: Vec<_> = report.verdicts.iter().filter(|verdict| !verdict.passed).collect();
    assert_eq!((failed.len(), &*failed[0].claim), (1, "No refresh is told"));
}

#[test]
fn visitors_come_and_go_in_dialogs_of_their_own() {
    let report = run_profile(
        "visits",
        r#"
        about = "test"
        arrivals = "poisson"
        presentities = [{ name = "hosts", count = 5 }]
        watchers = [{ name = "visitors", of = ["hosts"], each = 4, visits = true }]
        phase = [
            { name = "first", works = [{ do = "publish", who = "hosts" }] },
            { name = "visits", measured = true, for = "300ms", works = [{ do = "visit", who = "visitors", rate = 400 }] },
            { name = "settle", settle = "1s" },
        ]
        "#,
    );
    assert!(report.passed, "{report}");
    let total = report.total;
    assert!((60..240).contains(&total.subscribed), "{report}");
    assert!(total.terminated > 10 && total.dialog_unknown == 0 && total.active == 0, "{report}");
}

const RACE: &str = r#"
    about = "test"
    presentities = [{ name = "hasty", count = 10 }]
    watchers = [{ name = "watchers", of = ["hasty"], each = 2 }]
    phase = [
        { name = "subscribe", works = [{ do = "subscribe", who = "watchers" }] },
        { name = "first", works = [{ do = "publish", who = "hasty" }] },
        { name = "races", measured = true, works = [{ do = "race", who = "hasty" }] },
        { name = "settle", settle = "5s" },
    ]
"#;

#[test]
fn of_two_publishes_for_one_tag_one_is_refused_and_recovered_from() {
    let report = run_profile("race", RACE);
    assert!(report.passed, "{report}");
    assert_eq!((report.measured.published, report.measured.tag_unknown), (20, 10));
    assert_eq!(report.total.fresh, 20 * 3, "the first state, and two more");
}

#[test]
fn a_server_that_takes_both_publishes_for_one_tag_fails() {
    let report = run_faulty(Faults { ignore_tags: true, ..Faults::default() }, "taken-twice", RACE);
    assert!(!report.passed && report.total.refused == 10, "{report}");
}
