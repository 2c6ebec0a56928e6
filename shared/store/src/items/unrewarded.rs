//! Conversions that made no line: due to nobody, until a person attributes them, or rated by no rule.

use domain::ids::{ConversionId, ProgramId, SourceId};
use domain::money::{Currency, Minor};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::{Key, Place, sortable, unrewarded_list};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unrewarded {
    pub conversion: ConversionId,
    pub because: Because,
    pub program: ProgramId,
    pub source: SourceId,
    /// The source's own id of the order.
    pub order: String,
    pub total: Minor,
    pub currency: Currency,
    pub occurred_at: Timestamp,
    /// Why its lines would have been held from the start, had it been due to somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<String>,
    /// A person said since whom it is due to: it is listed no more.
    #[serde(default)]
    pub attributed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    Unattributed,
    NoRule,
}

impl Because {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unattributed => "unattributed",
            Self::NoRule => "no_rule",
        }
    }
}

impl Item for Unrewarded {
    fn key(&self) -> Key {
        Key::unrewarded(&self.conversion)
    }

    fn revision(&self) -> u32 {
        1 + u32::from(self.attributed)
    }

    fn list_place(&self) -> Option<Place> {
        if self.attributed {
            return None;
        }
        let order = format!("{}#{}", sortable(self.occurred_at), self.conversion);
        Some(Place::new(unrewarded_list(&self.program, self.because.as_str()), order))
    }
}

impl Transaction {
    pub fn list_unrewarded(&mut self, conversion: &Unrewarded) -> Result<(), StoreError> {
        self.create(conversion)
    }

    /// Fails unless it is listed.
    pub fn unlist_unrewarded(&mut self, listed: &Unrewarded) -> Result<(), StoreError> {
        self.replace(&Unrewarded { attributed: true, ..listed.clone() }, listed.revision())
    }
}

impl Store {
    /// A conversion, if it is listed.
    pub async fn listed_unrewarded(
        &self,
        operation: &'static str,
        conversion: &ConversionId,
    ) -> Result<Option<Unrewarded>, StoreError> {
        let known: Option<Unrewarded> = self.get(operation, &Key::unrewarded(conversion)).await?;
        Ok(known.filter(|conversion| !conversion.attributed))
    }

    /// Newest first.
    pub async fn unrewarded(
        &self,
        operation: &'static str,
        program: &ProgramId,
        because: Because,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Unrewarded>, StoreError> {
        let partition = unrewarded_list(program, because.as_str());
        let range = Range { after, order: Order::Backward, limit: Some(limit), ..Range::all(partition) };
        let keys = self.list(operation, range).await?;
        let mut items: Vec<Unrewarded> = self.get_many(operation, &keys.items).await?;
        // The index may still show what was attributed a moment ago.
        items.retain(|conversion| !conversion.attributed);
        Ok(Listing { items, after: keys.after })
    }
}
