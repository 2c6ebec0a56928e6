//! What every adapter reads payloads with: exact amounts, whole ids, times, and pointers to what is wrong.

use std::fmt;

use domain::conversion::MAX_TEXT;
use domain::money::{Currency, Minor, MoneyError, parse_decimal};
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_path_to_error::Segment;

use crate::{Problem, Unreadable};

/// Reads a JSON object.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    // serde reads a struct from an array too, field by field. No payload is meant that way.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(malformed(String::new(), "is not a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| malformed(pointer(error.path()), &error.inner().to_string()))?;
    reader.end().map_err(|error| malformed(String::new(), &error.to_string()))?;
    Ok(value)
}

fn malformed(pointer: String, detail: &str) -> Unreadable {
    Unreadable::Malformed(vec![Problem { pointer, detail: cut(detail) }])
}

/// An RFC 6901 pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                format!("/{}", cut(key).replace('~', "~0").replace('/', "~1"))
            }
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// The first characters of free text, or of what could be any length.
pub fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// Text that names something, and so is never cut. Blank is none: storefronts send `""` for what is not set.
pub fn name(text: Option<&str>, pointer: impl FnOnce() -> String) -> Result<Option<String>, Unreadable> {
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) if text.chars().count() > MAX_TEXT => {
            Err(Unreadable::invalid(pointer(), format!("has more than {MAX_TEXT} characters")))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// Like [`name`], where there must be one.
pub fn required(text: Option<&str>, pointer: &str) -> Result<String, Unreadable> {
    name(text, || pointer.to_owned())?.ok_or_else(|| Unreadable::invalid(pointer, "is missing"))
}

/// An amount or a quantity: the text of a JSON string or number, digit by digit as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exact(String);

impl Exact {
    pub fn minor(&self, currency: Currency, pointer: impl FnOnce() -> String) -> Result<Minor, Unreadable> {
        Minor::parse(self.0.trim(), currency).map_err(|error| money(pointer, &error))
    }

    pub fn decimal(&self, pointer: impl FnOnce() -> String) -> Result<Decimal, Unreadable> {
        parse_decimal(self.0.trim()).map_err(|error| money(pointer, &error))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get().trim();
        match text.bytes().next() {
            Some(b'"') => serde_json::from_str(text).map(Self).map_err(D::Error::custom),
            Some(b'-' | b'0'..=b'9') => Ok(Self(text.to_owned())),
            _ => Err(D::Error::custom("invalid type, expected a decimal number or its text")),
        }
    }
}

/// An id or SKU: text, or a whole number of up to 64 bits. A number beyond 2^53 keeps all its digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Id(String);

impl Id {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a whole number")
            }

            fn visit_str<E>(self, text: &str) -> Result<Id, E> {
                Ok(Id(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Id, E> {
                Ok(Id(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Id, E> {
                Ok(Id(number.to_string()))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

/// A list that may also be `null`.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A currency code in any case.
pub fn currency(code: &str, pointer: &str) -> Result<Currency, Unreadable> {
    code.trim()
        .to_ascii_uppercase()
        .parse()
        .map_err(|error: MoneyError| Unreadable::invalid(pointer, error.to_string()))
}

/// A time with its offset.
pub fn time(text: &str, pointer: &str) -> Result<Timestamp, Unreadable> {
    text.trim().parse().map_err(|_| Unreadable::invalid(pointer, "is not an RFC 3339 time"))
}

/// Names the field in which adding or taking apart amounts failed.
pub fn money(pointer: impl FnOnce() -> String, error: &MoneyError) -> Unreadable {
    Unreadable::invalid(pointer(), cut(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        amount: Exact,
        id: Id,
        #[serde(default, deserialize_with = "list")]
        list: Vec<Exact>,
    }

    #[test]
    fn amounts_and_ids_keep_every_digit() {
        let sample: Sample =
            parse(br#"{"amount": 1234567890.12345678901, "id": 9007199254740993, "list": ["0.1", 0.1, -3]}"#).unwrap();
        assert_eq!(sample.amount, Exact("1234567890.12345678901".into()));
        assert_eq!(sample.id.as_str(), "9007199254740993");
        assert_eq!(sample.list[0], sample.list[1]);
        assert_eq!(sample.list[2].decimal(String::new).unwrap(), Decimal::from(-3));
    }

    #[test]
    fn errors_point_at_the_field() {
        for (body, expect) in [
            (r#"{"amount": "1", "id": "a", "list": ["1", {}]}"#, "/list/1"),
            (r#"{"amount": null, "id": "a"}"#, "/amount"),
            (r#"{"amount": "1", "id": 1.5}"#, "/id"),
            (r#"{"amount": "1", "id": 1e40}"#, "/id"),
            (r#"{"amount": "1"}"#, ""),
            (r#"{"amount": "1", "id": "a"} x"#, ""),
            (r#"["1", "a", []]"#, ""),
            ("", ""),
        ] {
            let Err(Unreadable::Malformed(problems)) = parse::<Sample>(body.as_bytes()) else { panic!("{body}") };
            assert_eq!(problems[0].pointer, expect, "{body}");
        }
    }

    #[test]
    fn names_are_never_cut() {
        assert_eq!(name(Some(" "), String::new).unwrap(), None);
        assert_eq!(name(Some(&"é".repeat(MAX_TEXT)), String::new).unwrap().unwrap().chars().count(), MAX_TEXT);
        assert!(name(Some(&"x".repeat(MAX_TEXT + 1)), String::new).is_err());
        assert_eq!(cut(&"x".repeat(MAX_TEXT + 1)).len(), MAX_TEXT);
    }
}
