//! The `PayPal` Payouts API, as far as paying one partner at a time takes: sign-in, payouts, what became of them, webhooks.
//!
//! Facts come from <https://developer.paypal.com/docs/api/payments.payouts-batch/v1/> and PayPal's webhook documentation of 2025. What
//! must never happen is in the types: an answer that was lost is [`ApiError::Unknown`], never a refusal.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod client;
mod error;
mod payouts;
mod webhook;

pub use client::{Client, Credentials, Environment, Secret};
pub use error::ApiError;
pub use payouts::{Item, ItemStatus, Recipient, Wallet, WhatBecame};
pub use webhook::{Delivery, Notice};
