//! Statements: what was owed to a partner when a month began, and when it ended.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::model::{Kind, Line, Payout, State};
use super::rates::round;
use super::{Auditor, Checked, Entry, ensure, int, partner_in, program_of};
use crate::told::Told;

impl Auditor {
    /// What is declined is not owed; what is kept back is told by its payout.
    pub(super) fn note_owed(&mut self, entry: &Entry, id: &str, line: &Line) {
        if line.kind != Kind::Withholding {
            let owed = if line.state == State::Rejected { 0 } else { line.net() };
            self.owed.entry(id.to_owned()).or_default().push((entry.at, owed));
        }
    }

    /// A payment settles its share of what was owed; the last one settles the whole, and with it the tax that is kept back.
    pub(super) fn note_settled(&mut self, entry: &Entry, id: &str, payout: &Payout) {
        let settled = match payout.state {
            "paid" => payout.gross(),
            "cancelled" | "void" | "returned" => 0,
            _ if payout.due() == 0 => 0,
            _ => round(payout.amount() * payout.paid, payout.due()),
        };
        self.owed.entry(id.to_owned()).or_default().push((entry.at, -settled));
    }

    /// What is owed to a partner by all that was written before a moment. In each chain, the last entry before it counts, and all before that.
    fn owed_at(&self, partner: &str, moment: Timestamp) -> i128 {
        let own = self.owed.iter().filter(|(id, _)| partner_in(id) == partner);
        own.filter_map(|(_, steps)| steps.iter().rfind(|(at, _)| *at < moment)).map(|(_, owed)| owed).sum()
    }

    /// A statement as it was told of a month.
    pub fn statement(&self, told: &Told, partner: &str, month: Date, statement: &Value) -> Checked {
        let (_, program) = program_of(told, partner)?;
        let midnight = |date: Date| {
            let zone = TimeZone::get(program.time_zone).unwrap_or(TimeZone::UTC);
            date.to_zoned(zone).map_or(Timestamp::MAX, |at| at.timestamp())
        };
        let next = month.last_of_month().tomorrow().unwrap_or(month);
        let expected = (self.owed_at(partner, midnight(month)), self.owed_at(partner, midnight(next)));
        let found = (int(&statement["opening"], "minor"), int(&statement["closing"], "minor"));
        ensure!(
            found == expected,
            Balances,
            "{partner}: owed as {month} begins and ends is {expected:?}, told {found:?}"
        );
        Ok(())
    }
}
