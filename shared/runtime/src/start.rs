//! Start-up: logs, clients, and the names of what to work with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use store::Store;
use tracing_subscriber::EnvFilter;
use workflows::publish::Bus;
use workflows::queues::Queues;
use workflows::{Context, SystemClock};

/// A schedule's function starts nothing new when less than this is left of its time.
const RESERVE: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
#[error("the environment variable {0} is not set; template.yaml sets it")]
pub struct StartError(&'static str);

/// Called once per process, before the first event: clients and their connections are shared by all invocations.
pub async fn context() -> Result<Context, StartError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Repeated set-up in one process keeps the first subscriber.
    let _ = tracing_subscriber::fmt().json().with_env_filter(filter).without_time().with_current_span(false).try_init();
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    Ok(Context {
        store: Store::new(aws_sdk_dynamodb::Client::new(&config), variable("TABLE_NAME")?),
        clock: Arc::new(SystemClock),
        queues: Queues {
            sqs: aws_sdk_sqs::Client::new(&config),
            conversions_url: variable("CONVERSIONS_QUEUE_URL")?,
            drafts_url: variable("DRAFTS_QUEUE_URL")?,
        },
        secrets: aws_sdk_secretsmanager::Client::new(&config),
        bus: Bus { events: aws_sdk_eventbridge::Client::new(&config), name: variable("BUS_NAME")? },
    })
}

fn variable(name: &'static str) -> Result<String, StartError> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(StartError(name))
}

/// Whether a scheduled function should start another page of work before its deadline.
pub fn time_left(deadline: SystemTime) -> impl Fn() -> bool {
    move || deadline.duration_since(SystemTime::now()).is_ok_and(|left| left > RESERVE)
}
