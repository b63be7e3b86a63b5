//! Settings as the text of a configuration file.

use toml::Value;

use super::tls::{tls_options, web_socket_options};
use super::{AUTHS, PROFILES, REGISTERED_STATES, SANDBOX_MODES, UNREGISTERED};
use crate::settings::{ExpiryPolicy, Listen, OutboundProxy, Settings, StreamLimits};

/// The configuration file that says exactly `settings`, all options written out. Reading it gives them back.
#[must_use]
pub fn to_toml(settings: &Settings) -> String {
    // Taken apart, so that an option that is added later cannot be forgotten here.
    let Settings {
        listen,
        advertise,
        outbound_proxy,
        data_dir,
        shards,
        pin,
        domains,
        auth,
        sandbox,
        access,
        auth_failures_per_minute,
        auth_failures_per_source,
        requests_per_source,
        profile,
        registered_state,
        registered_note,
        unregistered,
        offline_hold,
        notify_interval,
        resolver,
        tls,
        web_socket,
        registration,
        service_route,
        publication,
        subscription,
        sync_interval,
        recovery_max,
        presence_records_max,
        registered_records_max,
        transaction_memory,
        notifies_per_turn,
        busy_wait,
        socket_buffer,
        overload,
        streams,
    } = settings;
    let StreamLimits { connections_max, connections_per_source_max, out_buffer, idle, message, handshake } =
        streams;
    let mut registration_options = expiries(registration);
    registration_options.push(("service_route", Value::String(service_route.clone())));
    let sections = [
        (
            "server",
            vec![
                ("listen", strings(listen.iter().map(Listen::to_string))),
                ("advertise", Value::String(advertise.clone().unwrap_or_default())),
                (
                    "outbound_proxy",
                    Value::String(outbound_proxy.as_ref().map_or_else(String::new, OutboundProxy::to_string)),
                ),
                ("domains", strings(domains.iter().cloned())),
                ("shards", shards.map_or_else(|| Value::String("auto".to_owned()), number)),
                ("pin", Value::Boolean(*pin)),
                ("profile", word(profile, &PROFILES)),
                ("auth", word(auth, &AUTHS)),
                ("sandbox", word(sandbox, &SANDBOX_MODES)),
            ],
        ),
        (
            "storage",
            vec![
                ("data_dir", Value::String(data_dir.display().to_string())),
                ("sync_interval_ms", number(sync_interval.as_millis() as usize)),
                ("recovery_max_ms", number(recovery_max.as_millis() as usize)),
                ("presence_records_max", number(*presence_records_max as usize)),
                ("registered_records_max", number(*registered_records_max as usize)),
            ],
        ),
        ("registration", registration_options),
        ("publication", expiries(publication)),
        ("subscription", expiries(subscription)),
        (
            "presence",
            vec![
                ("registered_state", word(registered_state, &REGISTERED_STATES)),
                ("registered_note", Value::String(registered_note.clone())),
                ("unregistered", word(unregistered, &UNREGISTERED)),
                ("offline_hold_s", number(offline_hold.as_secs() as usize)),
                ("notify_interval_ms", number(notify_interval.as_millis() as usize)),
            ],
        ),
        ("auth", super::auth::print(access)),
        (
            "resolver",
            vec![
                ("nameservers", strings(resolver.nameservers.iter().map(ToString::to_string))),
                ("timeout_ms", number(resolver.timeout.as_millis() as usize)),
            ],
        ),
        ("tls", tls_options(tls)),
        ("websocket", web_socket_options(web_socket)),
        ("overload", super::overload::print(overload)),
        (
            "limits",
            vec![
                ("transaction_memory_mib", number(transaction_memory >> 20)),
                ("notifies_per_turn", number(*notifies_per_turn)),
                ("busy_wait_us", number(busy_wait.as_micros() as usize)),
                ("socket_buffer_kib", number(socket_buffer >> 10)),
                ("connections_max", number(*connections_max)),
                ("connections_per_source_max", number(*connections_per_source_max)),
                ("stream_out_buffer_kib", number(out_buffer >> 10)),
                ("stream_idle_secs", number(idle.as_secs() as usize)),
                ("stream_message_secs", number(message.as_secs() as usize)),
                ("stream_handshake_secs", number(handshake.as_secs() as usize)),
                ("auth_failures_per_minute", number(*auth_failures_per_minute as usize)),
                ("auth_failures_per_source_minute", number(*auth_failures_per_source as usize)),
                ("requests_per_source_s", number(*requests_per_source as usize)),
            ],
        ),
    ];
    let mut text = String::new();
    for (name, options) in sections {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("[{name}]\n"));
        for (key, value) in options {
            // Values within one line, so that a list of tables stays in its section.
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text
}

fn expiries(policy: &ExpiryPolicy) -> Vec<(&'static str, Value)> {
    vec![
        ("min_expires", number(policy.min_secs as usize)),
        ("default_expires", number(policy.default_secs as usize)),
        ("max_expires", number(policy.max_secs as usize)),
    ]
}

pub(super) fn strings(texts: impl Iterator<Item = String>) -> Value {
    Value::Array(texts.map(Value::String).collect())
}

pub(super) fn number(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

pub(super) fn word<T: PartialEq>(meaning: &T, words: &[(&'static str, T)]) -> Value {
    let (word, _) = words.iter().find(|(_, it)| it == meaning).expect("each meaning has a word");
    Value::String((*word).to_owned())
}
