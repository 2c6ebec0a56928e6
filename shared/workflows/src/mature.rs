//! Maturation: lines whose hold period ended become payable.

use std::collections::BTreeMap;

use domain::ids::PartnerId;
use domain::journal::{Change, Entry, What};
use domain::line::Line;
use domain::payout::PAGE_LINES;
use domain::program::Partner;
use jiff::Timestamp;
use store::{Store, StoreError, Transaction};

use crate::changes::{OpenPayouts, command_stream, write};
use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "mature";
const ACTOR: &str = "mature-commissions";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Matured {
    pub lines: usize,
    /// Pages or chunks that failed and were passed over.
    pub failed: usize,
    /// Time ran out; the next tick goes on.
    pub unfinished: bool,
}

/// Matures what is due now. `time_left` tells whether to start another page.
pub async fn mature(context: &Context, time_left: impl Fn() -> bool) -> Result<Matured> {
    let now = context.now();
    let mut matured = Matured::default();
    for bucket in Store::due_buckets() {
        let mut after: Option<String> = None;
        loop {
            if !time_left() {
                matured.unfinished = true;
                return Ok(matured);
            }
            let page = match context.store.due_lines(OPERATION, bucket, now, after.as_deref()).await {
                Ok(page) => page,
                Err(error) => {
                    // What cannot be read must not keep everybody else from being paid.
                    tracing::error!(bucket, %error, "due lines cannot be read");
                    matured.failed += 1;
                    break;
                }
            };
            let mut by_partner: BTreeMap<PartnerId, Vec<Line>> = BTreeMap::new();
            for line in page.items {
                by_partner.entry(line.partner.clone()).or_default().push(line);
            }
            for lines in by_partner.into_values() {
                for chunk in lines.chunks(PAGE_LINES) {
                    match mature_chunk(context, chunk, now).await {
                        Ok(count) => matured.lines += count,
                        Err(error) => {
                            tracing::error!(%error, "lines could not be matured; the next tick tries again");
                            matured.failed += 1;
                        }
                    }
                }
            }
            after = page.after;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(matured)
}

/// Matures what is due of one partner, so that a decision about it sees everything, whenever the schedule last fired.
pub async fn mature_partner(context: &Context, partner: &Partner) -> Result<()> {
    let now = context.now();
    for shard in 0..partner.shards.max(1) {
        let mut after: Option<String> = None;
        loop {
            let due = context.store.due_lines_of(OPERATION, partner, shard, now, after.as_deref()).await?;
            for chunk in due.items.chunks(PAGE_LINES) {
                mature_chunk(context, chunk, now).await?;
            }
            after = due.after;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// One partner's lines in one transaction. A line that changed meanwhile is left to the next tick, alone.
async fn mature_chunk(context: &Context, lines: &[Line], now: Timestamp) -> Result<usize> {
    let changes: Vec<_> = lines
        .iter()
        .filter_map(|line| line.clone().mature(now).ok().map(|after| Change::of(line.clone(), after)))
        .collect();
    if changes.is_empty() {
        return Ok(0);
    }
    let count = changes.len();
    let stream = command_stream(What::Mature, now, ACTOR, &changes);
    let entry = Entry::new(stream, 1, now, ACTOR, What::Mature);
    let written =
        write(&context.store, Transaction::new(OPERATION), OPERATION, entry, changes, &OpenPayouts::default()).await;
    match written {
        Ok(_) => Ok(count),
        Err(Refusal::Store(StoreError::Stale)) if lines.len() == 1 => Ok(0),
        Err(Refusal::Store(StoreError::Stale)) => {
            let mut alone = 0;
            for line in lines {
                alone += Box::pin(mature_chunk(context, std::slice::from_ref(line), now)).await?;
            }
            Ok(alone)
        }
        Err(refusal) => Err(refusal),
    }
}
