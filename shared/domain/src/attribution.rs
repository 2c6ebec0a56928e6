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
    pub weights: Option<Weights>,
}

/// By position or channel, as decimals.
pub type Weights = BTreeMap<String, String>;

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
    let skipped = partners.len().saturating_sub(MAX_PARTNERS);
    (0..).zip(partners).filter(|(n, _)| *n == 0 || *n > skipped).map(|(_, partner)| partner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VisitorId;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn partner(n: u128) -> PartnerId {
        PartnerId::from_uuid(n)
    }

    /// A touch by a partner so many hours before noon of February 1.
    fn touch(n: u128, hours_before: i64, channel: &str) -> Touch {
        let at = at("2026-02-01T12:00:00Z") - SignedDuration::from_hours(hours_before);
        Touch {
            click: ClickId::derive(&VisitorId::from_uuid(1), at, n),
            partner: partner(n),
            at,
            code: "CODE".into(),
            channel: (!channel.is_empty()).then(|| channel.to_owned()),
            campaign: None,
            landing_page: None,
            device: None,
            referrer: None,
        }
    }

    fn model(model: &str, weights: serde_json::Value) -> Attribution {
        serde_json::from_value(json!({"model": model, "windowDays": 30, "weights": weights})).unwrap()
    }

    /// Who gets how much, in parts per 12,000.
    fn shares(of: &Attribution, touches: &[Touch]) -> Vec<(u128, u64)> {
        let credits = of.share(touches, at("2026-02-01T12:00:00Z"));
        let whole: u64 = credits.iter().map(|credit| credit.part).sum();
        let number = |credit: &Credit| (1..20).find(|n| partner(*n) == credit.partner).unwrap();
        credits.iter().map(|credit| (number(credit), credit.part * 12_000 / whole)).collect()
    }

    #[test]
    fn each_model_gives_the_shares_it_is_named_for() {
        let position = |first: &str, middle: &str, last: &str| {
            model("position_based", json!({"first": first, "middle": middle, "last": last}))
        };
        let custom = model("custom", json!({"web": "3", "mail": "1", "video": "0"}));
        let touches = |of: &[(u128, &str)]| -> Vec<Touch> {
            (0..).zip(of).map(|(n, (partner, channel))| touch(*partner, 100 - n, channel)).collect()
        };
        let plain = |of: &[u128]| touches(&of.iter().map(|n| (*n, "")).collect::<Vec<_>>());
        for (name, of, touches, expect) in [
            ("last", model("last_touch", json!(null)), plain(&[1, 2, 3]), vec![(3, 12_000)]),
            ("first", model("first_touch", json!(null)), plain(&[1, 2, 3]), vec![(1, 12_000)]),
            ("each partner once", model("linear", json!(null)), plain(&[1, 2, 1, 1]), vec![(1, 6_000), (2, 6_000)]),
            ("one alone", position("40", "20", "40"), plain(&[7, 7]), vec![(7, 12_000)]),
            ("two share the middle", position("40", "20", "40"), plain(&[1, 2]), vec![(1, 6_000), (2, 6_000)]),
            ("two unequal", position("10", "50", "40"), plain(&[1, 2]), vec![(1, 4_200), (2, 7_800)]),
            ("three", position("40", "20", "40"), plain(&[1, 2, 3]), vec![(1, 4_800), (2, 2_400), (3, 4_800)]),
            (
                "four",
                position("40", "20", "40"),
                plain(&[1, 2, 3, 4]),
                vec![(1, 4_800), (2, 1_200), (3, 1_200), (4, 4_800)],
            ),
            (
                "first counts by the first touch",
                position("50", "20", "30"),
                plain(&[1, 2, 3, 1]),
                vec![(1, 6_000), (2, 2_400), (3, 3_600)],
            ),
            ("no weight in the middle", position("50", "0", "50"), plain(&[1, 2, 3]), vec![(1, 6_000), (3, 6_000)]),
            ("by channel", custom.clone(), touches(&[(1, "web"), (2, "mail")]), vec![(1, 9_000), (2, 3_000)]),
            (
                "the heaviest channel",
                custom.clone(),
                touches(&[(1, "mail"), (1, "web"), (2, "mail")]),
                vec![(1, 9_000), (2, 3_000)],
            ),
            (
                "a channel without weight",
                custom.clone(),
                touches(&[(1, "video"), (2, "mail"), (3, "")]),
                vec![(2, 12_000)],
            ),
            ("only such channels", custom, touches(&[(1, "video"), (2, "radio")]), vec![(1, 6_000), (2, 6_000)]),
        ] {
            assert_eq!(shares(&of, &touches), expect, "{name}");
        }
    }

    #[test]
    fn only_touches_within_the_window_count_both_ends_inclusive() {
        let linear = model("linear", json!(null));
        let edge = 30 * 24;
        assert_eq!(shares(&linear, &[touch(1, edge, ""), touch(2, 0, "")]), [(1, 6_000), (2, 6_000)]);
        assert_eq!(shares(&linear, &[touch(1, edge + 1, ""), touch(2, -1, ""), touch(3, 5, "")]), [(3, 12_000)]);
        assert_eq!(shares(&linear, &[touch(1, edge + 1, "")]), []);
        assert_eq!(linear.window_start(at("2026-02-01T12:00:00Z")), at("2026-01-02T12:00:00Z"));
    }

    #[test]
    fn touches_come_in_any_order_and_of_one_moment_the_lower_id_is_earlier() {
        let first = model("first_touch", json!(null));
        assert_eq!(shares(&first, &[touch(3, 1, ""), touch(2, 5, ""), touch(1, 3, "")]), [(2, 12_000)]);
        assert_eq!(shares(&first, &[touch(3, 5, ""), touch(2, 5, "")]), [(2, 12_000)]);
    }

    #[test]
    fn of_more_partners_than_six_the_first_and_the_latest_five_count() {
        let of = |count: u128| -> Vec<u128> {
            let touches: Vec<_> = (1..=count).map(|n| touch(n, 100 - i64::try_from(n).unwrap(), "")).collect();
            shares(&model("linear", json!(null)), &touches).into_iter().map(|(n, _)| n).collect()
        };
        assert_eq!(of(6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(of(9), [1, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_could_not_be_shared_out_is_refused_by_its_field() {
        let checked = |value: serde_json::Value| -> Vec<String> {
            let of: Attribution = serde_json::from_value(value).unwrap();
            of.check().into_iter().map(|error| error.pointer).collect()
        };
        let weights = |first: &str, middle: &str, last: &str| {
            checked(json!({"model": "position_based", "weights": {"first": first, "middle": middle, "last": last}}))
        };
        let none: [&str; 0] = [];
        assert_eq!(weights("40", "20", "40"), none);
        assert_eq!(weights("33.333333", "33.333334", "33.333333"), none);
        assert_eq!(weights("40", "20", "39"), ["/attribution/weights"]);
        assert_eq!(weights("-10", "70", "40"), ["/attribution/weights/first", "/attribution/weights"]);
        assert_eq!(weights("33.3333333", "33", "33"), ["/attribution/weights/first", "/attribution/weights"]);
        let four = json!({"first": "40", "middle": "20", "last": "40", "fourth": "0"});
        assert_eq!(checked(json!({"model": "position_based", "weights": four})), ["/attribution/weights"]);
        for (days, expect) in [(0, true), (1, false), (365, false), (366, true)] {
            assert_eq!(!checked(json!({"model": "linear", "windowDays": days})).is_empty(), expect, "{days} days");
        }
        for simple in ["last_touch", "first_touch", "linear"] {
            assert_eq!(checked(json!({"model": simple})), none);
            assert_eq!(
                checked(json!({"model": simple, "weights": {"web": "1"}})),
                ["/attribution/weights"],
                "{simple}"
            );
        }
        let channels = |count: usize| -> serde_json::Value {
            (0..count).map(|n| (format!("c{n}"), json!("1"))).collect::<serde_json::Map<_, _>>().into()
        };
        for (weights, refused) in [
            (json!({}), true),
            (json!({"web": "0", "mail": "0"}), true),
            (json!({"web": "0", "mail": "1000"}), false),
            (channels(50), false),
            (channels(51), true),
        ] {
            let found = checked(json!({"model": "custom", "weights": weights}));
            assert_eq!(!found.is_empty(), refused, "{weights}: {found:?}");
        }
        assert_eq!(checked(json!({"model": "custom", "weights": {"web": "1000.1"}})), ["/attribution/weights/web"]);
    }

    #[test]
    fn a_model_is_named_as_the_api_writes_it() {
        for of in Model::ALL {
            assert_eq!(json!(of), of.as_str());
        }
        let words: Vec<_> = Model::ALL.iter().map(|of| of.words()).collect();
        assert_eq!(words, ["last touch", "first touch", "linear", "position-based", "custom"]);
        let standard = Attribution::default();
        assert_eq!((standard.model, standard.window_days, standard.weights), (Model::LastTouch, 30, None));
    }
}
