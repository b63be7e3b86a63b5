//! From a name to an address, a port and a transport (RFC 3263 §4.1, §4.2).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use comsipl_core::{Chance, Transport};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::rdata::{NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::{Found, Query, TARGETS_MAX, TTL_MAX};

/// Most servers whose addresses are asked for before a name is given up.
const SERVERS_MAX: usize = 16;

/// NAPTR services (RFC 3263 §4.1) and the transports they stand for.
const SERVICES: [(&[u8], Transport); 3] =
    [(b"SIP+D2U", Transport::Udp), (b"SIP+D2T", Transport::Tcp), (b"SIPS+D2T", Transport::Tls)];

/// Looks up where `query` leads by one of the transports `ways`, in the order in which that is tried, and for how long that
/// counts. What comes behind the first place is waited for no longer than `patience` each.
pub async fn locate(
    dns: &TokioResolver,
    query: &Query,
    ways: &[Transport],
    mut chance: Chance,
    patience: Duration,
) -> Option<(Vec<Found>, Duration)> {
    let mut domain = Name::from_ascii(&*query.host).ok()?;
    domain.set_fqdn(true);
    // RFC 3263 §4.1 has TCP for `sips`, which is TLS over it.
    let plain = if query.secure { Transport::Tls } else { Transport::Udp };
    let transport = query.transport.unwrap_or(plain);
    let mut ttl = TTL_MAX;
    if query.transport.is_some() && !ways.contains(&transport) {
        return None;
    }
    if query.port.is_none() {
        let mut services = Vec::new();
        if query.transport.is_none() {
            services = preferred(dns, &domain, query.secure, ways, &mut ttl).await;
        }
        if services.is_empty() {
            let tried = [Transport::Udp, Transport::Tcp, Transport::Tls].into_iter().filter(|it| {
                ways.contains(it)
                    && query.transport.is_none_or(|wanted| wanted == *it)
                    && (!query.secure || *it == Transport::Tls)
            });
            services = tried.filter_map(|it| Some((it, service_name(it, &domain)?))).collect();
        }
        let mut any = false;
        for (transport, service) in services {
            let (mut servers, service_ttl) = records(dns, service, RecordType::SRV, srv).await;
            any |= !servers.is_empty();
            put_in_order(&mut servers, &mut chance);
            let mut found = Vec::new();
            let mut ttl = ttl.min(service_ttl);
            for server in servers.into_iter().take(SERVERS_MAX) {
                let lookup = addresses(dns, server.target, query.ipv4);
                let (ips, address_ttl) = if found.is_empty() {
                    lookup.await
                } else {
                    // A name server that is slow with a spare must not make the first late.
                    let Ok(in_time) = tokio::time::timeout(patience, lookup).await else { break };
                    in_time
                };
                if !ips.is_empty() {
                    ttl = ttl.min(address_ttl);
                }
                let port = server.port;
                found.extend(
                    ips.into_iter().map(|ip| Found { transport, address: SocketAddr::new(ip, port) }),
                );
                if found.len() >= TARGETS_MAX {
                    break;
                }
            }
            found.truncate(TARGETS_MAX);
            if !found.is_empty() {
                return Some((found, ttl));
            }
        }
        if any {
            // The domain says where its servers are, and none of them can be reached.
            return None;
        }
    }
    let (mut ips, address_ttl) = addresses(dns, domain, query.ipv4).await;
    ips.truncate(TARGETS_MAX);
    let port = query.port.unwrap_or(transport.default_port());
    let at = |ip| Found { transport, address: SocketAddr::new(ip, port) };
    (!ips.is_empty()).then(|| (ips.into_iter().map(at).collect(), ttl.min(address_ttl)))
}

/// The services that the domain names by NAPTR and that we can use, the most preferred first.
async fn preferred(
    dns: &TokioResolver,
    domain: &Name,
    secure: bool,
    ways: &[Transport],
    ttl: &mut Duration,
) -> Vec<(Transport, Name)> {
    let (mut found, naptr_ttl) = records(dns, domain.clone(), RecordType::NAPTR, naptr).await;
    // "The resource record will contain an empty regular expression and a replacement value, which is the SRV record for that
    // particular transport protocol."
    found.retain(|it| it.flags.eq_ignore_ascii_case(b"s") && it.regexp.is_empty());
    found.sort_by_key(|it| (it.order, it.preference));
    let services: Vec<_> = found
        .into_iter()
        .filter_map(|it| {
            let of = |(service, _): &&(&[u8], Transport)| it.services.eq_ignore_ascii_case(service);
            let (_, transport) = SERVICES.iter().find(of)?;
            let usable = ways.contains(transport) && (!secure || *transport == Transport::Tls);
            usable.then_some((*transport, it.replacement))
        })
        .collect();
    if !services.is_empty() {
        *ttl = (*ttl).min(naptr_ttl);
    }
    services
}

/// The name of the SRV records of a transport.
fn service_name(transport: Transport, domain: &Name) -> Option<Name> {
    let labels = match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
        Transport::Ws | Transport::Wss => return None,
    };
    Name::from_ascii(labels).ok()?.append_domain(domain).ok()
}

/// The addresses of a host that something can be sent to, and for how long they count.
async fn addresses(dns: &TokioResolver, host: Name, ipv4: bool) -> (Vec<IpAddr>, Duration) {
    if host.is_root() {
        // "A Target of "." means that the service is decidedly not available at this domain." (RFC 2782)
        return (Vec::new(), TTL_MAX);
    }
    let kind = if ipv4 { RecordType::A } else { RecordType::AAAA };
    let (mut addresses, ttl) = records(dns, host, kind, ip).await;
    addresses.retain(|ip| !ip.is_unspecified() && !ip.is_multicast());
    (addresses, ttl)
}

/// The records of a name, and for how long they count. A name that is not there has none, like one that nobody answers for.
async fn records<T>(
    dns: &TokioResolver,
    name: Name,
    kind: RecordType,
    of: impl Fn(&RData) -> Option<T>,
) -> (Vec<T>, Duration) {
    let Ok(lookup) = dns.lookup(name, kind).await else { return (Vec::new(), TTL_MAX) };
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let found = lookup.answers().iter().filter_map(|record| of(&record.data)).collect();
    (found, Duration::from_secs(ttl.into()))
}

fn srv(data: &RData) -> Option<SRV> {
    match data {
        RData::SRV(srv) => Some(srv.clone()),
        _ => None,
    }
}

fn naptr(data: &RData) -> Option<NAPTR> {
    match data {
        RData::NAPTR(naptr) => Some(naptr.clone()),
        _ => None,
    }
}

fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

/// Puts servers into the order in which they are tried (RFC 2782, "Usage rules"): by priority, and within one by chance, in
/// proportion to the weights.
fn put_in_order(servers: &mut [SRV], chance: &mut Chance) {
    // Those without weight first, so that they have a very small chance and not none.
    servers.sort_by_key(|server| (server.priority, server.weight != 0));
    for first in 0..servers.len() {
        let priority = servers[first].priority;
        let same = servers[first..].iter().take_while(|it| it.priority == priority).count();
        let sum: u32 = servers[first..first + same].iter().map(|it| u32::from(it.weight)).sum();
        let drawn = chance.below(sum.saturating_add(1));
        let mut running = 0;
        let chosen = servers[first..first + same].iter().position(|it| {
            running += u32::from(it.weight);
            running >= drawn
        });
        let chosen = first + chosen.unwrap_or(0);
        servers[first..=chosen].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(of: &[(u16, u16)], chance: &mut Chance) -> Vec<(u16, u16)> {
        let mut servers: Vec<SRV> = of.iter().map(|&(p, w)| SRV::new(p, w, 5060, Name::root())).collect();
        put_in_order(&mut servers, chance);
        servers.iter().map(|it| (it.priority, it.weight)).collect()
    }

    #[test]
    fn priorities_come_in_order_and_weights_by_chance() {
        let mut chance = Chance::from_seed([7; 32]);
        let mut heavy_first = 0;
        for _ in 0..1000 {
            let ordered = order(&[(20, 0), (10, 10), (10, 30), (10, 0)], &mut chance);
            assert_eq!(ordered[3], (20, 0), "the highest number comes last, whatever its weight");
            let mut first: Vec<_> = ordered[..3].to_vec();
            heavy_first += u32::from(first[0] == (10, 30));
            first.sort_unstable();
            assert_eq!(first, [(10, 0), (10, 10), (10, 30)]);
        }
        // Three of four in the mean, less the part of the one without weight (1 of 41).
        assert!((650..=800).contains(&heavy_first), "{heavy_first}");
    }

    #[test]
    fn servers_without_weights_stay_as_they_are() {
        let mut chance = Chance::from_seed([7; 32]);
        assert_eq!(order(&[(1, 0), (0, 0)], &mut chance), [(0, 0), (1, 0)]);
        assert!(order(&[], &mut chance).is_empty());
    }
}
