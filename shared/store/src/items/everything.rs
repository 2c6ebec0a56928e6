//! The whole table at once, for audits: a scan, never an index.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use domain::balance::Balance;
use domain::ids::PartnerId;
use domain::journal::Sealed;
use domain::line::Line;
use domain::payout::{Page, Payout};
use domain::program::{Partner, Program};
use domain::rules::RuleSet;

use crate::items::balance::balance_of;
use crate::items::journal::StoredEntry;
use crate::items::tally::StoredTally;
use crate::items::tax::TaxYear;
use crate::table::{Attributes, Store, StoreError, read, text_of};

#[derive(Debug, Default)]
pub struct Everything {
    pub programs: Vec<Program>,
    pub rule_sets: Vec<RuleSet>,
    pub partners: Vec<Partner>,
    pub lines: Vec<Line>,
    pub payouts: Vec<Payout>,
    pub pages: Vec<Page>,
    /// By partner and currency, summed over shards.
    pub balances: BTreeMap<(String, String), Balance>,
    pub tallies: Vec<StoredTally>,
    /// What partners were paid, by year.
    pub tax_years: Vec<(i16, TaxYear)>,
    pub entries: Vec<Sealed>,
    /// Items that could not be read, or whose hash does not fit, with the reason.
    pub damaged: Vec<String>,
}

impl Store {
    /// Reads every item there is.
    pub async fn everything(&self) -> Result<Everything, StoreError> {
        let mut all = Everything::default();
        let mut start: Option<Attributes> = None;
        loop {
            let page = self
                .client
                .scan()
                .table_name(&self.table)
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(StoreError::sdk)?;
            self.meter.record_read("audit", page.consumed_capacity.as_slice());
            for item in page.items.unwrap_or_default() {
                let (pk, sk) = (text_of(&item, "pk")?, text_of(&item, "sk")?);
                if let Err(error) = all.sort_in(&pk, &sk, item) {
                    all.damaged.push(format!("{pk} / {sk}: {error}"));
                }
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(all);
            }
        }
    }
}

impl Everything {
    fn sort_in(&mut self, pk: &str, sk: &str, item: Attributes) -> Result<(), StoreError> {
        match (pk.split('#').next().unwrap_or_default(), sk.split('#').next().unwrap_or_default()) {
            ("PRG", "PRG") => self.programs.push(read(item)?),
            ("PRG", "RUL") => self.rule_sets.push(read(item)?),
            ("PAR", "PAR") => self.partners.push(read(item)?),
            ("PAR", "PAY") => self.payouts.push(read(item)?),
            ("PAR", "BAL") => {
                let shard: HashMap<String, serde_json::Value> = read(item)?;
                let currency = sk.split('#').nth(1).unwrap_or_default().to_owned();
                let partner = pk.trim_start_matches("PAR#").to_owned();
                self.balances.entry((partner, currency)).or_default().apply(&balance_of(&shard)?)?;
            }
            ("PAY", "PAG") => self.pages.push(read(item)?),
            ("PAR" | "PRG", "TLY") => self.tallies.push(read(item)?),
            ("TAX", partner) if partner.starts_with(PartnerId::PREFIX) => {
                let year = pk.split('#').nth(1).and_then(|year| year.parse().ok());
                let year = year.ok_or_else(|| StoreError::corrupt("it names no year"))?;
                self.tax_years.push((year, read(item)?));
            }
            ("LIN", _) => self.lines.push(read(item)?),
            ("JRN", _) => self.entries.push(read::<StoredEntry>(item)?.open()?),
            _ => {}
        }
        Ok(())
    }
}
