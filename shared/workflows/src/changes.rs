//! The one way lines and payouts are changed: line changes, the payouts they leave or shrink in, tier positions, one entry,
//! one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::ids::PayoutId;
use domain::journal::{Change, Entry, What};
use domain::line::{Line, LineState, StateName};
use domain::payout::{OpenPayout, Page, Payout, PayoutState, Retallied};
use domain::rating::Applied;
use jiff::Timestamp;
use store::{Store, StoreError, Transaction};

use crate::context::Context;
use crate::error::{Refusal, Result};

/// How often a workflow reads again after the data changed under it.
pub const STALE_TRIES: u32 = 10;

/// Runs a read-decide-write attempt until it is not overtaken by another writer, at most [`STALE_TRIES`] times.
pub async fn until_fresh<T, F>(mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for try_number in 0..STALE_TRIES {
        // Boxed: the futures below are deep, and a Lambda's whole call tree would be one type.
        match Box::pin(attempt()).await {
            Err(Refusal::Store(StoreError::Stale)) => {
                let pause = 5_u64 << try_number.min(6);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            other => return other,
        }
    }
    Err(Refusal::Store(StoreError::Contention))
}

/// The stream of a command that concerns neither one conversion nor one payout: named by what it does, so that repeating
/// exactly the same change cannot be written twice.
pub fn command_stream(what: What, at: Timestamp, by: &str, changes: &[Change]) -> String {
    let lines: Vec<_> =
        changes.iter().map(|change| (&change.after.id, change.before.as_ref().map(|line| line.version))).collect();
    domain::ids::command_stream(&serde_json::json!([what, at, by, lines]).to_string())
}

/// The open payouts that hold some of these lines.
#[derive(Debug, Default)]
pub struct OpenPayouts {
    payouts: BTreeMap<PayoutId, Payout>,
    /// Cancelled ones whose lines are on their way to being free.
    freeing: Vec<PayoutId>,
    pub tokens: BTreeMap<PayoutId, OpenPayout>,
}

impl OpenPayouts {
    pub async fn of(store: &Store, operation: &'static str, lines: &[Line]) -> Result<Self, StoreError> {
        let ids: BTreeSet<_> = lines
            .iter()
            .filter(|line| matches!(line.state, LineState::InPayout { .. }))
            .filter_map(|line| line.payout().map(|(payout, _)| payout.clone()))
            .collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let mut open = Self::default();
        for payout in store.payouts(operation, &ids).await? {
            if payout.state == PayoutState::Cancelled && payout.settling.is_some() {
                open.freeing.push(payout.id.clone());
            }
            open.tokens.extend(payout.open().map(|token| (payout.id.clone(), token)));
            open.payouts.insert(payout.id.clone(), payout);
        }
        Ok(open)
    }

    /// Frees lines that are about to be free anyway, and asks for them to be read again: a change must not treat them as if
    /// they were being paid.
    pub async fn settle_first(&self, context: &Context) -> Result<()> {
        for payout in &self.freeing {
            crate::payouts::follow(context, payout).await?;
        }
        if self.freeing.is_empty() { Ok(()) } else { Err(StoreError::Stale.into()) }
    }

    pub fn of_line(&self, line: &Line) -> Option<&OpenPayout> {
        line.payout().and_then(|(payout, _)| self.tokens.get(payout))
    }

    /// Rewrites the pages and sums of every payout that a change touches. Returns each with what it was.
    async fn retally(
        &self,
        store: &Store,
        operation: &'static str,
        changes: &[Change],
    ) -> Result<Vec<(Payout, Payout, Vec<Page>)>> {
        let mut touched: BTreeMap<&PayoutId, Vec<&Change>> = BTreeMap::new();
        for change in changes {
            if let Some(before) = &change.before
                && matches!(before.state, LineState::InPayout { .. })
                && let Some((payout, _)) = before.payout()
            {
                touched.entry(payout).or_default().push(change);
            }
        }
        let mut retallied = Vec::new();
        for (id, changes) in touched {
            let Some(before) = self.payouts.get(id) else { continue };
            let mut pages = store.pages(operation, id).await?;
            let mut rewritten = BTreeSet::new();
            for change in changes {
                rewrite(&mut pages, change, &mut rewritten)?;
            }
            let (Retallied::Stands(mut after) | Retallied::Cancelled(mut after)) = before.clone().retally(&pages)?;
            after.entries += 1;
            pages.retain(|page| rewritten.contains(&page.number));
            retallied.push((before.clone(), after, pages));
        }
        Ok(retallied)
    }
}

/// Takes a line off its page, or writes its new net there.
fn rewrite(pages: &mut [Page], change: &Change, rewritten: &mut BTreeSet<u32>) -> Result<()> {
    let Some((_, number)) = change.before.as_ref().and_then(Line::payout) else { return Ok(()) };
    let Some(page) = pages.iter_mut().find(|page| page.number == number) else { return Ok(()) };
    rewritten.insert(number);
    if matches!(change.after.state, LineState::InPayout { .. }) {
        for line in page.lines.iter_mut().filter(|line| line.id == change.after.id) {
            line.net = change.after.net()?;
        }
    } else {
        page.lines.retain(|line| line.id != change.after.id);
    }
    Ok(())
}

/// Writes line changes with their entry, retallying the open payouts they are in. `entry` must not be sealed yet.
/// Returns the changed lines, and the payouts that no longer reach their minimum and must now be followed to their end.
pub async fn write(
    store: &Store,
    mut transaction: Transaction,
    operation: &'static str,
    mut entry: Entry,
    mut changes: Vec<Change>,
    open: &OpenPayouts,
) -> Result<Written> {
    let retallied = open.retally(store, operation, &changes).await?;
    for (before, after, _) in &retallied {
        entry = entry.with_payout(Some(before), after);
    }
    let sealed = entry.seal(&mut changes)?;
    transaction.change(&changes, &sealed)?;
    let mut cancelled = Vec::new();
    for (before, mut after, pages) in retallied {
        after.entry = sealed.at.clone();
        transaction.replace_payout(&after, &before)?;
        for page in &pages {
            transaction.write_page(page)?;
        }
        if after.settling.is_some() {
            cancelled.push(after.id);
        }
    }
    store.commit(transaction).await?;
    Ok(Written { lines: changes.into_iter().map(|change| change.after).collect(), cancelled })
}

#[derive(Debug)]
pub struct Written {
    pub lines: Vec<Line>,
    /// Payouts whose lines must be freed.
    pub cancelled: Vec<PayoutId>,
}

/// Whether a line makes its conversion count in a tiered rule: neither rejected nor reversed, and not a clawback.
pub fn counts(line: &Line, rule: &str) -> bool {
    !matches!(line.state.name(), StateName::Rejected | StateName::Reversed)
        && line.slice.is_some()
        && line.basis.as_ref().is_some_and(|basis| basis.rule == rule)
}

/// How the count of a tiered rule moves when lines of one earning change.
fn tally_step(siblings: &[Line], changes: &[Change], rule: &str) -> i64 {
    let after = |line: &Line| {
        let changed = changes.iter().find(|change| change.after.id == line.id);
        counts(changed.map_or(line, |change| &change.after), rule)
    };
    i64::from(siblings.iter().any(after)) - i64::from(siblings.iter().any(|line| counts(line, rule)))
}

/// The tiered rule that rated a line, if one did.
pub fn tiered_rule(line: &Line) -> Option<&str> {
    let basis = line.basis.as_ref()?;
    matches!(basis.reward, Applied::Tier { .. }).then_some(basis.rule.as_str())
}

/// Adds the tally moves that changes to lines of some conversions cause. `siblings` are all lines of those conversions; a
/// tally that several of them move is moved once, by the sum.
pub async fn move_tallies(
    store: &Store,
    operation: &'static str,
    transaction: &mut Transaction,
    siblings: &[Line],
    changes: &[Change],
) -> Result<()> {
    let mut earnings: BTreeMap<_, Vec<Line>> = BTreeMap::new();
    for line in siblings {
        if let Some(rule) = tiered_rule(line) {
            let key = (line.partner.clone(), rule.to_owned(), line.conversion.clone());
            earnings.entry(key).or_default().push(line.clone());
        }
    }
    let mut steps: BTreeMap<_, i64> = BTreeMap::new();
    for ((partner, rule, _), lines) in &earnings {
        *steps.entry((partner, rule)).or_default() += tally_step(lines, changes, rule);
    }
    for ((partner, rule), step) in steps {
        if step != 0 {
            let tally = store.tally(operation, partner, rule).await?;
            transaction.tally(&tally, step)?;
        }
    }
    Ok(())
}
