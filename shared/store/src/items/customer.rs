//! What is known of a program's customers: whether they bought before, whom their first attributed sale was due to, what they bought of
//! late, and which browsers are theirs. A customer is known by id, by the hash of an e-mail address, or by both; each is an
//! item of its own, hashed again, and changes in the transaction of the sale.

use domain::conversion::Customer;
use domain::ids::{ConversionId, PartnerId, ProgramId, SourceId, VisitorId};
use domain::money::{Currency, Minor};
use domain::rating::Standing;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::keys::Key;
use crate::table::{Item, Store, StoreError};
use crate::transaction::Transaction;

/// How near in time two sales must be to be the same one, told twice.
const DUPLICATE_WITHIN: SignedDuration = SignedDuration::from_hours(24);
/// Sales that are remembered, the latest to be accepted: what is told late may be told twice as well. Few, so that the item of a
/// faithful customer stays within two kilobytes.
const MAX_SALES: usize = 10;
/// Browsers that are remembered.
const MAX_BROWSERS: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    program: ProgramId,
    /// `id:` or `email:` and the value.
    identity: String,
    #[serde(default)]
    first_sale: Option<ConversionId>,
    #[serde(default)]
    first_attributed: Option<FirstAttributed>,
    #[serde(default)]
    recent: Vec<Purchase>,
    #[serde(default)]
    visitors: Vec<VisitorId>,
    changes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FirstAttributed {
    at: Timestamp,
    conversion: ConversionId,
    /// With their parts.
    partners: Vec<(PartnerId, u64)>,
}

/// A sale to a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    pub conversion: ConversionId,
    pub source: SourceId,
    pub total: Minor,
    pub currency: Currency,
    pub at: Timestamp,
}

impl Item for Record {
    fn key(&self) -> Key {
        Key::customer(&self.program, &self.identity)
    }

    fn revision(&self) -> u32 {
        self.changes
    }
}

/// A customer under all the names it was told by.
#[derive(Debug, Clone, Default)]
pub struct KnownCustomer {
    records: Vec<Record>,
}

impl KnownCustomer {
    /// How the customer stands for a conversion.
    pub fn standing(&self, conversion: &ConversionId) -> Standing {
        let others = |first: &Option<ConversionId>| first.as_ref().is_some_and(|first| first != conversion);
        let attributed = self.records.iter().filter_map(|record| record.first_attributed.as_ref());
        Standing {
            new: !self.records.iter().any(|record| others(&record.first_sale)),
            first_attributed: attributed.filter(|first| first.conversion != *conversion).map(|first| first.at).min(),
        }
    }

    /// Whom the first attributed sale was due to.
    pub fn first_partners(&self) -> Option<&[(PartnerId, u64)]> {
        let attributed = self.records.iter().filter_map(|record| record.first_attributed.as_ref());
        attributed.min_by_key(|first| first.at).map(|first| first.partners.as_slice())
    }

    /// A sale from another source that may be the same one.
    pub fn duplicate(&self, of: &Purchase) -> Option<&Purchase> {
        self.records.iter().flat_map(|record| &record.recent).find(|other| {
            other.conversion != of.conversion
                && other.source != of.source
                && (other.total, other.currency) == (of.total, of.currency)
                && other.at.duration_since(of.at).abs() <= DUPLICATE_WITHIN
        })
    }

    /// The browsers it was seen with.
    pub fn visitors(&self) -> impl Iterator<Item = &VisitorId> {
        self.records.iter().flat_map(|record| &record.visitors)
    }
}

fn identities(customer: &Customer) -> impl Iterator<Item = String> {
    let id = customer.id.as_ref().map(|id| format!("id:{id}"));
    id.into_iter().chain(customer.email_hash.as_ref().map(|hash| format!("email:{hash}")))
}

impl Store {
    pub async fn customer(
        &self,
        operation: &'static str,
        program: &ProgramId,
        customer: &Customer,
    ) -> Result<KnownCustomer, StoreError> {
        let identities: Vec<_> = identities(customer).collect();
        let keys: Vec<_> = identities.iter().map(|identity| Key::customer(program, identity)).collect();
        let mut records: Vec<Record> =
            if keys.is_empty() { Vec::new() } else { self.get_many(operation, &keys).await? };
        for identity in identities {
            if !records.iter().any(|record| record.identity == identity) {
                records.push(Record {
                    program: program.clone(),
                    identity,
                    first_sale: None,
                    first_attributed: None,
                    recent: Vec::new(),
                    visitors: Vec::new(),
                    changes: 0,
                });
            }
        }
        Ok(KnownCustomer { records })
    }
}

impl Transaction {
    /// Remembers a sale with the customer as it was read. `partners` are those it was attributed to, if it was.
    pub fn remember_purchase(
        &mut self,
        read: &KnownCustomer,
        purchase: &Purchase,
        partners: &[(PartnerId, u64)],
        visitor: Option<&VisitorId>,
    ) -> Result<(), StoreError> {
        for record in &read.records {
            let mut after = record.clone();
            after.first_sale.get_or_insert_with(|| purchase.conversion.clone());
            if after.first_attributed.is_none() && !partners.is_empty() {
                after.first_attributed = Some(FirstAttributed {
                    at: purchase.at,
                    conversion: purchase.conversion.clone(),
                    partners: partners.to_vec(),
                });
            }
            keep(&mut after.recent, purchase, MAX_SALES);
            if let Some(visitor) = visitor {
                keep(&mut after.visitors, visitor, MAX_BROWSERS);
            }
            self.put_customer(record, after)?;
        }
        Ok(())
    }

    /// Remembers whom a person gave the sale to, with the customer as it was read.
    pub fn remember_attribution(
        &mut self,
        read: &KnownCustomer,
        conversion: &ConversionId,
        at: Timestamp,
        partners: &[(PartnerId, u64)],
    ) -> Result<(), StoreError> {
        for record in &read.records {
            if record.first_attributed.as_ref().is_some_and(|first| first.conversion != *conversion) {
                continue;
            }
            let (conversion, partners) = (conversion.clone(), partners.to_vec());
            let first_attributed = Some(FirstAttributed { at, conversion, partners });
            self.put_customer(record, Record { first_attributed, ..record.clone() })?;
        }
        Ok(())
    }

    fn put_customer(&mut self, read: &Record, after: Record) -> Result<(), StoreError> {
        if after == *read {
            return Ok(());
        }
        let after = Record { changes: read.changes + 1, ..after };
        if read.changes == 0 { self.create(&after) } else { self.replace(&after, read.changes) }
    }
}

fn keep<T: Clone + PartialEq>(recent: &mut Vec<T>, item: &T, most: usize) {
    if !recent.contains(item) {
        recent.push(item.clone());
        if recent.len() > most {
            recent.remove(0);
        }
    }
}
