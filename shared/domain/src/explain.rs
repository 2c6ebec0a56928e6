//! Why a line is what it is: in data, in one sentence, and by computing it again.

use serde::Serialize;

use crate::conversion::Sale;
use crate::ids::LineId;
use crate::line::{Evidence, Line, LineKind};
use crate::money::{Minor, Money, MoneyError};
use crate::program::Partner;
use crate::rating::{Applied, AppliedPay, Basis, rate};
use crate::rules::{BaseKind, Rule};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub line: LineId,
    pub sentence: String,
    pub rule_set_version: Option<u32>,
    pub rule_name: Option<String>,
    pub attribution: Option<Evidence>,
    pub calculation: Option<Basis>,
    pub rounding: &'static str,
    pub slice: Option<SliceOf>,
    pub amount: Money,
    pub taken_back: Money,
    pub net: Money,
    /// The amount computed again from the sale, the rules and the tier position.
    pub recomputed: Option<Money>,
    /// Whether that is the stored amount, to the last unit.
    pub agrees: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SliceOf {
    pub number: u8,
    pub of: usize,
    pub percent: String,
    pub days: u16,
}

/// Explains a line from what it was made of. `sale`, `rules` and `partner` are those of its making; without them (a line
/// that no rule made) only the stored facts are told.
pub fn explain(line: &Line, sale: Option<&Sale>, rules: &[Rule], partner: &Partner) -> Result<Explanation, MoneyError> {
    let money = |amount| Money::new(amount, line.currency);
    let rule = line.basis.as_ref().and_then(|basis| rules.iter().find(|rule| rule.key == basis.rule));
    let slice = slice_of(line, rule);
    let recomputed = match (line.kind, sale) {
        (LineKind::Commission, Some(sale)) => recompute(line, sale, rules, partner)?,
        _ => None,
    };
    Ok(Explanation {
        line: line.id.clone(),
        sentence: sentence(line, rule, slice.as_ref())?,
        rule_set_version: line.rule_set,
        rule_name: rule.map(|rule| rule.name.clone()),
        attribution: line.evidence.clone(),
        calculation: line.basis.clone(),
        rounding: "half away from zero, once per earning",
        slice,
        amount: line.amount_money(),
        taken_back: money(line.taken_back),
        net: money(line.net()?),
        recomputed: recomputed.map(money),
        agrees: recomputed.is_none_or(|amount| amount == line.amount),
    })
}

/// The amount of a commission, from the sale, its rules and the stored tier position alone.
fn recompute(line: &Line, sale: &Sale, rules: &[Rule], partner: &Partner) -> Result<Option<Minor>, MoneyError> {
    let Some(basis) = &line.basis else { return Ok(None) };
    let before = match &basis.reward {
        Applied::Tier { before, .. } => *before,
        _ => 0,
    };
    let earnings = rate(sale, rules, partner, |_| before)?;
    let Some(earning) = earnings.iter().find(|earning| earning.rule.key == basis.rule) else { return Ok(None) };
    let shares: Vec<_> = earning.rule.slices.iter().map(|slice| slice.share).collect();
    let parts = earning.basis.earned.split(&shares)?;
    Ok(line.slice.and_then(|number| parts.get(usize::from(number).checked_sub(1)?).copied()))
}

fn slice_of(line: &Line, rule: Option<&Rule>) -> Option<SliceOf> {
    let (number, rule) = (line.slice?, rule?);
    let slice = rule.slices.get(usize::from(number).checked_sub(1)?)?;
    let percent = (slice.share * rust_decimal::Decimal::ONE_HUNDRED).normalize().to_string();
    Some(SliceOf { number, of: rule.slices.len(), percent, days: slice.days })
}

fn sentence(line: &Line, rule: Option<&Rule>, slice: Option<&SliceOf>) -> Result<String, MoneyError> {
    let money = |amount| Money::new(amount, line.currency);
    let order = line.order.as_deref().map_or_else(String::new, |order| format!(" for order {order}"));
    let Some(basis) = &line.basis else {
        return Ok(format!("{}{order}.", line.amount_money()));
    };
    if line.kind == LineKind::Clawback {
        return Ok(format!(
            "{}{order}: taken back because the order was refunded after the commission was paid or on its way.",
            line.amount_money()
        ));
    }
    let base = match basis.base_kind {
        BaseKind::Net => format!("{} of goods after discounts, without tax and shipping", money(basis.base)),
        BaseKind::Gross => format!("{} of goods before discounts, without tax and shipping", money(basis.base)),
    };
    let how = match &basis.reward {
        Applied::Flat { amount } => format!("{} per sale", money(*amount)),
        Applied::FlatPerUnit { amount, units } => format!("{} for each of {} units", money(*amount), units.normalize()),
        Applied::Percent { rate } => format!("{rate} of {base}"),
        Applied::Tier { after, position, pay, .. } => {
            let pay = match pay {
                AppliedPay::Rate(rate) => format!("{rate} of {base}"),
                AppliedPay::Amount(amount) => format!("{} per sale", money(*amount)),
            };
            format!("{pay}, as sale number {position} in the tier after {after}")
        }
    };
    let share = match slice {
        Some(slice) if slice.of > 1 => {
            format!(" This is part {} of {} ({} %, after {} days).", slice.number, slice.of, slice.percent, slice.days)
        }
        _ => String::new(),
    };
    let back = if line.taken_back.is_zero() {
        String::new()
    } else {
        format!(" Refunds took back {}; {} remain.", money(line.taken_back), money(line.net()?))
    };
    let found = match &line.evidence {
        Some(Evidence::PartnerId) => "named by the sale",
        Some(Evidence::Code(_)) => "named by referral code",
        Some(Evidence::Coupon(_)) => "named by coupon",
        None => "attributed",
    };
    Ok(format!(
        "{}{order}: {how}. Rule \"{}\" of version {} applied because {}; the partner was {found}.{share}{back}",
        line.amount_money(),
        rule.map_or(basis.rule.as_str(), |rule| rule.name.as_str()),
        line.rule_set.unwrap_or_default(),
        basis.won_by.words(),
    ))
}
