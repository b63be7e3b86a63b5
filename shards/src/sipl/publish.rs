//! PUBLISH: the event-state compositor (RFC 3903 §6).

use comsipl_core::event::EventPackage;
use comsipl_core::limits::{DOCUMENT_LEN_MAX, PRESENTITY_LEN_MAX, PUBLICATIONS_PER_PRESENTITY_MAX};
use comsipl_core::pidf::Composer;
use comsipl_core::publication::{self, EntityTag, Publish, PublishRequest, StoredPublication};
use comsipl_core::{AorKey, Now, Refusal};
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
        let key = self.aor_of(message.request_uri())?;
        self.check_owned(key.partition())?;
        let package = message
            .event()
            .and_then(|event| EventPackage::by_name(event.package()))
            .ok_or(Refusal::BadEvent)?;
        let identity = request.identity();
        let publish = PublishRequest {
            if_match: message.if_match(),
            expires_secs: request.expires_secs(),
            has_body: !message.body().is_empty(),
            request: identity,
        };
        let user = self.presentities.find(key);
        let mut numbers: SmallVec<[u32; DEVICES]> = SmallVec::new();
        if let Some(user) = user {
            numbers.extend(self.presentities.publications_of(user));
        }
        let stored: SmallVec<[StoredPublication; DEVICES]> = numbers
            .iter()
            .map(|&n| {
                let Publication { entity_tag, previous_tag, request, .. } = self.presentities.publications[n];
                StoredPublication { entity_tag, previous_tag, request }
            })
            .collect();
        let decision = publication::decide(&stored, &publish, self.settings.publication)?;
        let carries_state = matches!(decision, Publish::Create { .. } | Publish::Modify { .. });
        if carries_state || matches!(decision, Publish::Nothing) {
            check_document(request, package, &mut self.composer)?;
        }
        if carries_state {
            let replaced =
                if let Publish::Modify { stored, .. } = decision { Some(numbers[stored]) } else { None };
            let others: usize = numbers
                .iter()
                .filter(|&&n| Some(n) != replaced)
                .map(|&n| self.presentities.publications[n].len as usize)
                .sum();
            if others + message.body().len() > PRESENTITY_LEN_MAX {
                return Err(Refusal::EntityTooLarge);
            }
        }
        match decision {
            Publish::Create { expires_secs } => {
                if numbers.len() >= PUBLICATIONS_PER_PRESENTITY_MAX {
                    return Err(Refusal::Unavailable { retry_after_secs: 30 });
                }
                let tag = self.create_publication(request, package, key, identity, expires_secs)?;
                self.state_changed(request.now, key);
                self.answer_publish(request, tag, expires_secs);
            }
            Publish::Nothing => {
                let tag = EntityTag(self.chance.next_u64());
                self.answer_publish(request, tag, 0);
            }
            Publish::Refresh { stored, expires_secs } => {
                let tag = self.update_publication(request, numbers[stored], identity, expires_secs, None)?;
                self.answer_publish(request, tag, expires_secs);
            }
            Publish::Modify { stored, expires_secs } => {
                let body = Some(message.body());
                let tag = self.update_publication(request, numbers[stored], identity, expires_secs, body)?;
                self.state_changed(request.now, key);
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
                let left = publication.expires_at.secs_after(request.now.wall);
                let tag = publication.entity_tag;
                // The crash may have come between the publication and the document made of it.
                self.state_changed(request.now, key);
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
                .content_length(0)
                .end();
        });
    }

    fn create_publication(
        &mut self,
        request: &Request<'_>,
        package: &EventPackage,
        key: AorKey,
        identity: u64,
        expires_secs: u32,
    ) -> Result<EntityTag, Refusal> {
        let entity_tag = EntityTag(self.chance.next_u64());
        let expires_at = request.now.wall.plus_secs(expires_secs);
        let number = self.presentities.find(key).map_or(0, |user| {
            let others = self.presentities.publications_of(user);
            others.map(|n| self.presentities.publications[n].number).max().unwrap_or(0)
        }) + 1;
        let record = StoredPublicationRecord {
            number,
            key,
            entity_tag,
            previous_tag: EntityTag(0),
            request: identity,
            expires_at,
            published_at: request.now.wall,
            event: package.number,
            aor: &self.scratch.aor,
            body: request.message.body(),
        };
        let partition = self.files.presence_partition_mut(key.partition());
        let slot = records::insert_publication(partition, &record).map_err(|what| full(self, what))?;
        let presentity = self.presentities.find_or_insert(key);
        let publication = self.presentities.insert_publication(Publication {
            presentity,
            next: NONE,
            slot,
            entity_tag,
            previous_tag: EntityTag(0),
            request: identity,
            expires_at,
            len: request.message.body().len() as u32,
            number,
        });
        self.presentities.publication_expiry.arm(publication, expires_at_mono(request.now, expires_secs));
        Ok(entity_tag)
    }

    /// A refresh, or with `body` a modify: a new entity tag and a new expiry.
    fn update_publication(
        &mut self,
        request: &Request<'_>,
        number: u32,
        identity: u64,
        expires_secs: u32,
        body: Option<&[u8]>,
    ) -> Result<EntityTag, Refusal> {
        let entity_tag = EntityTag(self.chance.next_u64());
        let expires_at = request.now.wall.plus_secs(expires_secs);
        let publication = &self.presentities.publications[number];
        let (slot, previous_tag) = (publication.slot, publication.entity_tag);
        let partition = self.presentities[publication.presentity].key.partition();
        let mut record = std::mem::take(&mut self.scratch.document);
        let files = self.files.presence_partition_mut(partition);
        let result = match records::read_publication(files, slot, &mut record) {
            Some(mut stored) => {
                stored.previous_tag = previous_tag;
                stored.entity_tag = entity_tag;
                stored.request = identity;
                stored.expires_at = expires_at;
                match body {
                    // Device order in the composed document follows the last change of meaning, so a document that
                    // differs in its time stamps alone keeps its place.
                    Some(body) => {
                        let same = self.composer.read(stored.body).map(|s| s.fingerprint).ok()
                            == self.composer.read(body).map(|s| s.fingerprint).ok();
                        if !same {
                            stored.published_at = request.now.wall;
                        }
                        stored.body = body;
                        records::update_publication(files, slot, &stored)
                    }
                    None => {
                        records::update_publication_fixed(files, slot, &stored);
                        Ok(())
                    }
                }
            }
            None => {
                self.counters.unreadable_records.up();
                Ok(())
            }
        };
        self.scratch.document = record;
        if let Err(what) = result {
            return Err(full(self, what));
        }
        let publication = &mut self.presentities.publications[number];
        publication.previous_tag = previous_tag;
        publication.entity_tag = entity_tag;
        publication.request = identity;
        publication.expires_at = expires_at;
        if let Some(body) = body {
            publication.len = body.len() as u32;
        }
        self.presentities.publication_expiry.arm(number, expires_at_mono(request.now, expires_secs));
        Ok(entity_tag)
    }

    /// Ends a publication.
    ///
    /// The record says first that it is over, then the document is composed without it, and last the record goes: at
    /// whichever step a crash comes, the next start finds a publication that has run out and ends it again.
    pub(crate) fn end_publication(&mut self, now: Now, number: u32) {
        let publication = self.presentities.remove_publication(number);
        let key = self.presentities[publication.presentity].key;
        let (partition, slot) = (key.partition(), publication.slot);
        if publication.expires_at > now.wall {
            let mut record = std::mem::take(&mut self.scratch.document);
            let files = self.files.presence_partition_mut(partition);
            if let Some(mut stored) = records::read_publication(files, slot, &mut record) {
                stored.expires_at = now.wall;
                records::update_publication_fixed(files, slot, &stored);
            }
            self.scratch.document = record;
        }
        self.state_changed(now, key);
        self.files.presence_partition_mut(partition).remove(slot);
    }
}

/// RFC 3903 §6 step 5: the body's type and its content, before anything is stored.
fn check_document(
    request: &Request<'_>,
    package: &EventPackage,
    composer: &mut Composer,
) -> Result<(), Refusal> {
    let message = request.message;
    let is_package_type = message.content_type().is_some_and(|kind| kind.is(package.content_type));
    if !is_package_type || message.content_encoding().next().is_some() {
        return Err(Refusal::UnsupportedMediaType);
    }
    if message.body().len() > DOCUMENT_LEN_MAX {
        return Err(Refusal::EntityTooLarge);
    }
    (package.check)(composer, message.body()).map_err(Refusal::BadRequest)
}

/// When the timer of something granted for `secs` fires.
pub(crate) fn expires_at_mono(now: Now, secs: u32) -> comsipl_core::Mono {
    now.mono + std::time::Duration::from_secs(u64::from(secs))
}
