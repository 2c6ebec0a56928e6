//! What the world told the system, in the world's own words. Besides what the system wrote, this is all the auditor knows; none of
//! it comes from the code under test.

use jiff::Timestamp;

/// Amounts are minor units of the program's currency, shares are in basis points: 10,000 is the whole.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub programs: Vec<Program>,
    pub partners: Vec<Partner>,
    pub sales: Vec<Sale>,
    pub refunds: Vec<Refund>,
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub struct Program {
    pub id: String,
    pub currency: &'static str,
    /// Decimal places of the currency.
    pub exponent: u32,
    pub time_zone: &'static str,
    pub hold_days: u32,
    pub approves_automatically: bool,
    /// Zero: any amount.
    pub minimum_payout: i64,
    pub large_payout_limit: i64,
    /// `monthly`, `weekly`, ... as the API writes it.
    pub frequency: &'static str,
    pub run_day: i8,
    pub cut_off_days: u32,
    /// Published versions, oldest first.
    pub rule_sets: Vec<RuleSet>,
}

#[derive(Debug, Clone)]
pub struct RuleSet {
    pub version: u32,
    pub effective_from: Timestamp,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub key: String,
    /// Only items of this product; else everything.
    pub product: Option<String>,
    /// Only this partner (its id).
    pub partner: Option<String>,
    pub priority: i32,
    /// Overrides the program's.
    pub hold_days: Option<u32>,
    /// Goods before discounts rather than after.
    pub gross: bool,
    pub reward: Reward,
    /// Share and days; empty means one slice of everything at the hold period.
    pub slices: Vec<(u32, u32)>,
}

#[derive(Debug, Clone)]
pub enum Reward {
    Flat(i64),
    FlatPerUnit(i64),
    /// Basis points.
    Percent(u32),
    /// By the count of the partner's conversions under this rule, for life, marginal by order: (after, basis points), ascending, the
    /// first after 0.
    TieredByCount(Vec<(u64, u32)>),
}

#[derive(Debug, Clone)]
pub struct Partner {
    pub id: String,
    /// Index into `programs`.
    pub program: usize,
    pub code: String,
    /// Overrides the program's.
    pub minimum_payout: Option<i64>,
    pub has_payout_method: bool,
}

/// How the partner of a sale is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Id(String),
    Code(String),
    Coupon(String),
    /// By nothing, or by something no partner has.
    Nobody,
}

#[derive(Debug, Clone)]
pub struct Item {
    pub product: String,
    pub quantity: i64,
    /// The line's total after discounts, without tax.
    pub amount: i64,
}

/// A sale as the storefront knows it. The same order told again with other content is another `Sale`, later in the list.
#[derive(Debug, Clone)]
pub struct Sale {
    pub program: usize,
    /// The source's id: of the storefront connection, or the one the API stands for (see the journal entry's `by`).
    pub source: String,
    pub order: String,
    pub occurred_at: Timestamp,
    pub named: Named,
    /// Empty where the source tells only totals.
    pub items: Vec<Item>,
    pub total: i64,
    pub tax: i64,
    pub shipping: i64,
    /// Of the order; the items' amounts are after it.
    pub discount: i64,
    /// Whether the system answered that it has it (2xx).
    pub accepted: bool,
}

#[derive(Debug, Clone)]
pub struct Refund {
    pub program: usize,
    pub source: String,
    pub order: String,
    /// The refund's own id.
    pub id: String,
    pub occurred_at: Timestamp,
    pub total: i64,
    /// `None` where the source does not tell.
    pub tax: Option<i64>,
    pub shipping: Option<i64>,
    pub items: Option<Vec<Item>>,
    /// Whether the system answered that it has it (2xx).
    pub accepted: bool,
}

/// A person's command, whether or not it was answered, applied or refused.
#[derive(Debug, Clone)]
pub struct Command {
    pub by: String,
    /// As in the API's path: `approve`, `hold`, `release`, `reject`, `reinstate` about commissions; `approve`, `send-back`, `cancel`,
    /// `mark-paid` about payouts; `runs`, `payouts` (a request) about partners.
    pub about: About,
    pub verb: &'static str,
    pub ids: Vec<String>,
    pub reason: Option<String>,
    pub at: Timestamp,
    /// What the API answered, if it did: the status, and for bulk calls the ids it said were done.
    pub answer: Option<Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Commissions,
    Payouts,
    Partners,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub done: Vec<String>,
}

/// The greatest distance between any function's clock and the world's, in seconds.
pub const SKEW_SECONDS: i64 = 120;
