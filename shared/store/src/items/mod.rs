//! One module per noun: how it is kept, and the ways it is read and written.

pub mod balance;
pub mod customer;
pub mod everything;
pub mod exception;
pub mod export;
pub mod idempotency;
pub mod journal;
pub mod lines;
pub mod link;
pub mod membership;
pub mod payouts;
pub mod paypal;
pub mod program;
pub mod pulse;
pub mod quickbooks;
pub mod rate;
pub mod run;
pub mod source;
pub mod tally;
pub mod tax;
pub mod touch;
pub mod unrewarded;
