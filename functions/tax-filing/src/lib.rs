//! Invoked by hand once a year: the file with what the payer must report, and whole tax numbers. The only function that may open
//! those.

use lambda_runtime::{Error, LambdaEvent};
use serde::Deserialize;
use workflows::Context;
use workflows::files::Files;
use workflows::tax::filing::{Filed, file};

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    year: i16,
}

/// Asked again, it writes the same file in the same place, unless something changed.
pub async fn handle(context: &Context, files: &Files, event: LambdaEvent<Asked>) -> Result<Filed, Error> {
    let filed = file(context, files, event.payload.year).await?;
    tracing::info!(year = filed.year, returns = filed.returns, without_number = filed.without_number, "filed");
    Ok(filed)
}
