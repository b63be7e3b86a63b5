//! Who watches whom when users have contacts.

use super::Contact;
use crate::chance::Chance;
use anyhow::ensure;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;

/// Users who watch others: the number of contacts is log-normal, the contacts are drawn evenly.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contacts {
    /// The presentities whose users watch.
    pub owners: String,
    /// Mean of the number.
    pub mean: f64,
    /// Standard deviation of its natural logarithm.
    #[serde(default)]
    pub sigma: f64,
    /// Least contacts of a user.
    #[serde(default = "one")]
    pub min: u32,
    /// Most contacts of a user.
    pub max: u32,
    /// Users know only those of their own company, which has so many; without, everybody.
    pub within: Option<u32>,
}

fn one() -> u32 {
    1
}

impl Contacts {
    /// Draws the contacts of every owner among `of`, none twice.
    pub fn draw(
        &self,
        of: &[Range<u32>],
        owners: Range<u32>,
        chance: &mut Chance,
        contacts: &mut Vec<Contact>,
    ) -> anyhow::Result<()> {
        ensure!(self.mean >= 1.0 && self.sigma >= 0.0 && self.max >= 1, "contacts need a mean of 1 at least");
        let everybody: u32 = of.iter().map(|range| range.end - range.start).sum();
        ensure!(everybody > 0, "there is nobody to be watched");
        ensure!(self.min <= self.max, "users cannot have more contacts at least than at most");
        ensure!(self.within != Some(0), "a company has somebody");
        let mut part = || chance.part_above_zero();
        // A log-normal variable with this mean has this median.
        let middle = self.mean.ln() - self.sigma * self.sigma / 2.0;
        let first = owners.start;
        for owner in owners {
            let company = self.within.map_or(0..everybody, |size| {
                let start = ((owner - first) / size * size).min(everybody - 1);
                start..(start + size).min(everybody)
            });
            let all = company.end - company.start;
            let normal = (-2.0 * part().ln()).sqrt() * (std::f64::consts::TAU * part()).cos();
            let count = (middle + self.sigma * normal)
                .exp()
                .round()
                .clamp(f64::from(self.min.min(all)), f64::from(self.max.min(all)));
            let mut drawn = BTreeSet::new();
            while (drawn.len() as f64) < count {
                let mut place = company.start + ((1.0 - part()) * f64::from(all)) as u32;
                for range in of {
                    let len = range.end - range.start;
                    if place < len {
                        drawn.insert(range.start + place);
                        break;
                    }
                    place -= len;
                }
            }
            contacts.extend(drawn.into_iter().map(|presentity| Contact { presentity, owner }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companies_know_only_themselves() {
        let draw =
            Contacts { owners: String::new(), mean: 40.0, sigma: 0.5, min: 24, max: 120, within: Some(100) };
        let (mut contacts, mut chance) = (Vec::new(), Chance::new(3));
        draw.draw(&[0..120, 120..250], 0..250, &mut chance, &mut contacts).unwrap();
        assert!(contacts.iter().all(|contact| contact.owner / 100 == contact.presentity / 100));
        for owner in 0..250 {
            let count = contacts.iter().filter(|contact| contact.owner == owner).count();
            assert!((24..=100).contains(&count), "{count}: the last company has 50");
        }
    }

    #[test]
    fn contacts_are_log_normal_and_not_twice() {
        let draw =
            Contacts { owners: String::new(), mean: 80.0, sigma: 0.8, min: 1, max: 1_000, within: None };
        let (mut contacts, mut chance) = (Vec::new(), Chance::new(3));
        draw.draw(&[0..4_000, 5_000..6_000], 0..2_000, &mut chance, &mut contacts).unwrap();
        let mean = contacts.len() as f64 / 2_000.0;
        assert!((74.0..86.0).contains(&mean), "{mean}");
        let mut counts = vec![0u32; 2_000];
        contacts.iter().for_each(|contact| counts[contact.owner as usize] += 1);
        let many = counts.iter().filter(|count| **count >= 100).count();
        assert!((400..600).contains(&many), "{many} of 2,000 have a hundred or more");
        assert!(contacts.iter().all(|contact| !(4_000..5_000).contains(&contact.presentity)));
        let distinct: BTreeSet<_> = contacts.iter().map(|c| (c.owner, c.presentity)).collect();
        assert_eq!(distinct.len(), contacts.len());
    }
}
