//! Rating: which rule rates which of a sale's items for a partner, and what that earns.
//!
//! Pure functions of sale, rules, partner, customer and tally, so that any stored commission can be computed again.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::conversion::{Action, Item, Sale};
use crate::exchange::{ExchangeRate, Unrounded};
use crate::ids::PartnerId;
use crate::money::{Minor, MoneyError, Percent};
use crate::rules::{BaseKind, CustomerKind, Match, Metric, Pay, Recurrence, Reward, Rule, Shape, Tier, Tiers};
use crate::tally::WindowKey;

/// A rule that rates some of a sale's items.
#[derive(Debug, Clone, PartialEq)]
pub struct Won<'a> {
    pub rule: &'a Rule,
    /// Why this rule rates them and no other.
    pub by: Specificity,
    /// What would rate them without it; of several items, the first that anything else would.
    pub over: Option<Beaten>,
    /// Positions of the sale's items; empty where the sale has no items.
    pub items: Vec<usize>,
}

/// How an earning was computed: everything needed to say it in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Basis {
    pub rule: String,
    /// Why this rule rated the items and no other.
    pub won_by: Specificity,
    /// The rule that came next, and what decided; `None` where no other matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub won_over: Option<Beaten>,
    pub base_kind: BaseKind,
    /// What the rate applied to, in the program's currency, before it was shared among partners. Where it was converted, the rate applied
    /// to what it was before this was rounded.
    pub base: Minor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchanged>,
    /// Positions of the sale's items that the rule rated; empty where the sale has no items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<usize>,
    pub reward: Applied,
    /// The partner's share, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// What clamped it, in the order of application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<Capped>,
    /// The whole earning, of which lines are slices.
    pub earned: Minor,
    /// The tallies it counts in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<Counted>,
}

/// A base that was converted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchanged {
    /// In the currency of the sale.
    pub told: Minor,
    pub rate: ExchangeRate,
}

/// A tally by what tells it from the others of the same rule and partner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The whole program's, not the partner's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub program: bool,
    pub window: WindowKey,
}

/// `part` of `whole`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub part: u64,
    pub whole: u64,
    /// Every partner's full reward was the same, so it was divided by largest remainder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub divided: bool,
}

/// A cap that clamped an earning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capped {
    pub cap: Cap,
    pub limit: Minor,
    /// What it would have been.
    pub from: Minor,
    pub to: Minor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cap {
    PerOrder,
    PerPartnerMonth,
    PerProgramMonth,
}

impl Basis {
    /// The partner's own part of the base, in minor units and rounded once: what tallies count.
    pub fn own_base(&self) -> Result<Minor, MoneyError> {
        let base = match &self.exchange {
            Some(Exchanged { told, rate }) => rate.unrounded(*told)?,
            None => self.base.into(),
        };
        match self.share {
            Some(share) => base.share(share.part, share.whole)?.round(),
            None => base.round(),
        }
    }
}

/// How specific a rule is; the more specific one rates an item, whatever it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Specificity {
    ProgramDefault,
    Campaign,
    Category,
    Product,
    Group,
    Partner,
}

impl Specificity {
    pub fn words(self) -> String {
        format!("it {}", self.predicate())
    }

    pub const fn predicate(self) -> &'static str {
        match self {
            Self::ProgramDefault => "is the program's default",
            Self::Campaign => "names the campaign",
            Self::Category => "names the category",
            Self::Product => "names the product",
            Self::Group => "names the partner's group",
            Self::Partner => "names the partner",
        }
    }
}

/// A rule that matched as well, and did not rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beaten {
    /// Its key.
    pub rule: String,
    /// What it would have won by.
    pub won_by: Specificity,
    pub decided_by: Decided,
}

/// What decided between two rules, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    Specificity,
    /// They are as specific, and one has a higher priority.
    Priority,
    /// They have the same priority, too, and one comes later in the version.
    Newer,
}

/// The reward as it applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Applied {
    Flat {
        amount: Minor,
    },
    FlatPerUnit {
        amount: Minor,
        units: Decimal,
    },
    Percent {
        rate: Percent,
    },
    /// Positions are conversions or minor units, as the metric says.
    Tiered {
        metric: Metric,
        shape: Shape,
        window: WindowKey,
        before: i64,
        after: i64,
        parts: Vec<TierPart>,
    },
    /// A true-up: what the window would have earned at the tier it reached, less what it had.
    Retroactive {
        /// This sale, or what an edit added to it, reached the tier; otherwise something that was sold before is counted anew.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        crossed: bool,
        window: WindowKey,
        tier: TierPart,
        conversions: i64,
        target: Minor,
        had: Minor,
    },
    /// An edit added to the order, and the reward does not depend on its size.
    Nothing,
}

/// What was rated at one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierPart {
    /// The tier applies beyond this.
    pub after: i64,
    /// The part of the base, where an order was split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Decimal>,
    pub pay: Pay,
}

/// What is known of the customer beyond what the sale tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// No sale to the customer was known before. A customer nobody knows is new.
    pub new: bool,
    /// When the customer's first attributed sale occurred; `None` where this would be it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_attributed: Option<Timestamp>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { new: true, first_attributed: None }
    }
}

impl Recurrence {
    /// Whether a sale at this moment is still paid for. Months are calendar months in the zone, clamped to their ends.
    pub fn pays(self, customer: &Standing, occurred_at: Timestamp, zone: &TimeZone) -> bool {
        let Some(first) = customer.first_attributed else { return true };
        match self {
            Self::Always => true,
            Self::FirstSale => false,
            Self::Months(months) => {
                let end = first.to_zoned(zone.clone()).checked_add(Span::new().months(i64::from(months)));
                end.is_ok_and(|end| occurred_at < end.timestamp())
            }
        }
    }
}

/// A sale, seen from one partner.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    pub sale: &'a Sale,
    /// Goods of the order as it was sold, in the program's currency and unrounded: by this its size is told, whatever an edit adds.
    pub goods: Unrounded,
    pub occurred_at: Timestamp,
    pub zone: &'a TimeZone,
    pub customer: &'a Standing,
    pub partner: &'a PartnerId,
    pub group: Option<&'a str>,
    /// As the sale tells, else as the partner's link does.
    pub campaign: Option<&'a str>,
    pub channel: Option<&'a str>,
}

/// Which rules rate the sale, in the order of the first item each rates. An item that no rule matches earns nothing.
pub fn winners<'a>(case: &Case<'_>, rules: &'a [Rule]) -> Result<Vec<Won<'a>>, MoneyError> {
    let mut won: Vec<Won<'a>> = Vec::new();
    let mut take = |item: Option<&Item>, at: Option<usize>| {
        if let Some(best) = best(rules, case, item) {
            match won.iter_mut().find(|other| other.rule.key == best.rule.key) {
                Some(other) => {
                    other.items.extend(at);
                    other.over = other.over.take().or(best.over);
                }
                None => won.push(Won { items: at.into_iter().collect(), ..best }),
            }
        }
    };
    if case.sale.items.is_empty() {
        take(None, None);
    }
    for (at, item) in case.sale.items.iter().enumerate().filter(|(_, item)| !item.gift_card) {
        take(Some(item), Some(at));
    }
    Ok(won)
}

fn best<'a>(rules: &'a [Rule], case: &Case<'_>, item: Option<&Item>) -> Option<Won<'a>> {
    // Later in the list is newer.
    let rank = |(n, rule): &(usize, &Rule)| (rule.matches.specificity(), rule.priority, *n);
    let mut matching: Vec<_> = rules.iter().enumerate().collect();
    matching.retain(|(_, rule)| {
        rule.matches.agrees(case, item) && rule.recurrence.pays(case.customer, case.occurred_at, case.zone)
    });
    matching.sort_by_key(|one| std::cmp::Reverse(rank(one)));
    let (_, rule) = matching.first()?;
    let by = rule.matches.specificity();
    let over = matching.get(1).map(|(_, next)| {
        let won_by = next.matches.specificity();
        let decided_by = if by > won_by {
            Decided::Specificity
        } else if rule.priority > next.priority {
            Decided::Priority
        } else {
            Decided::Newer
        };
        Beaten { rule: next.key.clone(), won_by, decided_by }
    });
    Some(Won { rule, by, over, items: Vec::new() })
}

impl Match {
    fn specificity(&self) -> Specificity {
        [
            (!self.partners.is_empty(), Specificity::Partner),
            (!self.groups.is_empty(), Specificity::Group),
            (!self.products.is_empty(), Specificity::Product),
            (!self.categories.is_empty(), Specificity::Category),
            (!self.campaigns.is_empty(), Specificity::Campaign),
        ]
        .into_iter()
        .find_map(|(named, specificity)| named.then_some(specificity))
        .unwrap_or(Specificity::ProgramDefault)
    }

    fn agrees(&self, case: &Case<'_>, item: Option<&Item>) -> bool {
        let sale = case.sale;
        let holds = |set: &std::collections::BTreeSet<String>, value: Option<&str>| {
            set.is_empty() || value.is_some_and(|value| set.contains(value))
        };
        let item_text = |field: fn(&Item) -> &Option<String>| item.and_then(|item| field(item).as_deref());
        let product = self.products.is_empty()
            || holds(&self.products, item_text(|item| &item.sku))
            || holds(&self.products, item_text(|item| &item.product));
        let actions = if self.actions.is_empty() {
            // An empty match matches every sale, not every sign-up.
            sale.action == Action::Sale
        } else {
            self.actions.contains(&sale.action)
        };
        let is_new = sale.customer.new.unwrap_or(case.customer.new);
        actions
            && product
            && holds(&self.categories, item_text(|item| &item.category))
            && holds(&self.campaigns, case.campaign)
            && holds(&self.partners, Some(case.partner.as_str()))
            && holds(&self.groups, case.group)
            && holds(&self.channels, case.channel)
            && holds(&self.countries, sale.country.as_deref().map(str::to_ascii_uppercase).as_deref())
            && self.customer.is_none_or(|kind| is_new == (kind == CustomerKind::New))
            && self.min_order.is_none_or(|min| case.goods.reaches(min))
            && self.max_order.is_none_or(|max| !case.goods.exceeds(max))
            && (self.coupons.is_empty() || sale.coupon_codes().any(|code| self.coupons.contains(code.as_str())))
            && self.metadata.iter().all(|(key, value)| sale.metadata.get(key) == Some(value))
    }
}

/// The rated part of the sale, in the rule's terms.
pub fn base(sale: &Sale, kind: BaseKind, items: &[usize]) -> Result<Minor, MoneyError> {
    let whole = sale.net()?;
    let net = if items.is_empty() {
        whole
    } else {
        Minor::total(items.iter().filter_map(|at| sale.items.get(*at)).map(|item| item.amount))?
    };
    match kind {
        BaseKind::Net => Ok(net),
        // Discounts are known per order only; each item bears its share by amount.
        BaseKind::Gross if whole.is_zero() => net.plus(sale.discount),
        BaseKind::Gross => net.plus(sale.discount.proportion(net.units().into(), whole.units().into())?),
    }
}

/// A base without what of it was paid with store credit: it bears as much of that as of any payment, in proportion to the order's total.
pub fn without_store_credit(base: Minor, sale: &Sale) -> Result<Minor, MoneyError> {
    if sale.store_credit.is_zero() || sale.total.is_zero() {
        return Ok(base);
    }
    base.minus(base.proportion(sale.store_credit.units().into(), sale.total.units().into())?)
}

/// A reward before it is rounded, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Exact {
    pub reward: Applied,
    pub amount: Decimal,
}

/// What is rated: a base, or a number of units, of which a partner has `part` of `whole`.
#[derive(Debug, Clone, Copy)]
pub struct Rateable {
    /// In the program's currency.
    pub base: Unrounded,
    pub units: Decimal,
    pub part: u64,
    pub whole: u64,
    /// Added to an order by an edit: it takes no position of its own, and what does not depend on size gives it nothing.
    pub extra: bool,
}

impl Rateable {
    /// The partner's share of a number. Divided last, so that what can be exact is.
    fn of(&self, number: Decimal) -> Result<Decimal, MoneyError> {
        let product = number.checked_mul(self.part.into()).ok_or(MoneyError::Overflow)?;
        product.checked_div(self.whole.into()).ok_or(MoneyError::Overflow)
    }

    fn pay(&self, pay: Pay) -> Result<Decimal, MoneyError> {
        match pay {
            Pay::Rate(rate) => self.base.percent(rate)?.share(self.part, self.whole)?.value(),
            Pay::Amount(_) if self.extra => Ok(Decimal::ZERO),
            Pay::Amount(amount) => self.of(amount.units().into()),
        }
    }
}

fn percent(rate: Percent, base: Decimal) -> Result<Decimal, MoneyError> {
    let product = base.checked_mul(rate.value()).ok_or(MoneyError::Overflow)?;
    product.checked_div(Decimal::ONE_HUNDRED).ok_or(MoneyError::Overflow)
}

/// What a rule pays for this. `position` is how far the metric has come before it, in the window named.
pub fn reward(rule: &Rule, of: &Rateable, position: i64, window: &WindowKey) -> Result<Exact, MoneyError> {
    match &rule.reward {
        Reward::Flat(_) if of.extra => Ok(Exact { reward: Applied::Nothing, amount: Decimal::ZERO }),
        Reward::Flat(amount) => {
            Ok(Exact { reward: Applied::Flat { amount: *amount }, amount: of.of(amount.units().into())? })
        }
        Reward::FlatPerUnit(amount) => {
            let exact = of.units.checked_mul(amount.units().into()).ok_or(MoneyError::Overflow)?;
            Ok(Exact { reward: Applied::FlatPerUnit { amount: *amount, units: of.units }, amount: of.of(exact)? })
        }
        Reward::Percent(rate) => {
            Ok(Exact { reward: Applied::Percent { rate: *rate }, amount: of.pay(Pay::Rate(*rate))? })
        }
        Reward::Tiered(tiers) => tiered(tiers, of, position, window),
    }
}

/// What it would pay for the whole conversion. How far a retroactive window comes is a matter of the partner's own part of it.
pub fn in_full(rule: &Rule, of: &Rateable, position: i64, window: &WindowKey) -> Result<Decimal, MoneyError> {
    let whole = Rateable { part: 1, whole: 1, ..*of };
    match reward(rule, of, position, window)?.reward {
        Applied::Tiered { shape: Shape::Retroactive, parts, .. } => {
            parts.iter().try_fold(Decimal::ZERO, |sum, part| Ok(sum + whole.pay(part.pay)?))
        }
        _ => Ok(reward(rule, &whole, position, window)?.amount),
    }
}

fn tiered(tiers: &Tiers, of: &Rateable, before: i64, window: &WindowKey) -> Result<Exact, MoneyError> {
    // As tallies count it.
    let own_base = of.base.round()?.proportion(of.part.into(), of.whole.into())?;
    let step = match tiers.metric {
        Metric::Count => i64::from(!of.extra),
        Metric::Revenue => own_base.units(),
        Metric::Commission => 0,
    };
    let reached = before.checked_add(step).ok_or(MoneyError::Overflow)?;
    let (parts, amount) = match (tiers.shape, tiers.metric) {
        (Shape::MarginalByAmount, _) => by_amount(tiers, of, before)?,
        // The tier where the order starts: at its own number, or at its first minor unit.
        (Shape::MarginalByOrder, _) => whole(tiers, of, before.saturating_add(1))?,
        (Shape::Retroactive, Metric::Count | Metric::Revenue) => whole(tiers, of, reached)?,
        (Shape::Retroactive, Metric::Commission) => {
            // What it earns decides how far it comes: at the tier where it starts.
            let (_, amount) = whole(tiers, of, before.saturating_add(1))?;
            whole(tiers, of, before.saturating_add(Minor::round(amount)?.units()))?
        }
    };
    let after = match tiers.metric {
        Metric::Commission => before.saturating_add(Minor::round(amount)?.units()),
        Metric::Count | Metric::Revenue => reached,
    };
    let reward =
        Applied::Tiered { metric: tiers.metric, shape: tiers.shape, window: window.clone(), before, after, parts };
    Ok(Exact { reward, amount })
}

fn whole(tiers: &Tiers, of: &Rateable, position: i64) -> Result<(Vec<TierPart>, Decimal), MoneyError> {
    let (_, tier) = tiers.at(position);
    Ok((vec![TierPart { after: tier.after, base: None, pay: tier.pay }], of.pay(tier.pay)?))
}

/// Splits the base at the tiers it crosses.
fn by_amount(tiers: &Tiers, of: &Rateable, before: i64) -> Result<(Vec<TierPart>, Decimal), MoneyError> {
    let mut left = of.base.share(of.part, of.whole)?.value()?;
    let mut position = Decimal::from(before);
    let mut parts = Vec::new();
    let mut amount = Decimal::ZERO;
    let (first, _) = tiers.at(before.saturating_add(1));
    for (n, tier) in tiers.tiers.iter().enumerate().skip(first) {
        let Tier { after, pay: Pay::Rate(rate) } = *tier else { continue };
        let room = match tiers.tiers.get(n + 1) {
            None => left,
            Some(next) => {
                let distance = (Decimal::from(next.after) - position).max(Decimal::ZERO);
                match tiers.metric {
                    // How much must be sold for the commission to come that far; at no rate it never does.
                    Metric::Commission if rate.value().is_zero() => left,
                    Metric::Commission => distance
                        .checked_mul(Decimal::ONE_HUNDRED)
                        .and_then(|hundredfold| hundredfold.checked_div(rate.value()))
                        .ok_or(MoneyError::Overflow)?,
                    Metric::Count | Metric::Revenue => distance,
                }
            }
        };
        let portion = left.min(room);
        let earned = percent(rate, portion)?;
        parts.push(TierPart { after, base: Some(portion.normalize()), pay: tier.pay });
        amount = amount.checked_add(earned).ok_or(MoneyError::Overflow)?;
        position += if tiers.metric == Metric::Commission { earned } else { portion };
        left -= portion;
        if left.is_zero() {
            break;
        }
    }
    Ok((parts, amount))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::conversion::tests::{minor, sale};
    use crate::ids::{PartnerId, ProgramId};
    use crate::program::{ApprovalMode, Frequency, Partner, PartnerStatus, Program, Schedule};
    use crate::rules::RuleSetDraft;
    use serde_json::json;

    pub(crate) fn program(change: impl FnOnce(&mut Program)) -> Program {
        let mut program = Program {
            id: ProgramId::from_uuid(1),
            name: "Program".into(),
            currency: "USD".parse().unwrap(),
            time_zone: "UTC".to_owned().try_into().unwrap(),
            hold_days: 30,
            min_hold_days: 0,
            approval: ApprovalMode::Manual,
            minimum_payout: minor(5_000),
            large_payout_limit: minor(100_000),
            rule_sign_off: true,
            cooling_off_days: 3,
            schedule: Schedule {
                frequency: Frequency::Monthly,
                run_day: 1,
                anchor: "2026-01-05".parse().unwrap(),
                cut_off_days: 0,
                pay_days: 0,
            },
            minimum_sales: 0,
            dust_sweep_days: None,
            debt_write_off_days: None,
            attribution: crate::attribution::Attribution::default(),
            anomaly_rules: crate::anomaly::AnomalyRules::default(),
            tax: None,
            landing_page: None,
            allowed_hosts: vec![],
            created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            created_by: "ann".into(),
        };
        change(&mut program);
        program
    }

    pub(crate) fn partner() -> Partner {
        Partner {
            id: PartnerId::from_uuid(2),
            program: ProgramId::from_uuid(1),
            name: "Partner".into(),
            email: "pay@partner.example".into(),
            code: "PARTNER10".parse().unwrap(),
            kind: "affiliate".into(),
            group: Some("gold".into()),
            former_names: vec![],
            customer_id: None,
            country: None,
            minimum_payout: None,
            payout_currency: None,
            trusted: false,
            status: PartnerStatus::Active,
            suspensions: Vec::new(),
            payout_methods: vec![],
            had_details: false,
            shards: 1,
            version: 1,
            created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            created_by: "ann".into(),
        }
    }

    pub(crate) fn rules(rules: serde_json::Value) -> Vec<Rule> {
        let draft: RuleSetDraft = serde_json::from_value(json!({
            "rationale": "test", "effectiveFrom": "2026-01-01T00:00:00Z", "rules": rules,
        }))
        .unwrap();
        draft.resolve("USD".parse().unwrap()).unwrap()
    }

    fn percent(rate: &str) -> serde_json::Value {
        json!({"name": rate, "reward": {"kind": "percent", "rate": rate}})
    }

    /// What each rule earns, in minor units, and why it won.
    fn rated(rules: &[Rule], sale: &Sale, before: i64) -> Result<Vec<(i64, Specificity)>, MoneyError> {
        let partner = partner();
        let case = Case {
            sale,
            goods: sale.net()?.into(),
            occurred_at: "2026-06-01T00:00:00Z".parse().unwrap(),
            zone: &TimeZone::UTC,
            customer: &Standing::default(),
            partner: &partner.id,
            group: partner.group.as_deref(),
            campaign: sale.campaign.as_deref(),
            channel: sale.channel.as_deref(),
        };
        let earn = |won: &Won<'_>| {
            let units = won.items.iter().map(|at| sale.items[*at].quantity).sum();
            let base = base(sale, won.rule.base, &won.items)?.into();
            let of = Rateable { base, units, part: 1, whole: 1, extra: false };
            let window = WindowKey::month("2026-06-01".parse().unwrap());
            Ok((Minor::round(reward(won.rule, &of, before, &window)?.amount)?.units(), won.by))
        };
        winners(&case, rules)?.iter().map(earn).collect()
    }

    /// What one rule pays one partner for a base.
    fn exact(rule: &Rule, base: i64, before: i64, extra: bool) -> Exact {
        let of = Rateable { base: minor(base).into(), units: Decimal::ONE, part: 1, whole: 1, extra };
        reward(rule, &of, before, &WindowKey::month("2026-06-01".parse().unwrap())).unwrap()
    }

    fn earned(rules: &[Rule], sale: &Sale, before: i64) -> Vec<i64> {
        rated(rules, sale, before).unwrap().into_iter().map(|(earned, _)| earned).collect()
    }

    #[test]
    fn worked_examples_of_flat_and_percent() {
        assert_eq!(earned(&rules(json!([percent("30")])), &sale(10_000, 0, &[]), 0), [3_000]);
        let fixed = rules(json!([{"name": "fixed", "reward": {"kind": "flat", "amount": "15.00"}}]));
        assert_eq!(earned(&fixed, &sale(5_000, 0, &[]), 0), [1_500]);
        assert_eq!(earned(&fixed, &sale(50_000, 0, &[]), 0), [1_500]);
    }

    #[test]
    fn the_gross_base_has_the_discount_by_amount_and_all_of_it_where_nothing_is_left() {
        let mut order = sale(10_000, 0, &[("A", 6_000), ("B", 4_000)]);
        order.discount = minor(1_000);
        let of = |sale: &Sale, items: &[usize]| base(sale, BaseKind::Gross, items).unwrap().units();
        assert_eq!((of(&order, &[0]), of(&order, &[1]), of(&order, &[0, 1])), (6_600, 4_400, 11_000));
        assert_eq!(base(&order, BaseKind::Net, &[0]).unwrap(), minor(6_000));
        let mut free = sale(0, 0, &[("A", 0)]);
        free.discount = minor(1_000);
        assert_eq!(of(&free, &[0]), 1_000);
    }

    #[test]
    fn of_store_credit_goods_bear_as_much_as_of_any_payment() {
        let mut order = sale(11_800, 1_800, &[("A", 6_000), ("B", 4_000)]);
        let of = |sale: &Sale, items: &[usize]| {
            without_store_credit(base(sale, BaseKind::Net, items).unwrap(), sale).unwrap().units()
        };
        assert_eq!(of(&order, &[]), 10_000);
        order.store_credit = minor(4_000);
        assert_eq!((of(&order, &[]), of(&order, &[0]), of(&order, &[1])), (6_610, 3_966, 2_644), "less 33.90");
        order.store_credit = minor(11_800);
        assert_eq!(of(&order, &[]), 0);
        // A gift card paid most of it.
        order.total = minor(1_000);
        order.store_credit = minor(500);
        assert_eq!(of(&order, &[]), 5_000);
    }

    #[test]
    fn items_under_one_rule_are_summed_before_they_are_rated() {
        let order = sale(45, 0, &[("A", 15), ("B", 15), ("C", 15)]);
        assert_eq!(earned(&rules(json!([percent("10")])), &order, 0), [5]);
    }

    #[test]
    fn ten_percent_for_the_first_100_then_15() {
        let tiers = rules(json!([{"name": "t", "reward": {"kind": "tiered", "metric": "count", "window": "lifetime",
            "shape": "marginal_by_order", "tiers": [{"after": "0", "rate": "10"}, {"after": "100", "rate": "15"}]}}]));
        let order = sale(1_000, 0, &[]);
        let total: i64 = (0..150).map(|before| earned(&tiers, &order, before)[0]).sum();
        assert_eq!(total, 17_500);
        assert_eq!((earned(&tiers, &order, 99), earned(&tiers, &order, 100)), (vec![100], vec![150]));
    }

    #[test]
    fn what_an_edit_adds_is_rated_in_the_tier_of_its_order() {
        let tiers =
            tiered("count", "marginal_by_order", json!([{"after": "0", "rate": "10"}, {"after": "1", "rate": "20"}]));
        let earned = |before: i64, extra: bool| exact(&tiers[0], 1_000, before, extra).amount;
        for before in [0, 1, 2] {
            assert_eq!(earned(before, true), earned(before, false), "after {before}");
        }
    }

    #[test]
    fn what_an_edit_adds_takes_no_position_and_has_no_part_in_amounts_per_sale() {
        let rates = json!([{"after": "0", "rate": "10"}, {"after": "2", "rate": "20"}]);
        let retroactive = &tiered("count", "retroactive", rates)[0];
        let earned = |before: i64, extra: bool| exact(retroactive, 1_000, before, extra).amount;
        assert_eq!((earned(2, false), earned(2, true), earned(3, true)), (200.into(), 100.into(), 200.into()));
        let flat = &rules(json!([{"name": "f", "reward": {"kind": "flat", "amount": "5"}}]))[0];
        let per_unit = &rules(json!([{"name": "u", "reward": {"kind": "flat_per_unit", "amount": "5"}}]))[0];
        let by_tier = &tiered("count", "marginal_by_order", json!([{"after": "0", "amount": "5"}]))[0];
        for (rule, extra) in [(flat, 0), (per_unit, 500), (by_tier, 0)] {
            let of = |extra: bool| exact(rule, 1_000, 0, extra).amount;
            assert_eq!((of(false), of(true)), (500.into(), extra.into()), "{}", rule.name);
        }
        assert_eq!(exact(flat, 1_000, 0, true).reward, Applied::Nothing);
    }

    #[test]
    fn the_more_specific_rule_rates_an_item_whatever_it_pays() {
        let mut by_product = percent("1");
        by_product["match"] = json!({"products": ["A"]});
        let mut by_group = percent("2");
        by_group["match"] = json!({"groups": ["gold"], "products": ["B"]});
        let set = rules(json!([by_group, by_product, percent("50")]));
        let order = sale(30_000, 0, &[("A", 10_000), ("B", 10_000), ("C", 10_000)]);
        let told = rated(&set, &order, 0).unwrap();
        assert_eq!(
            told,
            [(100, Specificity::Product), (200, Specificity::Group), (5_000, Specificity::ProgramDefault)]
        );
    }

    #[test]
    fn a_rule_is_as_specific_as_the_most_specific_that_it_names() {
        let order = [
            ("campaigns", Specificity::Campaign),
            ("categories", Specificity::Category),
            ("products", Specificity::Product),
            ("groups", Specificity::Group),
            ("partners", Specificity::Partner),
        ];
        let mut all = percent("1");
        for (field, specificity) in order {
            let mut alone = percent("1");
            alone["match"][field] = json!(["x"]);
            all["match"][field] = json!(["x"]);
            for rule in [&alone, &all] {
                assert_eq!(rules(json!([rule]))[0].matches.specificity(), specificity, "{rule}");
            }
        }
        assert_eq!(rules(json!([percent("1")]))[0].matches.specificity(), Specificity::ProgramDefault);
    }

    #[test]
    fn priority_and_then_the_newer_rule_decide_among_equals() {
        let mut first = percent("1");
        first["priority"] = json!(5);
        assert_eq!(earned(&rules(json!([first, percent("2")])), &sale(10_000, 0, &[]), 0), [100]);
        assert_eq!(earned(&rules(json!([percent("1"), percent("2")])), &sale(10_000, 0, &[]), 0), [200]);
    }

    #[test]
    fn it_is_told_which_rule_came_next_and_what_decided() {
        let mut product = percent("1");
        product["match"] = json!({"products": ["A"]});
        let mut category = percent("2");
        category["match"] = json!({"categories": ["plans"]});
        let mut first = percent("3");
        first["priority"] = json!(5);
        let of = |set: serde_json::Value, items: &[(&str, i64)]| {
            let mut order = sale(10_000, 0, items);
            for item in &mut order.items {
                item.category = Some("plans".into());
            }
            let (partner, rules, customer) = (partner(), rules(set), Standing::default());
            let case = Case {
                sale: &order,
                goods: order.net().unwrap().into(),
                occurred_at: "2026-06-01T00:00:00Z".parse().unwrap(),
                zone: &TimeZone::UTC,
                customer: &customer,
                partner: &partner.id,
                group: None,
                campaign: None,
                channel: None,
            };
            let won = winners(&case, &rules).unwrap();
            let told = |won: Won<'_>| {
                let over = won.over.map(|over| (over.rule, over.won_by, over.decided_by));
                (won.rule.key.clone(), over)
            };
            won.into_iter().map(told).collect::<Vec<_>>()
        };
        let beaten = |rule: &str, won_by, decided_by| Some((rule.to_owned(), won_by, decided_by));
        let default = Specificity::ProgramDefault;
        for (set, items, expect) in [
            (json!([percent("4")]), vec![], vec![("4", None)]),
            (json!([percent("4"), percent("5")]), vec![], vec![("5", beaten("4", default, Decided::Newer))]),
            (json!([first, percent("4"), percent("5")]), vec![], vec![("3", beaten("5", default, Decided::Priority))]),
            (
                json!([product, category, percent("4")]),
                vec![("A", 5_000), ("B", 5_000)],
                vec![
                    ("1", beaten("2", Specificity::Category, Decided::Specificity)),
                    ("2", beaten("4", default, Decided::Specificity)),
                ],
            ),
        ] {
            let expect: Vec<_> = expect.into_iter().map(|(rule, over)| (rule.to_owned(), over)).collect();
            assert_eq!(of(set, &items), expect);
        }
    }

    #[test]
    fn bought_gift_cards_earn_nothing() {
        let mut order = sale(10_000, 0, &[("CARD", 10_000)]);
        order.items[0].gift_card = true;
        assert!(earned(&rules(json!([percent("10")])), &order, 0).is_empty());
        let flat = rules(json!([{"name": "fixed", "reward": {"kind": "flat", "amount": "15.00"}}]));
        assert!(earned(&flat, &order, 0).is_empty());
    }

    fn tiered(metric: &str, shape: &str, tiers: serde_json::Value) -> Vec<Rule> {
        rules(json!([{"name": "t", "reward": {"kind": "tiered", "metric": metric, "window": "lifetime", "shape": shape,
            "tiers": tiers}}]))
    }

    #[test]
    fn an_order_that_crosses_is_split_where_it_crosses() {
        let tiers = json!([{"after": "0", "rate": "10"}, {"after": "5000.00", "rate": "12"}]);
        let by_amount = tiered("revenue", "marginal_by_amount", tiers.clone());
        assert_eq!(earned(&by_amount, &sale(600_000, 0, &[]), 0), [62_000]);
        assert_eq!(earned(&by_amount, &sale(500_000, 0, &[]), 0), [50_000]);
        assert_eq!(earned(&by_amount, &sale(100_000, 0, &[]), 450_000), [11_000]);
        assert_eq!(earned(&by_amount, &sale(100_000, 0, &[]), 500_000), [12_000], "from the first cent above");
        let by_order = tiered("revenue", "marginal_by_order", tiers);
        assert_eq!(earned(&by_order, &sale(600_000, 0, &[]), 0), [60_000], "where the order starts");
        assert_eq!(earned(&by_order, &sale(100, 0, &[]), 499_999), [10]);
        assert_eq!(earned(&by_order, &sale(100, 0, &[]), 500_000), [12]);
    }

    #[test]
    fn an_order_may_cross_several_tiers_and_says_what_it_earned_at_each() {
        let tiers =
            json!([{"after": "0", "rate": "10"}, {"after": "50.00", "rate": "20"}, {"after": "150.00", "rate": "30"}]);
        for (metric, base, before, amount, parts) in [
            ("revenue", 20_000, 0, 4_000, vec![(0, 5_000), (5_000, 10_000), (15_000, 5_000)]),
            ("revenue", 20_000, 14_000, 5_900, vec![(5_000, 1_000), (15_000, 19_000)]),
            ("revenue", 5_000, 0, 500, vec![(0, 5_000)]),
            ("revenue", 0, 5_000, 0, vec![(5_000, 0)]),
            ("commission", 120_000, 0, 21_000, vec![(0, 50_000), (5_000, 50_000), (15_000, 20_000)]),
            ("commission", 120_000, 13_000, 35_000, vec![(5_000, 10_000), (15_000, 110_000)]),
        ] {
            let told = exact(&tiered(metric, "marginal_by_amount", tiers.clone())[0], base, before, false);
            let Applied::Tiered { parts: at, before: from, .. } = told.reward else { panic!() };
            let at: Vec<_> = at.iter().map(|part| (part.after, part.base)).collect();
            let expect: Vec<_> = parts.into_iter().map(|(after, base)| (after, Some(Decimal::from(base)))).collect();
            assert_eq!((told.amount, at, from), (amount.into(), expect, before), "{base} by {metric} from {before}");
        }
    }

    #[test]
    fn a_split_by_commission_sells_until_the_commission_is_reached() {
        // 10 % until 50.00 are earned, which 500.00 do; then 20 %.
        let by_amount = tiered(
            "commission",
            "marginal_by_amount",
            json!([{"after": "0", "rate": "10"}, {"after": "50.00", "rate": "20"}]),
        );
        assert_eq!(earned(&by_amount, &sale(60_000, 0, &[]), 0), [7_000]);
        assert_eq!(earned(&by_amount, &sale(60_000, 0, &[]), 5_000), [12_000]);
        let never = tiered(
            "commission",
            "marginal_by_amount",
            json!([{"after": "0", "rate": "0"}, {"after": "50.00", "rate": "20"}]),
        );
        assert_eq!(earned(&never, &sale(60_000, 0, &[]), 0), [0]);
    }

    #[test]
    fn a_retroactive_tier_is_that_which_the_conversion_reaches() {
        let tiers =
            tiered("count", "retroactive", json!([{"after": "0", "amount": "250"}, {"after": "2", "amount": "275"}]));
        assert_eq!(earned(&tiers, &sale(100, 0, &[]), 1), [25_000]);
        assert_eq!(earned(&tiers, &sale(100, 0, &[]), 2), [27_500]);
        let tiers =
            tiered("revenue", "retroactive", json!([{"after": "0", "rate": "10"}, {"after": "10.00", "rate": "20"}]));
        assert_eq!(earned(&tiers, &sale(1_000, 0, &[]), 0), [100], "exactly there is not beyond");
        assert_eq!(earned(&tiers, &sale(1_001, 0, &[]), 0), [200]);
    }

    #[test]
    fn a_rule_ends_with_its_recurrence_on_the_calendar() {
        let customer = |first: &str| Standing { new: false, first_attributed: Some(first.parse().unwrap()) };
        let pays = |recurrence: Recurrence, first: &str, at: &str, zone: &str| {
            let zone = TimeZone::get(zone).unwrap();
            recurrence.pays(&customer(first), at.parse().unwrap(), &zone)
        };
        let (one, first) = (Recurrence::Months(1), "2026-01-31T12:00:00Z");
        assert!(pays(one, first, "2026-02-28T11:59:59Z", "UTC"), "clamped to the month's end");
        assert!(!pays(one, first, "2026-02-28T12:00:00Z", "UTC"), "the end is exclusive");
        // The clocks go forward on March 29: a month later is an hour earlier in UTC.
        let berlin = |at| pays(one, "2026-03-01T12:00:00Z", at, "Europe/Berlin");
        assert!(berlin("2026-04-01T10:59:59Z") && !berlin("2026-04-01T11:00:00Z"));
        assert!(!pays(Recurrence::FirstSale, first, "2026-02-01T00:00:00Z", "UTC"));
        assert!(pays(Recurrence::Always, first, "2036-02-01T00:00:00Z", "UTC"));
        assert!(Recurrence::FirstSale.pays(&Standing::default(), first.parse().unwrap(), &TimeZone::UTC));
    }

    #[test]
    fn a_zero_earning_is_an_earning() {
        assert_eq!(earned(&rules(json!([percent("20")])), &sale(2, 0, &[]), 0), [0]);
        assert_eq!(earned(&rules(json!([percent("20")])), &sale(0, 0, &[]), 0), [0]);
    }

    #[test]
    fn gross_adds_the_discount_back() {
        let mut gross = percent("10");
        gross["base"] = json!("gross");
        let mut order = sale(9_000, 0, &[]);
        order.discount = minor(1_000);
        assert_eq!(earned(&rules(json!([gross])), &order, 0), [1_000]);
    }

    #[test]
    fn every_filled_field_of_a_match_must_agree() {
        let mut order = sale(10_000, 0, &[("A", 10_000)]);
        order.items[0].category = Some("plans".into());
        order.items[0].product = Some("Starter".into());
        order.coupons = vec!["save5".into()];
        order.channel = Some("web".into());
        order.campaign = Some("autumn".into());
        order.country = Some("de".into());
        order.customer.new = Some(true);
        order.metadata.insert("plan".into(), "pro".into());
        let me = partner().id.to_string();
        for (matches, agrees) in [
            (json!({"products": ["A"]}), true),
            (json!({"products": ["Starter"]}), true),
            (json!({"products": ["B"]}), false),
            (json!({"categories": ["plans"]}), true),
            (json!({"categories": ["other"]}), false),
            (json!({"campaigns": ["autumn"]}), true),
            (json!({"campaigns": ["spring"]}), false),
            (json!({"partners": [me]}), true),
            (json!({"partners": ["par_other"]}), false),
            (json!({"groups": ["silver"]}), false),
            (json!({"channels": ["web"]}), true),
            (json!({"channels": ["app"]}), false),
            (json!({"countries": ["DE"]}), true),
            (json!({"countries": ["FR"]}), false),
            (json!({"customer": "new"}), true),
            (json!({"customer": "returning"}), false),
            (json!({"minOrder": "100.00", "maxOrder": "100.00"}), true),
            (json!({"minOrder": "100.01"}), false),
            (json!({"maxOrder": "99.99"}), false),
            (json!({"coupons": ["SAVE5"]}), true),
            (json!({"coupons": ["SAVE6"]}), false),
            (json!({"metadata": {"plan": "pro"}}), true),
            (json!({"metadata": {"plan": "free"}}), false),
            (json!({"actions": ["sale", "lead"]}), true),
            (json!({"actions": ["lead"]}), false),
        ] {
            let mut rule = percent("10");
            rule["match"] = matches.clone();
            assert_eq!(!earned(&rules(json!([rule])), &order, 0).is_empty(), agrees, "{matches}");
        }
    }
}
