//! Programs, their rule sets, and their partners.

use domain::conversion::Code;
use domain::ids::{PartnerId, ProgramId};
use domain::program::{Partner, Program};
use domain::rules::{RuleSet, RuleSetState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::items::source::CodeClaim;
use crate::keys::{
    AFTER_IDS, Key, PROGRAMS_LIST, Place, RULE_SETS, partner_of, partners_list, program_partition, sortable,
};
use crate::table::{Item, Listing, Range, Store, StoreError};
use crate::transaction::Transaction;

impl Item for Program {
    fn key(&self) -> Key {
        Key::program(&self.id)
    }

    fn list_place(&self) -> Option<Place> {
        Some(Place::new(PROGRAMS_LIST, program_position(self)))
    }
}

impl Item for RuleSet {
    fn key(&self) -> Key {
        Key::rule_set(&self.program, self.version)
    }

    /// A version's content never changes; its state only goes forward.
    fn revision(&self) -> u32 {
        match self.state {
            RuleSetState::Draft => 1,
            RuleSetState::SignedOff { .. } => 2,
            RuleSetState::Published { .. } => 3,
        }
    }
}

/// The version of a program's rules that was published before any other: there is one, however many are published at once.
#[derive(Debug, Serialize, Deserialize)]
struct FirstPublished {
    program: ProgramId,
    version: u32,
}

impl Item for FirstPublished {
    fn key(&self) -> Key {
        Key::first_published(&self.program)
    }
}

impl Item for Partner {
    fn key(&self) -> Key {
        Key::partner(&self.id)
    }

    fn revision(&self) -> u32 {
        self.version
    }

    fn list_place(&self) -> Option<Place> {
        Some(Place::new(partners_list(&self.program), partner_position(self)))
    }
}

/// Where a program stands in the list of programs.
pub fn program_position(program: &Program) -> String {
    format!("{}#{}", sortable(program.created_at), program.id)
}

/// Where a partner stands in the list of its program's partners.
pub fn partner_position(partner: &Partner) -> String {
    format!("{}#{}", sortable(partner.created_at), partner.id)
}

impl Transaction {
    pub fn create_program(&mut self, program: &Program) -> Result<(), StoreError> {
        self.create(program)
    }

    /// Fails if the version exists.
    pub fn create_rule_set(&mut self, set: &RuleSet) -> Result<(), StoreError> {
        self.create(set)
    }

    pub fn replace_rule_set(&mut self, set: &RuleSet, read: &RuleSet) -> Result<(), StoreError> {
        self.replace(set, read.revision())
    }

    /// Fails if another version was published first.
    pub fn publish_first(&mut self, set: &RuleSet) -> Result<(), StoreError> {
        self.create(&FirstPublished { program: set.program.clone(), version: set.version })
    }

    /// Fails unless the partner is as it was read.
    pub fn replace_partner(&mut self, partner: &Partner, read: &Partner) -> Result<(), StoreError> {
        self.replace(partner, read.version)
    }

    /// Fails if another partner of the program has the code.
    pub fn create_partner(&mut self, partner: &Partner) -> Result<(), StoreError> {
        self.create(partner)?;
        self.create(&CodeClaim {
            program: partner.program.clone(),
            code: partner.code.clone(),
            partner: partner.id.clone(),
        })
    }
}

impl Store {
    pub async fn program(&self, operation: &'static str, id: &ProgramId) -> Result<Option<Program>, StoreError> {
        self.get(operation, &Key::program(id)).await
    }

    pub async fn programs(
        &self,
        operation: &'static str,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Program>, StoreError> {
        let range = Range { after, limit: Some(limit), ..Range::all(PROGRAMS_LIST.to_owned()) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    /// All versions, oldest first.
    pub async fn rule_sets(&self, operation: &'static str, program: &ProgramId) -> Result<Vec<RuleSet>, StoreError> {
        self.query_all(operation, Range::prefix(program_partition(program), RULE_SETS)).await
    }

    pub async fn rule_set(
        &self,
        operation: &'static str,
        program: &ProgramId,
        version: u32,
    ) -> Result<Option<RuleSet>, StoreError> {
        self.get(operation, &Key::rule_set(program, version)).await
    }

    pub async fn partner(&self, operation: &'static str, id: &PartnerId) -> Result<Option<Partner>, StoreError> {
        self.get(operation, &Key::partner(id)).await
    }

    pub async fn partners_by_id(&self, operation: &'static str, ids: &[PartnerId]) -> Result<Vec<Partner>, StoreError> {
        let keys: Vec<_> = ids.iter().map(Key::partner).collect();
        self.get_many(operation, &keys).await
    }

    pub async fn partner_with_code(
        &self,
        operation: &'static str,
        program: &ProgramId,
        code: &Code,
    ) -> Result<Option<Partner>, StoreError> {
        match self.get::<CodeClaim>(operation, &Key::code(program, code)).await? {
            Some(claim) => self.partner(operation, &claim.partner).await,
            None => Ok(None),
        }
    }

    /// Oldest first.
    pub async fn partners(
        &self,
        operation: &'static str,
        program: &ProgramId,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Partner>, StoreError> {
        let range = Range { after, limit: Some(limit), ..Range::all(partners_list(program)) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    /// The same of those who joined by then, without reading the partners themselves.
    pub async fn partner_ids(
        &self,
        operation: &'static str,
        program: &ProgramId,
        joined_by: Timestamp,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<PartnerId>, StoreError> {
        let up_to = format!("{}{AFTER_IDS}", sortable(joined_by));
        let range = Range { after, up_to: Some(&up_to), limit: Some(limit), ..Range::all(partners_list(program)) };
        let keys = self.list(operation, range).await?;
        let ids = keys.items.iter().map(|key| partner_of(&key.pk)).collect::<Result<_, _>>()?;
        Ok(Listing { items: ids, after: keys.after })
    }
}
