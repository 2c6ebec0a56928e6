//! The arithmetic of the rules: which rule rates which items, what that earns, how it is sliced, and what refunds take back.

use crate::told::{Item, Partner, Refund, Reward, Rule, RuleSet, Sale};

/// Everything, in basis points.
const WHOLE: i128 = 10_000;

/// Half away from zero. Silent in the rules: nothing is a share of nothing.
pub fn round(numerator: i128, denominator: i128) -> i128 {
    if denominator == 0 {
        return 0;
    }
    let magnitude = (2 * numerator.abs() + denominator.abs()) / (2 * denominator.abs());
    magnitude * numerator.signum() * denominator.signum()
}

/// What a sale earns under one rule.
#[derive(Debug)]
pub struct Rated<'a> {
    pub rule: &'a Rule,
    /// Which of the sale's items it rated; none where the sale tells only totals.
    pub items: Vec<usize>,
    pub earned: i128,
}

/// Of the versions that have started the latest; of two that started together the newer.
pub fn in_force(sets: &[RuleSet], at: jiff::Timestamp) -> Option<&RuleSet> {
    let started = sets.iter().filter(|set| set.effective_from <= at);
    started.max_by_key(|set| (set.effective_from, set.version))
}

/// `before` tells how many conversions the partner has under a rule. Earnings are in the order of the first item that each rates.
pub fn rate<'a>(sale: &Sale, rules: &'a [Rule], partner: &Partner, before: impl Fn(&str) -> usize) -> Vec<Rated<'a>> {
    let mut groups: Vec<(&Rule, Vec<usize>)> = Vec::new();
    let mut add = |rule: Option<&'a Rule>, item: Option<usize>| {
        let Some(rule) = rule else { return };
        if let Some((_, items)) = groups.iter_mut().find(|(other, _)| other.key == rule.key) {
            items.extend(item);
        } else {
            groups.push((rule, item.into_iter().collect()));
        }
    };
    if sale.items.is_empty() {
        add(winner(rules, partner, None), None);
    }
    for (n, item) in sale.items.iter().enumerate() {
        add(winner(rules, partner, Some(item)), Some(n));
    }
    let earned = |(rule, items): (&'a Rule, Vec<usize>)| {
        let earned = earned(sale, rule, &items, before(&rule.key));
        Rated { rule, items, earned }
    };
    groups.into_iter().map(earned).collect()
}

/// Partner before product before default, then priority, then the newer, which stands later.
fn winner<'a>(rules: &'a [Rule], partner: &Partner, item: Option<&Item>) -> Option<&'a Rule> {
    let matches = |rule: &Rule| {
        rule.partner.as_ref().is_none_or(|id| *id == partner.id)
            && rule.product.as_ref().is_none_or(|product| item.is_some_and(|item| item.product == *product))
    };
    let rank = |rule: &Rule| match (&rule.partner, &rule.product) {
        (Some(_), _) => 2,
        (None, Some(_)) => 1,
        (None, None) => 0,
    };
    let fitting = rules.iter().enumerate().filter(|(_, rule)| matches(rule));
    fitting.max_by_key(|(n, rule)| (rank(rule), rule.priority, *n)).map(|(_, rule)| rule)
}

fn earned(sale: &Sale, rule: &Rule, items: &[usize], before: usize) -> i128 {
    let base = base(sale, rule, items);
    match &rule.reward {
        Reward::Flat(amount) => i128::from(*amount),
        Reward::FlatPerUnit(amount) => {
            // Silent in the rules: an order without items is one unit.
            let units: i64 =
                if items.is_empty() { 1 } else { items.iter().map(|item| sale.items[*item].quantity).sum() };
            i128::from(*amount) * i128::from(units)
        }
        Reward::Percent(rate) => round(base * i128::from(*rate), WHOLE),
        Reward::TieredByCount(tiers) => {
            let position = before as u64 + 1;
            let rate = tiers.iter().rfind(|(after, _)| position > *after).map_or(0, |(_, rate)| *rate);
            round(base * i128::from(rate), WHOLE)
        }
    }
}

/// Goods after discounts, without tax and shipping.
pub fn net(sale: &Sale) -> i128 {
    if sale.items.is_empty() {
        i128::from(sale.total) - i128::from(sale.tax) - i128::from(sale.shipping)
    } else {
        sale.items.iter().map(|item| i128::from(item.amount)).sum()
    }
}

fn base(sale: &Sale, rule: &Rule, items: &[usize]) -> i128 {
    let whole = net(sale);
    let part = if items.is_empty() { whole } else { items.iter().map(|n| i128::from(sale.items[*n].amount)).sum() };
    let discount = i128::from(sale.discount);
    match (rule.gross, whole) {
        (false, _) => part,
        (true, 0) => part + discount,
        // Silent in the rules: a discount is known per order, and each item bears its share by amount.
        (true, _) => part + round(discount * part, whole),
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

/// What went back to the customer, whatever it was for.
pub fn cash_back(refunds: &[Refund]) -> i128 {
    refunds.iter().map(|refund| i128::from(refund.total)).sum()
}

/// Which share of the rated items (of everything, where none are named) all these refunds took, as a fraction of at most one.
pub fn refunded(sale: &Sale, refunds: &[Refund], rated: &[usize]) -> (i128, i128) {
    let mut back = Back { of_items: vec![0; sale.items.len()], ..Back::default() };
    for refund in refunds {
        back.add(sale, refund);
    }
    let whole = net(sale);
    if whole == 0 {
        // Silent in the rules: what cost nothing is refunded when something went back, and no less than was charged.
        let cash = cash_back(refunds);
        let all = (back.something || cash > 0) && cash >= i128::from(sale.total);
        return (i128::from(all), 1);
    }
    let at_large = back.at_large(sale);
    let part: i128 = rated.iter().map(|n| i128::from(sale.items[*n].amount)).sum();
    if part == 0 {
        // Silent in the rules: items that cost nothing share the order's fate.
        return ((back.of_items.iter().sum::<i128>() + at_large).min(whole), whole);
    }
    let named: i128 = rated.iter().map(|n| back.of_items[*n]).sum();
    ((named * whole + at_large * part).min(part * whole), part * whole)
}

#[derive(Default)]
struct Back {
    of_items: Vec<i128>,
    goods: i128,
    /// Totals, and totals less tax or shipping, of which goods are a share.
    totals: i128,
    untaxed: i128,
    unshipped: i128,
    something: bool,
}

impl Back {
    fn add(&mut self, sale: &Sale, refund: &Refund) {
        let less = |aside: i64| (i128::from(refund.total) - i128::from(aside)).max(0);
        match (&refund.items, refund.tax, refund.shipping) {
            (Some(items), ..) => items.iter().for_each(|item| self.add_item(sale, item)),
            (None, Some(tax), Some(shipping)) => self.goods += (less(tax) - i128::from(shipping)).max(0),
            (None, Some(tax), None) => self.untaxed += less(tax),
            (None, None, Some(shipping)) => self.unshipped += less(shipping),
            (None, None, None) => self.totals += less(0),
        }
    }

    /// Silent in the rules: what goes beyond an item, or is of no item of the order, comes off the order as a whole.
    fn add_item(&mut self, sale: &Sale, item: &Item) {
        let mut left = i128::from(item.amount);
        for (n, _) in sale.items.iter().enumerate().filter(|(_, sold)| sold.product == item.product) {
            let step = left.min(i128::from(sale.items[n].amount) - self.of_items[n]);
            self.of_items[n] += step;
            left -= step;
            self.something = true;
        }
        self.goods += left;
        self.something |= left > 0;
    }

    /// Goods that went back without being named, prorated base by total. Rounded as the rules' example is: 33.90 of 100.00.
    fn at_large(&self, sale: &Sale) -> i128 {
        let (total, tax, shipping) = (i128::from(sale.total), i128::from(sale.tax), i128::from(sale.shipping));
        let prorated = |part: i128, whole: i128| round(net(sale) * part.min(whole.max(0)), whole.max(0));
        let shares = prorated(self.totals, total) + prorated(self.untaxed, total - tax);
        self.goods + shares + prorated(self.unshipped, total - shipping)
    }
}
