//! Bulk calls: each id has its own result, in the order asked.

use axum::Json;
use serde_json::{Value, json};
use workflows::Refusal;

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

/// A refusal for one id. What is transient fails that id alone, too: the others are done.
pub fn problem(result: Result<(), Refusal>) -> Result<(), Problem> {
    result.map_err(Problem::from)
}

/// An id that cannot be one names nothing.
pub fn parse<T: std::str::FromStr>(id: &str, what: &str) -> Result<T, Problem> {
    id.parse().map_err(|_| Problem::not_found(what))
}
