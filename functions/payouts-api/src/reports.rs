//! Read-only CSV files of the lists: for accounting, and for whoever likes a spreadsheet better. They change nothing, however often
//! they are asked for.
//!
//! Money stands in them twice, as a decimal and in minor units; times are RFC 3339. Text that a spreadsheet would take for a
//! formula is shown and does not run.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use domain::exchange::ExchangeRate;
use domain::ids::PartnerId;
use domain::line::Line;
use domain::money::{Minor, Money};
use domain::payout::Payout;
use domain::program::Partner;
use domain::remittance::shown_as_text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use workflows::Refusal;
use workflows::files::{CSV, Delivered, Outgoing, disposition};

use crate::caller::Caller;
use crate::extract::Filter;
use crate::listing::Wanted;
use crate::problem::{Answer, Problem};
use crate::{Shared, commissions, payouts};

const OPERATION: &str = "reports";
/// Rows of one report: what a call has time for. Narrower filters make more reports of it.
const MAX_ROWS: usize = 250_000;

/// What a file looks like to a client: the file itself, or where it is.
pub fn answer(name: &str, content_type: &str, delivered: Delivered) -> Result<Response, Refusal> {
    let response = match delivered {
        Delivered::Whole(rows) => Response::builder()
            .status(StatusCode::OK)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::CONTENT_DISPOSITION, disposition(name))
            .body(Body::from(rows)),
        Delivered::Link(link) => Response::builder()
            .status(StatusCode::SEE_OTHER)
            .header(header::LOCATION, link)
            // The link is as good as the file, for as long as it works.
            .header(header::CACHE_CONTROL, "no-store")
            .body(Body::empty()),
    };
    response.map_err(|error| Refusal::Service("HTTP", error.to_string()))
}

pub async fn finish(name: &str, file: Outgoing<'_>) -> Answer<Response> {
    Ok(answer(name, CSV, file.finish().await?)?)
}

pub fn check_rows(rows: usize) -> Answer<()> {
    if rows <= MAX_ROWS {
        return Ok(());
    }
    Err(Problem::invalid_field(
        "",
        format!("more than {MAX_ROWS} rows; ask for one program, partner or status at a time"),
    ))
}

/// The cells of one row.
#[derive(Debug, Default)]
pub struct Row(pub Vec<String>);

impl Row {
    /// Of our own making: ids, states, numbers.
    pub fn plain(mut self, value: impl ToString) -> Self {
        self.0.push(value.to_string());
        self
    }

    /// One of our own words, as the API says it.
    pub fn word(self, value: impl Serialize) -> Self {
        let word = serde_json::json!(value);
        self.plain(word.as_str().unwrap_or_default())
    }

    /// Somebody else's words.
    pub fn text(mut self, value: &str) -> Self {
        self.0.push(shown_as_text(value));
        self
    }

    pub fn maybe(self, value: Option<impl ToString>) -> Self {
        self.plain(value.map(|value| value.to_string()).unwrap_or_default())
    }

    pub fn at(self, moment: Option<Timestamp>) -> Self {
        self.maybe(moment)
    }

    /// Cells that this row has nothing for.
    pub fn blanks(mut self, count: usize) -> Self {
        self.0.extend(std::iter::repeat_n(String::new(), count));
        self
    }

    /// How an amount is converted, where it is: `per` units of the one currency are `rate` units of the other, by whom, and of which day. The
    /// numbers are those that were published: one of them is 1, unless the rate is derived through a third currency.
    pub fn rate(self, rate: Option<&ExchangeRate>) -> Self {
        match rate {
            Some(by) => self.plain(by.rate.normalize()).plain(by.per.normalize()).text(&by.source).plain(by.date),
            None => self.blanks(4),
        }
    }

    /// Decimal, then minor units.
    pub fn money(self, money: Money) -> Self {
        self.plain(money.decimal()).plain(money.amount.units())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PayoutReport {
    /// Every payout as the list shows it.
    Payouts,
    /// What accounting books: who, how much before and after tax, how it was paid.
    Accounting,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PayoutsWanted {
    format: PayoutReport,
    partner_id: Option<String>,
    program_id: Option<String>,
    status: Option<String>,
    state: Option<String>,
}

const PAYOUT_COLUMNS: [&str; 25] = [
    "id",
    "number",
    "programId",
    "partnerId",
    "runId",
    "exportId",
    "state",
    "method",
    "amount",
    "amountMinor",
    "currency",
    "pays",
    "paysMinor",
    "paid",
    "paidMinor",
    "paidCurrency",
    "lineCount",
    "version",
    "createdAt",
    "approvedAt",
    "submittedAt",
    "paidAt",
    "reference",
    "withheld",
    "withheldMinor",
];
const ACCOUNTING_COLUMNS: [&str; 24] = [
    "date",
    "number",
    "partnerId",
    "partnerName",
    "partnerEmail",
    "gross",
    "grossMinor",
    "withheld",
    "withheldMinor",
    "net",
    "netMinor",
    "currency",
    "exchangeRate",
    "exchangeRatePer",
    "rateSource",
    "rateDate",
    "pays",
    "paysMinor",
    "paysCurrency",
    "state",
    "method",
    "reference",
    "approvedAt",
    "paidAt",
];

/// `GET /payouts/export`, under the filters of `GET /payouts`.
pub async fn payouts(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(asked): Filter<PayoutsWanted>,
) -> Answer<Response> {
    let PayoutsWanted { format, partner_id, program_id, status, state } = asked;
    let wanted = Wanted { partner_id, program_id, status, state };
    let accounting = format == PayoutReport::Accounting;
    if accounting {
        caller.must_be_staff()?;
    }
    let mut walk = payouts::Walk::over(&shared, &caller, &wanted).await?;
    let name = if accounting { "accounting.csv" } else { "payouts.csv" };
    let mut file = Outgoing::new(&shared.context, &shared.files, name);
    file.row(if accounting { ACCOUNTING_COLUMNS.as_slice() } else { PAYOUT_COLUMNS.as_slice() }).await?;
    let mut rows = 0;
    loop {
        let (found, more) = walk.next().await?;
        rows += found.len();
        check_rows(rows)?;
        let partners = if accounting { partners_of(&shared, &found).await? } else { BTreeMap::new() };
        for payout in &found {
            let row =
                if accounting { accounting_row(payout, partners.get(&payout.partner))? } else { payout_row(payout)? };
            file.row(row.0).await?;
        }
        if !more {
            return finish(name, file).await;
        }
    }
}

async fn partners_of(shared: &Shared, payouts: &[Payout]) -> Answer<BTreeMap<PartnerId, Partner>> {
    let ids: BTreeSet<_> = payouts.iter().map(|payout| payout.partner.clone()).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let partners = shared.context.store.partners_by_id(OPERATION, &ids).await?;
    Ok(partners.into_iter().map(|partner| (partner.id.clone(), partner)).collect())
}

fn payout_row(payout: &Payout) -> Result<Row, Refusal> {
    let pays = payout.pays()?;
    Ok(Row::default()
        .plain(&payout.id)
        .plain(payout.id.number())
        .plain(&payout.program)
        .plain(&payout.partner)
        .plain(&payout.run)
        .maybe(payout.export.as_ref())
        .word(payout.state)
        .word(payout.method)
        .money(payout.money())
        .plain(payout.currency)
        .money(pays)
        .money(Money::new(payout.paid, pays.currency))
        .plain(pays.currency)
        .plain(payout.line_count)
        .plain(payout.content_version)
        .plain(payout.created_at)
        .at(payout.approved_at)
        .at(payout.submitted_at)
        .at(payout.paid_at)
        .text(payout.reference.as_deref().unwrap_or_default())
        .money(Money::new(payout.withheld, payout.currency)))
}

fn accounting_row(payout: &Payout, partner: Option<&Partner>) -> Result<Row, Refusal> {
    let pays = payout.pays()?;
    let in_currency = |amount: Minor| Money::new(amount, payout.currency);
    Ok(Row::default()
        // The day it is booked for: paid, else approved, else drafted.
        .plain(payout.paid_at.or(payout.approved_at).unwrap_or(payout.created_at))
        .plain(payout.id.number())
        .plain(&payout.partner)
        .text(partner.map_or("", |partner| &partner.name))
        .text(partner.map_or("", |partner| &partner.email))
        .money(in_currency(payout.gross()?))
        .money(in_currency(payout.withheld))
        .money(payout.money())
        .plain(payout.currency)
        .rate(payout.conversion.as_ref())
        .money(pays)
        .plain(pays.currency)
        .word(payout.state)
        .word(payout.method)
        .text(payout.reference.as_deref().unwrap_or_default())
        .at(payout.approved_at)
        .at(payout.paid_at))
}

const COMMISSION_COLUMNS: [&str; 20] = [
    "id",
    "conversionId",
    "orderId",
    "productIds",
    "programId",
    "partnerId",
    "kind",
    "state",
    "amount",
    "amountMinor",
    "net",
    "netMinor",
    "currency",
    "occurredAt",
    "dueAt",
    "approvedAt",
    "paidAt",
    "payoutId",
    "reason",
    "version",
];

/// `GET /commissions/export`, under the filters of `GET /commissions`.
pub async fn commissions(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(wanted): Filter<Wanted>,
) -> Answer<Response> {
    let mut walk = commissions::Walk::over(&shared, &caller, &wanted).await?;
    let name = "commissions.csv";
    let mut file = Outgoing::new(&shared.context, &shared.files, name);
    file.row(COMMISSION_COLUMNS).await?;
    let mut rows = 0;
    loop {
        let (found, more) = walk.next().await?;
        rows += found.len();
        check_rows(rows)?;
        for line in &found {
            file.row(commission_row(line)?.0).await?;
        }
        if !more {
            return finish(name, file).await;
        }
    }
}

fn commission_row(line: &Line) -> Result<Row, Refusal> {
    Ok(Row::default()
        .plain(&line.id)
        .maybe(line.conversion.as_ref())
        .text(line.order.as_deref().unwrap_or_default())
        .text(&line.products.join(" "))
        .plain(&line.program)
        .plain(&line.partner)
        .word(line.kind)
        .word(line.state.name())
        .money(line.amount_money())
        .money(Money::new(line.net()?, line.currency))
        .plain(line.currency)
        .plain(line.occurred_at)
        .plain(line.due_at)
        .at(line.approved_at)
        .at(line.paid_at)
        .maybe(line.payout().map(|(payout, _)| payout))
        .text(line.reason().unwrap_or_default())
        .plain(line.version))
}
