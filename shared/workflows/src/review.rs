//! Review: what people decide about lines, singly or in bulk.

use std::collections::BTreeSet;

use domain::ids::LineId;
use domain::journal::{Change, Entry, What};
use domain::line::{Line, LineError};
use jiff::Timestamp;
use store::{StoreError, Transaction};

use crate::changes::{OpenPayouts, command_stream, move_tallies, tiered_rule, until_fresh, write};
use crate::context::Context;
use crate::error::{Refusal, Result};

/// Lines that one atomic command may change: they and their balances fit one transaction.
pub const MAX_ATOMIC: usize = 40;
/// Ids in one bulk command.
pub const MAX_BULK: usize = 100;

/// What a person does with lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Approve,
    Hold { why: String },
    Release,
    Reject { why: String },
    Reinstate { why: String },
}

impl Verdict {
    const fn what(&self) -> What {
        match self {
            Self::Approve => What::Approve,
            Self::Hold { .. } => What::Hold,
            Self::Release => What::Release,
            Self::Reject { .. } => What::Reject,
            Self::Reinstate { .. } => What::Reinstate,
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Hold { why } | Self::Reject { why } | Self::Reinstate { why } => Some(why),
            Self::Approve | Self::Release => None,
        }
    }

    fn apply(&self, line: Line, by: &str, now: Timestamp, open: &OpenPayouts) -> Result<Line, LineError> {
        let token = open.of_line(&line);
        match self {
            Self::Approve => line.approve(now),
            Self::Hold { why } => line.hold(why, token),
            Self::Release => line.release(by, now),
            Self::Reject { why } => line.reject(why, token),
            Self::Reinstate { .. } => line.reinstate(by),
        }
    }

    /// Whether the line's conversion may take or lose a tier position by it.
    const fn moves_positions(&self) -> bool {
        matches!(self, Self::Reject { .. } | Self::Reinstate { .. })
    }
}

/// Decides about each line on its own: one refusal does not touch the others. Results in the order asked.
pub async fn review(context: &Context, ids: &[LineId], verdict: &Verdict, by: &str) -> Result<Vec<Result<()>>> {
    let operation = verdict_name(verdict);
    let lines = context.store.lines(operation, ids).await?;
    let mut together = Vec::new();
    let mut seen = BTreeSet::new();
    for line in &lines {
        if seen.insert(line.id.clone())
            && line.payout().is_none()
            && !(verdict.moves_positions() && tiered_rule(line).is_some())
        {
            together.push(line.clone());
        }
    }
    // Lines that touch nothing but themselves share transactions and entries; what loses a race is decided alone below.
    let mut done = BTreeSet::new();
    for chunk in together.chunks(MAX_ATOMIC) {
        let now = context.now();
        let open = OpenPayouts::default();
        let changes: Vec<_> = chunk
            .iter()
            .filter_map(|line| {
                verdict.apply(line.clone(), by, now, &open).ok().map(|after| Change::of(line.clone(), after))
            })
            .collect();
        if changes.len() < 2 {
            continue;
        }
        // Whatever stops them together, each is decided by itself below, and answers for itself.
        if let Ok(lines) = commit(context, operation, verdict, by, now, changes, &open).await {
            done.extend(lines.into_iter().map(|line| line.id));
        }
    }
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        results.push(if done.remove(id) { Ok(()) } else { one(context, operation, id, verdict, by).await });
    }
    Ok(results)
}

/// All or nothing, at most [`MAX_ATOMIC`] lines. On refusal tells which line and why.
pub async fn review_atomically(
    context: &Context,
    ids: &[LineId],
    verdict: &Verdict,
    by: &str,
) -> Result<Vec<Result<()>>> {
    let operation = verdict_name(verdict);
    until_fresh(|| async {
        let now = context.now();
        let lines = context.store.lines(operation, ids).await?;
        let open = OpenPayouts::of(&context.store, operation, &lines).await?;
        open.settle_first(context).await?;
        let mut changes = Vec::new();
        let mut results = Vec::new();
        let mut named = BTreeSet::new();
        for id in ids {
            if !named.insert(id) {
                results.push(Err(Refusal::Illegal("this commission is named twice".to_owned())));
                continue;
            }
            let line = lines.iter().find(|line| line.id == *id);
            let applied = line
                .ok_or(Refusal::NotFound("commission"))
                .and_then(|line| Ok(Change::of(line.clone(), verdict.apply(line.clone(), by, now, &open)?)));
            results.push(applied.map(|change| changes.push(change)));
        }
        if results.iter().any(Result::is_err) {
            let other = || Refusal::Illegal("nothing was changed, because another commission was refused".to_owned());
            return Ok(results.into_iter().map(|result| result.and_then(|()| Err(other()))).collect());
        }
        match commit(context, operation, verdict, by, now, changes, &open).await {
            Err(Refusal::Store(StoreError::TooLarge(_))) => {
                let refused = "these commissions touch too many payouts to be changed at once; name fewer";
                Ok(results.into_iter().map(|_| Err(Refusal::Illegal(refused.to_owned()))).collect())
            }
            other => other.map(|_| results),
        }
    })
    .await
}

async fn one(context: &Context, operation: &'static str, id: &LineId, verdict: &Verdict, by: &str) -> Result<()> {
    until_fresh(|| async {
        let now = context.now();
        let line = context.store.line(operation, id).await?.ok_or(Refusal::NotFound("commission"))?;
        let open = OpenPayouts::of(&context.store, operation, std::slice::from_ref(&line)).await?;
        open.settle_first(context).await?;
        let after = verdict.apply(line.clone(), by, now, &open)?;
        commit(context, operation, verdict, by, now, vec![Change::of(line, after)], &open).await.map(drop)
    })
    .await
}

async fn commit(
    context: &Context,
    operation: &'static str,
    verdict: &Verdict,
    by: &str,
    now: Timestamp,
    changes: Vec<Change>,
    open: &OpenPayouts,
) -> Result<Vec<Line>> {
    let stream = command_stream(verdict.what(), now, by, &changes);
    let mut entry = Entry::new(stream.as_str(), 1, now, by, verdict.what());
    entry.why = verdict.why().map(str::to_owned);
    let mut transaction = Transaction::new(operation);
    if verdict.moves_positions() {
        let tiered = changes.iter().map(|change| &change.after).filter(|line| tiered_rule(line).is_some());
        let siblings = siblings(context, operation, tiered).await?;
        move_tallies(&context.store, operation, &mut transaction, &siblings, &changes).await?;
    }
    let ids: Vec<_> = changes.iter().map(|change| change.after.id.clone()).collect();
    let written = match write(&context.store, transaction, operation, entry, changes, open).await {
        Ok(written) => written,
        // It may be only the answer that was lost: the command's own entry tells.
        Err(Refusal::Store(StoreError::Unavailable(_)))
            if !context.store.chain(operation, &stream).await?.is_empty() =>
        {
            return Ok(context.store.lines(operation, &ids).await?);
        }
        Err(error) => return Err(error),
    };
    for payout in &written.cancelled {
        crate::payouts::follow_later(context, payout).await;
    }
    Ok(written.lines)
}

/// All lines of these lines' conversions, themselves among them.
async fn siblings<'a>(
    context: &Context,
    operation: &'static str,
    lines: impl Iterator<Item = &'a Line>,
) -> Result<Vec<Line>> {
    let conversions: BTreeSet<_> = lines.filter_map(|line| line.conversion.as_ref()).collect();
    let mut ids = Vec::new();
    for conversion in conversions {
        let chain = context.store.chain(operation, conversion.as_str()).await?;
        let created = chain.iter().flat_map(|sealed| &sealed.entry.lines).filter(|line| line.from.is_none());
        ids.extend(created.map(|line| line.id.clone()));
    }
    Ok(context.store.lines(operation, &ids).await?)
}

const fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Approve => "approve line",
        Verdict::Hold { .. } => "hold line",
        Verdict::Release => "release line",
        Verdict::Reject { .. } => "reject line",
        Verdict::Reinstate { .. } => "reinstate line",
    }
}
