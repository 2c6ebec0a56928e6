//! Exchange rates: those of one day together, so that whatever can be derived from them is found in one read. What was told stays, since
//! commissions are rated by it.

use domain::exchange::ExchangeRate;
use domain::money::Currency;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::keys::{Key, Place, rates_list, rates_partition};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

/// A rate, and who told it when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldRate {
    #[serde(flatten)]
    pub rate: ExchangeRate,
    pub told_by: String,
    pub told_at: Timestamp,
}

impl Item for ToldRate {
    fn key(&self) -> Key {
        Key::rate(self.rate.date, self.rate.from, self.rate.to)
    }

    fn list_place(&self) -> Option<Place> {
        Some(Place::new(rates_list(self.rate.from, self.rate.to), self.rate.date.to_string()))
    }
}

impl Transaction {
    /// Fails if a rate of this pair was told for this day.
    pub fn create_rate(&mut self, rate: &ToldRate) -> Result<(), StoreError> {
        self.create(rate)
    }
}

impl Store {
    pub async fn rate(
        &self,
        operation: &'static str,
        date: Date,
        from: Currency,
        to: Currency,
    ) -> Result<Option<ToldRate>, StoreError> {
        self.get(operation, &Key::rate(date, from, to)).await
    }

    /// Everything that was told for a day, by pair.
    pub async fn rates_of_day(&self, operation: &'static str, date: Date) -> Result<Vec<ToldRate>, StoreError> {
        self.query_all(operation, Range::all(rates_partition(date))).await
    }

    /// The same, page by page.
    pub async fn rates_page(
        &self,
        operation: &'static str,
        date: Date,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<ToldRate>, StoreError> {
        self.query(operation, Range { after, limit: Some(limit), ..Range::all(rates_partition(date)) }).await
    }

    /// What was told of a pair, the latest day first.
    pub async fn rates_of_pair(
        &self,
        operation: &'static str,
        from: Currency,
        to: Currency,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<ToldRate>, StoreError> {
        let range = Range { after, order: Order::Backward, limit: Some(limit), ..Range::all(rates_list(from, to)) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }
}
