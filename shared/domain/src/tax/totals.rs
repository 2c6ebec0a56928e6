//! What was paid in a year, and what of it is reported on which return.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::form::{Entity, FormKind, Services, TaxForm};
use super::terms::{WithholdingKind, YearRules, year_of};
use crate::money::{Minor, MoneyError};
use crate::payout::Payout;

/// What one payee was paid in one year, before tax, and what was kept back. US cents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// By the payer's own means.
    pub direct: Minor,
    /// By a processor that reports it itself.
    pub processor: Minor,
    /// Backup withholding.
    pub backup: Minor,
    /// Tax of foreign payees.
    pub nonresident: Minor,
}

impl Counted {
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        Ok(Self {
            direct: self.direct.plus(other.direct)?,
            processor: self.processor.plus(other.processor)?,
            backup: self.backup.plus(other.backup)?,
            nonresident: self.nonresident.plus(other.nonresident)?,
        })
    }

    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        Ok(Self {
            direct: self.direct.minus(other.direct)?,
            processor: self.processor.minus(other.processor)?,
            backup: self.backup.minus(other.backup)?,
            nonresident: self.nonresident.minus(other.nonresident)?,
        })
    }

    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    pub fn paid(&self) -> Result<Minor, MoneyError> {
        self.direct.plus(self.processor)
    }

    /// Whether payments of the year had to be reported, or tax was withheld from them.
    pub fn is_reportable(&self, rules: &YearRules) -> bool {
        self.direct >= rules.reporting_limit || self.backup.is_positive()
    }
}

/// What a payout counts for, by year of payment. Empty where its program has no payer of taxes, and while nothing is paid.
///
/// What is sent may be in another currency, and in parts: each part counts for its share of what the payout comes to before tax, so
/// that the parts sum to the whole. What came back is taken off the latest parts.
pub fn counted(payout: &Payout) -> Result<BTreeMap<i16, Counted>, MoneyError> {
    let mut years: BTreeMap<i16, Counted> = BTreeMap::new();
    let Some(zone) = &payout.tax_calendar else { return Ok(years) };
    let whole = payout.pays()?.amount;
    if !whole.is_positive() || !payout.paid.is_positive() {
        return Ok(years);
    }
    let gross = payout.gross()?;
    let share = |of: Minor, so_far: Minor| of.proportion(so_far.units().into(), whole.units().into());
    let (mut so_far, mut told) = (Minor::ZERO, Minor::ZERO);
    // What no payment tells of happened when the payout was last heard of.
    let rest = payout.paid_at.or(payout.submitted_at).unwrap_or(payout.created_at);
    let parts = payout.payments.iter().map(|payment| (payment.amount, payment.at));
    for (amount, at) in parts.chain(std::iter::once((payout.paid, rest))) {
        told = told.plus(amount)?;
        let next = told.min(payout.paid).max(so_far);
        let paid = share(gross, next)?.minus(share(gross, so_far)?)?;
        let withheld = share(payout.withheld, next)?.minus(share(payout.withheld, so_far)?)?;
        so_far = next;
        let mut part = Counted::default();
        if payout.method.is_reported_by_processor() {
            part.processor = paid
        } else {
            part.direct = paid
        }
        match payout.withholding.as_ref().map(|terms| terms.kind) {
            Some(WithholdingKind::Nonresident) => part.nonresident = withheld,
            Some(WithholdingKind::Backup) | None => part.backup = withheld,
        }
        if !part.is_zero() {
            let year = years.entry(year_of(at, zone)).or_default();
            *year = year.plus(part)?;
        }
    }
    Ok(years)
}

/// An information return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Return {
    #[serde(rename = "1099-NEC")]
    Nec,
    #[serde(rename = "1042-S")]
    Form1042S,
}

impl Return {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nec => "1099-NEC",
            Self::Form1042S => "1042-S",
        }
    }
}

/// Why nothing, or not everything, is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExcludedBecause {
    Corporation,
    /// The processor reports it on Form 1099-K.
    ProcessorReported,
    /// Services performed abroad.
    ForeignSource,
    /// Foreign by what is known, and without a form that says so.
    NoForm,
    BelowLimit,
}

impl ExcludedBecause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Corporation => "corporation",
            Self::ProcessorReported => "processor_reported",
            Self::ForeignSource => "foreign_source",
            Self::NoForm => "no_form",
            Self::BelowLimit => "below_limit",
        }
    }
}

/// What of a payee's year goes on which return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filing {
    pub on: Option<Return>,
    /// 1099-NEC box 1, or 1042-S box 2: compensation, before tax.
    pub compensation: Minor,
    /// 1099-NEC box 4, or 1042-S box 7a: tax withheld.
    pub tax: Minor,
    /// What is left out.
    pub excluded: Minor,
    pub because: Option<ExcludedBecause>,
}

/// What of a payee's year goes on which return. The form is the latest there is, valid or not: it says who the payee is.
pub fn filing(
    counted: &Counted,
    form: Option<&TaxForm>,
    foreign: bool,
    rules: &YearRules,
) -> Result<Filing, MoneyError> {
    let paid = counted.paid()?;
    let nothing = |because| Filing {
        on: None,
        compensation: Minor::ZERO,
        tax: Minor::ZERO,
        excluded: paid,
        because: paid.is_positive().then_some(because),
    };
    let form = form.filter(|form| form.revoked.is_none());
    let services = form.filter(|form| form.kind != FormKind::W9).map(|form| form.services.unwrap_or(Services::Us));
    // What was withheld is always reported.
    if counted.nonresident.is_positive() || services == Some(Services::Us) {
        let (compensation, tax) = (paid, counted.nonresident.plus(counted.backup)?);
        let on = paid.is_positive().then_some(Return::Form1042S);
        return Ok(Filing { on, compensation, tax, excluded: Minor::ZERO, because: None });
    }
    if counted.backup.is_positive() {
        return Ok(nec(counted));
    }
    if services == Some(Services::Foreign) {
        return Ok(nothing(ExcludedBecause::ForeignSource));
    }
    if form.is_none() && foreign {
        return Ok(nothing(ExcludedBecause::NoForm));
    }
    if form.is_some_and(|form| form.entity == Entity::Corporation) {
        return Ok(nothing(ExcludedBecause::Corporation));
    }
    if !counted.direct.is_positive() && counted.processor.is_positive() {
        return Ok(nothing(ExcludedBecause::ProcessorReported));
    }
    if counted.direct < rules.reporting_limit {
        return Ok(nothing(ExcludedBecause::BelowLimit));
    }
    Ok(nec(counted))
}

fn nec(counted: &Counted) -> Filing {
    Filing {
        on: Some(Return::Nec),
        compensation: counted.direct,
        tax: counted.backup,
        excluded: counted.processor,
        because: counted.processor.is_positive().then_some(ExcludedBecause::ProcessorReported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::minor;
    use crate::exchange::ExchangeRate;
    use crate::money::Percent;
    use crate::payout::Payment;
    use crate::payout::tests::payout;
    use crate::program::{MethodKind, Zone};
    use crate::tax::Withholding;
    use crate::tax::form::tests::form;

    fn counts(direct: i64, processor: i64, backup: i64, nonresident: i64) -> Counted {
        let [direct, processor, backup, nonresident] = [direct, processor, backup, nonresident].map(minor);
        Counted { direct, processor, backup, nonresident }
    }

    fn taxed(amount: i64, withheld: i64, paid: i64, payments: &[(i64, &str)]) -> Payout {
        let payment = |(amount, at): &(i64, &str)| Payment {
            reference: None,
            amount: minor(*amount),
            at: format!("{at}T12:00:00Z").parse().unwrap(),
        };
        let kind = WithholdingKind::Backup;
        Payout {
            tax_calendar: Some(Zone::try_from("UTC".to_owned()).unwrap()),
            withheld: minor(withheld),
            withholding: Some(Withholding { kind, rate: Percent::new(24.into()), from: Minor::ZERO }),
            paid: minor(paid),
            payments: payments.iter().map(payment).collect(),
            ..payout(amount)
        }
    }

    fn years(payout: &Payout) -> Vec<(i16, Counted)> {
        counted(payout).unwrap().into_iter().collect()
    }

    #[test]
    fn payments_count_before_tax_in_the_year_they_are_made() {
        let none = Payout { tax_calendar: None, ..taxed(760, 240, 760, &[(760, "2026-05-01")]) };
        assert_eq!(years(&none), [], "no payer of taxes");
        assert_eq!(years(&taxed(760, 240, 0, &[])), [], "nothing is paid yet");
        let whole = taxed(760, 240, 760, &[(760, "2026-05-01")]);
        assert_eq!(years(&whole), [(2026, counts(1_000, 0, 240, 0))]);
        let parts = taxed(760, 240, 760, &[(253, "2026-12-31"), (253, "2027-01-01"), (254, "2027-01-02")]);
        assert_eq!(years(&parts), [(2026, counts(333, 0, 80, 0)), (2027, counts(667, 0, 160, 0))]);
        let paypal = Payout { method: MethodKind::Paypal, ..whole };
        assert_eq!(years(&paypal), [(2026, counts(0, 1_000, 240, 0))]);
    }

    #[test]
    fn what_came_back_counts_no_more_the_latest_first() {
        let payments = [(500, "2026-12-31"), (500, "2027-01-01")];
        assert_eq!(
            years(&taxed(1_000, 0, 600, &payments)),
            [(2026, counts(500, 0, 0, 0)), (2027, counts(100, 0, 0, 0))]
        );
        assert_eq!(years(&taxed(1_000, 0, 500, &payments)), [(2026, counts(500, 0, 0, 0))]);
        assert_eq!(years(&taxed(1_000, 0, 0, &payments)), []);
    }

    #[test]
    fn what_is_sent_in_another_currency_counts_as_what_it_came_to() {
        let rate = ExchangeRate {
            from: "USD".parse().unwrap(),
            to: "JPY".parse().unwrap(),
            rate: "150".parse().unwrap(),
            per: rust_decimal::Decimal::ONE,
            source: "test".into(),
            date: "2026-06-01".parse().unwrap(),
        };
        let converted =
            Payout { conversion: Some(rate), ..taxed(1_001, 0, 1_502, &[(751, "2026-06-01"), (751, "2026-06-02")]) };
        assert_eq!(years(&converted), [(2026, counts(1_001, 0, 0, 0))]);
    }

    #[test]
    fn returns_take_what_belongs_on_them() {
        use ExcludedBecause::{BelowLimit, Corporation, ForeignSource, NoForm, ProcessorReported};
        let w9 = form(FormKind::W9, "2026-01-01");
        let corporation = TaxForm { entity: Entity::Corporation, ..w9.clone() };
        let w8 = form(FormKind::W8Ben, "2026-01-01");
        let abroad = TaxForm { services: Some(Services::Foreign), ..w8.clone() };
        let (nec, s1042) = (Some(Return::Nec), Some(Return::Form1042S));
        for (count, form, foreign, expect) in [
            (counts(200_000, 0, 0, 0), Some(&w9), false, (nec, 200_000, 0, None)),
            (counts(199_999, 0, 0, 0), Some(&w9), false, (None, 0, 0, Some(BelowLimit))),
            (counts(199_999, 50_000, 0, 0), Some(&w9), false, (None, 0, 0, Some(BelowLimit))),
            (counts(200_000, 50_000, 0, 0), Some(&w9), false, (nec, 200_000, 0, Some(ProcessorReported))),
            (counts(0, 900_000, 0, 0), Some(&w9), false, (None, 0, 0, Some(ProcessorReported))),
            (counts(200_000, 0, 0, 0), Some(&corporation), false, (None, 0, 0, Some(Corporation))),
            (counts(200_000, 0, 0, 0), None, false, (nec, 200_000, 0, None)),
            // Withheld tax is reported whatever the amount, and whoever the payee turned out to be.
            (counts(100, 0, 24, 0), None, false, (nec, 100, 24, None)),
            (counts(100, 0, 24, 0), Some(&corporation), false, (nec, 100, 24, None)),
            (counts(100, 0, 0, 30), Some(&w8), true, (s1042, 100, 30, None)),
            (counts(100, 0, 0, 0), Some(&w8), true, (s1042, 100, 0, None)),
            (counts(900_000, 0, 0, 0), Some(&abroad), true, (None, 0, 0, Some(ForeignSource))),
            (counts(900_000, 0, 0, 0), None, true, (None, 0, 0, Some(NoForm))),
            (counts(0, 0, 0, 0), Some(&w9), false, (None, 0, 0, None)),
        ] {
            let filing = filing(&count, form, foreign, &YearRules::of(2026, &[]).unwrap()).unwrap();
            let got = (filing.on, filing.compensation.units(), filing.tax.units(), filing.because);
            assert_eq!(got, expect, "{count:?} {form:?}");
        }
    }

    #[test]
    fn a_year_is_reportable_from_the_limit_on_or_where_tax_was_withheld() {
        let rules = YearRules::of(2025, &[]).unwrap();
        for (count, expect) in [
            (counts(59_999, 0, 0, 0), false),
            (counts(60_000, 0, 0, 0), true),
            (counts(0, 900_000, 0, 0), false),
            (counts(100, 0, 24, 0), true),
        ] {
            assert_eq!(count.is_reportable(&rules), expect, "{count:?}");
        }
    }
}
