//! Files of conversions, partners or exchange rates, as CSV (RFC 4180, UTF-8, a header row). Each row stands alone: one that is refused stops
//! no other, and a row that was taken before is found taken, so a file may be sent again, whole or in part.
//!
//! A dry run takes the same path on a rehearsal of the table: it writes nothing, and sees the rows before each row of the
//! same call.

mod conversions;
mod exchange_rates;
mod partners;
mod sheet;

use domain::rules::FieldError;
use serde::{Deserialize, Serialize};
use workflows::Context;

use crate::problem::{Answer, Problem};

pub use conversions::import as conversions;
pub use exchange_rates::import as exchange_rates;
pub use partners::import as partners;

/// Rows of one call: what a function books well within the time API Gateway waits.
const MAX_ROWS: usize = 200;
/// Faults told of one row.
const MAX_FAULTS: usize = 5;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    program_id: String,
    #[serde(default)]
    dry_run: bool,
}

impl Wanted {
    /// What the rows are booked with.
    fn context(&self, context: &Context) -> Context {
        if self.dry_run { context.rehearsal() } else { context.clone() }
    }
}

/// What became of the rows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    dry_run: bool,
    rows: usize,
    applied: usize,
    already_applied: usize,
    awaiting_sale: usize,
    unattributed: usize,
    refused: usize,
    errors: Vec<RowError>,
}

#[derive(Debug, Serialize)]
struct RowError {
    /// In the file as sent, from 1.
    line: u64,
    column: String,
    detail: String,
}

impl Report {
    const fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            rows: 0,
            applied: 0,
            already_applied: 0,
            awaiting_sale: 0,
            unattributed: 0,
            refused: 0,
            errors: Vec::new(),
        }
    }

    /// Notes that a row was refused. What trying again may mend ends the call instead: the rows before it will be found taken.
    fn refuse(&mut self, line: u64, problem: Problem, column: impl Fn(&str) -> String) -> Answer<()> {
        if problem.status >= 500 || problem.status == 429 {
            return Err(problem);
        }
        self.refused += 1;
        let mut faults = problem.errors;
        if faults.is_empty() {
            faults.push(FieldError::new("", problem.detail));
        }
        faults.truncate(MAX_FAULTS);
        let told =
            faults.into_iter().map(|fault| RowError { line, column: column(&fault.pointer), detail: fault.detail });
        self.errors.extend(told);
        Ok(())
    }
}
