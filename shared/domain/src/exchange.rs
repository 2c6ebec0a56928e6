//! Exchange rates: what one currency was worth in another on a day, as somebody published it.

use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::money::{Currency, Minor, Money, MoneyError};

/// One unit of `from` is `rate` units of `to`, both in major units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeRate {
    pub from: Currency,
    pub to: Currency,
    pub rate: Decimal,
    /// Who published it.
    pub source: String,
    /// The day it was published for.
    pub date: Date,
}

impl ExchangeRate {
    /// An amount of `from` in minor units of `to`, unrounded.
    pub fn exact(&self, amount: Minor) -> Result<Decimal, MoneyError> {
        let worth = Decimal::from(amount.units()).checked_mul(self.rate).ok_or(MoneyError::Overflow)?;
        let power = |exponent: u32| Decimal::from(10_u32.pow(exponent));
        let (from, to) = (self.from.exponent(), self.to.exponent());
        let scaled = if to >= from { worth.checked_mul(power(to - from)) } else { worth.checked_div(power(from - to)) };
        scaled.ok_or(MoneyError::Overflow)
    }

    /// An amount of `from` as an amount of `to`, rounded once, half away from zero.
    pub fn convert(&self, amount: Minor) -> Result<Money, MoneyError> {
        Ok(Money::new(Minor::round(self.exact(amount)?)?, self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::minor;

    #[test]
    fn amounts_are_converted_by_the_exponents_of_both_currencies() {
        for (from, to, rate, amount, expect) in [
            ("USD", "EUR", "0.9", 1_000, 900),
            ("USD", "EUR", "0.925", 1_001, 926),
            ("USD", "EUR", "0.5", -1, -1),
            ("JPY", "USD", "0.0066", 5_200, 3_432),
            ("USD", "JPY", "151.52", 1_000, 1_515),
            ("USD", "KWD", "0.3071", 1_000, 3_071),
            ("KWD", "JPY", "493.4", 1_500, 740),
        ] {
            let rate = ExchangeRate {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                rate: rate.parse().unwrap(),
                source: "test".into(),
                date: "2026-06-01".parse().unwrap(),
            };
            let converted = rate.convert(minor(amount)).unwrap();
            assert_eq!(
                (converted.amount, converted.currency),
                (minor(expect), rate.to),
                "{amount} {from} at {}",
                rate.rate
            );
        }
    }
}
