//! Tax numbers: what may be one, and what is kept of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::country::Country;

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberKind {
    /// Social security number, of a person.
    Ssn,
    /// Individual taxpayer identification number, of a person who cannot have the former.
    Itin,
    /// Employer identification number, of a business.
    Ein,
    /// A number of the payee's own country.
    Foreign,
}

impl NumberKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ssn => "ssn",
            Self::Itin => "itin",
            Self::Ein => "ein",
            Self::Foreign => "foreign",
        }
    }
}

/// The first two digits that employer identification numbers can have. IRS, "How EINs are assigned and valid EIN prefixes".
const EIN_PREFIXES: [(u8, u8); 9] =
    [(1, 6), (10, 16), (20, 27), (30, 48), (50, 68), (71, 77), (80, 88), (90, 95), (98, 99)];
/// The fourth and fifth digits of ITINs. IRS, Publication 1915.
const ITIN_GROUPS: [(u8, u8); 4] = [(50, 65), (70, 88), (90, 92), (94, 99)];
/// Digits and letters of a foreign number. Form 1042-S has room for 22 in box 13i.
const FOREIGN_CHARS: std::ops::RangeInclusive<usize> = 4..=22;

/// Why a text is no tax number of its kind. It never says what the text was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTaxNumber {
    #[error("must have nine digits, with or without hyphens")]
    NotNineDigits,
    #[error("is no social security number that was ever assigned")]
    NoSsn,
    #[error("is no ITIN: those begin with 9, and have 50 to 65, 70 to 88, 90 to 92 or 94 to 99 in the middle")]
    NoItin,
    #[error("is no employer identification number: none begins with these two digits")]
    NoEin,
    #[error("must have 4 to 22 letters and digits, with hyphens, points, slashes or spaces between them")]
    NotForeign,
}

/// A tax number in the clear. It shows itself to nobody, and is in nothing that is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct TaxNumber {
    kind: NumberKind,
    /// Digits, or for a foreign number letters and digits, without what stands between them.
    characters: String,
}

impl fmt::Debug for TaxNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaxNumber({}, ..)", self.kind.as_str())
    }
}

impl TaxNumber {
    pub fn parse(kind: NumberKind, text: &str) -> Result<Self, BadTaxNumber> {
        let characters = match kind {
            NumberKind::Foreign => foreign(text)?,
            NumberKind::Ssn | NumberKind::Itin | NumberKind::Ein => us(kind, text)?,
        };
        Ok(Self { kind, characters })
    }

    pub const fn kind(&self) -> NumberKind {
        self.kind
    }

    /// For sealing it, and for the one file that must have it.
    pub fn reveal(&self) -> &str {
        &self.characters
    }

    /// The last four characters, and never more than half of them.
    pub fn last(&self) -> String {
        let count = self.characters.len();
        self.characters.chars().skip(count - 4.min(count / 2)).collect()
    }

    /// What tells one payee from another, for a keyed hash. The two kinds of number that people have are never equal; a business can have the
    /// digits of a person, and every country has numbers of its own.
    pub fn identity(&self, country: Country) -> String {
        match self.kind {
            NumberKind::Ssn | NumberKind::Itin => format!("person:{}", self.characters),
            NumberKind::Ein => format!("business:{}", self.characters),
            NumberKind::Foreign => format!("{country}:{}", self.characters),
        }
    }
}

/// Nine digits, hyphens at the usual places or nowhere.
fn us(kind: NumberKind, text: &str) -> Result<String, BadTaxNumber> {
    let text = text.trim();
    let parts: Vec<_> = text.split('-').map(str::len).collect();
    let usual: &[usize] = if kind == NumberKind::Ein { &[2, 7] } else { &[3, 2, 4] };
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let well_formed = digits.len() == 9 && digits.bytes().all(|b| b.is_ascii_digit());
    if !well_formed || (parts != [9] && parts != usual) {
        return Err(BadTaxNumber::NotNineDigits);
    }
    let number =
        |from: usize, to: usize| -> u16 { digits.get(from..to).and_then(|part| part.parse().ok()).unwrap_or(0) };
    let within = |ranges: &[(u8, u8)], part: u16| {
        ranges.iter().any(|(low, high)| (u16::from(*low)..=u16::from(*high)).contains(&part))
    };
    match kind {
        // Social Security Administration, "Social Security number randomization": areas 000, 666 and from 900, group 00 and serial 0000
        // are never assigned.
        NumberKind::Ssn => {
            let area = number(0, 3);
            let assigned = area != 0 && area != 666 && area < 900 && number(3, 5) != 0 && number(5, 9) != 0;
            if assigned { Ok(digits) } else { Err(BadTaxNumber::NoSsn) }
        }
        NumberKind::Itin if digits.starts_with('9') && within(&ITIN_GROUPS, number(3, 5)) => Ok(digits),
        NumberKind::Itin => Err(BadTaxNumber::NoItin),
        NumberKind::Ein if within(&EIN_PREFIXES, number(0, 2)) => Ok(digits),
        NumberKind::Ein | NumberKind::Foreign => Err(BadTaxNumber::NoEin),
    }
}

fn foreign(text: &str) -> Result<String, BadTaxNumber> {
    let between = |c: char| matches!(c, '-' | '.' | '/' | ' ');
    let text = text.trim();
    let characters: String = text.chars().filter(|c| !between(*c)).map(|c| c.to_ascii_uppercase()).collect();
    let fine = characters.bytes().all(|b| b.is_ascii_alphanumeric()) && FOREIGN_CHARS.contains(&characters.len());
    let ends = text.starts_with(between) || text.ends_with(between) || text.len() > 40;
    if fine && !ends { Ok(characters) } else { Err(BadTaxNumber::NotForeign) }
}

/// Tells payees apart by their tax number without holding it: a keyed hash. Two partners with one number are one payee.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PayeeKey(pub String);

/// What is kept of a tax number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNumber {
    pub kind: NumberKind,
    /// Its last characters: what people see of it.
    pub last: String,
    /// Encrypted, for this partner alone, in base64.
    pub sealed: String,
    pub payee: PayeeKey,
}

impl KeptNumber {
    /// As it may be shown: `***-**-6789`.
    pub fn masked(&self) -> String {
        let hidden = match self.kind {
            NumberKind::Ssn | NumberKind::Itin => "***-**-",
            NumberKind::Ein => "**-***",
            NumberKind::Foreign => "****",
        };
        format!("{hidden}{}", self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_refused_for_what_is_wrong_with_them() {
        use BadTaxNumber as Bad;
        use NumberKind::{Ein, Foreign, Itin, Ssn};
        for (kind, text, expect) in [
            (Ssn, "123-45-6789", Ok("123456789")),
            (Ssn, "123456789", Ok("123456789")),
            (Ssn, " 123-45-6789 ", Ok("123456789")),
            (Ssn, "12-3456789", Err(Bad::NotNineDigits)),
            (Ssn, "12345678", Err(Bad::NotNineDigits)),
            (Ssn, "1234567890", Err(Bad::NotNineDigits)),
            (Ssn, "12345678a", Err(Bad::NotNineDigits)),
            (Ssn, "१२३४५६७८९", Err(Bad::NotNineDigits)),
            (Ssn, "123--45-6789", Err(Bad::NotNineDigits)),
            (Ssn, "", Err(Bad::NotNineDigits)),
            (Ssn, "000-12-3456", Err(Bad::NoSsn)),
            (Ssn, "666-12-3456", Err(Bad::NoSsn)),
            (Ssn, "900-12-3456", Err(Bad::NoSsn)),
            (Ssn, "123-00-6789", Err(Bad::NoSsn)),
            (Ssn, "123-45-0000", Err(Bad::NoSsn)),
            (Itin, "912-70-1234", Ok("912701234")),
            (Itin, "912-50-1234", Ok("912501234")),
            (Itin, "912-66-1234", Err(Bad::NoItin)),
            (Itin, "912-93-1234", Err(Bad::NoItin)),
            (Itin, "812-70-1234", Err(Bad::NoItin)),
            (Ein, "12-3456789", Ok("123456789")),
            (Ein, "123-45-6789", Err(Bad::NotNineDigits)),
            (Ein, "00-3456789", Err(Bad::NoEin)),
            (Ein, "07-3456789", Err(Bad::NoEin)),
            (Ein, "97-3456789", Err(Bad::NoEin)),
            (Foreign, "DE 123/456.789-0", Ok("DE1234567890")),
            (Foreign, "ab12", Ok("AB12")),
            (Foreign, "a12", Err(Bad::NotForeign)),
            (Foreign, "-1234", Err(Bad::NotForeign)),
            (Foreign, "=1234", Err(Bad::NotForeign)),
            (Foreign, "12345678901234567890123", Err(Bad::NotForeign)),
            (Foreign, "é1234", Err(Bad::NotForeign)),
        ] {
            let parsed = TaxNumber::parse(kind, text);
            assert_eq!(parsed.as_ref().map(TaxNumber::reveal).map_err(|bad| *bad), expect, "{kind:?} {text}");
        }
    }

    #[test]
    fn a_number_shows_itself_to_nobody() {
        let number = TaxNumber::parse(NumberKind::Ssn, "123-45-6789").unwrap();
        assert_eq!(format!("{number:?}"), "TaxNumber(ssn, ..)");
        for (kind, text, masked) in [
            (NumberKind::Ssn, "123-45-6789", "***-**-6789"),
            (NumberKind::Ein, "12-3456789", "**-***6789"),
            (NumberKind::Foreign, "DE1234567890", "****7890"),
            (NumberKind::Foreign, "AB12C", "****2C"),
        ] {
            let last = TaxNumber::parse(kind, text).unwrap().last();
            let kept = KeptNumber { kind, last, sealed: String::new(), payee: PayeeKey(String::new()) };
            assert_eq!(kept.masked(), masked);
        }
    }

    #[test]
    fn one_number_is_one_payee_however_it_is_written() {
        let identity =
            |kind, text, country: &str| TaxNumber::parse(kind, text).unwrap().identity(country.parse().unwrap());
        assert_eq!(identity(NumberKind::Ssn, "123-45-6789", "US"), identity(NumberKind::Ssn, "123456789", "DE"));
        assert_ne!(identity(NumberKind::Ssn, "123-45-6789", "US"), identity(NumberKind::Ein, "123456789", "US"));
        assert_eq!(identity(NumberKind::Foreign, "12/34.56", "DE"), identity(NumberKind::Foreign, "123456", "DE"));
        assert_ne!(identity(NumberKind::Foreign, "123456", "DE"), identity(NumberKind::Foreign, "123456", "FR"));
    }
}
