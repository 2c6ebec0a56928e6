//! Storefronts post here: the signature is checked over the raw bytes, the delivery is put into the queue, and the
//! answer goes out at once. Nothing is interpreted.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::ids::SourceId;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use storefronts::{Kind, is_woocommerce_ping, verify};
use workflows::queues::Delivery;
use workflows::setup::{SourceSecret, source_secret};
use workflows::{Context, Refusal};

/// Larger bodies would not fit, base64-encoded, into one queue message together with their headers, nor whole into an item.
pub const MAX_BODY: usize = 350_000;
/// How long a secret is used before it is read again.
const SECRET_LIFE: Duration = Duration::from_mins(5);
/// How long an unknown source is remembered as unknown, and how often a bad signature may cause a secret to be read again.
const RECHECK: Duration = Duration::from_mins(1);
/// Sources remembered at a time, so that made-up ids cannot fill the memory.
const MAX_CACHED: usize = 1_000;
/// Headers that tell what a body is. Signatures and anything else stay behind.
const KEPT_HEADERS: [&str; 6] =
    ["content-type", "x-shopify-topic", "shopify-topic", "x-shopify-test", "shopify-test", "x-wc-webhook-topic"];

#[derive(Debug)]
pub struct Webhook {
    context: Context,
    known: Mutex<HashMap<SourceId, Known>>,
}

/// A source and its secrets as last read; `None` if there is no such source.
#[derive(Debug, Clone)]
struct Known {
    source: Option<(Kind, SourceSecret)>,
    read_at: Instant,
}

impl Webhook {
    pub fn new(context: Context) -> Self {
        Self { context, known: Mutex::default() }
    }

    pub async fn handle(&self, request: Request) -> Result<Response<Body>, Infallible> {
        let status = match self.receive(&request).await {
            Ok(status) => status,
            Err(refusal) => {
                tracing::error!(%refusal, "delivery could not be taken; the storefront will send it again");
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        Ok(response)
    }

    async fn receive(&self, request: &Request) -> Result<StatusCode, Refusal> {
        let body = request.body().as_ref();
        if body.len() > MAX_BODY {
            return Ok(StatusCode::PAYLOAD_TOO_LARGE);
        }
        // An unknown source and a bad signature look the same from outside.
        let id = request.uri().path().rsplit('/').next().and_then(|id| id.parse::<SourceId>().ok());
        let Some(id) = id else { return Ok(unauthorized("unknown source")) };
        let mut known = self.known(&id, SECRET_LIFE).await?;
        if let Some((Kind::Woocommerce, _)) = &known.source
            && is_woocommerce_ping(request.headers(), body)
        {
            return Ok(StatusCode::OK);
        }
        if !is_signed(&known, request) {
            // The secret may have been rotated a moment ago.
            known = self.known(&id, RECHECK).await?;
            if !is_signed(&known, request) {
                return Ok(unauthorized("bad signature or unknown source"));
            }
        }
        self.context.queues.send_delivery(&delivery(&self.context, id, request)).await?;
        Ok(StatusCode::OK)
    }

    /// What is known of a source, read again if it is older than this (an unknown one after [`RECHECK`] at the latest).
    async fn known(&self, id: &SourceId, max_age: Duration) -> Result<Known, Refusal> {
        let cached = self.cache().get(id).cloned();
        if let Some(known) = cached
            && known.read_at.elapsed() < if known.source.is_some() { max_age } else { RECHECK.min(max_age) }
        {
            return Ok(known);
        }
        let known = Known { source: self.read(id).await?, read_at: Instant::now() };
        let mut cache = self.cache();
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(id.clone(), known.clone());
        Ok(known)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<SourceId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, id: &SourceId) -> Result<Option<(Kind, SourceSecret)>, Refusal> {
        let Some(source) = self.context.store.source("webhook", id).await? else { return Ok(None) };
        let Some(secret) = source_secret(&self.context, id).await? else { return Ok(None) };
        let kind = serde_json::from_value(source.kind.into()).ok();
        Ok(kind.map(|kind| (kind, secret)))
    }
}

/// Counted by a metric filter on this message.
fn unauthorized(why: &str) -> StatusCode {
    tracing::warn!(why, "delivery refused");
    StatusCode::UNAUTHORIZED
}

fn is_signed(known: &Known, request: &Request) -> bool {
    let Some((kind, secret)) = &known.source else { return false };
    let secrets: Vec<&str> =
        [Some(secret.current.as_str()), secret.previous.as_deref()].into_iter().flatten().collect();
    // Transport time: a virtual business clock must not let old signatures in, nor keep new ones out.
    verify(*kind, &secrets, request.headers(), request.body().as_ref(), Timestamp::now()).is_ok()
}

fn delivery(context: &Context, source: SourceId, request: &Request) -> Delivery {
    let headers = KEPT_HEADERS.iter().filter_map(|name| {
        let value = request.headers().get(*name)?.to_str().ok()?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    Delivery {
        source,
        received_at: context.now(),
        headers: headers.collect(),
        body: STANDARD.encode(request.body().as_ref()),
    }
}
