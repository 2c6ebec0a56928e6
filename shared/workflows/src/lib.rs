//! One file per use case. Functions, the local system and the simulator call these; they call the store and the domain.
//!
//! Every workflow can be repeated: it reads, decides, and writes in one conditional transaction; where the data changed
//! meanwhile it reads again. What was applied before is found applied.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod adjust;
pub mod attribution;
pub mod audit;
pub mod balances;
mod changes;
pub mod context;
pub mod deliver;
pub mod draft;
pub mod dry_run;
pub mod error;
pub mod exceptions;
pub mod exchange;
pub mod explain;
pub mod exports;
pub mod fetch_rates;
pub mod files;
mod history;
pub mod ingest;
pub mod instant;
pub mod links;
pub mod mature;
pub mod payouts;
pub mod publish;
pub mod queues;
pub mod quickbooks;
pub mod rails;
pub mod replay;
pub mod report;
pub mod review;
pub mod rules;
pub mod runs;
pub mod sales;
pub mod setup;
pub mod statements;
pub mod tax;
pub mod together;

pub use context::{Beginning, Clock, Context, SystemClock};
pub use error::{Refusal, Result};
