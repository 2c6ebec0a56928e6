//! Paged lists: `{"data":[...],"nextCursor":...}`.

use axum::Json;
use domain::ids::{PartnerId, ProgramId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Listing, StoreError};

use crate::caller::Caller;
use crate::extract::Paging;
use crate::problem::{Answer, Problem};
use crate::{Api, bulk};

/// A list with its filters: what a cursor is bound to.
#[derive(Debug)]
pub struct Query<'a> {
    api: &'a Api,
    paging: Paging,
    binding: String,
}

impl<'a> Query<'a> {
    pub fn new(api: &'a Api, caller: &Caller, list: &str, filters: &impl Serialize, paging: Paging) -> Self {
        Self { api, paging, binding: json!([list, caller.view(), filters]).to_string() }
    }

    pub const fn limit(&self) -> usize {
        self.paging.limit
    }

    /// Where to go on; from the start without a cursor.
    pub async fn start<T: DeserializeOwned + Default>(&self) -> Answer<T> {
        let Some(cursor) = &self.paging.cursor else { return Ok(T::default()) };
        let key = self.api.cursor_key().await?;
        key.open(&self.binding, cursor).map_err(|bad| Problem::malformed("", bad.to_string()))
    }

    /// A page of what the store lists by itself.
    pub async fn fetch<T, F>(&self, list: impl FnOnce(Option<String>, i32) -> F) -> Answer<Listing<T>>
    where
        F: Future<Output = Result<Listing<T>, StoreError>>,
    {
        let limit = i32::try_from(self.limit()).unwrap_or(i32::MAX);
        Ok(list(self.start().await?, limit).await?)
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

/// What lists of commissions and payouts are filtered by.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    pub partner_id: Option<String>,
    pub program_id: Option<String>,
    /// A word that comparable systems use.
    pub status: Option<String>,
    /// An exact state.
    pub state: Option<String>,
}

impl Wanted {
    pub fn partner(&self) -> Answer<Option<PartnerId>> {
        self.partner_id.as_deref().map(|id| bulk::parse(id, "partner")).transpose()
    }

    pub fn program(&self) -> Answer<Option<ProgramId>> {
        self.program_id.as_deref().map(|id| bulk::parse(id, "program")).transpose()
    }

    /// The states that status and state ask for together.
    pub fn states<S: Copy + PartialEq>(
        &self,
        all: &[S],
        of_status: fn(&str) -> Option<&'static [S]>,
        parse: fn(&str) -> Option<S>,
    ) -> Answer<Vec<S>> {
        let unknown = |field: &str| Problem::malformed("", format!("there is no such {field}"));
        let mut wanted = match &self.status {
            None => all.to_vec(),
            Some(status) => of_status(status).ok_or_else(|| unknown("status"))?.to_vec(),
        };
        if let Some(state) = &self.state {
            let state = parse(state).ok_or_else(|| unknown("state"))?;
            wanted.retain(|wanted| *wanted == state);
        }
        Ok(wanted)
    }
}
