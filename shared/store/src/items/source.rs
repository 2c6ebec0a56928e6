//! Sources of conversions, and the claims that keep referral codes unique in a program.

use domain::conversion::{Code, EventKind};
use domain::ids::{ConversionId, PartnerId, ProgramId, SourceId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::{Key, Place, sortable, sources_list};
use crate::table::{Item, Listing, Range, Store, StoreError};
use crate::transaction::Transaction;

/// A storefront connection. Its secret is in Secrets Manager, never here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    pub id: SourceId,
    pub program: ProgramId,
    /// `shopify`, `woocommerce`, `stripe` or `standard`.
    pub kind: String,
    pub name: String,
    pub created_at: Timestamp,
    pub created_by: String,
}

impl Item for Source {
    fn key(&self) -> Key {
        Key::source(&self.id)
    }

    fn list_place(&self) -> Option<Place> {
        Some(Place::new(sources_list(&self.program), format!("{}#{}", sortable(self.created_at), self.id)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeClaim {
    pub program: ProgramId,
    pub code: Code,
    pub partner: PartnerId,
}

impl Item for CodeClaim {
    fn key(&self) -> Key {
        Key::code(&self.program, &self.code)
    }
}

/// Which order the id of a source's refund, edit or withdrawal was used for: an id means one thing, whatever order it is sent for
/// next. The id of a sale is that of its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventClaim {
    pub source: SourceId,
    pub kind: EventKind,
    pub id: String,
    pub conversion: ConversionId,
}

impl Item for EventClaim {
    fn key(&self) -> Key {
        Key::event(&self.source, self.kind, &self.id)
    }
}

impl Transaction {
    /// Fails if the id was used before.
    pub fn claim_event(&mut self, claim: &EventClaim) -> Result<(), StoreError> {
        self.create(claim)
    }

    pub fn create_source(&mut self, source: &Source) -> Result<(), StoreError> {
        self.create(source)
    }
}

impl Store {
    pub async fn source(&self, operation: &'static str, id: &SourceId) -> Result<Option<Source>, StoreError> {
        self.get(operation, &Key::source(id)).await
    }

    pub async fn event_claim(
        &self,
        operation: &'static str,
        source: &SourceId,
        kind: EventKind,
        id: &str,
    ) -> Result<Option<EventClaim>, StoreError> {
        self.get(operation, &Key::event(source, kind, id)).await
    }

    /// Oldest first.
    pub async fn sources(
        &self,
        operation: &'static str,
        program: &ProgramId,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Source>, StoreError> {
        let range = Range { after, limit: Some(limit), ..Range::all(sources_list(program)) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }
}
