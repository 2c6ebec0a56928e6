//! Merchants, customers and storefronts: what they sell, and how they tell of it.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::told::{Item, Named, Partner, Program, Refund, Reward, Rule, Sale};

pub const PRODUCTS: [&str; 3] = ["starter", "pro", "team"];

/// Minor units as a decimal text.
pub fn decimal(minor: i64, exponent: u32) -> String {
    let (sign, minor) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
    let one = 10_u64.pow(exponent);
    if exponent == 0 {
        return format!("{sign}{minor}");
    }
    format!("{sign}{}.{:0width$}", minor / one, minor % one, width = exponent as usize)
}

/// Basis points as percent.
pub fn percent(basis_points: u32) -> String {
    decimal(i64::from(basis_points), 2)
}

pub fn program(chance: &mut Chance) -> Program {
    let (currency, exponent) = *chance.pick(&[("USD", 2), ("USD", 2), ("JPY", 0), ("KWD", 3)]).unwrap_or(&("USD", 2));
    let major = 10_i64.pow(exponent);
    Program {
        id: String::new(),
        currency,
        exponent,
        time_zone: chance.pick(&["UTC", "America/New_York", "Asia/Tokyo", "Europe/Berlin"]).unwrap_or(&"UTC"),
        hold_days: chance.pick(&[0, 0, 1, 14, 30]).copied().unwrap_or(0),
        approves_automatically: chance.percent(60),
        minimum_payout: chance.pick(&[0, 0, 10, 50]).copied().unwrap_or(0) * major,
        large_payout_limit: chance.pick(&[100, 1_000, 100_000]).copied().unwrap_or(1_000) * major,
        frequency: chance.pick(&["monthly", "weekly", "semi_monthly", "biweekly", "on_demand"]).unwrap_or(&"monthly"),
        run_day: 1,
        cut_off_days: chance.pick(&[0, 0, 2]).copied().unwrap_or(0),
        rule_sets: Vec::new(),
    }
}

pub fn program_body(program: &Program, name: usize) -> Value {
    json!({
        "name": format!("Program {name}"), "currency": program.currency, "timeZone": program.time_zone,
        "holdDays": program.hold_days, "approval": if program.approves_automatically { "automatic" } else { "manual" },
        "minimumPayout": decimal(program.minimum_payout, program.exponent),
        "largePayoutLimit": decimal(program.large_payout_limit, program.exponent), "ruleSignOff": false,
        "schedule": {"frequency": program.frequency, "runDay": program.run_day, "cutOffDays": program.cut_off_days},
    })
}

/// A version's rules: one for everything, and some that outrank it.
pub fn rules(chance: &mut Chance, program: &Program, partners: &[&Partner]) -> Vec<Rule> {
    let mut rules = vec![rule(chance, program, "standard")];
    if chance.percent(40) {
        let mut special = rule(chance, program, "special");
        special.product = chance.pick(&PRODUCTS).map(|product| (*product).to_owned());
        rules.push(special);
    }
    if chance.percent(20)
        && let Some(partner) = chance.pick(partners)
    {
        let mut personal = rule(chance, program, "personal");
        personal.partner = Some(partner.id.clone());
        rules.push(personal);
    }
    // Discounts belong to orders: what part of one falls to an item is known only where one rule takes them all.
    let whole = rules.iter().all(|rule| rule.product.is_none());
    for rule in &mut rules {
        rule.gross = whole && chance.percent(15);
    }
    rules
}

fn rule(chance: &mut Chance, program: &Program, key: &str) -> Rule {
    let reward = match chance.below(8) {
        0 => Reward::Flat(chance.from(0, 2_000)),
        1 => Reward::FlatPerUnit(chance.from(1, 500)),
        2 | 3 => Reward::TieredByCount(vec![
            (0, u32::try_from(chance.from(0, 2_000)).unwrap_or_default()),
            (2, u32::try_from(chance.from(1, 3_000)).unwrap_or_default()),
            (5, u32::try_from(chance.from(1, 5_000)).unwrap_or_default()),
        ]),
        _ => Reward::Percent(u32::try_from(chance.from(1, 6_000)).unwrap_or_default()),
    };
    let slices = match chance.below(6) {
        0 => vec![(4_000, 0), (6_000, 60)],
        1 => vec![(2_500, 0), (2_500, 10), (2_500, 20), (2_500, 30)],
        _ => vec![],
    };
    let hold_days = chance.percent(15).then(|| u32::try_from(chance.from(0, 40)).unwrap_or_default());
    let hold_days = hold_days.filter(|days| *days != program.hold_days);
    Rule { key: key.to_owned(), product: None, partner: None, priority: 0, hold_days, gross: false, reward, slices }
}

pub fn rule_body(rule: &Rule, exponent: u32) -> Value {
    let reward = match &rule.reward {
        Reward::Flat(amount) => json!({"kind": "flat", "amount": decimal(*amount, exponent)}),
        Reward::FlatPerUnit(amount) => json!({"kind": "flat_per_unit", "amount": decimal(*amount, exponent)}),
        Reward::Percent(rate) => json!({"kind": "percent", "rate": percent(*rate)}),
        Reward::TieredByCount(tiers) => {
            let tiers: Vec<_> =
                tiers.iter().map(|(after, rate)| json!({"after": after.to_string(), "rate": percent(*rate)})).collect();
            json!({
                "kind": "tiered", "metric": "count", "window": "lifetime", "shape": "marginal_by_order", "tiers": tiers,
            })
        }
    };
    let slices: Vec<_> =
        rule.slices.iter().map(|(share, days)| json!({"share": percent(*share), "days": days})).collect();
    json!({
        "key": rule.key, "name": rule.key, "priority": rule.priority, "holdDays": rule.hold_days,
        "base": if rule.gross { "gross" } else { "net" }, "reward": reward, "slices": slices,
        "match": {
            "products": rule.product.iter().collect::<Vec<_>>(), "partners": rule.partner.iter().collect::<Vec<_>>(),
        },
    })
}

/// Somebody buys something, now or up to some days ago.
pub fn sale(
    chance: &mut Chance,
    (at, program): (usize, &Program),
    source: &str,
    order: String,
    partners: &[&Partner],
    now: Timestamp,
) -> Sale {
    let named = match (chance.below(10), chance.pick(partners)) {
        (0, _) | (_, None) => Named::Nobody,
        (1..=4, Some(partner)) => Named::Id(partner.id.clone()),
        (5 | 6, Some(partner)) => Named::Coupon(partner.code.clone()),
        (_, Some(partner)) => Named::Code(partner.code.clone()),
    };
    let price = |chance: &mut Chance| match chance.below(8) {
        0 => chance.from(0, 3),
        1 => chance.from(1, 99),
        2 => chance.from(100_000, 900_000),
        _ => chance.from(100, 30_000),
    };
    let items: Vec<Item> = if chance.percent(70) {
        let mut products = PRODUCTS.to_vec();
        products.truncate(1 + chance.below(3));
        products
            .into_iter()
            .map(|product| Item { product: product.to_owned(), quantity: chance.from(1, 4), amount: price(chance) })
            .collect()
    } else {
        vec![]
    };
    let goods = if items.is_empty() { price(chance) } else { items.iter().map(|item| item.amount).sum() };
    let tax = if chance.percent(60) { goods / 5 } else { 0 };
    let shipping = if chance.percent(30) { chance.from(1, 1_500) } else { 0 };
    let discount = if chance.percent(25) { chance.from(1, 2_000) } else { 0 };
    let back = if chance.percent(30) { chance.from(0, 20 * 86_400) } else { chance.from(0, 600) };
    Sale {
        program: at,
        source: source.to_owned(),
        order,
        occurred_at: now - SignedDuration::from_secs(back),
        named: if program.id.is_empty() { Named::Nobody } else { named },
        items,
        total: goods + tax + shipping,
        tax,
        shipping,
        discount,
        accepted: false,
    }
}

/// A sale nobody made: whoever books it believed an unsigned word.
pub fn worthless(now: Timestamp) -> Sale {
    Sale {
        program: 0,
        source: String::new(),
        order: "forged".to_owned(),
        occurred_at: now,
        named: Named::Nobody,
        items: vec![],
        total: 100,
        tax: 0,
        shipping: 0,
        discount: 0,
        accepted: false,
    }
}

/// Something of a sale goes back: some items, a part of the total, or only the shipping.
pub fn refund(chance: &mut Chance, sale: &Sale, id: String, now: Timestamp) -> Refund {
    let mut refund = Refund {
        program: sale.program,
        source: sale.source.clone(),
        order: sale.order.clone(),
        id,
        occurred_at: now.max(sale.occurred_at),
        total: 0,
        tax: None,
        shipping: None,
        items: None,
        accepted: false,
    };
    match chance.below(6) {
        0 | 1 if !sale.items.is_empty() => {
            let whole = chance.percent(40);
            let mut items = sale.items.clone();
            if !whole {
                items.truncate(1 + chance.below(items.len()));
                for item in &mut items {
                    item.amount = chance.from(0, item.amount);
                }
            }
            let goods: i64 = items.iter().map(|item| item.amount).sum();
            let tax = if sale.tax > 0 { goods / 5 } else { 0 };
            (refund.total, refund.tax, refund.shipping, refund.items) = (goods + tax, Some(tax), Some(0), Some(items));
        }
        2 => {
            (refund.total, refund.tax, refund.shipping, refund.items) =
                (sale.shipping, Some(0), Some(sale.shipping), Some(vec![]));
        }
        3 => refund.total = sale.total,
        // Now and then more than was charged.
        4 if chance.percent(20) => refund.total = sale.total + chance.from(1, 1_000),
        _ => refund.total = chance.from(0, sale.total),
    }
    refund
}

fn items_body(items: &[Item], exponent: u32) -> Value {
    let one = |item: &Item| {
        json!({
            "sku": format!("sku-{}", item.product), "product": item.product, "quantity": item.quantity,
            "amount": decimal(item.amount, exponent),
        })
    };
    items.iter().map(one).collect()
}

/// In our own event form.
pub fn sale_body(sale: &Sale, program: &Program) -> Value {
    let money = |minor| decimal(minor, program.exponent);
    let mut body = json!({
        "programId": program.id, "id": sale.order, "type": "sale", "occurredAt": sale.occurred_at,
        "amount": {
            "total": money(sale.total), "tax": money(sale.tax), "shipping": money(sale.shipping), "discount": money(sale.discount),
            "currency": program.currency,
        },
    });
    if !sale.items.is_empty() {
        body["items"] = items_body(&sale.items, program.exponent);
    }
    match &sale.named {
        Named::Id(id) => body["partner"] = json!({"id": id}),
        Named::Code(code) => body["partner"] = json!({"code": code.to_lowercase()}),
        Named::Coupon(code) => body["coupon"] = json!(code),
        Named::Nobody => {}
    }
    body
}

pub fn refund_body(refund: &Refund, program: &Program) -> Value {
    let money = |minor| decimal(minor, program.exponent);
    let mut body = json!({
        "programId": program.id, "id": refund.id, "type": "refund", "conversion": refund.order, "occurredAt": refund.occurred_at,
        "amount": {"total": money(refund.total), "currency": program.currency},
    });
    if let Some(tax) = refund.tax {
        body["amount"]["tax"] = json!(money(tax));
    }
    if let Some(shipping) = refund.shipping {
        body["amount"]["shipping"] = json!(money(shipping));
    }
    if let Some(items) = &refund.items {
        body["items"] = items_body(items, program.exponent);
    }
    body
}
