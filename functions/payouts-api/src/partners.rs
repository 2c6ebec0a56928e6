//! Partners.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::balance::{NotPayable, NotPayableCode};
use domain::conversion::Code;
use domain::ids::PartnerId;
use domain::money::Currency;
use domain::program::{
    MAX_FORMER_NAMES, MAX_SUSPENSIONS, MethodKind, Partner, PartnerStatus, PayoutMethod, Program, is_email,
};
use domain::tax::Country;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use workflows::Beginning;

use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Id, Paging, finish};
use crate::idempotency::Begun;
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::tagged::{IfMatch, Tagged, tag};
use crate::{Api, Shared, programs, show};

const OPERATION: &str = "partners";
const MAX_METHODS: usize = 10;
const TOO_OFTEN: &str = "the partner has been suspended as often as a partner may";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    pub program_id: String,
    pub name: String,
    pub email: String,
    pub code: String,
    #[serde(rename = "type", default = "affiliate")]
    pub kind: String,
    #[serde(default)]
    pub group: Option<String>,
    #[serde(default)]
    pub customer_id: Option<String>,
    #[serde(default)]
    pub country: Option<String>,
    #[serde(default)]
    pub minimum_payout: Option<String>,
    #[serde(default)]
    pub payout_currency: Option<String>,
    #[serde(default)]
    pub trusted: bool,
    #[serde(default)]
    pub payout_methods: Vec<MethodInput>,
}

#[derive(Debug, Deserialize)]
pub struct MethodInput {
    pub kind: MethodKind,
    #[serde(default)]
    pub details: BTreeMap<String, String>,
    #[serde(default)]
    pub preferred: bool,
}

pub fn affiliate() -> String {
    "affiliate".to_owned()
}

pub async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Begun(begun): Begun,
    input: Body<Input>,
) -> Answer<(StatusCode, Tagged)> {
    caller.must_be(&[Role::ProgramManager])?;
    let input = input.get()?;
    let program = programs::required(&shared, &input.program_id, "/programId").await?;
    let partner = parsed(&begun, &program, &caller, input)?;
    let partner = workflows::setup::create_partner(&shared.context, &partner).await?;
    Ok((StatusCode::CREATED, tagged(&partner, &program)))
}

/// A new partner of the program, if nothing is wrong with the fields.
pub fn parsed(begun: &Beginning, program: &Program, caller: &Caller, input: Input) -> Answer<Partner> {
    let mut fields = Fields::default();
    let name = fields.text("/name", &input.name);
    let kind = fields.text("/type", &input.kind);
    let customer_id = input.customer_id.as_deref().map(|id| fields.text("/customerId", id));
    let country = input.country.as_deref().and_then(|code| fields.take("/country", code.parse::<Country>()));
    let group = input.group.as_deref().map(|group| fields.text("/group", group));
    fields.check(is_email(&input.email), "/email", "is not an e-mail address");
    let code = fields.take("/code", input.code.parse::<Code>());
    let minimum_payout =
        input.minimum_payout.as_deref().map(|text| fields.amount("/minimumPayout", text, program.currency));
    let payout_currency = payout_currency(&mut fields, input.payout_currency.as_deref(), program);
    let payout_methods = methods(&mut fields, input.payout_methods);
    let partner = code.map(|code| Partner {
        id: PartnerId::from_uuid(begun.uuid),
        program: program.id.clone(),
        name,
        former_names: Vec::new(),
        email: input.email.trim().to_owned(),
        code,
        kind,
        group,
        customer_id,
        minimum_payout,
        payout_currency,
        country,
        trusted: input.trusted,
        status: PartnerStatus::Active,
        suspensions: Vec::new(),
        payout_methods,
        had_details: false,
        shards: 1,
        version: 1,
        created_at: begun.at,
        created_by: caller.subject.clone(),
    });
    finish(fields, partner)
}

/// What may change of a partner. What is left out stays; `null` clears it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    #[serde(default)]
    name: Option<String>,
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    group: Field,
    #[serde(default)]
    customer_id: Field,
    #[serde(default)]
    country: Field,
    #[serde(default)]
    minimum_payout: Field,
    #[serde(default)]
    payout_currency: Field,
    #[serde(default)]
    trusted: Option<bool>,
    #[serde(default)]
    status: Option<PartnerStatus>,
    /// All of them.
    #[serde(default)]
    payout_methods: Option<Vec<MethodInput>>,
}

/// A field that may be cleared: what is `null` is told from what is left out.
#[derive(Debug, Default)]
enum Field {
    #[default]
    LeftOut,
    Given(Option<String>),
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::Given)
    }
}

pub async fn change(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(id): Id<PartnerId>,
    input: Body<Change>,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager])?;
    let input = input.get()?;
    let read = visible(&shared, &caller, &id).await?;
    if_match.check(&tag(read.version))?;
    let program = programs::load(&shared, &read.program).await?;
    let mut fields = Fields::default();
    let mut partner = Partner { version: read.version + 1, ..read.clone() };
    if let Some(name) = &input.name {
        partner.rename(fields.text("/name", name), shared.context.now());
        let often = partner.former_names.len() > MAX_FORMER_NAMES;
        fields.check(!often, "/name", "has changed as often as a name may");
    }
    if let Some(kind) = &input.kind {
        partner.kind = fields.text("/type", kind);
    }
    if let Field::Given(group) = &input.group {
        partner.group = group.as_deref().map(|group| fields.text("/group", group));
    }
    if let Field::Given(customer) = &input.customer_id {
        partner.customer_id = customer.as_deref().map(|id| fields.text("/customerId", id));
    }
    if let Field::Given(country) = &input.country {
        partner.country = country.as_deref().and_then(|code| fields.take("/country", code.parse::<Country>()));
    }
    if let Field::Given(minimum) = &input.minimum_payout {
        partner.minimum_payout = minimum.as_deref().map(|text| fields.amount("/minimumPayout", text, program.currency));
    }
    if let Some(given) = input.payout_methods {
        let given = methods(&mut fields, given);
        partner.give_details(given, &caller.subject, shared.context.now());
    }
    if let Field::Given(currency) = &input.payout_currency {
        partner.payout_currency = payout_currency(&mut fields, currency.as_deref(), &program);
    }
    partner.set_status(input.status.unwrap_or(partner.status), shared.context.now());
    fields.check(partner.suspensions.len() <= MAX_SUSPENSIONS, "/status", TOO_OFTEN);
    fields.done()?;
    partner.trusted = input.trusted.unwrap_or(partner.trusted);
    workflows::setup::change_partner(&shared.context, &partner, &read, &caller.subject).await?;
    Ok(tagged(&partner, &program))
}

/// What the partner is paid in. The program's own currency needs no conversion, so that it is the same as none.
fn payout_currency(fields: &mut Fields, given: Option<&str>, program: &Program) -> Option<Currency> {
    let currency = fields.take("/payoutCurrency", given?.parse::<Currency>());
    currency.filter(|currency| *currency != program.currency)
}

pub async fn suspend(state: State<Shared>, caller: Caller, if_match: IfMatch, id: Id<PartnerId>) -> Answer<Tagged> {
    set_status(state, caller, if_match, id, PartnerStatus::Suspended).await
}

pub async fn activate(state: State<Shared>, caller: Caller, if_match: IfMatch, id: Id<PartnerId>) -> Answer<Tagged> {
    set_status(state, caller, if_match, id, PartnerStatus::Active).await
}

/// Being so already is success.
async fn set_status(
    State(shared): State<Shared>,
    caller: Caller,
    if_match: IfMatch,
    Id(id): Id<PartnerId>,
    status: PartnerStatus,
) -> Answer<Tagged> {
    caller.must_be(&[Role::ProgramManager])?;
    let read = visible(&shared, &caller, &id).await?;
    if_match.check(&tag(read.version))?;
    let program = programs::load(&shared, &read.program).await?;
    let partner = if read.status == status {
        read
    } else {
        let mut partner = Partner { version: read.version + 1, ..read.clone() };
        partner.set_status(status, shared.context.now());
        if partner.suspensions.len() > MAX_SUSPENSIONS {
            return Err(Problem::conflict(TOO_OFTEN));
        }
        workflows::setup::change_partner(&shared.context, &partner, &read, &caller.subject).await?;
        partner
    };
    Ok(tagged(&partner, &program))
}

fn tagged(partner: &Partner, program: &Program) -> Tagged {
    Tagged::version(partner.version, show::partner(partner, program))
}

fn methods(fields: &mut Fields, inputs: Vec<MethodInput>) -> Vec<PayoutMethod> {
    fields.check(inputs.len() <= MAX_METHODS, "/payoutMethods", "at most 10 payout methods");
    let preferred = inputs.iter().filter(|method| method.preferred).count();
    fields.check(preferred <= 1, "/payoutMethods", "at most one can be preferred");
    let mut methods: Vec<PayoutMethod> = Vec::with_capacity(inputs.len());
    for (n, input) in inputs.into_iter().enumerate() {
        let at = format!("/payoutMethods/{n}");
        let MethodInput { kind, details, preferred } = input;
        let method = PayoutMethod { kind, details, preferred, changed: None };
        let small = method.details.iter().all(|(name, value)| name.len() <= 40 && value.len() <= 254);
        fields.check(small && method.details.len() <= 20, &format!("{at}/details"), "are too long");
        fields.check(methods.iter().all(|other| other.kind != method.kind), &format!("{at}/kind"), "is given twice");
        fields.take(&format!("{at}/details"), method.check());
        methods.push(method);
    }
    methods
}

/// A partner the caller may see; what they may not see does not exist.
pub async fn visible(api: &Api, caller: &Caller, id: &PartnerId) -> Answer<Partner> {
    let partner = if caller.may_see(id) { api.context.store.partner(OPERATION, id).await? } else { None };
    partner.ok_or_else(|| Problem::not_found("partner"))
}

pub async fn read(State(shared): State<Shared>, caller: Caller, Id(id): Id<PartnerId>) -> Answer<Tagged> {
    let partner = visible(&shared, &caller, &id).await?;
    let program = programs::load(&shared, &partner.program).await?;
    Ok(tagged(&partner, &program))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListFilter {
    program_id: String,
    status: Option<PartnerStatus>,
    /// `due`: paid by the next run; `due_incomplete`: payable, but something is in the way.
    payment: Option<Payment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Payment {
    Due,
    DueIncomplete,
}

impl Payment {
    fn fits(self, reasons: &[NotPayable]) -> bool {
        use NotPayableCode::{
            BelowThreshold, MinimumSales, NegativeBalance, NextRun, NoPayoutMethod, PartnerSuspended, TaxFormMissing,
        };
        reasons.iter().any(|reason| match self {
            Self::Due => reason.reason.code == NextRun,
            Self::DueIncomplete => {
                matches!(
                    reason.reason.code,
                    BelowThreshold
                        | MinimumSales
                        | NegativeBalance
                        | NoPayoutMethod
                        | PartnerSuspended
                        | TaxFormMissing
                )
            }
        })
    }
}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let id = filter.program_id.parse().map_err(|_| Problem::not_found("program"))?;
    let program = programs::load(&shared, &id).await?;
    let query = Query::new(&shared, &caller, "partners", &filter, paging);
    let store = &shared.context.store;
    let page = query.fetch(async |after, limit| store.partners(OPERATION, &id, after.as_deref(), limit).await).await?;
    let mut data = Vec::with_capacity(page.items.len());
    for partner in &page.items {
        if filter.status.is_some_and(|status| status != partner.status) {
            continue;
        }
        let balance = workflows::balances::of(&shared.context, &program, partner).await?;
        if filter.payment.is_some_and(|payment| !payment.fits(&balance.not_payable_because)) {
            continue;
        }
        let mut shown = show::partner(partner, &program);
        shown["notPayableBecause"] = json!(balance.not_payable_because);
        data.push(shown);
    }
    query.page(data, page.after).await
}
