//! The whole system on one machine: every function's real handler, on real event payloads, over embedded AWS services.
//!
//! Nothing in here is compiled into a function. What API Gateway, the Lambda service, the queues' and the stream's event
//! source mappings and the scheduler do in the cloud, this crate does here; what the product does, it does not.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod clock;
pub mod demo;
pub mod events;
mod faults;
mod functions;
mod gateway;
pub mod import;
mod quickbooks;
mod renderer;
mod system;
pub mod token;
mod workers;

pub use clock::LocalClock;
pub use faults::{Faults, Odds};
pub use functions::{Failed, Functions, HttpAnswer};
pub use gateway::serve;
pub use quickbooks::QuickbooksOptions;
pub use system::{
    CONVERSIONS, DRAFTS, Options, QUICKBOOKS, SUBMISSIONS, StartError, Storage, System, TABLE, files, provision, rails,
};
pub use workers::Stream;
