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

    /// With one more of the conversions refunded, in whole or in part.
    #[must_use]
    pub const fn refunded(mut self) -> Self {
        self.refunded = self.refunded.saturating_add(1);
        self
    }

    /// With one less: what was refunded of it was withdrawn.
    #[must_use]
    pub const fn not_refunded(mut self) -> Self {
        self.refunded = self.refunded.saturating_sub(1);
        self
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::minor;
    use serde_json::json;

    fn rules(rules: serde_json::Value) -> AnomalyRules {
        serde_json::from_value(rules).unwrap()
    }

    /// So many minutes after noon.
    fn at(minutes: i64) -> Timestamp {
        "2026-06-01T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
    }

    fn beat(minutes: i64, customer: &str, visitor: &str) -> Beat {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Beat { at: at(minutes), customer: text(customer), visitor: text(visitor) }
    }

    fn pulse(beats: &[(Beat, i64)]) -> Pulse {
        beats.iter().fold(Pulse::default(), |pulse, (beat, net)| pulse.with(beat.clone(), minor(*net)).unwrap())
    }

    /// The word that an objection starts with.
    fn objection(pulse: &Pulse, of: &AnomalyRules, beat: &Beat, net: i64) -> Option<String> {
        let why = pulse.objection(of, beat, minor(net)).unwrap()?;
        why.split_once(':').map(|(word, _)| word.to_owned())
    }

    #[test]
    fn more_conversions_than_allowed_within_the_hours_are_too_many() {
        let of = rules(json!({"velocity": {"moreThan": 2, "hours": 1}}));
        let two = pulse(&[(beat(0, "", ""), 1), (beat(10, "", ""), 1)]);
        let velocity = |minutes| objection(&two, &of, &beat(minutes, "", ""), 1).is_some();
        assert!(velocity(20), "the third within an hour");
        assert!(velocity(59), "a minute is left");
        assert!(!velocity(60), "the first is an hour ago");
        assert!(velocity(-49) && !velocity(-50), "one that was told late counts as well");
        let one = pulse(&[(beat(0, "", ""), 1)]);
        assert_eq!(objection(&one, &of, &beat(5, "", ""), 1), None);
        let why = two.objection(&of, &beat(20, "", ""), minor(1)).unwrap();
        assert_eq!(why.as_deref(), Some("velocity: more than 2 conversions in 1 hours"));
    }

    #[test]
    fn many_customers_on_one_device_are_suspicious_and_one_customer_is_not() {
        let of = rules(json!({"sharedDevice": {"moreThan": 2, "hours": 1}}));
        let seen =
            pulse(&[(beat(0, "a", "v"), 1), (beat(1, "b", "v"), 1), (beat(2, "c", "w"), 1), (beat(3, "", "v"), 1)]);
        let shared = |beat: &Beat| objection(&seen, &of, beat, 1);
        assert_eq!(shared(&beat(5, "d", "v")).as_deref(), Some("shared device"));
        assert_eq!(shared(&beat(5, "a", "v")), None, "one of the two");
        assert_eq!(shared(&beat(5, "d", "w")), None, "another device");
        assert_eq!(shared(&beat(5, "d", "")), None, "no device is told");
        assert_eq!(shared(&beat(61, "d", "v")), None, "long ago");
    }

    #[test]
    fn what_is_worth_far_more_than_the_average_is_an_outlier_once_there_is_an_average() {
        let of = rules(json!({"outlier": {"times": "2.5", "afterConversions": 2}}));
        let seen = pulse(&[(beat(0, "", ""), 100), (beat(1, "", ""), 300)]);
        assert_eq!(objection(&seen, &of, &beat(2, "", ""), 500), None, "exactly 2.5 times 200");
        assert_eq!(objection(&seen, &of, &beat(2, "", ""), 501).as_deref(), Some("outlier"));
        let one = pulse(&[(beat(0, "", ""), 100)]);
        assert_eq!(objection(&one, &of, &beat(2, "", ""), 5_000), None, "one is no average");
    }

    #[test]
    fn a_partner_whose_conversions_are_often_refunded_is_looked_at() {
        let of = rules(json!({"refundRate": {"moreThan": "50", "afterConversions": 4}}));
        let mut seen = pulse(&[(beat(0, "", ""), 1), (beat(1, "", ""), 1), (beat(2, "", ""), 1), (beat(3, "", ""), 1)]);
        seen.refunded = 2;
        assert_eq!(objection(&seen, &of, &beat(9, "", ""), 1), None, "half is not more than half");
        seen.refunded = 3;
        assert_eq!(objection(&seen, &of, &beat(9, "", ""), 1).as_deref(), Some("refund rate"));
        seen.conversions = 3;
        assert_eq!(objection(&seen, &of, &beat(9, "", ""), 1), None, "too few to tell");
        assert_eq!(
            objection(
                &Pulse::default(),
                &rules(json!({"refundRate": {"moreThan": "0", "afterConversions": 0}})),
                &beat(0, "", ""),
                1
            ),
            None
        );
    }

    #[test]
    fn a_pulse_sums_up_all_and_remembers_the_latest_hundred() {
        let beats: Vec<_> = (0..101).map(|n| (beat(n, "", ""), 2)).collect();
        let hundred = pulse(&beats[..100]);
        assert_eq!((hundred.recent.len(), hundred.recent[0].at), (100, at(0)));
        let all = pulse(&beats);
        assert_eq!((all.conversions, all.revenue, all.recent.len()), (101, minor(202), 100));
        assert_eq!((all.recent[0].at, all.recent[99].at), (at(1), at(100)));
    }

    #[test]
    fn rules_are_off_unless_set_and_refused_where_they_could_not_be_judged_by() {
        assert!(AnomalyRules::default().is_off());
        for (set, pointer) in [
            (json!({"velocity": {"moreThan": 1, "hours": 1}}), ""),
            (json!({"velocity": {"moreThan": 99, "hours": 744}}), ""),
            (json!({"velocity": {"moreThan": 0, "hours": 1}}), "/anomalyRules/velocity/moreThan"),
            (json!({"velocity": {"moreThan": 100, "hours": 1}}), "/anomalyRules/velocity/moreThan"),
            (json!({"velocity": {"moreThan": 1, "hours": 0}}), "/anomalyRules/velocity/hours"),
            (json!({"velocity": {"moreThan": 1, "hours": 745}}), "/anomalyRules/velocity/hours"),
            (json!({"sharedDevice": {"moreThan": 0, "hours": 1}}), "/anomalyRules/sharedDevice/moreThan"),
            (json!({"outlier": {"times": "1.1", "afterConversions": 1}}), ""),
            (json!({"outlier": {"times": "10000", "afterConversions": 1}}), ""),
            (json!({"outlier": {"times": "1", "afterConversions": 1}}), "/anomalyRules/outlier/times"),
            (json!({"outlier": {"times": "10000.1", "afterConversions": 1}}), "/anomalyRules/outlier/times"),
            (json!({"outlier": {"times": "many", "afterConversions": 1}}), "/anomalyRules/outlier/times"),
            (json!({"refundRate": {"moreThan": "0", "afterConversions": 1}}), ""),
            (json!({"refundRate": {"moreThan": "100", "afterConversions": 1}}), ""),
            (json!({"refundRate": {"moreThan": "101", "afterConversions": 1}}), "/anomalyRules/refundRate/moreThan"),
            (json!({"refundRate": {"moreThan": "-1", "afterConversions": 1}}), "/anomalyRules/refundRate/moreThan"),
        ] {
            let of = rules(set.clone());
            assert!(!of.is_off(), "{set}");
            let pointers: Vec<_> = of.check().into_iter().map(|error| error.pointer).collect();
            assert_eq!(pointers.join(" "), pointer, "{set}");
        }
    }
}
