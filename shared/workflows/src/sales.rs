//! Minimum sales: counted from a partner's lines themselves, the oldest first, no further than needed.

use std::collections::BTreeSet;

use domain::conversion::Action;
use domain::line::{Line, LineKind, StateName};
use domain::money::Minor;
use domain::program::{Partner, Program};
use domain::schedule::is_matured;
use jiff::Timestamp;

use crate::context::Context;
use crate::error::Result;

/// Lines looked at in one go.
const PAGE: usize = 200;

/// How the sales of a partner stand against what its payable lines need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sales {
    /// Distinct sales that are neither rejected nor reversed and whose hold period is over; counted up to what is needed.
    pub count: u32,
    /// What is payable but waits for more sales.
    pub blocked: Minor,
    /// How many more it takes for some of that.
    pub missing: u32,
}

/// As it stands `at` a moment.
pub async fn of(
    context: &Context,
    operation: &'static str,
    program: &Program,
    partner: &Partner,
    payable: &[Line],
    at: Timestamp,
) -> Result<Sales> {
    let needs = |line: &&Line| line.lacks_sales(0, program.minimum_sales);
    let needed = |line: &Line| line.minimum_sales.unwrap_or(program.minimum_sales);
    let Some(most) = payable.iter().filter(needs).map(needed).max() else { return Ok(Sales::default()) };
    let count = count(context, operation, partner, most, at).await?;
    let lacking = || payable.iter().filter(|line| line.lacks_sales(count, program.minimum_sales));
    let blocked = Minor::total(lacking().map(Line::net).collect::<Result<Vec<_>, _>>()?)?;
    Ok(Sales { count, blocked, missing: lacking().map(needed).min().map_or(0, |needed| needed - count) })
}

async fn count(context: &Context, operation: &'static str, partner: &Partner, most: u32, at: Timestamp) -> Result<u32> {
    let mut sales = BTreeSet::new();
    let enough = usize::try_from(most).unwrap_or(usize::MAX);
    for shard in 0..partner.shards.max(1) {
        let mut after = None;
        loop {
            let page = context.store.oldest_lines(operation, partner, shard, after.as_deref(), PAGE).await?;
            for line in &page.items {
                let stands = !matches!(line.state.name(), StateName::Rejected | StateName::Reversed);
                let is_sale = line.kind == LineKind::Commission && line.action == Action::Sale;
                if stands && is_sale && is_matured(line.due_at, at) {
                    sales.extend(line.conversion.clone());
                }
            }
            after = page.after;
            if sales.len() >= enough {
                return Ok(most);
            }
            if after.is_none() {
                break;
            }
        }
    }
    Ok(u32::try_from(sales.len()).unwrap_or(most))
}
