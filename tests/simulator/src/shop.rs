//! Merchants, customers and storefronts: what they sell, and how they tell of it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::chance::Chance;
use crate::told::{
    Anomalies, Attribution, Caps, Customer, ENGINE, Edit, Form, GIFT_CARD, Item, Match, Metric, Model, Named, Partner,
    Pay, Program, Rate, Recurrence, Refund, Reward, Rule, Sale, Shape, Tiers, Touch, Window, Withdrawal, exponent,
};
use crate::ways::Way;

/// Products and their categories.
pub const PRODUCTS: [(&str, &str); 3] = [("starter", "plans"), ("pro", "plans"), ("team", "teams")];
pub const CHANNELS: [&str; 3] = ["web", "mail", "video"];
const CAMPAIGNS: [&str; 2] = ["spring", "autumn"];
const COUNTRIES: [&str; 2] = ["DE", "US"];
const PLANS: [&str; 2] = ["basic", "plus"];
pub const GROUPS: [&str; 2] = ["gold", "silver"];
/// A coupon that is no partner's.
const COUPON: &str = "SAVE5";
/// So many customers buy in a program.
const CUSTOMERS: usize = 6;
const CURRENCIES: [&str; 4] = ["EUR", "JPY", "KWD", "USD"];
/// Where the chance of exchange rates begins, which nothing else is decided by: of days, and of stretches without any.
const RATES: u64 = 1 << 33;
const QUIET: u64 = 1 << 34;
const QUIET_DAYS: u64 = 17;

/// As addresses are kept where only equality matters.
pub fn email_hash(address: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(address.as_bytes()))
}

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
    // Of chance that nothing else is decided by.
    let mut besides = chance.clone();
    let withholds = (currency == "USD" && besides.percent(85)).then(|| besides.percent(50));
    let rarely = besides.percent(45).then(|| *besides.pick(&["quarterly", "instant", "instant"]).unwrap_or(&"instant"));
    let days = |besides: &mut Chance, some: [u32; 2]| besides.percent(60).then(|| *besides.pick(&some).unwrap_or(&1));
    let (dust_sweep_days, debt_write_off_days) = (days(&mut besides, [1, 20]), days(&mut besides, [1, 10]));
    let anomalies = anomalies(&mut besides.clone());
    Program {
        id: String::new(),
        currency,
        exponent,
        time_zone: chance.pick(&["UTC", "America/New_York", "Asia/Tokyo", "Europe/Berlin"]).unwrap_or(&"UTC"),
        hold_days: chance.pick(&[0, 0, 1, 14, 30]).copied().unwrap_or(0),
        min_hold_days: if ENGINE { chance.pick(&[0, 0, 0, 3]).copied().unwrap_or(0) } else { 0 },
        anomalies: Anomalies {
            velocity: (ENGINE && chance.percent(20)).then(|| (1 + chance.below(4), chance.from(1, 48))),
            ..anomalies
        },
        approves_automatically: chance.percent(60),
        minimum_payout: chance.pick(&[0, 0, 10, 50]).copied().unwrap_or(0) * major,
        withholds,
        large_payout_limit: chance.pick(&[100, 1_000, 100_000]).copied().unwrap_or(1_000) * major,
        frequency: rarely.unwrap_or(
            chance.pick(&["monthly", "weekly", "semi_monthly", "biweekly", "on_demand"]).unwrap_or(&"monthly"),
        ),
        run_day: 1,
        cut_off_days: chance.pick(&[0, 0, 2]).copied().unwrap_or(0),
        pay_days: besides.pick(&[0, 5, 40]).copied().unwrap_or(0),
        dust_sweep_days,
        debt_write_off_days,
        minimum_sales: if ENGINE { chance.pick(&[0, 0, 0, 2]).copied().unwrap_or(0) } else { 0 },
        attribution: if ENGINE {
            attribution(chance)
        } else {
            Attribution { model: Model::LastTouch, window_days: 30 }
        },
        rule_sets: Vec::new(),
    }
}

fn anomalies(chance: &mut Chance) -> Anomalies {
    let odds = |percent: u32| if ENGINE { percent } else { 0 };
    let after = |chance: &mut Chance| u32::try_from(chance.below(6)).unwrap_or_default();
    Anomalies {
        velocity: None,
        refund_rate: chance.percent(odds(30)).then(|| {
            let points = *chance.pick(&[0, 1_250, 2_500, 3_333, 5_000, 10_000]).unwrap_or(&0);
            (points, after(chance))
        }),
        outlier: chance.percent(odds(15)).then(|| (*chance.pick(&[11, 15, 30]).unwrap_or(&15), after(chance))),
        shared_device: chance.percent(odds(25)).then(|| (1, chance.from(24, 744))),
    }
}

fn anomalies_body(anomalies: &Anomalies) -> Value {
    let within = |(most, hours): (usize, i64)| json!({"moreThan": most, "hours": hours});
    json!({
        "velocity": anomalies.velocity.map(within), "sharedDevice": anomalies.shared_device.map(within),
        "outlier": anomalies.outlier.map(|(tenths, after)| json!({"times": decimal(tenths.into(), 1), "afterConversions": after})),
        "refundRate": anomalies.refund_rate.map(|(points, after)| json!({"moreThan": percent(points), "afterConversions": after})),
    })
}

fn attribution(chance: &mut Chance) -> Attribution {
    let model = match chance.below(6) {
        0 => Model::FirstTouch,
        1 | 2 => Model::Linear,
        3 => Model::PositionBased(*chance.pick(&[[40, 20, 40], [50, 0, 50], [0, 30, 70]]).unwrap_or(&[40, 20, 40])),
        4 => Model::Custom(vec![("web", 3), ("mail", 1), ("video", 0)]),
        _ => Model::LastTouch,
    };
    Attribution { model, window_days: chance.pick(&[1, 7, 30]).copied().unwrap_or(30) }
}

pub fn program_body(program: &Program, name: usize) -> Value {
    json!({
        "name": format!("Program {name}"), "currency": program.currency, "timeZone": program.time_zone,
        "holdDays": program.hold_days, "approval": if program.approves_automatically { "automatic" } else { "manual" },
        "minHoldDays": program.min_hold_days,
        "anomalyRules": anomalies_body(&program.anomalies),
        "minimumPayout": decimal(program.minimum_payout, program.exponent),
        "largePayoutLimit": decimal(program.large_payout_limit, program.exponent), "ruleSignOff": false,
        "taxPayer": program.withholds.map(|_| "US"),
        "withoutTaxNumber": if program.withholds == Some(true) { "withhold" } else { "block" },
        "landingPage": ENGINE.then_some("https://shop.example/"), "minimumSales": program.minimum_sales, "attribution": attribution_body(&program.attribution),
        "schedule": {"frequency": program.frequency, "runDay": program.run_day, "cutOffDays": program.cut_off_days, "payDays": program.pay_days},
        "dustSweepDays": program.dust_sweep_days, "debtWriteOffDays": program.debt_write_off_days,
    })
}

fn attribution_body(attribution: &Attribution) -> Value {
    let (model, weights) = match &attribution.model {
        Model::LastTouch => ("last_touch", Value::Null),
        Model::FirstTouch => ("first_touch", Value::Null),
        Model::Linear => ("linear", Value::Null),
        Model::PositionBased([first, middle, last]) => (
            "position_based",
            json!({"first": first.to_string(), "middle": middle.to_string(), "last": last.to_string()}),
        ),
        Model::Custom(channels) => (
            "custom",
            channels.iter().map(|(channel, weight)| ((*channel).to_owned(), json!(weight.to_string()))).collect(),
        ),
    };
    json!({"model": model, "windowDays": attribution.window_days, "weights": weights})
}

/// A version's rules: one for everything, and some that outrank it.
pub fn rules(chance: &mut Chance, program: &Program, partners: &[&Partner]) -> Vec<Rule> {
    let mut rules = vec![rule(chance, program, "standard")];
    if chance.percent(40) {
        let mut special = rule(chance, program, "special");
        special.matches.products.extend(chance.pick(&PRODUCTS).map(|(product, _)| *product));
        rules.push(special);
    }
    if chance.percent(20)
        && let Some(partner) = chance.pick(partners)
    {
        let mut personal = rule(chance, program, "personal");
        personal.matches.partners.push(partner.id.clone());
        rules.push(personal);
    }
    if ENGINE {
        rules.extend(choosy(chance, program, partners));
    }
    // Discounts belong to orders: what part of one falls to an item is known only where one rule takes them all.
    let whole = rules.iter().all(|rule| rule.matches.products.is_empty() && rule.matches.categories.is_empty());
    for rule in &mut rules {
        rule.gross = whole && chance.percent(15);
    }
    rules
}

/// Rules that ask for more than a product or a partner.
fn choosy(chance: &mut Chance, program: &Program, partners: &[&Partner]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for key in ["choosy-1", "choosy-2"] {
        if !chance.percent(45) {
            continue;
        }
        let mut rule = rule(chance, program, key);
        rule.priority = i32::from(chance.percent(30));
        let asks = &mut rule.matches;
        for _ in 0..=chance.below(2) {
            match chance.below(11) {
                0 => asks.groups = chance.pick(&GROUPS).copied().into_iter().collect(),
                1 => asks.categories = vec!["plans"],
                2 => asks.campaigns = chance.pick(&CAMPAIGNS).copied().into_iter().collect(),
                3 => asks.channels = CHANNELS[..=chance.below(2)].to_vec(),
                4 => asks.countries = chance.pick(&COUNTRIES).copied().into_iter().collect(),
                5 => asks.new_customer = Some(chance.percent(50)),
                6 => {
                    asks.min_order = Some(chance.from(0, 20_000));
                    asks.max_order = chance.percent(50).then_some(50_000);
                }
                7 => asks.coupons = vec![COUPON.to_owned()],
                8 => asks.plan = chance.pick(&PLANS).copied(),
                9 => asks.coupons = chance.pick(partners).map(|partner| partner.code.clone()).into_iter().collect(),
                _ => asks.actions = vec!["sale", "renewal"],
            }
        }
        rules.push(rule);
    }
    if chance.percent(30) {
        let mut others = rule(chance, program, "others");
        others.matches.actions = chance
            .pick(&[vec!["renewal"], vec!["lead", "renewal", "sign_up"], vec!["custom", "lead"]])
            .cloned()
            .unwrap_or_default();
        rules.push(others);
    }
    rules
}

fn rate(chance: &mut Chance, highest: i64) -> u32 {
    u32::try_from(chance.from(1, highest)).unwrap_or_default()
}

fn rule(chance: &mut Chance, program: &Program, key: &str) -> Rule {
    let reward = match chance.below(8) {
        0 => Reward::Flat(chance.from(0, 2_000)),
        1 => Reward::FlatPerUnit(chance.from(1, 500)),
        2 | 3 if ENGINE => Reward::Tiered(tiers(chance)),
        2 | 3 => Reward::Tiered(Tiers {
            metric: Metric::Count,
            window: Window::Lifetime,
            shape: Shape::MarginalByOrder,
            steps: vec![
                (0, Pay::Rate(rate(chance, 2_000))),
                (2, Pay::Rate(rate(chance, 3_000))),
                (5, Pay::Rate(rate(chance, 5_000))),
            ],
        }),
        _ => Reward::Percent(rate(chance, 6_000)),
    };
    let slices = match chance.below(6) {
        0 => vec![(4_000, 0), (6_000, 60)],
        1 => vec![(2_500, 0), (2_500, 10), (2_500, 20), (2_500, 30)],
        _ => vec![],
    };
    let hold_days = chance.percent(15).then(|| u32::try_from(chance.from(0, 40)).unwrap_or_default());
    let hold_days = hold_days.filter(|days| *days != program.hold_days);
    let mut caps = Caps::default();
    let (mut recurrence, mut minimum_sales) = (Recurrence::Always, None);
    if ENGINE {
        caps.order = chance.percent(12).then(|| chance.from(1, 5_000));
        caps.partner_month = chance.percent(10).then(|| chance.from(100, 8_000));
        caps.program_month = chance.percent(10).then(|| chance.from(100, 15_000));
        recurrence = match chance.below(8) {
            0 => Recurrence::FirstSale,
            1 => Recurrence::Months(i32::try_from(chance.from(1, 3)).unwrap_or(1)),
            _ => Recurrence::Always,
        };
        minimum_sales = (ENGINE && chance.percent(10)).then(|| u32::try_from(chance.from(0, 3)).unwrap_or_default());
    }
    Rule {
        key: key.to_owned(),
        matches: Match::default(),
        priority: 0,
        hold_days,
        minimum_sales,
        gross: false,
        reward,
        slices,
        caps,
        recurrence,
        excludes_credit: false,
        keeps_renewals: false,
    }
}

fn tiers(chance: &mut Chance) -> Tiers {
    let metric = *chance.pick(&[Metric::Count, Metric::Revenue, Metric::Commission]).unwrap_or(&Metric::Count);
    let shapes = [Shape::MarginalByOrder, Shape::MarginalByAmount, Shape::Retroactive];
    let mut shape = *chance.pick(&shapes).unwrap_or(&Shape::MarginalByOrder);
    if (shape, metric) == (Shape::MarginalByAmount, Metric::Count) {
        shape = Shape::Retroactive;
    }
    let windows =
        [Window::Lifetime, Window::Month, Window::Quarter, Window::Year, Window::Rolling(1), Window::Rolling(30)];
    let mut window = *chance.pick(&windows).unwrap_or(&Window::Lifetime);
    if shape == Shape::Retroactive && matches!(window, Window::Rolling(_)) {
        window = Window::Lifetime;
    }
    let steps: [i64; 3] = match metric {
        Metric::Count => [0, 2, 5],
        Metric::Revenue => [0, chance.from(1, 20_000), 60_000],
        Metric::Commission => [0, chance.from(1, 2_000), 8_000],
    };
    let flat = shape != Shape::MarginalByAmount && chance.percent(25);
    let falling = chance.percent(20);
    let mut rates = [rate(chance, 2_000), 2_000 + rate(chance, 1_000), 3_000 + rate(chance, 2_000)];
    if falling {
        rates.reverse();
    }
    let pay = |rate: u32| if flat { Pay::Amount(i64::from(rate)) } else { Pay::Rate(rate) };
    let tiers = steps.into_iter().zip(rates).map(|(after, rate)| (after, pay(rate))).collect();
    Tiers { metric, window, shape, steps: tiers }
}

pub fn rule_body(rule: &Rule, exponent: u32) -> Value {
    let money = |minor: i64| decimal(minor, exponent);
    let reward = match &rule.reward {
        Reward::Flat(amount) => json!({"kind": "flat", "amount": money(*amount)}),
        Reward::FlatPerUnit(amount) => json!({"kind": "flat_per_unit", "amount": money(*amount)}),
        Reward::Percent(rate) => json!({"kind": "percent", "rate": percent(*rate)}),
        Reward::Tiered(tiers) => tiers_body(tiers, exponent),
    };
    let slices: Vec<_> =
        rule.slices.iter().map(|(share, days)| json!({"share": percent(*share), "days": days})).collect();
    let recurrence = match rule.recurrence {
        Recurrence::Always => "always".to_owned(),
        Recurrence::FirstSale => "first_sale".to_owned(),
        Recurrence::Months(months) => format!("months:{months}"),
    };
    let asks = &rule.matches;
    let mut body = json!({
        "key": rule.key, "name": rule.key, "priority": rule.priority, "holdDays": rule.hold_days,
        "minimumSales": rule.minimum_sales, "base": if rule.gross { "gross" } else { "net" }, "reward": reward,
        "slices": slices, "recurrence": recurrence, "excludeStoreCredit": rule.excludes_credit,
        "renewals": if rule.keeps_renewals { "first_sale" } else { "own_time" },
        "caps": {
            "perOrder": rule.caps.order.map(money), "perPartnerMonth": rule.caps.partner_month.map(money),
            "perProgramMonth": rule.caps.program_month.map(money),
        },
        "match": {
            "products": asks.products, "categories": asks.categories, "campaigns": asks.campaigns, "partners": asks.partners,
            "groups": asks.groups, "channels": asks.channels, "countries": asks.countries,
            "customer": asks.new_customer.map(|new| if new { "new" } else { "returning" }),
            "minOrder": asks.min_order.map(money), "maxOrder": asks.max_order.map(money), "coupons": asks.coupons,
            "metadata": asks.plan.map_or_else(|| json!({}), |plan| json!({"plan": plan})),
        },
    });
    if !asks.actions.is_empty() {
        body["match"]["actions"] = json!(asks.actions);
    }
    body
}

fn tiers_body(tiers: &Tiers, exponent: u32) -> Value {
    let window = match tiers.window {
        Window::Lifetime => "lifetime".to_owned(),
        Window::Month => "month".to_owned(),
        Window::Quarter => "quarter".to_owned(),
        Window::Year => "year".to_owned(),
        Window::Rolling(days) => format!("rolling:{days}"),
    };
    let (metric, exponent_of_steps) = match tiers.metric {
        Metric::Count => ("count", 0),
        Metric::Revenue => ("revenue", exponent),
        Metric::Commission => ("commission", exponent),
    };
    let shape = match tiers.shape {
        Shape::MarginalByOrder => "marginal_by_order",
        Shape::MarginalByAmount => "marginal_by_amount",
        Shape::Retroactive => "retroactive",
    };
    let tier = |(after, pay): &(i64, Pay)| {
        let after = decimal(*after, exponent_of_steps);
        match pay {
            Pay::Rate(rate) => json!({"after": after, "rate": percent(*rate)}),
            Pay::Amount(amount) => json!({"after": after, "amount": decimal(*amount, exponent)}),
        }
    };
    let steps: Vec<_> = tiers.steps.iter().map(tier).collect();
    json!({"kind": "tiered", "metric": metric, "window": window, "shape": shape, "tiers": steps})
}

/// A way to pay a partner; another edition of it has other details.
pub fn way(kind: &'static str, number: usize, edition: u64, vendor: Option<&str>) -> Way {
    let name = format!("Partner {number}");
    let of_edition = |text: String| if edition == 0 { text } else { format!("{text}.{edition}") };
    let email = of_edition(format!("partner{number}")) + "@partners.example";
    let details = match (kind, edition % 5) {
        ("bank", 4) => vec![("name", name), ("iban", "DE89370400440532013000".to_owned())],
        ("bank", _) => vec![
            ("name", name),
            ("accountNumber", format!("{edition}000{number}")),
            ("routingNumber", "021000021".to_owned()),
        ],
        ("wise", _) => vec![("name", name), ("email", email)],
        ("paypal", 2) => vec![("payerId", format!("PAYER{number}X{edition}"))],
        ("paypal", 3) => vec![("phone", format!("2125550{edition:04}")), ("wallet", "VENMO".to_owned())],
        ("paypal", 4) => vec![("email", email), ("wallet", "VENMO".to_owned())],
        ("paypal", _) => vec![("email", email)],
        ("quickbooks", _) => vendor.map(|vendor| ("vendorId", vendor.to_owned())).into_iter().collect(),
        _ => vec![],
    };
    Way::new(kind, &details)
}

/// A tax form, and how it is put.
pub fn form(chance: &mut Chance, partner: &str, number: usize, now: Timestamp, since: usize) -> (Form, Value) {
    let years = chance.pick(&[0, 1, 3]).copied().unwrap_or(0);
    let today = now.to_zoned(TimeZone::UTC).date();
    // The day before: some program's calendar is behind.
    let signed_on = today.yesterday().and_then(|day| day.checked_sub(Span::new().years(years))).unwrap_or(today);
    let w9 = chance.percent(50);
    let (abroad, treaty) = (!w9 && chance.percent(40), *chance.pick(&[None, Some(0), Some(1_500)]).unwrap_or(&None));
    let treaty = treaty.filter(|_| !w9);
    let form = Form {
        partner: partner.to_owned(),
        kind: if w9 { "w9" } else { "w8ben" },
        signed_on,
        abroad,
        treaty,
        revoked: false,
        since,
    };
    let mut body = json!({"form": form.kind, "name": format!("Partner {number}"), "signedOn": signed_on});
    if w9 {
        body["taxNumber"] = json!({"kind": "ssn", "number": format!("123-45-{:04}", number + 1)});
    } else {
        body["country"] = json!("DE");
        body["services"] = json!(if abroad { "foreign" } else { "us" });
        body["taxNumber"] = json!({"kind": "foreign", "number": format!("DE1234567{number:02}")});
        body["treaty"] =
            treaty.map_or(Value::Null, |rate| json!({"country": "DE", "rate": percent(rate), "article": "7"}));
    }
    (form, body)
}

pub fn revoked(form: &Form, since: usize) -> Form {
    Form { revoked: true, since, ..form.clone() }
}

/// A currency of a sale, or of a payout, that is not the program's.
pub fn other_currency(chance: &mut Chance, program: &Program) -> &'static str {
    let others: Vec<_> = CURRENCIES.into_iter().filter(|currency| *currency != program.currency).collect();
    chance.pick(&others).copied().unwrap_or("EUR")
}

/// What was published for a day: nothing on many of them, and now and then nothing for weeks; by one source all against the euro, by the
/// other this way or that.
pub fn rates(seed: u64, date: Date, since: usize) -> Vec<Rate> {
    let day = date.duration_since(Date::ZERO).as_hours().unsigned_abs() / 24;
    if Chance::of(seed, QUIET + day / QUIET_DAYS).percent(25) {
        return Vec::new();
    }
    let mut chance = Chance::of(seed, RATES + day);
    if !chance.percent(55) {
        return Vec::new();
    }
    let mut rates = Vec::new();
    for (from, to, low, high, decimals, source, odds) in [
        ("EUR", "USD", 9_000, 12_500, 4, "ecb", 80),
        ("EUR", "JPY", 12_000, 18_000, 2, "ecb", 80),
        ("EUR", "KWD", 300_000, 360_000, 6, "ecb", 80),
        ("USD", "JPY", 11_000, 16_000, 2, "bank", 20),
        ("JPY", "KWD", 1_900, 2_300, 6, "bank", 15),
        ("KWD", "USD", 31, 34, 1, "bank", 20),
    ] {
        let units = chance.from(low, high);
        if chance.percent(odds) {
            rates.push(Rate { date, from, to, units, decimals, source, since });
        }
    }
    rates
}

/// A file of rates, as somebody who publishes them writes it.
pub fn rates_file(rates: &[Rate]) -> String {
    let row = |rate: &Rate| {
        let Rate { date, from, to, source, .. } = rate;
        format!("{date},{from},{to},{},{source}\n", decimal(rate.units, rate.decimals))
    };
    rates.iter().fold("date,from,to,rate,source\n".to_owned(), |file, rate| file + &row(rate))
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
    let (mut named, mut coupon) = match (chance.below(10), chance.pick(partners)) {
        (0, _) | (_, None) => (Named::Nobody, None),
        (1..=4, Some(partner)) => (Named::Id(partner.id.clone()), None),
        (5 | 6, Some(partner)) => (Named::Nobody, Some(partner.code.clone())),
        (_, Some(partner)) => (Named::Code(partner.code.clone()), None),
    };
    let mut evidence = Evidence::default();
    if ENGINE {
        evidence = Evidence::of(chance, at, partners);
        if chance.percent(10) {
            coupon = Some(COUPON.to_owned());
        } else if evidence.action == "renewal" && chance.percent(60) {
            (named, coupon) = (Named::Nobody, None);
        }
    }
    let price = |chance: &mut Chance| match chance.below(8) {
        0 => chance.from(0, 3),
        1 => chance.from(1, 99),
        2 => chance.from(100_000, 900_000),
        _ => chance.from(100, 30_000),
    };
    let mut items: Vec<Item> = Vec::new();
    if chance.percent(70) {
        let mut products = PRODUCTS.to_vec();
        products.truncate(1 + chance.below(3));
        let item = |(product, category)| Item { product, category, quantity: chance.from(1, 4), amount: price(chance) };
        items.extend(products.into_iter().map(item));
        if ENGINE && chance.percent(10) {
            let card = Item { product: GIFT_CARD, category: "cards", quantity: 1, amount: chance.from(1, 10_000) };
            items.insert(chance.below(items.len() + 1), card);
        }
    }
    let goods = if items.is_empty() { price(chance) } else { items.iter().map(|item| item.amount).sum() };
    let tax = if chance.percent(60) { goods / 5 } else { 0 };
    let shipping = if chance.percent(30) { chance.from(1, 1_500) } else { 0 };
    let discount = if chance.percent(25) { chance.from(1, 2_000) } else { 0 };
    let back = if chance.percent(30) { chance.from(0, 20 * 86_400) } else { chance.from(0, 600) };
    Sale {
        program: at,
        source: source.to_owned(),
        order,
        action: evidence.action,
        occurred_at: now - SignedDuration::from_secs(back),
        named: if program.id.is_empty() { Named::Nobody } else { named },
        coupon,
        click: None,
        visitor: None,
        customer: evidence.customer,
        channel: evidence.channel,
        campaign: evidence.campaign,
        country: evidence.country,
        plan: evidence.plan,
        currency: program.currency,
        items,
        total: goods + tax + shipping,
        tax,
        shipping,
        discount,
        store_credit: 0,
        accepted: false,
    }
}

/// What stands in an order besides goods and money.
struct Evidence {
    action: &'static str,
    customer: Customer,
    channel: Option<&'static str>,
    campaign: Option<&'static str>,
    country: Option<&'static str>,
    plan: Option<&'static str>,
}

impl Default for Evidence {
    fn default() -> Self {
        Self { action: "sale", customer: Customer::default(), channel: None, campaign: None, country: None, plan: None }
    }
}

impl Evidence {
    fn of(chance: &mut Chance, program: usize, partners: &[&Partner]) -> Self {
        let action = *chance
            .pick(&[
                "sale", "sale", "sale", "sale", "sale", "sale", "sale", "sale", "renewal", "renewal", "lead",
                "sign_up", "custom",
            ])
            .unwrap_or(&"sale");
        let mut customer = Customer::default();
        if chance.percent(60) {
            let n = chance.below(CUSTOMERS);
            let (id, hash) =
                (format!("customer-{n}"), email_hash(&format!("customer{n}.of{program}@customers.example")));
            let known = chance.below(4);
            customer.id = (known != 0).then_some(id);
            customer.email_hash = (known != 1).then_some(hash);
        }
        if chance.percent(2)
            && let Some(partner) = chance.pick(partners)
        {
            customer.email_hash = Some(partner.email_hash.clone());
        }
        customer.new = chance.percent(15).then(|| chance.percent(50));
        let mut maybe = |of: &[&'static str]| if chance.percent(60) { chance.pick(of).copied() } else { None };
        let (channel, campaign, country) = (maybe(&CHANNELS), maybe(&CAMPAIGNS), maybe(&COUNTRIES));
        let plan = if chance.percent(30) { chance.pick(&PLANS).copied() } else { None };
        Self { action, customer, channel, campaign, country, plan }
    }
}

/// The shop learned whose link the customer had followed, and mostly names nobody else.
pub fn touched(chance: &mut Chance, sale: &mut Sale, touch: &Touch) {
    if chance.percent(80) {
        (sale.named, sale.coupon) = (Named::Nobody, None);
    }
    if chance.percent(25) {
        sale.click.clone_from(&touch.click);
    }
    if sale.click.is_none() || chance.percent(50) {
        sale.visitor = Some(touch.visitor.clone());
    }
}

/// The same purchase as another storefront tells it.
pub fn duplicate(chance: &mut Chance, sale: &Sale, source: &str, order: String, now: Timestamp) -> Sale {
    let apart = SignedDuration::from_secs(chance.from(-30 * 3_600, 30 * 3_600));
    let occurred_at = (sale.occurred_at + apart).min(now);
    Sale { source: source.to_owned(), order, occurred_at, accepted: false, ..sale.clone() }
}

/// A sale nobody made: whoever books it believed an unsigned word.
pub fn worthless(now: Timestamp) -> Sale {
    Sale {
        program: 0,
        source: String::new(),
        order: "forged".to_owned(),
        action: "sale",
        occurred_at: now,
        named: Named::Nobody,
        coupon: None,
        click: None,
        visitor: None,
        customer: Customer::default(),
        channel: None,
        campaign: None,
        country: None,
        plan: None,
        currency: "USD",
        items: vec![],
        total: 100,
        tax: 0,
        shipping: 0,
        discount: 0,
        store_credit: 0,
        accepted: false,
    }
}

/// Something of a sale goes back: some items, a part of the total, or only the shipping.
pub fn refund(chance: &mut Chance, sale: &Sale, id: String, now: Timestamp) -> Refund {
    let mut refund = Refund {
        program: sale.program,
        currency: sale.currency,
        source: sale.source.clone(),
        order: sale.order.clone(),
        id,
        occurred_at: now.max(sale.occurred_at),
        total: 0,
        tax: None,
        shipping: None,
        items: None,
        chargeback: ENGINE && chance.percent(20),
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

/// The order becomes another: more of some things, less of others.
pub fn edit(chance: &mut Chance, sale: &Sale, earlier: Option<&Edit>, id: String, now: Timestamp) -> Edit {
    let (mut items, goods) = match earlier {
        Some(edit) => (edit.items.clone(), edit.total - edit.tax - edit.shipping),
        None => (sale.items.clone(), sale.total - sale.tax - sale.shipping),
    };
    let way = chance.below(4);
    let mut change = |amount: i64| {
        let up = way == 1 || (way == 2 && chance.percent(50));
        if up { amount + chance.from(0, 5_000) } else { chance.from(0, amount.max(0)) }
    };
    let goods = if items.is_empty() {
        change(goods)
    } else {
        for item in &mut items {
            let before = item.amount;
            item.amount = change(before);
            item.quantity += i64::from(item.amount > before);
        }
        if way == 3 {
            // One goes, one comes.
            items.remove(0);
            let known: Vec<_> = items.iter().map(|item| item.product).collect();
            let new = PRODUCTS.iter().find(|(product, _)| !known.contains(product));
            items.extend(new.map(|(product, category)| Item {
                product,
                category,
                quantity: 2,
                amount: chance.from(0, 20_000),
            }));
        }
        let goods = items.iter().map(|item| item.amount).sum();
        if chance.percent(10) {
            items.clear();
        }
        goods
    };
    let tax = if sale.tax > 0 { goods / 5 } else { 0 };
    let total = goods + tax + sale.shipping;
    // Where some was paid with store credit, more may be.
    let credit = if sale.store_credit > 0 { sale.store_credit + goods % 3 * 100 } else { 0 };
    Edit {
        program: sale.program,
        currency: sale.currency,
        source: sale.source.clone(),
        order: sale.order.clone(),
        id,
        occurred_at: now.max(sale.occurred_at),
        items,
        total,
        tax,
        shipping: sale.shipping,
        discount: sale.discount,
        store_credit: credit.min(total),
        accepted: false,
    }
}

pub fn withdrawal(chance: &mut Chance, refund: &Refund, id: String, now: Timestamp) -> Withdrawal {
    let never = chance.percent(8);
    Withdrawal {
        program: refund.program,
        source: refund.source.clone(),
        order: refund.order.clone(),
        id,
        kind: if refund.chargeback { "dispute_won" } else { "refund_withdrawn" },
        refund: if never { "refund-never".to_owned() } else { refund.id.clone() },
        occurred_at: now.max(refund.occurred_at),
        accepted: false,
    }
}

fn items_body(items: &[Item], exponent: u32) -> Value {
    let one = |item: &Item| {
        json!({
            "sku": format!("sku-{}", item.product), "product": item.product, "category": item.category,
            "quantity": item.quantity, "amount": decimal(item.amount, exponent), "giftCard": !item.is_goods(),
        })
    };
    items.iter().map(one).collect()
}

/// In our own event form.
pub fn sale_body(sale: &Sale, program: &Program) -> Value {
    let money = |minor| decimal(minor, exponent(sale.currency));
    let mut body = json!({
        "programId": program.id, "id": sale.order, "type": sale.action, "occurredAt": sale.occurred_at,
        "amount": {
            "total": money(sale.total), "tax": money(sale.tax), "shipping": money(sale.shipping), "discount": money(sale.discount),
            "storeCredit": money(sale.store_credit), "currency": sale.currency,
        },
    });
    if !sale.items.is_empty() {
        body["items"] = items_body(&sale.items, exponent(sale.currency));
    }
    match &sale.named {
        Named::Id(id) => body["partner"] = json!({"id": id}),
        Named::Code(code) => body["partner"] = json!({"code": code.to_lowercase()}),
        Named::Nobody => {}
    }
    for (field, value) in [
        ("coupon", sale.coupon.as_deref()),
        ("clickId", sale.click.as_deref()),
        ("visitorId", sale.visitor.as_deref()),
        ("channel", sale.channel),
        ("campaign", sale.campaign),
        ("country", sale.country),
    ] {
        if let Some(value) = value {
            body[field] = json!(value);
        }
    }
    if let Some(plan) = sale.plan {
        body["metadata"] = json!({"plan": plan, "seats": "3"});
    }
    if sale.customer != Customer::default() {
        let customer = &sale.customer;
        body["customer"] = json!({"id": customer.id, "emailHash": customer.email_hash, "new": customer.new});
    }
    body
}

pub fn edit_body(edit: &Edit, program: &Program) -> Value {
    let money = |minor| decimal(minor, exponent(edit.currency));
    let mut body = json!({
        "programId": program.id, "id": edit.id, "type": "edit", "conversion": edit.order, "occurredAt": edit.occurred_at,
        "amount": {
            "total": money(edit.total), "tax": money(edit.tax), "shipping": money(edit.shipping), "discount": money(edit.discount),
            "storeCredit": money(edit.store_credit), "currency": edit.currency,
        },
    });
    if !edit.items.is_empty() {
        body["items"] = items_body(&edit.items, exponent(edit.currency));
    }
    body
}

pub fn withdrawal_body(withdrawal: &Withdrawal, program: &Program) -> Value {
    json!({
        "programId": program.id, "id": withdrawal.id, "type": withdrawal.kind, "conversion": withdrawal.order,
        "refund": withdrawal.refund, "occurredAt": withdrawal.occurred_at, "reason": "the seed says so",
    })
}

pub fn refund_body(refund: &Refund, program: &Program) -> Value {
    let money = |minor| decimal(minor, exponent(refund.currency));
    let mut body = json!({
        "programId": program.id, "id": refund.id, "type": if refund.chargeback { "chargeback" } else { "refund" },
        "conversion": refund.order, "occurredAt": refund.occurred_at,
        "amount": {"total": money(refund.total), "currency": refund.currency},
    });
    if let Some(tax) = refund.tax {
        body["amount"]["tax"] = json!(money(tax));
    }
    if let Some(shipping) = refund.shipping {
        body["amount"]["shipping"] = json!(money(shipping));
    }
    if let Some(items) = &refund.items {
        body["items"] = items_body(items, exponent(refund.currency));
    }
    body
}
