//! What a REGISTER does to the bindings of an AoR (RFC 3261 §10.3, steps 6 and 7).

use crate::expiry::Grant;
use crate::header::chunk::{count, equal};
use crate::limits::{BINDINGS_PER_AOR_MAX, CONTACT_LEN_MAX, URI_PARAMS_MAX};
use crate::refusal::Refusal;
use crate::uri::Uri;

/// What of a stored binding the decision needs.
#[derive(Clone, Copy, Debug)]
pub struct StoredBinding<'a> {
    /// The contact URI as it was registered.
    pub contact: &'a [u8],
    /// Call-ID of the request that made or last refreshed it.
    pub call_id: &'a [u8],
    /// CSeq of that request.
    pub cseq: u32,
    /// `+sip.instance`, empty if there was none (RFC 5626 §4.1).
    pub instance: &'a [u8],
    /// `reg-id`, zero if there was none (RFC 5626 §4.2).
    pub reg_id: u32,
    /// Identity of the request that made or last refreshed it.
    pub request: u64,
}

/// One Contact of a REGISTER.
#[derive(Clone, Copy, Debug)]
pub struct ContactWish<'a> {
    /// The contact URI.
    pub contact: &'a [u8],
    /// Its `expires` parameter.
    pub expires_secs: Option<u32>,
    /// `+sip.instance`, empty if there is none.
    pub instance: &'a [u8],
    /// `reg-id`, zero if there is none.
    pub reg_id: u32,
}

/// The Contact header fields of a REGISTER.
#[derive(Clone, Copy, Debug)]
pub enum Contacts<'a> {
    /// None: a query.
    None,
    /// `*`, alone.
    Star,
    /// `*` beside others: invalid.
    StarAndMore,
    /// Addresses, in order.
    Each(&'a [ContactWish<'a>]),
}

/// What of a REGISTER the decision needs.
#[derive(Clone, Copy, Debug)]
pub struct RegisterRequest<'a> {
    /// Its contacts.
    pub contacts: Contacts<'a>,
    /// Value of Expires.
    pub expires_secs: Option<u32>,
    /// Its Call-ID.
    pub call_id: &'a [u8],
    /// Its CSeq number.
    pub cseq: u32,
    /// Its identity: the same for a retransmission, also across a restart.
    pub request: u64,
}

/// One change of the bindings; `stored` and `contact` count in the slices given to [`decide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingChange {
    /// A new binding.
    Add {
        /// The contact of the request.
        contact: usize,
        /// Seconds granted.
        expires_secs: u32,
    },
    /// A binding gets the request's Call-ID, CSeq, parameters and a new expiry.
    Update {
        /// Which one.
        stored: usize,
        /// The contact of the request.
        contact: usize,
        /// Seconds granted.
        expires_secs: u32,
    },
    /// A binding ends.
    Remove {
        /// Which one.
        stored: usize,
    },
}

/// Decides on a REGISTER for an AoR that is served: either all `changes` are carried out, or none.
///
/// # Errors
///
/// The [`Refusal`] of the first step that fails; `changes` is of no use then.
pub fn decide(
    stored: &[StoredBinding<'_>],
    request: &RegisterRequest<'_>,
    grant: Grant,
    changes: &mut Vec<BindingChange>,
) -> Result<(), Refusal> {
    changes.clear();
    let wishes = match request.contacts {
        Contacts::None => return Ok(()),
        Contacts::StarAndMore => return Err(Refusal::BadRequest("Contact * Beside Others")),
        Contacts::Star => {
            if request.expires_secs != Some(0) {
                return Err(Refusal::BadRequest("Contact * Without Expires 0"));
            }
            for (index, binding) in stored.iter().enumerate() {
                in_order(binding, request)?;
                changes.push(BindingChange::Remove { stored: index });
            }
            return Ok(());
        }
        Contacts::Each(wishes) => wishes,
    };
    if wishes.len() > BINDINGS_PER_AOR_MAX {
        return Err(Refusal::Forbidden("Too Many Contacts"));
    }
    // Lengths and expiries first: what they refuse must not depend on which bindings exist.
    for wish in wishes {
        check_length(wish)?;
        grant.grant(wish.expires_secs.or(request.expires_secs))?;
    }
    let (mut added, mut removed) = (0, 0);
    // A device may be known by its instance and another contact of the request by its URI: no binding is changed twice.
    let mut changed = [false; BINDINGS_PER_AOR_MAX];
    for (index, wish) in wishes.iter().enumerate() {
        let expires_secs = grant.grant(wish.expires_secs.or(request.expires_secs))?;
        // A contact that is stored byte for byte was found good then.
        let mut uri = None;
        if !stored.iter().any(|binding| binding.contact == wish.contact) {
            uri = Some(Uri::parse(wish.contact).map_err(|_| Refusal::BadRequest("Bad Contact URI"))?);
        }
        if wishes[..index]
            .iter()
            .any(|earlier| same_contact(&mut uri, wish, earlier.contact, earlier.instance, earlier.reg_id))
        {
            return Err(Refusal::BadRequest("Contact Given Twice"));
        }
        let found = stored.iter().position(|b| same_contact(&mut uri, wish, b.contact, b.instance, b.reg_id));
        match found {
            Some(stored_index) => {
                let seen = changed.get_mut(stored_index).ok_or(Refusal::Forbidden("Too Many Bindings"))?;
                if std::mem::replace(seen, true) {
                    return Err(Refusal::BadRequest("Contact Given Twice"));
                }
                let binding = &stored[stored_index];
                if binding.request == request.request {
                    // This very request changed it, and its answer was lost.
                    continue;
                }
                in_order(binding, request)?;
                if expires_secs == 0 {
                    changes.push(BindingChange::Remove { stored: stored_index });
                    removed += 1;
                } else {
                    changes.push(BindingChange::Update {
                        stored: stored_index,
                        contact: index,
                        expires_secs,
                    });
                }
            }
            // The end of a binding that is not there: nothing to do, and no error (RFC 3261 §10.2.2).
            None if expires_secs == 0 => {}
            None => {
                changes.push(BindingChange::Add { contact: index, expires_secs });
                added += 1;
            }
        }
    }
    if stored.len() + added - removed > BINDINGS_PER_AOR_MAX {
        return Err(Refusal::Forbidden("Too Many Bindings"));
    }
    Ok(())
}

/// Contacts are compared each with each, and their parameters likewise: both are bounded.
fn check_length(wish: &ContactWish<'_>) -> Result<(), Refusal> {
    let parts = || count(wish.contact, |block| equal(block, b';') | equal(block, b'&'));
    if wish.contact.len() > CONTACT_LEN_MAX
        || wish.instance.len() > CONTACT_LEN_MAX
        || parts() > URI_PARAMS_MAX
    {
        return Err(Refusal::BadRequest("Contact Too Long"));
    }
    Ok(())
}

/// RFC 3261 §10.3 step 7: with one Call-ID, only a higher CSeq may change a binding; otherwise "the update MUST be
/// aborted and the request fails".
fn in_order(binding: &StoredBinding<'_>, request: &RegisterRequest<'_>) -> Result<(), Refusal> {
    if binding.call_id == request.call_id && request.cseq <= binding.cseq {
        Err(Refusal::OutOfOrder)
    } else {
        Ok(())
    }
}

/// Whether two contacts are one binding: by RFC 5626 §6 (instance and reg-id) where both have them, else by the URI
/// comparison of RFC 3261 §19.1.4. `uri` is the wish's, read when it is needed first.
fn same_contact<'a>(
    uri: &mut Option<Uri<'a>>,
    wish: &ContactWish<'a>,
    other: &[u8],
    instance: &[u8],
    reg_id: u32,
) -> bool {
    if wish.reg_id != 0 && reg_id != 0 && !wish.instance.is_empty() && !instance.is_empty() {
        return wish.reg_id == reg_id && wish.instance == instance;
    }
    if wish.contact == other {
        return true;
    }
    if uri.is_none() {
        *uri = Uri::parse(wish.contact).ok();
    }
    let Some(uri) = uri else { return false };
    Uri::parse(other).is_ok_and(|other| uri.matches(&other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExpiryPolicy;

    const GRANT: Grant = ExpiryPolicy { min_secs: 60, default_secs: 3600, max_secs: 7200 }.shortened(0);

    fn wish(contact: &str, expires_secs: Option<u32>) -> ContactWish<'_> {
        ContactWish { contact: contact.as_bytes(), expires_secs, instance: b"", reg_id: 0 }
    }

    fn binding<'a>(contact: &'a str, call_id: &'a str, cseq: u32) -> StoredBinding<'a> {
        StoredBinding {
            contact: contact.as_bytes(),
            call_id: call_id.as_bytes(),
            cseq,
            instance: b"",
            reg_id: 0,
            request: 0,
        }
    }

    fn run(
        stored: &[StoredBinding<'_>],
        contacts: Contacts<'_>,
        expires_secs: Option<u32>,
        cseq: u32,
    ) -> Result<Vec<BindingChange>, Refusal> {
        let mut changes = Vec::new();
        let request = RegisterRequest { contacts, expires_secs, call_id: b"c1", cseq, request: 77 };
        decide(stored, &request, GRANT, &mut changes).map(|()| changes)
    }

    #[test]
    fn a_contact_is_added_then_updated_then_removed() {
        let phone = [wish("sip:alice@192.0.2.1:5062", None)];
        let added = run(&[], Contacts::Each(&phone), Some(600), 1);
        assert_eq!(added, Ok(vec![BindingChange::Add { contact: 0, expires_secs: 600 }]));
        let stored = [binding("sip:alice@192.0.2.1:5062", "c1", 1)];
        let updated = run(&stored, Contacts::Each(&phone), Some(600), 2);
        assert_eq!(updated, Ok(vec![BindingChange::Update { stored: 0, contact: 0, expires_secs: 600 }]));
        let removed =
            run(&stored, Contacts::Each(&[wish("sip:alice@192.0.2.1:5062", Some(0))]), Some(600), 2);
        assert_eq!(removed, Ok(vec![BindingChange::Remove { stored: 0 }]));
    }

    #[test]
    fn an_older_cseq_of_the_same_call_id_fails_as_a_whole() {
        let stored = [binding("sip:a@192.0.2.1", "c1", 5), binding("sip:a@192.0.2.2", "other", 9)];
        let both = [wish("sip:a@192.0.2.2", None), wish("sip:a@192.0.2.1", None)];
        assert_eq!(run(&stored, Contacts::Each(&both), None, 5), Err(Refusal::OutOfOrder));
        assert!(run(&stored, Contacts::Each(&both), None, 6).is_ok());
        assert_eq!(run(&stored, Contacts::Star, Some(0), 5), Err(Refusal::OutOfOrder));
    }

    #[test]
    fn star_needs_expires_zero_and_stands_alone() {
        let stored = [binding("sip:a@192.0.2.1", "c0", 1)];
        assert_eq!(run(&stored, Contacts::Star, Some(0), 1), Ok(vec![BindingChange::Remove { stored: 0 }]));
        assert!(matches!(run(&stored, Contacts::Star, Some(60), 1), Err(Refusal::BadRequest(_))));
        assert!(matches!(run(&stored, Contacts::Star, None, 1), Err(Refusal::BadRequest(_))));
        assert!(matches!(run(&stored, Contacts::StarAndMore, Some(0), 1), Err(Refusal::BadRequest(_))));
    }

    #[test]
    fn a_brief_expiry_of_one_contact_refuses_all() {
        let both = [wish("sip:a@192.0.2.2", None), wish("sip:a@192.0.2.1", Some(5))];
        assert_eq!(run(&[], Contacts::Each(&both), None, 1), Err(Refusal::IntervalTooBrief { min_secs: 60 }));
    }

    #[test]
    fn one_binding_is_never_changed_twice() {
        // A request removed the binding of a device by its instance, and the same one again by its URI: the second removal
        // met a binding that was not there any more, and the server stopped.
        let mut stored = binding("sip:x@192.0.2.1", "c0", 1);
        (stored.instance, stored.reg_id) = (b"<urn:u>", 1);
        let mut by_instance = wish("sip:z@192.0.2.1", Some(0));
        (by_instance.instance, by_instance.reg_id) = (b"<urn:u>", 1);
        let both = [by_instance, wish("sip:x@192.0.2.1", Some(0))];
        assert_eq!(
            run(&[stored], Contacts::Each(&both), None, 2),
            Err(Refusal::BadRequest("Contact Given Twice"))
        );
    }

    #[test]
    fn a_request_carried_out_before_a_restart_changes_nothing_more() {
        let mut done = binding("sip:a@192.0.2.1", "c1", 5);
        done.request = 77;
        let both = [wish("sip:a@192.0.2.1", None), wish("sip:a@192.0.2.2", None)];
        let rest = run(&[done], Contacts::Each(&both), None, 5);
        assert_eq!(rest, Ok(vec![BindingChange::Add { contact: 1, expires_secs: 3600 }]));
    }

    #[test]
    fn what_would_take_long_to_compare_is_refused() {
        let long = format!("sip:a@192.0.2.1;{}", "x".repeat(3000));
        let many = format!("sip:a@192.0.2.1{}", ";p".repeat(17));
        for contact in [&long, &many] {
            let refused = run(&[], Contacts::Each(&[wish(contact, None)]), None, 1);
            assert_eq!(refused, Err(Refusal::BadRequest("Contact Too Long")));
        }
        let crowd: Vec<String> = (0..33).map(|n| format!("sip:a@192.0.2.{n}")).collect();
        let crowd: Vec<_> = crowd.iter().map(|contact| wish(contact, None)).collect();
        assert!(matches!(run(&[], Contacts::Each(&crowd), None, 1), Err(Refusal::Forbidden(_))));
    }

    #[test]
    fn a_device_that_moved_is_known_by_instance_and_reg_id() {
        let mut stored = binding("sip:a@192.0.2.1:1024", "c0", 1);
        (stored.instance, stored.reg_id) = (b"<urn:uuid:1>", 1);
        let mut moved = wish("sip:a@192.0.2.77:4096", None);
        (moved.instance, moved.reg_id) = (b"<urn:uuid:1>", 1);
        let change = run(&[stored], Contacts::Each(&[moved]), None, 1).unwrap();
        assert!(matches!(change[..], [BindingChange::Update { stored: 0, .. }]));
    }
}
