//! Explaining a line from what is stored: its sale, its rules, its partner.

use domain::explain::{Explanation, explain};
use domain::ids::LineId;
use domain::journal::{Entry, Sealed};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Refusal, Result};

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
    pub what: domain::journal::What,
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
            if step.what != domain::journal::What::Reject {
                step.why = None;
            }
        }
    }
}

pub async fn of_line(context: &Context, id: &LineId) -> Result<Explained> {
    let store = &context.store;
    let line = store.line(OPERATION, id).await?.ok_or(Refusal::NotFound("commission"))?;
    let partner = store.partner(OPERATION, &line.partner).await?.ok_or(Refusal::NotFound("partner"))?;
    let chain = match &line.conversion {
        Some(conversion) => store.chain(OPERATION, conversion.as_str()).await?,
        None => Vec::new(),
    };
    let sale = chain.iter().filter_map(|sealed| sealed.entry.event.as_ref()).find_map(|event| event.body.sale());
    let rules = match line.rule_set {
        Some(version) => {
            let set = store.rule_set(OPERATION, &line.program, version).await?.ok_or(Refusal::NotFound("rule set"))?;
            set.draft.resolve(line.currency).map_err(Refusal::Invalid)?
        }
        None => Vec::new(),
    };
    let history = history(context, &line).await?;
    Ok(Explained { explanation: explain(&line, sale, &rules, &partner)?, history })
}

/// Walks a line's chain of entries back to its first.
pub async fn history(context: &Context, line: &domain::line::Line) -> Result<Vec<HistoryStep>> {
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
