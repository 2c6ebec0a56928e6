//! `orders/edited`: what changed about an order, as differences in quantity without a price.
//!
//! No edit is booked from it, nor from `orders/updated`, whose `current_...` amounts mix edits with refunds and
//! returns.
//!
//! - What an edit takes off a paid order is money only once it went back, and `refunds/create` reports that. Booking
//!   both would take it twice.
//! - What it adds is worth something, and how much is told nowhere: a person has to look.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::payload::{Id, list};
use crate::{Reading, Unreadable};

#[derive(Debug, Deserialize)]
pub struct Edited {
    order_edit: OrderEdit,
}

#[derive(Debug, Deserialize)]
struct OrderEdit {
    /// Tells the payload from all others.
    #[serde(rename = "order_id")]
    _order: Id,
    line_items: Option<Changes>,
    discounts: Option<Discounts>,
}

#[derive(Debug, Deserialize)]
struct Discounts {
    line_item: Option<Changes>,
}

#[derive(Debug, Deserialize)]
struct Changes {
    #[serde(default, deserialize_with = "list")]
    additions: Vec<IgnoredAny>,
    #[serde(default, deserialize_with = "list")]
    removals: Vec<IgnoredAny>,
}

impl Edited {
    pub fn read(&self) -> Result<Reading, Unreadable> {
        let dearer = |field: &str| {
            let detail = "an edit made the order dearer, and by how much is not told: if it had been paid before, adjust \
                          its commission by hand";
            Err(Unreadable::invalid(format!("/order_edit/{field}"), detail))
        };
        let edit = &self.order_edit;
        if edit.line_items.as_ref().is_some_and(|lines| !lines.additions.is_empty()) {
            return dearer("line_items/additions");
        }
        let discounts = edit.discounts.as_ref().and_then(|discounts| discounts.line_item.as_ref());
        if discounts.is_some_and(|discounts| !discounts.removals.is_empty()) {
            return dearer("discounts/line_item/removals");
        }
        Ok(Reading::Ignored("what an edit takes off an order, its refund reports"))
    }
}
