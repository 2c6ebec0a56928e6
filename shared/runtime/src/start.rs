//! Start-up: logs, clients, and the names of what to work with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::{Builder, tls};
use store::Store;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use workflows::files::Files;
use workflows::publish::Bus;
use workflows::queues::Queues;
use workflows::{Context, SystemClock};

/// A schedule's function starts nothing new when less than this is left of its time.
const RESERVE: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
#[error("the environment variable {0} is not set; template.yaml sets it, or Lambda itself")]
pub struct StartError(&'static str);

/// Called once per process, before the first event: clients and their connections are shared by all invocations.
pub fn context() -> Result<Context, StartError> {
    let logged = optional("RUST_LOG").and_then(|targets| targets.parse::<Targets>().ok());
    let lines = tracing_subscriber::fmt::layer().json().without_time().with_current_span(false);
    let logged = logged.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    // Repeated set-up in one process keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(lines).with(logged).try_init();
    let config = aws()?;
    Ok(Context {
        store: Store::new(aws_sdk_dynamodb::Client::new(&config), variable("TABLE_NAME")?),
        clock: Arc::new(SystemClock),
        queues: Queues {
            sqs: aws_sdk_sqs::Client::new(&config),
            conversions_url: variable("CONVERSIONS_QUEUE_URL")?,
            drafts_url: variable("DRAFTS_QUEUE_URL")?,
        },
        secrets: aws_sdk_secretsmanager::Client::new(&config),
        secret_prefix: variable("SECRET_PREFIX")?,
        bus: Bus { events: aws_sdk_eventbridge::Client::new(&config), name: variable("BUS_NAME")? },
        others: workflows::instant::Others::default(),
        files: Files { s3: s3(&config), bucket: variable("FILES_BUCKET")? },
    })
}

/// An endpoint that stands for all services has no names of buckets in front of its own.
fn s3(config: &SdkConfig) -> aws_sdk_s3::Client {
    let by_path = config.endpoint_url().is_some();
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(by_path).build())
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
    optional(name).ok_or(StartError(name))
}

fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a scheduled function should start another page of work before its deadline.
pub fn time_left(deadline: SystemTime) -> impl Fn() -> bool {
    move || deadline.duration_since(SystemTime::now()).is_ok_and(|left| left > RESERVE)
}
