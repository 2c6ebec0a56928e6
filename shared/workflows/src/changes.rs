//! The one way lines and payouts are changed: line changes, the payouts they leave or shrink in, one entry, one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::ids::PayoutId;
use domain::journal::{Change, Entry, Seen, What};
use domain::line::{Line, LineState};
use domain::payout::{OpenPayout, Page, PageLine, Payout, PayoutState, Retallied};
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

/// Refuses what was overtaken between the reading of lines and of tallies: to be called once the tallies are read, about what was looked at
/// and is not going to be changed. From then on whoever changes that moves one of those tallies, too, and only one of both can
/// be written.
pub async fn unless_overtaken(store: &Store, operation: &'static str, seen: &[Seen]) -> Result<()> {
    let mut versions = BTreeMap::new();
    for seen in seen {
        match seen {
            Seen::Line { line, version } => drop(versions.insert(line.clone(), *version)),
            Seen::Conversion { conversion, entries } => {
                if store.is_written(operation, conversion.as_str(), entries + 1).await? {
                    return Err(StoreError::Stale.into());
                }
            }
        }
    }
    let ids: Vec<_> = versions.keys().cloned().collect();
    let lines = if ids.is_empty() { Vec::new() } else { store.lines(operation, &ids).await? };
    if lines.iter().all(|line| versions.get(&line.id) == Some(&line.version)) {
        Ok(())
    } else {
        Err(StoreError::Stale.into())
    }
}

/// The open payouts that hold some of these lines.
#[derive(Debug, Default)]
pub struct OpenPayouts {
    payouts: BTreeMap<PayoutId, Payout>,
    /// Cancelled and void ones whose lines are on their way to being free.
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
            if matches!(payout.state, PayoutState::Cancelled | PayoutState::Void) && payout.settling.is_some() {
                open.freeing.push(payout.id.clone());
            }
            open.tokens.extend(payout.open().map(|token| (payout.id.clone(), token)));
            open.payouts.insert(payout.id.clone(), payout);
        }
        open.unless_left(store, operation, lines).await?;
        Ok(open)
    }

    /// Refuses lines that left their payout between its reading and theirs: what is not in a closed payout must not be treated as if it
    /// were being paid. Whatever happens to them later happens to the payout, too, until it ends.
    async fn unless_left(&self, store: &Store, operation: &'static str, lines: &[Line]) -> Result<(), StoreError> {
        let is_late = |line: &&Line| {
            let payout = line.payout().filter(|_| matches!(line.state, LineState::InPayout { .. }));
            payout.is_some_and(|(payout, _)| !self.tokens.contains_key(payout))
        };
        let late: BTreeMap<_, _> = lines.iter().filter(is_late).map(|line| (line.id.clone(), line.version)).collect();
        if late.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = late.keys().cloned().collect();
        let again = store.lines(operation, &ids).await?;
        let same = again.iter().all(|line| late.get(&line.id) == Some(&line.version));
        if same { Ok(()) } else { Err(StoreError::Stale) }
    }

    /// Frees lines that are about to be free anyway, and asks for them to be read again: a change must not treat them as if
    /// they were being paid.
    pub async fn settle_first(&self, context: &Context) -> Result<()> {
        for payout in &self.freeing {
            crate::payouts::follow(context, payout).await?;
        }
        if self.freeing.is_empty() { Ok(()) } else { Err(StoreError::Stale.into()) }
    }

    /// How many entries an open payout has so far.
    pub fn entries(&self, payout: &PayoutId) -> Option<u32> {
        self.payouts.get(payout).map(|payout| payout.entries)
    }

    pub fn of_line(&self, line: &Line) -> Option<&OpenPayout> {
        line.payout().and_then(|(payout, _)| self.tokens.get(payout))
    }

    /// Rewrites the pages and sums of every payout that a change touches, and adds what becomes of their tax to the changes.
    async fn retally(
        &self,
        store: &Store,
        operation: &'static str,
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) -> Result<Vec<Retally>> {
        let mut touched: BTreeMap<&PayoutId, Vec<&Change>> = BTreeMap::new();
        for change in changes.iter() {
            if let Some(before) = &change.before
                && matches!(before.state, LineState::InPayout { .. })
                && let Some((payout, _)) = before.payout()
            {
                touched.entry(payout).or_default().push(change);
            }
        }
        let (mut retallied, mut taxes) = (Vec::new(), Vec::new());
        for (id, changes) in touched {
            let Some(before) = self.payouts.get(id) else { continue };
            let mut pages = store.pages(operation, id).await?;
            let mut rewritten = BTreeSet::new();
            for change in changes {
                rewrite(&mut pages, change, &mut rewritten)?;
            }
            let (Retallied::Stands(mut after) | Retallied::Cancelled(mut after)) = before.clone().retally(&pages)?;
            if let Some((taxed, change)) = tax(store, operation, &after, &mut pages, now).await? {
                rewritten.extend(taxed.tax_line.as_ref().map(|at| at.page));
                taxes.push(change);
                after = taxed;
            }
            after.entries += 1;
            pages.retain(|page| rewritten.contains(&page.number));
            retallied.push(Retally { before: before.clone(), after, pages });
        }
        changes.extend(taxes);
        Ok(retallied)
    }
}

/// A payout whose content changed, and the pages to be written again.
struct Retally {
    before: Payout,
    after: Payout,
    pages: Vec<Page>,
}

/// Brings the tax of a payout that stands to what its terms say: on its line, on that line's page and in the payout's sums. `None` where it is
/// right already.
pub async fn tax(
    store: &Store,
    operation: &'static str,
    payout: &Payout,
    pages: &mut Vec<Page>,
    now: Timestamp,
) -> Result<Option<(Payout, Change)>> {
    let due = payout.tax_due()?;
    if !matches!(payout.state, PayoutState::Pending | PayoutState::Approved) || due == payout.withheld {
        return Ok(None);
    }
    let change = if let Some(at) = &payout.tax_line {
        let line = store.line(operation, &at.line).await?;
        let line = line.ok_or_else(|| StoreError::Corrupt(format!("{} is missing", at.line)))?;
        Change::of(line.clone(), line.withhold(due)?)
    } else {
        let partner = store.partner(operation, &payout.partner).await?.ok_or(Refusal::NotFound("partner"))?;
        Change::new(Line::withholding(&payout.id, payout.pages, &partner, payout.currency, due, now))
    };
    let on_page = PageLine { id: change.after.id.clone(), net: due.negated(), withheld: true, hands: Vec::new() };
    match pages.iter_mut().find(|page| page.lines.iter().any(|line| line.withheld)) {
        Some(page) => page.lines = vec![on_page],
        None => pages.push(Page { payout: payout.id.clone(), number: payout.pages, lines: vec![on_page] }),
    }
    Ok(Some((payout.clone().tally(pages)?, change)))
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
    let retallied = open.retally(store, operation, &mut changes, entry.at).await?;
    for Retally { before, after, .. } in &retallied {
        entry = entry.with_payout(Some(before), after);
    }
    let sealed = entry.seal(&mut changes)?;
    transaction.change(&changes, &sealed)?;
    // What is in a closed payout is made up for with other lines; that must not be so for one that has ended meanwhile.
    for (_, closed) in open.payouts.iter().filter(|(id, _)| !open.tokens.contains_key(*id)) {
        transaction.unless_changed(closed)?;
    }
    let mut cancelled = Vec::new();
    for Retally { before, mut after, pages } in retallied {
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
