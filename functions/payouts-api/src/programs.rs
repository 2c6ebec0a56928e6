//! Programs.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::anomaly::AnomalyRules;
use domain::attribution::{Attribution, Model};
use domain::ids::ProgramId;
use domain::money::Currency;
use domain::program::{ApprovalMode, Frequency, MAX_HOLD_DAYS, Program, Schedule, Zone};
use domain::rules::MAX_MINIMUM_SALES;
use domain::tax::{TaxSettings, WithoutNumber};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use workflows::Refusal;

use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Id, Paging, finish};
use crate::idempotency::Begun;
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::tagged::Tagged;
use crate::{Api, Shared, links, show};

const OPERATION: &str = "programs";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    name: String,
    #[serde(default = "usd")]
    currency: String,
    #[serde(default = "utc")]
    time_zone: String,
    #[serde(default = "thirty")]
    hold_days: u16,
    #[serde(default = "manual")]
    approval: ApprovalMode,
    #[serde(default = "fifty")]
    minimum_payout: String,
    #[serde(default = "thousand")]
    large_payout_limit: String,
    #[serde(default)]
    minimum_sales: u32,
    #[serde(default)]
    dust_sweep_days: Option<u16>,
    #[serde(default)]
    debt_write_off_days: Option<u16>,
    #[serde(default = "yes")]
    rule_sign_off: bool,
    #[serde(default)]
    min_hold_days: u16,
    #[serde(default = "three")]
    cooling_off_days: u16,
    #[serde(default)]
    schedule: ScheduleInput,
    #[serde(default)]
    attribution: AttributionInput,
    #[serde(default)]
    anomaly_rules: AnomalyRules,
    /// `US`: payouts are made by a payer in the United States.
    #[serde(default)]
    tax_payer: Option<String>,
    #[serde(default = "block")]
    without_tax_number: WithoutNumber,
    #[serde(default)]
    landing_page: Option<String>,
    #[serde(default)]
    allowed_hosts: Vec<String>,
}

fn usd() -> String {
    "USD".to_owned()
}
fn utc() -> String {
    "UTC".to_owned()
}
const fn thirty() -> u16 {
    30
}
const fn manual() -> ApprovalMode {
    ApprovalMode::Manual
}
fn fifty() -> String {
    "50.00".to_owned()
}
fn thousand() -> String {
    "1000.00".to_owned()
}
const fn block() -> WithoutNumber {
    WithoutNumber::Block
}
const fn yes() -> bool {
    true
}
const fn three() -> u16 {
    3
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ScheduleInput {
    frequency: String,
    run_day: i8,
    anchor: Date,
    cut_off_days: u16,
    pay_days: u16,
}

impl Default for ScheduleInput {
    fn default() -> Self {
        Self {
            frequency: "monthly".to_owned(),
            run_day: 1,
            anchor: Date::constant(2026, 1, 5),
            cut_off_days: 0,
            pay_days: 0,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AttributionInput {
    model: String,
    window_days: u16,
    weights: Option<BTreeMap<String, Weight>>,
}

/// A decimal, as text or as a number.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Weight {
    Text(String),
    Number(serde_json::Number),
}

impl Default for AttributionInput {
    fn default() -> Self {
        let Attribution { model, window_days, .. } = Attribution::default();
        Self { model: model.as_str().to_owned(), window_days, weights: None }
    }
}

impl AttributionInput {
    /// Weights that the model does not use are left out.
    fn attribution(self, fields: &mut Fields) -> Attribution {
        let model = Model::ALL.into_iter().find(|model| model.as_str() == self.model).unwrap_or_else(|| {
            let known: Vec<_> = Model::ALL.iter().map(|model| model.as_str()).collect();
            fields.refuse("/attribution/model", format!("must be one of {}", known.join(", ")));
            Model::default()
        });
        let text = |weight| match weight {
            Weight::Text(text) => text,
            Weight::Number(number) => number.to_string(),
        };
        let used = matches!(model, Model::PositionBased | Model::Custom);
        let weights = self.weights.filter(|_| used);
        let weights = weights.map(|weights| weights.into_iter().map(|(name, weight)| (name, text(weight))).collect());
        Attribution { model, window_days: self.window_days, weights }
    }
}

impl Input {
    fn check(self, id: ProgramId, by: &str, now: jiff::Timestamp) -> Answer<Program> {
        let mut fields = Fields::default();
        let currency = fields.take("/currency", self.currency.parse::<Currency>());
        let time_zone = fields.take("/timeZone", Zone::try_from(self.time_zone));
        for (pointer, days) in [
            ("/holdDays", self.hold_days),
            ("/minHoldDays", self.min_hold_days),
            ("/coolingOffDays", self.cooling_off_days),
        ] {
            fields.check(days <= MAX_HOLD_DAYS, pointer, "at most 3650 days");
        }
        for (pointer, days) in
            [("/dustSweepDays", self.dust_sweep_days), ("/debtWriteOffDays", self.debt_write_off_days)]
        {
            let within = days.is_none_or(|days| (1..=MAX_HOLD_DAYS).contains(&days));
            fields.check(within, pointer, "1 to 3650 days, or null for never");
        }
        fields.check(self.minimum_sales <= MAX_MINIMUM_SALES, "/minimumSales", "at most 1000");
        let attribution = self.attribution.attribution(&mut fields);
        for error in attribution.check().into_iter().chain(self.anomaly_rules.check()) {
            fields.refuse(&error.pointer, error.detail);
        }
        let tax = match self.tax_payer.as_deref() {
            None | Some("none") => None,
            Some("US") => Some(TaxSettings { without_number: self.without_tax_number }),
            Some(_) => {
                fields.refuse("/taxPayer", "none or US");
                None
            }
        };
        // Limits and returns are in US dollars, and a rate is for the payer to choose.
        let in_dollars = currency.is_none_or(|currency| currency.code() == "USD");
        fields.check(tax.is_none() || in_dollars, "/taxPayer", "a US payer's program is in USD");
        let name = fields.text("/name", &self.name);
        let schedule = self.schedule.check(&mut fields);
        let landing_page = links::landing_page(&mut fields, self.landing_page.as_deref());
        let allowed_hosts = links::allowed_hosts(&mut fields, &self.allowed_hosts);
        // Amounts can only be read where the currency is known.
        let built = currency.zip(time_zone).zip(schedule).map(|((currency, time_zone), schedule)| Program {
            id,
            name,
            currency,
            time_zone,
            hold_days: self.hold_days,
            min_hold_days: self.min_hold_days,
            approval: self.approval,
            minimum_payout: fields.amount("/minimumPayout", &self.minimum_payout, currency),
            large_payout_limit: fields.amount("/largePayoutLimit", &self.large_payout_limit, currency),
            rule_sign_off: self.rule_sign_off,
            cooling_off_days: self.cooling_off_days,
            schedule,
            minimum_sales: self.minimum_sales,
            dust_sweep_days: self.dust_sweep_days,
            debt_write_off_days: self.debt_write_off_days,
            attribution,
            anomaly_rules: self.anomaly_rules,
            tax,
            landing_page,
            allowed_hosts,
            created_at: now,
            created_by: by.to_owned(),
        });
        finish(fields, built)
    }
}

impl ScheduleInput {
    fn check(&self, fields: &mut Fields) -> Option<Schedule> {
        let frequency = match self.frequency.as_str() {
            "monthly" => Frequency::Monthly,
            "semi_monthly" => Frequency::SemiMonthly,
            "biweekly" => Frequency::Biweekly,
            "weekly" => Frequency::Weekly,
            "quarterly" => Frequency::Quarterly,
            "on_demand" => Frequency::OnDemand,
            "instant" => Frequency::Instant,
            _ => {
                let known = "monthly, semi_monthly, biweekly, weekly, quarterly, on_demand or instant";
                fields.refuse("/schedule/frequency", known);
                return None;
            }
        };
        let last_day = if frequency == Frequency::Weekly { 7 } else { 31 };
        fields.check((1..=last_day).contains(&self.run_day), "/schedule/runDay", "is not such a day");
        fields.check(self.cut_off_days <= 365, "/schedule/cutOffDays", "at most 365");
        fields.check(self.pay_days <= 365, "/schedule/payDays", "at most 365");
        Some(Schedule {
            frequency,
            run_day: self.run_day,
            anchor: self.anchor,
            cut_off_days: self.cut_off_days,
            pay_days: self.pay_days,
        })
    }
}

pub async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Begun(begun): Begun,
    input: Body<Input>,
) -> Answer<(StatusCode, Tagged)> {
    caller.must_be(&[Role::ProgramManager])?;
    let input = input.get()?;
    let context = &shared.context;
    let program = input.check(ProgramId::from_uuid(begun.uuid), &caller.subject, begun.at)?;
    let program = workflows::setup::create_program(context, &program).await?;
    Ok((StatusCode::CREATED, Tagged::whole(show::program(&program))))
}

/// A program that must exist, for other resources. `pointer` names it where a body did.
pub async fn required(api: &Api, id: &str, pointer: &str) -> Answer<Program> {
    let unknown = || Problem::invalid_field(pointer, "there is no such program");
    let id: ProgramId = id.parse().map_err(|_| unknown())?;
    api.context.store.program(OPERATION, &id).await?.ok_or_else(unknown)
}

pub async fn load(api: &Api, id: &ProgramId) -> Answer<Program> {
    Ok(api.context.store.program(OPERATION, id).await?.ok_or(Refusal::NotFound("program"))?)
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<ProgramId>) -> Answer<Tagged> {
    caller.must_be_staff()?;
    Ok(Tagged::whole(show::program(&load(&shared, &id).await?)))
}

/// There is nothing to filter programs by.
#[derive(Debug, Deserialize, Serialize)]
pub struct ListFilter {}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let query = Query::new(&shared, &caller, "programs", &filter, paging);
    let store = &shared.context.store;
    let page = query.fetch(async |after, limit| store.programs(OPERATION, after.as_deref(), limit).await).await?;
    query.page(page.items.iter().map(show::program).collect(), page.after).await
}
