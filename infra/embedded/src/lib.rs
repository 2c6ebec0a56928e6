//! AWS in process: `DynamoDB` and its streams (by `dynoxide`, on `SQLite`), and small versions of SQS, `EventBridge`,
//! Secrets Manager, KMS, S3 and `EventBridge` Scheduler, under the real AWS SDK clients.
//!
//! Tests and the local system run the unchanged product on it: [`Embedded::sdk_config`] gives the SDK an HTTP connector
//! that calls the services directly, so nothing opens a socket. Tools that need one (`sam local invoke`, the AWS CLI,
//! boto3) reach the same services through [`Embedded::serve`].
//!
//! What it never does: read the wall clock or draw random numbers for the services written here (the caller's [`Clock`]
//! and a counter give times and ids, so a run can be repeated exactly), check signatures or permissions, fire
//! schedules, expire messages by retention, or fail on its own. Faults are put between SDK and services: [`Faulty`] with
//! [`Embedded::sdk_config_through`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod aws_json;
mod clock;
mod connector;
mod dynamodb;
mod endpoint;
mod eventbridge;
mod faults;
mod ids;
mod kms;
mod s3;
mod scheduler;
mod secrets;
mod sqs;
mod state;
mod system;

pub use clock::{Clock, system_clock};
pub use connector::{CallFuture, Service, sdk_config};
pub use dynamodb::DatabaseError;
pub use eventbridge::{AcceptedEvent, Delivery, Outcome};
pub use faults::{Fate, Fault, Faulty, ServiceName};
pub use scheduler::{Schedule, ScheduleState, ScheduleTarget};
pub use state::FileError;
pub use system::{Embedded, OpenError};

/// The one account everything lives in.
pub const ACCOUNT: &str = "000000000000";
/// The one region everything lives in.
pub const REGION: &str = "us-east-1";
