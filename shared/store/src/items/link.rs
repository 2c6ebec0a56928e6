//! Referral links. A link's code is unique in the whole table, since it is all that stands in the link's address.

use domain::conversion::Code;
use domain::ids::{PartnerId, ProgramId};
use domain::program::Partner;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::items::source::CodeClaim;
use crate::keys::{Key, Place, links_list, links_of, sortable};
use crate::table::{Item, Listing, Range, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    pub code: Code,
    pub program: ProgramId,
    pub partner: PartnerId,
    pub campaign: Option<String>,
    pub channel: Option<String>,
    /// An address as [`domain::link::Destination`] takes it; without one, the link leads to the program's landing page.
    pub destination: Option<String>,
    pub created_at: Timestamp,
    pub created_by: String,
}

impl Link {
    /// The link that a partner's own code is.
    pub fn of(partner: &Partner) -> Self {
        Self {
            code: partner.code.clone(),
            program: partner.program.clone(),
            partner: partner.id.clone(),
            campaign: None,
            channel: None,
            destination: None,
            created_at: partner.created_at,
            created_by: partner.created_by.clone(),
        }
    }
}

impl Item for Link {
    fn key(&self) -> Key {
        Key::link(&self.code)
    }

    fn list_place(&self) -> Option<Place> {
        let order = format!("{}{}#{}", links_of(&self.partner), sortable(self.created_at), self.code.as_str());
        Some(Place::new(links_list(&self.program), order))
    }
}

impl Transaction {
    /// Fails if another link has the code.
    pub fn create_link(&mut self, link: &Link) -> Result<(), StoreError> {
        self.create(link)
    }

    /// Makes the link's code a referral code of its partner. Fails if it is one of the program's already.
    pub fn claim_code(&mut self, link: &Link) -> Result<(), StoreError> {
        self.create(&CodeClaim {
            program: link.program.clone(),
            code: link.code.clone(),
            partner: link.partner.clone(),
        })
    }
}

impl Store {
    pub async fn link(&self, operation: &'static str, code: &Code) -> Result<Option<Link>, StoreError> {
        self.get(operation, &Key::link(code)).await
    }

    /// How many links a partner has, as the index knows; counted no further than to `limit`.
    pub async fn link_count(
        &self,
        operation: &'static str,
        program: &ProgramId,
        partner: &PartnerId,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let (prefix, limit) = (links_of(partner), i32::try_from(limit).unwrap_or(i32::MAX));
        let range = Range { limit: Some(limit), ..Range::prefix(links_list(program), &prefix) };
        Ok(self.list(operation, range).await?.items.len())
    }

    /// A program's links by partner, or those of one partner; of each the oldest first.
    pub async fn links(
        &self,
        operation: &'static str,
        program: &ProgramId,
        partner: Option<&PartnerId>,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Link>, StoreError> {
        let prefix = partner.map(links_of);
        let range = Range { after, prefix: prefix.as_deref(), limit: Some(limit), ..Range::all(links_list(program)) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }
}
