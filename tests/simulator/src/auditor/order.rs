//! An order as its events tell it: what was sold at first, what edits added, and which share of each went back.

use std::collections::BTreeSet;

use super::rates::{net_of, round};
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
}

impl Part {
    /// Goods after discounts, without tax and shipping.
    pub fn net(&self) -> i128 {
        if self.items.is_empty() { self.total - self.tax - self.shipping } else { amounts(&self.items) }
    }
}

fn amounts(items: &[Item]) -> i128 {
    items.iter().map(|item| i128::from(item.amount)).sum()
}

/// What went back, however it was told.
#[derive(Debug, Clone)]
struct Return {
    items: Option<Vec<Item>>,
    total: i128,
    tax: Option<i128>,
    shipping: Option<i128>,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub parts: Vec<Part>,
    returns: Vec<Return>,
    /// What customers got back by refunds, not by edits.
    pub cash_back: i128,
    pub charged: i128,
}

impl Order {
    /// `edits` in the order in which they were accepted; `withdrawn` has the ids of refunds that do not stand.
    pub fn of(sale: &Sale, edits: &[Edit], refunds: &[Refund], withdrawn: &BTreeSet<String>) -> Self {
        let sold = Part {
            edit: None,
            items: sale.items.clone(),
            total: sale.total.into(),
            tax: sale.tax.into(),
            shipping: sale.shipping.into(),
            discount: sale.discount.into(),
        };
        let standing: Vec<_> = refunds.iter().filter(|refund| !withdrawn.contains(&refund.id)).collect();
        let back = |refund: &&Refund| Return {
            items: refund.items.clone(),
            total: refund.total.into(),
            tax: refund.tax.map(i128::from),
            shipping: refund.shipping.map(i128::from),
        };
        let mut order = Self {
            charged: sold.total,
            parts: vec![sold],
            returns: standing.iter().map(back).collect(),
            cash_back: standing.iter().map(|refund| i128::from(refund.total)).sum(),
        };
        let mut now = (sale.items.clone(), [sale.total, sale.tax, sale.shipping]);
        let mut latest = None;
        for edit in edits {
            // Of several edits the latest counts; an older one that comes later has no effect.
            if latest.is_some_and(|latest| edit.occurred_at < latest) {
                continue;
            }
            latest = Some(edit.occurred_at);
            let then = (edit.items.clone(), [edit.total, edit.tax, edit.shipping]);
            order.edit(&edit.id, &now, &then);
            now = then;
        }
        order
    }

    fn edit(&mut self, id: &str, now: &(Vec<Item>, [i64; 3]), then: &(Vec<Item>, [i64; 3])) {
        let mut added = Part { edit: Some(id.to_owned()), items: vec![], total: 0, tax: 0, shipping: 0, discount: 0 };
        let mut gone = Return { items: None, total: 0, tax: Some(0), shipping: Some(0) };
        if now.0.is_empty() || then.0.is_empty() {
            let more = net_of(&then.0, then.1) - net_of(&now.0, now.1);
            (added.total, gone.total) = (more.max(0), (-more).max(0));
        } else {
            let (mut fallen, mut risen) = (Vec::new(), Vec::new());
            for item in
                now.0.iter().chain(then.0.iter().filter(|item| !now.0.iter().any(|was| was.product == item.product)))
            {
                let of = |items: &[Item]| {
                    let same = items.iter().filter(|other| other.product == item.product);
                    same.fold((0, 0), |(quantity, amount), other| (quantity + other.quantity, amount + other.amount))
                };
                let (was, is) = (of(&now.0), of(&then.0));
                let step = |quantity: i64, amount: i64| Item { quantity: quantity.max(0), amount, ..item.clone() };
                if is.1 < was.1 {
                    fallen.push(step(was.0 - is.0, was.1 - is.1));
                } else if is.1 > was.1 || is.0 > was.0 {
                    risen.push(step(is.0 - was.0, is.1 - was.1));
                }
            }
            (added.total, gone.total) = (amounts(&risen), amounts(&fallen));
            added.items = risen;
            gone.items = (!fallen.is_empty()).then_some(fallen);
        }
        if !added.items.is_empty() || added.total > 0 {
            self.charged += added.total;
            self.parts.push(added);
        }
        if gone.total > 0 {
            self.returns.push(gone);
        }
    }

    /// Which share of some items of a part (of all of it, where none are named) went back, as a fraction of at most one. What names no
    /// items comes off the sale first, then off what edits added, in turn.
    pub fn refunded(&self, part: usize, rated: &[usize]) -> (i128, i128) {
        let mut left = self.returns.clone();
        let last = self.parts.len() - 1;
        for (n, part) in self.parts.iter().enumerate().take(part) {
            left = Back::of(part, &left, n == last).beyond;
        }
        let (back, part) = (Back::of(&self.parts[part], &left, part == last), &self.parts[part]);
        let whole = part.net();
        if whole == 0 {
            // Silent in the rules: what cost nothing is refunded when something went back, and no less than was charged.
            let cash: i128 = left.iter().map(|back| back.total).sum();
            let all = (back.something || cash > 0) && cash >= part.total;
            return (i128::from(all), 1);
        }
        let sum: i128 = rated.iter().map(|n| i128::from(part.items[*n].amount)).sum();
        if sum == 0 {
            // Silent in the rules: items that cost nothing share the order's fate.
            return ((back.of_items.iter().sum::<i128>() + back.at_large).min(whole), whole);
        }
        let named: i128 = rated.iter().map(|n| back.of_items[*n]).sum();
        ((named * whole + back.at_large * sum).min(sum * whole), sum * whole)
    }
}

/// What went back of one part.
struct Back {
    of_items: Vec<i128>,
    /// Goods that went back without being named.
    at_large: i128,
    something: bool,
    /// What is left for the parts after it.
    beyond: Vec<Return>,
}

impl Back {
    fn of(part: &Part, returns: &[Return], last: bool) -> Self {
        let mut back = Self { of_items: vec![0; part.items.len()], at_large: 0, something: false, beyond: Vec::new() };
        // Goods without names; totals, and totals less tax or shipping, of which goods are a share.
        let mut goods = 0;
        let mut totals = [0; 3];
        for one in returns {
            let less = |aside: i128| (one.total - aside).max(0);
            match (&one.items, one.tax, one.shipping) {
                (Some(items), ..) => {
                    let left: Vec<_> = items.iter().filter_map(|item| back.take(part, item)).collect();
                    if last {
                        // Silent in the rules: what goes beyond an item, or is of no item of the order, comes off it as a whole.
                        goods += amounts(&left);
                    } else if !left.is_empty() {
                        back.beyond.push(Return { total: amounts(&left), items: Some(left), ..one.clone() });
                    }
                }
                (None, Some(tax), Some(shipping)) => goods += (less(tax) - shipping).max(0),
                (None, Some(tax), None) => totals[1] += less(tax),
                (None, None, Some(shipping)) => totals[2] += less(shipping),
                (None, None, None) => totals[0] += less(0),
            }
        }
        let whole = part.net();
        back.at_large = goods;
        if !last && goods > whole {
            back.at_large = whole;
            let (tax, shipping) = (Some(0), Some(0));
            back.beyond.push(Return { items: None, total: goods - whole, tax, shipping });
        }
        let wholes = [part.total, part.total - part.tax, part.total - part.shipping];
        let known = [(None, None), (Some(0), None), (None, Some(0))];
        for ((total, whole_total), (tax, shipping)) in totals.into_iter().zip(wholes).zip(known) {
            let capped = total.min(whole_total.max(0));
            // Rounded as the rules' example is: 33.90 of 100.00.
            back.at_large += round(whole * capped, whole_total.max(0));
            if total > capped {
                back.beyond.push(Return { items: None, total: total - capped, tax, shipping });
            }
        }
        back
    }

    /// Takes back an item that was sold; what goes beyond is left.
    fn take(&mut self, part: &Part, item: &Item) -> Option<Item> {
        let mut left = i128::from(item.amount);
        for (n, sold) in part.items.iter().enumerate().filter(|(_, sold)| sold.product == item.product) {
            let step = left.min(i128::from(sold.amount) - self.of_items[n]);
            self.of_items[n] += step;
            left -= step;
            self.something = true;
        }
        self.something |= left > 0;
        (left > 0).then(|| Item { amount: i64::try_from(left).unwrap_or(i64::MAX), ..item.clone() })
    }
}
