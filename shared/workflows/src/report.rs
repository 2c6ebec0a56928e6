//! What a run decided: every decision is read, and none is kept but the first few.

use std::collections::BTreeMap;

use domain::ids::{PartnerId, PayoutId, RunId};
use domain::money::{Currency, Money};
use domain::selection::CarriedBecause;
use jiff::Timestamp;
use store::{Decision, Listing, Outcome, Run, RunProgress, RunSummary};

use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "report run";
/// Payouts, and carried partners, that a report names; the numbers are of all.
pub const MAX_NAMED: usize = 1_000;

/// A run with what it decided so far.
#[derive(Debug, Clone)]
pub struct Report {
    pub run: Run,
    pub state: &'static str,
    pub currency: Currency,
    pub summary: RunSummary,
    /// At most [`MAX_NAMED`] of each.
    pub payouts: Vec<(PayoutId, Money)>,
    pub carried: Vec<Carried>,
    pub failed: Vec<Failed>,
}

/// A partner about whom the run could not decide so far.
#[derive(Debug, Clone)]
pub struct Failed {
    pub partner: PartnerId,
    /// What went wrong the last time.
    pub why: String,
    pub at: Timestamp,
}

/// A partner who is not paid this time.
#[derive(Debug, Clone)]
pub struct Carried {
    pub partner: PartnerId,
    pub because: CarriedBecause,
    /// What stays payable.
    pub payable: Money,
}

impl Report {
    /// Partners who were asked, and of whom nothing was heard yet: their message is on its way, or was lost.
    pub fn undecided(&self) -> u32 {
        self.run.asked.saturating_sub(self.summary.decided()).saturating_sub(self.summary.failed)
    }
}

/// Folds a run's decisions, however many they are, and shows each on the way.
pub(crate) async fn summarize(context: &Context, id: &RunId, mut seen: impl FnMut(Decision)) -> Result<RunSummary> {
    let mut summary = RunSummary::default();
    let mut after: Option<String> = None;
    loop {
        let page = context.store.decisions(OPERATION, id, after.as_deref(), None).await?;
        for decision in page.items {
            summary.add(&decision.outcome)?;
            seen(decision);
        }
        after = page.after;
        if after.is_none() {
            return Ok(summary);
        }
    }
}

pub(crate) fn is_whole(run: &Run, summary: &RunSummary) -> bool {
    summary.decided() >= run.asked && summary.drafting == 0
}

/// The whole report. It reads every decision.
pub async fn report(context: &Context, id: &RunId) -> Result<Report> {
    let run = context.store.run(OPERATION, id).await?.ok_or(Refusal::NotFound("run"))?;
    let (mut payouts, mut carried, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let summary = summarize(context, id, |decision| match decision.outcome {
        Outcome::Payout { payout, amount, .. } if payouts.len() < MAX_NAMED => payouts.push((payout, amount)),
        Outcome::Carried { because, payable, .. } if carried.len() < MAX_NAMED => {
            carried.push(Carried { partner: decision.partner, because, payable });
        }
        Outcome::Failed { why } if failed.len() < MAX_NAMED => {
            failed.push(Failed { partner: decision.partner, why, at: decision.at });
        }
        _ => {}
    })
    .await?;
    Ok(Report { payouts, carried, failed, ..in_numbers(context, run, summary).await? })
}

/// A report that names nobody. Of a completed run, no decision is read.
pub async fn report_in_numbers(context: &Context, run: Run) -> Result<Report> {
    let summary = match &run.progress {
        RunProgress::Completed { summary, .. } if is_whole(&run, summary) => summary.clone(),
        _ => summarize(context, &run.id, |_| {}).await?,
    };
    in_numbers(context, run, summary).await
}

async fn in_numbers(context: &Context, mut run: Run, summary: RunSummary) -> Result<Report> {
    let program = context.store.program(OPERATION, &run.program).await?.ok_or(Refusal::NotFound("program"))?;
    let state = match run.progress {
        RunProgress::Planning { .. } => "planning",
        _ if is_whole(&run, &summary) => "completed",
        RunProgress::Planned { .. } => "drafting",
        RunProgress::Completed { .. } => "incomplete",
    };
    // Of two that planned it side by side, the one that saw less of the index may have had the last word.
    run.asked = run.asked.max(summary.decided() + summary.failed);
    let (payouts, carried, failed) = (Vec::new(), Vec::new(), Vec::new());
    Ok(Report { run, state, currency: program.currency, summary, payouts, carried, failed })
}

/// A partner whom a run asked and who has no decision.
#[derive(Debug, Clone)]
pub struct Undecided {
    pub partner: PartnerId,
    /// Deciding failed.
    pub failed: bool,
}

/// A page of the partners whom a run asked and who have no decision.
pub async fn undecided(context: &Context, run: &Run, after: Option<&str>, limit: i32) -> Result<Listing<Undecided>> {
    let asked = partners_of(context, run, after, limit).await?;
    let about = asked.items.iter().map(|partner| (&run.id, partner));
    let decided = context.store.decisions_about(OPERATION, about).await?;
    let decided: BTreeMap<_, _> = decided.iter().map(|known| (&known.partner, known.outcome.is_failed())).collect();
    let open = |partner: PartnerId| match decided.get(&partner) {
        Some(false) => None,
        known => Some(Undecided { failed: known.is_some(), partner }),
    };
    Ok(Listing { items: asked.items.into_iter().filter_map(open).collect(), after: asked.after })
}

/// A page of the partners whom a run asks: those who are named, or all who had joined when it was due. So it asks the same ones however
/// late it is planned, and by however many at once.
pub(crate) async fn partners_of(
    context: &Context,
    run: &Run,
    after: Option<&str>,
    limit: i32,
) -> Result<Listing<PartnerId>> {
    if run.include.is_empty() {
        Ok(context.store.partner_ids(OPERATION, &run.program, run.planned_at, after, limit).await?)
    } else {
        Ok(Listing { items: run.include.clone(), after: None })
    }
}
