//! Tax forms: what a payee certified, and for how long it stands.

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::country::Country;
use super::number::{KeptNumber, NumberKind, TaxNumber};
use crate::ids::{PartnerId, ProgramId};
use crate::money::{Percent, parse_decimal};
use crate::rules::FieldError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormKind {
    /// Of a US person.
    #[serde(rename = "w9")]
    W9,
    /// Of a foreign person.
    #[serde(rename = "w8ben")]
    W8Ben,
    /// Of a foreign entity.
    #[serde(rename = "w8ben_e")]
    W8BenE,
}

impl FormKind {
    /// How long a form stands that was signed on this day; `None`: until it is replaced or revoked. 26 CFR 1.1441-1(e)(4)(ii): to the last
    /// day of the third calendar year following the one it is signed in.
    pub fn valid_until(self, signed_on: Date) -> Option<Date> {
        match self {
            Self::W9 => None,
            Self::W8Ben | Self::W8BenE => Date::new(signed_on.year().saturating_add(3), 12, 31).ok(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entity {
    /// Sole proprietors and their disregarded companies, too.
    Individual,
    Partnership,
    /// And companies that are taxed as one. Payments to it are not reported on Form 1099-NEC: 26 CFR 1.6041-3(p)(1).
    Corporation,
    TrustOrEstate,
}

/// Where the services are performed, which is where the income has its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Services {
    Us,
    Foreign,
}

/// What a treaty leaves of the tax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Treaty {
    pub country: Country,
    pub rate: Percent,
    pub article: String,
}

/// Somebody learned that the form does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub at: Timestamp,
    pub by: String,
    pub reason: String,
}

/// A partner's form, one version of it. Versions are never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaxForm {
    pub partner: PartnerId,
    pub program: ProgramId,
    /// Counts from 1.
    pub version: u32,
    #[serde(rename = "form")]
    pub kind: FormKind,
    pub name: String,
    pub entity: Entity,
    /// Of residence.
    pub country: Country,
    pub signed_on: Date,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<KeptNumber>,
    /// Of a foreign payee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Services>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treaty: Option<Treaty>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
    pub changed_at: Timestamp,
    pub changed_by: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormStatus {
    Valid,
    Expired,
    Revoked,
}

impl TaxForm {
    pub fn valid_until(&self) -> Option<Date> {
        self.kind.valid_until(self.signed_on)
    }

    pub fn status(&self, today: Date) -> FormStatus {
        if self.revoked.is_some() {
            FormStatus::Revoked
        } else if self.valid_until().is_some_and(|last| today > last) {
            FormStatus::Expired
        } else {
            FormStatus::Valid
        }
    }
}

/// What a payee is, on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payee {
    /// Gave a US tax number, certified on a W-9.
    Identified,
    /// Foreign, and certified so.
    Foreign { services: Services, treaty: Option<Percent> },
    /// Foreign by what is known, and not certified so.
    ForeignUndocumented,
    /// Nothing is known but a name.
    Unidentified,
}

impl Payee {
    /// `country` is where the partner lives, if they said so. A valid W-9 outweighs it: US persons live everywhere.
    pub fn of(form: Option<&TaxForm>, country: Option<Country>, today: Date) -> Self {
        let valid = form.filter(|form| form.status(today) == FormStatus::Valid);
        match valid.map(|form| (form.kind, form)) {
            Some((FormKind::W9, _)) => Self::Identified,
            Some((FormKind::W8Ben | FormKind::W8BenE, form)) => Self::Foreign {
                services: form.services.unwrap_or(Services::Us),
                treaty: form.treaty.as_ref().map(|treaty| treaty.rate),
            },
            None if form.is_some_and(|form| form.country.is_foreign()) || country.is_some_and(Country::is_foreign) => {
                Self::ForeignUndocumented
            }
            None => Self::Unidentified,
        }
    }
}

/// A form as somebody fills it in: texts, not yet believed. Fields that a form does not have are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaxFormInput {
    pub kind: FormKind,
    pub name: String,
    pub entity: Option<Entity>,
    pub country: Option<String>,
    pub signed_on: Date,
    pub number: Option<NumberInput>,
    pub services: Option<Services>,
    pub treaty: Option<TreatyInput>,
}

/// The number in it shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct NumberInput {
    pub kind: NumberKind,
    pub text: String,
}

impl std::fmt::Debug for NumberInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NumberInput({}, ..)", self.kind.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreatyInput {
    pub country: String,
    pub rate: String,
    pub article: String,
}

/// A form that may be kept, once its number is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedForm {
    pub kind: FormKind,
    pub name: String,
    pub entity: Entity,
    pub country: Country,
    pub signed_on: Date,
    pub number: Option<TaxNumber>,
    pub services: Option<Services>,
    pub treaty: Option<Treaty>,
}

/// The longest name, in characters.
const MAX_NAME: usize = 200;

impl TaxFormInput {
    /// All that is wrong with it, by field.
    pub fn check(self, today: Date) -> Result<CheckedForm, Vec<FieldError>> {
        let mut wrong = Vec::new();
        let mut refuse = |pointer: &str, detail: String| wrong.push(FieldError::new(pointer, detail));
        let kind = self.kind;
        let name = self.name.trim().to_owned();
        if !(1..=MAX_NAME).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            refuse("/name", format!("needs 1 to {MAX_NAME} characters"));
        }
        if self.signed_on > today {
            refuse("/signedOn", "lies in the future".to_owned());
        }
        if let Some(last) = kind.valid_until(self.signed_on).filter(|last| today > *last) {
            refuse("/signedOn", format!("a form signed then ended on {last}; ask for a new one"));
        }
        let entity = match (kind, self.entity) {
            (FormKind::W9, Some(entity)) => entity,
            (FormKind::W9, None) => Entity::Individual,
            (FormKind::W8Ben, None | Some(Entity::Individual)) => Entity::Individual,
            (FormKind::W8Ben, Some(_)) => {
                refuse("/entity", "a W-8BEN is for individuals; others give a W-8BEN-E".to_owned());
                Entity::Individual
            }
            (FormKind::W8BenE, Some(entity)) if entity != Entity::Individual => entity,
            (FormKind::W8BenE, _) => {
                refuse("/entity", "a W-8BEN-E is for partnership, corporation or trust_or_estate".to_owned());
                Entity::Corporation
            }
        };
        let country = match (kind, self.country.as_deref()) {
            (FormKind::W9, _) => Country::US,
            (_, None) => {
                refuse("/country", "the country of residence is needed".to_owned());
                Country::US
            }
            (_, Some(text)) => match text.parse::<Country>() {
                Ok(country) if country.is_foreign() => country,
                Ok(_) => {
                    refuse("/country", "who lives in the US gives a W-9".to_owned());
                    Country::US
                }
                Err(unknown) => {
                    refuse("/country", unknown.to_string());
                    Country::US
                }
            },
        };
        let number = match (&self.number, kind) {
            (None, FormKind::W9) => {
                refuse("/taxNumber", "a W-9 without a number says nothing".to_owned());
                None
            }
            (None, _) => None,
            (Some(given), _) if !fits(kind, entity, given.kind) => {
                refuse(
                    "/taxNumber/kind",
                    format!("a number of this kind does not go on this form; {}", wanted(kind, entity)),
                );
                None
            }
            (Some(given), _) => {
                let parsed = TaxNumber::parse(given.kind, &given.text);
                parsed.map_err(|bad| refuse("/taxNumber/number", bad.to_string())).ok()
            }
        };
        let services = if kind == FormKind::W9 { None } else { self.services };
        if kind != FormKind::W9 && services.is_none() {
            refuse("/services", "say where the services are performed: us or foreign".to_owned());
        }
        let treaty = self.treaty.filter(|_| kind != FormKind::W9);
        if treaty.is_some() && self.number.is_none() {
            // Instructions for Form W-8BEN, line 10, and W-8BEN-E, line 14.
            refuse("/treaty", "a treaty is claimed with a tax number".to_owned());
        }
        let treaty = treaty.and_then(|treaty| match treaty.check(country) {
            Ok(treaty) => Some(treaty),
            Err(error) => {
                refuse(&error.pointer, error.detail);
                None
            }
        });
        if wrong.is_empty() {
            let signed_on = self.signed_on;
            Ok(CheckedForm { kind, name, entity, country, signed_on, number, services, treaty })
        } else {
            Err(wrong)
        }
    }
}

/// Forms W-9 part I, W-8BEN lines 5 and 6, W-8BEN-E lines 8 and 9.
fn fits(kind: FormKind, entity: Entity, number: NumberKind) -> bool {
    use NumberKind::{Ein, Foreign, Itin, Ssn};
    match (kind, entity) {
        (FormKind::W9, Entity::Individual | Entity::TrustOrEstate) => matches!(number, Ssn | Itin | Ein),
        (FormKind::W9, Entity::Partnership | Entity::Corporation) => number == Ein,
        (FormKind::W8Ben, _) => matches!(number, Ssn | Itin | Foreign),
        (FormKind::W8BenE, _) => matches!(number, Ein | Foreign),
    }
}

const fn wanted(kind: FormKind, entity: Entity) -> &'static str {
    match (kind, entity) {
        (FormKind::W9, Entity::Individual | Entity::TrustOrEstate) => "give an ssn, itin or ein",
        (FormKind::W9, Entity::Partnership | Entity::Corporation) => "give an ein",
        (FormKind::W8Ben, _) => "give an ssn, itin or foreign number",
        (FormKind::W8BenE, _) => "give an ein or foreign number",
    }
}

impl TreatyInput {
    fn check(self, residence: Country) -> Result<Treaty, FieldError> {
        let country: Country = self.country.parse().map_err(|unknown: super::country::UnknownCountry| {
            FieldError::new("/treaty/country", unknown.to_string())
        })?;
        if country != residence {
            return Err(FieldError::new(
                "/treaty/country",
                "only the treaty of the country of residence can be claimed",
            ));
        }
        let rate = parse_decimal(&self.rate).map_err(|error| FieldError::new("/treaty/rate", error.to_string()))?;
        if rate.is_sign_negative() || rate > Decimal::from(30) || rate.scale() > 2 {
            return Err(FieldError::new("/treaty/rate", "is from 0 to 30 percent, with at most two decimals"));
        }
        let article = self.article.trim().to_owned();
        if !(1..=40).contains(&article.chars().count()) || article.chars().any(char::is_control) {
            return Err(FieldError::new("/treaty/article", "needs 1 to 40 characters"));
        }
        Ok(Treaty { country, rate: Percent::new(rate.normalize()), article })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::line::tests::now;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    pub(crate) fn form(kind: FormKind, signed_on: &str) -> TaxForm {
        let foreign = kind != FormKind::W9;
        TaxForm {
            partner: PartnerId::from_uuid(2),
            program: ProgramId::from_uuid(1),
            version: 1,
            kind,
            name: "Anna".into(),
            entity: Entity::Individual,
            country: if foreign { "DE".parse().unwrap() } else { Country::US },
            signed_on: date(signed_on),
            number: None,
            services: foreign.then_some(Services::Us),
            treaty: None,
            revoked: None,
            changed_at: now(),
            changed_by: "fay".into(),
        }
    }

    #[test]
    fn a_w8_ends_with_the_third_year_after_it_was_signed_and_a_w9_never() {
        for (kind, signed_on, today, expect) in [
            (FormKind::W8Ben, "2023-01-01", "2026-12-31", FormStatus::Valid),
            (FormKind::W8Ben, "2023-12-31", "2026-12-31", FormStatus::Valid),
            (FormKind::W8Ben, "2023-12-31", "2027-01-01", FormStatus::Expired),
            (FormKind::W8BenE, "2024-02-29", "2027-12-31", FormStatus::Valid),
            (FormKind::W8BenE, "2024-02-29", "2028-01-01", FormStatus::Expired),
            (FormKind::W9, "1999-01-01", "2099-01-01", FormStatus::Valid),
        ] {
            assert_eq!(form(kind, signed_on).status(date(today)), expect, "{kind:?} {signed_on} {today}");
        }
        let revocation = Revocation { at: now(), by: "fay".into(), reason: "moved".into() };
        let revoked = TaxForm { revoked: Some(revocation), ..form(FormKind::W9, "2026-01-01") };
        assert_eq!(revoked.status(date("2026-01-02")), FormStatus::Revoked);
    }

    #[test]
    fn who_is_foreign_by_what_is_known_and_has_no_valid_w8_is_undocumented() {
        let today = date("2026-06-01");
        let (us, de) = (Some(Country::US), Some("DE".parse().unwrap()));
        let w9 = form(FormKind::W9, "2020-01-01");
        let expired = form(FormKind::W8Ben, "2020-01-01");
        let valid = form(FormKind::W8Ben, "2024-01-01");
        let revocation = Revocation { at: now(), by: "fay".into(), reason: "number was wrong".into() };
        let revoked = TaxForm { revoked: Some(revocation), ..w9.clone() };
        let foreign = Payee::Foreign { services: Services::Us, treaty: None };
        for (form, country, expect) in [
            (None, None, Payee::Unidentified),
            (None, us, Payee::Unidentified),
            (None, de, Payee::ForeignUndocumented),
            (Some(&w9), None, Payee::Identified),
            (Some(&w9), de, Payee::Identified),
            (Some(&expired), None, Payee::ForeignUndocumented),
            (Some(&expired), us, Payee::ForeignUndocumented),
            (Some(&valid), us, foreign.clone()),
            (Some(&revoked), us, Payee::Unidentified),
            (Some(&revoked), de, Payee::ForeignUndocumented),
        ] {
            assert_eq!(Payee::of(form, country, today), expect, "{form:?} {country:?}");
        }
    }

    fn number(kind: NumberKind, text: &str) -> Option<NumberInput> {
        Some(NumberInput { kind, text: text.into() })
    }

    fn w9() -> TaxFormInput {
        TaxFormInput {
            kind: FormKind::W9,
            name: "Anna".into(),
            entity: None,
            country: None,
            signed_on: date("2026-05-01"),
            number: number(NumberKind::Ssn, "123-45-6789"),
            services: None,
            treaty: None,
        }
    }

    fn w8() -> TaxFormInput {
        let treaty = TreatyInput { country: "DE".into(), rate: "0".into(), article: "7".into() };
        TaxFormInput {
            kind: FormKind::W8Ben,
            country: Some("DE".into()),
            number: number(NumberKind::Foreign, "12 345 678 901"),
            services: Some(Services::Us),
            treaty: Some(treaty),
            ..w9()
        }
    }

    #[test]
    fn a_form_is_refused_for_each_field_that_is_wrong() {
        let treaty = |country: &str, rate: &str, article: &str| {
            Some(TreatyInput { country: country.into(), rate: rate.into(), article: article.into() })
        };
        let w8e = || TaxFormInput { kind: FormKind::W8BenE, entity: Some(Entity::Corporation), ..w8() };
        let cases: Vec<(TaxFormInput, &[&str])> = vec![
            (w9(), &[]),
            (w8(), &[]),
            (w8e(), &[]),
            (TaxFormInput { name: " ".into(), ..w9() }, &["/name"]),
            (TaxFormInput { name: "x".repeat(201), ..w9() }, &["/name"]),
            (TaxFormInput { signed_on: date("2026-06-02"), ..w9() }, &["/signedOn"]),
            (TaxFormInput { signed_on: date("2022-12-31"), ..w9() }, &[]),
            (TaxFormInput { signed_on: date("2022-12-31"), ..w8() }, &["/signedOn"]),
            (TaxFormInput { signed_on: date("2023-01-01"), ..w8() }, &[]),
            (TaxFormInput { number: None, ..w9() }, &["/taxNumber"]),
            (TaxFormInput { number: number(NumberKind::Ssn, "123"), ..w9() }, &["/taxNumber/number"]),
            (TaxFormInput { number: number(NumberKind::Foreign, "12345"), ..w9() }, &["/taxNumber/kind"]),
            (TaxFormInput { entity: Some(Entity::Corporation), ..w9() }, &["/taxNumber/kind"]),
            (
                TaxFormInput {
                    entity: Some(Entity::Corporation),
                    number: number(NumberKind::Ein, "12-3456789"),
                    ..w9()
                },
                &[],
            ),
            (TaxFormInput { number: number(NumberKind::Ein, "12-3456789"), ..w8() }, &["/taxNumber/kind"]),
            (TaxFormInput { number: number(NumberKind::Ssn, "123-45-6789"), ..w8e() }, &["/taxNumber/kind"]),
            (TaxFormInput { number: None, treaty: None, ..w8() }, &[]),
            (TaxFormInput { number: None, ..w8() }, &["/treaty"]),
            (TaxFormInput { country: None, treaty: None, ..w8() }, &["/country"]),
            (TaxFormInput { country: Some("Germany".into()), treaty: None, ..w8() }, &["/country"]),
            (TaxFormInput { country: Some("US".into()), treaty: None, ..w8() }, &["/country"]),
            (TaxFormInput { entity: Some(Entity::Partnership), ..w8() }, &["/entity"]),
            (TaxFormInput { entity: None, ..w8e() }, &["/entity"]),
            (TaxFormInput { services: None, ..w8() }, &["/services"]),
            (TaxFormInput { treaty: treaty("FR", "0", "7"), ..w8() }, &["/treaty/country"]),
            (TaxFormInput { treaty: treaty("??", "0", "7"), ..w8() }, &["/treaty/country"]),
            (TaxFormInput { treaty: treaty("DE", "31", "7"), ..w8() }, &["/treaty/rate"]),
            (TaxFormInput { treaty: treaty("DE", "-1", "7"), ..w8() }, &["/treaty/rate"]),
            (TaxFormInput { treaty: treaty("DE", "a", "7"), ..w8() }, &["/treaty/rate"]),
            (TaxFormInput { treaty: treaty("DE", "1.005", "7"), ..w8() }, &["/treaty/rate"]),
            (TaxFormInput { treaty: treaty("DE", "10", " "), ..w8() }, &["/treaty/article"]),
            // What the form has no place for is not looked at.
            (TaxFormInput { country: Some("??".into()), treaty: treaty("??", "x", ""), ..w9() }, &[]),
            (
                TaxFormInput { name: String::new(), number: None, signed_on: date("2027-01-01"), ..w9() },
                &["/name", "/signedOn", "/taxNumber"],
            ),
        ];
        for (input, expect) in cases {
            let told = format!("{input:?}");
            assert!(!told.contains("6789") && !told.contains("678 901"), "{told}");
            let wrong = input.check(date("2026-06-01")).err().unwrap_or_default();
            let pointers: Vec<_> = wrong.iter().map(|error| error.pointer.as_str()).collect();
            assert_eq!(pointers, expect, "{told}");
        }
    }
}
