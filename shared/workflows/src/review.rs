//! Review: what people decide about lines, singly or in bulk.

use std::collections::{BTreeMap, BTreeSet};

use domain::booking::{Booking, State, note_true_ups, tallies_of};
use domain::ids::{ConversionId, LineId, PayoutId};
use domain::journal::{Change, Entry, Seen, What};
use domain::line::{Line, LineError};
use domain::order::Order;
use domain::program::Program;
use jiff::Timestamp;
use store::{StoreError, Transaction};

use crate::changes::{OpenPayouts, command_stream, unless_overtaken, until_fresh, write};
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::history::{History, rules_of};

/// Lines that one atomic command may change: they and their balances fit one transaction.
pub const MAX_ATOMIC: usize = 40;
/// Ids in one bulk command.
pub const MAX_BULK: usize = 100;

/// What a person does with lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Approve,
    Hold {
        why: String,
    },
    Release,
    Reject {
        why: String,
    },
    Reinstate {
        why: String,
    },
    /// Out of this payout, which is still open.
    Exclude {
        payout: PayoutId,
        /// Only while the payout has so many entries.
        seen: Option<u32>,
        why: String,
    },
}

impl Verdict {
    const fn what(&self) -> What {
        match self {
            Self::Approve => What::Approve,
            Self::Hold { .. } => What::Hold,
            Self::Release => What::Release,
            Self::Reject { .. } => What::Reject,
            Self::Reinstate { .. } => What::Reinstate,
            Self::Exclude { .. } => What::Exclude,
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Hold { why } | Self::Reject { why } | Self::Reinstate { why } | Self::Exclude { why, .. } => {
                Some(why)
            }
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
            Self::Exclude { payout, .. } => line.exclude(payout, token, now),
        }
    }

    /// Whether the line's conversion may count, or count no more, by it.
    const fn moves_tallies(&self) -> bool {
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
            && !(verdict.moves_tallies() && tallies_of(line).next().is_some())
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
        if let Verdict::Exclude { payout, seen, .. } = verdict
            && let Some(entries) = open.entries(payout)
        {
            Refusal::unless_seen(*seen, entries)?;
        }
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
    let changes = if verdict.moves_tallies() {
        with_tallies(context, operation, &mut transaction, &mut entry, changes, open, now).await?
    } else {
        changes
    };
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

/// A conversion some of whose lines are decided about.
struct Judged {
    id: ConversionId,
    order: Order,
    history: History,
    lines: Vec<Line>,
    /// The same after the decision.
    after: Vec<Line>,
}

/// Adds what else the changes cause: tallies move, and retroactive tiers are trued up.
async fn with_tallies(
    context: &Context,
    operation: &'static str,
    transaction: &mut Transaction,
    entry: &mut Entry,
    changes: Vec<Change>,
    open: &OpenPayouts,
    now: Timestamp,
) -> Result<Vec<Change>> {
    let (tallied, mut all): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| tallies_of(&change.after).next().is_some());
    let mut by_program: BTreeMap<_, BTreeMap<ConversionId, Vec<Change>>> = BTreeMap::new();
    for change in tallied {
        if let Some(conversion) = change.after.conversion.clone() {
            by_program.entry(change.after.program.clone()).or_default().entry(conversion).or_default().push(change);
        }
    }
    for (program, conversions) in by_program {
        let program = context.store.program(operation, &program).await?.ok_or(Refusal::NotFound("program"))?;
        let mut decided = Vec::with_capacity(conversions.len());
        for (id, changes) in conversions {
            decided.push(decide(context, operation, id, &changes).await?);
        }
        all.extend(book(context, operation, transaction, entry, &program, &decided, open, now).await?);
    }
    unless_overtaken(&context.store, operation, &entry.seen).await?;
    Ok(all)
}

async fn decide(context: &Context, operation: &'static str, id: ConversionId, changes: &[Change]) -> Result<Judged> {
    let history = History::read(context, operation, &id).await?;
    let order = history.order()?.ok_or_else(|| StoreError::Corrupt(format!("{id} has lines and no sale")))?;
    let lines = history.lines(context, operation).await?;
    let mut after = lines.clone();
    for line in &mut after {
        if let Some(change) = changes.iter().find(|change| change.after.id == line.id) {
            // What was decided about must not have changed since.
            if change.before.as_ref() != Some(line) {
                return Err(StoreError::Stale.into());
            }
            *line = change.after.clone();
        }
    }
    Ok(Judged { id, order, history, lines, after })
}

#[expect(clippy::too_many_arguments, reason = "the parts of one write")]
async fn book(
    context: &Context,
    operation: &'static str,
    transaction: &mut Transaction,
    entry: &mut Entry,
    program: &Program,
    decided: &[Judged],
    open: &OpenPayouts,
    now: Timestamp,
) -> Result<Vec<Change>> {
    let lines = || decided.iter().flat_map(|conversion| &conversion.lines);
    let rules = rules_of(context, operation, program, lines().filter_map(|line| line.rule_set).collect()).await?;
    let mut reads: Vec<_> = lines().flat_map(tallies_of).map(|key| (key.clone(), key)).collect();
    reads.sort();
    reads.dedup();
    let read = context.store.tallies(operation, &program.id, &reads).await?;
    let mut tallies = read.tallies();
    let mut changes = Vec::new();
    for conversion in decided {
        let state = State { order: Some(&conversion.order), attribution: conversion.history.attribution() };
        let booking = Booking {
            program,
            conversion: &conversion.id,
            order: conversion.history.sale().and_then(|entry| entry.event.as_ref()).map_or("", |event| event.order()),
            rules: &rules,
            before: state,
            after: state,
            open: &open.tokens,
            cause: &entry.cause(),
            received_at: now,
            now,
        };
        let mut booked = booking.book(&conversion.lines, conversion.after.clone(), None, &mut tallies)?;
        note_true_ups(&mut booked);
        let entries = conversion.history.next_position() - 1;
        entry.seen.push(Seen::Conversion { conversion: conversion.id.clone(), entries });
        entry.note_seen(&conversion.lines, &booked);
        changes.extend(booked);
    }
    entry.tallies.extend(read.known());
    transaction.tallies(&program.id, &read, &tallies)?;
    Ok(changes)
}

const fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Approve => "approve line",
        Verdict::Hold { .. } => "hold line",
        Verdict::Release => "release line",
        Verdict::Reject { .. } => "reject line",
        Verdict::Reinstate { .. } => "reinstate line",
        Verdict::Exclude { .. } => "exclude line",
    }
}
