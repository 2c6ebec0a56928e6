//! Rule set versions: drafted, signed off by a second person, tried on their examples, published.

use domain::accrual::{Accrual, Circumstances, Credited, Terms};
use domain::conversion::{Code, EventBody, PartnerRef, Sale};
use domain::exchange::{ExchangeRate, Quote};
use domain::ids::{ConversionId, PartnerId, ProgramId};
use domain::line::Evidence;
use domain::program::{Partner, Program};
use domain::rating::Standing;
use domain::rules::{Example, FieldError, NOTICE, Rule, RuleSet, RuleSetDraft, RuleSetState};
use domain::tally::Tallies;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use store::{StoreError, Transaction};

use crate::changes::until_fresh;
use crate::context::{Beginning, Context};
use crate::error::{Refusal, Result};

const OPERATION: &str = "rule set";

/// Numbers a draft. It is refused here, not when a sale is rated, if anything about it is wrong.
pub async fn draft(
    context: &Context,
    program: &Program,
    draft: RuleSetDraft,
    author: &str,
    begun: &Beginning,
) -> Result<RuleSet> {
    let rules = draft.resolve(program.currency).map_err(Refusal::Invalid)?;
    let errors = example_errors(context, program, &rules, &draft).await?;
    if !errors.is_empty() {
        return Err(Refusal::Invalid(errors));
    }
    until_fresh(|| async {
        let versions = context.store.rule_sets(OPERATION, &program.id).await?;
        let made = |set: &&RuleSet| set.created_at == begun.at && set.author == author && set.draft == draft;
        if let Some(made) = versions.iter().find(made).filter(|_| begun.again) {
            return Ok(made.clone());
        }
        let first = !versions.iter().any(RuleSet::is_published);
        if !first && draft.effective_from < context.now() + NOTICE {
            return Err(Refusal::invalid("/effectiveFrom", "must be at least five minutes ahead"));
        }
        let set = RuleSet {
            program: program.id.clone(),
            version: versions.last().map_or(1, |last| last.version + 1),
            draft: draft.clone(),
            author: author.to_owned(),
            created_at: begun.at,
            state: RuleSetState::Draft,
        };
        let mut transaction = Transaction::new(OPERATION);
        transaction.create_rule_set(&set)?;
        context.store.commit(transaction).await?;
        Ok(set)
    })
    .await
}

pub async fn sign_off(context: &Context, program: &ProgramId, version: u32, by: &str) -> Result<RuleSet> {
    let read = context.store.rule_set(OPERATION, program, version).await?.ok_or(Refusal::NotFound("rule set"))?;
    let signed = read.clone().sign_off(by)?;
    let mut transaction = Transaction::new(OPERATION);
    transaction.replace_rule_set(&signed, &read)?;
    match context.store.commit(transaction).await {
        Ok(()) => Ok(signed),
        Err(StoreError::Stale) => Err(Refusal::Illegal("somebody changed this version meanwhile".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// A program's first version may start at once; of several published at the same time, one is the first.
pub async fn publish(context: &Context, program: &Program, version: u32, by: &str) -> Result<RuleSet> {
    until_fresh(|| async {
        let versions = context.store.rule_sets(OPERATION, &program.id).await?;
        let read = versions.iter().find(|set| set.version == version).ok_or(Refusal::NotFound("rule set"))?;
        let first = !versions.iter().any(RuleSet::is_published);
        let rules = read.draft.resolve(program.currency).map_err(Refusal::Invalid)?;
        let errors = example_errors(context, program, &rules, &read.draft).await?;
        if !errors.is_empty() {
            return Err(Refusal::Invalid(errors));
        }
        let published = read.clone().publish(by, context.now(), program.rule_sign_off, first)?;
        let mut transaction = Transaction::new(OPERATION);
        transaction.replace_rule_set(&published, read)?;
        if first {
            transaction.publish_first(&published)?;
        }
        context.store.commit(transaction).await?;
        Ok(published)
    })
    .await
}

/// Which examples do not come out as written.
async fn example_errors(
    context: &Context,
    program: &Program,
    rules: &[Rule],
    draft: &RuleSetDraft,
) -> Result<Vec<FieldError>> {
    let mut errors = Vec::new();
    for (n, example) in draft.examples.iter().enumerate() {
        let mut refuse = |field: &str, detail: String| {
            errors.push(FieldError::new(format!("/examples/{n}{field}"), detail));
        };
        let (occurred_at, sale) = match example_sale(&example.input) {
            Ok(sale) => sale,
            Err(error) => {
                refuse("/input", error);
                continue;
            }
        };
        let partner = match example_partner(context, program, rules, &sale).await? {
            Ok(partner) => partner,
            Err(field) => {
                refuse(field, "no partner of the program has it, and a rule asks who the partner is".to_owned());
                continue;
            }
        };
        let exchange = match example_rate(program, example, &sale, occurred_at) {
            Ok(exchange) => exchange,
            Err(error) => {
                refuse("/rate", error);
                continue;
            }
        };
        match rate_example(program, rules, example, (occurred_at, &sale), partner, exchange) {
            Ok(got) if got == example.expect => {}
            Ok(got) => refuse("/expect", format!("expected {:?}, the rules give {got:?}", example.expect)),
            Err(error) => refuse("", error),
        }
    }
    Ok(errors)
}

fn example_sale(input: &serde_json::Value) -> Result<(Timestamp, Sale), String> {
    let parsed = storefronts::standard::parse(input.to_string().as_bytes()).map_err(|error| error.to_string())?;
    match parsed.event.body {
        EventBody::Sale(sale) => Ok((parsed.event.occurred_at, sale)),
        _ => Err("an example is a sale".to_owned()),
    }
}

/// The partner an example names, outright or by coupon, in the group they are in; else one who is nobody in particular, as is one the
/// program does not know, unless it makes a difference who it is. Refused is the field that names them.
async fn example_partner(
    context: &Context,
    program: &Program,
    rules: &[Rule],
    sale: &Sale,
) -> Result<Result<Credited, &'static str>> {
    let store = &context.store;
    let of_program = |partner: Option<Partner>| partner.filter(|partner| partner.program == program.id);
    let mut found = None;
    let mut unknown = None;
    match &sale.partner {
        Some(PartnerRef::Id(id)) => {
            if let Ok(id) = id.parse::<PartnerId>() {
                found = of_program(store.partner(OPERATION, &id).await?);
            }
            unknown = found.is_none().then_some("/input/partner/id");
        }
        Some(PartnerRef::Code(code)) => {
            if let Ok(code) = code.parse::<Code>() {
                found = store.partner_with_code(OPERATION, &program.id, &code).await?;
            }
            unknown = found.is_none().then_some("/input/partner/code");
        }
        None => {
            for code in sale.coupon_codes() {
                if found.is_none() {
                    found = store.partner_with_code(OPERATION, &program.id, &code).await?;
                }
            }
        }
    }
    let matters = rules.iter().any(|rule| !rule.matches.partners.is_empty() || !rule.matches.groups.is_empty());
    Ok(match (found, unknown.filter(|_| matters)) {
        (Some(partner), _) => Ok(Credited::new(&partner, 1)),
        (None, Some(field)) => Err(field),
        (None, None) => Ok(Credited {
            partner: PartnerId::from_uuid(0),
            group: None,
            part: 1,
            shards: 1,
            campaign: None,
            channel: None,
        }),
    })
}

/// How a sale in another currency is converted: at the rate that the example gives.
fn example_rate(
    program: &Program,
    example: &Example,
    sale: &Sale,
    occurred_at: Timestamp,
) -> Result<Option<ExchangeRate>, String> {
    let (from, to) = (sale.currency, program.currency);
    match &example.rate {
        _ if from == to => Ok(None),
        None => Err(format!("the sale is in {from}: say what one {from} is in {to}")),
        Some(rate) => {
            let date = occurred_at.to_zoned(TimeZone::UTC).date();
            let (from, to) = (from.to_string(), to.to_string());
            let quote = Quote { date: &date.to_string(), from: &from, to: &to, rate, source: "the example" };
            let told = quote.read(date);
            told.map(Some).map_err(|errors| errors.first().map_or_else(String::new, |error| error.detail.clone()))
        }
    }
}

/// The lines' amounts, in major units, of a sale by a partner without history.
fn rate_example(
    program: &Program,
    rules: &[Rule],
    example: &Example,
    (occurred_at, sale): (Timestamp, &Sale),
    partner: Credited,
    exchange: Option<ExchangeRate>,
) -> Result<Vec<String>, String> {
    let first_attributed = example.customer_since;
    let circumstances = Circumstances {
        rule_set: 0,
        terms: Terms::of(program),
        evidence: Evidence::PartnerId,
        touches: Vec::new(),
        partners: vec![partner],
        customer: Standing { new: first_attributed.is_none(), first_attributed },
        exchange,
        objection: None,
    };
    let source = domain::ids::SourceId::of_api(&program.id);
    let accrual = Accrual {
        program,
        circumstances: &circumstances,
        rules,
        conversion: &ConversionId::derive(&program.id, &source, "example"),
        order: "example",
        sale,
        whole: sale,
        edit: None,
        attribution: 0,
        by_hand: None,
        sold_at: occurred_at,
        occurred_at,
        received_at: occurred_at,
        now: occurred_at,
        earlier: &domain::accrual::EarlierParts::new(),
    };
    let lines = accrual.lines(&mut Tallies::default()).map_err(|error| error.to_string())?;
    Ok(lines.into_iter().map(|line| line.amount_money().decimal()).collect())
}
