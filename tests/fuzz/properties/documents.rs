//! Documents of the other packages that publish are read and composed.

use comsipl_core::HashKey;
use comsipl_core::event::{Compose, Compositor, EventPackage, PACKAGES};
use comsipl_core::pidf::{Basic, Published};

use super::pidf::other_readers_accept;
use super::{parts, published};

/// Whose documents they are.
const AOR: &[u8] = b"alice@example.com";

/// Checks documents of a user in the package that the first byte chooses.
pub fn hold(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let packages: Vec<_> = PACKAGES.iter().filter(|package| package.is_published()).collect();
    let package = packages[usize::from(choice) % packages.len()];
    let mut compositor = Compositor::with_key(HashKey([1, 2]));
    let mut accepted: Vec<&[u8]> = Vec::new();
    for document in parts(bytes) {
        if compositor.read(package, document).is_ok() {
            if is_read(package) {
                other_readers_accept(document);
            }
            accepted.push(document);
        }
    }
    accepted.truncate(4);
    let [forth, back] = published(&accepted);
    let (fingerprint, composed) = compose(&mut compositor, package, &forth);
    assert_eq!(compose(&mut compositor, package, &back), (fingerprint, composed.clone()), "in another order");
    if composed.is_empty() {
        return;
    }
    // What watchers get has its version between the two.
    let whole = match package.opening {
        Some(opening) => [opening.as_bytes(), b"0", &composed].concat(),
        None => composed,
    };
    if is_read(package) {
        other_readers_accept(&whole);
    }
    if let Err(why) = compositor.read(package, &whole) {
        panic!("{why}: {}", whole.escape_ascii());
    }
}

/// Whether the package's documents are XML that the server reads; others are carried as they are.
fn is_read(package: &EventPackage) -> bool {
    matches!(package.compose, Compose::Pidf | Compose::DialogInfo)
}

/// What is told of these publications, and its fingerprint.
fn compose(
    compositor: &mut Compositor,
    package: &EventPackage,
    published: &[Published<'_>],
) -> (u64, Vec<u8>) {
    let (mut out, mut note) = (Vec::new(), Vec::new());
    if published.is_empty() {
        return (compositor.without_publication(package, AOR, Basic::Closed, &mut out).fingerprint, out);
    }
    compositor.begin(package);
    for &published in published {
        compositor.add(package, published).expect("a document that was read before");
    }
    let composed = compositor.finish(package, AOR, &mut out, &mut note);
    (composed.fingerprint, out)
}
