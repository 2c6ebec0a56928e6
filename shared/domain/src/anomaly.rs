//! Anomaly rules: what makes a conversion suspicious enough that a person should look before it is paid.
//!
//! They only ever hold: nothing is refused for being unusual. All are off unless a program sets them.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::money::{Minor, MoneyError, parse_decimal};
use crate::rules::FieldError;

/// Conversions a pulse remembers one by one.
pub const MAX_RECENT: usize = 100;

/// The anomaly rules of a program; what is `None` is off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnomalyRules {
    /// More than so many conversions of a partner within so many hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub velocity: Option<Velocity>,
    /// A conversion worth more than so many times the partner's average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Outlier>,
    /// A partner more of whose conversions than this were refunded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_rate: Option<RefundRate>,
    /// More than so many customers of a partner on one device within so many hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_device: Option<Velocity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Velocity {
    pub more_than: u32,
    pub hours: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlier {
    /// A factor of the average, as a decimal.
    pub times: String,
    /// Only once there are so many conversions to compare with.
    pub after_conversions: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundRate {
    /// In percent, as a decimal.
    pub more_than: String,
    pub after_conversions: u32,
}

impl AnomalyRules {
    pub const fn is_off(&self) -> bool {
        self.velocity.is_none() && self.outlier.is_none() && self.refund_rate.is_none() && self.shared_device.is_none()
    }

    /// Refuses what could never be judged by. Pointers start at `/anomalyRules`.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse =
            |field: &str, detail: &str| errors.push(FieldError::new(format!("/anomalyRules{field}"), detail));
        for (field, rule) in [("/velocity", &self.velocity), ("/sharedDevice", &self.shared_device)] {
            let Some(rule) = rule else { continue };
            if rule.more_than == 0 || rule.more_than as usize >= MAX_RECENT {
                refuse(&format!("{field}/moreThan"), "must be from 1 to 99");
            }
            if !(1..=24 * 31).contains(&rule.hours) {
                refuse(&format!("{field}/hours"), "must be from 1 to 744");
            }
        }
        let factor = |text: &str, low: Decimal, high: Decimal| {
            parse_decimal(text).is_ok_and(|number| number > low && number <= high)
        };
        if self.outlier.as_ref().is_some_and(|rule| !factor(&rule.times, Decimal::ONE, Decimal::from(10_000))) {
            refuse("/outlier/times", "must be more than 1 and at most 10000");
        }
        if self
            .refund_rate
            .as_ref()
            .is_some_and(|rule| !factor(&rule.more_than, Decimal::NEGATIVE_ONE, Decimal::ONE_HUNDRED))
        {
            refuse("/refundRate/moreThan", "must be a percentage from 0 to 100");
        }
        errors
    }
}

/// What is remembered of a partner's conversions to judge the next one by. Kept only where a program has anomaly rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pulse {
    pub conversions: u32,
    /// Of them, how many were refunded, in whole or in part.
    pub refunded: u32,
    /// Goods sold, in minor units.
    pub revenue: Minor,
    /// The latest, oldest first.
    pub recent: Vec<Beat>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitor: Option<String>,
}

impl Pulse {
    /// What the rules object to about a conversion worth `net` that comes on top of the pulse, if anything: the first that applies.
    pub fn objection(&self, rules: &AnomalyRules, beat: &Beat, net: Minor) -> Result<Option<String>, MoneyError> {
        let within = |hours: u32| {
            let reach = SignedDuration::from_hours(i64::from(hours));
            self.recent.iter().filter(move |other| other.at.duration_since(beat.at).abs() < reach)
        };
        if let Some(rule) = &rules.velocity
            && within(rule.hours).count() >= rule.more_than as usize
        {
            return Ok(Some(format!("velocity: more than {} conversions in {} hours", rule.more_than, rule.hours)));
        }
        if let (Some(rule), Some(visitor)) = (&rules.shared_device, &beat.visitor) {
            let same_device = within(rule.hours).filter(|other| other.visitor.as_ref() == Some(visitor));
            let mut customers: Vec<_> =
                same_device.filter_map(|other| other.customer.as_ref()).chain(&beat.customer).collect();
            customers.sort();
            customers.dedup();
            if customers.len() > rule.more_than as usize {
                return Ok(Some(format!(
                    "shared device: more than {} customers in {} hours",
                    rule.more_than, rule.hours
                )));
            }
        }
        if let Some(rule) = &rules.outlier
            && self.conversions >= rule.after_conversions.max(1)
        {
            // net / (revenue / conversions) > times, without dividing.
            let mine = Decimal::from(net.units()).checked_mul(self.conversions.into()).ok_or(MoneyError::Overflow)?;
            let times = parse_decimal(&rule.times)?;
            if mine > times.checked_mul(self.revenue.units().into()).ok_or(MoneyError::Overflow)? {
                return Ok(Some(format!("outlier: worth more than {} times the partner's average", rule.times)));
            }
        }
        if let Some(rule) = &rules.refund_rate
            && self.conversions >= rule.after_conversions.max(1)
        {
            let refunded = Decimal::from(u64::from(self.refunded) * 100);
            if refunded > parse_decimal(&rule.more_than)? * Decimal::from(self.conversions) {
                return Ok(Some(format!(
                    "refund rate: more than {} % of the partner's conversions were refunded",
                    rule.more_than
                )));
            }
        }
        Ok(None)
    }

    /// With one more conversion.
    pub fn with(mut self, beat: Beat, net: Minor) -> Result<Self, MoneyError> {
        self.conversions = self.conversions.saturating_add(1);
        self.revenue = self.revenue.plus(net)?;
        self.recent.push(beat);
        if self.recent.len() > MAX_RECENT {
            self.recent.remove(0);
        }
        Ok(self)
    }
}
