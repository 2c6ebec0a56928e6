//! Exchange rates: what one currency was worth in another on a day, as somebody published it.
//!
//! Amounts are converted as fractions of whole numbers and published decimals, and divided last: what can be exact is, and the one rounding
//! is where money is booked.

use std::fmt;

use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::money::{Currency, Minor, Money, MoneyError, Percent, parse_decimal};
use crate::rules::FieldError;

/// A rate that was published is at most this; a smaller currency than that has none.
const MAX_RATE: i64 = 1_000_000_000;
/// Decimals of a published rate.
const MAX_DECIMALS: u32 = 15;
/// Characters of a source's name.
const MAX_SOURCE: usize = 60;

/// `per` units of `from` are `rate` units of `to`, all in major units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeRate {
    pub from: Currency,
    pub to: Currency,
    pub rate: Decimal,
    /// One where the rate is as it was published. A rate that is derived has both published numbers, since their quotient may have no end.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub per: Decimal,
    /// Who published it.
    pub source: String,
    /// The day it was published for.
    pub date: Date,
}

const fn one() -> Decimal {
    Decimal::ONE
}

fn is_one(per: &Decimal) -> bool {
    *per == Decimal::ONE
}

impl ExchangeRate {
    /// An amount of `from` in minor units of `to`, unrounded.
    pub fn unrounded(&self, amount: Minor) -> Result<Unrounded, MoneyError> {
        let scaled = |number: Decimal, exponent: u32| number.checked_mul(Decimal::from(10_u32.pow(exponent)));
        let (from, to) = (self.from.exponent(), self.to.exponent());
        let units = Decimal::from(amount.units()).checked_mul(self.rate).ok_or(MoneyError::Overflow)?;
        let units = scaled(units, to.saturating_sub(from)).ok_or(MoneyError::Overflow)?;
        let per = scaled(self.per, from.saturating_sub(to)).ok_or(MoneyError::Overflow)?;
        Ok(Unrounded { units, per })
    }

    /// An amount of `from` as an amount of `to`, rounded once, half away from zero.
    pub fn convert(&self, amount: Minor) -> Result<Money, MoneyError> {
        Ok(Money::new(self.unrounded(amount)?.round()?, self.to))
    }
}

/// `1 EUR = 1.0837 USD`.
impl fmt::Display for ExchangeRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, rate, per, .. } = self;
        write!(f, "{} {from} = {} {to}", per.normalize(), rate.normalize())
    }
}

/// The rate from one currency to another by what was told for one day, each pair once at most:
///
/// 1. as it was told;
/// 2. else the other way round;
/// 3. else through a third currency in which one source told both, or which it told in both: of several the first by code, and the former
///    before the latter.
pub fn rate_of_day(told: &[ExchangeRate], from: Currency, to: Currency) -> Option<ExchangeRate> {
    let find = |from: Currency, to: Currency| told.iter().find(|rate| (rate.from, rate.to) == (from, to));
    let derived = |rate: Decimal, per: Decimal, by: &ExchangeRate| ExchangeRate {
        from,
        to,
        rate,
        per,
        source: by.source.clone(),
        date: by.date,
    };
    if let Some(direct) = find(from, to) {
        return Some(direct.clone());
    }
    if let Some(opposite) = find(to, from) {
        return Some(derived(opposite.per, opposite.rate, opposite));
    }
    let mut bases: Vec<_> = told.iter().flat_map(|rate| [rate.from, rate.to]).collect();
    bases.sort_unstable();
    bases.dedup();
    bases.into_iter().find_map(|base| {
        // One unit of the third is so much of either, so that much of one is that much of the other.
        if let (Some(of_from), Some(of_to)) = (find(base, from), find(base, to))
            && of_from.source == of_to.source
        {
            return Some(derived(of_to.rate, of_from.rate, of_to));
        }
        let (in_from, in_to) = (find(from, base)?, find(to, base)?);
        (in_from.source == in_to.source).then(|| derived(in_from.rate, in_to.rate, in_to))
    })
}

/// A published rate as somebody writes it.
#[derive(Debug, Clone, Copy)]
pub struct Quote<'a> {
    pub date: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub rate: &'a str,
    pub source: &'a str,
}

impl Quote<'_> {
    /// The rate, or what is wrong with which field. `today` is the day in UTC.
    pub fn read(&self, today: Date) -> Result<ExchangeRate, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut refuse = |field: &str, why: String| errors.push(FieldError::new(field, why));
        let date = match self.date.parse::<Date>() {
            Ok(date) if date > today => {
                refuse("/date", "lies in the future".to_owned());
                None
            }
            Ok(date) if date.year() < 1970 => {
                refuse("/date", "lies before 1970".to_owned());
                None
            }
            Ok(date) if self.date.len() == 10 => Some(date),
            _ => {
                refuse("/date", "must be a day like 2026-06-01".to_owned());
                None
            }
        };
        let mut currency = |field: &str, text: &str| {
            let parsed = text.parse::<Currency>();
            parsed.map_err(|error| refuse(field, error.to_string())).ok()
        };
        let (from, to) = (currency("/from", self.from), currency("/to", self.to));
        if from.is_some() && from == to {
            refuse("/to", "is the currency itself".to_owned());
        }
        let rate = match parse_decimal(self.rate) {
            Ok(rate) if rate <= Decimal::ZERO || rate > Decimal::from(MAX_RATE) => {
                refuse("/rate", "must be more than zero and at most 10^9".to_owned());
                None
            }
            Ok(rate) if rate.normalize().scale() > MAX_DECIMALS => {
                refuse("/rate", format!("has more than {MAX_DECIMALS} decimals"));
                None
            }
            Ok(rate) => Some(rate.normalize()),
            Err(error) => {
                refuse("/rate", error.to_string());
                None
            }
        };
        let source = self.source.trim();
        if source.is_empty() || source.chars().count() > MAX_SOURCE || source.chars().any(char::is_control) {
            refuse("/source", format!("needs 1 to {MAX_SOURCE} characters"));
        }
        match (date, from, to, rate) {
            (Some(date), Some(from), Some(to), Some(rate)) if errors.is_empty() => {
                Ok(ExchangeRate { from, to, rate, per: Decimal::ONE, source: source.to_owned(), date })
            }
            _ => Err(errors),
        }
    }
}

/// An amount in minor units before it is rounded: `units` of `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unrounded {
    units: Decimal,
    per: Decimal,
}

impl From<Minor> for Unrounded {
    fn from(amount: Minor) -> Self {
        Self { units: amount.units().into(), per: Decimal::ONE }
    }
}

impl Unrounded {
    pub fn percent(self, rate: Percent) -> Result<Self, MoneyError> {
        let product = self.units.checked_mul(rate.value()).ok_or(MoneyError::Overflow)?;
        Ok(Self { units: product.checked_div(Decimal::ONE_HUNDRED).ok_or(MoneyError::Overflow)?, ..self })
    }

    /// `part` of `whole` of it.
    pub fn share(self, part: u64, whole: u64) -> Result<Self, MoneyError> {
        let times = |number: Decimal, by: u64| number.checked_mul(by.into()).ok_or(MoneyError::Overflow);
        Ok(Self { units: times(self.units, part)?, per: times(self.per, whole)? })
    }

    /// The quotient, to 28 digits where it has no end.
    pub fn value(self) -> Result<Decimal, MoneyError> {
        self.units.checked_div(self.per).ok_or(MoneyError::Overflow)
    }

    /// Half away from zero.
    pub fn round(self) -> Result<Minor, MoneyError> {
        Minor::round(self.value()?)
    }

    /// Whether it is that amount or more.
    pub fn reaches(self, amount: Minor) -> bool {
        self.units >= self.as_much(amount)
    }

    /// Whether it is more than that amount.
    pub fn exceeds(self, amount: Minor) -> bool {
        self.units > self.as_much(amount)
    }

    fn as_much(self, amount: Minor) -> Decimal {
        self.per.saturating_mul(amount.units().into())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::conversion::tests::minor;
    use proptest::prelude::*;

    pub(crate) fn rate(from: &str, to: &str, rate: &str) -> ExchangeRate {
        ExchangeRate {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            rate: rate.parse().unwrap(),
            per: Decimal::ONE,
            source: "test".into(),
            date: "2026-06-01".parse().unwrap(),
        }
    }

    fn of_day(told: &[ExchangeRate], from: &str, to: &str) -> Option<String> {
        rate_of_day(told, from.parse().unwrap(), to.parse().unwrap()).map(|rate| rate.to_string())
    }

    #[test]
    fn amounts_are_converted_by_the_exponents_of_both_currencies() {
        for (from, to, told, amount, expect) in [
            ("USD", "EUR", "0.9", 1_000, 900),
            ("USD", "EUR", "0.925", 1_001, 926),
            ("USD", "EUR", "0.5", -1, -1),
            ("JPY", "USD", "0.0066", 5_200, 3_432),
            ("USD", "JPY", "151.52", 1_000, 1_515),
            ("USD", "KWD", "0.3071", 1_000, 3_071),
            ("KWD", "JPY", "493.4", 1_500, 740),
        ] {
            let rate = rate(from, to, told);
            let converted = rate.convert(minor(amount)).unwrap();
            assert_eq!((converted.amount, converted.currency), (minor(expect), rate.to), "{amount} at {rate}");
        }
    }

    #[test]
    fn a_rate_is_told_else_reversed_else_through_a_third_currency() {
        let table = [rate("EUR", "USD", "1.08"), rate("EUR", "CAD", "1.47"), rate("EUR", "JPY", "163.5")];
        for (from, to, expect) in [
            ("EUR", "USD", Some("1 EUR = 1.08 USD")),
            ("USD", "EUR", Some("1.08 USD = 1 EUR")),
            ("USD", "CAD", Some("1.08 USD = 1.47 CAD")),
            ("JPY", "USD", Some("163.5 JPY = 1.08 USD")),
            ("GBP", "USD", None),
            ("EUR", "GBP", None),
        ] {
            assert_eq!(of_day(&table, from, to).as_deref(), expect, "{from} to {to}");
        }
        let in_euro = [rate("USD", "EUR", "0.93"), rate("CAD", "EUR", "0.68")];
        assert_eq!(of_day(&in_euro, "USD", "CAD").unwrap(), "0.68 USD = 0.93 CAD");
        let of_two = [in_euro[0].clone(), ExchangeRate { source: "other".into(), ..in_euro[1].clone() }];
        assert_eq!(of_day(&of_two, "USD", "CAD"), None);
        // What is told is not derived, whatever else was told.
        let both = [&table[..], &[rate("USD", "EUR", "0.93"), rate("USD", "CAD", "1.36")]].concat();
        assert_eq!(of_day(&both, "USD", "EUR").unwrap(), "1 USD = 0.93 EUR");
        assert_eq!(of_day(&both, "USD", "CAD").unwrap(), "1 USD = 1.36 CAD");
    }

    #[test]
    fn the_two_legs_are_of_one_source_and_the_first_currency_by_code_is_taken() {
        let of = |source: &str, told: ExchangeRate| ExchangeRate { source: source.into(), ..told };
        let two = [of("a", rate("EUR", "USD", "1.08")), of("b", rate("EUR", "CAD", "1.47"))];
        assert_eq!(of_day(&two, "USD", "CAD"), None);
        let through = [rate("GBP", "USD", "1.25"), rate("GBP", "CAD", "1.71"), two[0].clone()];
        assert_eq!(of_day(&through, "USD", "CAD").unwrap(), "1.25 USD = 1.71 CAD");
        let several = [&through[..], &[of("a", rate("EUR", "CAD", "1.47"))]].concat();
        assert_eq!(of_day(&several, "USD", "CAD").unwrap(), "1.08 USD = 1.47 CAD");
        // Not by a chain of two currencies: what one told, and another in return.
        assert_eq!(of_day(&[rate("USD", "EUR", "0.93"), rate("EUR", "CAD", "1.47")], "USD", "CAD"), None);
    }

    #[test]
    fn what_has_no_end_is_divided_last() {
        // A third of 3 cents, and half of that: half a cent, away from zero.
        let third = rate_of_day(&[rate("EUR", "USD", "3")], "USD".parse().unwrap(), "EUR".parse().unwrap()).unwrap();
        let half = third.unrounded(minor(3)).unwrap().percent(Percent::new(50.into())).unwrap();
        assert_eq!(half.round().unwrap(), minor(1));
        assert_eq!(third.unrounded(minor(3)).unwrap().share(1, 2).unwrap().round().unwrap(), minor(1));
        let exactly = third.unrounded(minor(300)).unwrap();
        assert!(exactly.reaches(minor(100)) && !exactly.exceeds(minor(100)) && !exactly.reaches(minor(101)));
        assert!(third.unrounded(minor(301)).unwrap().exceeds(minor(100)));
    }

    #[test]
    fn a_rate_is_kept_as_it_was_told_and_a_derived_one_with_both_numbers() {
        let told = rate("EUR", "USD", "1.08");
        let kept =
            serde_json::json!({"from": "EUR", "to": "USD", "rate": "1.08", "source": "test", "date": "2026-06-01"});
        assert_eq!(serde_json::json!(told), kept);
        assert_eq!(serde_json::from_value::<ExchangeRate>(kept).unwrap(), told);
        let derived = rate_of_day(&[told], "USD".parse().unwrap(), "EUR".parse().unwrap()).unwrap();
        let kept = serde_json::json!(derived);
        assert_eq!((&kept["rate"], &kept["per"]), (&serde_json::json!("1"), &serde_json::json!("1.08")));
        assert_eq!(serde_json::from_value::<ExchangeRate>(kept).unwrap(), derived);
    }

    #[test]
    fn a_quote_may_be_as_old_as_large_as_fine_and_as_long_as_its_limits() {
        let good = Quote { date: "2026-06-01", from: "EUR", to: "USD", rate: "1.0837", source: "ecb" };
        let (sixty, more) = ("s".repeat(60), "s".repeat(61));
        for (quote, fine) in [
            (Quote { date: "1970-01-01", ..good }, true),
            (Quote { rate: "1000000000", ..good }, true),
            (Quote { rate: "0.000000000000001", ..good }, true),
            (Quote { source: &sixty, ..good }, true),
            (Quote { source: &more, ..good }, false),
        ] {
            assert_eq!(quote.read("2026-06-01".parse().unwrap()).is_ok(), fine, "{quote:?}");
        }
    }

    #[test]
    fn a_quote_is_refused_by_every_field_that_is_wrong() {
        let good = Quote { date: "2026-06-01", from: "EUR", to: "USD", rate: "1.0837", source: "ecb" };
        let today = "2026-06-01".parse().unwrap();
        assert_eq!(good.read(today).unwrap(), ExchangeRate { source: "ecb".into(), ..rate("EUR", "USD", "1.0837") });
        for (quote, fields) in [
            (Quote { date: "2026-06-02", ..good }, vec!["/date"]),
            (Quote { date: "1969-12-31", ..good }, vec!["/date"]),
            (Quote { date: "2026-02-30", ..good }, vec!["/date"]),
            (Quote { date: "2026-06-01T00:00:00", ..good }, vec!["/date"]),
            (Quote { date: "June 1", ..good }, vec!["/date"]),
            (Quote { from: "XYZ", ..good }, vec!["/from"]),
            (Quote { to: "usd", ..good }, vec!["/to"]),
            (Quote { to: "EUR", ..good }, vec!["/to"]),
            (Quote { rate: "0", ..good }, vec!["/rate"]),
            (Quote { rate: "-1", ..good }, vec!["/rate"]),
            (Quote { rate: "1,08", ..good }, vec!["/rate"]),
            (Quote { rate: "1e3", ..good }, vec!["/rate"]),
            (Quote { rate: "1000000000.1", ..good }, vec!["/rate"]),
            (Quote { rate: "0.0000000000000001", ..good }, vec!["/rate"]),
            (Quote { source: " ", ..good }, vec!["/source"]),
            (Quote { source: "a\nb", ..good }, vec!["/source"]),
            (
                Quote { date: "", from: "", to: "", rate: "", source: "" },
                vec!["/date", "/from", "/to", "/rate", "/source"],
            ),
        ] {
            let told: Vec<_> = quote.read(today).unwrap_err().into_iter().map(|error| error.pointer).collect();
            assert_eq!(told, fields, "{quote:?}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_where_it_was(
            amount in 0_i64..1_000_000_000_000, units in 1_i64..1_000_000_000, scale in 0_u32..9,
            pair in prop::sample::select(vec![("USD", "EUR"), ("JPY", "KWD"), ("KWD", "JPY"), ("CLF", "USD")]),
        ) {
            let there = ExchangeRate { rate: Decimal::new(units, scale), ..rate(pair.0, pair.1, "1") };
            let told = std::slice::from_ref(&there);
            let back = rate_of_day(told, there.to, there.from).unwrap();
            // Where one minor unit is worth no more than one there, rounding there loses at most half of one here.
            let converted = there.unrounded(minor(amount)).unwrap();
            let worth = converted.value().unwrap();
            if let (true, Ok(rounded)) = (worth >= Decimal::from(amount), converted.round()) {
                let again = back.convert(rounded);
                prop_assert_eq!(again.unwrap().amount, minor(amount));
            }
        }
    }
}
