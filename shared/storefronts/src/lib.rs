//! Storefronts' webhooks: is the signature right, and which [`ConversionEvent`]s does the payload report?
//!
//! Pure: no I/O, no clock, no environment. Nothing here panics, whatever bytes arrive. Money is read from the text of
//! the payload into exact decimals, ids as text or whole numbers; neither ever passes through a float.
//!
//! Only money that has really moved accrues: a paid order, never one that was merely placed, authorized or renewed by a
//! trial. A payload that is fine but moves no money is [`Reading::Ignored`]; one that cannot be understood, or that a
//! person has to look at, is [`Unreadable`].
#![allow(clippy::doc_markdown, reason = "WooCommerce is a name, not code")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod evidence;
mod payload;
mod shopify;
mod signature;
pub mod standard;
mod stripe;
mod woocommerce;

use std::fmt;

use domain::conversion::ConversionEvent;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

pub use signature::{BadSignature, verify};
pub use woocommerce::is_ping as is_woocommerce_ping;

/// The systems whose webhooks are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Shopify,
    Woocommerce,
    Stripe,
    /// Our own event, signed by Standard Webhooks.
    Standard,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Shopify, Self::Woocommerce, Self::Stripe, Self::Standard];

    /// The name in the API and in stored items.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shopify => "shopify",
            Self::Woocommerce => "woocommerce",
            Self::Stripe => "stripe",
            Self::Standard => "standard",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a well-formed payload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// In the order in which they must be applied: a sale before its refunds.
    Events(Vec<ConversionEvent>),
    /// No money moved, or another payload reports it. Why.
    Ignored(&'static str),
}

/// One fault of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// An RFC 6901 JSON pointer into the payload; empty for the whole of it.
    pub pointer: String,
    pub detail: String,
}

/// A payload nothing can be done with, at least not without a person. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON, or a field of another JSON type than agreed.
    #[error("malformed: {}", listed(.0))]
    Malformed(Vec<Problem>),
    /// Well-formed, but refused.
    #[error("refused: {}", listed(.0))]
    Invalid(Vec<Problem>),
}

impl Unreadable {
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Malformed(problems) | Self::Invalid(problems) => problems,
        }
    }

    pub(crate) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem { pointer: pointer.into(), detail: detail.into() }])
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{}: {}", problem.pointer, problem.detail)).collect::<Vec<_>>().join("; ")
}

/// Reads a payload whose signature has been verified.
///
/// Events are as the source states them: [`ConversionEvent::check`] still has to be asked whether they can be true.
pub fn read(kind: Kind, headers: &HeaderMap, body: &[u8]) -> Result<Reading, Unreadable> {
    match kind {
        Kind::Shopify => shopify::read(headers, body),
        Kind::Woocommerce => woocommerce::read(headers, body),
        Kind::Stripe => stripe::read(body),
        Kind::Standard => standard::parse(body).map(|own| Reading::Events(vec![own.event])),
    }
}

/// The text of the first of the headers that is present.
fn header<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| headers.get(*name)).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_one_name() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.to_string(), kind.as_str());
        }
    }
}
