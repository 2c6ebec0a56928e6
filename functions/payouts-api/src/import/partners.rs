//! Partners from a file. The code tells whether a partner is there already; then every field of the row must be as it is.

use axum::Json;
use axum::extract::State;
use domain::program::{Partner, PayoutMethod, Program};
use serde_json::json;
use workflows::Context;

use super::sheet::{Columns, Csv, Row, rows};
use super::{Report, Wanted};
use crate::caller::{Caller, Role};
use crate::extract::Filter;
use crate::partners::{Input, MethodInput, parsed};
use crate::problem::{Answer, Problem};
use crate::{Shared, programs};

const COLUMNS: Columns = Columns {
    needed: &["name", "email", "code"],
    known: &["type", "group", "customerId", "country", "minimumPayout", "payoutCurrency", "trusted", "methodKind"],
    prefix: Some("method"),
};

pub async fn import(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(wanted): Filter<Wanted>,
    csv: Csv,
) -> Answer<Json<Report>> {
    caller.must_be(&[Role::ProgramManager])?;
    let program = programs::required(&shared, &wanted.program_id, "/programId").await?;
    let context = wanted.context(&shared.context);
    let mut report = Report::new(wanted.dry_run);
    for (line, row) in rows(csv, &COLUMNS)? {
        report.rows += 1;
        let partner = row.and_then(input).and_then(|input| parsed(&context.begin(), &program, &caller, input));
        let taken = match partner {
            Ok(partner) => take(&context, &program, &partner).await,
            Err(problem) => Err(problem),
        };
        match taken {
            Ok(Taken::Created) => report.applied += 1,
            Ok(Taken::Already) => report.already_applied += 1,
            Err(problem) => report.refuse(line, problem, column)?,
        }
    }
    Ok(Json(report))
}

/// Payout methods as they were given, whenever that was.
fn given(partner: &Partner) -> Vec<PayoutMethod> {
    let methods = partner.payout_methods.iter().cloned();
    methods.map(|method| PayoutMethod { changed: None, ..method }).collect()
}

enum Taken {
    Created,
    Already,
}

async fn take(context: &Context, program: &Program, partner: &Partner) -> Answer<Taken> {
    let Some(known) = context.store.partner_with_code("partners", &program.id, &partner.code).await? else {
        workflows::setup::create_partner(context, partner).await?;
        return Ok(Taken::Created);
    };
    let same = [
        ("/name", known.name == partner.name),
        ("/email", known.email == partner.email),
        ("/type", known.kind == partner.kind),
        ("/group", known.group == partner.group),
        ("/customerId", known.customer_id == partner.customer_id),
        ("/country", known.country == partner.country),
        ("/minimumPayout", known.minimum_payout == partner.minimum_payout),
        ("/payoutCurrency", known.payout_currency == partner.payout_currency),
        ("/trusted", known.trusted == partner.trusted),
        ("/payoutMethods", given(&known) == given(partner)),
    ];
    let others = same.into_iter().filter(|(_, same)| !same);
    let others: Vec<_> = others
        .map(|(field, _)| domain::rules::FieldError::new(field, "is another for the partner who has this code"))
        .collect();
    if others.is_empty() { Ok(Taken::Already) } else { Err(Problem::invalid(others)) }
}

/// A row as the body that would create its partner.
fn input(row: Row) -> Answer<Input> {
    let details = row.under("method");
    let methods = match row.get("methodKind") {
        None if details.is_empty() => Vec::new(),
        None => {
            return Err(Problem::invalid_field("/methodKind", "is needed where details of a payout method are given"));
        }
        Some(kind) => {
            let kind = serde_json::from_value(json!(kind));
            let kind =
                kind.map_err(|_| Problem::invalid_field("/methodKind", "is quickbooks, paypal, wise, bank or manual"))?;
            vec![MethodInput { kind, details, preferred: true }]
        }
    };
    let given = |column: &str| row.get(column).map(str::to_owned);
    Ok(Input {
        program_id: String::new(),
        name: row.text("name"),
        email: row.text("email"),
        code: row.text("code"),
        kind: given("type").unwrap_or_else(crate::partners::affiliate),
        group: given("group"),
        customer_id: given("customerId"),
        country: given("country"),
        minimum_payout: given("minimumPayout"),
        payout_currency: given("payoutCurrency"),
        trusted: row.flag("trusted")?.unwrap_or_default(),
        payout_methods: methods,
    })
}

/// The column that a field comes from.
fn column(pointer: &str) -> String {
    match pointer {
        "/payoutMethods" | "/payoutMethods/0/kind" => "methodKind",
        "/payoutMethods/0/details" => "method",
        other => other.trim_start_matches('/'),
    }
    .to_owned()
}
