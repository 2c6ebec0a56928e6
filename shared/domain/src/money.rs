//! Money: whole minor units of a known currency, and the few ways of dividing them.
//!
//! Never a float, never a silent overflow. Rounding is half away from zero, and happens once.

use std::fmt;
use std::str::FromStr;

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

/// No single amount beyond this many minor units is believed, in either direction. It leaves room for the product of three
/// amounts in 128 bits, which exact proportions need.
pub const MAX_MINOR: i64 = 1_000_000_000_000;
/// Sums may grow further: a hundred thousand of the largest amounts, and still far from the end of 64 bits.
const MAX_SUM: i64 = MAX_MINOR * 100_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("the amount is beyond what can be booked (10^12 minor units)")]
    Overflow,
    #[error("{0:?} is not an ISO 4217 currency code")]
    UnknownCurrency(String),
    #[error("{0:?} is not a decimal number")]
    NotDecimal(String),
    #[error("there is no exchange rate from {from} to {to}")]
    NoExchangeRate { from: Currency, to: Currency },
    #[error("{text:?} has more than the {exponent} decimals of {currency}")]
    TooManyDecimals { text: String, currency: Currency, exponent: u32 },
}

/// Currencies whose minor unit is not a hundredth, and how many decimals they have. ISO 4217 list one, 2026.
const ODD_EXPONENTS: &[(&str, u32)] = &[
    ("BHD", 3),
    ("BIF", 0),
    ("CLF", 4),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("IQD", 3),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("PYG", 0),
    ("RWF", 0),
    ("TND", 3),
    ("UGX", 0),
    ("UYI", 0),
    ("UYW", 4),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
    ("XOF", 0),
    ("XPF", 0),
];

/// Currencies with two decimals. ISO 4217 list one, 2026.
const TWO_DECIMALS: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD \
     CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD \
     HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR \
     MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE \
     SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG";

/// An ISO 4217 currency that knows how many decimals it has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    pub const USD: Self = Self(*b"USD");

    pub fn code(&self) -> &str {
        // The bytes are ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Decimals of the currency: 0 for JPY, 2 for USD, 3 for KWD.
    pub fn exponent(&self) -> u32 {
        ODD_EXPONENTS.iter().find(|(code, _)| *code == self.code()).map_or(2, |(_, exponent)| *exponent)
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let known = ODD_EXPONENTS.iter().any(|(code, _)| *code == text) || TWO_DECIMALS.split(' ').any(|c| c == text);
        match text.as_bytes() {
            [a, b, c] if known => Ok(Self([*a, *b, *c])),
            _ => Err(MoneyError::UnknownCurrency(text.chars().take(16).collect())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.code().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount in minor units (cents for USD, yen for JPY). The currency stands once on whatever holds the amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Minor(i64);

impl Minor {
    pub const ZERO: Self = Self(0);

    /// Errors beyond what a sum can be.
    pub fn new(units: i64) -> Result<Self, MoneyError> {
        if (-MAX_SUM..=MAX_SUM).contains(&units) { Ok(Self(units)) } else { Err(MoneyError::Overflow) }
    }

    /// Whether a single amount of this size is believed.
    pub const fn is_credible(self) -> bool {
        -MAX_MINOR <= self.0 && self.0 <= MAX_MINOR
    }

    pub const fn units(self) -> i64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// For serde, which passes references.
    pub const fn is_zero_ref(&self) -> bool {
        self.0 == 0
    }

    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        Self::new(self.0.checked_add(other.0).ok_or(MoneyError::Overflow)?)
    }

    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        Self::new(self.0.checked_sub(other.0).ok_or(MoneyError::Overflow)?)
    }

    /// Cannot overflow: the bounds are symmetric.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(-self.0)
    }

    /// Adds up many amounts.
    pub fn total(amounts: impl IntoIterator<Item = Self>) -> Result<Self, MoneyError> {
        amounts.into_iter().try_fold(Self::ZERO, Self::plus)
    }

    /// Rounds half away from zero.
    pub fn round(exact: Decimal) -> Result<Self, MoneyError> {
        let whole = exact.round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero);
        Self::new(whole.to_i64().ok_or(MoneyError::Overflow)?)
    }

    /// `self * numerator / denominator`, exact until one rounding half away from zero. A zero denominator yields zero:
    /// nothing can be a share of nothing.
    pub fn proportion(self, numerator: i128, denominator: i128) -> Result<Self, MoneyError> {
        if denominator == 0 {
            return Ok(Self::ZERO);
        }
        let product = i128::from(self.0).checked_mul(numerator).ok_or(MoneyError::Overflow)?;
        let (product, denominator) =
            if denominator.is_negative() { (-product, -denominator) } else { (product, denominator) };
        let (quotient, remainder) = (product / denominator, product % denominator);
        let away = remainder.unsigned_abs() >= denominator.unsigned_abs().div_ceil(2);
        let rounded = if away { quotient + product.signum() } else { quotient };
        Self::new(i64::try_from(rounded).map_err(|_| MoneyError::Overflow)?)
    }

    /// Reads a decimal string in major units: extra zeros are fine, more decimals than the currency has are not.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let decimal = parse_decimal(text)?;
        let exponent = currency.exponent();
        let minor = decimal.checked_mul(Decimal::from(10_u32.pow(exponent))).ok_or(MoneyError::Overflow)?;
        if !minor.fract().is_zero() {
            return Err(MoneyError::TooManyDecimals { text: text.to_owned(), currency, exponent });
        }
        let minor = Self::round(minor)?;
        if minor.is_credible() { Ok(minor) } else { Err(MoneyError::Overflow) }
    }

    /// Splits by cumulative shares: part k = round(total x shares so far) - what earlier parts took, so parts sum to the
    /// whole whenever the shares sum to one.
    pub fn split(self, shares: &[Decimal]) -> Result<Vec<Self>, MoneyError> {
        let whole = Decimal::from(self.0);
        let (mut so_far, mut taken, mut parts) = (Decimal::ZERO, Self::ZERO, Vec::with_capacity(shares.len()));
        for share in shares {
            so_far = so_far.checked_add(*share).ok_or(MoneyError::Overflow)?;
            let target = Self::round(whole.checked_mul(so_far).ok_or(MoneyError::Overflow)?)?;
            parts.push(target.minus(taken)?);
            taken = target;
        }
        Ok(parts)
    }

    /// Divides by weights, by largest remainder; of equal remainders the first gets the odd unit (10.00 by three equal weights:
    /// 3.34, 3.33, 3.33). No weight at all: nothing.
    pub fn divide(self, weights: &[u64]) -> Result<Vec<Self>, MoneyError> {
        let whole: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
        if whole == 0 {
            return Ok(vec![Self::ZERO; weights.len()]);
        }
        let magnitude = i128::from(self.0.unsigned_abs());
        let exact: Vec<_> = weights.iter().map(|weight| magnitude * i128::from(*weight)).collect();
        let mut parts: Vec<_> = exact.iter().map(|exact| exact / whole).collect();
        let mut by_remainder: Vec<_> = (0..weights.len()).collect();
        by_remainder.sort_by_key(|n| std::cmp::Reverse(exact.get(*n).map_or(0, |exact| exact % whole)));
        let odd = usize::try_from(magnitude - parts.iter().sum::<i128>()).map_err(|_| MoneyError::Overflow)?;
        for n in by_remainder.into_iter().take(odd) {
            if let Some(part) = parts.get_mut(n) {
                *part += 1;
            }
        }
        let signed =
            |part: i128| i64::try_from(part).map(|part| part * self.0.signum()).map_err(|_| MoneyError::Overflow);
        parts.into_iter().map(|part| Self::new(signed(part)?)).collect()
    }
}

/// Reads a plain decimal number: no exponent, no separators, no sign but a leading minus.
pub fn parse_decimal(text: &str) -> Result<Decimal, MoneyError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.len() <= 40
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let refuse = || MoneyError::NotDecimal(text.chars().take(40).collect());
    if !plain {
        return Err(refuse());
    }
    // Trailing zeros are harmless but could exceed the 28 digits a Decimal holds.
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    Decimal::from_str_exact(trimmed).map_err(|_| refuse())
}

/// An amount with its currency, as shown to people and in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    pub amount: Minor,
    pub currency: Currency,
}

impl Money {
    pub const fn new(amount: Minor, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// The amount in major units, with all decimals of the currency: `30.00`.
    pub fn decimal(&self) -> String {
        Decimal::new(self.amount.0, self.currency.exponent()).to_string()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut money = serializer.serialize_struct("Money", 3)?;
        money.serialize_field("amount", &self.decimal())?;
        money.serialize_field("minor", &self.amount)?;
        money.serialize_field("currency", &self.currency)?;
        money.end()
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The decimal form is for reading; the minor units are the amount.
        #[derive(Deserialize)]
        struct Shown {
            minor: Minor,
            currency: Currency,
        }
        let shown = Shown::deserialize(deserializer)?;
        Ok(Self::new(shown.minor, shown.currency))
    }
}

/// A percentage, kept as written: `10` is ten percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(Decimal);

impl Percent {
    pub const fn new(percent: Decimal) -> Self {
        Self(percent)
    }

    pub const fn value(self) -> Decimal {
        self.0
    }

    /// The share as a fraction of one.
    pub fn fraction(self) -> Result<Decimal, MoneyError> {
        self.0.checked_div(Decimal::ONE_HUNDRED).ok_or(MoneyError::Overflow)
    }

    /// This percentage of a base, rounded once, half away from zero.
    pub fn of(self, base: Minor) -> Result<Minor, MoneyError> {
        let product = Decimal::from(base.0).checked_mul(self.0).ok_or(MoneyError::Overflow)?;
        Minor::round(product.checked_div(Decimal::ONE_HUNDRED).ok_or(MoneyError::Overflow)?)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0.normalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn minor(units: i64) -> Minor {
        Minor::new(units).unwrap()
    }

    fn percent(text: &str) -> Percent {
        Percent::new(text.parse().unwrap())
    }

    #[test]
    fn a_rate_rounds_half_away_from_zero_once() {
        for (rate, base, expect) in [
            ("30", 10_000, 3_000),
            ("20", 7, 1),
            ("20", 2, 0),
            ("20", 3, 1),
            ("10", 15, 2),
            ("50", 1, 1),
            ("2.9", 500, 15),
            ("15", 1_005, 151),
            ("50", -1, -1),
        ] {
            assert_eq!(percent(rate).of(minor(base)).unwrap(), minor(expect), "{rate} % of {base}");
        }
    }

    #[test]
    fn slices_follow_the_cumulative_share() {
        let quarter: Decimal = "0.25".parse().unwrap();
        assert_eq!(minor(2).split(&[quarter; 4]).unwrap(), [1, 0, 1, 0].map(minor));
        let milestones = ["0.4".parse().unwrap(), "0.6".parse().unwrap()];
        assert_eq!(minor(333).split(&milestones).unwrap(), [133, 200].map(minor));
    }

    #[test]
    fn equal_division_gives_the_odd_units_to_the_first() {
        assert_eq!(minor(1_000).divide(&[1, 1, 1]).unwrap(), [334, 333, 333].map(minor));
        assert_eq!(minor(-5).divide(&[1, 1, 1]).unwrap(), [-2, -2, -1].map(minor));
        assert_eq!(minor(10).divide(&[40, 20, 40]).unwrap(), [4, 2, 4].map(minor));
        assert_eq!(minor(5).divide(&[40, 20, 40]).unwrap(), [2, 1, 2].map(minor));
        assert_eq!(minor(1).divide(&[1, 2]).unwrap(), [0, 1].map(minor), "the larger remainder first");
        assert_eq!(minor(2).divide(&[2, 1]).unwrap(), [1, 1].map(minor), "the larger remainder, not the larger weight");
        assert_eq!(minor(0).divide(&[1, 1]).unwrap(), [0, 0].map(minor));
        assert!(minor(5).divide(&[]).unwrap().is_empty());
    }

    #[test]
    fn decimals_are_read_by_the_exponent_of_the_currency() {
        let usd: Currency = "USD".parse().unwrap();
        let jpy: Currency = "JPY".parse().unwrap();
        let kwd: Currency = "KWD".parse().unwrap();
        assert_eq!(Minor::parse("30", usd).unwrap(), minor(3_000));
        assert_eq!(Minor::parse("30.0000", usd).unwrap(), minor(3_000));
        assert_eq!(Minor::parse("-0.05", usd).unwrap(), minor(-5));
        assert_eq!(Minor::parse("5200", jpy).unwrap(), minor(5_200));
        assert_eq!(Minor::parse("1.234", kwd).unwrap(), minor(1_234));
        assert!(matches!(Minor::parse("0.001", usd), Err(MoneyError::TooManyDecimals { .. })));
        assert!(matches!(Minor::parse("1.5", jpy), Err(MoneyError::TooManyDecimals { .. })));
        for bad in ["", "1e3", "1,000.00", "+1", " 1", "1.", ".5", "--1", "1.2.3", "1_0", "NaN", "∞"] {
            assert!(matches!(Minor::parse(bad, usd), Err(MoneyError::NotDecimal(_))), "{bad}");
        }
        assert_eq!(Minor::parse("99999999999.99", usd), Err(MoneyError::Overflow));
    }

    #[test]
    fn a_proportion_may_be_of_a_negative_whole() {
        for (whole, part, of, expect) in [
            (10, 1, -3, -3),
            (-10, 1, -3, 3),
            (10, -1, -3, 3),
            (10, -1, 3, -3),
            (10, 1, -4, -3),
            (-10, 1, -4, 3),
            (11, 1, -4, -3),
            (10, 1, 0, 0),
        ] {
            assert_eq!(minor(whole).proportion(part, of).unwrap(), minor(expect), "{whole} x {part} / {of}");
        }
    }

    #[test]
    fn a_currency_is_written_as_its_code_and_zeros_are_told_from_amounts() {
        let kwd: Currency = "KWD".parse().unwrap();
        assert_eq!((kwd.to_string(), format!("{kwd:?}")), ("KWD".into(), "KWD".into()));
        assert!(Minor::ZERO.is_zero_ref() && !minor(1).is_zero_ref() && !minor(-1).is_zero_ref());
    }

    #[test]
    fn a_sum_may_be_a_hundred_thousand_of_the_largest_amounts_and_no_more() {
        let most = 100_000_000_000_000_000;
        assert_eq!(Minor::total(vec![minor(MAX_MINOR); 100_000]).unwrap(), minor(most));
        for sum in
            [minor(most).plus(minor(1)), minor(-most).minus(minor(1)), Minor::new(i64::MAX), Minor::new(i64::MIN)]
        {
            assert_eq!(sum, Err(MoneyError::Overflow));
        }
        for (units, credible) in
            [(MAX_MINOR, true), (MAX_MINOR + 1, false), (-MAX_MINOR, true), (-MAX_MINOR - 1, false)]
        {
            assert_eq!(minor(units).is_credible(), credible, "{units}");
        }
    }

    #[test]
    fn unknown_currencies_are_refused() {
        for bad in ["", "usd", "US", "XXX", "USDT", "BTC"] {
            assert!(bad.parse::<Currency>().is_err(), "{bad}");
        }
    }

    #[test]
    fn money_is_shown_with_all_decimals() {
        let usd = Money::new(minor(3_000), "USD".parse().unwrap());
        assert_eq!(serde_json::to_string(&usd).unwrap(), r#"{"amount":"30.00","minor":3000,"currency":"USD"}"#);
        assert_eq!(Money::new(minor(-5), "USD".parse().unwrap()).to_string(), "-0.05 USD");
        assert_eq!(Money::new(minor(5), "JPY".parse().unwrap()).to_string(), "5 JPY");
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole(whole in -1_000_000_i64..1_000_000, weights in prop::collection::vec(1_u32..100, 1..6)) {
            let sum: u32 = weights.iter().sum();
            let mut shares: Vec<Decimal> = weights.iter().map(|w| Decimal::from(*w) / Decimal::from(sum)).collect();
            let rest: Decimal = shares[1..].iter().copied().sum();
            shares[0] = Decimal::ONE - rest;
            let parts = minor(whole).split(&shares).unwrap();
            prop_assert_eq!(Minor::total(parts).unwrap(), minor(whole));
        }

        #[test]
        fn equal_parts_sum_to_the_whole_and_differ_by_one(whole in -1_000_000_i64..1_000_000, count in 1_u32..50) {
            let parts = minor(whole).divide(&vec![1; usize::try_from(count).unwrap()]).unwrap();
            prop_assert_eq!(Minor::total(parts.iter().copied()).unwrap(), minor(whole));
            let spread = parts.iter().max().unwrap().minus(*parts.iter().min().unwrap()).unwrap();
            prop_assert!(spread.units() <= 1);
        }

        #[test]
        fn a_proportion_is_off_by_half_a_unit_at_most(
            whole in -1_000_000_i64..1_000_000, part in 0_i64..1_000, of in 1_i64..1_000,
        ) {
            let got = minor(whole).proportion(part.into(), of.into()).unwrap();
            let twice_error = (i128::from(got.units()) * i128::from(of) - i128::from(whole) * i128::from(part)) * 2;
            prop_assert!(twice_error.abs() <= i128::from(of));
        }

        #[test]
        fn what_is_printed_reads_back(units in -1_000_000_000_i64..1_000_000_000, code in prop::sample::select(vec!["USD", "JPY", "KWD", "CLF"])) {
            let currency: Currency = code.parse().unwrap();
            prop_assert_eq!(Minor::parse(&Money::new(minor(units), currency).decimal(), currency).unwrap(), minor(units));
        }
    }
}
