//! Payout runs: planned page by page, one frozen decision per partner.

use domain::ids::{PartnerId, PayoutId, ProgramId, RunId};
use domain::money::{Minor, Money};
use domain::program::MethodKind;
use domain::selection::CarriedBecause;
use jiff::Timestamp;
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
    /// The run date or the idempotency key: with the kind, what makes the run the same run.
    pub period: String,
    pub planned_at: Timestamp,
    pub cut_off: Timestamp,
    /// Whether lines due at the cut-off itself are within: yes for runs "as of now", no for scheduled ones.
    pub cut_off_inclusive: bool,
    pub created_by: String,
    #[serde(flatten)]
    pub progress: RunProgress,
    /// Partners to whom a message was sent so far, at least: somebody who planned the same run beside may have seen a fresher index.
    pub asked: u32,
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
    /// Every partner has been asked.
    Planned,
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
        let planning = matches!(self.progress, RunProgress::Planning { .. });
        planning.then(|| Place::new(UNFINISHED_RUNS, self.id.as_str()))
    }
}

/// Where a run stands in the list of its program's runs.
pub fn run_position(run: &Run) -> String {
    format!("{}#{}", sortable(run.planned_at), run.id)
}

/// What a run decided about one partner. Written once: lines that become payable later wait for the next run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    pub run: RunId,
    pub partner: PartnerId,
    #[serde(flatten)]
    pub outcome: Outcome,
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The identity of the payout, fixed before its first line is claimed.
    Payout { payout: PayoutId },
    /// Nothing is paid this time; everything stays as it is.
    Carried { because: CarriedBecause, payable: Money },
}

impl Item for Decision {
    fn key(&self) -> Key {
        Key::decision(&self.run, &self.partner)
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

    /// Fails if the run decided about the partner already.
    pub fn decide(&mut self, decision: &Decision) -> Result<(), StoreError> {
        self.create(decision)
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

    /// Runs whose planning has not ended.
    pub async fn unfinished_runs(&self, operation: &'static str) -> Result<Vec<Run>, StoreError> {
        let keys = self.work(operation, Range::all(UNFINISHED_RUNS.to_owned())).await?;
        self.get_many(operation, &keys.items).await
    }

    pub async fn decision(
        &self,
        operation: &'static str,
        run: &RunId,
        partner: &PartnerId,
    ) -> Result<Option<Decision>, StoreError> {
        self.get(operation, &Key::decision(run, partner)).await
    }

    /// What these runs decided about one partner, in their order; those that did not are left out.
    pub async fn decisions_about(
        &self,
        operation: &'static str,
        partner: &PartnerId,
        runs: &[Run],
    ) -> Result<Vec<Decision>, StoreError> {
        let keys: Vec<_> = runs.iter().map(|run| Key::decision(&run.id, partner)).collect();
        self.get_many(operation, &keys).await
    }

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
