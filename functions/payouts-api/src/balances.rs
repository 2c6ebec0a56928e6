//! Balances, and why what is in them is not paid yet.

use axum::Json;
use axum::extract::State;
use domain::ids::{PartnerId, ProgramId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bulk;
use crate::caller::Caller;
use crate::extract::{Filter, Paging};
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::{Shared, partners, programs, show};

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListFilter {
    partner_id: Option<String>,
    program_id: Option<String>,
}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    let asked = filter.partner_id.as_deref().map(|id| bulk::parse::<PartnerId>(id, "partner")).transpose()?;
    let query = Query::new(&shared, &caller, "balances", &filter, paging);
    if let Some(id) = caller.scope(asked)? {
        let partner = partners::visible(&shared, &caller, &id).await?;
        if filter.program_id.as_deref().is_some_and(|program| program != partner.program.as_str()) {
            return query.page(Vec::new(), None::<String>).await;
        }
        let program = programs::load(&shared, &partner.program).await?;
        let balance = workflows::balances::of(&shared.context, &program, &partner).await?;
        return query.page(vec![show::balance(&partner, &program, &balance)], None::<String>).await;
    }
    let Some(program) = &filter.program_id else {
        return Err(Problem::malformed("", "name a partnerId or a programId"));
    };
    let program = programs::load(&shared, &bulk::parse::<ProgramId>(program, "program")?).await?;
    let store = &shared.context.store;
    let page = query
        .fetch(async |after, limit| store.partners("balances", &program.id, after.as_deref(), limit).await)
        .await?;
    let mut data = Vec::with_capacity(page.items.len());
    for partner in &page.items {
        let balance = workflows::balances::of(&shared.context, &program, partner).await?;
        data.push(show::balance(partner, &program, &balance));
    }
    query.page(data, page.after).await
}
