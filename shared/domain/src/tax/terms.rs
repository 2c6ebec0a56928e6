//! What tax asks of a payout: nothing, a part of it, or that it is not paid.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::form::{Payee, Services};
use crate::money::{Minor, MoneyError, Percent};
use crate::program::{MethodKind, Zone};

/// A program whose payouts are made by a payer in the United States. All such programs of a system have one payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaxSettings {
    /// What is done about a payee without a tax number, from where the law asks for it.
    pub without_number: WithoutNumber,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutNumber {
    /// Nothing is paid until there is one.
    Block,
    /// Backup withholding.
    Withhold,
}

/// What the law asks for in one calendar year. Amounts are US cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct YearRules {
    pub year: i16,
    /// From this sum per payee and year on, payments for services are reported.
    pub reporting_limit: Minor,
    pub backup_rate: Percent,
    pub nonresident_rate: Percent,
}

/// From when on: reporting limit in US cents, backup rate, rate of foreign payees.
///
/// - The limit: 26 U.S.C. §6041(a) and §6041A(a)(2); 600 dollars, from 2026 on 2,000, and from 2027 on what inflation makes of it (Public Law
///   119-21, §70433, which moves §3406(b)(6) along).
/// - Backup withholding: §3406(a)(1), the fourth lowest rate of §1(c), 24 percent since 2018.
/// - Foreign payees: §1441(a), §1442(a), 30 percent.
const PUBLISHED: [(i16, i64, u32, u32); 2] = [(2018, 60_000, 24, 30), (2026, 200_000, 24, 30)];
/// The last year whose limit is known. Later ones are set by the payer when the IRS publishes them; until then the last one stands, which can
/// only be too low, and so asks for a tax number too early rather than too late.
pub const PUBLISHED_UP_TO: i16 = 2026;

impl YearRules {
    /// The payer's own setting for the year, else what is published.
    pub fn of(year: i16, overrides: &[Self]) -> Result<Self, MoneyError> {
        if let Some(set) = overrides.iter().find(|rules| rules.year == year) {
            return Ok(*set);
        }
        // An override of an earlier year stands for later ones, too, where nothing newer is published.
        let earlier = overrides.iter().filter(|rules| rules.year < year && rules.year > PUBLISHED_UP_TO);
        if let Some(set) = earlier.max_by_key(|rules| rules.year) {
            return Ok(Self { year, ..*set });
        }
        let [first, ..] = PUBLISHED;
        let (_, limit, backup, nonresident) = PUBLISHED.into_iter().rfind(|(from, ..)| *from <= year).unwrap_or(first);
        let percent = |rate| Percent::new(Decimal::from(rate));
        Ok(Self {
            year,
            reporting_limit: Minor::new(limit)?,
            backup_rate: percent(backup),
            nonresident_rate: percent(nonresident),
        })
    }
}

/// Where a payee stands with the payer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Reportable payments of this year, made or on their way.
    pub this_year: Minor,
    /// Whether last year's were to be reported, or tax was withheld from them.
    pub reported_last_year: bool,
}

/// What is kept back from a payout, decided when it was drafted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withholding {
    pub kind: WithholdingKind,
    pub rate: Percent,
    /// It applies where the payout comes to at least this much, and then to the whole of it.
    pub from: Minor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithholdingKind {
    /// A payee of the country who gave no tax number.
    Backup,
    /// A foreign payee for services done in the country, by law or treaty.
    Nonresident,
}

impl Withholding {
    /// How much is kept back of a payout that comes to `gross`.
    pub fn of(&self, gross: Minor) -> Result<Minor, MoneyError> {
        if gross.is_positive() && gross >= self.from { self.rate.of(gross) } else { Ok(Minor::ZERO) }
    }
}

/// What tax asks of a payee's next payout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Terms {
    #[default]
    Clear,
    /// Nothing that comes to this much is paid before there is a form.
    Blocked {
        from: Minor,
    },
    Withhold(Withholding),
}

impl Terms {
    /// Whether a payout that comes to `gross` must not be made.
    pub fn block(&self, gross: Minor) -> bool {
        matches!(self, Self::Blocked { from } if gross.is_positive() && gross >= *from)
    }

    /// Whether not even a cent may be paid.
    pub const fn block_every_cent(&self) -> bool {
        matches!(self, Self::Blocked { from } if !from.is_positive())
    }

    pub const fn withholding(&self) -> Option<&Withholding> {
        match self {
            Self::Withhold(terms) => Some(terms),
            Self::Clear | Self::Blocked { .. } => None,
        }
    }

    /// How much is kept back of a payout that comes to `gross`.
    pub fn withheld(&self, gross: Minor) -> Result<Minor, MoneyError> {
        self.withholding().map_or(Ok(Minor::ZERO), |terms| terms.of(gross))
    }

    /// What is paid of a payout that comes to `gross`.
    pub fn after(&self, gross: Minor) -> Result<Minor, MoneyError> {
        gross.minus(self.withheld(gross)?)
    }
}

impl MethodKind {
    /// Whether the processor reports the payments itself, on Form 1099-K, so that the payer does not: 26 CFR 1.6041-1(a)(1)(iv).
    pub const fn is_reported_by_processor(self) -> bool {
        matches!(self, Self::Paypal)
    }
}

/// What tax asks of a payee's next payout by this method.
///
/// Backup withholding is of reportable payments only (§3406(b)), so one that its processor reports neither counts towards the limit nor is
/// withheld from. It is of the whole payment that reaches the limit, not of what exceeds it.
pub fn terms(
    payee: &Payee,
    settings: TaxSettings,
    rules: &YearRules,
    position: &Position,
    method: Option<MethodKind>,
) -> Result<Terms, MoneyError> {
    Ok(match payee {
        Payee::Identified => Terms::Clear,
        Payee::Foreign { services: Services::Foreign, .. } => Terms::Clear,
        Payee::Foreign { services: Services::Us, treaty } => {
            let rate = treaty.unwrap_or(rules.nonresident_rate);
            if rate.value().is_zero() {
                Terms::Clear
            } else {
                Terms::Withhold(Withholding { kind: WithholdingKind::Nonresident, rate, from: Minor::ZERO })
            }
        }
        Payee::ForeignUndocumented => Terms::Blocked { from: Minor::ZERO },
        Payee::Unidentified if method.is_some_and(MethodKind::is_reported_by_processor) => Terms::Clear,
        Payee::Unidentified => {
            let missing = rules.reporting_limit.minus(position.this_year)?;
            let from = if position.reported_last_year { Minor::ZERO } else { missing.max(Minor::ZERO) };
            match settings.without_number {
                WithoutNumber::Block => Terms::Blocked { from },
                WithoutNumber::Withhold => {
                    Terms::Withhold(Withholding { kind: WithholdingKind::Backup, rate: rules.backup_rate, from })
                }
            }
        }
    })
}

/// The calendar that payments of a program are dated by: that of its time zone.
pub fn year_of(moment: jiff::Timestamp, zone: &Zone) -> i16 {
    moment.to_zoned(zone.time_zone()).year()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::minor;

    fn percent(rate: i64) -> Percent {
        Percent::new(rate.into())
    }

    #[test]
    fn the_whole_payout_is_withheld_from_once_it_reaches_the_limit() {
        let backup = Withholding { kind: WithholdingKind::Backup, rate: percent(24), from: minor(60_000) };
        for (gross, expect) in [(59_999, 0), (60_000, 14_400), (60_002, 14_400), (-60_000, 0)] {
            assert_eq!(backup.of(minor(gross)).unwrap(), minor(expect), "{gross}");
        }
    }

    #[test]
    fn limits_and_rates_are_those_of_the_year() {
        for (year, limit) in [(2010, 60_000), (2018, 60_000), (2025, 60_000), (2026, 200_000), (2027, 200_000)] {
            let rules = YearRules::of(year, &[]).unwrap();
            assert_eq!((rules.year, rules.reporting_limit), (year, minor(limit)));
            assert_eq!((rules.backup_rate, rules.nonresident_rate), (percent(24), percent(30)));
        }
        let of = |year, limit| YearRules { year, reporting_limit: minor(limit), ..YearRules::of(2026, &[]).unwrap() };
        let set = [of(2025, 50_000), of(2027, 210_000), of(2029, 230_000)];
        for (year, limit) in
            [(2024, 60_000), (2025, 50_000), (2026, 200_000), (2027, 210_000), (2028, 210_000), (2030, 230_000)]
        {
            assert_eq!(YearRules::of(year, &set).unwrap().reporting_limit, minor(limit), "{year}");
        }
    }

    /// One worked example: what a payee is and was paid, and what becomes of a payout.
    struct Example {
        payee: Payee,
        year: i16,
        paid: i64,
        last_year: bool,
        method: MethodKind,
        gross: i64,
        /// Whether it is blocked, and what is withheld otherwise: where the program blocks, and where it withholds.
        expect: [Option<i64>; 2],
    }

    #[test]
    fn worked_examples() {
        use MethodKind::{Bank, Paypal};
        use Payee::{Foreign, ForeignUndocumented, Identified, Unidentified};
        let us = |treaty: Option<i64>| Foreign { services: Services::Us, treaty: treaty.map(percent) };
        let abroad = || Foreign { services: Services::Foreign, treaty: None };
        let blocked_or = |withheld| [None, Some(withheld)];
        let same = |withheld| [Some(withheld), Some(withheld)];
        let rows = [
            // Without a number: nothing below the limit of the year, everything from it on.
            (Unidentified, 2025, 0, false, Bank, 59_999, same(0)),
            (Unidentified, 2025, 0, false, Bank, 60_000, blocked_or(14_400)),
            (Unidentified, 2026, 0, false, Bank, 60_000, same(0)),
            (Unidentified, 2026, 0, false, Bank, 199_999, same(0)),
            (Unidentified, 2026, 0, false, Bank, 200_000, blocked_or(48_000)),
            // The payment that crosses is withheld from as a whole.
            (Unidentified, 2025, 50_000, false, Bank, 9_999, same(0)),
            (Unidentified, 2025, 50_000, false, Bank, 10_000, blocked_or(2_400)),
            (Unidentified, 2025, 50_000, false, Bank, 25_000, blocked_or(6_000)),
            (Unidentified, 2025, 70_000, false, Bank, 1, blocked_or(0)),
            (Unidentified, 2025, 70_000, false, Bank, 100, blocked_or(24)),
            // Reported or withheld from last year: from the first cent.
            (Unidentified, 2026, 0, true, Bank, 100, blocked_or(24)),
            // What the processor reports is not the payer's to withhold from.
            (Unidentified, 2026, 0, true, Paypal, 500_000, same(0)),
            // A number settles it.
            (Identified, 2026, 500_000, true, Bank, 500_000, same(0)),
            // Foreign by what is known: a W-8 first.
            (ForeignUndocumented, 2026, 0, false, Bank, 1, [None, None]),
            (ForeignUndocumented, 2026, 0, false, Paypal, 1, [None, None]),
            // With one: by where the services are performed, and by treaty.
            (us(None), 2026, 0, false, Bank, 10_000, same(3_000)),
            (us(None), 2026, 0, false, Paypal, 10_000, same(3_000)),
            (us(Some(15)), 2026, 0, false, Bank, 10_000, same(1_500)),
            (us(Some(0)), 2026, 0, false, Bank, 10_000, same(0)),
            (abroad(), 2026, 0, true, Bank, 500_000, same(0)),
        ];
        for (payee, year, paid, last_year, method, gross, expect) in rows {
            Example { payee, year, paid, last_year, method, gross, expect }.check();
        }
    }

    impl Example {
        fn check(&self) {
            let rules = YearRules::of(self.year, &[]).unwrap();
            let position = Position { this_year: minor(self.paid), reported_last_year: self.last_year };
            for (without_number, expect) in [WithoutNumber::Block, WithoutNumber::Withhold].into_iter().zip(self.expect)
            {
                let settings = TaxSettings { without_number };
                let terms = terms(&self.payee, settings, &rules, &position, Some(self.method)).unwrap();
                let gross = minor(self.gross);
                let outcome = (!terms.block(gross)).then(|| terms.withheld(gross).unwrap().units());
                assert_eq!(outcome, expect, "{:?} {:?} {gross:?}", self.payee, position);
            }
        }
    }

    #[test]
    fn a_payment_belongs_to_the_year_of_the_programs_calendar() {
        let new_york: Zone = Zone::try_from("America/New_York".to_owned()).unwrap();
        let utc: Zone = Zone::try_from("UTC".to_owned()).unwrap();
        let moment = "2027-01-01T04:59:59Z".parse().unwrap();
        assert_eq!((year_of(moment, &new_york), year_of(moment, &utc)), (2026, 2027));
    }
}
