//! Start-up: logs, clients, and the names of what to work with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::{Builder, tls};
use jiff::Timestamp;
use outbound::{CallError, Limits, Outbound};
use store::Store;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use workflows::files::Files;
use workflows::publish::Bus;
use workflows::queues::Queues;
use workflows::quickbooks::{Pace, Quickbooks};
use workflows::rails::{Paypal, Rails};
use workflows::tax::forms::Vault;
use workflows::{Context, SystemClock};

/// A schedule's function starts nothing new when less than this is left of its time.
const RESERVE: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the environment variable {0} is not set; template.yaml sets it, or Lambda itself")]
    NotSet(&'static str),
    #[error("there is no way out: {0}")]
    NoWayOut(#[from] CallError),
}

/// Called once per process, before the first event: clients and their connections are shared by all invocations.
pub fn context() -> Result<Context, StartError> {
    context_on(&aws()?)
}

/// The same for the function that makes files, with the place for large ones.
pub fn with_files() -> Result<(Context, Files), StartError> {
    let config = aws()?;
    // An endpoint that stands for all services has no names of buckets in front of its own.
    let by_path = config.endpoint_url().is_some();
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(by_path).build();
    let files = Files { s3: aws_sdk_s3::Client::from_conf(s3), bucket: variable("FILES_BUCKET")? };
    Ok((context_on(&config)?, files))
}

fn context_on(config: &SdkConfig) -> Result<Context, StartError> {
    let logged = optional("RUST_LOG").and_then(|targets| targets.parse::<Targets>().ok());
    let lines = tracing_subscriber::fmt::layer().json().without_time().with_current_span(false);
    let logged = logged.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    // Repeated set-up in one process keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(lines).with(logged).try_init();
    Ok(Context {
        store: Store::new(aws_sdk_dynamodb::Client::new(config), variable("TABLE_NAME")?),
        clock: Arc::new(SystemClock),
        queues: Queues {
            sqs: aws_sdk_sqs::Client::new(config),
            conversions_url: variable("CONVERSIONS_QUEUE_URL")?,
            drafts_url: variable("DRAFTS_QUEUE_URL")?,
            submissions_url: variable("SUBMISSIONS_QUEUE_URL")?,
            quickbooks_url: variable("QUICKBOOKS_QUEUE_URL")?,
        },
        secrets: aws_sdk_secretsmanager::Client::new(config),
        secret_prefix: variable("SECRET_PREFIX")?,
        vault: Vault { kms: aws_sdk_kms::Client::new(config), key: variable("TAX_KEY")? },
        bus: Bus { events: aws_sdk_eventbridge::Client::new(config), name: variable("BUS_NAME")? },
        others: workflows::instant::Others::default(),
    })
}

/// The way to PayPal, for the functions that go there. `PAYPAL_ENDPOINT` is not set in the cloud: it leads to a counterpart on the same machine.
pub fn paypal() -> Result<Paypal, StartError> {
    let endpoint = optional("PAYPAL_ENDPOINT");
    Ok(Paypal::new(way_out(endpoint.as_deref())?, endpoint))
}

/// The way to QuickBooks, likewise by `QUICKBOOKS_ENDPOINT`.
pub fn quickbooks() -> Result<Quickbooks, StartError> {
    let endpoint = optional("QUICKBOOKS_ENDPOINT");
    let outbound = way_out(endpoint.as_deref())?;
    Ok(Quickbooks::new(outbound, endpoint, Arc::new(Timestamp::now), Pace::Limited))
}

pub fn rails() -> Result<Rails, StartError> {
    Ok(Rails { paypal: paypal()?, quickbooks: quickbooks()? })
}

fn way_out(endpoint: Option<&str>) -> Result<Outbound, StartError> {
    Ok(if endpoint.is_some() { Outbound::loopback(Limits::API)? } else { Outbound::guarded(Limits::API)? })
}

/// What Lambda puts into the environment is all there is to know. The SDK's own search for configuration would link, and try, profile
/// files, single sign-on, metadata services and assumed roles.
fn aws() -> Result<SdkConfig, StartError> {
    // One for all clients, since each of its own would read the system's certificates again.
    let http =
        Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc)).build_https();
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(variable("AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()))
        .http_client(http);
    config.set_endpoint_url(optional("AWS_ENDPOINT_URL"));
    Ok(config.build())
}

fn variable(name: &'static str) -> Result<String, StartError> {
    optional(name).ok_or(StartError::NotSet(name))
}

fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a scheduled function should start another page of work before its deadline.
pub fn time_left(deadline: SystemTime) -> impl Fn() -> bool {
    move || deadline.duration_since(SystemTime::now()).is_ok_and(|left| left > RESERVE)
}
