//! What is unusual about a sale, so that somebody should look at it before it is paid: by what is known of its partners' sales until then.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::Auditor;
use super::model::Conversion;
use super::rates::Ratio;
use crate::told::{Program, Sale};

/// Of very many sales the latest are remembered one by one.
const REMEMBERED: usize = 100;

/// What is known of a partner's sales, as they were accepted: whoever is given one by hand later did not make it.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    count: i128,
    /// Of them, how many a refund or chargeback of stands.
    back: i128,
    /// Goods, in minor units.
    sold: i128,
    sales: Vec<Heard>,
}

#[derive(Debug, Clone)]
struct Heard {
    at: Timestamp,
    customer: Option<String>,
    visitor: Option<String>,
}

impl Heard {
    fn of(sale: &Sale) -> Self {
        let customer = sale.customer.id.clone().or_else(|| sale.customer.email_hash.clone());
        Self { at: sale.occurred_at, customer, visitor: sale.visitor.clone() }
    }
}

impl Pulse {
    /// What is unusual about a sale of so much after these, in the words of who holds it.
    fn wonders(&self, program: &Program, sale: &Sale, goods: i128) -> Vec<&'static str> {
        let heard = Heard::of(sale);
        let near = |hours: i64| {
            let within = SignedDuration::from_hours(hours);
            let latest = self.sales.iter().rev().take(REMEMBERED);
            latest.filter(move |other| heard.at.duration_since(other.at).abs() < within)
        };
        let anomalies = &program.anomalies;
        let hurried = anomalies.velocity.is_some_and(|(most, hours)| near(hours).count() >= most);
        let heard = Heard::of(sale);
        let crowded = anomalies.shared_device.is_some_and(|(most, hours)| {
            let on_it = near(hours).filter(|other| other.visitor == heard.visitor);
            let customers: BTreeSet<&String> = on_it.chain([&heard]).filter_map(|one| one.customer.as_ref()).collect();
            heard.visitor.is_some() && customers.len() > most
        });
        // Nothing is compared with nothing.
        let enough = |after: u32| self.count >= i128::from(after.max(1));
        // More than so many times sold / count.
        let large = anomalies
            .outlier
            .is_some_and(|(tenths, after)| enough(after) && goods * self.count * 10 > i128::from(tenths) * self.sold);
        // More than so many of a hundred.
        let often = anomalies
            .refund_rate
            .is_some_and(|(points, after)| enough(after) && self.back * 10_000 > i128::from(points) * self.count);
        let all = [(hurried, "velocity"), (crowded, "shared device"), (large, "outlier"), (often, "refund rate")];
        all.into_iter().filter(|(unusual, _)| *unusual).map(|(_, word)| word).collect()
    }
}

impl Conversion {
    /// Whether something of it went back that was not withdrawn. What is in another currency than the sale measures nothing.
    fn is_back(&self) -> bool {
        let Some(sale) = &self.sale else { return false };
        self.refunds.iter().any(|refund| refund.currency == sale.currency && !self.withdrawn.contains(&refund.id))
    }
}

impl Auditor {
    /// What is unusual about a sale for one of its partners; from then on it is among theirs.
    pub(super) fn unusual(
        &mut self,
        program: &Program,
        conversion: &mut Conversion,
        exchange: Ratio,
    ) -> Vec<&'static str> {
        let Some((sale, order)) = conversion.sale.clone().zip(conversion.order()) else { return Vec::new() };
        let goods = Ratio::from(order.parts[0].net()).times(exchange).round();
        conversion.made_by = conversion.credits.iter().map(|(partner, _)| partner.clone()).collect();
        let mut unusual = Vec::new();
        for partner in &conversion.made_by {
            let pulse = self.pulses.entry(partner.clone()).or_default();
            unusual.extend(pulse.wonders(program, &sale, goods));
            pulse.count += 1;
            pulse.back += i128::from(conversion.is_back());
            pulse.sold += goods;
            pulse.sales.push(Heard::of(&sale));
        }
        unusual
    }

    /// What went back of a sale, or did not after all, tells of the partners who made it.
    pub(super) fn notes_return(&mut self, before: &Conversion, after: &Conversion) {
        for partner in &after.made_by {
            let pulse = self.pulses.entry(partner.clone()).or_default();
            pulse.back += i128::from(after.is_back()) - i128::from(before.is_back());
        }
    }
}
