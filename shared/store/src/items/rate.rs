//! Exchange rates, by pair and day. What was told of a day stays, since lines are rated by it.

use domain::exchange::ExchangeRate;
use domain::money::Currency;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::keys::{Key, rate_partition};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

/// A rate, and who brought it when.
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
        Key::rate(self.rate.from, self.rate.to, self.rate.date)
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
        from: Currency,
        to: Currency,
        date: Date,
    ) -> Result<Option<ToldRate>, StoreError> {
        self.get(operation, &Key::rate(from, to, date)).await
    }

    /// The last rate of a pair told for this day or an earlier one.
    pub async fn last_rate(
        &self,
        operation: &'static str,
        from: Currency,
        to: Currency,
        date: Date,
    ) -> Result<Option<ToldRate>, StoreError> {
        // Days sort as their text does; nothing sorts between a day and itself with a tilde.
        let up_to = format!("{date}~");
        Ok(self.rates(operation, from, to, Some(&up_to), 1).await?.items.into_iter().next())
    }

    /// The rates of a pair, the latest first.
    pub async fn rates(
        &self,
        operation: &'static str,
        from: Currency,
        to: Currency,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<ToldRate>, StoreError> {
        let range = Range { after, order: Order::Backward, limit: Some(limit), ..Range::all(rate_partition(from, to)) };
        self.query(operation, range).await
    }
}
