//! What every function needs to start, to take a batch apart, and to know when to stop.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod batch;
mod start;

pub use batch::each_record;
pub use start::{StartError, context, paypal, quickbooks, rails, time_left, with_files};
