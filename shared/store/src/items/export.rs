//! Export batches: the payouts that went out in files together, and the rows of those files, word for word.
//!
//! A row is kept as the cells that were written, so that a file comes out the same however partners, or the code that
//! makes rows, may have changed since.

use std::fmt;

use domain::ids::{ExportId, PayoutId, ProgramId};
use domain::money::Currency;
use domain::remittance::{RemittanceFormat, Unfit};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::items::payouts::UnpaidPosition;
use crate::keys::{Key, PAGES, Place, UNFINISHED_EXPORTS, export_partition, exports_list, sortable};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    pub id: ExportId,
    pub program: ProgramId,
    pub format: RemittanceFormat,
    pub whose: Whose,
    pub created_at: Timestamp,
    pub created_by: String,
    #[serde(flatten)]
    pub progress: ExportProgress,
    /// Pages written so far; they are numbered from 0.
    pub pages: u32,
    /// Pages from which something went out: each has an entry.
    pub entries: u32,
    pub payouts: u32,
    pub left_out: u32,
    pub files: Vec<ExportFile>,
    pub changes: u32,
}

/// Whose payouts an export takes, of those whose payment type is that of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    All,
    /// Only of partners who prefer this payment type.
    Preferred,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ExportProgress {
    /// Goes on after this position.
    Gathering {
        after: UnpaidPosition,
    },
    Complete,
}

/// Where the rows of one file begin: on which page, after how many rows of its kind there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportFile {
    /// The only currency in it; `None` where a file may hold several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    pub page: u32,
    pub skip: u32,
    pub rows: u32,
}

/// What was looked at together: the rows of those that went out, the reasons of those that did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportPage {
    pub export: ExportId,
    pub number: u32,
    pub rows: Vec<ExportRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRow {
    pub payout: PayoutId,
    pub currency: Currency,
    pub cells: Vec<String>,
}

/// The cells tell where money goes, which is for no log.
impl fmt::Debug for ExportRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportRow").field("payout", &self.payout).finish_non_exhaustive()
    }
}

/// A payout that would have fitted and was not taken: it stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub payout: PayoutId,
    pub because: LeftOutBecause,
    pub detail: String,
}

/// Stable; clients may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutBecause {
    /// A check before submitting does not pass: partner, destination, cooling-off, tax.
    MayNotSubmit,
    UnsafeText,
    Currency,
    Fraction,
    Venmo,
    NoRecipient,
}

impl From<Unfit> for LeftOutBecause {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::UnsafeText => Self::UnsafeText,
            Unfit::Currency => Self::Currency,
            Unfit::Fraction => Self::Fraction,
            Unfit::Venmo => Self::Venmo,
            Unfit::NoRecipient => Self::NoRecipient,
        }
    }
}

impl Export {
    /// Takes a page's rows into the files: each goes to the last file of its kind, or to a new one where that is full.
    pub fn take_in(&mut self, page: &ExportPage) {
        let mut before: Vec<(Option<Currency>, u32)> = Vec::new();
        for row in &page.rows {
            let kind = self.format.is_of_one_currency().then_some(row.currency);
            let at = before.iter().position(|(of, _)| *of == kind).unwrap_or_else(|| {
                before.push((kind, 0));
                before.len() - 1
            });
            let skip = before.get(at).map_or(0, |(_, count)| *count);
            let last = self.files.iter_mut().rev().find(|file| file.currency == kind);
            match last.filter(|file| file.rows < self.format.max_rows()) {
                Some(file) => file.rows += 1,
                None => self.files.push(ExportFile { currency: kind, page: page.number, skip, rows: 1 }),
            }
            if let Some((_, count)) = before.get_mut(at) {
                *count += 1;
            }
        }
        self.pages += 1;
        self.entries += u32::from(!page.rows.is_empty());
        self.payouts += u32::try_from(page.rows.len()).unwrap_or(u32::MAX);
        self.left_out += u32::try_from(page.left_out.len()).unwrap_or(u32::MAX);
    }
}

impl Item for Export {
    fn key(&self) -> Key {
        Key::export(&self.id)
    }

    fn revision(&self) -> u32 {
        self.changes
    }

    fn list_place(&self) -> Option<Place> {
        Some(Place::new(exports_list(&self.program), format!("{}#{}", sortable(self.created_at), self.id)))
    }

    fn work_place(&self) -> Option<Place> {
        let gathering = matches!(self.progress, ExportProgress::Gathering { .. });
        gathering.then(|| Place::new(UNFINISHED_EXPORTS, self.id.as_str()))
    }
}

impl Item for ExportPage {
    fn key(&self) -> Key {
        Key::export_page(&self.export, self.number)
    }
}

impl Transaction {
    /// Fails if it exists: the same was asked twice.
    pub fn create_export(&mut self, export: &Export) -> Result<(), StoreError> {
        self.create(export)
    }

    pub fn replace_export(&mut self, export: &Export, read: &Export) -> Result<(), StoreError> {
        self.replace(export, read.changes)
    }

    /// Fails if the page was written: pages are written once.
    pub fn create_export_page(&mut self, page: &ExportPage) -> Result<(), StoreError> {
        self.create(page)
    }
}

impl Store {
    pub async fn export(&self, operation: &'static str, id: &ExportId) -> Result<Option<Export>, StoreError> {
        self.get(operation, &Key::export(id)).await
    }

    /// Newest first.
    pub async fn exports(
        &self,
        operation: &'static str,
        program: &ProgramId,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Export>, StoreError> {
        let range = Range { after, order: Order::Backward, limit: Some(limit), ..Range::all(exports_list(program)) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    /// Those that are still being gathered.
    pub async fn unfinished_exports(&self, operation: &'static str) -> Result<Vec<Export>, StoreError> {
        let keys = self.work(operation, Range::all(UNFINISHED_EXPORTS.to_owned())).await?;
        self.get_many(operation, &keys.items).await
    }

    /// Some pages, in order, from this number on.
    pub async fn export_pages(
        &self,
        operation: &'static str,
        id: &ExportId,
        from: u32,
        limit: i32,
    ) -> Result<Vec<ExportPage>, StoreError> {
        let before = from.checked_sub(1).map(|last| Key::export_page(id, last).sk);
        let range =
            Range { after: before.as_deref(), limit: Some(limit), ..Range::prefix(export_partition(id), PAGES) };
        Ok(self.query(operation, range).await?.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(format: RemittanceFormat) -> Export {
        let program = ProgramId::from_uuid(1);
        Export {
            id: ExportId::derive(&program, format.as_str(), "key"),
            program,
            format,
            whose: Whose::All,
            created_at: Timestamp::UNIX_EPOCH,
            created_by: "fay".into(),
            progress: ExportProgress::Complete,
            pages: 0,
            entries: 0,
            payouts: 0,
            left_out: 0,
            files: vec![],
            changes: 1,
        }
    }

    fn page(number: u32, currencies: &[&str]) -> ExportPage {
        let export = export(RemittanceFormat::Paypal).id;
        let run = domain::ids::RunId::derive(&ProgramId::from_uuid(1), "manual", "1");
        let payout = PayoutId::derive(&run, &domain::ids::PartnerId::from_uuid(2), Timestamp::UNIX_EPOCH);
        let row =
            |currency: &&str| ExportRow { payout: payout.clone(), currency: currency.parse().unwrap(), cells: vec![] };
        ExportPage { export, number, rows: currencies.iter().map(row).collect(), left_out: vec![] }
    }

    #[test]
    fn files_end_where_they_are_full_and_hold_one_currency_where_they_must() {
        let mut paypal = export(RemittanceFormat::Paypal);
        paypal.take_in(&page(0, &["USD", "EUR", "USD"]));
        for number in 1..=112 {
            paypal.take_in(&page(number, &["USD"; 45]));
        }
        paypal.take_in(&page(113, &["EUR"]));
        let usd = "USD".parse().ok();
        let files = [
            ExportFile { currency: usd, page: 0, skip: 0, rows: 5_000 },
            ExportFile { currency: "EUR".parse().ok(), page: 0, skip: 0, rows: 2 },
            // Two rows of page 0, 111 full pages and three rows of page 112 fill the first.
            ExportFile { currency: usd, page: 112, skip: 3, rows: 42 },
        ];
        assert_eq!((paypal.pages, paypal.payouts), (114, 3 + 112 * 45 + 1));
        assert_eq!(paypal.files, files);
        let mut wise = export(RemittanceFormat::Wise);
        wise.take_in(&page(0, &["USD", "EUR"]));
        assert_eq!(wise.files, [ExportFile { currency: None, page: 0, skip: 0, rows: 2 }]);
    }

    #[test]
    fn a_page_from_which_nothing_went_out_takes_no_place_among_the_entries() {
        let mut bank = export(RemittanceFormat::Bank);
        let entries = [(0, &["USD"][..]), (1, &[]), (2, &["USD"])].map(|(number, rows)| {
            bank.take_in(&page(number, rows));
            bank.entries
        });
        assert_eq!((entries, bank.pages), ([1, 1, 2], 3));
    }

    #[test]
    fn a_row_does_not_show_where_money_goes() {
        let mut page = page(0, &["USD"]);
        page.rows[0].cells = vec!["pay@partner.example".into()];
        assert!(!format!("{page:?}").contains("partner.example"));
    }
}
