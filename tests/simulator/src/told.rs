//! What the world told the system, in the world's own words. Besides what the system wrote, this is all the auditor knows; none of
//! it comes from the code under test.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::ledgers::Ledgers;
use crate::remitted::Remitted;
use crate::ways::{Way, Ways};

/// Whether worlds use the whole commission engine.
pub const ENGINE: bool = true;

/// Amounts are minor units, of the program's currency unless they say otherwise; shares are in basis points: 10,000 is the whole.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub programs: Vec<Program>,
    pub partners: Vec<Partner>,
    pub sales: Vec<Sale>,
    pub refunds: Vec<Refund>,
    pub edits: Vec<Edit>,
    pub withdrawals: Vec<Withdrawal>,
    pub touches: Vec<Touch>,
    pub commands: Vec<Command>,
    pub calls: Vec<Call>,
    pub forms: Vec<Form>,
    /// Exchange rates, in the order in which they were published.
    pub rates: Vec<Rate>,
    /// From what sum in a year on payments are reported, by year, where the payer set that.
    pub limits: BTreeMap<i16, i64>,
    /// Companies in QuickBooks.
    pub ledgers: Ledgers,
    /// Payments at PayPal.
    pub remitted: Remitted,
    /// Counts the auditor's looks, and orders what is told by them.
    pub tick: usize,
    /// The tick, and the time, at which the oldest function began that may have written what comes next: it may know of nothing newer.
    pub since: (usize, Timestamp),
}

impl Told {
    /// In cents.
    pub fn limit(&self, year: i16) -> i128 {
        let published = if year < 2026 { 60_000 } else { 200_000 };
        self.limits.get(&year).copied().unwrap_or(published).into()
    }
}

/// What one unit of a currency was worth in another on a day, as somebody published it: `units` of ten to the power of `decimals`.
#[derive(Debug, Clone)]
pub struct Rate {
    pub date: Date,
    pub from: &'static str,
    pub to: &'static str,
    pub units: i64,
    pub decimals: u32,
    pub source: &'static str,
    /// The tick at which it was told.
    pub since: usize,
}

/// Decimal places of a currency that worlds know.
pub fn exponent(currency: &str) -> u32 {
    match currency {
        "JPY" => 0,
        "KWD" => 3,
        _ => 2,
    }
}

/// A tax form, or the end of one.
#[derive(Debug, Clone)]
pub struct Form {
    pub partner: String,
    /// `w9` with a number, `w8ben`.
    pub kind: &'static str,
    pub signed_on: Date,
    /// Services are performed abroad.
    pub abroad: bool,
    /// Basis points.
    pub treaty: Option<u32>,
    pub revoked: bool,
    /// The tick at which it was told.
    pub since: usize,
}

#[derive(Debug, Clone)]
pub struct Program {
    pub id: String,
    pub currency: &'static str,
    /// Decimal places of the currency.
    pub exponent: u32,
    pub time_zone: &'static str,
    pub hold_days: u32,
    /// Counted from when a conversion was received.
    pub min_hold_days: u32,
    pub anomalies: Anomalies,
    pub approves_automatically: bool,
    /// Zero: any amount.
    pub minimum_payout: i64,
    pub large_payout_limit: i64,
    /// Where the payer owes tax: whether something is withheld of who gave no number, or nothing paid.
    pub withholds: Option<bool>,
    /// `monthly`, `weekly`, ... as the API writes it.
    pub frequency: &'static str,
    pub run_day: i8,
    pub cut_off_days: u32,
    /// From the run date to the day on which its payouts are to be paid.
    pub pay_days: u32,
    /// What a scheduled run does not find worth a payout is paid all the same once some of it has been payable for so many days.
    pub dust_sweep_days: Option<u32>,
    /// What a partner owes for so many days, and has nothing under way to pay it from, is written off by a scheduled run.
    pub debt_write_off_days: Option<u32>,
    /// Sales whose hold is over that a partner needs before anything is paid.
    pub minimum_sales: u32,
    pub attribution: Attribution,
    /// Published versions, oldest first.
    pub rule_sets: Vec<RuleSet>,
}

/// What of a partner's sales is held.
#[derive(Debug, Clone, Default)]
pub struct Anomalies {
    /// More than so many within so many hours.
    pub velocity: Option<(usize, i64)>,
    /// More than so many customers in one browser within so many hours.
    pub shared_device: Option<(usize, i64)>,
    /// What is worth more than so many tenths of their average, once there are so many.
    pub outlier: Option<(u32, u32)>,
    /// Whatever comes while more of them than this, in basis points, went back, once there are so many.
    pub refund_rate: Option<(u32, u32)>,
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
    pub matches: Match,
    pub priority: i32,
    /// Overrides the program's.
    pub hold_days: Option<u32>,
    /// Overrides the program's.
    pub minimum_sales: Option<u32>,
    /// Goods before discounts rather than after.
    pub gross: bool,
    pub reward: Reward,
    /// Share and days; empty means one slice of everything at the hold period.
    pub slices: Vec<(u32, u32)>,
    pub caps: Caps,
    pub recurrence: Recurrence,
    /// What was paid with store credit is not in the base.
    pub excludes_credit: bool,
    /// Renewals are rated by the version of the customer's first attributed sale.
    pub keeps_renewals: bool,
}

/// What is empty agrees with everything; without actions, with sales alone.
#[derive(Debug, Clone, Default)]
pub struct Match {
    pub actions: Vec<&'static str>,
    pub products: Vec<&'static str>,
    pub categories: Vec<&'static str>,
    pub campaigns: Vec<&'static str>,
    /// Ids.
    pub partners: Vec<String>,
    pub groups: Vec<&'static str>,
    pub channels: Vec<&'static str>,
    pub countries: Vec<&'static str>,
    /// Whether the customer is to be a new one.
    pub new_customer: Option<bool>,
    /// Goods after discounts, inclusive.
    pub min_order: Option<i64>,
    pub max_order: Option<i64>,
    pub coupons: Vec<String>,
    /// The plan that the sale's metadata name.
    pub plan: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Caps {
    pub order: Option<i64>,
    pub partner_month: Option<i64>,
    pub program_month: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recurrence {
    Always,
    FirstSale,
    Months(i32),
}

#[derive(Debug, Clone)]
pub enum Reward {
    Flat(i64),
    FlatPerUnit(i64),
    /// Basis points.
    Percent(u32),
    Tiered(Tiers),
}

#[derive(Debug, Clone)]
pub struct Tiers {
    pub metric: Metric,
    pub window: Window,
    pub shape: Shape,
    /// After how many conversions or minor units, ascending, the first after 0; and what is paid from there on.
    pub steps: Vec<(i64, Pay)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Count,
    Revenue,
    Commission,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Lifetime,
    Month,
    Quarter,
    Year,
    /// Days.
    Rolling(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    MarginalByOrder,
    MarginalByAmount,
    Retroactive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pay {
    /// Basis points.
    Rate(u32),
    Amount(i64),
}

/// How sales that name nobody are shared out among who touched the customer.
#[derive(Debug, Clone)]
pub struct Attribution {
    pub model: Model,
    pub window_days: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    LastTouch,
    FirstTouch,
    Linear,
    /// First, middle and last, in percent.
    PositionBased([u32; 3]),
    /// Per channel.
    Custom(Vec<(&'static str, u32)>),
}

/// Somebody followed a partner's link.
#[derive(Debug, Clone)]
pub struct Touch {
    pub visitor: String,
    /// The shop does not learn it where a program shares its credit among all who touched a customer.
    pub click: Option<String>,
    /// Index into `partners`.
    pub partner: usize,
    pub at: Timestamp,
    pub channel: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub struct Partner {
    pub id: String,
    /// Index into `programs`.
    pub program: usize,
    pub code: String,
    pub group: Option<&'static str>,
    /// Where they live, if they said so.
    pub country: Option<&'static str>,
    /// As customers' addresses are hashed.
    pub email_hash: String,
    /// Overrides the program's.
    pub minimum_payout: Option<i64>,
    /// Nobody buys through them: they owe something, and have nothing to pay it from.
    pub quiet: bool,
    /// Paid as soon as something is payable, where the program pays instantly.
    pub trusted: bool,
    /// How they were paid from which tick on, oldest first.
    pub ways: Vec<Ways>,
    /// What they are paid in, if not in the program's currency.
    pub paid_in: Option<&'static str>,
    /// From when to when they were suspended, the end exclusive.
    pub suspended: Vec<(Timestamp, Timestamp)>,
}

impl Partner {
    pub fn preferred(&self) -> Option<&Way> {
        self.ways.last().and_then(Ways::preferred)
    }

    /// How the partner is paid: `manual`, `bank`, ...; `None` where there is no way.
    pub fn method(&self) -> Option<&'static str> {
        self.preferred().map(|way| way.kind)
    }

    pub fn was_suspended(&self, at: Timestamp) -> bool {
        self.suspended.iter().any(|(from, until)| (*from..*until).contains(&at))
    }
}

/// How the partner of a sale is named outright.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Id(String),
    Code(String),
    Nobody,
}

/// What is known of who bought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Customer {
    pub id: Option<String>,
    pub email_hash: Option<String>,
    /// What the source believes.
    pub new: Option<bool>,
}

#[derive(Debug, Clone)]
pub struct Item {
    pub product: &'static str,
    pub category: &'static str,
    pub quantity: i64,
    /// The line's total after discounts, without tax.
    pub amount: i64,
}

/// The product that is money rather than goods: whoever sells it earns nothing.
pub const GIFT_CARD: &str = "gift-card";

impl Item {
    pub fn is_goods(&self) -> bool {
        self.product != GIFT_CARD
    }
}

/// A sale as the storefront knows it. The same order told again with other content is another `Sale`, later in the list.
#[derive(Debug, Clone)]
pub struct Sale {
    pub program: usize,
    /// The source's id: of the storefront connection, or the one the API stands for (see the journal entry's `by`).
    pub source: String,
    pub order: String,
    /// `sale`, `renewal`, ... as the event's type.
    pub action: &'static str,
    pub occurred_at: Timestamp,
    pub named: Named,
    /// A partner's code, or a word that rules may ask for.
    pub coupon: Option<String>,
    pub click: Option<String>,
    pub visitor: Option<String>,
    pub customer: Customer,
    pub channel: Option<&'static str>,
    pub campaign: Option<&'static str>,
    pub country: Option<&'static str>,
    /// In its metadata.
    pub plan: Option<&'static str>,
    /// What its amounts are in, and its refunds' and edits'.
    pub currency: &'static str,
    /// Empty where the source tells only totals.
    pub items: Vec<Item>,
    pub total: i64,
    pub tax: i64,
    pub shipping: i64,
    /// Of the order; the items' amounts are after it.
    pub discount: i64,
    /// How much of the total was paid with store credit.
    pub store_credit: i64,
    /// Whether the system answered that it has it (2xx).
    pub accepted: bool,
}

#[derive(Debug, Clone)]
pub struct Refund {
    pub program: usize,
    pub currency: &'static str,
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
    /// The customer's bank took it back.
    pub chargeback: bool,
    /// Whether the system answered that it has it (2xx).
    pub accepted: bool,
}

/// An order as it is from now on.
#[derive(Debug, Clone)]
pub struct Edit {
    pub program: usize,
    pub currency: &'static str,
    pub source: String,
    pub order: String,
    /// The edit's own id.
    pub id: String,
    pub occurred_at: Timestamp,
    pub items: Vec<Item>,
    pub total: i64,
    pub tax: i64,
    pub shipping: i64,
    pub discount: i64,
    pub store_credit: i64,
    pub accepted: bool,
}

/// A refund or chargeback does not stand.
#[derive(Debug, Clone)]
pub struct Withdrawal {
    pub program: usize,
    pub source: String,
    pub order: String,
    pub id: String,
    /// `refund_withdrawn` or `dispute_won`.
    pub kind: &'static str,
    /// The id of what is withdrawn.
    pub refund: String,
    pub occurred_at: Timestamp,
    pub accepted: bool,
}

/// What a person says about commissions or conversions, of one or of several in one call, whether or not it was answered, applied or refused.
#[derive(Debug, Clone)]
pub struct Call {
    pub by: String,
    /// As in the API's path: `approve`, `hold`, `release`, `reject`, `reinstate`, `adjust` of commissions, `attribute` of conversions.
    pub verb: &'static str,
    /// In this order.
    pub asked: Vec<Asked>,
    /// All of it is to be done, or nothing.
    pub atomic: bool,
    /// No other call gives the same; entries of approvals and releases do not tell it.
    pub reason: String,
    pub at: Timestamp,
    /// The tick at which it was told.
    pub since: usize,
    /// What the API answered about each, if it did.
    pub said: Option<Vec<Said>>,
}

/// What is asked about one commission or conversion.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub id: String,
    /// Of an adjustment, the new gross amount, and the decimal places it is told with.
    pub amount: Option<i64>,
    pub exponent: u32,
    /// Of an attribution: partners and their basis points, or one partner outright.
    pub shares: Vec<(String, u32)>,
    pub outright: bool,
    /// It is told in a way that means nothing.
    pub senseless: bool,
}

impl Asked {
    pub fn about(id: String) -> Self {
        Self { id, ..Self::default() }
    }
}

/// What became of one of them: 200 where it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub id: String,
    pub status: u16,
    pub why: String,
}

/// A person's command, whether or not it was answered, applied or refused.
#[derive(Debug, Clone)]
pub struct Command {
    pub by: String,
    /// As in the API's path: `approve`, `send-back`, `cancel`, `mark-paid`, `mark-failed`, `mark-returned`, `retry`, `void`, `exclude` about
    /// payouts; `runs`, `payouts` (a request), `details` about partners; `exports` about a program.
    pub about: About,
    pub verb: &'static str,
    pub ids: Vec<String>,
    pub reason: Option<String>,
    /// Of a bonus.
    pub amount: Option<i64>,
    /// Of an approval of payouts: the versions it named, if it named any.
    pub versions: Vec<(String, u64)>,
    /// Of payouts that are marked paid, what was sent for each.
    pub payments: Vec<Payment>,
    /// Of an export, the files' format.
    pub format: Option<&'static str>,
    /// Of a request, the kind of way it names.
    pub method: Option<&'static str>,
    /// Of details, all ways to pay the partner.
    pub ways: Vec<Way>,
    /// Of a run.
    pub run: Option<ByHand>,
    pub at: Timestamp,
    /// What the API answered, if it did: the status, and for bulk calls the ids it said were done.
    pub answer: Option<Answer>,
}

/// What somebody says of a run that they start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByHand {
    /// Only these partners, where any are named.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// `None`: everything that is payable now.
    pub cut_off: Option<Timestamp>,
}

impl ByHand {
    /// Whether the run is about a partner.
    pub fn names(&self, partner: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|id| id == partner);
        (self.include.is_empty() || named(&self.include)) && !named(&self.exclude)
    }
}

/// Money that somebody attests to have sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub payout: String,
    pub reference: Option<String>,
    /// `None`: all that is open.
    pub amount: Option<i64>,
    /// `None`: when it was said.
    pub at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Payouts,
    Partners,
    Programs,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub done: Vec<String>,
}

/// The greatest distance between any function's clock and the world's, in seconds.
pub const SKEW_SECONDS: i64 = 120;
