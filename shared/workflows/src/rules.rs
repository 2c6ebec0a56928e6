//! Rule set versions: drafted, signed off by a second person, tried on their examples, published.

use domain::conversion::{EventBody, Sale};
use domain::ids::ProgramId;
use domain::money::Money;
use domain::program::Program;
use domain::rules::{FieldError, Rule, RuleSet, RuleSetDraft, RuleSetState};
use store::{StoreError, Transaction};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "rule set";

/// Numbers a draft. It is refused here, not when a sale is rated, if anything about it is wrong.
pub async fn draft(context: &Context, program: &Program, draft: RuleSetDraft, author: &str) -> Result<RuleSet> {
    let rules = draft.resolve(program.currency).map_err(Refusal::Invalid)?;
    let errors = example_errors(program, &rules, &draft);
    if !errors.is_empty() {
        return Err(Refusal::Invalid(errors));
    }
    until_fresh(|| async {
        let versions = context.store.rule_sets(OPERATION, &program.id).await?;
        let set = RuleSet {
            program: program.id.clone(),
            version: versions.last().map_or(1, |last| last.version + 1),
            draft: draft.clone(),
            author: author.to_owned(),
            created_at: context.now(),
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
    change(context, program, version, |set| Ok(set.sign_off(by)?)).await
}

pub async fn publish(context: &Context, program: &Program, version: u32, by: &str) -> Result<RuleSet> {
    let versions = context.store.rule_sets(OPERATION, &program.id).await?;
    let first = !versions.iter().any(RuleSet::is_published);
    change(context, &program.id, version, |set| {
        let rules = set.draft.resolve(program.currency).map_err(Refusal::Invalid)?;
        let errors = example_errors(program, &rules, &set.draft);
        if !errors.is_empty() {
            return Err(Refusal::Invalid(errors));
        }
        Ok(set.publish(by, context.now(), program.rule_sign_off, first)?)
    })
    .await
}

async fn change(
    context: &Context,
    program: &ProgramId,
    version: u32,
    apply: impl Fn(RuleSet) -> Result<RuleSet>,
) -> Result<RuleSet> {
    let read = context.store.rule_set(OPERATION, program, version).await?.ok_or(Refusal::NotFound("rule set"))?;
    let changed = apply(read.clone())?;
    let mut transaction = Transaction::new(OPERATION);
    transaction.replace_rule_set(&changed, &read)?;
    match context.store.commit(transaction).await {
        Ok(()) => Ok(changed),
        Err(StoreError::Stale) => Err(Refusal::Illegal("somebody changed this version meanwhile".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Which examples do not come out as written.
fn example_errors(program: &Program, rules: &[Rule], draft: &RuleSetDraft) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (n, example) in draft.examples.iter().enumerate() {
        let at = format!("/examples/{n}");
        match example_sale(&example.input) {
            Ok(sale) => match rate_example(program, rules, &sale) {
                Ok(got) if got == example.expect => {}
                Ok(got) => errors.push(FieldError::new(
                    format!("{at}/expect"),
                    format!("expected {:?}, the rules give {got:?}", example.expect),
                )),
                Err(error) => errors.push(FieldError::new(at, error)),
            },
            Err(error) => errors.push(FieldError::new(format!("{at}/input"), error)),
        }
    }
    errors
}

fn example_sale(input: &serde_json::Value) -> Result<Sale, String> {
    let parsed = storefronts::standard::parse(input.to_string().as_bytes()).map_err(|error| error.to_string())?;
    match parsed.event.body {
        EventBody::Sale(sale) => Ok(sale),
        _ => Err("an example is a sale".to_owned()),
    }
}

/// The lines' amounts, in major units, of a sale by a partner without history.
fn rate_example(program: &Program, rules: &[Rule], sale: &Sale) -> Result<Vec<String>, String> {
    let nobody = domain::program::Partner {
        id: domain::ids::PartnerId::from_uuid(0),
        program: program.id.clone(),
        name: String::new(),
        email: String::new(),
        code: "EXAMPLE".parse().map_err(|error: domain::conversion::BadCode| error.to_string())?,
        kind: String::new(),
        group: None,
        customer_id: None,
        minimum_payout: None,
        trusted: false,
        status: domain::program::PartnerStatus::Active,
        payout_methods: Vec::new(),
        shards: 1,
        created_at: program.created_at,
        created_by: String::new(),
    };
    let mut amounts = Vec::new();
    for earning in domain::rating::rate(sale, rules, &nobody, |_| 0).map_err(|error| error.to_string())? {
        let shares: Vec<_> = earning.rule.slices.iter().map(|slice| slice.share).collect();
        for amount in earning.basis.earned.split(&shares).map_err(|error| error.to_string())? {
            amounts.push(Money::new(amount, program.currency).decimal());
        }
    }
    Ok(amounts)
}
