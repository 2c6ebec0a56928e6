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

    fn list_place(&self) -> Option<Place> {
        let order = format!("{}#{}", sortable(self.occurred_at), self.conversion);
        Some(Place::new(unrewarded_list(&self.program, self.because.as_str()), order))
    }
}

impl Transaction {
    pub fn list_unrewarded(&mut self, conversion: &Unrewarded) -> Result<(), StoreError> {
        self.create(conversion)
    }

    /// Fails unless it is listed.
    pub fn unlist_unrewarded(&mut self, conversion: &ConversionId) {
        self.delete_if(Key::unrewarded(conversion), "conversion", conversion.as_str());
    }
}

impl Store {
    /// Whether a conversion is listed.
    pub async fn is_unrewarded(&self, operation: &'static str, conversion: &ConversionId) -> Result<bool, StoreError> {
        let listed: Option<Unrewarded> = self.get(operation, &Key::unrewarded(conversion)).await?;
        Ok(listed.is_some())
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
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }
}
