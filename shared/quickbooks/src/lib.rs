//! QuickBooks Online, as far as paying partners by Bills takes: sign-in, vendors, Bills, payments, and what happens to them there.
//!
//! Facts come from Intuit's documentation, software development kits and schema of 2025 and 2026. Where they leave something open, either
//! reading is safe here. What must never happen is in the types: an answer that was lost is [`ApiError::Unknown`], never a failure.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod amount;
mod client;
mod entities;
mod fault;
pub mod oauth;
mod query;
mod secret;
pub mod webhook;

pub use amount::Amount;
pub use client::{
    BatchItem, BatchOutcome, Change, Changes, Client, Company, Environment, MAX_BATCH, MAX_CHANGES, Told,
};
pub use entities::{
    Account, Bill, BillLine, BillPayment, CompanyInfo, Email, Entity, ExpenseDetail, LinkedTxn, MetaData, PaymentLine,
    Preferences, Ref, Term, Vendor,
};
pub use fault::{ApiError, Code, Fault};
pub use query::Query;
pub use secret::Secret;
