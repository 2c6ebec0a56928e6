//! Attribution: which partners a conversion is due to, and in what shares.
//!
//! What names a partner outright comes first: the conversion itself, then a coupon, then a click. Failing these, the customer's
//! touches within the program's window are shared out by its model. Whatever the model, the shares of a conversion are whole
//! numbers of one common whole, so that they sum to it exactly.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};

use crate::ids::{ClickId, PartnerId};
use crate::money::parse_decimal;
use crate::rules::FieldError;

/// Partners that one conversion can be due to: of more, the first and the latest count.
pub const MAX_PARTNERS: usize = 6;
/// The longest attribution window, in days. Touches are kept as long.
pub const MAX_WINDOW_DAYS: u16 = 365;
/// Channels that a custom model may weigh.
const MAX_CHANNELS: usize = 50;

/// How a program attributes conversions that name no partner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attribution {
    pub model: Model,
    pub window_days: u16,
    /// `first`, `middle` and `last` in percent for the position-based model; a weight per channel for the custom one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<BTreeMap<String, String>>,
}

impl Default for Attribution {
    fn default() -> Self {
        Self { model: Model::LastTouch, window_days: 30, weights: None }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    #[default]
    LastTouch,
    FirstTouch,
    /// Every distinct partner the same.
    Linear,
    /// Weights for the first, the middle and the last partner.
    PositionBased,
    /// A weight per channel.
    Custom,
}

impl Model {
    pub const ALL: [Self; 5] = [Self::LastTouch, Self::FirstTouch, Self::Linear, Self::PositionBased, Self::Custom];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastTouch => "last_touch",
            Self::FirstTouch => "first_touch",
            Self::Linear => "linear",
            Self::PositionBased => "position_based",
            Self::Custom => "custom",
        }
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::LastTouch => "last touch",
            Self::FirstTouch => "first touch",
            Self::Linear => "linear",
            Self::PositionBased => "position-based",
            Self::Custom => "custom",
        }
    }
}

/// Somebody followed a partner's link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Touch {
    pub click: ClickId,
    pub partner: PartnerId,
    pub at: Timestamp,
    /// The code of the link.
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    /// Where the link led, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landing_page: Option<String>,
    /// `mobile`, `tablet` or `desktop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The host the visitor came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrer: Option<String>,
}

/// One partner's part of a conversion: `part` of the sum of all parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    pub partner: PartnerId,
    pub part: u64,
}

/// A weight with up to this many decimals stays exact.
const WEIGHT_SCALE: i64 = 1_000_000;

fn weight(text: &str) -> Option<u64> {
    let scaled = parse_decimal(text).ok()?.checked_mul(Decimal::from(WEIGHT_SCALE))?;
    let limit = Decimal::from(1_000 * WEIGHT_SCALE);
    if scaled.is_sign_negative() || scaled > limit || !scaled.fract().is_zero() { None } else { scaled.to_u64() }
}

impl Attribution {
    /// Refuses what could not be shared out. Pointers start at `/attribution`.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse =
            |field: &str, detail: &str| errors.push(FieldError::new(format!("/attribution{field}"), detail));
        if !(1..=MAX_WINDOW_DAYS).contains(&self.window_days) {
            refuse("/windowDays", "must be from 1 to 365");
        }
        let weights = self.weights.clone().unwrap_or_default();
        for (name, text) in &weights {
            if weight(text).is_none() {
                refuse(&format!("/weights/{name}"), "must be a number from 0 to 1000 with at most six decimals");
            }
        }
        match self.model {
            Model::PositionBased => {
                let sum: Option<u64> =
                    ["first", "middle", "last"].iter().map(|at| weights.get(*at).and_then(|text| weight(text))).sum();
                if sum != Some(100 * WEIGHT_SCALE.unsigned_abs()) || weights.len() != 3 {
                    refuse("/weights", "needs first, middle and last, in percent, summing to 100");
                }
            }
            Model::Custom => {
                if weights.is_empty()
                    || weights.len() > MAX_CHANNELS
                    || weights.values().all(|text| weight(text) == Some(0))
                {
                    refuse("/weights", "needs a weight for 1 to 50 channels, not all zero");
                }
            }
            Model::LastTouch | Model::FirstTouch | Model::Linear if self.weights.is_some() => {
                refuse("/weights", "only the position-based and the custom model have weights");
            }
            Model::LastTouch | Model::FirstTouch | Model::Linear => {}
        }
        errors
    }

    /// The earliest moment a touch may have happened at to count for a conversion.
    pub fn window_start(&self, occurred_at: Timestamp) -> Timestamp {
        let window = SignedDuration::from_hours(24 * i64::from(self.window_days));
        occurred_at.checked_sub(window).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Shares a conversion out among the partners who were touched by `touches`, in the order of each partner's first touch
    /// and then of their ids. Only touches within the window count, both ends inclusive. None left: nobody.
    pub fn share(&self, touches: &[Touch], occurred_at: Timestamp) -> Vec<Credit> {
        let start = self.window_start(occurred_at);
        let mut touches: Vec<_> = touches.iter().filter(|touch| (start..=occurred_at).contains(&touch.at)).collect();
        touches.sort_by(|a, b| (a.at, &a.partner, &a.click).cmp(&(b.at, &b.partner, &b.click)));
        let (Some(first), Some(last)) = (touches.first(), touches.last()) else { return Vec::new() };
        match self.model {
            Model::FirstTouch => return vec![Credit { partner: first.partner.clone(), part: 1 }],
            Model::LastTouch => return vec![Credit { partner: last.partner.clone(), part: 1 }],
            Model::Linear | Model::PositionBased | Model::Custom => {}
        }
        let partners = distinct(&touches);
        let mut credits: Vec<_> = match self.model {
            Model::PositionBased => self.by_position(&partners),
            Model::Custom => partners.iter().map(|partner| self.by_channel(partner, &touches)).collect(),
            _ => partners.iter().map(|partner| Credit { partner: (*partner).clone(), part: 1 }).collect(),
        };
        credits.retain(|credit| credit.part > 0);
        if credits.is_empty() {
            // Only channels without weight: as good as nothing to go by, so all the same.
            credits = partners.iter().map(|partner| Credit { partner: (*partner).clone(), part: 1 }).collect();
        }
        credits
    }

    fn position_weight(&self, position: &str) -> u64 {
        self.weights.as_ref().and_then(|weights| weight(weights.get(position)?)).unwrap_or_default()
    }

    /// With one partner it takes all; with two, the middle's weight is shared equally by first and last.
    fn by_position(&self, partners: &[&PartnerId]) -> Vec<Credit> {
        let [first, middle, last] = ["first", "middle", "last"].map(|position| self.position_weight(position));
        let middles = u64::try_from(partners.len().saturating_sub(2)).unwrap_or(u64::MAX);
        let parts: Vec<u64> = match partners.len() {
            1 => vec![1],
            2 => vec![2 * first + middle, 2 * last + middle],
            // Scaled by the number of those in the middle, so that each part stays whole.
            count => (0..count)
                .map(|n| match n {
                    0 => first * middles,
                    n if n == count - 1 => last * middles,
                    _ => middle,
                })
                .collect(),
        };
        partners.iter().zip(parts).map(|(partner, part)| Credit { partner: (*partner).clone(), part }).collect()
    }

    /// A partner weighs as much as the heaviest channel it touched the customer through.
    fn by_channel(&self, partner: &PartnerId, touches: &[&Touch]) -> Credit {
        let weigh = |touch: &&Touch| {
            let channel = touch.channel.as_deref().unwrap_or_default();
            self.weights.as_ref().and_then(|weights| weight(weights.get(channel)?)).unwrap_or_default()
        };
        let own = touches.iter().filter(|touch| touch.partner == *partner);
        Credit { partner: partner.clone(), part: own.map(weigh).max().unwrap_or_default() }
    }
}

/// Every partner once, by first touch; of too many, the first and the latest.
fn distinct<'a>(touches: &[&'a Touch]) -> Vec<&'a PartnerId> {
    let mut partners: Vec<&PartnerId> = Vec::new();
    for touch in touches {
        if !partners.contains(&&touch.partner) {
            partners.push(&touch.partner);
        }
    }
    if partners.len() > MAX_PARTNERS {
        let latest = partners.split_off(partners.len() - (MAX_PARTNERS - 1));
        partners.truncate(1);
        partners.extend(latest);
    }
    partners
}
