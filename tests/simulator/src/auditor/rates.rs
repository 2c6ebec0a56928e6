//! The arithmetic of the rules: which rule rates which items, what that earns, how it is sliced and shared, and what is left of it.

use std::cmp::Ordering;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::order::Part;
use crate::told::{
    Attribution, Item, Metric, Model, Partner, Pay, Rate, Recurrence, Reward, Rule, RuleSet, Sale, Shape, Tiers, Touch,
    Window, exponent,
};

/// Everything, in basis points.
pub const WHOLE: i128 = 10_000;

/// Half away from zero. Silent in the rules: nothing is a share of nothing.
pub fn round(numerator: i128, denominator: i128) -> i128 {
    if denominator == 0 {
        return 0;
    }
    let magnitude = (2 * numerator.abs() + denominator.abs()) / (2 * denominator.abs());
    magnitude * numerator.signum() * denominator.signum()
}

/// An exact fraction, in lowest terms and with a positive denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(i128, i128);

impl Ratio {
    pub const ZERO: Self = Self(0, 1);

    pub fn new(numerator: i128, denominator: i128) -> Self {
        let (mut a, mut b) = (numerator.abs(), denominator.abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let divisor = a.max(1) * denominator.signum();
        Self(numerator / divisor, denominator / divisor)
    }

    pub fn plus(self, other: Self) -> Self {
        Self::new(self.0 * other.1 + other.0 * self.1, self.1 * other.1)
    }

    pub fn minus(self, other: Self) -> Self {
        self.plus(Self(-other.0, other.1))
    }

    pub fn times(self, other: Self) -> Self {
        Self::new(self.0 * other.0, self.1 * other.1)
    }

    pub fn round(self) -> i128 {
        round(self.0, self.1)
    }

    /// Part and whole.
    pub const fn terms(self) -> (i128, i128) {
        (self.0, self.1)
    }

    pub fn inverse(self) -> Self {
        Self::new(self.1, self.0)
    }

    fn lesser(self, other: Self) -> Self {
        if self.compare(other) == Ordering::Greater { other } else { self }
    }

    fn compare(self, other: Self) -> Ordering {
        (self.0 * other.1).cmp(&(other.0 * self.1))
    }
}

impl From<i128> for Ratio {
    fn from(whole: i128) -> Self {
        Self(whole, 1)
    }
}

/// Of the versions that have started the latest; of two that started together the newer.
pub fn in_force(sets: &[RuleSet], at: Timestamp) -> Option<&RuleSet> {
    let started = sets.iter().filter(|set| set.effective_from <= at);
    started.max_by_key(|set| (set.effective_from, set.version))
}

/// What was known of the customer when the sale came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// Has bought before.
    pub returning: bool,
    /// When the first sale of the customer that was somebody's happened.
    pub first_attributed: Option<Timestamp>,
}

/// Which of the sale's items each rule rates for the partner, in the order of the first item; none where only totals are told.
pub fn groups<'a>(
    sale: &Sale,
    items: &[Item],
    rules: &'a [Rule],
    partner: &Partner,
    standing: Standing,
    zone: &TimeZone,
    exchange: Ratio,
) -> Vec<(&'a Rule, Vec<usize>)> {
    let mut groups: Vec<(&Rule, Vec<usize>)> = Vec::new();
    let mut add = |rule: Option<&'a Rule>, item: Option<usize>| {
        let Some(rule) = rule else { return };
        if let Some((_, items)) = groups.iter_mut().find(|(other, _)| other.key == rule.key) {
            items.extend(item);
        } else {
            groups.push((rule, item.into_iter().collect()));
        }
    };
    let winner = |item: Option<&Item>| {
        let fitting = rules.iter().enumerate().filter(|(_, rule)| {
            matches(rule, sale, partner, item, standing, exchange)
                && recurs(rule.recurrence, sale.occurred_at, standing, zone)
        });
        // More specific, then priority, then the newer, which stands later.
        fitting.max_by_key(|(n, rule)| (rank(rule), rule.priority, *n)).map(|(_, rule)| rule)
    };
    if items.is_empty() {
        add(winner(None), None);
    }
    for (n, item) in items.iter().enumerate().filter(|(_, item)| item.is_goods()) {
        add(winner(Some(item)), Some(n));
    }
    groups
}

fn rank(rule: &Rule) -> u8 {
    let asks = &rule.matches;
    let named = [
        !asks.campaigns.is_empty(),
        !asks.categories.is_empty(),
        !asks.products.is_empty(),
        !asks.groups.is_empty(),
        !asks.partners.is_empty(),
    ];
    (1..).zip(named).filter(|(_, named)| *named).map(|(rank, _)| rank).max().unwrap_or(0)
}

fn matches(
    rule: &Rule,
    sale: &Sale,
    partner: &Partner,
    item: Option<&Item>,
    standing: Standing,
    exchange: Ratio,
) -> bool {
    fn fits(asked: &[&str], told: Option<&str>) -> bool {
        asked.is_empty() || told.is_some_and(|told| asked.contains(&told))
    }
    let asks = &rule.matches;
    let action = if asks.actions.is_empty() { sale.action == "sale" } else { asks.actions.contains(&sale.action) };
    let new = sale.customer.new.unwrap_or(!standing.returning);
    let goods = Ratio::from(net(sale)).times(exchange);
    let compared = |limit: i64| goods.compare(i128::from(limit).into());
    let coupon = |asked: &String| sale.coupon.as_ref().is_some_and(|told| told.eq_ignore_ascii_case(asked));
    action
        && fits(&asks.products, item.map(|item| item.product))
        && fits(&asks.categories, item.map(|item| item.category))
        && fits(&asks.campaigns, sale.campaign)
        && (asks.partners.is_empty() || asks.partners.contains(&partner.id))
        && fits(&asks.groups, partner.group)
        && fits(&asks.channels, sale.channel)
        && fits(&asks.countries, sale.country)
        && asks.new_customer.is_none_or(|asked| asked == new)
        && asks.min_order.is_none_or(|least| compared(least).is_ge())
        && asks.max_order.is_none_or(|most| compared(most).is_le())
        && (asks.coupons.is_empty() || asks.coupons.iter().any(coupon))
        && asks.plan.is_none_or(|asked| sale.plan == Some(asked))
}

/// A customer nobody knows is a new one. Silent in the rules: a rule whose time is over steps aside for the next.
fn recurs(recurrence: Recurrence, at: Timestamp, standing: Standing, zone: &TimeZone) -> bool {
    let Some(first) = standing.first_attributed else { return true };
    match recurrence {
        Recurrence::Always => true,
        Recurrence::FirstSale => false,
        Recurrence::Months(months) => {
            let end = first.to_zoned(zone.clone()).checked_add(Span::new().months(months));
            end.is_ok_and(|end| at < end.timestamp())
        }
    }
}

/// What one minor unit of a currency is worth in those of another: by the latest rate of the day or of the seven before it.
pub fn exchange<'a>(told: impl Iterator<Item = &'a Rate> + Clone, from: &str, to: &str, day: Date) -> Option<Ratio> {
    if from == to {
        return Some(Ratio::from(1));
    }
    let of_day = |back: i64| {
        let date = day.checked_sub(Span::new().days(back)).ok()?;
        of_day(&told.clone().filter(|rate| rate.date == date).collect::<Vec<_>>(), from, to)
    };
    let one = |currency: &str| 10_i128.pow(exponent(currency));
    (0..=7).find_map(of_day).map(|major| major.times(Ratio::new(one(to), one(from))))
}

/// Silent in the rules: as it was told, else the other way round, else through a third currency in which one source told both, or which it
/// told in both; of several the first by code.
fn of_day(told: &[&Rate], from: &str, to: &str) -> Option<Ratio> {
    let find = |from: &str, to: &str| told.iter().copied().find(|rate| (rate.from, rate.to) == (from, to));
    let worth = |rate: &Rate| Ratio::new(rate.units.into(), 10_i128.pow(rate.decimals));
    let over = |upper: &Rate, lower: &Rate| worth(upper).times(worth(lower).inverse());
    if let Some(rate) = find(from, to) {
        return Some(worth(rate));
    }
    if let Some(rate) = find(to, from) {
        return Some(worth(rate).inverse());
    }
    let thirds = ["EUR", "JPY", "KWD", "USD"];
    thirds.into_iter().find_map(|third| {
        let of_one = |(upper, lower): &(&Rate, &Rate)| upper.source == lower.source;
        let in_it = find(third, to).zip(find(third, from)).filter(of_one);
        let by_it = || find(from, third).zip(find(to, third)).filter(of_one);
        in_it.or_else(by_it).map(|(upper, lower)| over(upper, lower))
    })
}

/// What a reward is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Sold {
    pub base: Ratio,
    pub units: i64,
}

/// The reward in full, and the weight's part of it. `before` is the tally's position, in conversions or minor units. What an edit
/// added gets no flat amount again. `used` is what the order earned before of its cap, in full and by the weight's part.
pub fn reward(rule: &Rule, sold: Sold, weight: Ratio, before: i128, added: bool, used: (i128, i128)) -> (Ratio, Ratio) {
    let linear = |full: Ratio| (full, full.times(weight));
    let (full, own) = match &rule.reward {
        Reward::Flat(_) if added => linear(Ratio::ZERO),
        Reward::Flat(amount) => linear(i128::from(*amount).into()),
        Reward::FlatPerUnit(amount) => linear((i128::from(*amount) * i128::from(sold.units)).into()),
        Reward::Percent(rate) => linear(percent(sold.base, *rate)),
        Reward::Tiered(tiers) if tiers.shape == Shape::MarginalByAmount => {
            (by_amount(tiers, sold.base, before), by_amount(tiers, sold.base.times(weight), before))
        }
        Reward::Tiered(tiers) => {
            let own = sold.base.times(weight);
            let position = match (tiers.shape, tiers.metric) {
                (Shape::Retroactive, Metric::Revenue) => before + own.round(),
                // What an edit adds is no conversion of its own.
                (Shape::Retroactive, Metric::Count) => before + i128::from(!added),
                // Silent in the rules: what it earns itself is counted at the tier where it starts.
                (Shape::Retroactive, Metric::Commission) => {
                    before + pay(tier_at(tiers, before + 1), sold.base).times(weight).round()
                }
                _ => before + 1,
            };
            match tier_at(tiers, position) {
                Pay::Amount(_) if added => linear(Ratio::ZERO),
                tier => linear(pay(tier, sold.base)),
            }
        }
    };
    match rule.caps.order {
        Some(cap) => {
            let whole = i128::from(cap);
            let part = Ratio::from(whole).times(weight).round();
            let left = |cap: i128, used: i128| Ratio::from((cap - used).max(0));
            (full.lesser(left(whole, used.0)), own.lesser(left(part, used.1)))
        }
        None => (full, own),
    }
}

/// What a rate applies to, of some items of a part of an order.
pub fn base(part: &Part, rule: &Rule, items: &[usize]) -> i128 {
    let whole = part.net();
    let of_items = items.iter().map(|n| i128::from(part.items[*n].amount)).sum();
    let rated = if items.is_empty() { whole } else { of_items };
    let rated = match (rule.gross, whole) {
        (false, _) => rated,
        (true, 0) => rated + part.discount,
        // Silent in the rules: a discount is known per order, and each item bears its share by amount.
        (true, _) => rated + round(part.discount * rated, whole),
    };
    // As much of the goods as of all that was charged was paid with store credit.
    let credit = if rule.excludes_credit { part.store_credit } else { 0 };
    rated - round(rated * credit, part.total)
}

fn percent(base: Ratio, rate: u32) -> Ratio {
    base.times(Ratio::new(rate.into(), WHOLE))
}

pub fn pay(pay: Pay, base: Ratio) -> Ratio {
    match pay {
        Pay::Rate(rate) => percent(base, rate),
        Pay::Amount(amount) => i128::from(amount).into(),
    }
}

/// The tier that applies at a position: the last one that it exceeds.
pub fn tier_at(tiers: &Tiers, position: i128) -> Pay {
    let passed = tiers.steps.iter().rfind(|(after, _)| position > i128::from(*after));
    passed.or(tiers.steps.first()).map_or(Pay::Amount(0), |(_, pay)| *pay)
}

/// An order that crosses is split where it crosses.
fn by_amount(tiers: &Tiers, base: Ratio, before: i128) -> Ratio {
    let (mut left, mut at, mut sum) = (base, Ratio::from(before), Ratio::ZERO);
    for (n, (_, pay)) in tiers.steps.iter().enumerate() {
        let Pay::Rate(rate) = *pay else { continue };
        let room = match tiers.steps.get(n + 1) {
            Some((after, _)) => Ratio::from(i128::from(*after)).minus(at),
            None => Ratio::from(i128::MAX >> 64),
        };
        if room.compare(Ratio::ZERO) != Ordering::Greater {
            continue;
        }
        // How much of the base fits into the tier.
        let fits = match (tiers.metric, rate) {
            (Metric::Commission, 0) => left,
            (Metric::Commission, rate) => room.times(Ratio::new(WHOLE, rate.into())),
            _ => room,
        };
        let part = left.lesser(fits);
        let earned = percent(part, rate);
        sum = sum.plus(earned);
        left = left.minus(part);
        at = at.plus(if tiers.metric == Metric::Commission { earned } else { part });
    }
    sum
}

/// Goods after discounts, without tax and shipping.
pub fn net(sale: &Sale) -> i128 {
    net_of(&sale.items, [sale.total, sale.tax, sale.shipping])
}

pub fn net_of(items: &[Item], [total, tax, shipping]: [i64; 3]) -> i128 {
    if items.is_empty() {
        i128::from(total) - i128::from(tax) - i128::from(shipping)
    } else {
        items.iter().filter(|item| item.is_goods()).map(|item| i128::from(item.amount)).sum()
    }
}

/// Slice k = round(earned x share so far) - what earlier slices took. With the days of each slice.
pub fn slices(earned: i128, rule: &Rule) -> Vec<(i128, u32)> {
    let whole = [(10_000, 0)];
    let slices = if rule.slices.is_empty() { &whole[..] } else { &rule.slices };
    let (mut so_far, mut taken) = (0, 0);
    let cut = |(share, days): &(u32, u32)| {
        so_far += i128::from(*share);
        let slice = round(earned * so_far, WHOLE) - taken;
        taken += slice;
        (slice, *days)
    };
    slices.iter().map(cut).collect()
}

/// Divides a whole by weights: what is left over by cutting goes to the largest remainders, the earlier first.
pub fn divide(whole: i128, parts: &[i128]) -> Vec<i128> {
    let sum: i128 = parts.iter().sum();
    if sum == 0 {
        return vec![0; parts.len()];
    }
    let (sign, whole) = (whole.signum(), whole.abs());
    let mut shares: Vec<i128> = parts.iter().map(|part| whole * part / sum).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|n| (std::cmp::Reverse(whole * parts[*n] % sum), *n));
    let left = whole - shares.iter().sum::<i128>();
    for n in order.into_iter().cycle().take(usize::try_from(left).unwrap_or_default()) {
        shares[n] += 1;
    }
    shares.into_iter().map(|share| share * sign).collect()
}

/// Shares by the touches within the window: who gets how many parts of all, by the earliest touch and then by id.
pub fn shared(
    attribution: &Attribution,
    touches: &[(&Touch, &Partner)],
    occurred_at: Timestamp,
) -> Vec<(String, i128)> {
    let start = occurred_at - super::days(attribution.window_days.into());
    let mut touches: Vec<_> = touches.iter().filter(|(touch, _)| (start..=occurred_at).contains(&touch.at)).collect();
    touches.sort_by_key(|(touch, partner)| (touch.at, &partner.id, &touch.click));
    let (Some((_, first)), Some((_, last))) = (touches.first(), touches.last()) else { return Vec::new() };
    let mut partners: Vec<&str> = Vec::new();
    for (_, partner) in &touches {
        if !partners.contains(&partner.id.as_str()) {
            partners.push(&partner.id);
        }
    }
    let parts: Vec<i128> = match &attribution.model {
        Model::FirstTouch => return vec![(first.id.clone(), 1)],
        Model::LastTouch => return vec![(last.id.clone(), 1)],
        Model::Linear => vec![1; partners.len()],
        Model::PositionBased(weights) => by_position(*weights, partners.len()),
        Model::Custom(weights) => {
            let weight = |touch: &Touch| {
                let of_channel = |(channel, _): &&(&str, u32)| touch.channel == Some(*channel);
                weights.iter().find(of_channel).map_or(0, |(_, weight)| i128::from(*weight))
            };
            let heaviest = |partner: &&str| {
                let own = touches.iter().filter(|(_, of)| of.id == *partner);
                own.map(|(touch, _)| weight(touch)).max().unwrap_or(0)
            };
            partners.iter().map(heaviest).collect()
        }
    };
    // Silent in the rules: where nobody has weight, everybody has the same.
    let all_same = parts.iter().all(|part| *part == 0);
    let shares =
        partners.into_iter().zip(parts).map(|(partner, part)| (partner.to_owned(), if all_same { 1 } else { part }));
    shares.filter(|(_, part)| *part > 0).collect()
}

fn by_position([first, middle, last]: [u32; 3], count: usize) -> Vec<i128> {
    let [first, middle, last] = [first, middle, last].map(i128::from);
    match count {
        0 | 1 => vec![1; count],
        2 => vec![2 * first + middle, 2 * last + middle],
        _ => {
            let between = i128::try_from(count).unwrap_or(2) - 2;
            let mut parts = vec![middle; count];
            (parts[0], parts[count - 1]) = (first * between, last * between);
            parts
        }
    }
}

/// The instance of a window that a day belongs to. Rolling windows are kept by day.
pub fn window_key(window: Window, date: Date) -> String {
    match window {
        Window::Lifetime => "life".to_owned(),
        Window::Year => format!("{:04}", date.year()),
        Window::Quarter => format!("{:04}-q{}", date.year(), (date.month() + 2) / 3),
        Window::Month => month_key(date),
        Window::Rolling(_) => format!("d{date}"),
    }
}

pub fn month_key(date: Date) -> String {
    format!("{:04}-{:02}", date.year(), date.month())
}

/// Whether the window of a day has not ended on another.
pub fn is_open(window: Window, date: Date, today: Date) -> bool {
    match window {
        Window::Lifetime | Window::Rolling(_) => true,
        _ => today <= date || window_key(window, today) == window_key(window, date),
    }
}
