//! Why a line is what it is: in data, and in one sentence.

use rust_decimal::Decimal;
use serde::Serialize;

use crate::attribution::Touch;
use crate::exchange::ExchangeRate;
use crate::ids::LineId;
use crate::line::{Evidence, Line, LineKind};
use crate::money::{Minor, Money, MoneyError};
use crate::rating::{Applied, Basis, Cap, Capped, Exchanged, TierPart};
use crate::rules::{BaseKind, Metric, Pay, Rule, Shape};
use crate::tax::{Withholding, WithholdingKind};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub line: LineId,
    pub sentence: String,
    pub rule_set_version: Option<u32>,
    pub rule_name: Option<String>,
    pub attribution: Option<Evidence>,
    /// The touches that counted, where it was by touches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<Touch>,
    pub calculation: Option<Basis>,
    pub rounding: &'static str,
    pub slice: Option<SliceOf>,
    pub amount: Money,
    pub taken_back: Money,
    pub net: Money,
    /// The amount computed again from what went in.
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

/// What is known of a line besides itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// The rule that made it.
    pub rule: Option<&'a Rule>,
    pub touches: &'a [Touch],
    /// Its amount when it was written, computed again.
    pub recomputed: Option<Minor>,
    /// Its amount when it was written.
    pub written: Option<Minor>,
    /// What the person said who wrote or adjusted it.
    pub why: Option<&'a str>,
    /// For tax: its terms, and what the payout came to before it.
    pub tax: Option<(&'a Withholding, Minor)>,
}

pub fn explain(line: &Line, known: &Known<'_>) -> Result<Explanation, MoneyError> {
    let money = |amount| Money::new(amount, line.currency);
    let slice = slice_of(line, known.rule);
    Ok(Explanation {
        line: line.id.clone(),
        sentence: sentence(line, known, slice.as_ref())?,
        rule_set_version: line.rule_set,
        rule_name: known.rule.map(|rule| rule.name.clone()),
        attribution: line.evidence.clone(),
        touches: known.touches.to_vec(),
        calculation: line.basis.clone(),
        rounding: "half away from zero, once per earning",
        slice,
        amount: line.amount_money(),
        taken_back: money(line.taken_back),
        net: money(line.net()?),
        recomputed: known.recomputed.map(money),
        agrees: known.recomputed.is_none_or(|amount| Some(amount) == known.written),
    })
}

fn slice_of(line: &Line, rule: Option<&Rule>) -> Option<SliceOf> {
    let (number, rule) = (line.slice?, rule?);
    let slice = rule.slices.get(usize::from(number).checked_sub(1)?)?;
    let percent = (slice.share * Decimal::ONE_HUNDRED).normalize().to_string();
    Some(SliceOf { number, of: rule.slices.len(), percent, days: slice.days })
}

fn sentence(line: &Line, known: &Known<'_>, slice: Option<&SliceOf>) -> Result<String, MoneyError> {
    let money = |amount| Money::new(amount, line.currency);
    let order = line.order.as_deref().map_or_else(String::new, |order| format!(" for order {order}"));
    let head = format!("{}{order}", line.amount_money());
    if line.kind == LineKind::Withholding {
        let Some((terms, gross)) = known.tax else { return Ok(format!("{head}: tax kept back from the payout.")) };
        let whose = match terms.kind {
            WithholdingKind::Backup => "backup withholding, because no tax number is on file",
            WithholdingKind::Nonresident => "withholding on a foreign payee",
        };
        return Ok(format!("{head}: {whose}: {} of the payout, which came to {}.", terms.rate, money(gross)));
    }
    if let Some(what) = without_rating(line, known.why) {
        return Ok(format!("{head}: {what}."));
    }
    let Some(basis) = &line.basis else { return Ok(format!("{head}.")) };
    let how = how(line, basis, true);
    let mut more = Vec::new();
    if let Some(share) = basis.share {
        let divided = if share.divided { ", by largest remainder" } else { "" };
        let percent = Decimal::from(share.part * 100) / Decimal::from(share.whole.max(1));
        more.push(format!("The partner has {} % of the conversion{divided}.", percent.round_dp(2).normalize()));
    }
    for cap in &basis.caps {
        more.push(capped(cap, |amount| money(amount).to_string()));
    }
    if let Some(edit) = &line.edit {
        more.push(format!("It is for what edit {edit} added to the order."));
    }
    if let Some(slice) = slice.filter(|slice| slice.of > 1) {
        more.push(format!(
            "This is part {} of {} ({} %, after {} days).",
            slice.number, slice.of, slice.percent, slice.days
        ));
    }
    if !line.taken_back.is_zero() {
        more.push(format!("Refunds took back {}; {} remain.", money(line.taken_back), money(line.net()?)));
    }
    let first = format!(
        "{head}: {how}. Rule \"{}\" of version {} applied because {}; the partner was {}.",
        known.rule.map_or(basis.rule.as_str(), |rule| rule.name.as_str()),
        line.rule_set.unwrap_or_default(),
        basis.won_by.words(),
        found(line.evidence.as_ref()),
    );
    more.insert(0, first);
    Ok(more.join(" "))
}

/// What a line is that no rule rated by itself; `None` for one that a rule did.
fn without_rating(line: &Line, why: Option<&str>) -> Option<String> {
    let because = why.map_or_else(String::new, |why| format!(": {why}"));
    let fixed = match line.kind {
        LineKind::Withholding => "tax kept back from the payout",
        LineKind::WriteOff => return Some(format!("what was owed is written off{because}")),
        _ if line.basis.is_none() => return Some(format!("a bonus, written by hand{because}")),
        LineKind::Clawback => "taken back because the order was refunded after the commission was paid or on its way",
        LineKind::Reinstatement => "given back because the refund it had been taken back for does not stand",
        LineKind::Adjustment => {
            return Some(format!("an adjustment of a commission that is paid or on its way{because}"));
        }
        LineKind::Commission | LineKind::TrueUp | LineKind::Bonus => return None,
    };
    Some(fixed.to_owned())
}

/// What a line is for, without its amount and its history: a clause for lists and statements. `why` is what the person said who wrote
/// or adjusted it.
pub fn brief(line: &Line, rule: Option<&Rule>, why: Option<&str>) -> String {
    if let Some(what) = without_rating(line, why) {
        return what;
    }
    let Some(basis) = &line.basis else { return String::new() };
    let slice = slice_of(line, rule).filter(|slice| slice.of > 1);
    let part = slice
        .map_or_else(String::new, |slice| format!(", part {} of {} ({} %)", slice.number, slice.of, slice.percent));
    let name = rule.map_or(basis.rule.as_str(), |rule| rule.name.as_str());
    format!("{}{part} by rule \"{name}\"", how(line, basis, false))
}

fn found(evidence: Option<&Evidence>) -> String {
    match evidence {
        Some(Evidence::PartnerId) => "named by the sale".to_owned(),
        Some(Evidence::Code(_)) => "named by referral code".to_owned(),
        Some(Evidence::Coupon(_)) => "named by coupon".to_owned(),
        Some(Evidence::Click(_)) => "named by a click on its link".to_owned(),
        Some(Evidence::Touches { model, window_days }) => {
            format!("found by {} within {window_days} days", model.words())
        }
        Some(Evidence::Customer) => "the one the customer's first sale was due to".to_owned(),
        Some(Evidence::ByHand) => "named by hand".to_owned(),
        None => "attributed".to_owned(),
    }
}

/// `in_full`: also of what the base consists.
fn how(line: &Line, basis: &Basis, in_full: bool) -> String {
    let money = |amount| Money::new(amount, line.currency);
    let goods = match basis.base_kind {
        BaseKind::Net => "goods after discounts, without tax and shipping",
        BaseKind::Gross => "goods before discounts, without tax and shipping",
    };
    let converted = basis.exchange.as_ref().map_or_else(String::new, |exchanged| {
        let Exchanged { told, rate } = exchanged;
        let ExchangeRate { from, source, date, .. } = rate;
        let told = Money::new(*told, *from);
        if in_full {
            format!(" ({told}, converted at {rate} as {source} published for {date})")
        } else {
            format!(" ({told} at {rate})")
        }
    });
    let of_goods = if in_full { format!(" of {goods}") } else { String::new() };
    let base = format!("{}{converted}{of_goods}", money(basis.base));
    let paid = |pay: Pay| match pay {
        Pay::Rate(rate) => format!("{rate} of {base}"),
        Pay::Amount(amount) => format!("{} per sale", money(amount)),
    };
    match &basis.reward {
        Applied::Flat { amount } => format!("{} per sale", money(*amount)),
        Applied::FlatPerUnit { amount, units } => format!("{} for each of {} units", money(*amount), units.normalize()),
        Applied::Percent { rate } => format!("{rate} of {base}"),
        Applied::Nothing => "nothing, because the reward does not depend on the size of the order".to_owned(),
        Applied::Tiered { metric, shape, before, after, parts, window } => {
            let tier = |part: &TierPart| format!("the tier after {}", amount(*metric, part.after, line));
            let text = match (shape, parts.as_slice()) {
                (Shape::MarginalByAmount, parts) => {
                    let portion = |part: &TierPart| {
                        let share = Minor::round(part.base.unwrap_or_default()).unwrap_or_default();
                        let rate = match part.pay {
                            Pay::Rate(rate) => rate.to_string(),
                            Pay::Amount(amount) => money(amount).to_string(),
                        };
                        format!("{rate} of {} in {}", money(share), tier(part))
                    };
                    let portions = parts.iter().map(portion).collect::<Vec<_>>().join(" and ");
                    if in_full { format!("{portions} ({goods}{converted})") } else { format!("{portions}{converted}") }
                }
                (_, [part]) if *metric == Metric::Count => {
                    let number = (*after).max(before + 1);
                    format!("{}, as sale number {number} in {}", paid(part.pay), tier(part))
                }
                (_, [part]) => format!("{}, in {}", paid(part.pay), tier(part)),
                _ => String::new(),
            };
            let moved = format!(
                "{} came from {} to {}",
                period(window.as_str()),
                amount(*metric, *before, line),
                amount(*metric, *after, line)
            );
            if *metric == Metric::Count || !in_full { text } else { format!("{text}; {moved}") }
        }
        Applied::Retroactive { crossed, window, tier, conversions, target, had, kept_back } => {
            let pay = match tier.pay {
                Pay::Rate(rate) => format!("{rate} of {}", money(basis.base)),
                Pay::Amount(amount) => {
                    let whole = amount.proportion((*conversions).into(), 1).is_ok_and(|whole| whole == *target);
                    let shared = if whole { "" } else { ", by the partner's share of it" };
                    format!("{} for each of {conversions} sales{shared}", money(amount))
                }
            };
            let why = if *crossed { "rated at the tier it reached" } else { "counted anew at the tier it has reached" };
            let kept =
                if kept_back.is_zero() { String::new() } else { format!(", and caps keep back {}", money(*kept_back)) };
            format!(
                "a true-up: {} is {why}, {pay}, which is {}; {} were earned before{kept}",
                period(window.as_str()),
                money(*target),
                money(*had)
            )
        }
    }
}

fn period(window: &str) -> String {
    if window == "life" { "everything so far".to_owned() } else { window.to_owned() }
}

fn amount(metric: Metric, position: i64, line: &Line) -> String {
    match metric {
        Metric::Count => position.to_string(),
        Metric::Revenue | Metric::Commission => {
            Money::new(Minor::new(position).unwrap_or_default(), line.currency).to_string()
        }
    }
}

fn capped(capped: &Capped, money: impl Fn(Minor) -> String) -> String {
    let per = match capped.cap {
        Cap::PerOrder => "an order",
        Cap::PerPartnerMonth => "a partner and month",
        Cap::PerProgramMonth => "the program and month",
    };
    format!(
        "It was capped at {} ({} for {per}) instead of {}.",
        money(capped.to),
        money(capped.limit),
        money(capped.from)
    )
}
