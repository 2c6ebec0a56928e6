//! On a schedule: the exchange rates of the day are fetched, where a source is configured.

use lambda_runtime::{Error, LambdaEvent};
use outbound::CallError;
use serde_json::Value;
use workflows::Context;
use workflows::fetch_rates::{Fetched, Source, fetch};

/// The address to fetch rates from; `None` where none is configured.
pub fn source() -> Result<Option<Source>, CallError> {
    let url = std::env::var("RATE_SOURCE").ok().filter(|url| !url.is_empty());
    url.map(Source::new).transpose()
}

/// Whatever the schedule sends means the same: fetch what is published now.
pub async fn handle(context: &Context, source: Option<&Source>, _: LambdaEvent<Value>) -> Result<Fetched, Error> {
    let Some(source) = source else { return Ok(Fetched::default()) };
    let fetched = fetch(context, source).await?;
    tracing::info!(new = fetched.new, known = fetched.known, refused = fetched.refused, "fetched");
    Ok(fetched)
}
