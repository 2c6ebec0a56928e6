//! Dry run: what a rule set version would have paid for the sales of a past period, computed like the real thing and written nowhere.
//!
//! Sales are taken in the order in which they were accepted, with the partners, customers and refunds they really had. Tiers and caps
//! start where the first sale of the period found them, and go on from what the version itself would have paid. What people
//! decided stays as it is: what was rejected earns nothing, and adjustments are left out of both sides.

use std::collections::{BTreeMap, BTreeSet};

use domain::accrual::Circumstances;
use domain::booking::{Accruing, Booking, RulesByVersion, State};
use domain::ids::{ConversionId, PartnerId};
use domain::line::{Line, LineKind, StateName};
use domain::money::{Minor, Money};
use domain::order::Order;
use domain::program::Program;
use domain::rules::RuleSet;
use domain::tally::{Tallies, Tally, TallyKey};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use store::Because;

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::history::History;

const OPERATION: &str = "dry run";
/// Sales of one dry run: they are read and computed while the caller waits, for 29 seconds at most. Tiers and caps carry what came before
/// through the whole period, so it is not computed in parts.
pub const MAX_SALES: usize = 10_000;
const PAGE: i32 = 100;
/// Sales read at once.
const READS: usize = 32;
/// Sales whose lines are read together.
const CHUNK: usize = 50;

#[derive(Debug, Clone)]
pub struct DryRun {
    pub conversions: usize,
    pub total: Sums,
    /// Everybody who had or would have had something, the greatest difference first.
    pub partners: Vec<OfPartner>,
    /// For how many partners something changes.
    pub changed: usize,
    pub sentence: String,
}

#[derive(Debug, Clone)]
pub struct OfPartner {
    pub partner: PartnerId,
    pub conversions: usize,
    pub sums: Sums,
}

#[derive(Debug, Clone, Copy)]
pub struct Sums {
    pub before: Money,
    pub after: Money,
    pub difference: Money,
}

/// A sale of the period, as it is now.
struct Sold {
    conversion: ConversionId,
    history: History,
    order: Order,
    lines: Vec<Line>,
}

/// Of a period with at most so many sales; of more, none.
pub async fn dry_run(
    context: &Context,
    program: &Program,
    set: &RuleSet,
    from: Timestamp,
    to: Timestamp,
    most: usize,
) -> Result<DryRun> {
    let rules = set.draft.resolve(program.currency).map_err(Refusal::Invalid)?;
    let rules = BTreeMap::from([(set.version, rules)]);
    let found: Vec<_> = conversions(context, program, from, to, most).await?.into_iter().collect();
    let mut sales = Vec::with_capacity(found.len());
    for chunk in found.chunks(CHUNK) {
        sales.extend(sold(context, chunk, from, to).await?);
    }
    sales.sort_by_key(|sale| (sale.history.sale().map(|entry| entry.at), sale.conversion.clone()));
    let mut tallies = BTreeMap::new();
    let mut partners: BTreeMap<PartnerId, (BTreeSet<ConversionId>, Minor, Minor)> = BTreeMap::new();
    for sale in &sales {
        let mut add = |partner: &PartnerId, before: Minor, after: Minor| -> Result<()> {
            let sums = partners.entry(partner.clone()).or_default();
            sums.0.insert(sale.conversion.clone());
            sums.1 = sums.1.plus(before)?;
            sums.2 = sums.2.plus(after)?;
            Ok(())
        };
        for line in sale.lines.iter().filter(|line| counts(line)) {
            add(&line.partner, line.net()?, Minor::ZERO)?;
        }
        for line in again(program, &rules, set.version, sale, &mut tallies)? {
            add(&line.partner, Minor::ZERO, line.net()?)?;
        }
    }
    told(program, set, from, to, sales.len(), partners)
}

/// Whether a stored line is what rules paid, rather than what people decided.
fn counts(line: &Line) -> bool {
    let by_rule = !matches!(line.kind, LineKind::Bonus | LineKind::Adjustment);
    by_rule && line.state.name() != StateName::Rejected
}

/// Every conversion that may have been sold in the period: those of the partners' lines, and those no rule made a line of.
async fn conversions(
    context: &Context,
    program: &Program,
    from: Timestamp,
    to: Timestamp,
    most: usize,
) -> Result<BTreeSet<ConversionId>> {
    let store = &context.store;
    let unless_too_many = |found: &BTreeSet<_>| {
        let detail = || format!("the period has more than {most} sales, the most of a dry run; choose a shorter one");
        if found.len() > most { Err(Refusal::invalid("/from", detail())) } else { Ok(()) }
    };
    let mut found = BTreeSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.partners(OPERATION, &program.id, after.as_deref(), PAGE).await?;
        for partner in &page.items {
            let lines = store.lines_between(OPERATION, partner, from, to).await?;
            found.extend(lines.into_iter().filter_map(|line| line.conversion));
            unless_too_many(&found)?;
        }
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    loop {
        let page = store.unrewarded(OPERATION, &program.id, Because::NoRule, after.as_deref(), PAGE).await?;
        let within = page.items.iter().filter(|sale| (from..to).contains(&sale.occurred_at));
        found.extend(within.map(|sale| sale.conversion.clone()));
        unless_too_many(&found)?;
        after = page.after;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// Those of some conversions that were sold in the period and are due to somebody.
async fn sold(context: &Context, found: &[ConversionId], from: Timestamp, to: Timestamp) -> Result<Vec<Sold>> {
    let read = async |conversion: ConversionId| History::read(context, OPERATION, &conversion).await;
    let reading: Vec<_> = found.iter().cloned().map(read).collect();
    let histories: Vec<_> = stream::iter(reading).buffered(READS).try_collect().await?;
    let mut sales = Vec::with_capacity(found.len());
    for (conversion, history) in found.iter().zip(histories) {
        let Some(order) = history.order()? else { continue };
        let within = order.parts().first().is_some_and(|sale| (from..to).contains(&sale.occurred_at));
        if within && history.circumstances().is_some() {
            sales.push(Sold { conversion: conversion.clone(), history, order, lines: Vec::new() });
        }
    }
    let histories: Vec<_> = sales.iter().map(|sale| &sale.history).collect();
    let lines = History::lines_of_all(context, OPERATION, &histories).await?;
    for (sale, lines) in sales.iter_mut().zip(lines) {
        sale.lines = lines;
    }
    Ok(sales)
}

/// The lines the version would have made, after everything that went back.
fn again(
    program: &Program,
    rules: &RulesByVersion,
    version: u32,
    sale: &Sold,
    known: &mut BTreeMap<TallyKey, Tally>,
) -> Result<Vec<Line>> {
    let (Some(circumstances), Some(accepted)) = (sale.history.circumstances(), sale.history.sale()) else {
        return Ok(Vec::new());
    };
    let circumstances = Circumstances { rule_set: version, objection: None, ..circumstances.clone() };
    for (key, tally) in sale.history.entries().flat_map(|entry| &entry.tallies) {
        known.entry(key.clone()).or_insert_with(|| tally.clone());
    }
    let booking = Booking {
        program,
        conversion: &sale.conversion,
        order: accepted.event.as_ref().map_or("", |event| event.id.as_str()),
        rules,
        before: State::default(),
        after: State { order: Some(&sale.order), attribution: 0 },
        open: &BTreeMap::new(),
        cause: "",
        received_at: accepted.received_at.unwrap_or(accepted.at),
        now: accepted.at,
    };
    let accruing = Accruing { circumstances: &circumstances, by_hand: None };
    let mut needed = BTreeMap::new();
    for (first, last) in booking.reads(&[], Some(&accruing))? {
        needed.extend(known.range(first..=last).map(|(key, tally)| (key.clone(), tally.clone())));
    }
    let mut tallies = Tallies::new(needed);
    let changes = booking.book(&[], Vec::new(), Some(&accruing), &mut tallies)?;
    for (key, step) in tallies.steps() {
        let tally = known.entry(key.clone()).or_default();
        *tally = tally.clone().plus(step)?;
    }
    // Whose lines were all rejected would have had these rejected, too.
    let rejected = |partner: &PartnerId| {
        let mut own = sale.lines.iter().filter(|line| line.partner == *partner && line.kind == LineKind::Commission);
        let any = own.clone().next().is_some();
        any && own.all(|line| line.state.name() == StateName::Rejected)
    };
    let lines = changes.into_iter().map(|change| change.after);
    Ok(lines.filter(|line| !rejected(&line.partner)).collect())
}

fn told(
    program: &Program,
    set: &RuleSet,
    from: Timestamp,
    to: Timestamp,
    conversions: usize,
    partners: BTreeMap<PartnerId, (BTreeSet<ConversionId>, Minor, Minor)>,
) -> Result<DryRun> {
    let money = |amount| Money::new(amount, program.currency);
    let sums = |before: Minor, after: Minor| -> Result<Sums> {
        Ok(Sums { before: money(before), after: money(after), difference: money(after.minus(before)?) })
    };
    let total = sums(
        Minor::total(partners.values().map(|(_, before, _)| *before))?,
        Minor::total(partners.values().map(|(_, _, after)| *after))?,
    )?;
    let mut of_partners = Vec::with_capacity(partners.len());
    for (partner, (sales, before, after)) in partners {
        of_partners.push(OfPartner { partner, conversions: sales.len(), sums: sums(before, after)? });
    }
    of_partners.sort_by_key(|of| std::cmp::Reverse(of.sums.difference.amount.units().abs()));
    let changed = of_partners.iter().filter(|of| !of.sums.difference.amount.is_zero()).count();
    let difference = total.difference.amount;
    let how = if difference.is_negative() { "less" } else { "more" };
    let amount = money(if difference.is_negative() { difference.negated() } else { difference });
    let sentence = format!(
        "Version {} would have paid {amount} {how} for the {conversions} sales from {from} to {to}; for {changed} partners something changes.",
        set.version,
    );
    Ok(DryRun { conversions, total, partners: of_partners, changed, sentence })
}
