//! Plays every conversation of `tests/scenarios/`, each as a test of its own.

use std::path::{Path, PathBuf};

use comsipl_tests::scenario;

/// Makes a test of each file named, and a list of them all.
macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                play(stringify!($name));
            }
        )*

        /// The files that are played.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

scenarios! {
    as_feature_event_newest
    auth_asserted_by_a_stranger
    auth_challenge_keeps_nothing
    auth_challenges_strongest_first
    auth_configured_realm
    auth_denied_sources
    auth_dialog_of_another
    auth_digest_uri
    auth_flood
    auth_in_dialog
    auth_malformed_credentials
    auth_nonce_after_a_restart
    auth_nonce_count_replayed
    auth_nonce_of_another_source
    auth_one_algorithm
    auth_other_realm_first
    auth_own_registration
    auth_own_watchers
    auth_publish_for_another
    auth_qop_is_needed
    auth_register_of_another
    auth_spoofed_from
    auth_stale_nonce
    auth_too_many_failures
    auth_trusted_proxy
    auth_what_is_not_challenged
    auth_wrong_password_or_no_user
    compose_basic_with_capitals
    compose_keeps_what_it_does_not_know
    compose_nothing_published
    compose_registered_is_open
    compose_registered_note
    compose_same_tuple_id
    compose_two_devices
    compose_unregistered_is_closed
    conference_as_published
    crash_connections_are_gone
    crash_first_notify
    crash_held_change
    crash_is_no_news
    crash_offline_hold
    crash_offline_hold_over
    crash_offline_ran_out_meanwhile
    crash_other_number_of_shards
    crash_owed_notify
    crash_owed_notify_of_a_removal
    crash_owed_notify_of_an_expiry
    crash_ran_out_meanwhile
    crash_reg_expired_meanwhile
    crash_subscriptions_go_on
    crash_twice
    crash_unanswered_notify
    crash_winfo_watcher_ran_out_meanwhile
    dialog_interval
    dialog_lasts_longer
    dialog_published
    dialog_refused
    dialog_session_description
    dialog_version_after_a_crash
    dialog_version_sent_again
    flow_answers_by_the_connection
    flow_connection_gone
    flow_connection_gone_for_good
    flow_contact_asks_for_tcp
    flow_contact_without_place
    flow_ended_by_another
    flow_half_open
    flow_local_target
    flow_no_timer_e
    flow_nothing_remembered
    flow_outbound_proxy
    flow_renewed_by_register
    flow_route_set_by_connection
    message_summary_grammar
    notify_across_shards
    notify_answers_that_remove
    notify_cseq_grows
    notify_not_for_a_refresh
    notify_not_for_a_time_stamp
    notify_one_in_flight
    notify_other_watchers_are_not_held_up
    notify_refused_for_now
    notify_refused_with_retry_after
    notify_state_that_came_back
    notify_timer_f
    notify_timer_f_and_back
    notify_within_a_budget
    offline_after_the_registration
    offline_after_the_registration_ran_out
    offline_ends_with_a_publish
    offline_not_for_a_new_registration
    offline_not_wanted
    offline_not_without_a_registration
    package_interval
    package_interval_state_that_came_back
    package_not_acceptable
    package_state_apart
    package_survives_a_crash
    package_two_in_a_dialog
    package_wrong_type
    presence_interval
    profile_comsipl_notify
    profile_comsipl_recognised_again
    profile_comsipl_requested_info
    profile_comsipl_stands_aside
    publish_bad_event
    publish_baresip_refresh
    publish_encoded
    publish_entity_tag_is_a_token
    publish_frees_records
    publish_initial
    publish_initial_without_body
    publish_interval_chosen
    publish_interval_too_brief
    publish_linphone_document
    publish_linphone_refresh
    publish_modify
    publish_no_record_route
    publish_not_xml
    publish_order_of_refusals
    publish_refresh
    publish_remove
    publish_remove_without_content_length
    publish_runs_out
    publish_sent_again_after_a_crash
    publish_survives_a_crash
    publish_tag_of_another
    publish_two_tags
    publish_unknown_tag
    publish_unpublish_nothing
    publish_wrong_type
    quirk_baresip_watches
    quirk_idle_dialog
    quirk_md5_alone
    quirk_message_of_4000_bytes
    quirk_single_dialog
    reg_across_shards
    reg_default_expires
    reg_expired
    reg_hostile_contact
    reg_interval
    reg_is_not_published
    reg_not_acceptable
    reg_of_nobody
    reg_poll
    reg_refreshed
    reg_registered
    reg_survives_a_crash
    reg_unregistered
    register_all_or_nothing
    register_all_or_nothing_when_full
    register_an_hour_is_never_too_brief
    register_canonical_aor
    register_expires
    register_gruu
    register_in_order
    register_instance
    register_interval_too_brief
    register_no_record_route
    register_other_call_id
    register_outbound
    register_outbound_alone
    register_outbound_first_hop
    register_path
    register_query
    register_runs_out
    register_says_nothing_of_presence
    register_sent_again_after_a_crash
    register_service_route
    register_several_bindings
    register_star
    register_star_in_order
    register_star_wrongly
    register_survives_a_crash
    register_uri_comparison
    resolve_contact
    resolve_in_time
    resolve_once
    resolve_route
    resolve_unknown
    sips_binding
    sips_dialog
    sips_needs_tls
    subscribe_an_hour_is_never_too_brief
    subscribe_bad_event
    subscribe_behind_nat
    subscribe_contact_is_a_name
    subscribe_default_expires
    subscribe_end
    subscribe_end_and_again
    subscribe_event_id
    subscribe_event_name_without_case
    subscribe_first
    subscribe_interval_too_brief
    subscribe_not_acceptable
    subscribe_other_event_in_dialog
    subscribe_out_of_order
    subscribe_poll
    subscribe_refresh
    subscribe_refresh_too_late
    subscribe_requested_info
    subscribe_route_set
    subscribe_runs_out
    subscribe_shortened
    subscribe_shows_what_is_published
    subscribe_strict_route
    subscribe_target_refresh
    subscribe_twice
    subscribe_two_ids_in_a_dialog
    subscribe_unknown_dialog
    subscribe_without_contact
    transaction_all_vias_come_back
    transaction_body_cut_short
    transaction_bytes_after_the_body
    transaction_compact_and_folded
    transaction_foreign_domain
    transaction_invite
    transaction_keep_alive
    transaction_malformed
    transaction_max_forwards
    transaction_merged_request
    transaction_method_not_allowed
    transaction_modify_sent_again
    transaction_notify_answered_late
    transaction_notify_provisional
    transaction_notify_timer_e
    transaction_notify_to_the_server
    transaction_options
    transaction_publish_sent_again
    transaction_refusal_sent_again
    transaction_register_sent_again
    transaction_response_by_rport
    transaction_response_by_sent_by
    transaction_response_to_default_port
    transaction_stray_ack
    transaction_stray_response
    transaction_subscribe_sent_again
    transaction_unsupported_extension
    transaction_uri_scheme
    transaction_version_not_supported
    winfo_across_shards
    winfo_hostile_watcher
    winfo_interval
    winfo_of_nobody
    winfo_of_winfo
    winfo_poll_is_transient
    winfo_refresh_is_no_news
    winfo_survives_a_crash
    winfo_watcher_comes_and_goes
    winfo_watcher_runs_out
}

#[test]
fn every_file_is_played() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "sip"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, NAMES, "tests/scenarios.rs must name the files of tests/scenarios/, in order");
}

fn play(name: &str) {
    let path = folder().join(name).with_extension("sip");
    if let Err(report) = scenario::play(&path) {
        panic!("\n{report}\n");
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}
