//! Payout runs: planned page by page, one frozen decision per partner.

use domain::ids::{PartnerId, PayoutId, ProgramId, RunId};
use domain::money::{Minor, Money};
use domain::program::MethodKind;
use domain::selection::CarriedBecause;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::keys::{DECISIONS, Key, Place, UNFINISHED_RUNS, run_partition, runs_list, sortable};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub id: RunId,
    pub program: ProgramId,
    /// The schedule's frequency, `manual` or `on_demand`.
    pub kind: String,
    /// The run date, the idempotency key or, for an instant run, the line: with the kind, what makes the run the same run.
    pub period: String,
    pub planned_at: Timestamp,
    pub cut_off: Timestamp,
    /// Whether lines due at the cut-off itself are within: yes for runs "as of now", no for scheduled ones.
    pub cut_off_inclusive: bool,
    /// When it was planned: earnings that became payable later wait for the next. `None` for a run about one partner, which is planned as it
    /// is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payable_by: Option<Timestamp>,
    /// When its payouts are to be paid, where the program's schedule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay_on: Option<Date>,
    pub created_by: String,
    #[serde(flatten)]
    pub progress: RunProgress,
    /// Partners to whom a message was sent so far, at least: somebody who planned the same run beside may have seen a fresher index.
    pub asked: u32,
    /// It is about one partner, and written together with the decision: on demand, and instant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_one: bool,
    /// Only these partners, where any are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<PartnerId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<PartnerId>,
    /// What a partner's payout was asked to be, for a run on demand.
    #[serde(default)]
    pub request: PayoutRequest,
    pub changes: u32,
}

/// What an on-demand request asks for beyond the usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PayoutRequest {
    /// At most this much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Minor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodKind>,
    /// Why it may be below the minimum payout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_minimum: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunProgress {
    /// Partners are being asked; the list goes on after this position.
    Planning { after: Option<String> },
    /// Every partner has been asked, since then; and those who had not decided yet once more, if they were.
    Planned {
        at: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<Timestamp>,
    },
    /// Every partner who was asked has a decision, and every payout is drafted; or too long has passed to wait for the rest.
    Completed { at: Timestamp, summary: RunSummary },
}

/// What a run decided, in numbers. Amounts are in the program's currency and after tax, as drafted: what becomes of a payout later does not
/// change them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    pub payouts: u32,
    pub amount: Minor,
    /// Payouts whose lines are still being claimed.
    pub drafting: u32,
    pub carried: Vec<CarriedSum>,
    /// Partners about whom deciding failed so far.
    #[serde(default)]
    pub failed: u32,
}

/// Those who were carried for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedSum {
    pub because: CarriedBecause,
    pub partners: u32,
    pub payable: Minor,
}

impl RunSummary {
    /// Partners who have a decision, which a failure is not.
    pub fn decided(&self) -> u32 {
        self.payouts + self.carried.iter().map(|carried| carried.partners).sum::<u32>()
    }

    pub fn add(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        match outcome {
            Outcome::Payout { amount, drafting, .. } => {
                self.payouts += 1;
                self.drafting += u32::from(*drafting);
                self.amount = self.amount.plus(amount.amount)?;
            }
            Outcome::Failed { .. } => self.failed += 1,
            Outcome::Carried { because, payable, .. } => {
                let at = self.carried.iter().position(|carried| carried.because == *because);
                let none = CarriedSum { because: *because, partners: 0, payable: Minor::ZERO };
                let mut sum = at.map_or(none, |at| self.carried.swap_remove(at));
                sum.partners += 1;
                sum.payable = sum.payable.plus(payable.amount)?;
                self.carried.push(sum);
                self.carried.sort_by_key(|carried| carried.because);
            }
        }
        Ok(())
    }
}

impl Item for Run {
    fn key(&self) -> Key {
        Key::run(&self.id)
    }

    fn revision(&self) -> u32 {
        self.changes
    }

    fn list_place(&self) -> Option<Place> {
        Some(Place::new(runs_list(&self.program), run_position(self)))
    }

    fn work_place(&self) -> Option<Place> {
        let unfinished = !self.of_one && !matches!(self.progress, RunProgress::Completed { .. });
        unfinished.then(|| Place::new(UNFINISHED_RUNS, self.id.as_str()))
    }
}

/// Where a run stands in the list of its program's runs.
pub fn run_position(run: &Run) -> String {
    format!("{}#{}", sortable(run.planned_at), run.id)
}

/// What a run decided about one partner. Written once: lines that become payable later wait for the next run. Only a failure is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    pub run: RunId,
    pub partner: PartnerId,
    #[serde(flatten)]
    pub outcome: Outcome,
    pub at: Timestamp,
    /// How often deciding failed before, with this time if it did.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub failures: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_none_yet(failures: &u32) -> bool {
    *failures == 0
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The identity of the payout, fixed before its first line is claimed, and what it comes to after tax: as decided while it is drafted,
    /// then as drafted.
    Payout {
        payout: PayoutId,
        amount: Money,
        /// Its lines are still being claimed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        drafting: bool,
    },
    /// Nothing is paid this time; everything stays as it is.
    Carried {
        because: CarriedBecause,
        payable: Money,
        /// The draft that was given up, because too little was left of it when its turn came.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payout: Option<PayoutId>,
    },
    /// It could not be decided. Whoever asks again decides.
    Failed { why: String },
}

impl Outcome {
    pub const fn is_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

impl Item for Decision {
    fn key(&self) -> Key {
        Key::decision(&self.run, &self.partner)
    }

    fn revision(&self) -> u32 {
        self.failures
    }
}

impl Transaction {
    /// Fails if the run exists: the same schedule fired twice.
    pub fn create_run(&mut self, run: &Run) -> Result<(), StoreError> {
        self.create(run)
    }

    pub fn replace_run(&mut self, run: &Run, read: &Run) -> Result<(), StoreError> {
        self.replace(run, read.changes)
    }

    /// Fails if the run decided about the partner already, or failed to again. `failed` is the failure that was read.
    pub fn decide(&mut self, decision: &Decision, failed: Option<&Decision>) -> Result<(), StoreError> {
        match failed {
            None => self.create(decision),
            Some(failed) => self.replace(decision, failed.failures),
        }
    }

    /// Notes that the lines of a decided payout are claimed. Written only together with the payout, whose revision guards it.
    pub fn conclude(&mut self, decision: &Decision) -> Result<(), StoreError> {
        self.write(decision)
    }
}

impl Store {
    pub async fn run(&self, operation: &'static str, id: &RunId) -> Result<Option<Run>, StoreError> {
        self.get(operation, &Key::run(id)).await
    }

    /// Newest first.
    pub async fn runs(
        &self,
        operation: &'static str,
        program: &ProgramId,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Run>, StoreError> {
        let range = Range { after, order: Order::Backward, limit: Some(limit), ..Range::all(runs_list(program)) };
        let keys = self.list(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    /// Runs that are not completed.
    pub async fn unfinished_runs(
        &self,
        operation: &'static str,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<Run>, StoreError> {
        let range = Range { after, limit: Some(limit), ..Range::all(UNFINISHED_RUNS.to_owned()) };
        let keys = self.work(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    pub async fn decision(
        &self,
        operation: &'static str,
        run: &RunId,
        partner: &PartnerId,
    ) -> Result<Option<Decision>, StoreError> {
        self.get(operation, &Key::decision(run, partner)).await
    }

    /// The decisions of these runs about these partners, in this order, as far as there are any.
    pub async fn decisions_about<'a>(
        &self,
        operation: &'static str,
        about: impl IntoIterator<Item = (&'a RunId, &'a PartnerId)>,
    ) -> Result<Vec<Decision>, StoreError> {
        let keys: Vec<_> = about.into_iter().map(|(run, partner)| Key::decision(run, partner)).collect();
        self.get_many(operation, &keys).await
    }

    /// By partner.
    pub async fn decisions(
        &self,
        operation: &'static str,
        run: &RunId,
        after: Option<&str>,
        limit: Option<i32>,
    ) -> Result<Listing<Decision>, StoreError> {
        let range = Range { after, limit, ..Range::prefix(run_partition(run), DECISIONS) };
        self.query(operation, range).await
    }
}
