//! Decimal numbers as JSON numbers, digit by digit, through no float.

use rust_decimal::Decimal;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// An amount in major units, written and read as the JSON number that QuickBooks has it as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub Decimal);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get().trim().trim_matches('"');
        let number = Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text));
        number.map(Self).map_err(|_| D::Error::custom("invalid type, expected a decimal number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_digits() {
        for (text, expect) in
            [("118.10", "118.10"), ("-0.05", "-0.05"), ("1e2", "100"), ("\"12.30\"", "12.30"), ("0", "0")]
        {
            let amount: Amount = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&amount).unwrap(), expect, "{text}");
        }
        assert!(serde_json::from_str::<Amount>("\"ten\"").is_err());
    }
}
