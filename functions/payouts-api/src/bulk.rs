//! Bulk calls: each id has its own result, in the order asked.

use std::collections::BTreeSet;

use axum::Json;
use domain::ids::LineId;
use serde_json::{Value, json};
use workflows::review::{Verdict, review, review_atomically};
use workflows::together::together;
use workflows::{Context, Refusal};

use crate::problem::{Answer, Problem};

pub fn check_count(count: usize, most: usize, pointer: &str) -> Answer<()> {
    if (1..=most).contains(&count) {
        Ok(())
    } else {
        Err(Problem::invalid_field(pointer, format!("needs 1 to {most} entries")))
    }
}

/// What became of one id.
pub type One = (String, Result<(), Problem>);

pub fn results(results: Vec<One>) -> Json<Value> {
    let results: Vec<_> = results
        .into_iter()
        .map(|(id, result)| match result {
            Ok(()) => json!({"id": id, "ok": true}),
            Err(problem) => json!({"id": id, "ok": false, "problem": problem}),
        })
        .collect();
    Json(json!({ "results": results }))
}

/// A verdict about commissions: each by itself, or all together or none.
pub async fn decide(
    context: &Context,
    ids: Vec<String>,
    verdict: &Verdict,
    atomic: bool,
    by: &str,
) -> Answer<Json<Value>> {
    let parsed: Vec<(String, Result<LineId, Problem>)> =
        ids.into_iter().map(|id| (id.clone(), parse(&id, "commission"))).collect();
    let ids: Vec<LineId> = parsed.iter().filter_map(|(_, id)| id.clone().ok()).collect();
    let refused_together = || Problem::conflict("nothing was changed, because another commission was refused");
    if atomic && ids.len() < parsed.len() {
        let refused = parsed.into_iter().map(|(id, parsed)| (id, parsed.and_then(|_| Err(refused_together()))));
        return Ok(results(refused.collect()));
    }
    let decided = if atomic {
        review_atomically(context, &ids, verdict, by).await?
    } else {
        review(context, &ids, verdict, by).await?
    };
    let mut decided = decided.into_iter();
    // What is transient fails its id alone, too: the others are done.
    let each = parsed.into_iter().map(|(id, parsed)| {
        let result = parsed.and_then(|_| decided.next().unwrap_or(Ok(())).map_err(Problem::from));
        (id, result)
    });
    Ok(results(each.collect()))
}

/// Changes that differ from id to id: one after the other, each by itself, or all together or none. What was asked of an id that is
/// not acceptable is its refusal.
pub async fn each<T: Clone, F: Future<Output = Result<(), Refusal>>>(
    context: &Context,
    operation: &'static str,
    what: &str,
    asked: Vec<(String, Result<T, Problem>)>,
    atomic: bool,
    change: impl Fn(Context, T) -> F,
) -> Answer<Json<Value>> {
    let mut named = BTreeSet::new();
    let (mut ids, mut changes) = (Vec::with_capacity(asked.len()), Vec::with_capacity(asked.len()));
    for (id, one) in asked {
        let twice = || Problem::conflict(format!("this {what} is named twice"));
        changes.push(if named.insert(id.clone()) { one } else { one.and_then(|_| Err(twice())) });
        ids.push(id);
    }
    if !atomic {
        let mut made = Vec::with_capacity(ids.len());
        for (id, one) in ids.into_iter().zip(changes) {
            let result = match one {
                Ok(one) => change(context.clone(), one).await.map_err(Problem::from),
                Err(problem) => Err(problem),
            };
            made.push((id, result));
        }
        return Ok(results(made));
    }
    if changes.iter().any(Result::is_err) {
        let why = format!("nothing was changed, because another {what} was refused");
        let refused = changes.into_iter().map(|one| one.and_then(|_| Err(Problem::conflict(why.clone()))));
        return Ok(results(ids.into_iter().zip(refused).collect()));
    }
    let changes: Vec<T> = changes.into_iter().flatten().collect();
    let made = together(context, operation, what, &changes, change).await?;
    Ok(results(ids.into_iter().zip(made.into_iter().map(|result| result.map_err(Problem::from))).collect()))
}

/// An id that cannot be one names nothing.
pub fn parse<T: std::str::FromStr>(id: &str, what: &str) -> Result<T, Problem> {
    id.parse().map_err(|_| Problem::not_found(what))
}
