//! The thread that looks up names. It may be slow, or die: shards go on without it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use comsipl_core::{Chance, Transport};
use crossbeam::queue::ArrayQueue;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::locate::locate;
use super::{Answer, NEGATIVE_TTL, Query, ResolverSettings, TTL_MAX, TTL_MIN};
use crate::mailbox::{Command, Mailbox};

/// Most names that wait for the thread; beyond it shards are told so at once.
pub const QUEUE_MAX: usize = 1024;
/// Most names that are looked up at the same time; the others wait in the queue.
const CONCURRENT_MAX: usize = 256;
/// Places behind the first are waited for such a part of the time limit each: most of it is left for the first.
const FURTHER_SHARE: u32 = 16;
/// Records that hickory remembers.
const RECORDS_MAX: u64 = 4096;

/// Where shards put what they want to know.
#[derive(Clone, Debug)]
pub struct Lookups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<(usize, Query)>,
    bell: Notify,
    stop: AtomicBool,
}

impl Lookups {
    /// Asks on behalf of a shard; the answer goes to its mailbox.
    ///
    /// # Errors
    /// The query, if the queue is full.
    pub fn ask(&self, shard: usize, query: Query) -> Result<(), Query> {
        self.0.queue.push((shard, query)).map_err(|(_, query)| query)?;
        self.0.bell.notify_one();
        Ok(())
    }
}

/// The thread. Dropping it ends it; names under way are not answered then.
#[derive(Debug)]
pub struct Resolver {
    lookups: Lookups,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Starts the thread. `ways` are the transports that we can send by; answers go to the mailboxes, which stand in the order
    /// of the shards.
    ///
    /// # Errors
    /// What the system says, or of its `/etc/resolv.conf`.
    pub fn start(
        settings: &ResolverSettings,
        ways: Vec<Transport>,
        mailboxes: Vec<Arc<Mailbox>>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let limit = settings.timeout;
        let dns = {
            let _entered = runtime.enter();
            open(settings).map_err(io::Error::other)?
        };
        let shared =
            Shared { queue: ArrayQueue::new(QUEUE_MAX), bell: Notify::new(), stop: AtomicBool::new(false) };
        let lookups = Lookups(Arc::new(shared));
        let work =
            Work { lookups: lookups.clone(), dns, ways: ways.into(), limit, mailboxes: mailboxes.into() };
        let thread = std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || runtime.block_on(work.run()))?;
        Ok(Self { lookups, thread: Some(thread) })
    }

    /// Where shards put what they want to know.
    #[must_use]
    pub fn lookups(&self) -> Lookups {
        self.lookups.clone()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.lookups.0.stop.store(true, Ordering::Release);
        self.lookups.0.bell.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the resolver had failed: names were not looked up");
        }
    }
}

/// What hickory is told.
fn open(settings: &ResolverSettings) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = if settings.nameservers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = settings.nameservers.iter().map(|server| {
            let mut ways = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            ways.iter_mut().for_each(|way| way.port = server.port());
            NameServerConfig::new(server.ip(), true, ways)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // A datagram that is lost is sent once more within the limit.
    options.timeout = settings.timeout / 2;
    options.attempts = 1;
    options.cache_size = RECORDS_MAX;
    options.positive_min_ttl = Some(TTL_MIN);
    options.positive_max_ttl = Some(TTL_MAX);
    options.negative_max_ttl = Some(NEGATIVE_TTL);
    builder.build()
}

struct Work {
    lookups: Lookups,
    dns: TokioResolver,
    ways: Arc<[Transport]>,
    limit: Duration,
    mailboxes: Arc<[Arc<Mailbox>]>,
}

impl Work {
    async fn run(self) {
        let shared = &self.lookups.0;
        let mut under_way = JoinSet::new();
        while !shared.stop.load(Ordering::Acquire) {
            while under_way.len() < CONCURRENT_MAX
                && let Some((shard, query)) = shared.queue.pop()
            {
                under_way.spawn(answer(
                    self.dns.clone(),
                    query,
                    Arc::clone(&self.ways),
                    self.limit,
                    Arc::clone(&self.mailboxes[shard]),
                ));
            }
            tokio::select! {
                () = shared.bell.notified() => {}
                Some(ended) = under_way.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "looking up a name failed");
                    }
                }
            }
        }
    }
}

/// Looks up a name and tells the shard. Where its mailbox is full the shard hears nothing, and goes on when its time is up.
async fn answer(
    dns: TokioResolver,
    query: Query,
    ways: Arc<[Transport]>,
    limit: Duration,
    mailbox: Arc<Mailbox>,
) {
    let mut seed = [0; 32];
    // Without chance the order of equal weights is always the same, which is no harm.
    let _ = getrandom::fill(&mut seed);
    let lookup = locate(&dns, &query, &ways, Chance::from_seed(seed), limit / FURTHER_SHARE);
    let (found, ttl) = match tokio::time::timeout(limit, lookup).await {
        Ok(Some(located)) => located,
        Ok(None) | Err(_) => (Vec::new(), NEGATIVE_TTL),
    };
    tracing::debug!(host = %query.host, ?found, "looked up");
    let _ = mailbox.post(Command::Resolved(Answer { query, found, ttl }));
}
