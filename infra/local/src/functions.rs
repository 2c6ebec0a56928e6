//! The functions' real handlers, invoked as the Lambda service would.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use lambda_http::Adapter;
use lambda_http::request::LambdaRequest;
use lambda_runtime::{LambdaEvent, Service};
use serde::de::DeserializeOwned;
use serde_json::Value;
use workflows::Context;
use workflows::fetch_rates::Source;
use workflows::files::Files;
use workflows::rails::Rails;

use crate::renderer::Renderer;

/// A function's failure as the Lambda service would report it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

impl Failed {
    pub(crate) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// An HTTP answer of the API or a webhook.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// One running instance of each function, all with one context.
#[derive(Debug, Clone)]
pub struct Functions {
    context: Context,
    api: axum::Router,
    webhook: Arc<storefront_webhook::Webhook>,
    files: Files,
    rates: Option<Source>,
    rails: Arc<Rails>,
}

impl Functions {
    pub fn new(context: Context, files: Files, rails: Arc<Rails>) -> Self {
        Self {
            api: payouts_api::api(
                context.clone(),
                files.clone(),
                crate::system::CURSOR_SECRET.to_owned(),
                Arc::clone(&rails),
                Renderer::found(),
            ),
            rails,
            webhook: Arc::new(storefront_webhook::Webhook::new(context.clone())),
            files,
            rates: None,
            context,
        }
    }

    /// The same functions with another context: others that run at the same time.
    pub(crate) fn under(&self, context: Context) -> Self {
        Self::new(context, self.files.clone(), Arc::clone(&self.rails))
    }

    /// With a source of exchange rates.
    #[must_use]
    pub fn with_rates(self, source: Source) -> Self {
        Self { rates: Some(source), ..self }
    }

    /// An HTTP API's event, for the function its path belongs to.
    pub async fn http(&self, event: Value) -> Result<HttpAnswer, Failed> {
        let path = event["rawPath"].as_str().unwrap_or_default().to_owned();
        let mut parts = path.split('/').skip(1);
        let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let request: LambdaRequest = serde_json::from_value(event).map_err(Failed::of)?;
        let event = LambdaEvent::new(request, lambda_runtime::Context::default());
        // Each apart, because the adapter may not cross threads while it waits.
        let response = match (first, second) {
            ("webhooks", "paypal") => {
                let (context, rails) = (self.context.clone(), Arc::clone(&self.rails));
                let service = lambda_runtime::service_fn(move |request| {
                    let (context, rails) = (context.clone(), Arc::clone(&rails));
                    async move { paypal_webhook::handle(&context, &rails.paypal, request).await }
                });
                let response = Adapter::from(service).call(event);
                response.await.map_err(Failed::of)?
            }
            ("webhooks", "quickbooks") => {
                let (context, rails) = (self.context.clone(), Arc::clone(&self.rails));
                let service = lambda_runtime::service_fn(move |request| {
                    let (context, rails) = (context.clone(), Arc::clone(&rails));
                    async move { qbo_webhook::handle(&context, &rails.quickbooks, request).await }
                });
                let response = Adapter::from(service).call(event);
                response.await.map_err(Failed::of)?
            }
            ("webhooks", _) => {
                let webhook = Arc::clone(&self.webhook);
                let service = lambda_runtime::service_fn(move |request| {
                    let webhook = Arc::clone(&webhook);
                    async move { webhook.handle(request).await }
                });
                let response = Adapter::from(service).call(event);
                response.await.map_err(Failed::of)?
            }
            ("r", _) => {
                let context = self.context.clone();
                let service = lambda_runtime::service_fn(move |request| {
                    let context = context.clone();
                    async move { track_click::handle(&context, request).await }
                });
                let response = Adapter::from(service).call(event);
                response.await.map_err(Failed::of)?
            }
            _ => {
                let response = Adapter::from(self.api.clone()).call(event);
                response.await.map_err(Failed::of)?
            }
        };
        answer(&serde_json::to_value(response).map_err(Failed::of)?)
    }

    /// Any other function, with the payload AWS would send and the moment its time is up. Returns what it answers.
    pub async fn invoke(&self, function: &str, payload: Value, deadline: SystemTime) -> Result<Value, Failed> {
        let context = &self.context;
        match function {
            "ingest-conversions" => {
                reply(Box::pin(ingest_conversions::handle(context, event(payload, deadline)?)).await)
            }
            "draft-payout" => reply(Box::pin(draft_payout::handle(context, event(payload, deadline)?)).await),
            "submit-payouts" => {
                reply(Box::pin(submit_payouts::handle(context, &self.rails, event(payload, deadline)?)).await)
            }
            "apply-qbo-events" => {
                reply(Box::pin(apply_qbo_events::handle(context, &self.rails, event(payload, deadline)?)).await)
            }
            "reconcile" => reply(Box::pin(reconcile::handle(context, &self.rails, event(payload, deadline)?)).await),
            "publish-changes" => reply(Box::pin(publish_changes::handle(context, event(payload, deadline)?)).await),
            "mature-commissions" => {
                reply(Box::pin(mature_commissions::handle(context, event(payload, deadline)?)).await)
            }
            "tax-filing" => reply(Box::pin(tax_filing::handle(context, &self.files, event(payload, deadline)?)).await),
            "batch-payouts" => reply(Box::pin(batch_payouts::handle(context, event(payload, deadline)?)).await),
            "fetch-rates" => {
                let source = self.rates.as_ref();
                reply(Box::pin(fetch_rates::handle(context, source, event(payload, deadline)?)).await)
            }
            _ => Err(Failed(format!("there is no function {function}"))),
        }
    }
}

fn event<T: DeserializeOwned>(payload: Value, deadline: SystemTime) -> Result<LambdaEvent<T>, Failed> {
    let mut context = lambda_runtime::Context::default();
    let since_epoch = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    context.deadline = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    Ok(LambdaEvent::new(serde_json::from_value(payload).map_err(Failed::of)?, context))
}

fn reply<T: serde::Serialize>(answer: Result<T, lambda_runtime::Error>) -> Result<Value, Failed> {
    serde_json::to_value(answer.map_err(Failed::of)?).map_err(Failed::of)
}

fn answer(response: &Value) -> Result<HttpAnswer, Failed> {
    let status = response["statusCode"].as_u64().and_then(|code| u16::try_from(code).ok());
    let status = status.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Failed("no status code".to_owned()))?;
    let mut headers = HeaderMap::new();
    for (name, value) in response["headers"].as_object().into_iter().flatten() {
        if let (Ok(name), Some(Ok(value))) = (name.parse::<http::HeaderName>(), value.as_str().map(str::parse)) {
            headers.insert(name, value);
        }
    }
    for cookie in response["cookies"].as_array().into_iter().flatten() {
        if let Some(Ok(value)) = cookie.as_str().map(str::parse) {
            headers.append(http::header::SET_COOKIE, value);
        }
    }
    let text = response["body"].as_str().unwrap_or_default();
    let body = if response["isBase64Encoded"] == true {
        base64::engine::general_purpose::STANDARD.decode(text).map_err(Failed::of)?
    } else {
        text.as_bytes().to_vec()
    };
    Ok(HttpAnswer { status, headers, body: body.into() })
}
