//! Exchange rates from a file. They are one table for all programs. What was told of a day stays: the same again is no change, and another is
//! refused.

use axum::Json;
use axum::extract::State;
use domain::exchange::Quote;
use serde::Deserialize;
use workflows::exchange::{Taken, day_of, tell};

use super::Report;
use super::sheet::{Columns, Csv, rows};
use crate::Shared;
use crate::caller::{Caller, Role};
use crate::extract::Filter;
use crate::problem::{Answer, Problem};

const COLUMNS: Columns = Columns { needed: &["date", "from", "to", "rate", "source"], known: &[], prefix: None };

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    #[serde(default)]
    dry_run: bool,
}

pub async fn import(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(wanted): Filter<Wanted>,
    csv: Csv,
) -> Answer<Json<Report>> {
    caller.must_be(&[Role::Finance])?;
    let context = if wanted.dry_run { shared.context.rehearsal() } else { shared.context.clone() };
    let today = day_of(context.now());
    let mut report = Report::new(wanted.dry_run);
    for (line, row) in rows(csv, &COLUMNS)? {
        report.rows += 1;
        let rate = row.and_then(|row| {
            let cell = |column| row.get(column).unwrap_or_default();
            let quote = Quote {
                date: cell("date"),
                from: cell("from"),
                to: cell("to"),
                rate: cell("rate"),
                source: cell("source"),
            };
            quote.read(today).map_err(Problem::invalid)
        });
        let taken = match rate {
            Ok(rate) => tell(&context, rate, &caller.subject).await.map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        match taken {
            Ok(Taken::New) => report.applied += 1,
            Ok(Taken::Known) => report.already_applied += 1,
            Err(problem) => report.refuse(line, problem, |field| field.trim_start_matches('/').to_owned())?,
        }
    }
    Ok(Json(report))
}
