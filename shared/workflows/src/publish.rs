//! Domain events, made from journal entries and completed runs, and put on the bus. The stream delivers at least once; an event's id is
//! derived from its entry or run, so consumers can tell.

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::error::ProvideErrorMetadata;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use domain::ids::Hash;
use domain::journal::{Entry, LineChange, PayoutChange, What};
use domain::line::StateName;
use domain::money::Money;
use domain::payout::PayoutState;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Run, RunProgress};

use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "publish";
/// Events in one call, by `EventBridge`'s own limit.
const BATCH: usize = 10;
pub const EVENT_SOURCE: &str = "partner-payouts";

#[derive(Debug, Clone)]
pub struct Bus {
    pub events: Client,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DomainEvent {
    /// Like `commission.approved`.
    pub kind: &'static str,
    pub detail: Value,
}

/// What an entry tells the world.
pub fn events_of(entry: &Entry, hash: &str) -> Vec<DomainEvent> {
    let common = |id: &str, kind: &str| {
        json!({
            "id": event_id(&format!("{hash}/{id}/{kind}")),
            "at": entry.at, "by": entry.by, "why": entry.why,
        })
    };
    let lines = entry.lines.iter().filter_map(|line| {
        // What becomes of the tax of a payout is told with the payout.
        let kind = if entry.tax_of(&line.id).is_some() { None } else { line_event(entry.what, line) }?;
        let mut detail = common(line.id.as_str(), kind);
        detail["commission"] = json!({
            "id": line.id, "partnerId": line.id.partner(), "state": line.to.state,
            "amountMinor": line.to.amount, "netMinor": line.to.net,
        });
        Some(DomainEvent { kind, detail })
    });
    let payouts = entry.payouts.iter().filter_map(|payout| {
        let kind = payout_event(entry.what, payout)?;
        let mut detail = common(payout.id.as_str(), kind);
        detail["payout"] = json!({
            "id": payout.id, "partnerId": payout.id.partner(), "state": payout.to, "version": payout.version,
            "amount": Money::new(payout.amount, payout.currency),
            "paid": Money::new(payout.paid, payout.paid_in.unwrap_or(payout.currency)),
        });
        Some(DomainEvent { kind, detail })
    });
    lines.chain(payouts).collect()
}

fn event_id(of: &str) -> String {
    format!("evt_{}", Hash::of(of.as_bytes()))
}

/// What the end of a run tells the world; it was written `at`. Runs about one partner, on demand or instant, are told by their payout.
pub async fn event_of_run(context: &Context, run: &Run, at: Timestamp) -> Result<Option<DomainEvent>> {
    const KIND: &str = "run.completed";
    let RunProgress::Completed { summary, .. } = &run.progress else { return Ok(None) };
    let program = context.store.program(OPERATION, &run.program).await?.ok_or(Refusal::NotFound("program"))?;
    let detail = json!({
        "id": event_id(&format!("{}/{KIND}", run.id)), "at": at, "by": run.created_by,
        "run": {
            "id": run.id, "programId": run.program, "kind": run.kind, "period": run.period, "version": run.changes,
            "partners": run.asked, "payouts": summary.payouts, "amount": Money::new(summary.amount, program.currency),
            "carried": summary.carried.iter().map(|carried| carried.partners).sum::<u32>(),
            "failed": summary.failed,
            "undecided": run.asked.saturating_sub(summary.decided()).saturating_sub(summary.failed),
        },
    });
    Ok(Some(DomainEvent { kind: KIND, detail }))
}

fn line_event(what: What, line: &LineChange) -> Option<&'static str> {
    if line.from.is_none() {
        return Some("commission.accrued");
    }
    Some(match (what, line.to.state) {
        (What::Refund | What::Attribute, _) => "commission.reversed",
        (What::Edit | What::Adjust, _) => "commission.adjusted",
        (What::Approve, _) => "commission.approved",
        (What::Mature, _) => "commission.matured",
        (What::Hold, _) => "commission.held",
        (What::Release, _) => "commission.released",
        (What::Reject, _) => "commission.rejected",
        (What::Reinstate | What::Withdraw, _) => "commission.reinstated",
        (_, StateName::Paid) => "commission.paid",
        _ => return None,
    })
}

fn payout_event(what: What, payout: &PayoutChange) -> Option<&'static str> {
    if payout.from == Some(payout.to) && !matches!(what, What::MarkPaid | What::Unpay) {
        return None;
    }
    Some(match payout.to {
        PayoutState::Drafting | PayoutState::Submitting => return None,
        PayoutState::Pending if payout.from.is_none_or(|from| from == PayoutState::Drafting) => "payout.created",
        PayoutState::Pending => "payout.sent_back",
        PayoutState::Approved => "payout.approved",
        PayoutState::Submitted => "payout.submitted",
        PayoutState::PartiallyPaid => "payout.partially_paid",
        PayoutState::Paid => "payout.paid",
        PayoutState::Failed => "payout.failed",
        PayoutState::Returned => "payout.returned",
        PayoutState::Cancelled => "payout.cancelled",
        PayoutState::Void => "payout.void",
    })
}

impl Bus {
    /// Puts events; an error means that at least one was not taken and all should be put again.
    pub async fn put(&self, events: &[DomainEvent]) -> Result<()> {
        for batch in events.chunks(BATCH) {
            let entries = batch
                .iter()
                .map(|event| {
                    PutEventsRequestEntry::builder()
                        .event_bus_name(&self.name)
                        .source(EVENT_SOURCE)
                        .detail_type(event.kind)
                        .detail(event.detail.to_string())
                        .build()
                })
                .collect();
            let answer = self.events.put_events().set_entries(Some(entries)).send().await;
            let answer = answer
                .map_err(|error| Refusal::Service("EventBridge", error.code().unwrap_or("no answer").to_owned()))?;
            if answer.failed_entry_count > 0 {
                let code = answer.entries().iter().find_map(|entry| entry.error_code());
                return Err(Refusal::Service("EventBridge", code.unwrap_or("unknown").to_owned()));
            }
        }
        Ok(())
    }
}
