//! Conversions that are due to nobody yet: listed until a person attributes them.

use domain::ids::{ConversionId, ProgramId, SourceId};
use domain::money::{Currency, Minor};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::{Key, Place, sortable, unattributed_list};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unattributed {
    pub conversion: ConversionId,
    pub program: ProgramId,
    pub source: SourceId,
    /// The source's own id of the order.
    pub order: String,
    pub total: Minor,
    pub currency: Currency,
    pub occurred_at: Timestamp,
}

impl Item for Unattributed {
    fn key(&self) -> Key {
        Key::unattributed(&self.conversion)
    }

    fn list_place(&self) -> Option<Place> {
        let order = format!("{}#{}", sortable(self.occurred_at), self.conversion);
        Some(Place::new(unattributed_list(&self.program), order))
    }
}

impl Transaction {
    pub fn list_unattributed(&mut self, conversion: &Unattributed) -> Result<(), StoreError> {
        self.create(conversion)
    }

    /// Fails unless it is listed.
    pub fn unlist_unattributed(&mut self, conversion: &ConversionId) {
        self.delete_if(Key::unattributed(conversion), "conversion", conversion.as_str());
    }
}

impl Store {
    pub async fn unattributed_conversion(
        &self,
        operation: &'static str,
        conversion: &ConversionId,
    ) -> Result<Option<Unattributed>, StoreError> {
        self.get(operation, &Key::unattributed(conversion)).await
    }

    /// Newest first.
    pub async fn unattributed(
        &self,
        operation: &'static str,
        program: &ProgramId,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Unattributed>, StoreError> {
        let range =
            Range { after, order: Order::Backward, limit: Some(limit), ..Range::all(unattributed_list(program)) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }
}
