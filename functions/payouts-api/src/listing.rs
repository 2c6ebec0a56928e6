//! Paged lists: `{"data":[...],"nextCursor":...}`.

use axum::Json;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Api;
use crate::caller::Caller;
use crate::problem::{Answer, Problem};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;

pub fn limit(asked: Option<&str>) -> Answer<usize> {
    let Some(asked) = asked else { return Ok(DEFAULT_LIMIT) };
    match asked.parse() {
        Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(Problem::malformed("", format!("limit must be from 1 to {MAX_LIMIT}"))),
    }
}

/// A list with its filters: what a cursor is bound to.
#[derive(Debug)]
pub struct Query<'a> {
    api: &'a Api,
    binding: String,
}

impl<'a> Query<'a> {
    pub fn new(api: &'a Api, caller: &Caller, list: &str, filters: &impl Serialize) -> Self {
        Self { api, binding: json!([list, caller.view(), filters]).to_string() }
    }

    /// Where to go on; from the start without a cursor.
    pub async fn start<T: DeserializeOwned + Default>(&self, cursor: Option<&str>) -> Answer<T> {
        let Some(cursor) = cursor else { return Ok(T::default()) };
        let key = self.api.cursor_key().await?;
        key.open(&self.binding, cursor).map_err(|bad| Problem::malformed("", bad.to_string()))
    }

    pub async fn page<T: Serialize>(&self, data: Vec<Value>, next: Option<T>) -> Answer<Json<Value>> {
        let next = match next {
            Some(next) => {
                let sealed = self.api.cursor_key().await?.seal(&self.binding, &next);
                Some(sealed.map_err(|error| Problem::malformed("", error.to_string()))?)
            }
            None => None,
        };
        Ok(Json(json!({ "data": data, "nextCursor": next })))
    }
}
