//! Between the stored records, whose texts and numbers mean nothing to the files, and the engine's own types.

use std::net::SocketAddr;

use comsipl_core::event::{Capitals, EventPackage, RequestedInfo};
use comsipl_core::pidf::Basic;
use comsipl_core::publication::EntityTag;
use comsipl_core::token::{hex2, hex16};
use comsipl_core::{AorKey, ConnectionId, Flow, Transport, UnixMillis};
use comsipl_fdb::schema::{self, Schema};
use comsipl_fdb::{Full, Partition, Record, RecordBuf};

pub use comsipl_core::dialog::numeric;

/// A subscription and its dialog, as stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredSubscription<'a> {
    /// The presentity.
    pub key: AorKey,
    /// Our tag; see [`tag_text`].
    pub local_tag: u64,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// Highest CSeq that may have been used.
    pub cseq_reserved: u32,
    /// CSeq of the newest SUBSCRIBE.
    pub remote_cseq: u32,
    /// When the newest SUBSCRIBE was accepted.
    pub accepted_at: UnixMillis,
    /// Where its NOTIFYs go.
    pub flow: Flow,
    /// Its event package.
    pub package: &'static EventPackage,
    /// How the watcher writes the package's name.
    pub capitals: Capitals,
    /// What it gets of the state.
    pub info: RequestedInfo,
    /// Whether a NOTIFY has failed and is to be tried again: the watcher does not have the newest state.
    pub undelivered: bool,
    /// Whether its SUBSCRIBE came by UDP although its NOTIFYs go over a connection: they go by UDP all the same when nobody
    /// takes the connection (RFC 3261 §18.1.1).
    pub came_by_udp: bool,
    /// Identity of the newest SUBSCRIBE.
    pub request: u64,
    /// Canonical AoR of the presentity.
    pub aor: &'a [u8],
    /// To URI of the SUBSCRIBE; empty: `sip:` and the AoR.
    pub local_uri: &'a [u8],
    /// From URI of the SUBSCRIBE.
    pub remote_uri: &'a [u8],
    /// From tag of the SUBSCRIBE.
    pub remote_tag: &'a [u8],
    /// Call-ID.
    pub call_id: &'a [u8],
    /// Contact URI of the watcher.
    pub remote_target: &'a [u8],
    /// Route set as `<uri>,<uri>`.
    pub route_set: &'a [u8],
    /// `id` of the Event header field.
    pub event_id: &'a [u8],
    /// The watcher's User-Agent.
    pub user_agent: &'a [u8],
}

/// A publication, as stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredPublicationRecord<'a> {
    /// The presentity.
    pub key: AorKey,
    /// Present entity tag.
    pub entity_tag: EntityTag,
    /// The tag before.
    pub previous_tag: EntityTag,
    /// Identity of the request that made the present tag.
    pub request: u64,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// When its meaning changed last.
    pub published_at: UnixMillis,
    /// Its number among the user's publications.
    pub number: u32,
    /// Number of its event package.
    pub event: u8,
    /// Canonical AoR.
    pub aor: &'a [u8],
    /// The document.
    pub body: &'a [u8],
}

/// A presentity's composed document, as stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredDocument<'a> {
    /// The presentity.
    pub key: AorKey,
    /// Grows with every change.
    pub version: u64,
    /// Hash of its meaning.
    pub fingerprint: u64,
    /// Number of its event package.
    pub event: u8,
    /// The basic state.
    pub basic: Basic,
    /// Where the first item of the document ends, of packages that have items; zero: there is none.
    pub first_end: u32,
    /// When the version was made.
    pub changed_at: UnixMillis,
    /// When the user's last binding ended, while that keeps or makes him offline; else zero.
    pub unregistered_at: UnixMillis,
    /// Canonical AoR.
    pub aor: &'a [u8],
    /// The first note for people.
    pub note: &'a [u8],
    /// The document, without what the package's `opening` says.
    pub body: &'a [u8],
}

/// What readers of a document call it.
pub type Document<'a> = StoredDocument<'a>;

/// A binding, as stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredBindingRecord<'a> {
    /// Whose.
    pub key: AorKey,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// When it was registered first, in whole seconds; zero: not known. It is kept by an update, whatever that says.
    pub first_registered_at: UnixMillis,
    /// When it was registered last.
    pub registered_at: UnixMillis,
    /// CSeq of the last REGISTER.
    pub cseq: u32,
    /// Preference in thousandths.
    pub q: u16,
    /// `reg-id`, zero if there is none.
    pub reg_id: u32,
    /// Identity of the last REGISTER.
    pub request: u64,
    /// Where the REGISTER came from.
    pub flow: Flow,
    /// Canonical AoR.
    pub aor: &'a [u8],
    /// The contact URI.
    pub contact: &'a [u8],
    /// Its parameters, as sent.
    pub params: &'a [u8],
    /// Call-ID of the last REGISTER.
    pub call_id: &'a [u8],
    /// The Path vector.
    pub path: &'a [u8],
    /// `+sip.instance`.
    pub instance: &'a [u8],
    /// The phone's User-Agent.
    pub user_agent: &'a [u8],
    /// Its display name, as sent.
    pub display_name: &'a [u8],
}

/// Length of our tags: mark, partition, 64 bits.
pub const TAG_LEN: usize = 1 + 2 + 16;

/// Our tag in a dialog as it is written. It names the partition, so that whoever looks at a message may know its owner.
#[must_use]
pub fn tag_text(partition: u8, tag: u64) -> [u8; TAG_LEN] {
    let mut text = [b'~'; TAG_LEN];
    text[1..3].copy_from_slice(&hex2(partition));
    text[3..].copy_from_slice(&hex16(tag));
    text
}

/// A new tag of ours for a dialog that begins now: the second, and 32 of the random bits `chance`.
///
/// > … when a tag is generated by a UA for insertion into a request or response, it MUST be globally unique and
/// > cryptographically random with at least 32 bits of randomness. (RFC 3261 §19.3)
#[must_use]
pub const fn dated_tag(now: UnixMillis, chance: u64) -> u64 {
    (now.0 / 1000) << 32 | chance & 0xffff_ffff
}

/// When the dialog of a tag began, in whole seconds; zero if the tag does not say so: it was made before tags did.
#[must_use]
pub fn began_at(tag: u64, accepted_at: UnixMillis) -> UnixMillis {
    let began = UnixMillis((tag >> 32) * 1000);
    let may_be = began <= accepted_at && accepted_at.0 - began.0 < LONGEST_DIALOG_MS;
    if may_be { began } else { UnixMillis(0) }
}

/// Tags that seem older than this are not dated: a month.
const LONGEST_DIALOG_MS: u64 = 30 * 24 * 3600 * 1000;

#[inline]
fn store_flow(flow: &Flow) -> schema::Flow {
    schema::Flow {
        transport: flow.transport as u8,
        listener: flow.listener,
        ip: flow.peer.ip(),
        port: flow.peer.port(),
        local_ip: flow.local_ip,
        connection: flow.connection.map_or(0, ConnectionId::to_bits),
    }
}

#[inline]
fn load_flow(flow: &schema::Flow) -> Flow {
    Flow {
        transport: Transport::by_number(flow.transport).unwrap_or_default(),
        listener: flow.listener,
        local_ip: flow.local_ip,
        peer: SocketAddr::new(flow.ip, flow.port),
        connection: ConnectionId::from_bits(flow.connection),
    }
}

/// Reads the record in `slot` as a subscription, in place as long as nothing of the partition is written; `record` is for one
/// that is in several pieces. `None` if it cannot be read or holds something else.
#[must_use]
#[inline]
pub fn view_subscription<'r>(
    partition: &'r Partition,
    slot: u32,
    record: &'r mut RecordBuf,
) -> Option<StoredSubscription<'r>> {
    subscription(partition.view(slot, record).ok()?)
}

/// Copies the record in `slot` and reads it as a subscription, for a caller that writes while it still needs it. `None` if it cannot
/// be read or holds something else.
#[must_use]
pub fn read_subscription<'r>(
    partition: &Partition,
    slot: u32,
    record: &'r mut RecordBuf,
) -> Option<StoredSubscription<'r>> {
    partition.read(slot, record).ok()?;
    subscription(&*record)
}

/// Reads a subscription; `None` if the record holds something else.
#[must_use]
pub fn subscription<'r>(record: impl Into<Record<'r>>) -> Option<StoredSubscription<'r>> {
    let s = schema::Subscription::decode(record).ok()?;
    Some(StoredSubscription {
        key: AorKey(s.presentity),
        local_tag: s.local_tag,
        expires_at: UnixMillis(s.expires_at),
        cseq_reserved: s.cseq_reserved,
        remote_cseq: s.remote_cseq,
        accepted_at: UnixMillis(s.accepted_at),
        flow: load_flow(&s.flow),
        package: EventPackage::by_number(s.event)?,
        capitals: Capitals(s.capitals),
        info: if s.flags & FLAG_BASIC == 0 { RequestedInfo::All } else { RequestedInfo::Basic },
        undelivered: s.flags & FLAG_UNDELIVERED != 0,
        came_by_udp: s.flags & FLAG_CAME_BY_UDP != 0,
        request: s.request,
        aor: s.aor,
        local_uri: s.local_uri,
        remote_uri: s.remote_uri,
        remote_tag: s.remote_tag,
        call_id: s.call_id,
        remote_target: s.remote_target,
        route_set: s.route_set,
        event_id: s.event_id,
        user_agent: s.user_agent,
    })
}

/// Flag of a stored subscription: it gets the basic state only.
const FLAG_BASIC: u16 = 1;
/// Flag of a stored subscription: a NOTIFY failed and is to be tried again.
const FLAG_UNDELIVERED: u16 = 2;
/// Flag of a stored subscription: its SUBSCRIBE came by UDP, its NOTIFYs go over a connection.
const FLAG_CAME_BY_UDP: u16 = 4;

fn store_subscription<'a>(s: &StoredSubscription<'a>) -> schema::Subscription<'a> {
    schema::Subscription {
        presentity: s.key.0,
        local_tag: s.local_tag,
        expires_at: s.expires_at.0,
        cseq_reserved: s.cseq_reserved,
        remote_cseq: s.remote_cseq,
        accepted_at: s.accepted_at.0,
        flow: store_flow(&s.flow),
        event: s.package.number,
        capitals: s.capitals.0,
        flags: u16::from(s.info == RequestedInfo::Basic) * FLAG_BASIC
            + u16::from(s.undelivered) * FLAG_UNDELIVERED
            + u16::from(s.came_by_udp) * FLAG_CAME_BY_UDP,
        request: s.request,
        aor: s.aor,
        local_uri: s.local_uri,
        remote_uri: s.remote_uri,
        remote_tag: s.remote_tag,
        call_id: s.call_id,
        remote_target: s.remote_target,
        route_set: s.route_set,
        event_id: s.event_id,
        user_agent: s.user_agent,
    }
}

/// Stores a new subscription.
///
/// # Errors
/// [`Full`]: nothing is stored.
pub fn insert_subscription(partition: &mut Partition, s: &StoredSubscription<'_>) -> Result<u32, Full> {
    partition.put(&store_subscription(s))
}

/// Stores a changed subscription in its place.
///
/// # Errors
/// [`Full`]: the record is as it was.
pub fn update_subscription(
    partition: &mut Partition,
    slot: u32,
    s: &StoredSubscription<'_>,
) -> Result<(), Full> {
    partition.replace(slot, &store_subscription(s))
}

/// Stores the numbers of a subscription whose texts have not changed.
pub fn update_subscription_fixed(partition: &mut Partition, slot: u32, s: &StoredSubscription<'_>) {
    partition.update_fixed(slot, &store_subscription(s).fixed_words());
}

/// Writes down up to where CSeq numbers may be used ([`reservation`](crate::subscriptions::reservation)).
pub fn reserve_cseq(partition: &mut Partition, slot: u32, reserved: u32) {
    amend_subscription(partition, slot, |stored| stored.cseq_reserved = reserved);
}

/// What a stored subscription says of that; `None` if the record holds something else.
#[must_use]
pub fn reserved_cseq(partition: &Partition, slot: u32) -> Option<u32> {
    number_of_subscription(partition, slot, |stored| stored.cseq_reserved)
}

/// Writes down that a subscription has ended and has its last NOTIFY before it: as if its watcher had asked for that when it was
/// accepted.
pub fn end_subscription(partition: &mut Partition, slot: u32) {
    amend_subscription(partition, slot, |stored| stored.expires_at = stored.accepted_at);
}

/// Writes down whether a watcher does not have the newest state although it was tried.
pub fn mark_undelivered(partition: &mut Partition, slot: u32, undelivered: bool) {
    amend_subscription(partition, slot, |stored| {
        stored.flags = (stored.flags & !FLAG_UNDELIVERED) | (u16::from(undelivered) * FLAG_UNDELIVERED);
    });
}

/// Changes numbers of a stored subscription and leaves its texts alone.
#[inline]
fn amend_subscription(
    partition: &mut Partition,
    slot: u32,
    change: impl FnOnce(&mut schema::Subscription<'_>),
) {
    let Some((_, fixed)) = partition.fixed(slot) else { return };
    if let Ok(mut stored) = schema::Subscription::decode_fixed(&fixed) {
        change(&mut stored);
        partition.update_fixed(slot, &stored.fixed_words());
    }
}

/// Whom the subscription in `slot` watches.
#[must_use]
pub fn watched_by(partition: &Partition, slot: u32) -> Option<AorKey> {
    number_of_subscription(partition, slot, |stored| AorKey(stored.presentity))
}

/// Our tag of a stored subscription's dialog.
#[must_use]
pub fn local_tag(partition: &Partition, slot: u32) -> Option<u64> {
    number_of_subscription(partition, slot, |stored| stored.local_tag)
}

fn number_of_subscription<T>(
    partition: &Partition,
    slot: u32,
    number: impl FnOnce(schema::Subscription<'_>) -> T,
) -> Option<T> {
    let (_, fixed) = partition.fixed(slot)?;
    schema::Subscription::decode_fixed(&fixed).ok().map(number)
}

/// Reads the record in `slot` as a publication, in place as long as nothing of the partition is written; `record` is for one
/// that is in several pieces. `None` if it cannot be read or holds something else.
#[must_use]
#[inline]
pub fn view_publication<'r>(
    partition: &'r Partition,
    slot: u32,
    record: &'r mut RecordBuf,
) -> Option<StoredPublicationRecord<'r>> {
    publication(partition.view(slot, record).ok()?)
}

/// Reads a publication; `None` if the record holds something else.
#[must_use]
pub fn publication<'r>(record: impl Into<Record<'r>>) -> Option<StoredPublicationRecord<'r>> {
    let p = schema::Publication::decode(record).ok()?;
    Some(StoredPublicationRecord {
        key: AorKey(p.presentity),
        entity_tag: EntityTag(p.entity_tag),
        previous_tag: EntityTag(p.previous_tag),
        request: p.request,
        expires_at: UnixMillis(p.expires_at),
        published_at: UnixMillis(p.published_at),
        number: p.number,
        event: p.event,
        aor: p.aor,
        body: p.body,
    })
}

fn store_publication<'a>(p: &StoredPublicationRecord<'a>) -> schema::Publication<'a> {
    let content_type = EventPackage::by_number(p.event).map_or("", |package| package.content_type);
    schema::Publication {
        presentity: p.key.0,
        entity_tag: p.entity_tag.0,
        previous_tag: p.previous_tag.0,
        request: p.request,
        expires_at: p.expires_at.0,
        published_at: p.published_at.0,
        number: p.number,
        event: p.event,
        aor: p.aor,
        content_type: content_type.as_bytes(),
        body: p.body,
    }
}

/// Stores a new publication.
///
/// # Errors
/// [`Full`]: nothing is stored.
pub fn insert_publication(partition: &mut Partition, p: &StoredPublicationRecord<'_>) -> Result<u32, Full> {
    partition.put(&store_publication(p))
}

/// Stores a changed publication in its place.
///
/// # Errors
/// [`Full`]: the record is as it was.
pub fn update_publication(
    partition: &mut Partition,
    slot: u32,
    p: &StoredPublicationRecord<'_>,
) -> Result<(), Full> {
    partition.replace(slot, &store_publication(p))
}

/// Stores the numbers of a publication whose document has not changed.
pub fn update_publication_fixed(partition: &mut Partition, slot: u32, p: &StoredPublicationRecord<'_>) {
    partition.update_fixed(slot, &store_publication(p).fixed_words());
}

/// Reads the record in `slot` as a document, in place as long as nothing of the partition is written; `record` is for one
/// that is in several pieces. `None` if it cannot be read or holds something else.
#[must_use]
#[inline]
pub fn view_document<'r>(
    partition: &'r Partition,
    slot: u32,
    record: &'r mut RecordBuf,
) -> Option<StoredDocument<'r>> {
    document(partition.view(slot, record).ok()?)
}

/// Reads a document; `None` if the record holds something else.
#[must_use]
pub fn document<'r>(record: impl Into<Record<'r>>) -> Option<StoredDocument<'r>> {
    let d = schema::Presentity::decode(record).ok()?;
    Some(StoredDocument {
        key: AorKey(d.key),
        version: d.version,
        fingerprint: d.fingerprint,
        event: if d.event == 0 { EventPackage::PRESENCE } else { d.event },
        basic: match d.basic {
            1 => Basic::Open,
            2 => Basic::Closed,
            _ => Basic::Unknown,
        },
        first_end: d.first_end,
        changed_at: UnixMillis(d.changed_at),
        unregistered_at: UnixMillis(d.unregistered_at),
        aor: d.aor,
        note: d.note,
        body: d.body,
    })
}

fn store_document<'a>(d: &StoredDocument<'a>) -> schema::Presentity<'a> {
    schema::Presentity {
        key: d.key.0,
        version: d.version,
        fingerprint: d.fingerprint,
        event: d.event,
        basic: match d.basic {
            Basic::Unknown => 0,
            Basic::Open => 1,
            Basic::Closed => 2,
        },
        first_end: d.first_end,
        changed_at: d.changed_at.0,
        unregistered_at: d.unregistered_at.0,
        aor: d.aor,
        note: d.note,
        body: d.body,
    }
}

/// Stores a presentity's first document.
///
/// # Errors
/// [`Full`]: nothing is stored.
pub fn insert_document(partition: &mut Partition, d: &StoredDocument<'_>) -> Result<u32, Full> {
    partition.put(&store_document(d))
}

/// Stores a presentity's next document in the place of the one before.
///
/// # Errors
/// [`Full`]: the record is as it was.
pub fn update_document(partition: &mut Partition, slot: u32, d: &StoredDocument<'_>) -> Result<(), Full> {
    partition.replace(slot, &store_document(d))
}

/// Fingerprint of a document that is behind what is published, because its successor found no room.
pub const BEHIND: u64 = 0;

/// Writes down that a document is behind what is published. Needs no room.
pub fn mark_behind(partition: &mut Partition, slot: u32) {
    set_fingerprint(partition, slot, BEHIND);
}

/// Writes down the meaning of a document. Needs no room.
pub fn set_fingerprint(partition: &mut Partition, slot: u32, fingerprint: u64) {
    let Some((_, fixed)) = partition.fixed(slot) else { return };
    if let Ok(mut stored) = schema::Presentity::decode_fixed(&fixed) {
        stored.fingerprint = fingerprint;
        partition.update_fixed(slot, &stored.fixed_words());
    }
}

/// Writes down when the last binding of a document's user ended. Needs no room.
pub fn set_unregistered_at(partition: &mut Partition, slot: u32, at: UnixMillis) {
    let Some((_, fixed)) = partition.fixed(slot) else { return };
    if let Ok(mut stored) = schema::Presentity::decode_fixed(&fixed) {
        stored.unregistered_at = at.0;
        partition.update_fixed(slot, &stored.fixed_words());
    }
}

/// When the last binding of a document's user ended, as far as the document says so.
#[must_use]
pub fn unregistered_at(partition: &Partition, slot: u32) -> UnixMillis {
    let stored = partition.fixed(slot).and_then(|(_, fixed)| schema::Presentity::decode_fixed(&fixed).ok());
    UnixMillis(stored.map_or(0, |stored| stored.unregistered_at))
}

/// Reads the record in `slot` as a binding, in place as long as nothing of the partition is written; `record` is for one
/// that is in several pieces. `None` if it cannot be read or holds something else.
#[must_use]
#[inline]
pub fn view_binding<'r>(
    partition: &'r Partition,
    slot: u32,
    record: &'r mut RecordBuf,
) -> Option<StoredBindingRecord<'r>> {
    binding(partition.view(slot, record).ok()?)
}

/// Reads a binding; `None` if the record holds something else.
#[must_use]
#[inline]
pub fn binding<'r>(record: impl Into<Record<'r>>) -> Option<StoredBindingRecord<'r>> {
    let b = schema::Binding::decode(record).ok()?;
    Some(StoredBindingRecord {
        key: AorKey(b.aor_key),
        expires_at: UnixMillis(b.expires_at),
        first_registered_at: UnixMillis(u64::from(b.first_registered_at) * 1000),
        registered_at: UnixMillis(b.registered_at),
        cseq: b.cseq,
        q: b.q,
        reg_id: b.reg_id,
        request: b.request,
        flow: load_flow(&b.flow),
        aor: b.aor,
        contact: b.contact,
        params: b.params,
        call_id: b.call_id,
        path: b.path,
        instance: b.instance,
        user_agent: b.user_agent,
        display_name: b.display_name,
    })
}

#[inline(always)]
fn store_binding<'a>(b: &StoredBindingRecord<'a>) -> schema::Binding<'a> {
    schema::Binding {
        aor_key: b.key.0,
        reg_id: b.reg_id,
        request: b.request,
        expires_at: b.expires_at.0,
        first_registered_at: (b.first_registered_at.0 / 1000) as u32,
        registered_at: b.registered_at.0,
        cseq: b.cseq,
        q: b.q,
        flow: store_flow(&b.flow),
        aor: b.aor,
        contact: b.contact,
        params: b.params,
        call_id: b.call_id,
        path: b.path,
        instance: b.instance,
        user_agent: b.user_agent,
        display_name: b.display_name,
    }
}

/// Stores a new binding.
///
/// # Errors
/// [`Full`]: nothing is stored.
pub fn insert_binding(partition: &mut Partition, b: &StoredBindingRecord<'_>) -> Result<u32, Full> {
    partition.put(&store_binding(b))
}

/// Stores a changed binding in its place.
///
/// # Errors
/// [`Full`]: the record is as it was.
pub fn update_binding(partition: &mut Partition, slot: u32, b: &StoredBindingRecord<'_>) -> Result<(), Full> {
    partition.replace(slot, &renewed_binding(partition, slot, b))
}

/// Stores the numbers of a binding whose texts have not changed.
#[inline]
pub fn update_binding_fixed(partition: &mut Partition, slot: u32, b: &StoredBindingRecord<'_>) {
    partition.update_fixed(slot, &renewed_binding(partition, slot, b).fixed_words());
}

/// A binding as it is to be stored in the place of the one that was first registered when that one was.
#[inline(always)]
fn renewed_binding<'a>(partition: &Partition, slot: u32, b: &StoredBindingRecord<'a>) -> schema::Binding<'a> {
    let before = partition.fixed(slot);
    let first_registered_at = before.map_or(0, |(_, fixed)| schema::Binding::first_registered_at_of(&fixed));
    schema::Binding { first_registered_at, ..store_binding(b) }
}
