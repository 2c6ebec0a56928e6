//! The system itself: embedded services, the functions' handlers, and how they are invoked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use bytes::Bytes;
use embedded::Embedded;
use http::{HeaderMap, Method, StatusCode, Uri};
use lambda_http::Adapter;
use lambda_http::request::LambdaRequest;
use lambda_runtime::{LambdaEvent, Service};
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{Membership, Store, Transaction, create_table};
use workflows::publish::Bus;
use workflows::queues::Queues;
use workflows::{Clock, Context};

use crate::clock::LocalClock;
use crate::events::http_event;
use crate::token::TokenKey;
use crate::workers::Stream;

pub const TABLE: &str = "partner-payouts";
pub const CONVERSIONS: &str = "conversions";
pub const DRAFTS: &str = "drafts";
const BUS: &str = "partner-payouts";
const CURSOR_SECRET: &str = "partner-payouts/cursor-key";
/// As in the template: six times the consumers' time-outs, and five tries before the dead-letter queue.
const VISIBILITY_SECONDS: &str = "180";
const MAX_RECEIVES: u32 = 5;
/// The time a function is given in one invocation.
const FUNCTION_TIME: Duration = Duration::from_mins(15);

/// Where data is kept.
#[derive(Debug, Clone)]
pub enum Storage {
    Memory,
    Directory(PathBuf),
}

#[derive(Debug)]
pub struct Options {
    pub storage: Storage,
    pub clock: LocalClock,
}

#[derive(Debug, thiserror::Error)]
#[error("the local system cannot start: {0}")]
pub struct StartError(String);

impl StartError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A function's failure as the Lambda service would report it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

#[derive(Debug)]
pub struct System {
    pub embedded: Embedded,
    pub clock: Arc<LocalClock>,
    pub context: Context,
    pub(crate) tokens: TokenKey,
    api: axum::Router,
    webhook: Arc<storefront_webhook::Webhook>,
    pub(crate) stream: tokio::sync::Mutex<Stream>,
}

/// An HTTP answer of the API or a webhook.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl System {
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let clock = Arc::new(options.clock);
        let time = {
            let clock = Arc::clone(&clock);
            Arc::new(move || clock.system_time())
        };
        let (embedded, directory) = match options.storage {
            Storage::Memory => (Embedded::memory(time).map_err(StartError::of)?, None),
            Storage::Directory(directory) => {
                std::fs::create_dir_all(&directory).map_err(StartError::of)?;
                (Embedded::open(&directory, time).map_err(StartError::of)?, Some(directory))
            }
        };
        let config = embedded.sdk_config();
        let dynamodb = aws_sdk_dynamodb::Client::new(&config);
        create_table(&dynamodb, TABLE).await.map_err(StartError::of)?;
        let sqs = aws_sdk_sqs::Client::new(&config);
        let context = Context {
            store: Store::new(dynamodb, TABLE),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            queues: Queues {
                conversions_url: queue(&sqs, CONVERSIONS).await?,
                drafts_url: queue(&sqs, DRAFTS).await?,
                sqs,
            },
            secrets: aws_sdk_secretsmanager::Client::new(&config),
            bus: Bus { events: aws_sdk_eventbridge::Client::new(&config), name: BUS.to_owned() },
        };
        bus(&context).await?;
        cursor_key(&context).await?;
        let stream = Stream::open(&embedded, directory.as_deref()).map_err(StartError::of)?;
        Ok(Self {
            tokens: TokenKey::new(clock.random()),
            api: payouts_api::api(context.clone(), CURSOR_SECRET.to_owned()),
            webhook: Arc::new(storefront_webhook::Webhook::new(context.clone())),
            stream: tokio::sync::Mutex::new(stream),
            embedded,
            clock,
            context,
        })
    }

    /// A token for a role; for a partner, also the membership that says whose data it may see.
    pub async fn token(&self, role: &str, subject: &str, partner: Option<&str>) -> Result<String, Failed> {
        if let Some(partner) = partner {
            let partner = partner.parse().map_err(failed)?;
            let mut transaction = Transaction::new("membership");
            transaction.set_membership(&Membership { subject: subject.to_owned(), partner }).map_err(failed)?;
            self.context.store.commit(transaction).await.map_err(failed)?;
        }
        Ok(self.tokens.issue(role, subject))
    }

    /// A request as API Gateway would hand it on: the API with the token's claims, webhooks without.
    pub async fn http(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<HttpAnswer, Failed> {
        let bearer = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let claims = bearer.and_then(|value| value.strip_prefix("Bearer ")).and_then(|token| self.tokens.check(token));
        let event = http_event(method, uri, headers, body, claims.as_ref());
        let request: LambdaRequest = serde_json::from_value(event).map_err(failed)?;
        let event = LambdaEvent::new(request, invocation());
        let response = if uri.path().starts_with("/webhooks/") {
            let webhook = Arc::clone(&self.webhook);
            let service = lambda_runtime::service_fn(move |request| {
                let webhook = Arc::clone(&webhook);
                async move { webhook.handle(request).await }
            });
            let response = Adapter::from(service).call(event);
            response.await.map_err(failed)?
        } else {
            // Apart, because the adapter may not cross threads while it waits.
            let response = Adapter::from(self.api.clone()).call(event);
            response.await.map_err(failed)?
        };
        answer(&serde_json::to_value(response).map_err(failed)?)
    }

    /// Invokes a function that is not behind HTTP with the payload AWS would send, and returns what it answers.
    pub async fn invoke(&self, function: &str, payload: Value) -> Result<Value, Failed> {
        let context = &self.context;
        match function {
            "ingest-conversions" => reply(ingest_conversions::handle(context, event(payload)?).await),
            "draft-payout" => reply(draft_payout::handle(context, event(payload)?).await),
            "publish-changes" => reply(publish_changes::handle(context, event(payload)?).await),
            "mature-commissions" => reply(mature_commissions::handle(context, event(payload)?).await),
            "batch-payouts" => reply(batch_payouts::handle(context, event(payload)?).await),
            _ => Err(Failed(format!("there is no function {function}"))),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Failed {
    Failed(error.to_string())
}

fn event<T: DeserializeOwned>(payload: Value) -> Result<LambdaEvent<T>, Failed> {
    Ok(LambdaEvent::new(serde_json::from_value(payload).map_err(failed)?, invocation()))
}

fn reply<T: serde::Serialize>(answer: Result<T, lambda_runtime::Error>) -> Result<Value, Failed> {
    serde_json::to_value(answer.map_err(failed)?).map_err(failed)
}

fn invocation() -> lambda_runtime::Context {
    let mut context = lambda_runtime::Context::default();
    let deadline = SystemTime::now() + FUNCTION_TIME;
    let since_epoch = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    context.deadline = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    context
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
    let text = response["body"].as_str().unwrap_or_default();
    let body = if response["isBase64Encoded"] == true {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.decode(text).map_err(failed)?
    } else {
        text.as_bytes().to_vec()
    };
    Ok(HttpAnswer { status, headers, body: body.into() })
}

/// A queue with its dead-letter queue.
async fn queue(sqs: &aws_sdk_sqs::Client, name: &str) -> Result<String, StartError> {
    use aws_sdk_sqs::types::QueueAttributeName::{RedrivePolicy, VisibilityTimeout};
    let dead = format!("{name}-dead");
    sqs.create_queue().queue_name(&dead).send().await.map_err(StartError::of)?;
    let redrive = serde_json::json!({
        "deadLetterTargetArn": format!("arn:aws:sqs:{}:{}:{dead}", embedded::REGION, embedded::ACCOUNT),
        "maxReceiveCount": MAX_RECEIVES,
    });
    let created = sqs
        .create_queue()
        .queue_name(name)
        .attributes(VisibilityTimeout, VISIBILITY_SECONDS)
        .attributes(RedrivePolicy, redrive.to_string())
        .send()
        .await
        .map_err(StartError::of)?;
    created.queue_url.ok_or_else(|| StartError(format!("the queue {name} has no address")))
}

async fn bus(context: &Context) -> Result<(), StartError> {
    match context.bus.events.create_event_bus().name(BUS).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ResourceAlreadyExistsException") => Ok(()),
        Err(error) => Err(StartError::of(error)),
    }
}

async fn cursor_key(context: &Context) -> Result<(), StartError> {
    let secret = format!("{:032x}{:032x}", context.clock.random(), context.clock.random());
    match context.secrets.create_secret().name(CURSOR_SECRET).secret_string(secret).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ResourceExistsException") => Ok(()),
        Err(error) => Err(StartError::of(error)),
    }
}
