//! An order as its events tell it: what was charged, by the sale and by edits that added to it, and what went back.
//!
//! Everything here is a fold of the accepted events, in the order of their acceptance. An edit is compared with the order as
//! it then is: what fell counts as a refund, what rose as an *extra sale* of its own. Of several edits the latest by their own time
//! stands; an older one that arrives later says nothing new. A withdrawn refund never was one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rust_decimal::Decimal;

use crate::conversion::{ConversionEvent, Edit, EventBody, Item, Refund, Sale};
use crate::money::{Minor, MoneyError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The sale, and then what edits added.
    parts: Vec<Part>,
    /// What it costs by now: of this, goods are that share of a total which is prorated.
    now: Charge,
    /// What was charged for it, by the sale and by edits that made it dearer.
    charged: Minor,
    back: Back,
    /// Some refund went beyond what was charged.
    pub beyond_charge: bool,
    /// Some refund or edit was in another currency than the sale, and so measures nothing.
    pub other_currency: bool,
}

/// The sale itself, or what one edit added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The edit's id.
    pub edit: Option<String>,
    pub occurred_at: Timestamp,
    pub sale: Sale,
}

impl Order {
    /// `None` where the sale has not arrived.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a ConversionEvent>) -> Result<Option<Self>, MoneyError> {
        let events: Vec<_> = events.into_iter().collect();
        let Some((event, sale)) = events.iter().find_map(|event| event.body.sale().map(|sale| (*event, sale))) else {
            return Ok(None);
        };
        let (events, other): (Vec<_>, Vec<_>) =
            events.iter().copied().partition(|event| event.currency().is_none_or(|currency| currency == sale.currency));
        let mut parts = vec![Part { edit: None, occurred_at: event.occurred_at, sale: sale.clone() }];
        let withdrawn: BTreeSet<_> = events.iter().filter_map(|event| withdrawn(event)).collect();
        let mut refunds = Vec::new();
        let mut charged = sale.total;
        let mut now = (event.occurred_at, Charge::of(sale));
        for event in &events {
            match &event.body {
                EventBody::Refund(refund) if !withdrawn.contains(event.id.as_str()) => refunds.push(refund.clone()),
                EventBody::Edit(edit) if event.occurred_at >= now.0 => {
                    let after = Charge::edited(edit);
                    let (fell, rose) = now.1.compare(&after)?;
                    charged = charged.plus(after.total.minus(now.1.total)?.max(Minor::ZERO))?;
                    refunds.extend(fell.map(|fell| fell.refund(edit)));
                    if let Some(rose) = rose {
                        let sale = rose.sale(sale);
                        parts.push(Part { edit: Some(event.id.clone()), occurred_at: event.occurred_at, sale });
                    }
                    now = (event.occurred_at, after);
                }
                _ => {}
            }
        }
        let mut back = Back::default();
        for refund in &refunds {
            back.add(&parts, refund);
        }
        back.clamp(&parts);
        let beyond_charge = back.cash > i128::from(charged.units());
        Ok(Some(Self { parts, now: now.1, charged, back, beyond_charge, other_currency: !other.is_empty() }))
    }

    /// Never empty: the sale comes first.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub fn part(&self, edit: Option<&str>) -> Option<&Part> {
        self.parts.iter().find(|part| part.edit.as_deref() == edit)
    }

    /// The refunded share of some of a part's items (all of it where `items` is empty), as an exact fraction between zero and
    /// one: (numerator, denominator).
    ///
    /// What was refunded without naming items fills the parts in turn, and within a part what was not refunded by name. Items that
    /// cost nothing share their part's fate. An order that cost nothing is refunded when all that was charged for it,
    /// which may be nothing either, has gone back.
    pub fn share(&self, edit: Option<&str>, items: &[usize]) -> Result<(i128, i128), MoneyError> {
        let mut general = self.back.general(&self.now)?;
        for (at, part) in self.parts.iter().enumerate() {
            let net = i128::from(part.sale.net()?.units());
            let named = self.back.named(at, &part.sale, |_| true);
            let rest = net - named;
            let own = general.clamp(0, rest);
            if part.edit.as_deref() != edit {
                general -= own;
                continue;
            }
            if net == 0 {
                return Ok((i128::from(self.is_wholly_back()), 1));
            }
            let amounts = items.iter().filter_map(|position| part.sale.items.get(*position)).map(|item| item.amount);
            let amount = i128::from(Minor::total(amounts)?.units());
            return Ok(if amount == 0 {
                (named + own, net)
            } else {
                let of_items = self.back.named(at, &part.sale, |position| items.contains(&position));
                if rest == 0 {
                    (of_items, amount)
                } else {
                    // (named + own x (amount - named) / rest) / amount
                    (of_items * rest + own * (amount - of_items), amount * rest)
                }
            });
        }
        Ok((0, 1))
    }

    fn is_wholly_back(&self) -> bool {
        self.back != Back::default() && self.back.cash >= i128::from(self.charged.units())
    }
}

/// The id of the refund an event takes back.
fn withdrawn(event: &ConversionEvent) -> Option<&str> {
    match &event.body {
        EventBody::Withdrawal(withdrawal) => Some(withdrawal.refund.as_str()),
        _ => None,
    }
}

/// What an order costs at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Charge {
    items: Vec<Item>,
    total: Minor,
    tax: Minor,
    shipping: Minor,
    discount: Minor,
    store_credit: Minor,
}

impl Charge {
    fn of(sale: &Sale) -> Self {
        let Sale { items, total, tax, shipping, discount, store_credit, .. } = sale.clone();
        Self { items, total, tax, shipping, discount, store_credit }
    }

    fn edited(edit: &Edit) -> Self {
        let Edit { items, total, tax, shipping, discount, store_credit, .. } = edit.clone();
        Self { items, total, tax, shipping, discount, store_credit }
    }

    fn net(&self) -> Result<Minor, MoneyError> {
        if self.items.is_empty() {
            self.total.minus(self.tax)?.minus(self.shipping)
        } else {
            Minor::total(self.items.iter().filter(|item| !item.gift_card).map(|item| item.amount))
        }
    }

    /// What fell and what rose. Item by item where both tell items, else by what the goods cost together.
    fn compare(&self, after: &Self) -> Result<(Option<Self>, Option<Self>), MoneyError> {
        let rise = |before: Minor, after: Minor| Ok::<_, MoneyError>(after.minus(before)?.max(Minor::ZERO));
        let moved = |items: Vec<Item>, from: &Self, to: &Self| {
            Ok::<_, MoneyError>(Self {
                items,
                total: rise(from.total, to.total)?,
                tax: rise(from.tax, to.tax)?,
                shipping: rise(from.shipping, to.shipping)?,
                discount: rise(from.discount, to.discount)?,
                store_credit: rise(from.store_credit, to.store_credit)?,
            })
        };
        if !self.items.is_empty() && !after.items.is_empty() {
            let (fell, rose) = (differences(&after.items, &self.items)?, differences(&self.items, &after.items)?);
            let fell = if fell.is_empty() { None } else { Some(moved(fell, after, self)?) };
            let rose = if rose.is_empty() { None } else { Some(moved(rose, self, after)?) };
            return Ok((fell, rose));
        }
        let store_credit = rise(self.store_credit, after.store_credit)?;
        let goods = |amount: Minor| {
            // A part of an order with items is an item, too, if only one without a name.
            let item =
                Item { sku: None, product: None, category: None, quantity: Decimal::ONE, amount, gift_card: false };
            let items = if self.items.is_empty() && after.items.is_empty() { Vec::new() } else { vec![item] };
            let store_credit = store_credit.min(amount);
            Self { items, total: amount, tax: Minor::ZERO, shipping: Minor::ZERO, discount: Minor::ZERO, store_credit }
        };
        let difference = after.net()?.minus(self.net()?)?;
        Ok((
            difference.is_negative().then(|| goods(difference.negated())),
            difference.is_positive().then(|| goods(difference)),
        ))
    }

    /// What fell, as the refund it acts as.
    fn refund(self, edit: &Edit) -> Refund {
        let goods_only = self.items.is_empty();
        Refund {
            conversion: edit.conversion.clone(),
            currency: edit.currency,
            total: self.total,
            tax: goods_only.then_some(Minor::ZERO),
            shipping: goods_only.then_some(Minor::ZERO),
            items: Some(self.items).filter(|items| !items.is_empty()),
            reason: None,
            chargeback: false,
        }
    }

    /// What rose, as an extra sale.
    fn sale(self, of: &Sale) -> Sale {
        let Self { items, total, tax, shipping, discount, store_credit } = self;
        let store_credit = store_credit.min(total);
        Sale { total, tax, shipping, discount, store_credit, items, ..of.clone() }
    }
}

/// By how much each item costs more in `after` than in `before`. One product may stand on several lines.
fn differences(before: &[Item], after: &[Item]) -> Result<Vec<Item>, MoneyError> {
    let mut more = Vec::new();
    let mut seen: Vec<&Item> = Vec::new();
    for item in after {
        if seen.iter().any(|other| other.is(item)) {
            continue;
        }
        seen.push(item);
        let of = |items: &[Item]| -> Result<(Minor, Decimal), MoneyError> {
            let same = || items.iter().filter(|other| other.is(item) || *other == item);
            Ok((Minor::total(same().map(|item| item.amount))?, same().map(|item| item.quantity).sum()))
        };
        let ((was, had), (is, has)) = (of(before)?, of(after)?);
        let amount = is.minus(was)?;
        if amount.is_positive() {
            more.push(Item { amount, quantity: (has - had).max(Decimal::ZERO), ..item.clone() });
        }
    }
    Ok(more)
}

/// What has gone back to the customer so far, kept exact: named items apart from what must be prorated.
///
/// A refund counts by what is known of it: its items; else its goods, where tax and shipping are told; else a share of the total,
/// in proportion to what goods are of the order's total by now (less tax, or less shipping, where only that one is told).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Back {
    /// Refunded amount per part and item position, gift cards included.
    per_item: BTreeMap<(usize, usize), i128>,
    /// Goods refunded without naming items, in base.
    goods: i128,
    /// Totals of which nothing else is known.
    mixed: i128,
    /// Totals less tax.
    mixed_without_tax: i128,
    /// Totals less shipping.
    mixed_without_shipping: i128,
    /// Everything that went back, goods or not.
    cash: i128,
}

impl Back {
    fn add(&mut self, parts: &[Part], refund: &Refund) {
        let total = i128::from(refund.total.units());
        let less = |aside: Minor| (total - i128::from(aside.units())).max(0);
        self.cash += total;
        match (&refund.items, refund.tax, refund.shipping) {
            (Some(items), ..) => {
                for item in items {
                    self.add_item(parts, item);
                }
            }
            (None, Some(tax), Some(shipping)) => self.goods += (less(tax) - i128::from(shipping.units())).max(0),
            (None, Some(tax), None) => self.mixed_without_tax += less(tax),
            (None, None, Some(shipping)) => self.mixed_without_shipping += less(shipping),
            (None, None, None) => self.mixed += total,
        }
    }

    fn add_item(&mut self, parts: &[Part], refunded: &Item) {
        // One product may stand on several lines: fill them in turn, so that returning both ends at both.
        let mut left = i128::from(refunded.amount.units());
        let mut last = None;
        for (at, part) in parts.iter().enumerate() {
            for (position, item) in part.sale.items.iter().enumerate().filter(|(_, item)| item.is(refunded)) {
                let taken = self.per_item.entry((at, position)).or_default();
                let step = left.min(i128::from(item.amount.units()) - *taken).max(0);
                *taken += step;
                left -= step;
                last = Some((at, position));
            }
        }
        match last {
            Some(place) => *self.per_item.entry(place).or_default() += left,
            // Of a gift card nothing was earned, so nothing is taken back.
            None if refunded.gift_card => {}
            None => self.goods += left,
        }
    }

    fn clamp(&mut self, parts: &[Part]) {
        for ((at, position), taken) in &mut self.per_item {
            let Some(item) = parts.get(*at).and_then(|part| part.sale.items.get(*position)) else { continue };
            let beyond = (*taken - i128::from(item.amount.units())).max(0);
            *taken -= beyond;
            // What is more than the item cost comes off the whole order, unless it was no goods at all.
            if !item.gift_card {
                self.goods += beyond;
            }
        }
    }

    fn named(&self, part: usize, sale: &Sale, counts: impl Fn(usize) -> bool) -> i128 {
        let goods = self.per_item.iter().filter(|((at, position), _)| {
            *at == part && counts(*position) && sale.items.get(*position).is_some_and(|item| !item.gift_card)
        });
        goods.map(|(_, taken)| *taken).sum()
    }

    /// Goods refunded without naming items. What is prorated is rounded to whole minor units, once per kind, on its sum.
    fn general(&self, order: &Charge) -> Result<i128, MoneyError> {
        let net = order.net()?;
        let mut general = self.goods;
        for (part, whole) in [
            (self.mixed, order.total),
            (self.mixed_without_tax, order.total.minus(order.tax)?),
            (self.mixed_without_shipping, order.total.minus(order.shipping)?),
        ] {
            // Gift cards may leave less to charge than tax and shipping alone.
            let whole = i128::from(whole.units()).max(0);
            general += i128::from(net.proportion(part.min(whole), whole)?.units());
        }
        Ok(general)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::conversion::Withdrawal;
    use crate::conversion::tests::{minor, refund, sale};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn event(id: &str, second: i64, body: EventBody) -> ConversionEvent {
        ConversionEvent { id: id.into(), occurred_at: at(second), body }
    }

    /// An order of a sale and refunds, as it is after them.
    pub(crate) fn order<'a>(sale: &Sale, refunds: impl IntoIterator<Item = &'a Refund>) -> Order {
        let mut events = vec![event("1", 0, EventBody::Sale(sale.clone()))];
        let refunds = refunds.into_iter().enumerate();
        events.extend(refunds.map(|(n, refund)| event(&format!("r{n}"), 1, EventBody::Refund(refund.clone()))));
        Order::of(&events).unwrap().unwrap()
    }

    fn edit(id: &str, second: i64, to: &Sale) -> ConversionEvent {
        let Sale { currency, total, tax, shipping, discount, store_credit, items, .. } = to.clone();
        event(
            id,
            second,
            EventBody::Edit(Edit {
                conversion: "1".into(),
                currency,
                total,
                tax,
                shipping,
                discount,
                store_credit,
                items,
            }),
        )
    }

    fn taken(earned: i64, (numerator, denominator): (i128, i128)) -> i64 {
        minor(earned).proportion(numerator, denominator).unwrap().units()
    }

    fn reduction(earned: i64, sale: &Sale, refunds: &[Refund]) -> i64 {
        taken(earned, order(sale, refunds).share(None, &[]).unwrap())
    }

    #[test]
    fn an_increase_is_an_extra_sale_and_a_decrease_a_refund() {
        let first = event("1", 0, EventBody::Sale(sale(10_000, 0, &[])));
        let up = edit("e1", 10, &sale(15_000, 0, &[]));
        let down = edit("e2", 20, &sale(12_000, 0, &[]));
        let whole = Order::of([&first, &up, &down]).unwrap().unwrap();
        assert_eq!(whole.part(Some("e1")).unwrap().sale.net().unwrap(), minor(5_000));
        // 30.00 fell of 150.00: the sale itself is filled first.
        assert_eq!(taken(1_000, whole.share(None, &[]).unwrap()), 300);
        assert_eq!(taken(500, whole.share(Some("e1"), &[]).unwrap()), 0);
        // In the other order the older edit says nothing new.
        let late = Order::of([&first, &down, &up]).unwrap().unwrap();
        assert_eq!(late.part(Some("e2")).unwrap().sale.net().unwrap(), minor(2_000));
        assert_eq!(late.parts().len(), 2);
        assert_eq!(taken(1_000, late.share(None, &[]).unwrap()), 0);
    }

    #[test]
    fn an_edit_compares_item_by_item() {
        let first = event("1", 0, EventBody::Sale(sale(10_000, 0, &[("A", 4_000), ("B", 6_000)])));
        let swapped = edit("e1", 10, &sale(10_000, 0, &[("A", 7_000), ("C", 3_000)]));
        let order = Order::of([&first, &swapped]).unwrap().unwrap();
        let extra: Vec<_> = order.part(Some("e1")).unwrap().sale.items.iter().map(|item| item.amount.units()).collect();
        assert_eq!(extra, [3_000, 3_000]);
        assert_eq!(taken(100, order.share(None, &[0]).unwrap()), 0);
        assert_eq!(taken(100, order.share(None, &[1]).unwrap()), 100);
        assert!(!order.beyond_charge);
    }

    #[test]
    fn an_edit_that_changes_no_goods_changes_nothing() {
        let first = event("1", 0, EventBody::Sale(sale(11_800, 1_800, &[])));
        let taxed = edit("e1", 10, &sale(12_000, 2_000, &[]));
        let order = Order::of([&first, &taxed]).unwrap().unwrap();
        assert_eq!((order.parts().len(), order.share(None, &[]).unwrap().0), (1, 0));
    }

    #[test]
    fn a_total_is_prorated_by_the_order_as_it_was_edited_to_be() {
        let half = |edited: &Sale, total: i64| {
            let first = event("1", 0, EventBody::Sale(sale(12_000, 2_000, &[("A", 4_000), ("B", 6_000)])));
            let events = [edit("e1", 10, edited), event("r1", 20, EventBody::Refund(refund(total)))];
            let order = Order::of([&first, &events[0], &events[1]]).unwrap().unwrap();
            assert!(!order.beyond_charge);
            let earned = |edit, net| taken(net, order.share(edit, &[]).unwrap());
            (earned(None, 10_000), earned(Some("e1"), 6_000))
        };
        // B went, C came at the same price: half of the new order is 50.00 of goods, beside the 60.00 that went.
        assert_eq!(half(&sale(12_000, 2_000, &[("A", 4_000), ("C", 6_000)]), 6_000), (10_000, 1_000));
        // Twice as dear, without items: half of it is as much as the sale was.
        assert_eq!(half(&sale(24_000, 4_000, &[]), 12_000).0, 10_000);
        assert_eq!(half(&sale(24_000, 4_000, &[]), 24_000), (10_000, 6_000));
    }

    #[test]
    fn a_withdrawn_refund_never_was_one_whatever_came_first() {
        let first = event("1", 0, EventBody::Sale(sale(10_000, 0, &[])));
        let back = event("r1", 1, EventBody::Refund(refund(4_000)));
        let won = Withdrawal { conversion: "1".into(), refund: "r1".into(), reason: None };
        let won = event("w1", 2, EventBody::Withdrawal(won));
        for events in [[&first, &back, &won], [&won, &first, &back], [&back, &won, &first]] {
            assert_eq!(Order::of(events).unwrap().unwrap().share(None, &[]).unwrap().0, 0);
        }
    }

    #[test]
    fn what_is_refunded_by_name_and_by_amount_together_ends_at_the_whole() {
        let goods = sale(10_000, 0, &[("A", 5_000), ("B", 5_000)]);
        let mut named = refund(5_000);
        named.items = Some(goods.items[..1].to_vec());
        let order = order(&goods, [&named, &refund(5_000)]);
        assert_eq!(taken(500, order.share(None, &[0]).unwrap()), 500);
        assert_eq!(taken(500, order.share(None, &[1]).unwrap()), 500);
    }

    #[test]
    fn a_total_only_refund_is_prorated_into_base() {
        // 118.00 with 18.00 tax, 30 % earned; 40.00 back is 33.90 of base, so 10.17.
        assert_eq!(reduction(3_000, &sale(11_800, 1_800, &[]), &[refund(4_000)]), 1_017);
        // 25 % of 100.00, then 40.00 refunded.
        assert_eq!(reduction(2_500, &sale(10_000, 0, &[]), &[refund(4_000)]), 1_000);
        // Earning 2, charge 3, refund 1.
        assert_eq!(reduction(2, &sale(3, 0, &[]), &[refund(1)]), 1);
    }

    #[test]
    fn what_is_told_in_another_currency_measures_nothing_and_is_told() {
        let goods = sale(10_000, 0, &[]);
        let other = Refund { currency: "EUR".parse().unwrap(), ..refund(4_000) };
        let told =
            |of: &Refund| (order(&goods, [of]).other_currency, reduction(1_000, &goods, std::slice::from_ref(of)));
        assert_eq!((told(&other), told(&refund(4_000))), ((true, 0), (false, 400)));
    }

    #[test]
    fn tax_or_shipping_alone_takes_nothing_back() {
        let mut tax_only = refund(1_800);
        tax_only.tax = Some(minor(1_800));
        assert_eq!(reduction(3_000, &sale(11_800, 1_800, &[]), &[tax_only]), 0);
    }

    #[test]
    fn any_sequence_of_partials_ends_at_the_whole() {
        let goods = sale(11_800, 1_800, &[]);
        for step in [1, 7, 590, 3_933] {
            let mut refunds = vec![refund(step); 11_800 / usize::try_from(step).unwrap()];
            refunds.push(refund(11_800 % step));
            assert_eq!(reduction(2_999, &goods, &refunds), 2_999, "in steps of {step}");
        }
    }

    #[test]
    fn beyond_the_charge_is_clamped_and_told() {
        let goods = sale(10_000, 0, &[]);
        assert!(order(&goods, &[refund(9_000), refund(2_000)]).beyond_charge);
        assert_eq!(reduction(2_500, &goods, &[refund(9_000), refund(2_000)]), 2_500);
    }

    #[test]
    fn a_named_item_takes_back_only_what_was_earned_on_it() {
        let goods = sale(10_000, 0, &[("A", 4_000), ("B", 6_000)]);
        let mut back = refund(4_000);
        back.items = Some(goods.items[..1].to_vec());
        let refunded = order(&goods, &[back]);
        let of = |items: &[usize]| {
            let (n, d) = refunded.share(None, items).unwrap();
            minor(1_000).proportion(n, d).unwrap().units()
        };
        assert_eq!((of(&[0]), of(&[1]), of(&[])), (1_000, 0, 400));
    }

    #[test]
    fn a_refunded_gift_card_takes_nothing_back() {
        let mut goods = sale(10_000, 0, &[("CARD", 5_000), ("A", 5_000)]);
        goods.items[0].gift_card = true;
        let mut back = refund(5_000);
        // Our own form names the item and not what kind it is.
        back.items = Some(vec![Item { gift_card: false, ..goods.items[0].clone() }]);
        let (part, whole) = order(&goods, &[back]).share(None, &[1]).unwrap();
        assert_eq!(minor(500).proportion(part, whole).unwrap(), minor(0));
    }

    #[test]
    fn what_is_not_told_of_a_refund_is_prorated() {
        let goods = sale(11_800, 1_800, &[]);
        let with = |total, tax: Option<i64>, shipping: Option<i64>| {
            let mut back = refund(total);
            (back.tax, back.shipping) = (tax.map(minor), shipping.map(minor));
            back
        };
        assert_eq!(reduction(3_000, &goods, &[with(4_000, None, Some(0))]), 1_017);
        assert_eq!(reduction(3_000, &goods, &[with(4_000, Some(610), None)]), 1_017);
        assert_eq!(reduction(3_000, &goods, &[with(4_000, Some(610), Some(0))]), 1_017);
        let whole = with(11_800, None, Some(0));
        assert!(!order(&goods, [&whole]).beyond_charge);
        assert_eq!(reduction(3_000, &goods, &[whole]), 3_000);
        assert!(order(&goods, [&with(500_000, Some(500_000), None)]).beyond_charge);
    }

    #[test]
    fn an_order_paid_by_gift_card_is_not_refunded_by_itself() {
        let mut goods = sale(1_000, 1_800, &[("A", 10_000)]);
        goods.shipping = minor(1_500);
        assert_eq!(reduction(1_000, &goods, &[]), 0);
        let mut shipping_only = refund(500);
        shipping_only.shipping = Some(minor(500));
        assert_eq!(reduction(1_000, &goods, &[shipping_only]), 0);
        let mut back = refund(5_000);
        back.items = Some(vec![Item { amount: minor(5_000), ..goods.items[0].clone() }]);
        assert_eq!(reduction(1_000, &goods, &[back]), 500);
    }

    fn named(items: &[(&str, i64)]) -> Refund {
        let total = items.iter().map(|(_, amount)| amount).sum();
        Refund { items: Some(sale(0, 0, items).items), ..refund(total) }
    }

    /// What of 1,000 earned on each item a refund takes.
    fn of_each(goods: &Sale, refunds: &[Refund]) -> Vec<i64> {
        let order = order(goods, refunds);
        (0..goods.items.len()).map(|n| taken(1_000, order.share(None, &[n]).unwrap())).collect()
    }

    #[test]
    fn a_product_on_several_lines_goes_back_line_by_line() {
        let goods = sale(10_000, 0, &[("A", 2_000), ("B", 5_000), ("A", 3_000)]);
        assert_eq!(of_each(&goods, &[named(&[("A", 1_000)])]), [500, 0, 0]);
        assert_eq!(of_each(&goods, &[named(&[("A", 3_500)])]), [1_000, 0, 500]);
        assert_eq!(of_each(&goods, &[named(&[("A", 1_500)]), named(&[("A", 3_500)])]), [1_000, 0, 1_000]);
    }

    #[test]
    fn what_goes_beyond_an_item_or_is_none_of_the_order_comes_off_the_rest() {
        let goods = sale(10_000, 0, &[("A", 4_000), ("B", 6_000)]);
        assert_eq!(of_each(&goods, &[named(&[("A", 4_000)])]), [1_000, 0], "exactly the item");
        assert_eq!(of_each(&goods, &[named(&[("A", 7_000)])]), [1_000, 500]);
        assert_eq!(of_each(&goods, &[named(&[("C", 5_000)])]), [500, 500]);
        let mut cards = sale(10_000, 0, &[("CARD", 5_000), ("A", 5_000)]);
        cards.items[0].gift_card = true;
        assert_eq!(of_each(&cards, &[named(&[("CARD", 9_000)])])[1], 0, "no goods, however much of it");
        let mut other = named(&[("OTHER", 3_000)]);
        other.items.iter_mut().flatten().for_each(|item| item.gift_card = true);
        assert_eq!(of_each(&cards, &[other])[1], 0, "nor another card");
    }

    #[test]
    fn tax_beyond_a_refund_takes_nothing_back_and_gives_nothing() {
        let mut strange = refund(1_000);
        (strange.tax, strange.shipping) = (Some(minor(800)), Some(minor(700)));
        assert_eq!(reduction(1_000, &sale(10_000, 0, &[]), &[strange]), 0);
        let mut known = refund(5_000);
        (known.tax, known.shipping) = (Some(minor(1_000)), Some(minor(500)));
        assert_eq!(reduction(1_000, &sale(10_000, 0, &[]), &[known]), 350, "35.00 of 100.00");
    }

    #[test]
    fn an_order_that_cost_nothing_is_back_when_all_that_was_charged_is() {
        let mut shipped = sale(500, 0, &[]);
        shipped.shipping = minor(500);
        let share = |total: i64| order(&shipped, &[refund(total)]).share(None, &[]).unwrap();
        assert_eq!((share(499), share(500)), ((0, 1), (1, 1)));
    }

    #[test]
    fn of_several_edits_of_one_moment_the_last_accepted_stands() {
        let first = event("1", 0, EventBody::Sale(sale(10_000, 0, &[])));
        let (up, more) = (edit("e1", 10, &sale(12_000, 0, &[])), edit("e2", 10, &sale(13_000, 0, &[])));
        let order = Order::of([&first, &up, &more]).unwrap().unwrap();
        let nets: Vec<_> = order.parts().iter().map(|part| part.sale.net().unwrap().units()).collect();
        assert_eq!(nets, [10_000, 2_000, 1_000]);
    }

    #[test]
    fn what_an_edit_adds_says_how_much_of_what_with_its_tax_shipping_discount_and_store_credit() {
        let mut first = sale(11_000, 1_000, &[("A", 4_000), ("A", 1_000), ("B", 5_000)]);
        first.items[0].quantity = 2.into();
        first.store_credit = minor(100);
        let mut then = sale(23_000, 3_000, &[("A", 9_000), ("B", 5_000), ("C", 3_000)]);
        (then.shipping, then.discount, then.store_credit) = (minor(3_000), minor(700), minor(900));
        then.items[0].quantity = 5.into();
        let (first, then) = (event("1", 0, EventBody::Sale(first)), edit("e1", 10, &then));
        let order = Order::of([&first, &then]).unwrap().unwrap();
        let added = &order.part(Some("e1")).unwrap().sale;
        let items: Vec<_> =
            added.items.iter().map(|item| (item.sku.as_deref().unwrap(), item.quantity, item.amount.units())).collect();
        assert_eq!(items, [("A", 2.into(), 4_000), ("C", 1.into(), 3_000)]);
        let rest = [added.total, added.tax, added.shipping, added.discount, added.store_credit].map(Minor::units);
        assert_eq!(rest, [12_000, 2_000, 3_000, 700, 800]);
    }

    #[test]
    fn an_edit_of_which_only_one_side_tells_items_is_compared_by_what_the_goods_cost() {
        let items = sale(10_000, 0, &[("A", 4_000), ("B", 6_000)]);
        let first = event("1", 0, EventBody::Sale(items.clone()));
        let up = edit("e1", 10, &sale(15_000, 0, &[]));
        let order = Order::of([&first, &up]).unwrap().unwrap();
        let added = &order.part(Some("e1")).unwrap().sale;
        assert_eq!((added.items.len(), added.net().unwrap()), (1, minor(5_000)), "an item without a name");
        let plain = event("1", 0, EventBody::Sale(sale(10_000, 0, &[])));
        let named = edit("e1", 10, &sale(15_000, 0, &[("A", 15_000)]));
        let order = Order::of([&plain, &named]).unwrap().unwrap();
        assert_eq!(order.part(Some("e1")).unwrap().sale.items.len(), 1);
        let totals = edit("e1", 10, &sale(15_000, 0, &[]));
        let order = Order::of([&plain, &totals]).unwrap().unwrap();
        assert!(order.part(Some("e1")).unwrap().sale.items.is_empty());
        let down = Order::of([&first, &edit("e1", 10, &sale(5_000, 0, &[]))]).unwrap().unwrap();
        assert_eq!([0, 1].map(|n| taken(1_000, down.share(None, &[n]).unwrap())), [500, 500]);
    }

    #[test]
    fn what_cost_nothing_shares_the_fate_of_its_order() {
        let goods = sale(10_000, 0, &[("FREE", 0), ("A", 10_000)]);
        let of = |refunds: &[Refund], items: &[usize]| order(&goods, refunds).share(None, items).unwrap();
        let (part, whole) = of(&[refund(10_000)], &[0]);
        assert_eq!(part, whole);
        let (part, whole) = of(&[refund(5_000)], &[0]);
        assert_eq!(part * 2, whole);
        let free = sale(0, 0, &[]);
        assert_eq!(order(&free, []).share(None, &[]).unwrap(), (0, 1));
        assert_eq!(order(&free, &[refund(0)]).share(None, &[]).unwrap(), (0, 1), "nothing happened");
    }
}
