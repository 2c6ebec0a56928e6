//! Bulk calls: each id has its own result, in the order asked.

use axum::Json;
use domain::ids::LineId;
use serde_json::{Value, json};
use workflows::Context;
use workflows::review::{Verdict, review, review_atomically};

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

/// An id that cannot be one names nothing.
pub fn parse<T: std::str::FromStr>(id: &str, what: &str) -> Result<T, Problem> {
    id.parse().map_err(|_| Problem::not_found(what))
}
