//! Rule set versions: drafted, signed off by a second person, tried on their examples, published.

use domain::accrual::{Accrual, Circumstances, Credited, Terms};
use domain::conversion::{EventBody, Sale};
use domain::ids::{ConversionId, ProgramId};
use domain::line::Evidence;
use domain::program::Program;
use domain::rating::Standing;
use domain::rules::{FieldError, NOTICE, Rule, RuleSet, RuleSetDraft, RuleSetState};
use domain::tally::Tallies;
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
    let errors = example_errors(program, &rules, &draft);
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

/// The lines' amounts, in major units, of a sale by a partner and to a customer without history.
fn rate_example(program: &Program, rules: &[Rule], sale: &Sale) -> Result<Vec<String>, String> {
    let nobody = domain::ids::PartnerId::from_uuid(0);
    let circumstances = Circumstances {
        rule_set: 0,
        terms: Terms::of(program),
        evidence: Evidence::PartnerId,
        touches: Vec::new(),
        weights: None,
        partners: vec![Credited { partner: nobody, group: None, part: 1, shards: 1, campaign: None, channel: None }],
        customer: Standing::default(),
        exchange: None,
        objection: None,
    };
    let source = domain::ids::SourceId::of_api(&program.id);
    let now = program.created_at;
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
        sold_at: now,
        occurred_at: now,
        received_at: now,
        now,
        earlier: &domain::accrual::EarlierParts::new(),
    };
    let lines = accrual.lines(&mut Tallies::default()).map_err(|error| error.to_string())?;
    Ok(lines.into_iter().map(|line| line.amount_money().decimal()).collect())
}
