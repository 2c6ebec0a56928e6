//! Tax forms, who gave which tax number, the payer's settings, and what partners were paid in a year.

use domain::ids::PartnerId;
use domain::payout::Payout;
use domain::tax::{Counted, PayeeKey, TaxForm, YearRules, counted};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::{Key, TAX_YEAR_BUCKETS, payee_partition, tax_year_partition};
use crate::table::{Item, Listing, Range, Store, StoreError};
use crate::transaction::Transaction;

impl Item for TaxForm {
    fn key(&self) -> Key {
        Key::tax_form(&self.partner)
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

/// A version that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EarlierForm(TaxForm);

impl Item for EarlierForm {
    fn key(&self) -> Key {
        Key::earlier_tax_form(&self.0.partner, self.0.version)
    }
}

/// That a partner gave a tax number once. Whether they still do, their form says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct GaveNumber {
    payee: PayeeKey,
    partner: PartnerId,
}

impl Item for GaveNumber {
    fn key(&self) -> Key {
        Key::payee(&self.payee, &self.partner)
    }
}

/// Who pays, for all programs that have a payer of taxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Limits and rates that differ from what is published, or are not published yet.
    pub years: Vec<YearRules>,
    /// Counts changes.
    pub version: u32,
    pub changed_at: Timestamp,
    pub changed_by: String,
}

impl Item for Payer {
    fn key(&self) -> Key {
        Key::payer()
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

/// What a partner was paid in a year.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TaxYear {
    #[serde(rename = "sk")]
    pub partner: PartnerId,
    #[serde(flatten)]
    pub counted: Counted,
}

/// How often a payout of the partner was let go by where the partner stands below a limit. Each such payout changes it, so that of two
/// which leave at once the later looks again, and sees the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departures {
    pub partner: PartnerId,
    changes: u32,
}

impl Item for Departures {
    fn key(&self) -> Key {
        Key::departures(&self.partner)
    }

    fn revision(&self) -> u32 {
        self.changes
    }
}

impl Transaction {
    /// Fails if another payout of the partner was let go since this was read.
    pub fn departs(&mut self, read: &Departures) -> Result<(), StoreError> {
        let after = Departures { changes: read.changes + 1, ..read.clone() };
        if read.changes == 0 { self.create(&after) } else { self.replace(&after, read.changes) }
    }

    /// Keeps a form, and the one it replaces. Fails if there is another by now.
    pub fn put_tax_form(&mut self, form: &TaxForm, read: Option<&TaxForm>) -> Result<(), StoreError> {
        match read {
            None => self.create(form)?,
            Some(read) => {
                self.replace(form, read.version)?;
                self.create(&EarlierForm(read.clone()))?;
            }
        }
        if let Some(number) = &form.number {
            self.write(&GaveNumber { payee: number.payee.clone(), partner: form.partner.clone() })?;
        }
        Ok(())
    }

    pub fn put_payer(&mut self, payer: &Payer, read: Option<&Payer>) -> Result<(), StoreError> {
        match read {
            None => self.create(payer),
            Some(read) => self.replace(payer, read.version),
        }
    }

    /// Adds what a payout counts for more, or takes off what it counts for no more, by year.
    pub(crate) fn count_payments(&mut self, payout: &Payout, read: &Payout) -> Result<(), StoreError> {
        if payout.tax_calendar.is_none() {
            return Ok(());
        }
        let mut steps = counted(payout)?;
        for (year, before) in counted(read)? {
            let step = steps.entry(year).or_default();
            *step = step.minus(before)?;
        }
        for (year, step) in steps {
            let Counted { direct, processor, backup, nonresident } = step;
            let sums = [("direct", direct), ("processor", processor), ("backup", backup), ("nonresident", nonresident)];
            let sums = sums.into_iter().filter(|(_, sum)| !sum.is_zero());
            let sums = sums.map(|(name, sum)| (name.to_owned(), sum.units())).collect();
            self.add(Key::tax_year(&payout.partner, year), sums);
        }
        Ok(())
    }
}

impl Store {
    pub async fn tax_form(&self, operation: &'static str, partner: &PartnerId) -> Result<Option<TaxForm>, StoreError> {
        self.get(operation, &Key::tax_form(partner)).await
    }

    /// Those that there are.
    pub async fn tax_forms(&self, operation: &'static str, partners: &[PartnerId]) -> Result<Vec<TaxForm>, StoreError> {
        let keys: Vec<_> = partners.iter().map(Key::tax_form).collect();
        self.get_many(operation, &keys).await
    }

    pub async fn departures(&self, operation: &'static str, partner: &PartnerId) -> Result<Departures, StoreError> {
        let stored = self.get(operation, &Key::departures(partner)).await?;
        Ok(stored.unwrap_or_else(|| Departures { partner: partner.clone(), changes: 0 }))
    }

    pub async fn payer(&self, operation: &'static str) -> Result<Option<Payer>, StoreError> {
        self.get(operation, &Key::payer()).await
    }

    /// Partners who gave this tax number at some time, in the order of their ids.
    pub async fn partners_of_payee(
        &self,
        operation: &'static str,
        payee: &PayeeKey,
    ) -> Result<Vec<PartnerId>, StoreError> {
        let gave: Vec<GaveNumber> = self.query_all(operation, Range::all(payee_partition(payee))).await?;
        Ok(gave.into_iter().map(|gave| gave.partner).collect())
    }

    /// What partners were paid in these years, where it is anything.
    pub async fn tax_years(
        &self,
        operation: &'static str,
        of: &[(PartnerId, i16)],
    ) -> Result<Vec<TaxYear>, StoreError> {
        let keys: Vec<_> = of.iter().map(|(partner, year)| Key::tax_year(partner, *year)).collect();
        self.get_many(operation, &keys).await
    }

    /// Everybody who was paid in a year. `after` is where the page before ended.
    pub async fn paid_in(
        &self,
        operation: &'static str,
        year: i16,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<TaxYear>, StoreError> {
        let bucket_of = |partner: &str| partner.parse().ok().map(|id| Key::tax_year(&id, year));
        let start = after.map(|partner| bucket_of(partner).ok_or_else(|| StoreError::corrupt("no position")));
        let (mut bucket, mut after) = match start.transpose()? {
            None => (0, None),
            Some(key) => {
                let bucket = key.pk.rsplit('#').next().and_then(|bucket| bucket.parse().ok()).unwrap_or(0);
                (bucket, Some(key.sk))
            }
        };
        let mut items: Vec<TaxYear> = Vec::new();
        while bucket < TAX_YEAR_BUCKETS {
            let left = limit - i32::try_from(items.len()).unwrap_or(limit);
            let partition = tax_year_partition(year, bucket);
            let range = Range { after: after.as_deref(), limit: Some(left), ..Range::all(partition) };
            let page: Listing<TaxYear> = self.query(operation, range).await?;
            items.extend(page.items);
            after = page.after;
            if i32::try_from(items.len()).unwrap_or(limit) >= limit {
                break;
            }
            if after.is_none() {
                bucket += 1;
            }
        }
        let more = bucket + 1 < TAX_YEAR_BUCKETS || (bucket < TAX_YEAR_BUCKETS && after.is_some());
        let after = items.last().filter(|_| more).map(|last| last.partner.to_string());
        Ok(Listing { items, after })
    }
}
