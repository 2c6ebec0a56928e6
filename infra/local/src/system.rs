//! The system itself: the services a stack has, and the functions on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_eventbridge::types::Target;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use bytes::Bytes;
use embedded::Embedded;
use http::{HeaderMap, Method, Uri};
use outbound::{CallError, Limits, Outbound};
use paypal_counterpart::Counterpart;
use quickbooks_counterpart::{Counterpart as Quickbooks, Webhook};
use serde_json::Value;
use store::{Membership, Store, Transaction, create_table};
use workflows::fetch_rates::Source;
use workflows::files::Files;
use workflows::publish::{Bus, EVENT_SOURCE};
use workflows::queues::Queues;
use workflows::rails::{Paypal, Rails};
use workflows::tax::forms::Vault;
use workflows::{Clock, Context};

use crate::clock::LocalClock;
use crate::events::http_event;
use crate::faults::Faults;
use crate::functions::{Failed, Functions, HttpAnswer};
use crate::quickbooks::{QuickbooksOptions, books_file, connect};
use crate::token::TokenKey;
use crate::workers::Stream;

pub const TABLE: &str = "partner-payouts";
pub const CONVERSIONS: &str = "conversions";
pub const DRAFTS: &str = "drafts";
pub const SUBMISSIONS: &str = "submissions";
pub const QUICKBOOKS: &str = "quickbooks-events";
const BUS: &str = "partner-payouts";
const FILES: &str = "partner-payouts-files";
const SECRET_PREFIX: &str = "partner-payouts";
pub(crate) const CURSOR_SECRET: &str = "partner-payouts/cursor-key";
const TAX_SECRET: &str = "partner-payouts/tax-key";
const TAX_KEY: &str = "alias/partner-payouts";
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
    /// Where the services will be served: what links to files lead to. Without it, they lead nowhere.
    pub aws: Option<String>,
    /// Where PayPal's counterpart is served. Without it, nobody answers there.
    pub paypal: Option<String>,
    pub quickbooks: QuickbooksOptions,
}

#[derive(Debug, thiserror::Error)]
#[error("the local system cannot start: {0}")]
pub struct StartError(String);

impl StartError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

#[derive(Debug)]
pub struct System {
    pub embedded: Embedded,
    pub clock: Arc<LocalClock>,
    /// What the functions work with; its calls fail as [`Faults`] say.
    pub context: Context,
    /// Where the functions put large files.
    pub files: Files,
    /// The same services for the system's own use, where nothing fails.
    pub(crate) plain: Context,
    pub faults: Faults,
    /// What stands for PayPal; whoever starts the system serves it.
    pub paypal: Counterpart,
    /// What stands for QuickBooks Online. Functions call it in this process; whoever starts the system may serve it besides.
    pub quickbooks: Quickbooks,
    /// Webhooks of it that nobody took.
    pub(crate) unheard: tokio::sync::Mutex<Vec<Webhook>>,
    /// Where its books are kept.
    pub(crate) books: Option<PathBuf>,
    pub(crate) tokens: TokenKey,
    functions: Functions,
    pub(crate) stream: tokio::sync::Mutex<Stream>,
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
        let plain = provision(&embedded.sdk_config(), Arc::clone(&clock) as Arc<dyn Clock>).await?;
        let faults = Faults::default();
        let config = embedded.sdk_config_through(|embedded| faults.between(embedded));
        let context = under(&config, &plain);
        let files = files(&config, options.aws.as_deref());
        let stream = Stream::open(&embedded, directory.as_deref()).map_err(StartError::of)?;
        let quickbooks = options.quickbooks.counterpart(&clock, directory.as_deref());
        let rails = Arc::new(Rails {
            paypal: paypal(options.paypal).map_err(StartError::of)?,
            quickbooks: options.quickbooks.way_to(&quickbooks),
        });
        if options.quickbooks.connected {
            connect(&plain, &rails.quickbooks, &quickbooks).await.map_err(StartError::of)?;
        }
        Ok(Self {
            tokens: TokenKey::new(clock.random()),
            functions: Functions::new(context.clone(), files.clone(), rails),
            stream: tokio::sync::Mutex::new(stream),
            paypal: Counterpart::default(),
            quickbooks,
            unheard: tokio::sync::Mutex::new(Vec::new()),
            books: directory.as_deref().map(books_file),
            embedded,
            clock,
            context,
            files,
            plain,
            faults,
        })
    }

    /// With exchange rates fetched from this address: on this machine by whatever speaks HTTP, elsewhere as in the cloud.
    pub fn with_rates_from(mut self, url: &str) -> Result<Self, StartError> {
        let here = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(|host| host == "127.0.0.1"));
        let source = if here == Some(true) {
            Outbound::loopback(Limits::SMALL).map(|outbound| Source::over(url.to_owned(), outbound))
        } else {
            Source::new(url.to_owned())
        };
        self.functions = self.functions.clone().with_rates(source.map_err(StartError::of)?);
        Ok(self)
    }

    /// The functions with another context, beside the system's own.
    pub fn functions_under(&self, context: Context) -> Functions {
        self.functions.under(context)
    }

    /// A token for a role; for a partner, also the membership that says whose data it may see.
    pub async fn token(&self, role: &str, subject: &str, partner: Option<&str>) -> Result<String, Failed> {
        if let Some(partner) = partner {
            let partner = partner.parse().map_err(Failed::of)?;
            let mut transaction = Transaction::new("membership");
            transaction.set_membership(&Membership { subject: subject.to_owned(), partner }).map_err(Failed::of)?;
            self.plain.store.commit(transaction).await.map_err(Failed::of)?;
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
        self.faults
            .invocation(Box::pin(self.functions.http(http_event(method, uri, headers, body, claims.as_ref()))))
            .await
    }

    /// Invokes a function that is not behind HTTP with the payload AWS would send, and returns what it answers.
    pub async fn invoke(&self, function: &str, payload: Value) -> Result<Value, Failed> {
        self.faults
            .invocation(Box::pin(self.functions.invoke(function, payload, SystemTime::now() + FUNCTION_TIME)))
            .await
    }
}

/// Makes what the template makes, where it is not there yet: table, queues, bus, cursor key.
pub async fn provision(config: &SdkConfig, clock: Arc<dyn Clock>) -> Result<Context, StartError> {
    let dynamodb = aws_sdk_dynamodb::Client::new(config);
    create_table(&dynamodb, TABLE).await.map_err(StartError::of)?;
    let sqs = aws_sdk_sqs::Client::new(config);
    let context = Context {
        store: Store::new(dynamodb, TABLE),
        clock,
        queues: Queues {
            conversions_url: queue(&sqs, CONVERSIONS).await?,
            drafts_url: queue(&sqs, DRAFTS).await?,
            submissions_url: queue(&sqs, SUBMISSIONS).await?,
            quickbooks_url: queue(&sqs, QUICKBOOKS).await?,
            sqs,
        },
        secrets: aws_sdk_secretsmanager::Client::new(config),
        secret_prefix: SECRET_PREFIX.to_owned(),
        bus: Bus { events: aws_sdk_eventbridge::Client::new(config), name: BUS.to_owned() },
        others: workflows::instant::Others::default(),
        vault: Vault { kms: aws_sdk_kms::Client::new(config), key: TAX_KEY.to_owned() },
    };
    bus(&context).await?;
    approved_rule(&context).await?;
    secret(&context, CURSOR_SECRET).await?;
    secret(&context, TAX_SECRET).await?;
    tax_key(&context.vault.kms).await?;
    let bucket = files(config, None).s3.create_bucket().bucket(FILES).send();
    bucket.await.map_err(StartError::of)?;
    Ok(context)
}

/// The ways to counterparts that nobody serves.
pub fn rails() -> Result<Rails, CallError> {
    let options = QuickbooksOptions::default();
    let counterpart = options.counterpart(&Arc::new(LocalClock::wall()), None);
    Ok(Rails { paypal: paypal(None)?, quickbooks: options.way_to(&counterpart) })
}

/// The way to PayPal's counterpart, and to nothing beyond this machine.
fn paypal(endpoint: Option<String>) -> Result<Paypal, CallError> {
    let nowhere = || "http://127.0.0.1:1".to_owned();
    Ok(Paypal::new(Outbound::loopback(Limits::API)?, Some(endpoint.unwrap_or_else(nowhere))))
}

/// Where large files are put; `endpoint` is what links to them lead to.
pub fn files(config: &SdkConfig, endpoint: Option<&str>) -> Files {
    let mut builder = aws_sdk_s3::config::Builder::from(config).force_path_style(true);
    builder.set_endpoint_url(endpoint.map(str::to_owned));
    Files { s3: aws_sdk_s3::Client::from_conf(builder.build()), bucket: FILES.to_owned() }
}

/// The same context under other clients.
fn under(config: &SdkConfig, plain: &Context) -> Context {
    Context {
        store: plain.store.under(aws_sdk_dynamodb::Client::new(config)),
        queues: Queues { sqs: aws_sdk_sqs::Client::new(config), ..plain.queues.clone() },
        secrets: aws_sdk_secretsmanager::Client::new(config),
        bus: Bus { events: aws_sdk_eventbridge::Client::new(config), ..plain.bus.clone() },
        vault: Vault { kms: aws_sdk_kms::Client::new(config), ..plain.vault.clone() },
        ..plain.clone()
    }
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

/// Keys have no names of their own, so it gets one to be found by again.
async fn tax_key(kms: &aws_sdk_kms::Client) -> Result<(), StartError> {
    match kms.describe_key().key_id(TAX_KEY).send().await {
        Ok(_) => return Ok(()),
        Err(error) if error.code() == Some("NotFoundException") => {}
        Err(error) => return Err(StartError::of(error)),
    }
    let made = kms.create_key().description("tax numbers").send().await.map_err(StartError::of)?;
    let id = made.key_metadata.map(|key| key.key_id).ok_or_else(|| StartError("a key without an id".to_owned()))?;
    kms.create_alias().alias_name(TAX_KEY).target_key_id(id).send().await.map_err(StartError::of)?;
    Ok(())
}

/// What is approved goes to whoever submits it, as in the template.
async fn approved_rule(context: &Context) -> Result<(), StartError> {
    let events = &context.bus.events;
    let pattern = serde_json::json!({"source": [EVENT_SOURCE], "detail-type": ["payout.approved"]});
    let rule = events.put_rule().name("approved").event_bus_name(BUS).event_pattern(pattern.to_string());
    rule.send().await.map_err(StartError::of)?;
    let arn = format!("arn:aws:sqs:{}:{}:{SUBMISSIONS}", embedded::REGION, embedded::ACCOUNT);
    let target = Target::builder().id("submissions").arn(arn).build().map_err(StartError::of)?;
    let targets = events.put_targets().rule("approved").event_bus_name(BUS).targets(target);
    targets.send().await.map(drop).map_err(StartError::of)
}

async fn secret(context: &Context, name: &str) -> Result<(), StartError> {
    let secret = format!("{:032x}{:032x}", context.clock.random(), context.clock.random());
    match context.secrets.create_secret().name(name).secret_string(secret).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ResourceExistsException") => Ok(()),
        Err(error) => Err(StartError::of(error)),
    }
}
