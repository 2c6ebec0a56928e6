//! Tallies, changed in the transaction of what they count.

use domain::ids::ProgramId;
use domain::tally::{Tallies, Tally, TallyKey};
use serde::{Deserialize, Serialize};

use crate::keys::{Key, tally_prefix};
use crate::table::{Item, Range, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTally {
    pub program: ProgramId,
    #[serde(flatten)]
    pub key: TallyKey,
    pub tally: Tally,
    /// Counts changes.
    pub changes: u32,
}

impl Item for StoredTally {
    fn key(&self) -> Key {
        Key::tally(&self.program, &self.key)
    }

    fn revision(&self) -> u32 {
        self.changes
    }
}

/// Tallies as they were read.
#[derive(Debug, Clone, Default)]
pub struct ReadTallies {
    stored: Vec<StoredTally>,
}

impl ReadTallies {
    /// For computing with.
    pub fn tallies(&self) -> Tallies {
        Tallies::new(self.known().into_iter().collect())
    }

    /// What is not zero, for the journal.
    pub fn known(&self) -> Vec<(TallyKey, Tally)> {
        let known = self.stored.iter().filter(|stored| !stored.tally.is_zero());
        known.map(|stored| (stored.key.clone(), stored.tally.clone())).collect()
    }
}

impl Store {
    /// Reads single tallies and, where the ends differ, ranges of days, both ends inclusive.
    pub async fn tallies(
        &self,
        operation: &'static str,
        program: &ProgramId,
        reads: &[(TallyKey, TallyKey)],
    ) -> Result<ReadTallies, StoreError> {
        let (single, ranges): (Vec<_>, Vec<_>) = reads.iter().partition(|(from, to)| from == to);
        let keys: Vec<_> = single.iter().map(|(key, _)| Key::tally(program, key)).collect();
        let mut stored: Vec<StoredTally> =
            if keys.is_empty() { Vec::new() } else { self.get_many(operation, &keys).await? };
        for (from, to) in ranges {
            let (from, to) = (Key::tally(program, from), Key::tally(program, to));
            let prefix = tally_prefix(&to);
            let days: Vec<StoredTally> = self.query_all(operation, Range::prefix(from.pk.clone(), prefix)).await?;
            stored.extend(days.into_iter().filter(|day| {
                let sk = Key::tally(program, &day.key).sk;
                (from.sk.as_str()..=to.sk.as_str()).contains(&sk.as_str())
            }));
        }
        stored.sort_by(|a, b| a.key.cmp(&b.key));
        stored.dedup_by(|a, b| a.key == b.key);
        Ok(ReadTallies { stored })
    }
}

impl Transaction {
    /// Adds what was booked to the tallies as they were read. What was not read is taken to not exist.
    pub fn tallies(&mut self, program: &ProgramId, read: &ReadTallies, booked: &Tallies) -> Result<(), StoreError> {
        for (key, step) in booked.steps() {
            match read.stored.iter().find(|stored| stored.key == *key) {
                Some(stored) => {
                    let tally = stored.tally.clone().plus(step)?;
                    let moved = StoredTally { tally, changes: stored.changes + 1, ..stored.clone() };
                    self.replace(&moved, stored.changes)?;
                }
                None => self.create(&StoredTally {
                    program: program.clone(),
                    key: key.clone(),
                    tally: step.clone(),
                    changes: 1,
                })?,
            }
        }
        Ok(())
    }
}
