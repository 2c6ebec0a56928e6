//! The rules of money of a partner program, from a sale to a paid commission.
//!
//! Pure: no I/O, no clock, no environment, no randomness, no floats. Time and ids come in as values, and what cannot be
//! done is a typed error. Everything else in the project calls this crate; it calls nothing of ours.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::float_arithmetic))]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod accrual;
pub mod anomaly;
pub mod attribution;
pub mod balance;
pub mod booking;
pub mod conversion;
pub mod exchange;
pub mod explain;
pub mod ids;
pub mod journal;
pub mod line;
pub mod link;
pub mod money;
pub mod order;
pub mod payout;
pub mod program;
pub mod rating;
pub mod remittance;
pub mod reversal;
pub mod rules;
pub mod schedule;
pub mod selection;
pub mod statement;
pub mod tally;
pub mod tax;
