//! Rating: what one partner earns from one sale, and why.
//!
//! A pure function of sale, rules, partner and tier position, so that any stored commission can be computed again.

use serde::{Deserialize, Serialize};

use crate::conversion::{Item, Sale};
use crate::money::{Minor, MoneyError, Percent};
use crate::program::Partner;
use crate::rules::{BaseKind, CustomerKind, Match, Pay, Reward, Rule, Tier};

/// What one partner earns from one sale under one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Earning<'a> {
    pub rule: &'a Rule,
    pub basis: Basis,
}

/// How an earning was computed: everything needed to compute it again, and to say it in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Basis {
    pub rule: String,
    /// Why this rule rated the items and no other.
    pub won_by: Specificity,
    pub base_kind: BaseKind,
    /// What the rate applied to.
    pub base: Minor,
    /// Positions of the sale's items that the rule rated; empty where the sale has no items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<usize>,
    pub reward: Applied,
    /// The whole earning, of which lines are slices.
    pub earned: Minor,
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
    pub const fn words(self) -> &'static str {
        match self {
            Self::ProgramDefault => "it is the program's default",
            Self::Campaign => "it names the campaign",
            Self::Category => "it names the category",
            Self::Product => "it names the product",
            Self::Group => "it names the partner's group",
            Self::Partner => "it names the partner",
        }
    }
}

/// The reward as it applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Applied {
    Flat { amount: Minor },
    FlatPerUnit { amount: Minor, units: rust_decimal::Decimal },
    Percent { rate: Percent },
    Tier { after: u64, before: u64, position: u64, pay: AppliedPay },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppliedPay {
    Rate(Percent),
    Amount(Minor),
}

/// Rates a sale for one partner. `position` tells how many conversions of a rule's key the partner had before.
/// A rule that rates nothing yields no earning; one that rates to zero yields a zero earning.
pub fn rate<'a>(
    sale: &Sale,
    rules: &'a [Rule],
    partner: &Partner,
    position: impl Fn(&str) -> u64,
) -> Result<Vec<Earning<'a>>, MoneyError> {
    let order = Order { sale, net: sale.net()?, partner };
    let mut rated: Vec<(&Rule, Specificity, Vec<usize>)> = Vec::new();
    let mut take = |item: Option<&Item>, at: Option<usize>| {
        if let Some((rule, won_by)) = best(rules, &order, item) {
            match rated.iter_mut().find(|(other, ..)| other.key == rule.key) {
                Some((.., items)) => items.extend(at),
                None => rated.push((rule, won_by, at.into_iter().collect())),
            }
        }
    };
    if sale.items.is_empty() {
        take(None, None);
    }
    for (at, item) in sale.items.iter().enumerate().filter(|(_, item)| !item.gift_card) {
        take(Some(item), Some(at));
    }
    rated.into_iter().map(|(rule, won_by, items)| earning(&order, rule, won_by, items, position(&rule.key))).collect()
}

struct Order<'a> {
    sale: &'a Sale,
    net: Minor,
    partner: &'a Partner,
}

fn best<'a>(rules: &'a [Rule], order: &Order, item: Option<&Item>) -> Option<(&'a Rule, Specificity)> {
    rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| rule.matches.agrees(order, item))
        // Later in the list is newer.
        .max_by_key(|(n, rule)| (rule.matches.specificity(), rule.priority, *n))
        .map(|(_, rule)| (rule, rule.matches.specificity()))
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

    fn agrees(&self, order: &Order, item: Option<&Item>) -> bool {
        let sale = order.sale;
        let holds = |set: &std::collections::BTreeSet<String>, value: Option<&str>| {
            set.is_empty() || value.is_some_and(|value| set.contains(value))
        };
        let item_text = |field: fn(&Item) -> &Option<String>| item.and_then(|item| field(item).as_deref());
        let product = self.products.is_empty()
            || holds(&self.products, item_text(|item| &item.sku))
            || holds(&self.products, item_text(|item| &item.product));
        let actions = if self.actions.is_empty() {
            // An empty match matches every sale, not every sign-up.
            sale.action == crate::conversion::Action::Sale
        } else {
            self.actions.contains(&sale.action)
        };
        actions
            && product
            && holds(&self.categories, item_text(|item| &item.category))
            && holds(&self.campaigns, sale.campaign.as_deref())
            && holds(&self.partners, Some(order.partner.id.as_str()))
            && holds(&self.groups, order.partner.group.as_deref())
            && holds(&self.channels, sale.channel.as_deref())
            && holds(&self.countries, sale.country.as_deref().map(str::to_ascii_uppercase).as_deref())
            && self.customer.is_none_or(|kind| sale.customer.new == Some(kind == CustomerKind::New))
            && self.min_order.is_none_or(|min| order.net >= min)
            && self.max_order.is_none_or(|max| order.net <= max)
            && (self.coupons.is_empty() || sale.coupon_codes().any(|code| self.coupons.contains(code.as_str())))
            && self.metadata.iter().all(|(key, value)| sale.metadata.get(key) == Some(value))
    }
}

fn earning<'a>(
    order: &Order,
    rule: &'a Rule,
    won_by: Specificity,
    items: Vec<usize>,
    before: u64,
) -> Result<Earning<'a>, MoneyError> {
    let base = base(order, rule.base, &items)?;
    let (reward, earned) = match &rule.reward {
        Reward::Flat(amount) => (Applied::Flat { amount: *amount }, *amount),
        Reward::FlatPerUnit(amount) => {
            let units = if items.is_empty() {
                rust_decimal::Decimal::ONE
            } else {
                items.iter().filter_map(|at| order.sale.items.get(*at)).map(|item| item.quantity).sum()
            };
            let exact = units.checked_mul(amount.units().into()).ok_or(MoneyError::Overflow)?;
            (Applied::FlatPerUnit { amount: *amount, units }, Minor::round(exact)?)
        }
        Reward::Percent(rate) => (Applied::Percent { rate: *rate }, rate.of(base)?),
        Reward::TieredByCount(tiers) => tiered(tiers, base, before)?,
    };
    if !earned.is_credible() {
        return Err(MoneyError::Overflow);
    }
    let basis = Basis { rule: rule.key.clone(), won_by, base_kind: rule.base, base, items, reward, earned };
    Ok(Earning { rule, basis })
}

fn tiered(tiers: &[Tier], base: Minor, before: u64) -> Result<(Applied, Minor), MoneyError> {
    let position = before.checked_add(1).ok_or(MoneyError::Overflow)?;
    let tier = tiers.iter().rfind(|tier| position > tier.after).ok_or(MoneyError::Overflow)?;
    let (pay, earned) = match tier.pay {
        Pay::Rate(rate) => (AppliedPay::Rate(rate), rate.of(base)?),
        Pay::Amount(amount) => (AppliedPay::Amount(amount), amount),
    };
    Ok((Applied::Tier { after: tier.after, before, position, pay }, earned))
}

/// The rated part of the order, in the rule's terms.
fn base(order: &Order, kind: BaseKind, items: &[usize]) -> Result<Minor, MoneyError> {
    let net = if items.is_empty() {
        order.net
    } else {
        Minor::total(items.iter().filter_map(|at| order.sale.items.get(*at)).map(|item| item.amount))?
    };
    match kind {
        BaseKind::Net => Ok(net),
        // Discounts are known per order only; each item bears its share by amount.
        BaseKind::Gross if order.net.is_zero() => net.plus(order.sale.discount),
        BaseKind::Gross => {
            let share = order.sale.discount.proportion(net.units().into(), order.net.units().into())?;
            net.plus(share)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::conversion::tests::{minor, sale};
    use crate::ids::{PartnerId, ProgramId};
    use crate::program::{ApprovalMode, Frequency, PartnerStatus, Program, Schedule};
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
            attribution: crate::attribution::Attribution::default(),
            anomaly_rules: crate::anomaly::AnomalyRules::default(),
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
            customer_id: None,
            minimum_payout: None,
            trusted: false,
            status: PartnerStatus::Active,
            payout_methods: vec![],
            shards: 1,
            created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            created_by: "ann".into(),
        }
    }

    fn rules(rules: serde_json::Value) -> Vec<Rule> {
        let draft: RuleSetDraft = serde_json::from_value(json!({
            "rationale": "test", "effectiveFrom": "2026-01-01T00:00:00Z", "rules": rules,
        }))
        .unwrap();
        draft.resolve("USD".parse().unwrap()).unwrap()
    }

    fn percent(rate: &str) -> serde_json::Value {
        json!({"name": rate, "reward": {"kind": "percent", "rate": rate}})
    }

    fn earned(rules: &[Rule], sale: &Sale, before: u64) -> Vec<i64> {
        rate(sale, rules, &partner(), |_| before).unwrap().iter().map(|e| e.basis.earned.units()).collect()
    }

    #[test]
    fn worked_examples_of_flat_and_percent() {
        assert_eq!(earned(&rules(json!([percent("30")])), &sale(10_000, 0, &[]), 0), [3_000]);
        let fixed = rules(json!([{"name": "fixed", "reward": {"kind": "flat", "amount": "15.00"}}]));
        assert_eq!(earned(&fixed, &sale(5_000, 0, &[]), 0), [1_500]);
        assert_eq!(earned(&fixed, &sale(50_000, 0, &[]), 0), [1_500]);
    }

    #[test]
    fn items_under_one_rule_are_summed_before_they_are_rated() {
        let order = sale(45, 0, &[("A", 15), ("B", 15), ("C", 15)]);
        assert_eq!(earned(&rules(json!([percent("10")])), &order, 0), [5]);
    }

    #[test]
    fn ten_percent_for_the_first_100_then_15() {
        let tiered = rules(json!([{"name": "t", "reward": {"kind": "tiered", "metric": "count", "window": "lifetime",
            "shape": "marginal_by_order", "tiers": [{"after": "0", "rate": "10"}, {"after": "100", "rate": "15"}]}}]));
        let order = sale(1_000, 0, &[]);
        let total: i64 = (0..150).map(|before| earned(&tiered, &order, before)[0]).sum();
        assert_eq!(total, 17_500);
        assert_eq!((earned(&tiered, &order, 99), earned(&tiered, &order, 100)), (vec![100], vec![150]));
    }

    #[test]
    fn the_more_specific_rule_rates_an_item_whatever_it_pays() {
        let mut by_product = percent("1");
        by_product["match"] = json!({"products": ["A"]});
        let mut by_group = percent("2");
        by_group["match"] = json!({"groups": ["gold"], "products": ["B"]});
        let set = rules(json!([by_group, by_product, percent("50")]));
        let order = sale(30_000, 0, &[("A", 10_000), ("B", 10_000), ("C", 10_000)]);
        let partner = partner();
        let earnings = rate(&order, &set, &partner, |_| 0).unwrap();
        let told: Vec<_> = earnings.iter().map(|e| (e.basis.earned.units(), e.basis.won_by)).collect();
        assert_eq!(
            told,
            [(100, Specificity::Product), (200, Specificity::Group), (5_000, Specificity::ProgramDefault)]
        );
    }

    #[test]
    fn priority_and_then_the_newer_rule_decide_among_equals() {
        let mut first = percent("1");
        first["priority"] = json!(5);
        assert_eq!(earned(&rules(json!([first, percent("2")])), &sale(10_000, 0, &[]), 0), [100]);
        assert_eq!(earned(&rules(json!([percent("1"), percent("2")])), &sale(10_000, 0, &[]), 0), [200]);
    }

    #[test]
    fn bought_gift_cards_earn_nothing() {
        let mut order = sale(10_000, 0, &[("CARD", 10_000)]);
        order.items[0].gift_card = true;
        assert!(earned(&rules(json!([percent("10")])), &order, 0).is_empty());
        let flat = rules(json!([{"name": "fixed", "reward": {"kind": "flat", "amount": "15.00"}}]));
        assert!(earned(&flat, &order, 0).is_empty());
    }

    #[test]
    fn an_incredible_earning_is_refused() {
        let per_unit = rules(json!([{"name": "u", "reward": {"kind": "flat_per_unit", "amount": "1000.00"}}]));
        let mut order = sale(10_000, 0, &[("A", 10_000)]);
        order.items[0].quantity = "10000001".parse().unwrap();
        assert_eq!(rate(&order, &per_unit, &partner(), |_| 0), Err(MoneyError::Overflow));
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
        order.coupons = vec!["save5".into()];
        order.channel = Some("web".into());
        order.campaign = Some("autumn".into());
        order.country = Some("de".into());
        order.customer.new = Some(true);
        order.metadata.insert("plan".into(), "pro".into());
        let me = partner().id.to_string();
        for (matches, agrees) in [
            (json!({"products": ["A"]}), true),
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
