//! An order as its events tell it: what was sold at first, what edits added, and which share of each went back.

use std::collections::BTreeSet;

use super::rates::round;
use crate::told::{Edit, Item, Refund, Sale};

/// What was charged at once: the sale, or what an edit added to it.
#[derive(Debug, Clone)]
pub struct Part {
    /// The edit's id.
    pub edit: Option<String>,
    pub items: Vec<Item>,
    pub total: i128,
    pub tax: i128,
    pub shipping: i128,
    pub discount: i128,
    pub store_credit: i128,
}

impl Part {
    /// Goods after discounts, without tax and shipping.
    pub fn net(&self) -> i128 {
        if self.items.is_empty() { self.total - self.tax - self.shipping } else { amounts(&self.items) }
    }

    fn of_sale(sale: &Sale) -> Self {
        let [total, tax, shipping, discount] = [sale.total, sale.tax, sale.shipping, sale.discount].map(i128::from);
        let store_credit = sale.store_credit.into();
        Self { edit: None, items: sale.items.clone(), total, tax, shipping, discount, store_credit }
    }

    fn of_edit(edit: &Edit) -> Self {
        let [total, tax, shipping, discount] = [edit.total, edit.tax, edit.shipping, edit.discount].map(i128::from);
        let store_credit = edit.store_credit.into();
        Self { edit: Some(edit.id.clone()), items: edit.items.clone(), total, tax, shipping, discount, store_credit }
    }
}

fn amounts(items: &[Item]) -> i128 {
    items.iter().filter(|item| item.is_goods()).map(|item| i128::from(item.amount)).sum()
}

/// Of what went back by name of each item, what was goods.
fn goods(items: &[Item], named: &[i128]) -> i128 {
    items.iter().zip(named).filter(|(item, _)| item.is_goods()).map(|(_, named)| named).sum()
}

#[derive(Debug, Clone)]
pub struct Order {
    pub parts: Vec<Part>,
    /// The order as it now is.
    now: Part,
    /// Goods that went back by name, per part and item.
    named: Vec<Vec<i128>>,
    /// Goods that went back without a name.
    goods: i128,
    /// Totals that went back, and totals less tax or shipping, of which goods are a share.
    totals: [i128; 3],
    something: bool,
    /// What went back by refunds and edits, whatever it was for.
    cash: i128,
    /// What customers got back by refunds.
    pub cash_back: i128,
    pub charged: i128,
}

impl Order {
    /// `edits` in the order in which they were accepted; `withdrawn` has the ids of refunds that do not stand.
    pub fn of(sale: &Sale, edits: &[Edit], refunds: &[Refund], withdrawn: &BTreeSet<String>) -> Self {
        let sold = Part::of_sale(sale);
        let mut order = Self {
            charged: sold.total,
            now: sold.clone(),
            parts: vec![sold],
            named: Vec::new(),
            goods: 0,
            totals: [0; 3],
            something: false,
            cash: 0,
            cash_back: 0,
        };
        let (mut latest, mut fallen) = (sale.occurred_at, Vec::new());
        // What is in another currency than the sale measures nothing.
        for edit in edits.iter().filter(|edit| edit.currency == sale.currency) {
            // Of several edits the latest counts; an older one that comes later has no effect.
            if edit.occurred_at >= latest {
                latest = edit.occurred_at;
                order.edit(Part::of_edit(edit), &mut fallen);
            }
        }
        order.named = order.parts.iter().map(|part| vec![0; part.items.len()]).collect();
        let stands = |refund: &&Refund| refund.currency == sale.currency && !withdrawn.contains(&refund.id);
        for refund in refunds.iter().filter(stands) {
            order.refund(refund);
        }
        order.take(&fallen);
        order
    }

    /// Item by item where both tell items, else by what the goods cost together.
    fn edit(&mut self, then: Part, fallen: &mut Vec<Item>) {
        let rise = then.total - self.now.total;
        let mut added = Part { items: vec![], total: rise.max(0), tax: 0, shipping: 0, discount: 0, ..then.clone() };
        let rises = if self.now.items.is_empty() || then.items.is_empty() {
            let more = then.net() - self.now.net();
            added.total = more.max(0);
            self.goods += (-more).max(0);
            self.something |= more < 0;
            more > 0
        } else {
            let mut products: Vec<_> = self.now.items.iter().chain(&then.items).map(|item| item.product).collect();
            products.sort_unstable();
            products.dedup();
            for product in products {
                let of = |part: &Part| -> (Option<Item>, i64, i64) {
                    let same = part.items.iter().filter(|item| item.product == product);
                    same.fold((None, 0, 0), |sum, item| {
                        (Some(item.clone()), sum.1 + item.quantity, sum.2 + item.amount)
                    })
                };
                let (was, is) = (of(&self.now), of(&then));
                let Some(item) = is.0.or(was.0) else { continue };
                let (quantity, amount) = (is.1 - was.1, is.2 - was.2);
                if amount < 0 {
                    fallen.push(Item { quantity: 0, amount: -amount, ..item });
                } else if amount > 0 {
                    added.items.push(Item { quantity: quantity.max(0), amount, ..item });
                }
            }
            // As the edit has them.
            added.items.sort_by_key(|item| then.items.iter().position(|other| other.product == item.product));
            (added.tax, added.shipping) =
                ((then.tax - self.now.tax).max(0), (then.shipping - self.now.shipping).max(0));
            added.discount = (then.discount - self.now.discount).max(0);
            !added.items.is_empty()
        };
        // What it adds bears the store credit that it adds.
        added.store_credit = (then.store_credit - self.now.store_credit).clamp(0, added.total);
        self.cash += (-rise).max(0);
        self.charged += rise.max(0);
        self.now = then;
        if rises {
            self.parts.push(added);
        }
    }

    fn refund(&mut self, refund: &Refund) {
        let total = i128::from(refund.total);
        let less = |aside: i64| (total - i128::from(aside)).max(0);
        self.cash += total;
        self.cash_back += total;
        self.something |= total > 0;
        match (&refund.items, refund.tax, refund.shipping) {
            (Some(items), ..) => self.take(items),
            (None, Some(tax), Some(shipping)) => self.goods += (less(tax) - i128::from(shipping)).max(0),
            (None, Some(tax), None) => self.totals[1] += less(tax),
            (None, None, Some(shipping)) => self.totals[2] += less(shipping),
            (None, None, None) => self.totals[0] += total,
        }
    }

    /// Silent in the rules: what goes beyond an item, or is of no item of the order, comes off the order as a whole.
    fn take(&mut self, items: &[Item]) {
        for item in items {
            let mut left = i128::from(item.amount);
            for (part, named) in self.parts.iter().zip(&mut self.named) {
                for (sold, named) in part.items.iter().zip(named).filter(|(sold, _)| sold.product == item.product) {
                    let step = left.min(i128::from(sold.amount) - *named);
                    *named += step;
                    left -= step;
                    self.something = true;
                }
            }
            // Of a gift card nothing was earned.
            self.goods += if item.is_goods() { left } else { 0 };
            self.something |= left > 0;
        }
    }

    /// Goods that went back without being named. A total is prorated base by total, of the order as it now is, and rounded as in the
    /// rules' example: 33.90 of 100.00.
    fn general(&self) -> i128 {
        let Part { total, tax, shipping, .. } = self.now;
        let wholes = [total, total - tax, total - shipping].map(|whole| whole.max(0));
        let shares = self.totals.iter().zip(wholes);
        self.goods + shares.map(|(part, whole)| round(self.now.net() * (*part).min(whole), whole)).sum::<i128>()
    }

    /// Which share of some items of a part (of all of it, where none are named) went back, as a fraction of at most one. What names no
    /// items comes off the sale first, then off what edits added, in turn.
    pub fn refunded(&self, part: usize, rated: &[usize]) -> (i128, i128) {
        let mut general = self.general();
        for (at, before) in self.parts.iter().enumerate().take(part) {
            general -= general.min(before.net() - goods(&before.items, &self.named[at]));
        }
        let whole = self.parts[part].net();
        if whole == 0 {
            // Silent in the rules: what cost nothing is refunded when something went back, and no less than was charged.
            return (i128::from(self.something && self.cash >= self.charged), 1);
        }
        let all = goods(&self.parts[part].items, &self.named[part]);
        let rest = whole - all;
        let general = general.clamp(0, rest);
        let sum: i128 = rated.iter().map(|n| i128::from(self.parts[part].items[*n].amount)).sum();
        let named: i128 = rated.iter().map(|n| self.named[part][*n]).sum();
        match (sum, rest) {
            // Silent in the rules: items that cost nothing share the order's fate.
            (0, _) => (all + general, whole),
            (_, 0) => (named, sum),
            // Silent in the rules: what names no item comes off what went not back by name.
            _ => (named * rest + general * (sum - named), sum * rest),
        }
    }
}
