//! Why a line is what it is: in data, and in one sentence.

use rust_decimal::Decimal;
use serde::Serialize;

use crate::attribution::Touch;
use crate::exchange::ExchangeRate;
use crate::ids::LineId;
use crate::line::{Evidence, Line, LineKind};
use crate::money::{Minor, Money, MoneyError};
use crate::order::Order;
use crate::rating::{Applied, Basis, Cap, Capped, Decided, Exchanged, TierPart, base, without_store_credit};
use crate::reversal::share;
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
    /// Of what order the base is a part, where it is part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseParts>,
    pub rounding: &'static str,
    pub slice: Option<SliceOf>,
    pub amount: Money,
    pub taken_back: Money,
    pub net: Money,
    /// The amount computed again from what went in.
    pub recomputed: Option<Money>,
    /// Whether that is the amount it was written with, to the last unit; `None` where this alone does not tell what it rests on: replaying
    /// the whole journal does.
    pub agrees: Option<bool>,
}

/// What a base follows from, in the currency of the sale: of what was charged, tax, shipping and gift cards that were bought aside, the goods
/// are left; of these the rule rated some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BaseParts {
    /// What was charged: for the order, or for what the edit added.
    pub total: Money,
    pub tax: Money,
    pub shipping: Money,
    pub gift_cards: Money,
    /// What was taken off the goods before.
    pub discount: Money,
    /// After discounts.
    pub goods: Money,
    /// Of these what the rule rated, with its part of the discount where the rule counts that in.
    pub rated: Money,
    /// What of it was paid with store credit and does not count.
    pub store_credit: Money,
    /// What is left: the base.
    pub base: Money,
    /// How much of the base went back since.
    pub refunded: Money,
}

impl BaseParts {
    /// Those of a line that a rule rated by itself. `attribution` is the entry by which a person last attributed the order.
    pub fn of(order: &Order, attribution: u32, line: &Line, rule: &Rule) -> Result<Option<Self>, MoneyError> {
        let part = order.part(line.edit.as_deref());
        let (Some(basis), Some(part), false) = (&line.basis, part, line.kind == LineKind::TrueUp) else {
            return Ok(None);
        };
        let sale = &part.sale;
        let rated = base(sale, basis.base_kind, &basis.items)?;
        let left = if rule.exclude_store_credit { without_store_credit(rated, sale)? } else { rated };
        let (back, whole) = share(order, attribution, line)?;
        let cards = sale.items.iter().filter(|item| item.gift_card).map(|item| item.amount);
        let money = |amount| Money::new(amount, sale.currency);
        Ok(Some(Self {
            total: money(sale.total),
            tax: money(sale.tax),
            shipping: money(sale.shipping),
            gift_cards: money(Minor::total(cards)?),
            discount: money(sale.discount),
            goods: money(sale.net()?),
            rated: money(rated),
            store_credit: money(rated.minus(left)?),
            base: money(left),
            refunded: money(left.proportion(back, whole)?),
        }))
    }

    /// In words, where more than goods were charged, or not all of them count.
    fn words(&self) -> Option<String> {
        let aside = [(self.tax, "tax"), (self.shipping, "shipping"), (self.gift_cards, "gift cards")];
        let aside = aside.into_iter().filter(|(amount, _)| !amount.amount.is_zero());
        let mut told: Vec<_> = aside.map(|(amount, what)| format!("{amount} {what}")).collect();
        if !self.discount.amount.is_zero() {
            told.push(format!("after {} discount", self.discount));
        }
        let with = if told.is_empty() { String::new() } else { format!(" with {}", told.join(", ")) };
        let credit = if self.store_credit.amount.is_zero() {
            String::new()
        } else {
            format!("; {} of the goods were paid with store credit and do not count", self.store_credit)
        };
        let any = !with.is_empty() || !credit.is_empty();
        any.then(|| format!("{} were charged{with}; {} of it are goods{credit}.", self.total, self.goods))
    }
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
    /// The rule that came next.
    pub beaten: Option<&'a Rule>,
    pub base: Option<&'a BaseParts>,
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
        base: known.base.cloned(),
        rounding: "half away from zero, once per earning",
        slice,
        amount: line.amount_money(),
        taken_back: money(line.taken_back),
        net: money(line.net()?),
        recomputed: known.recomputed.map(money),
        agrees: known.recomputed.map(|amount| Some(amount) == known.written),
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
        because(basis, known.beaten),
        found(line.evidence.as_ref()),
    );
    more.insert(0, first);
    more.extend(known.base.and_then(BaseParts::words));
    Ok(more.join(" "))
}

/// Why the rule rated it, and no other.
fn because(basis: &Basis, beaten: Option<&Rule>) -> String {
    let words = basis.won_by.words();
    let Some(over) = &basis.won_over else { return words };
    let name = beaten.map_or(over.rule.as_str(), |rule| rule.name.as_str());
    match over.decided_by {
        Decided::Specificity => format!("{words}, before rule \"{name}\", which {}", over.won_by.predicate()),
        Decided::Priority => format!("{words} and has a higher priority than rule \"{name}\""),
        Decided::Newer => format!("{words} and is newer than rule \"{name}\""),
    }
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
        Applied::Retroactive { crossed, window, tier, conversions, target, had } => {
            let pay = match tier.pay {
                Pay::Rate(rate) => format!("{rate} of {}", money(basis.base)),
                Pay::Amount(amount) => {
                    let whole = amount.proportion((*conversions).into(), 1).is_ok_and(|whole| whole == *target);
                    let shared = if whole { "" } else { ", by the partner's share of it" };
                    format!("{} for each of {conversions} sales{shared}", money(amount))
                }
            };
            let why = if *crossed { "rated at the tier it reached" } else { "counted anew at the tier it has reached" };
            format!(
                "a true-up: {} is {why}, {pay}, which is {}; {} were earned before",
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
