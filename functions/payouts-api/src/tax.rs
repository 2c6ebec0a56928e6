//! Tax: forms of partners, what payees were paid in a year, and the payer's limits and rates.
//!
//! A tax number comes in here and nowhere else, and never goes out: answers have its last characters. What cannot be read is
//! therefore refused by its place alone, without a word of what stood there.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use domain::ids::PartnerId;
use domain::money::{Currency, Minor, Money, Percent, parse_decimal};
use domain::program::Program;
use domain::rules::FieldError;
use domain::tax::{
    Entity, ExcludedBecause, FormKind, KeptNumber, NumberInput, NumberKind, Return, Services, TaxForm, TaxFormInput,
    TreatyInput, YearRules,
};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Listing, Payer};
use workflows::files::Outgoing;
use workflows::tax::forms;
use workflows::tax::totals::{self, PayeeYear, YEARS};

use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Id, Paging, RawJson, parse};
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::reports::Row;
use crate::tagged::{IfMatch, Tagged, tag};
use crate::{Shared, partners, programs, reports};

const OPERATION: &str = "tax form";
/// From this share of the limit on, a payee is near it.
const NEAR_PERCENT: u8 = 80;
/// Payees read in one go for a file.
const EXPORT_PAGE: i32 = 100;

// --- Forms ------------------------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormInput {
    form: FormKind,
    name: String,
    #[serde(default)]
    entity: Option<Entity>,
    #[serde(default)]
    country: Option<String>,
    signed_on: Date,
    #[serde(default)]
    tax_number: Option<GivenNumber>,
    #[serde(default)]
    services: Option<Services>,
    #[serde(default)]
    treaty: Option<GivenTreaty>,
}

#[derive(Deserialize)]
struct GivenNumber {
    kind: NumberKind,
    number: String,
}

#[derive(Deserialize)]
struct GivenTreaty {
    country: String,
    rate: String,
    article: String,
}

/// The same refusal without what it quotes.
fn in_silence(problem: Problem) -> Problem {
    let pointer = problem.errors.first().map(|error| error.pointer.clone()).unwrap_or_default();
    Problem { errors: vec![FieldError::new(pointer, UNREADABLE)], detail: UNREADABLE.to_owned(), ..problem }
}

const UNREADABLE: &str = "is missing, or is not what stands here";

impl FormInput {
    fn form(self) -> TaxFormInput {
        TaxFormInput {
            kind: self.form,
            name: self.name,
            entity: self.entity,
            country: self.country,
            signed_on: self.signed_on,
            number: self.tax_number.map(|given| NumberInput { kind: given.kind, text: given.number }),
            services: self.services,
            treaty: self.treaty.map(|given| TreatyInput {
                country: given.country,
                rate: given.rate,
                article: given.article,
            }),
        }
    }
}

/// Finance, and the partner about themselves; to other partners nobody exists.
fn must_handle_forms(caller: &Caller, partner: &PartnerId) -> Answer<()> {
    if caller.is(partner) {
        return Ok(());
    }
    if !caller.may_see(partner) {
        return Err(Problem::not_found("partner"));
    }
    caller.must_be(&[Role::Finance])
}

pub async fn read_form(State(shared): State<Shared>, caller: Caller, Id(id): Id<PartnerId>) -> Answer<Tagged> {
    must_handle_forms(&caller, &id)?;
    let partner = partners::visible(&shared, &caller, &id).await?;
    let program = programs::load(&shared, &partner.program).await?;
    let form = shared.context.store.tax_form(OPERATION, &id).await?;
    Ok(tagged(&shared, &caller, &program, &id, form.as_ref()))
}

pub async fn put_form(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(id): Id<PartnerId>,
    body: RawJson,
) -> Answer<Tagged> {
    must_handle_forms(&caller, &id)?;
    let input: FormInput = parse(&body.get()?).map_err(in_silence)?;
    let partner = partners::visible(&shared, &caller, &id).await?;
    let program = programs::load(&shared, &partner.program).await?;
    let read = shared.context.store.tax_form(OPERATION, &id).await?;
    if_match.check(&tag(version(read.as_ref())))?;
    let form = forms::put(&shared.context, &program, &partner, read.as_ref(), input.form(), &caller.subject).await?;
    Ok(tagged(&shared, &caller, &program, &id, Some(&form)))
}

#[derive(Debug, Deserialize)]
pub struct RevokeInput {
    reason: String,
}

/// Finance learned that the form does not hold.
pub async fn revoke_form(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(id): Id<PartnerId>,
    input: Body<RevokeInput>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::Finance])?;
    let input = input.get()?;
    let mut fields = Fields::default();
    let reason = fields.text("/reason", &input.reason);
    fields.done()?;
    let partner = partners::visible(&shared, &caller, &id).await?;
    let program = programs::load(&shared, &partner.program).await?;
    let read = shared.context.store.tax_form(OPERATION, &id).await?;
    if_match.check(&tag(version(read.as_ref())))?;
    let read = read.ok_or_else(|| Problem::not_found("tax form"))?;
    let form = forms::revoke(&shared.context, &read, &reason, &caller.subject).await?;
    Ok(tagged(&shared, &caller, &program, &id, Some(&form)))
}

/// Zero: there is no form yet.
fn version(form: Option<&TaxForm>) -> u32 {
    form.map_or(0, |form| form.version)
}

fn tagged(shared: &Shared, caller: &Caller, program: &Program, id: &PartnerId, form: Option<&TaxForm>) -> Tagged {
    let today = shared.context.now().to_zoned(program.time_zone.time_zone()).date();
    let shown = match form {
        None => json!({"partnerId": id, "applies": program.tax.is_some(), "status": "missing", "form": null}),
        Some(form) => json!({
            "partnerId": id, "applies": program.tax.is_some(), "status": form.status(today), "form": form.kind,
            "name": form.name, "entity": form.entity, "country": form.country, "signedOn": form.signed_on,
            "validUntil": form.valid_until(),
            "taxNumber": form.number.as_ref().map(|number| json!({"kind": number.kind, "number": number.masked()})),
            "services": form.services,
            "treaty": form.treaty.as_ref().map(|treaty| json!({
                "country": treaty.country, "rate": treaty.rate, "article": treaty.article,
            })),
            "revocationReason": form.revoked.as_ref().map(|revoked| &revoked.reason),
            "changedAt": form.changed_at,
            // Who did it is for staff.
            "changedBy": caller.is_staff().then_some(&form.changed_by),
        }),
    };
    Tagged::version(version(form), shown)
}

// --- Totals -----------------------------------------------------------------------------------------------------------------

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfYear {
    year: i16,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NearLimit {
    year: i16,
    /// Of the limit, in percent.
    #[serde(default = "near")]
    share: u8,
}

const fn near() -> u8 {
    NEAR_PERCENT
}

fn check_year(year: i16) -> Answer<()> {
    let range = || Problem::malformed("", format!("year must be from {} to {}", YEARS.start(), YEARS.end()));
    if YEARS.contains(&year) { Ok(()) } else { Err(range()) }
}

fn must_see_totals(caller: &Caller) -> Answer<()> {
    caller.must_be(&[Role::Finance, Role::Analyst])
}

pub async fn list_totals(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<OfYear>,
    paging: Paging,
) -> Answer<Json<Value>> {
    must_see_totals(&caller)?;
    check_year(filter.year)?;
    let query = Query::new(&shared, &caller, "tax totals", &filter, paging);
    let page = page(&shared, &query, filter.year).await?;
    query.page(page.items.iter().map(shown).collect(), page.after).await
}

async fn page(shared: &Shared, query: &Query<'_>, year: i16) -> Answer<Listing<PayeeYear>> {
    let after: Option<String> = query.start().await?;
    let limit = i32::try_from(query.limit()).unwrap_or(i32::MAX);
    Ok(totals::totals(&shared.context, year, after.as_deref(), limit).await?)
}

/// Payees whose payments come near the reporting limit: whoever of them gave no tax number should be asked for it now.
pub async fn near_limit(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<NearLimit>,
    paging: Paging,
) -> Answer<Json<Value>> {
    must_see_totals(&caller)?;
    check_year(filter.year)?;
    if !(1..=100).contains(&filter.share) {
        return Err(Problem::malformed("", "share must be from 1 to 100"));
    }
    let query = Query::new(&shared, &caller, "tax near limit", &filter, paging);
    let limit = totals::rules(&shared.context, filter.year).await?.reporting_limit;
    let from = limit.proportion(filter.share.into(), 100).map_err(workflows::Refusal::from)?;
    let mut page = page(&shared, &query, filter.year).await?;
    page.items.retain(|payee| payee.counted.direct >= from && payee.is_domestic());
    let data = page.items.iter().map(|payee| {
        let mut shown = shown(payee);
        shown["reportingLimit"] = json!(dollars(limit));
        shown
    });
    query.page(data.collect(), page.after).await
}

const COLUMNS: [&str; 24] = [
    "year",
    "name",
    "taxNumberKind",
    "taxNumber",
    "partnerIds",
    "form",
    "entity",
    "country",
    "paid",
    "paidMinor",
    "paidByProcessors",
    "paidByProcessorsMinor",
    "return",
    "compensation",
    "compensationMinor",
    "taxWithheld",
    "taxWithheldMinor",
    "box1099Nec1",
    "box1099Nec4",
    "box1042S2",
    "box1042S7a",
    "excluded",
    "excludedMinor",
    "excludedBecause",
];

/// `GET /tax/totals/export`: the list as a file, whole.
pub async fn export(State(shared): State<Shared>, caller: Caller, Filter(filter): Filter<OfYear>) -> Answer<Response> {
    must_see_totals(&caller)?;
    check_year(filter.year)?;
    let name = format!("tax-totals-{}.csv", filter.year);
    let mut file = Outgoing::new(&shared.context, &shared.files, &name);
    file.row(COLUMNS).await?;
    let (mut rows, mut after) = (0, None::<String>);
    loop {
        let page = totals::totals(&shared.context, filter.year, after.as_deref(), EXPORT_PAGE).await?;
        rows += page.items.len();
        reports::check_rows(rows)?;
        for payee in &page.items {
            file.row(row(filter.year, payee).0).await?;
        }
        after = page.after;
        if after.is_none() {
            return reports::finish(&name, file).await;
        }
    }
}

fn row(year: i16, payee: &PayeeYear) -> Row {
    let ids: Vec<_> = payee.partners.iter().map(|partner| partner.id.as_str()).collect();
    let number = number_of(payee);
    let filing = &payee.filing;
    let is_on = |on| filing.on == Some(on);
    Row::default()
        .plain(year)
        .text(payee.name())
        .word(number.map(|number| number.kind))
        .plain(number.map(KeptNumber::masked).unwrap_or_default())
        .plain(ids.join(" "))
        .word(payee.form.as_ref().map(|form| form.kind))
        .word(payee.form.as_ref().map(|form| form.entity))
        .maybe(payee.country())
        .money(dollars(payee.counted.paid().unwrap_or_default()))
        .money(dollars(payee.counted.processor))
        .plain(filing.on.map_or("", Return::as_str))
        .money(dollars(filing.compensation))
        .money(dollars(filing.tax))
        // Which boxes there is something for.
        .plain(is_on(Return::Nec) && filing.compensation.is_positive())
        .plain(is_on(Return::Nec) && filing.tax.is_positive())
        .plain(is_on(Return::Form1042S) && filing.compensation.is_positive())
        .plain(is_on(Return::Form1042S) && filing.tax.is_positive())
        .money(dollars(filing.excluded))
        .plain(filing.because.map_or("", ExcludedBecause::as_str))
}

fn number_of(payee: &PayeeYear) -> Option<&KeptNumber> {
    payee.form.as_ref().filter(|form| form.revoked.is_none()).and_then(|form| form.number.as_ref())
}

fn dollars(amount: Minor) -> Money {
    Money::new(amount, Currency::USD)
}

fn shown(payee: &PayeeYear) -> Value {
    let ids: Vec<_> = payee.partners.iter().map(|partner| &partner.id).collect();
    let number = number_of(payee);
    let filing = &payee.filing;
    json!({
        "partnerIds": ids, "name": payee.name(), "country": payee.country(),
        "taxNumber": number.map(KeptNumber::masked), "taxNumberKind": number.map(|number| number.kind),
        "form": payee.form.as_ref().map(|form| form.kind), "entity": payee.form.as_ref().map(|form| form.entity),
        "paid": dollars(payee.counted.paid().unwrap_or_default()),
        "paidByProcessors": dollars(payee.counted.processor),
        "withheld": dollars(filing.tax),
        "return": filing.on,
        "boxes": match filing.on {
            Some(Return::Nec) => json!({"1": dollars(filing.compensation), "4": dollars(filing.tax)}),
            Some(Return::Form1042S) => json!({"2": dollars(filing.compensation), "7a": dollars(filing.tax)}),
            None => json!({}),
        },
        "excluded": dollars(filing.excluded), "excludedBecause": filing.because,
    })
}

// --- The payer --------------------------------------------------------------------------------------------------------------

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PayerInput {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    years: Vec<YearInput>,
}

/// What is left out of a year is as published.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct YearInput {
    year: i16,
    #[serde(default)]
    reporting_limit: Option<String>,
    #[serde(default)]
    backup_rate: Option<String>,
    #[serde(default)]
    nonresident_rate: Option<String>,
}

impl YearInput {
    fn rules(&self, at: usize, fields: &mut Fields) -> Option<YearRules> {
        let field = |name: &str| format!("/years/{at}/{name}");
        let mut rules = fields.take(&field("year"), YearRules::of(self.year, &[]))?;
        if let Some(limit) = &self.reporting_limit {
            rules.reporting_limit = fields.amount(&field("reportingLimit"), limit, Currency::USD);
        }
        let rates = [
            ("backupRate", &self.backup_rate, &mut rules.backup_rate),
            ("nonresidentRate", &self.nonresident_rate, &mut rules.nonresident_rate),
        ];
        for (name, given, rate) in rates {
            if let Some(given) = given.as_deref().and_then(|text| fields.take(&field(name), parse_decimal(text))) {
                *rate = Percent::new(given.normalize());
            }
        }
        Some(rules)
    }
}

pub async fn read_payer(State(shared): State<Shared>, caller: Caller) -> Answer<Tagged> {
    must_see_totals(&caller)?;
    let payer = totals::payer(&shared.context).await?;
    show_payer(&shared, &payer)
}

pub async fn put_payer(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    input: Body<PayerInput>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::Finance])?;
    let input = input.get()?;
    let mut fields = Fields::default();
    let name = input.name.as_deref().map(|name| fields.text("/name", name));
    let years: Vec<_> = input.years.iter().enumerate().filter_map(|(at, year)| year.rules(at, &mut fields)).collect();
    fields.done()?;
    let read = totals::payer(&shared.context).await?;
    if_match.check(&tag(read.version))?;
    let payer = totals::set_payer(&shared.context, &read, name, years, &caller.subject).await?;
    show_payer(&shared, &payer)
}

/// With what is in force this year and next.
fn show_payer(shared: &Shared, payer: &Payer) -> Answer<Tagged> {
    let show = |rules: YearRules| {
        json!({
            "year": rules.year, "reportingLimit": dollars(rules.reporting_limit), "backupRate": rules.backup_rate,
            "nonresidentRate": rules.nonresident_rate,
        })
    };
    let year = shared.context.now().to_zoned(jiff::tz::TimeZone::UTC).year();
    let mut in_force = Vec::new();
    for year in [year - 1, year, year + 1] {
        let mut shown = show(YearRules::of(year, &payer.years).map_err(workflows::Refusal::from)?);
        shown["settled"] = json!(totals::is_settled(payer, year));
        in_force.push(shown);
    }
    let years: Vec<_> = payer.years.iter().copied().map(show).collect();
    Ok(Tagged::version(
        payer.version,
        json!({"country": "US", "name": payer.name, "years": years, "inForce": in_force}),
    ))
}
