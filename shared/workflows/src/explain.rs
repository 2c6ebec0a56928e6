//! Explaining a line from what is stored: its sale, its rules, its partner.

use std::collections::BTreeMap;

use domain::booking::RulesByVersion;
use domain::explain::{BaseParts, Explanation, Known, explain};
use domain::ids::{ConversionId, LineId};
use domain::journal::{Entry, Sealed, What};
use domain::line::Line;
use domain::program::Program;
use domain::tally::Tallies;
use serde::Serialize;

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::history::{Moment, order_of, rules_of};

const OPERATION: &str = "explain";
/// A line's history is as long as its changes; this bounds the walk.
const MAX_HISTORY: usize = 200;

/// A step in a line's life.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryStep {
    pub at: jiff::Timestamp,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    pub what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub state: domain::line::StateName,
    pub net: domain::money::Minor,
    /// The journal entry, whose last part is the SHA-256 of its content.
    pub entry: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    #[serde(flatten)]
    pub explanation: Explanation,
    /// Oldest first.
    pub history: Vec<HistoryStep>,
}

impl Explained {
    /// What a partner reads: who did it is the merchant's affair, and of the reasons only that of a rejection is for them.
    pub fn hide_staff(&mut self) {
        for step in &mut self.history {
            step.by.clear();
            if step.what != What::Reject {
                step.why = None;
            }
        }
    }
}

pub async fn of_line(context: &Context, id: &LineId) -> Result<Explained> {
    let store = &context.store;
    let line = store.line(OPERATION, id).await?.ok_or(Refusal::NotFound("commission"))?;
    let program = store.program(OPERATION, &line.program).await?.ok_or(Refusal::NotFound("program"))?;
    let rules = rules_of(context, OPERATION, &program, line.rule_set.into_iter().collect()).await?;
    let chain = store.chain(OPERATION, line.stream()).await?;
    let entries: Vec<_> = chain.iter().map(|sealed| &sealed.entry).collect();
    let made =
        entries.iter().position(|entry| entry.lines.iter().any(|change| change.id == line.id && change.from.is_none()));
    let made_by = made.and_then(|at| entries.get(at));
    let written =
        made_by.and_then(|entry| entry.lines.iter().find(|change| change.id == line.id)).map(|change| change.to.amount);
    let again = match (made, &line.conversion) {
        (Some(at), Some(conversion)) => accrued_again(&entries[..=at], &program, conversion, &rules)?,
        _ => Vec::new(),
    };
    let history = history(context, &line).await?;
    let by_person = |step: &&HistoryStep| matches!(step.what, What::Bonus | What::Adjust | What::WriteOff);
    let named = |key: Option<&String>| {
        let rules = line.rule_set.and_then(|version| rules.get(&version));
        key.and_then(|key| rules.into_iter().flatten().find(|rule| rule.key == *key))
    };
    let basis = line.basis.as_ref();
    let rule = named(basis.map(|basis| &basis.rule));
    let (order, attribution) = order_of(&entries)?;
    let base = match (&order, rule) {
        (Some(order), Some(rule)) => BaseParts::of(order, attribution, &line, rule)?,
        _ => None,
    };
    let latest = store.entry(OPERATION, &line.entry).await?;
    let tax = latest.as_ref().and_then(|sealed| sealed.entry.tax_of(&line.id));
    let known = Known {
        tax: tax.map(|(payout, tax)| Ok::<_, Refusal>((&tax.terms, payout.gross()?))).transpose()?,
        rule,
        beaten: named(basis.and_then(|basis| basis.won_over.as_ref()).map(|over| &over.rule)),
        base: base.as_ref(),
        touches: made_by.and_then(|entry| entry.circumstances.as_ref()).map_or(&[], |of| of.touches.as_slice()),
        recomputed: again.iter().find(|again| again.id == line.id).map(|again| again.amount),
        written,
        why: history.iter().rev().find(by_person).and_then(|step| step.why.as_deref()),
    };
    Ok(Explained { explanation: explain(&line, &known)?, history })
}

/// What the last of a conversion's entries accrued, computed again from what it says and the rules.
fn accrued_again(
    entries: &[&Entry],
    program: &Program,
    conversion: &ConversionId,
    rules: &RulesByVersion,
) -> Result<Vec<Line>> {
    let (Some((entry, earlier)), Some(moment)) = (entries.split_last(), Moment::of(entries)?) else {
        return Ok(Vec::new());
    };
    let Some(accruing) = moment.accruing() else { return Ok(Vec::new()) };
    // What was given up before it was earned anew stands in no single entry; replaying all of them tells.
    let given_up = |entries: &[&Entry]| match entries.split_last() {
        Some((last, before)) => last.what == What::Attribute && before.iter().any(|entry| !entry.lines.is_empty()),
        None => false,
    };
    if given_up(entries) {
        return Ok(Vec::new());
    }
    // An edit is rated where the sale was; what the sale earned tells where.
    let lines = if moment.has_order_before() && entry.what == What::Edit {
        let made = earlier.iter().rposition(|entry| matches!(entry.what, What::Accrue | What::Attribute));
        if made.is_some_and(|at| given_up(&earlier[..=at])) {
            return Ok(Vec::new());
        }
        made.map_or(Ok(Vec::new()), |at| accrued_again(&earlier[..=at], program, conversion, rules))?
    } else {
        Vec::new()
    };
    let mut tallies = Tallies::new(entry.tallies.iter().cloned().collect());
    let none_open = BTreeMap::new();
    let cause = entry.cause();
    Ok(moment.booking(program, conversion, rules, &none_open, &cause).accrue(&lines, &accruing, &mut tallies)?)
}

/// Walks a line's chain of entries back to its first.
pub async fn history(context: &Context, line: &Line) -> Result<Vec<HistoryStep>> {
    let mut steps = Vec::new();
    let mut next = Some(line.entry.clone());
    while let Some(at) = next.take() {
        if at.is_none() || steps.len() == MAX_HISTORY {
            break;
        }
        let Some(Sealed { entry, at, .. }) = context.store.entry(OPERATION, &at).await? else { break };
        let Entry { lines, .. } = &entry;
        let Some(change) = lines.iter().find(|change| change.id == line.id) else { break };
        next.clone_from(&change.after);
        steps.push(HistoryStep {
            at: entry.at,
            by: entry.by.clone(),
            what: entry.what,
            why: entry.why.clone(),
            state: change.to.state,
            net: change.to.net,
            entry: at.to_string(),
        });
    }
    steps.reverse();
    Ok(steps)
}
