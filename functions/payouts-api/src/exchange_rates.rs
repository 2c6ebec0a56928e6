//! Exchange rates: read. They are told by files and by the rate source.

use axum::Json;
use axum::extract::State;
use domain::money::Currency;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caller::Caller;
use crate::extract::{Filter, Paging};
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::{Shared, show};

const OPERATION: &str = "exchange rates";

#[derive(Debug, Deserialize, Serialize)]
pub struct Wanted {
    from: Option<Currency>,
    to: Option<Currency>,
    date: Option<Date>,
}

/// Of a pair, everything that was told, the latest day first; of a day, everything that was told for it. Of a pair on a day, the rate that
/// counts there, which may be of an earlier day or derived; none if there is none.
pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(wanted): Filter<Wanted>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let query = Query::new(&shared, &caller, OPERATION, &wanted, paging);
    let store = &shared.context.store;
    let page = match (wanted.from, wanted.to, wanted.date) {
        (Some(from), Some(to), Some(date)) => {
            let rate = workflows::exchange::rate(&shared.context, OPERATION, from, to, date).await?;
            return query.page(rate.iter().map(show::rate).collect(), None::<String>).await;
        }
        (Some(from), Some(to), None) => {
            let list = async |after: Option<String>, limit| {
                store.rates_of_pair(OPERATION, from, to, after.as_deref(), limit).await
            };
            query.fetch(list).await?
        }
        (None, None, Some(date)) => {
            let list =
                async |after: Option<String>, limit| store.rates_page(OPERATION, date, after.as_deref(), limit).await;
            query.fetch(list).await?
        }
        _ => return Err(Problem::malformed("", "name from and to, or date, or all three")),
    };
    query.page(page.items.iter().map(show::told_rate).collect(), page.after).await
}
