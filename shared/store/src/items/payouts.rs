//! Payouts, their pages of lines, and the lock that keeps a partner to one draft at a time.

use domain::ids::{LineId, PartnerId, PayoutId, ProgramId};
use domain::money::Currency;
use domain::payout::{Page, Payout, PayoutState};
use domain::program::MethodKind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::{
    Key, PAGES, PAYOUT_BUCKETS, PAYOUTS, PLANS, Place, page_partition, partner_partition, payouts_list, sortable,
    unfinished_partition, unfinished_place, unpaid_partition, unpaid_place,
};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

impl Item for Payout {
    fn key(&self) -> Key {
        Key::payout(&self.id)
    }

    fn revision(&self) -> u32 {
        self.entries
    }

    fn list_place(&self) -> Option<Place> {
        Some(Place::new(payouts_list(&self.program), format!("{}#{}", sortable(self.created_at), self.id)))
    }

    fn work_place(&self) -> Option<Place> {
        let on_its_way_again = self.state == PayoutState::Submitting && self.method != MethodKind::Quickbooks;
        if self.state == PayoutState::Drafting || on_its_way_again || self.settling.is_some() {
            return Some(unfinished_place(self));
        }
        is_unpaid(self).then(|| unpaid_place(self))
    }
}

/// Whether money is still to be sent for it, or was sent and did not arrive.
const fn is_unpaid(payout: &Payout) -> bool {
    use PayoutState::{Cancelled, Drafting, Paid, Void};
    !matches!(payout.state, Drafting | Paid | Cancelled | Void)
}

impl Item for Page {
    fn key(&self) -> Key {
        Key::page(&self.payout, self.number)
    }
}

/// The lines a payout was decided to claim, when they are more than one page: frozen, so that whatever becomes payable later
/// waits for the next run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub payout: PayoutId,
    pub number: u32,
    /// What follows the partner in the lines' ids.
    lines: Vec<String>,
}

/// Lines in one plan item: some 40 kB.
const PLAN_LINES: usize = 2_000;

impl Item for Plan {
    fn key(&self) -> Key {
        Key::plan(&self.payout, self.number)
    }
}

/// Held while a payout of the partner is drafted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftLock {
    pub partner: PartnerId,
    pub currency: Currency,
    pub payout: PayoutId,
}

impl Item for DraftLock {
    fn key(&self) -> Key {
        Key::draft_lock(&self.partner, self.currency)
    }
}

/// Where reading all that wait to be paid goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpaidPosition {
    bucket: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

impl Transaction {
    pub fn create_payout(&mut self, payout: &Payout) -> Result<(), StoreError> {
        self.create(payout)
    }

    /// Fails unless nothing happened to the payout since it was read.
    /// What it counts for in the payer's years follows in the same transaction.
    pub fn replace_payout(&mut self, payout: &Payout, read: &Payout) -> Result<(), StoreError> {
        self.replace(payout, read.entries)?;
        self.count_payments(payout, read)
    }

    /// Fails if anything happened to the payout since it was read: it is put as it stands.
    pub fn unless_changed(&mut self, payout: &Payout) -> Result<(), StoreError> {
        self.replace(payout, payout.entries)
    }

    /// Pages are written only together with their payout, whose revision guards them.
    pub fn write_page(&mut self, page: &Page) -> Result<(), StoreError> {
        self.write(page)
    }

    /// Freezes which lines the payout claims.
    pub fn plan(&mut self, payout: &PayoutId, lines: &[LineId]) -> Result<(), StoreError> {
        for (number, lines) in (0..).zip(lines.chunks(PLAN_LINES)) {
            let lines = lines.iter().map(|line| line.within_partner().to_owned()).collect();
            self.create(&Plan { payout: payout.clone(), number, lines })?;
        }
        Ok(())
    }

    /// Fails if the partner has a draft already.
    pub fn lock_draft(&mut self, payout: &Payout) -> Result<(), StoreError> {
        self.create(&DraftLock {
            partner: payout.partner.clone(),
            currency: payout.currency,
            payout: payout.id.clone(),
        })
    }

    pub fn unlock_draft(&mut self, payout: &Payout) {
        self.delete_if(Key::draft_lock(&payout.partner, payout.currency), "payout", payout.id.as_str());
    }
}

impl Store {
    pub async fn payout(&self, operation: &'static str, id: &PayoutId) -> Result<Option<Payout>, StoreError> {
        self.get(operation, &Key::payout(id)).await
    }

    /// In the order of the ids; those that do not exist are left out.
    pub async fn payouts(&self, operation: &'static str, ids: &[PayoutId]) -> Result<Vec<Payout>, StoreError> {
        let keys: Vec<_> = ids.iter().map(Key::payout).collect();
        self.get_many(operation, &keys).await
    }

    pub async fn pages(&self, operation: &'static str, payout: &PayoutId) -> Result<Vec<Page>, StoreError> {
        self.query_all(operation, Range::prefix(page_partition(payout), PAGES)).await
    }

    pub async fn page(
        &self,
        operation: &'static str,
        payout: &PayoutId,
        number: u32,
    ) -> Result<Option<Page>, StoreError> {
        self.get(operation, &Key::page(payout, number)).await
    }

    /// The lines a payout was decided to claim, in that order; empty where one page holds them all.
    pub async fn planned_lines(&self, operation: &'static str, payout: &PayoutId) -> Result<Vec<LineId>, StoreError> {
        let plans: Vec<Plan> = self.query_all(operation, Range::prefix(page_partition(payout), PLANS)).await?;
        let partner = payout.partner();
        let lines = plans.into_iter().flat_map(|plan| plan.lines);
        lines.map(|line| LineId::of_partner(&partner, &line).map_err(StoreError::corrupt)).collect()
    }

    pub async fn draft_lock(
        &self,
        operation: &'static str,
        partner: &PartnerId,
        currency: Currency,
    ) -> Result<Option<DraftLock>, StoreError> {
        self.get(operation, &Key::draft_lock(partner, currency)).await
    }

    pub fn payout_buckets() -> impl Iterator<Item = u8> {
        0..PAYOUT_BUCKETS
    }

    /// Payouts of one bucket that are drafting, whose lines have not all followed them, or that people are to send once
    /// more.
    pub async fn unfinished_payouts(
        &self,
        operation: &'static str,
        bucket: u8,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Payout>, StoreError> {
        let range = Range { after, limit: Some(limit), ..Range::all(unfinished_partition(bucket)) };
        let keys = self.work(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    /// Since when the payout waits that has been waiting longest to be paid.
    pub async fn unpaid_since(&self, operation: &'static str) -> Result<Option<Timestamp>, StoreError> {
        let mut oldest = Vec::new();
        for bucket in Self::payout_buckets() {
            let range = Range { limit: Some(1), ..Range::all(unpaid_partition(bucket)) };
            oldest.extend(self.work(operation, range).await?.items);
        }
        let payouts: Vec<Payout> = self.get_many(operation, &oldest).await?;
        Ok(payouts.iter().filter(|payout| is_unpaid(payout)).map(|payout| payout.created_at).min())
    }

    /// At most `limit` payouts that wait to be paid, of any program, in an order that stays. They are read from the table; a draft closed a
    /// moment ago may be missing.
    pub async fn unpaid_payouts(
        &self,
        operation: &'static str,
        after: &UnpaidPosition,
        limit: i32,
    ) -> Result<(Vec<Payout>, Option<UnpaidPosition>), StoreError> {
        let range =
            Range { after: after.after.as_deref(), limit: Some(limit), ..Range::all(unpaid_partition(after.bucket)) };
        let keys = self.work(operation, range).await?;
        let mut payouts: Vec<Payout> = self.get_many(operation, &keys.items).await?;
        payouts.retain(is_unpaid);
        let next = match keys.after {
            Some(last) => Some(UnpaidPosition { bucket: after.bucket, after: Some(last) }),
            None if after.bucket + 1 < PAYOUT_BUCKETS => Some(UnpaidPosition { bucket: after.bucket + 1, after: None }),
            None => None,
        };
        Ok((payouts, next))
    }

    /// Newest first.
    pub async fn partner_payouts(
        &self,
        operation: &'static str,
        partner: &PartnerId,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Payout>, StoreError> {
        let range = Range {
            after,
            order: Order::Backward,
            limit: Some(limit),
            ..Range::prefix(partner_partition(partner), PAYOUTS)
        };
        self.query(operation, range).await
    }

    /// Newest first.
    pub async fn program_payouts(
        &self,
        operation: &'static str,
        program: &ProgramId,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Payout>, StoreError> {
        let range = Range { after, order: Order::Backward, limit: Some(limit), ..Range::all(payouts_list(program)) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }
}
