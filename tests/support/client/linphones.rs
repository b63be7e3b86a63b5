//! Three Linphones that watch: two of them publish, too.

use anyhow::Result;

use super::linphone::{Account, Linphone, Linphonec, Status};
use super::road::Road;

/// Alice's and bob's, which publish and watch each other, and wanda's console, which watches bob.
pub struct Linphones {
    /// The one of alice.
    pub alices: Linphone,
    /// The one of bob.
    pub bobs: Linphone,
    /// The one of wanda.
    pub wandas: Linphonec,
    /// The address of alice.
    pub alice: String,
    /// The address of bob.
    pub bob: String,
}

impl Linphones {
    /// Whose they are.
    pub const USERS: [&str; 3] = ["alice", "bob", "wanda"];

    /// Starts them and waits until each sees whom it watches.
    ///
    /// # Errors
    /// When one of them does not start, or does not see another.
    pub fn start(road: Road<'_>) -> Result<Self> {
        let [alice, bob] = ["alice", "bob"].map(|user| Account::over(user, road));
        let mut alices = Linphone::start(&alice)?;
        let mut bobs = Linphone::start(&bob)?;
        let mut wandas = Linphonec::start(&Account::watching("wanda", road))?;
        let (alice, bob) = (alice.uri(), bob.uri());
        alices.befriend(&bob)?;
        bobs.befriend(&alice)?;
        wandas.befriend("bob", &bob)?;
        alices.expect(&bob, Status::Online)?;
        bobs.expect(&alice, Status::Online)?;
        wandas.expect(&bob, Status::Online)?;
        Ok(Self { alices, bobs, wandas, alice, bob })
    }

    /// Bob takes one status after the other, and the two others see each. Returns what they print.
    ///
    /// # Errors
    /// When a publication is not accepted or somebody does not see it.
    pub fn follow_bob(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for status in [Status::Busy, Status::Away, Status::Online] {
            self.bobs.publish(status)?;
            lines.push(self.alices.expect(&self.bob, status)?);
            lines.push(self.wandas.expect(&self.bob, status)?);
        }
        Ok(lines)
    }
}
