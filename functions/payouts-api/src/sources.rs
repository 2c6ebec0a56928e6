//! Storefront connections.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::ids::SourceId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Source;
use storefronts::Kind;
use workflows::Beginning;
use workflows::setup::SourceSecret;

use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Paging};
use crate::idempotency::Begun;
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::{Shared, programs, show};

const OPERATION: &str = "sources";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    program_id: String,
    kind: Kind,
    name: String,
    /// As the storefront shows it; one is made where left out.
    #[serde(default)]
    secret: Option<String>,
}

pub async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Begun(begun): Begun,
    input: Body<Input>,
) -> Answer<(StatusCode, Json<Value>)> {
    caller.must_be(&[Role::ProgramManager])?;
    let input = input.get()?;
    let program = programs::required(&shared, &input.program_id, "/programId").await?;
    let mut fields = Fields::default();
    let name = fields.text("/name", &input.name);
    let context = &shared.context;
    let secret = match input.secret {
        Some(secret) => {
            check_secret(&mut fields, input.kind, &secret);
            secret
        }
        None => fresh_secret(&begun),
    };
    fields.done()?;
    let source = Source {
        // It stands in a public URL: unlike of a time-ordered id, nothing of it can be guessed.
        id: SourceId::from_uuid(begun.random),
        program: program.id,
        kind: input.kind.to_string(),
        name,
        created_at: begun.at,
        created_by: caller.subject.clone(),
    };
    let kept = SourceSecret { current: secret.clone(), previous: None };
    workflows::setup::create_source(context, &source, &kept).await?;
    let mut shown = show::source(&source);
    // Shown this once.
    shown["secret"] = json!(secret);
    Ok((StatusCode::CREATED, Json(shown)))
}

fn check_secret(fields: &mut Fields, kind: Kind, secret: &str) {
    fields.check((8..=500).contains(&secret.len()), "/secret", "needs 8 to 500 characters");
    if kind == Kind::Standard {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).unwrap_or_default();
        fields.check(key.len() >= 24, "/secret", "must be whsec_ and at least 24 bytes in base64");
    }
}

fn fresh_secret(begun: &Beginning) -> String {
    let bytes: Vec<u8> = begun.secret.iter().flat_map(|word| word.to_be_bytes()).collect();
    format!("whsec_{}", STANDARD.encode(bytes))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListFilter {
    program_id: String,
}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    caller.must_be_staff()?;
    let id = filter.program_id.parse().map_err(|_| Problem::not_found("program"))?;
    programs::load(&shared, &id).await?;
    let query = Query::new(&shared, &caller, "sources", &filter, paging);
    let store = &shared.context.store;
    let page = query.fetch(async |after, limit| store.sources(OPERATION, &id, after.as_deref(), limit).await).await?;
    query.page(page.items.iter().map(show::source).collect(), page.after).await
}
