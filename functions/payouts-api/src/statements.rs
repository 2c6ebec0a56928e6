//! Statements and receipts, as JSON, CSV and PDF. A PDF is printed from the JSON and has nothing of its own.
//!
//! Every amount is signed as it moves what is owed. A date is that of the moment beside it in the program's time zone.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use domain::ids::{PartnerId, PayoutId};
use domain::money::{Minor, Money};
use domain::program::{Partner, Program};
use domain::statement::{Month, MovementKind};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use workflows::Refusal;
use workflows::files::{Outgoing, PDF, deliver};
use workflows::statements::{MonthOf, OfPayout, ReceiptOf};

use crate::caller::Caller;
use crate::extract::{Filter, Id, PartOf};
use crate::problem::{Answer, Problem};
use crate::reports::{self, Row, finish};
use crate::{Api, Shared, partners, payouts, programs, show};

#[derive(Debug, Deserialize)]
pub struct ListFilter {
    /// In the program's calendar; this one where left out.
    year: Option<i16>,
}

/// The months of a year of which there is a statement, newest first.
pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Id(id): Id<PartnerId>,
    Filter(filter): Filter<ListFilter>,
) -> Answer<Json<Value>> {
    let (program, partner) = of_partner(&shared, &caller, &id).await?;
    let zone = program.time_zone.time_zone();
    if filter.year.is_some_and(|year| !(0..=9_999).contains(&year)) {
        return Err(Problem::malformed("", "a year is from 0 to 9999"));
    }
    let year = filter.year.unwrap_or_else(|| Month::of(shared.context.now(), &zone).year());
    let mut months = workflows::statements::months(&shared.context, &program, &partner);
    months.retain(|month| month.year() == year);
    let shown = |month: &Month| {
        let period = month.period(&zone)?;
        let at = format!("/api/v1/partners/{id}/statements/{month}");
        Some(json!({
            "month": month.to_string(), "from": period.from, "until": period.until,
            "final": workflows::statements::is_final(&shared.context, &period),
            "url": at, "csv": format!("{at}.csv"), "pdf": format!("{at}.pdf"),
        }))
    };
    let data: Vec<_> = months.iter().rev().filter_map(shown).collect();
    Ok(Json(json!({ "data": data, "nextCursor": null })))
}

async fn of_partner(shared: &Shared, caller: &Caller, id: &PartnerId) -> Answer<(Program, Partner)> {
    let partner = partners::visible(shared, caller, id).await?;
    Ok((programs::load(shared, &partner.program).await?, partner))
}

/// `2026-01`, `2026-01.csv` or `2026-01.pdf`.
pub async fn of_month(
    State(shared): State<Shared>,
    caller: Caller,
    PartOf(id, document): PartOf<PartnerId, String>,
) -> Answer<Response> {
    let (program, partner) = of_partner(&shared, &caller, &id).await?;
    let (month, form) = document.split_once('.').map_or((document.as_str(), None), |(month, form)| (month, Some(form)));
    let month = month.parse().map_err(|_| Problem::not_found("statement"))?;
    if !matches!(form, None | Some("csv" | "pdf")) {
        return Err(Problem::not_found("statement"));
    }
    let of = workflows::statements::of_month(&shared.context, program, partner, month).await?;
    let name = format!("statement-{month}");
    match form {
        Some("csv") => month_csv(&shared, &name, &of).await,
        Some(_) => print(&shared, &name, show_month(&of, shared.context.now())).await,
        None => Ok(axum::response::IntoResponse::into_response(Json(show_month(&of, shared.context.now())))),
    }
}

pub async fn of_payout(State(shared): State<Shared>, caller: Caller, Id(id): Id<PayoutId>) -> Answer<Json<Value>> {
    Ok(Json(show_payout(&payout(&shared, &caller, &id).await?)?))
}

pub async fn of_payout_csv(State(shared): State<Shared>, caller: Caller, Id(id): Id<PayoutId>) -> Answer<Response> {
    payout_csv(&shared, &payout(&shared, &caller, &id).await?).await
}

pub async fn of_payout_pdf(State(shared): State<Shared>, caller: Caller, Id(id): Id<PayoutId>) -> Answer<Response> {
    let shown = show_payout(&payout(&shared, &caller, &id).await?)?;
    print(&shared, &format!("statement-{}", id.number()), shown).await
}

async fn payout(shared: &Shared, caller: &Caller, id: &PayoutId) -> Answer<OfPayout> {
    payouts::visible(shared, caller, id).await?;
    Ok(workflows::statements::of_payout(&shared.context, id).await?)
}

#[derive(Debug, Deserialize)]
pub struct WhichPayment {
    /// Counted from 1; the latest where left out.
    payment: Option<usize>,
}

pub async fn receipt(
    State(shared): State<Shared>,
    caller: Caller,
    Id(id): Id<PayoutId>,
    Filter(which): Filter<WhichPayment>,
) -> Answer<Json<Value>> {
    payouts::visible(&shared, &caller, &id).await?;
    Ok(Json(show_receipt(&workflows::statements::receipt(&shared.context, &id, which.payment).await?)))
}

pub async fn receipt_pdf(
    State(shared): State<Shared>,
    caller: Caller,
    Id(id): Id<PayoutId>,
    Filter(which): Filter<WhichPayment>,
) -> Answer<Response> {
    payouts::visible(&shared, &caller, &id).await?;
    let of = workflows::statements::receipt(&shared.context, &id, which.payment).await?;
    let name = format!("receipt-{}-{}", id.number(), of.receipt.number);
    print(&shared, &name, show_receipt(&of)).await
}

async fn print(api: &Api, name: &str, document: Value) -> Answer<Response> {
    let printer = api.printer.as_ref().ok_or_else(Problem::no_printer)?;
    let pdf = printer.print(document).await.map_err(|error| Refusal::Service("the renderer", error.to_string()))?;
    let name = format!("{name}.pdf");
    let delivered = deliver(&api.context, &api.files, &name, PDF, pdf).await?;
    Ok(reports::answer(&name, PDF, delivered)?)
}

// --- As JSON ----------------------------------------------------------------------------------------------------------

fn date(moment: Timestamp, zone: &TimeZone) -> String {
    moment.to_zoned(zone.clone()).date().to_string()
}

/// The last date of a period that ends before a moment.
fn last_date(until: Timestamp, zone: &TimeZone) -> String {
    date(until - SignedDuration::from_nanos(1), zone)
}

fn heading(kind: &str, program: &Program, partner: &Partner, at: Timestamp) -> Value {
    json!({
        "kind": kind, "timeZone": program.time_zone.name(), "currency": program.currency,
        "program": {"id": program.id, "name": program.name},
        "partner": {"id": partner.id, "name": partner.name_at(at), "code": partner.code},
    })
}

fn with(mut shown: Value, more: Value) -> Value {
    if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}

fn show_month(of: &MonthOf, now: Timestamp) -> Value {
    let MonthOf { month, program, partner, statement, is_final } = of;
    let zone = program.time_zone.time_zone();
    let money = |amount| Money::new(amount, statement.currency);
    let (period, parts) = (&statement.period, &statement.of_closing);
    let lines: Vec<_> = statement
        .lines
        .iter()
        .map(|row| {
            json!({
                "at": row.at, "date": date(row.at, &zone), "commissionId": row.line, "orderId": row.order, "kind": row.kind,
                "earned": money(row.earned), "takenBack": money(row.taken_back), "state": row.state,
                "until": row.until, "untilDate": row.until.map(|until| date(until, &zone)), "reason": row.reason,
            })
        })
        .collect();
    let payments: Vec<_> = statement
        .payments
        .iter()
        .map(|movement| {
            json!({
                "at": movement.at, "date": date(movement.at, &zone), "kind": movement.kind, "payoutId": movement.payout,
                "number": movement.payout.number(), "reference": movement.reference, "madeAt": movement.made_at,
                "madeOn": movement.made_at.map(|at| date(at, &zone)), "change": money(movement.change),
                "money": movement.money,
            })
        })
        .collect();
    let heading = heading("month", program, partner, period.until);
    with(
        heading,
        json!({
            "month": month.to_string(), "from": period.from, "until": period.until,
            "firstDate": date(period.from, &zone), "lastDate": last_date(period.until, &zone),
            "final": is_final, "asOf": (!is_final).then_some(now), "opening": money(statement.opening),
            "earned": money(statement.earned), "takenBack": money(statement.taken_back), "paid": money(statement.paid),
            "withheld": money(statement.withheld), "closing": money(statement.closing),
            "ofClosing": {
                "inReview": money(parts.in_review), "waiting": money(parts.waiting), "held": money(parts.held),
                "ready": money(parts.ready), "beingPaid": money(parts.being_paid),
            },
            "lines": lines, "payments": payments,
        }),
    )
}

fn show_payout(of: &OfPayout) -> Result<Value, Refusal> {
    let OfPayout { payout, program, partner, breakdown, failure } = of;
    let zone = program.time_zone.time_zone();
    let money = |amount| Money::new(amount, payout.currency);
    let on = |at: Option<Timestamp>| at.map(|at| date(at, &zone));
    let lines: Vec<_> = breakdown
        .lines
        .iter()
        .map(|row| {
            json!({
                "at": row.occurred_at, "date": date(row.occurred_at, &zone), "commissionId": row.line, "orderId": row.order,
                "kind": row.kind, "amount": money(row.amount), "takenBack": money(row.taken_back), "net": money(row.net),
                "carriedOver": row.carried_over, "reason": row.reason,
            })
        })
        .collect();
    let heading = heading("payout", program, partner, payout.created_at);
    Ok(with(
        heading,
        json!({
            "payoutId": payout.id, "number": payout.id.number(), "state": payout.state, "method": payout.method,
            "since": breakdown.since, "until": breakdown.until, "firstDate": on(breakdown.since),
            "lastDate": last_date(breakdown.until, &zone), "createdAt": payout.created_at,
            "createdOn": date(payout.created_at, &zone), "paidAt": payout.paid_at, "paidOn": on(payout.paid_at),
            "reference": payout.reference, "earnings": money(breakdown.earnings), "takenBack": money(breakdown.taken_back),
            "carriedOver": money(breakdown.carried_over), "withheld": money(breakdown.withheld), "amount": payout.money(),
            "conversion": payout.conversion.as_ref().map(show::rate), "pays": payout.pays()?,
            "failure": failure.as_ref().map(|step| json!({"at": step.at, "date": date(step.at, &zone), "why": step.why})),
            "lines": lines,
        }),
    ))
}

fn show_receipt(of: &ReceiptOf) -> Value {
    let ReceiptOf { payout, program, partner, receipt } = of;
    let zone = program.time_zone.time_zone();
    with(
        heading("receipt", program, partner, payout.created_at),
        json!({
            "payoutId": payout.id, "number": payout.id.number(), "payment": receipt.number, "method": payout.method,
            "paid": receipt.paid, "at": receipt.at, "date": date(receipt.at, &zone), "reference": receipt.reference,
            "paidSoFar": receipt.paid_so_far, "open": receipt.open, "amount": payout.money(),
            "withheld": Money::new(payout.withheld.negated(), payout.currency), "conversion": payout.conversion.as_ref().map(show::rate),
            "cameBack": receipt.came_back, "cameBackOn": receipt.came_back.map(|at| date(at, &zone)),
        }),
    )
}

// --- As CSV -----------------------------------------------------------------------------------------------------------

const MONTH_COLUMNS: [&str; 20] = [
    "entry",
    "at",
    "id",
    "orderId",
    "kind",
    "state",
    "until",
    "earned",
    "earnedMinor",
    "takenBack",
    "takenBackMinor",
    "change",
    "changeMinor",
    "currency",
    "money",
    "moneyMinor",
    "moneyCurrency",
    "madeAt",
    "reference",
    "reason",
];

/// What was owed when the period began, everything that changed it, and what was owed when it ended: `change` of all rows but the
/// last ones, which begin with `closing`, sums to the `change` of `closing`, and the `closing_` ones are its parts.
async fn month_csv(shared: &Shared, name: &str, of: &MonthOf) -> Answer<Response> {
    let statement = &of.statement;
    let money = |amount| Money::new(amount, statement.currency);
    let name = format!("{name}.csv");
    let mut file = Outgoing::new(&shared.context, &shared.files, &name);
    file.row(MONTH_COLUMNS).await?;
    let sum = |entry: &str, at: Timestamp, amount: Minor| {
        let row = Row::default().plain(entry).plain(at).blanks(9).money(money(amount)).plain(statement.currency);
        row.blanks(6).0
    };
    file.row(sum("opening", statement.period.from, statement.opening)).await?;
    for line in &statement.lines {
        let row = Row::default()
            .plain("commission")
            .plain(line.at)
            .plain(&line.line)
            .text(line.order.as_deref().unwrap_or_default())
            .word(line.kind)
            .word(line.state)
            .at(line.until)
            .money(money(line.earned))
            .money(money(line.taken_back))
            .money(money(line.earned.plus(line.taken_back).map_err(Refusal::from)?))
            .plain(statement.currency)
            .blanks(5)
            .text(&line.reason);
        file.row(row.0).await?;
    }
    for movement in &statement.payments {
        let tax = matches!(movement.kind, MovementKind::TaxWithheld | MovementKind::TaxGivenBack);
        let row = Row::default()
            .plain(if tax { "tax" } else { "payment" })
            .plain(movement.at)
            .plain(&movement.payout)
            .blanks(1)
            .word(movement.kind)
            .blanks(6)
            .money(money(movement.change))
            .plain(statement.currency)
            .money(movement.money)
            .plain(movement.money.currency)
            .at(movement.made_at)
            .text(movement.reference.as_deref().unwrap_or_default())
            .blanks(1);
        file.row(row.0).await?;
    }
    let (until, parts) = (statement.period.until, &statement.of_closing);
    for (entry, amount) in [
        ("closing", statement.closing),
        ("closing_in_review", parts.in_review),
        ("closing_waiting", parts.waiting),
        ("closing_held", parts.held),
        ("closing_ready", parts.ready),
        ("closing_being_paid", parts.being_paid),
    ] {
        file.row(sum(entry, until, amount)).await?;
    }
    finish(&name, file).await
}

const PAYOUT_COLUMNS: [&str; 20] = [
    "entry",
    "at",
    "id",
    "orderId",
    "kind",
    "state",
    "amount",
    "amountMinor",
    "takenBack",
    "takenBackMinor",
    "net",
    "netMinor",
    "currency",
    "carriedOver",
    "rate",
    "ratePer",
    "rateSource",
    "rateDate",
    "reference",
    "reason",
];

/// The payout's commissions, and what they come to: the `net` of `earnings`, `taken_back`, `carried_over` and `withheld` sums to that of
/// `payout`, and `sent` is what that is in the currency it is sent in.
async fn payout_csv(shared: &Shared, of: &OfPayout) -> Answer<Response> {
    let OfPayout { payout, breakdown, failure, .. } = of;
    let money = |amount| Money::new(amount, payout.currency);
    let name = format!("statement-{}.csv", payout.id.number());
    let mut file = Outgoing::new(&shared.context, &shared.files, &name);
    file.row(PAYOUT_COLUMNS).await?;
    for line in &breakdown.lines {
        let row = Row::default()
            .plain("commission")
            .plain(line.occurred_at)
            .plain(&line.line)
            .text(line.order.as_deref().unwrap_or_default())
            .word(line.kind)
            .blanks(1)
            .money(money(line.amount))
            .money(money(line.taken_back))
            .money(money(line.net))
            .plain(payout.currency)
            .plain(line.carried_over)
            .blanks(5)
            .text(&line.reason);
        file.row(row.0).await?;
    }
    for (entry, amount) in [
        ("earnings", breakdown.earnings),
        ("taken_back", breakdown.taken_back),
        ("carried_over", breakdown.carried_over),
        ("withheld", breakdown.withheld),
    ] {
        let row = Row::default().plain(entry).blanks(9).money(money(amount)).plain(payout.currency).blanks(7);
        file.row(row.0).await?;
    }
    let sent = payout.pays().map_err(Refusal::from)?;
    for (entry, net) in [("payout", payout.money()), ("sent", sent)] {
        let row = Row::default()
            .plain(entry)
            .at(payout.paid_at)
            .plain(&payout.id)
            .blanks(1)
            .word(payout.method)
            .word(payout.state)
            .blanks(4)
            .money(net)
            .plain(net.currency)
            .blanks(1)
            .rate(payout.conversion.as_ref().filter(|_| entry == "sent"))
            .text(payout.reference.as_deref().unwrap_or_default())
            .text(failure.as_ref().and_then(|step| step.why.as_deref()).unwrap_or_default());
        file.row(row.0).await?;
    }
    finish(&name, file).await
}
