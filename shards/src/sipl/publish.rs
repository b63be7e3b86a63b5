//! PUBLISH: the event-state compositor (RFC 3903 §6).

use std::num::NonZeroU64;

use comsipl_core::event::{Compositor, EventPackage};
use comsipl_core::limits::{DOCUMENT_LEN_MAX, PRESENTITY_LEN_MAX, PUBLICATIONS_PER_PRESENTITY_MAX};
use comsipl_core::publication::{self, EntityTag, Publish, PublishRequest, StoredPublication};
use comsipl_core::{AorKey, Now, Refusal, UnixMillis};
use smallvec::SmallVec;

use super::full;
use crate::presentities::Publication;
use crate::records::{self, StoredPublicationRecord};
use crate::reply::Request;
use crate::shard::Shard;
use crate::watched::NONE;

/// Room on the stack for what one user publishes; more devices than this go to the heap.
const DEVICES: usize = 8;

impl Shard {
    /// Takes a PUBLISH.
    pub(super) fn on_publish(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        let message = request.message;
        let user = self.aor_of(message.request_uri())?;
        self.check_owned(user.partition())?;
        let package = message
            .event()
            .and_then(|event| EventPackage::by_name(event.package()))
            .filter(|package| package.is_published())
            .ok_or(Refusal::BadEvent)?;
        let key = self.keys.resource(user, package);
        let publish = PublishRequest {
            if_match: message.if_match(),
            expires_secs: request.expires_secs(),
            has_body: !message.body().is_empty(),
            request: request.identity(),
        };
        let user = self.presentities.find(key);
        let mut numbers: SmallVec<[u32; DEVICES]> = SmallVec::new();
        let mut stored: SmallVec<[StoredPublication; DEVICES]> = SmallVec::new();
        for n in user.into_iter().flat_map(|user| self.presentities.publications_of(user)) {
            let Publication { entity_tag, previous_tag, request, .. } = self.presentities.publications[n];
            numbers.push(n);
            stored.push(StoredPublication { entity_tag, previous_tag, request });
        }
        let grant = self.settings.publication.shortened(self.draw_shortening(request.now));
        let decision = publication::decide(&stored, &publish, grant)?;
        let replaced =
            if let Publish::Modify { stored, .. } = decision { Some(numbers[stored]) } else { None };
        if let Some(replaced) = replaced {
            self.learn_meaning(package, replaced);
        }
        let mut meaning = None;
        let carries_state = replaced.is_some() || matches!(decision, Publish::Create { .. });
        if carries_state || matches!(decision, Publish::Nothing) {
            meaning = check_document(request, package, &mut self.compositor)?;
        }
        if carries_state {
            let others = numbers.iter().filter(|&&n| Some(n) != replaced);
            let others: usize = others.map(|&n| self.presentities.publications[n].len as usize).sum();
            if others + message.body().len() > PRESENTITY_LEN_MAX {
                return Err(Refusal::EntityTooLarge);
            }
        }
        match decision {
            Publish::Create { expires_secs } => {
                if numbers.len() >= PUBLICATIONS_PER_PRESENTITY_MAX {
                    self.counters.refused_full.up();
                    return Err(Refusal::Unavailable { retry_after_secs: 30 });
                }
                let (tag, number) =
                    self.create_publication(request, package, key, meaning, &numbers, expires_secs)?;
                let user = self.presentities.publications[number].presentity;
                self.is_back(user);
                self.state_of_user_changed(request.now, user, Some(number));
                self.answer_publish(request, tag, expires_secs);
            }
            Publish::Nothing => {
                let tag = EntityTag(self.chance.next_u64());
                self.answer_publish(request, tag, 0);
            }
            Publish::Refresh { stored, expires_secs } => {
                let tag = self.refresh_publication(request, numbers[stored], expires_secs);
                let user = self.presentities.publications[numbers[stored]].presentity;
                if self.is_back(user) {
                    self.state_of_user_changed(request.now, user, None);
                }
                self.answer_publish(request, tag, expires_secs);
            }
            Publish::Modify { stored, expires_secs } => {
                let tag = self.modify_publication(request, key, meaning, &numbers, stored, expires_secs)?;
                self.answer_publish(request, tag, expires_secs);
            }
            Publish::Remove { stored } => {
                self.end_publication(request.now, numbers[stored]);
                // RFC 3903 §6 step 6 wants a new entity tag on every success, of a removal too.
                let tag = EntityTag(self.chance.next_u64());
                self.answer_publish(request, tag, 0);
            }
            Publish::Repeat { stored } => {
                let publication = &self.presentities.publications[numbers[stored]];
                let left = if self.wall.was_set(request.now) {
                    self.presentities.publication_expiry.secs_left(numbers[stored], request.now.mono)
                } else {
                    publication.expires_at.secs_after(request.now.wall)
                };
                // Never longer than was asked for (RFC 3903 §4.2): the clock may have been set back by less than shows.
                let left = left.min(request.expires_secs().unwrap_or(u32::MAX));
                let tag = publication.entity_tag;
                let user = publication.presentity;
                // The crash may have come between the publication and the document made of it.
                self.is_back(user);
                self.state_of_user_changed(request.now, user, None);
                self.answer_publish(request, tag, left);
            }
        }
        Ok(())
    }

    fn answer_publish(&mut self, request: &Request<'_>, tag: EntityTag, expires_secs: u32) {
        self.answer(request, 200, "OK", None, |writer| {
            writer
                .header("SIP-ETag", &tag.text())
                .number("Expires", u64::from(expires_secs))
                .end_without_body();
        });
    }

    /// Makes a publication of the document that the compositor has just read, which means `meaning`, beside those of the
    /// numbers `others`. Gives its tag and its number.
    fn create_publication(
        &mut self,
        request: &Request<'_>,
        package: &EventPackage,
        key: AorKey,
        meaning: Option<NonZeroU64>,
        others: &[u32],
        expires_secs: u32,
    ) -> Result<(EntityTag, u32), Refusal> {
        let numbers = others.iter().map(|&n| self.presentities.publications[n].number);
        let mut publication = Publication {
            presentity: NONE,
            next: NONE,
            slot: NONE,
            entity_tag: EntityTag(self.chance.next_u64()),
            previous_tag: EntityTag(0),
            request: request.identity(),
            expires_at: request.now.wall.plus_secs(expires_secs),
            published_at: self.time_of_change(request.now, others),
            meaning,
            len: request.message.body().len() as u32,
            number: numbers.max().unwrap_or(0) + 1,
            event: package.number,
        };
        let record = stored_publication(&publication, key, &self.scratch.aor, request.message.body());
        let partition = self.files.presence_partition_mut(key.partition());
        publication.slot =
            records::insert_publication(partition, &record).map_err(|what| full(self, what))?;
        publication.presentity = self.presentities.find_or_insert(key, package.number);
        let entity_tag = publication.entity_tag;
        let number = self.presentities.insert_publication(publication);
        self.presentities.publication_expiry.arm(number, expires_at_mono(request.now, expires_secs));
        Ok((entity_tag, number))
    }

    /// When a change is said to be made to one of the publications of the `numbers`, or beside them: after the others, which the
    /// newest of them hides, also where the clock was set back since.
    fn time_of_change(&self, now: Now, numbers: &[u32]) -> UnixMillis {
        let times =
            numbers.iter().map(|&n| self.presentities.publications[n].published_at.0.saturating_add(1));
        UnixMillis(times.fold(now.wall.0, u64::max))
    }

    /// A new entity tag and a new expiry for the publication `number`.
    fn refresh_publication(&mut self, request: &Request<'_>, number: u32, expires_secs: u32) -> EntityTag {
        let entity_tag = EntityTag(self.chance.next_u64());
        let publication = &mut self.presentities.publications[number];
        renew(publication, request, entity_tag, expires_secs);
        let (user, slot) = (publication.presentity, publication.slot);
        let key = self.presentities[user].key;
        let record = stored_publication(&self.presentities.publications[number], key, b"", b"");
        let partition = self.files.presence_partition_mut(key.partition());
        records::update_publication_fixed(partition, slot, &record);
        self.presentities.publication_expiry.arm(number, expires_at_mono(request.now, expires_secs));
        entity_tag
    }

    /// The document that the compositor has just read, which means `meaning`, a new entity tag and a new expiry for the
    /// publication at `place` among those of the `numbers`.
    fn modify_publication(
        &mut self,
        request: &Request<'_>,
        key: AorKey,
        meaning: Option<NonZeroU64>,
        numbers: &[u32],
        place: usize,
        expires_secs: u32,
    ) -> Result<EntityTag, Refusal> {
        let number = numbers[place];
        let entity_tag = EntityTag(self.chance.next_u64());
        let body = request.message.body();
        let before = &self.presentities.publications[number];
        let is_same = meaning.is_some() && meaning == before.meaning;
        let mut publication = Publication { meaning, len: body.len() as u32, ..*before };
        renew(&mut publication, request, entity_tag, expires_secs);
        // Device order in the composed document follows the last change of meaning, so a document that differs in its time
        // stamps alone keeps its place.
        if !is_same {
            publication.published_at = self.time_of_change(request.now, numbers);
        }
        let record = stored_publication(&publication, key, &self.scratch.aor, body);
        let partition = self.files.presence_partition_mut(key.partition());
        records::update_publication(partition, publication.slot, &record).map_err(|what| full(self, what))?;
        let user = publication.presentity;
        self.presentities.publications[number] = publication;
        self.presentities.publication_expiry.arm(number, expires_at_mono(request.now, expires_secs));
        // A request that fails shows nothing of its user: only now.
        let was_offline = self.is_back(user);
        if is_same && !was_offline {
            self.state_is_the_same(request.now, user, number);
        } else {
            self.state_of_user_changed(request.now, user, Some(number));
        }
        Ok(entity_tag)
    }

    /// After a start nobody knows what the stored documents mean; reads the one of the publication `number` then.
    fn learn_meaning(&mut self, package: &EventPackage, number: u32) {
        let publication = &self.presentities.publications[number];
        if publication.meaning.is_some() {
            return;
        }
        let partition = self.presentities[publication.presentity].key.partition();
        let files = self.files.presence_partition(partition);
        match records::view_publication(files, publication.slot, &mut self.scratch.document) {
            Some(stored) => {
                let meaning = self.compositor.read(package, stored.body).ok();
                self.presentities.publications[number].meaning = meaning.and_then(NonZeroU64::new);
            }
            None => self.counters.unreadable_records.up(),
        }
    }

    /// Ends a publication.
    ///
    /// The record says first that it is over, then the document is composed without it, and last the record goes: at
    /// whichever step a crash comes, the next start finds a publication that has run out and ends it again.
    pub(crate) fn end_publication(&mut self, now: Now, number: u32) {
        let mut publication = self.presentities.remove_publication(number);
        let (user, slot) = (publication.presentity, publication.slot);
        let key = self.presentities[user].key;
        if publication.expires_at > now.wall {
            publication.expires_at = now.wall;
            let record = stored_publication(&publication, key, b"", b"");
            let files = self.files.presence_partition_mut(key.partition());
            records::update_publication_fixed(files, slot, &record);
        }
        self.state_of_user_changed(now, user, None);
        self.files.presence_partition_mut(key.partition()).remove(slot);
    }
}

/// What of a publication a success changes in any case.
fn renew(publication: &mut Publication, request: &Request<'_>, entity_tag: EntityTag, expires_secs: u32) {
    publication.previous_tag = std::mem::replace(&mut publication.entity_tag, entity_tag);
    publication.request = request.identity();
    publication.expires_at = request.now.wall.plus_secs(expires_secs);
}

/// The record of a publication; without texts for its numbers alone.
fn stored_publication<'a>(
    publication: &Publication,
    key: AorKey,
    aor: &'a [u8],
    body: &'a [u8],
) -> StoredPublicationRecord<'a> {
    let &Publication { entity_tag, previous_tag, request, expires_at, published_at, number, event, .. } =
        publication;
    StoredPublicationRecord {
        key,
        entity_tag,
        previous_tag,
        request,
        expires_at,
        published_at,
        number,
        event,
        aor,
        body,
    }
}

/// RFC 3903 §6 step 5: the body's type and its content, before anything is stored. Gives what it means.
fn check_document(
    request: &Request<'_>,
    package: &EventPackage,
    compositor: &mut Compositor,
) -> Result<Option<NonZeroU64>, Refusal> {
    let message = request.message;
    let is_package_type = message.content_type().is_some_and(|kind| kind.is(package.content_type));
    if !is_package_type || message.content_encoding().next().is_some() {
        return Err(Refusal::UnsupportedMediaType);
    }
    if message.body().len() > DOCUMENT_LEN_MAX {
        return Err(Refusal::EntityTooLarge);
    }
    compositor.read(package, message.body()).map(NonZeroU64::new).map_err(Refusal::BadRequest)
}

/// When the timer of something granted for `secs` fires.
pub(crate) fn expires_at_mono(now: Now, secs: u32) -> comsipl_core::Mono {
    now.mono + std::time::Duration::from_secs(u64::from(secs))
}
