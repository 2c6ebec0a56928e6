//! Balances, one item per partner, currency and shard, changed in the transaction of what changes them.

use std::collections::HashMap;

use domain::balance::{Balance, Bucket};
use domain::ids::PartnerId;
use domain::line::StateName;
use domain::money::{Currency, Minor};

use crate::keys::{BALANCES, partner_partition};
use crate::table::{Range, Store, StoreError};
use crate::transaction::count_attribute;

impl Store {
    /// The sum over all shards.
    pub async fn balance(
        &self,
        operation: &'static str,
        partner: &PartnerId,
        currency: Currency,
    ) -> Result<Balance, StoreError> {
        let prefix = format!("{BALANCES}{currency}#");
        let range = Range::prefix(partner_partition(partner), &prefix);
        let shards: Vec<HashMap<String, serde_json::Value>> = self.query_all(operation, range).await?;
        let mut balance = Balance::default();
        for shard in shards {
            balance.apply(&balance_of(&shard)?)?;
        }
        Ok(balance)
    }
}

pub(crate) fn balance_of(shard: &HashMap<String, serde_json::Value>) -> Result<Balance, StoreError> {
    let units = |attribute: &str| shard.get(attribute).and_then(serde_json::Value::as_i64).unwrap_or_default();
    let mut balance = Balance::default();
    for bucket in Bucket::ALL {
        balance.add_amount(bucket, Minor::new(units(bucket.as_str()))?)?;
    }
    for state in StateName::ALL {
        balance.add_count(state, units(&count_attribute(state)));
    }
    Ok(balance)
}
