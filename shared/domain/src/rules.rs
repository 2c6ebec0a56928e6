//! Rule sets: immutable, numbered versions of what a program pays for. They are written in the form of the API, kept as
//! written, and resolved once into rules that cannot be wrong.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};

use crate::conversion::Action;
use crate::ids::ProgramId;
use crate::money::{Currency, Minor, Percent, parse_decimal};
use crate::program::MAX_HOLD_DAYS;

pub const MAX_RULES: usize = 100;
pub const MAX_TIERS: usize = 20;
pub const MAX_SLICES: usize = 6;
pub const MAX_EXAMPLES: usize = 50;
/// Minimum sales are counted from the lines themselves, so they stay small.
pub const MAX_MINIMUM_SALES: u32 = 1_000;
/// The longest recurrence, in calendar months.
const MAX_MONTHS: u16 = 600;
/// The longest rolling window: a tally is kept per day.
const MAX_ROLLING_DAYS: u16 = 366;
/// The furthest tier by count.
const MAX_COUNT: i64 = 1_000_000_000;
/// A new version must not start sooner than this after it is published: what is being rated at that moment, and whoever keeps the
/// versions for up to a minute, ends with those they read.
pub const NOTICE: SignedDuration = SignedDuration::from_mins(5);

/// A refusal that names the field by JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// One version of a program's rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleSet {
    pub program: ProgramId,
    /// Counts from 1 within the program.
    pub version: u32,
    #[serde(flatten)]
    pub draft: RuleSetDraft,
    pub author: String,
    pub created_at: Timestamp,
    #[serde(flatten)]
    pub state: RuleSetState,
}

/// What an author writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleSetDraft {
    pub rationale: String,
    /// Inclusive.
    pub effective_from: Timestamp,
    pub rules: Vec<RuleInput>,
    /// Sales with the amounts they must earn, checked before publishing.
    #[serde(default)]
    pub examples: Vec<Example>,
}

/// A sale and what it must earn, by whichever partner it names, without any sales before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    /// A sale in our own event form: its partner, channel, campaign and whether its customer is new are told in it.
    pub input: serde_json::Value,
    /// The lines' amounts in order, in major units.
    pub expect: Vec<String>,
    /// What one unit of its currency is in the program's, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// When the customer's first attributed sale occurred, where this is a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RuleSetState {
    Draft,
    #[serde(rename_all = "camelCase")]
    SignedOff {
        signed_off_by: String,
    },
    #[serde(rename_all = "camelCase")]
    Published {
        signed_off_by: Option<String>,
        published_by: String,
        published_at: Timestamp,
    },
}

impl RuleSetState {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::SignedOff { .. } => "signed_off",
            Self::Published { .. } => "published",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleSetError {
    #[error("version {0} is published and cannot change")]
    Published(u32),
    #[error("version {0} is signed off already")]
    SignedOff(u32),
    #[error("the author of version {0} cannot sign it off; a second person must")]
    AuthorSignsOff(u32),
    #[error("version {0} needs a second person's sign-off before it is published")]
    NotSignedOff(u32),
    #[error("version {0} would take effect in less than five minutes; draft it again with a later effectiveFrom")]
    TooSoon(u32),
}

impl RuleSet {
    /// A second person vouches for the version.
    pub fn sign_off(self, by: &str) -> Result<Self, RuleSetError> {
        match self.state {
            RuleSetState::Published { .. } => Err(RuleSetError::Published(self.version)),
            RuleSetState::SignedOff { .. } => Err(RuleSetError::SignedOff(self.version)),
            RuleSetState::Draft if self.author == by => Err(RuleSetError::AuthorSignsOff(self.version)),
            RuleSetState::Draft => Ok(Self { state: RuleSetState::SignedOff { signed_off_by: by.to_owned() }, ..self }),
        }
    }

    /// `first`: no other version of the program was ever published, so nothing can have been rated by one.
    pub fn publish(self, by: &str, now: Timestamp, sign_off_needed: bool, first: bool) -> Result<Self, RuleSetError> {
        let signed_off_by = match &self.state {
            RuleSetState::Published { .. } => return Err(RuleSetError::Published(self.version)),
            RuleSetState::Draft if sign_off_needed => return Err(RuleSetError::NotSignedOff(self.version)),
            RuleSetState::Draft => None,
            RuleSetState::SignedOff { signed_off_by } => Some(signed_off_by.clone()),
        };
        if !first && self.draft.effective_from < now + NOTICE {
            return Err(RuleSetError::TooSoon(self.version));
        }
        let state = RuleSetState::Published { signed_off_by, published_by: by.to_owned(), published_at: now };
        Ok(Self { state, ..self })
    }

    pub const fn is_published(&self) -> bool {
        matches!(self.state, RuleSetState::Published { .. })
    }
}

/// In plain words, what a draft says differently from another. Rules are the same rule if they have the same key.
pub fn differences(before: &RuleSetDraft, after: &RuleSetDraft) -> Vec<String> {
    let key = |rule: &RuleInput| slug(rule.key.as_deref().unwrap_or(&rule.name));
    let mut told = Vec::new();
    if before.effective_from != after.effective_from {
        told.push(format!("It is effective from {} instead of {}.", after.effective_from, before.effective_from));
    }
    for rule in &after.rules {
        match before.rules.iter().find(|old| key(old) == key(rule)) {
            None => told.push(format!("Rule {:?} is new.", rule.name)),
            Some(old) => {
                let (old, new) = (flat(old), flat(rule));
                let fields: BTreeSet<_> = old.keys().chain(new.keys()).collect();
                for field in fields.into_iter().filter(|field| old.get(*field) != new.get(*field)) {
                    let text =
                        |fields: &BTreeMap<String, String>| fields.get(field).map_or("nothing", |text| text).to_owned();
                    told.push(format!("Rule {:?}: {field} is {} instead of {}.", rule.name, text(&new), text(&old)));
                }
            }
        }
    }
    for rule in before.rules.iter().filter(|old| !after.rules.iter().any(|rule| key(rule) == key(old))) {
        told.push(format!("Rule {:?} is gone.", rule.name));
    }
    told
}

/// Every filled field of a rule by its name, parts of lists numbered from 1.
fn flat(rule: &RuleInput) -> BTreeMap<String, String> {
    fn walk(at: &str, value: &serde_json::Value, fields: &mut BTreeMap<String, String>) {
        use serde_json::Value;
        let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at} {name}") };
        match value {
            Value::Null => {}
            Value::Object(parts) => parts.iter().for_each(|(name, part)| walk(&below(name), part, fields)),
            Value::Array(parts) if parts.iter().all(Value::is_string) => {
                let words: Vec<_> = parts.iter().filter_map(Value::as_str).collect();
                if !words.is_empty() {
                    fields.insert(at.to_owned(), words.join(", "));
                }
            }
            Value::Array(parts) => {
                (1..).zip(parts).for_each(|(n, part): (usize, _)| walk(&below(&n.to_string()), part, fields));
            }
            Value::String(text) => {
                fields.insert(at.to_owned(), text.clone());
            }
            other => {
                fields.insert(at.to_owned(), other.to_string());
            }
        }
    }
    let mut fields = BTreeMap::new();
    walk("", &serde_json::json!(rule), &mut fields);
    fields
}

/// The published version in force at a moment: the latest to have started; of two starting together, the newer.
pub fn in_force(versions: &[RuleSet], at: Timestamp) -> Option<&RuleSet> {
    versions
        .iter()
        .filter(|set| set.is_published() && set.draft.effective_from <= at)
        .max_by_key(|set| (set.draft.effective_from, set.version))
}

/// A rule as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleInput {
    #[serde(default)]
    pub key: Option<String>,
    pub name: String,
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub hold_days: Option<u16>,
    #[serde(default)]
    pub minimum_sales: Option<u32>,
    #[serde(default, rename = "match")]
    pub matches: MatchInput,
    pub reward: RewardInput,
    #[serde(default)]
    pub base: BaseKind,
    #[serde(default)]
    pub slices: Vec<SliceInput>,
    #[serde(default)]
    pub caps: CapsInput,
    #[serde(default = "always")]
    pub recurrence: String,
    /// What was paid with store credit is no part of what a rate applies to.
    #[serde(default)]
    pub exclude_store_credit: bool,
    #[serde(default)]
    pub renewals: Renewals,
}

fn always() -> String {
    "always".to_owned()
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchInput {
    pub actions: Vec<Action>,
    pub products: Vec<String>,
    pub categories: Vec<String>,
    pub campaigns: Vec<String>,
    pub partners: Vec<String>,
    pub groups: Vec<String>,
    pub channels: Vec<String>,
    pub countries: Vec<String>,
    pub customer: Option<CustomerKind>,
    pub min_order: Option<String>,
    pub max_order: Option<String>,
    pub coupons: Vec<String>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CustomerKind {
    New,
    Returning,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RewardInput {
    Flat { amount: String },
    FlatPerUnit { amount: String },
    Percent { rate: String },
    Tiered { metric: String, window: String, shape: String, tiers: Vec<TierInput> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TierInput {
    pub after: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SliceInput {
    pub share: String,
    #[serde(default)]
    pub days: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CapsInput {
    pub per_order: Option<String>,
    pub per_partner_month: Option<String>,
    pub per_program_month: Option<String>,
}

/// By which version a renewal is rated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Renewals {
    /// The one in force when it occurs.
    #[default]
    OwnTime,
    /// The one that was in force at the customer's first attributed sale, if that is where the rule stands.
    FirstSale,
}

/// What a rate applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseKind {
    /// Goods after discounts, without tax and shipping.
    #[default]
    Net,
    /// Goods before discounts, without tax and shipping.
    Gross,
}

/// A rule that can be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub key: String,
    pub name: String,
    pub priority: i32,
    pub hold_days: Option<u16>,
    /// Overrides the program's.
    pub minimum_sales: Option<u32>,
    pub matches: Match,
    pub reward: Reward,
    pub base: BaseKind,
    /// Shares summing to one; a single one where the rule has no milestones.
    pub slices: Vec<Slice>,
    pub caps: Caps,
    pub recurrence: Recurrence,
    pub exclude_store_credit: bool,
    pub renewals: Renewals,
}

/// The most a rule pays; earnings beyond are clamped. Months are calendar months in the program's time zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// On the whole reward of a conversion, before it is shared among partners.
    pub per_order: Option<Minor>,
    pub per_partner_month: Option<Minor>,
    /// Serializes the program's conversions under this rule: some tens a second.
    pub per_program_month: Option<Minor>,
}

/// Which of a customer's sales a rule pays for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recurrence {
    #[default]
    Always,
    FirstSale,
    /// So many calendar months from the customer's first attributed sale, the end exclusive.
    Months(u16),
}

/// Every filled field must agree; empty ones agree with anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    pub actions: BTreeSet<Action>,
    pub products: BTreeSet<String>,
    pub categories: BTreeSet<String>,
    pub campaigns: BTreeSet<String>,
    pub partners: BTreeSet<String>,
    pub groups: BTreeSet<String>,
    pub channels: BTreeSet<String>,
    pub countries: BTreeSet<String>,
    pub customer: Option<CustomerKind>,
    pub min_order: Option<Minor>,
    pub max_order: Option<Minor>,
    pub coupons: BTreeSet<String>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reward {
    Flat(Minor),
    FlatPerUnit(Minor),
    Percent(Percent),
    Tiered(Tiers),
}

/// A reward that depends on how far the partner has come under the rule's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers {
    pub metric: Metric,
    pub window: Window,
    pub shape: Shape,
    /// Ascending, the first after zero.
    pub tiers: Vec<Tier>,
}

/// What is counted to find the tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Conversions.
    Count,
    /// The base that was sold, net of refunds.
    Revenue,
    /// What was earned.
    Commission,
}

/// Over what it is counted, in the program's time zone, by when the conversion occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Lifetime,
    Month,
    Quarter,
    Year,
    /// The conversion's day and so many days before it, less one.
    Rolling(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The whole order at the tier where it starts.
    MarginalByOrder,
    /// An order that crosses a tier is split there.
    MarginalByAmount,
    /// Crossing a tier re-rates the open window.
    Retroactive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The tier applies when the position exceeds this: conversions, or minor units.
    pub after: i64,
    pub pay: Pay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pay {
    Rate(Percent),
    Amount(Minor),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// A fraction of one.
    pub share: Decimal,
    pub days: u16,
}

impl Rule {
    /// The tiers by which reaching one re-rates what was earned before it.
    pub const fn retroactive(&self) -> Option<&Tiers> {
        match &self.reward {
            Reward::Tiered(tiers) if matches!(tiers.shape, Shape::Retroactive) => Some(tiers),
            _ => None,
        }
    }
}

impl Tiers {
    /// The tier of a position, and which it is.
    pub fn at(&self, position: i64) -> (usize, Tier) {
        let found = self.tiers.iter().enumerate().rfind(|(_, tier)| position > tier.after);
        // Nothing was reached yet: the first tier is where everybody starts.
        let (n, tier) = found.or_else(|| self.tiers.iter().enumerate().next()).unwrap_or((0, &Tier::NOTHING));
        (n, *tier)
    }
}

impl Tier {
    const NOTHING: Self = Self { after: 0, pay: Pay::Amount(Minor::ZERO) };
}

impl RuleSetDraft {
    /// The rules, ready to rate with. All refusals at once, each with its field.
    pub fn resolve(&self, currency: Currency) -> Result<Vec<Rule>, Vec<FieldError>> {
        let mut errors = Vec::new();
        if self.rationale.trim().is_empty() {
            errors.push(FieldError::new("/rationale", "say why, for those who read this later"));
        }
        if self.rules.is_empty() || self.rules.len() > MAX_RULES {
            errors.push(FieldError::new("/rules", format!("needs 1 to {MAX_RULES} rules")));
        }
        if self.examples.len() > MAX_EXAMPLES {
            errors.push(FieldError::new("/examples", format!("at most {MAX_EXAMPLES} examples")));
        }
        let mut rules: Vec<Rule> = Vec::with_capacity(self.rules.len());
        for (n, input) in self.rules.iter().enumerate() {
            let mut resolver = Resolver { at: format!("/rules/{n}"), currency, errors: Vec::new() };
            let rule = resolver.rule(input);
            errors.append(&mut resolver.errors);
            if rules.iter().any(|other| other.key == rule.key) {
                errors.push(FieldError::new(format!("/rules/{n}/key"), format!("{:?} is used twice", rule.key)));
            }
            rules.push(rule);
        }
        if errors.is_empty() { Ok(rules) } else { Err(errors) }
    }
}

/// Lower-case words joined by dashes.
fn slug(name: &str) -> String {
    let words = name.to_lowercase();
    let words: Vec<_> = words.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-")
}

/// Collects every refusal of one rule instead of stopping at the first.
struct Resolver {
    at: String,
    currency: Currency,
    errors: Vec<FieldError>,
}

impl Resolver {
    fn refuse(&mut self, field: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(format!("{}{field}", self.at), detail));
    }

    fn amount(&mut self, field: &str, text: &str) -> Minor {
        match Minor::parse(text, self.currency) {
            Ok(amount) if !amount.is_negative() => return amount,
            Ok(_) => self.refuse(field, "must not be negative"),
            Err(error) => self.refuse(field, error.to_string()),
        }
        Minor::ZERO
    }

    fn percent(&mut self, field: &str, text: &str) -> Percent {
        match parse_decimal(text) {
            Ok(rate) if rate >= Decimal::ZERO && rate <= Decimal::ONE_HUNDRED && rate.normalize().scale() <= 6 => {
                return Percent::new(rate);
            }
            Ok(_) => self.refuse(field, "must be a percentage from 0 to 100 with at most six decimals"),
            Err(error) => self.refuse(field, error.to_string()),
        }
        Percent::new(Decimal::ZERO)
    }

    fn rule(&mut self, input: &RuleInput) -> Rule {
        let key = slug(input.key.as_deref().unwrap_or(&input.name));
        if key.is_empty() || key.chars().count() > 60 {
            self.refuse("/name", "needs 1 to 60 characters that a key can be made of");
        }
        if input.hold_days.is_some_and(|days| days > MAX_HOLD_DAYS) {
            self.refuse("/holdDays", format!("at most {MAX_HOLD_DAYS}"));
        }
        if input.minimum_sales.is_some_and(|count| count > MAX_MINIMUM_SALES) {
            self.refuse("/minimumSales", format!("at most {MAX_MINIMUM_SALES}"));
        }
        Rule {
            key,
            name: input.name.clone(),
            priority: input.priority,
            hold_days: input.hold_days,
            minimum_sales: input.minimum_sales,
            matches: self.matches(&input.matches),
            reward: self.reward(&input.reward),
            base: input.base,
            slices: self.slices(&input.slices),
            caps: self.caps(&input.caps),
            recurrence: self.recurrence(&input.recurrence),
            exclude_store_credit: input.exclude_store_credit,
            renewals: input.renewals,
        }
    }

    fn caps(&mut self, input: &CapsInput) -> Caps {
        let mut cap = |field: &str, text: &Option<String>| {
            text.as_deref().map(|text| self.amount(&format!("/caps/{field}"), text))
        };
        Caps {
            per_order: cap("perOrder", &input.per_order),
            per_partner_month: cap("perPartnerMonth", &input.per_partner_month),
            per_program_month: cap("perProgramMonth", &input.per_program_month),
        }
    }

    fn recurrence(&mut self, text: &str) -> Recurrence {
        match text {
            "always" => Recurrence::Always,
            "first_sale" => Recurrence::FirstSale,
            _ => match text.strip_prefix("months:").and_then(|months| months.parse().ok()) {
                Some(months) if (1..=MAX_MONTHS).contains(&months) => Recurrence::Months(months),
                _ => {
                    self.refuse("/recurrence", "must be always, first_sale, or months: and a number from 1 to 600");
                    Recurrence::Always
                }
            },
        }
    }

    fn matches(&mut self, input: &MatchInput) -> Match {
        let set = |values: &[String]| values.iter().cloned().collect::<BTreeSet<_>>();
        let upper = |values: &[String]| values.iter().map(|v| v.trim().to_ascii_uppercase()).collect::<BTreeSet<_>>();
        let min_order = input.min_order.as_deref().map(|text| self.amount("/match/minOrder", text));
        let max_order = input.max_order.as_deref().map(|text| self.amount("/match/maxOrder", text));
        if let (Some(min), Some(max)) = (min_order, max_order)
            && min > max
        {
            self.refuse("/match/maxOrder", "is less than minOrder");
        }
        Match {
            actions: input.actions.iter().copied().collect(),
            products: set(&input.products),
            categories: set(&input.categories),
            campaigns: set(&input.campaigns),
            partners: set(&input.partners),
            groups: set(&input.groups),
            channels: set(&input.channels),
            countries: upper(&input.countries),
            customer: input.customer,
            min_order,
            max_order,
            coupons: upper(&input.coupons),
            metadata: input.metadata.clone(),
        }
    }

    fn reward(&mut self, input: &RewardInput) -> Reward {
        match input {
            RewardInput::Flat { amount } => Reward::Flat(self.amount("/reward/amount", amount)),
            RewardInput::FlatPerUnit { amount } => Reward::FlatPerUnit(self.amount("/reward/amount", amount)),
            RewardInput::Percent { rate } => Reward::Percent(self.percent("/reward/rate", rate)),
            RewardInput::Tiered { metric, window, shape, tiers } => self.tiered(metric, window, shape, tiers),
        }
    }

    fn tiered(&mut self, metric: &str, window: &str, shape: &str, tiers: &[TierInput]) -> Reward {
        let metric = match metric {
            "count" => Some(Metric::Count),
            "revenue" => Some(Metric::Revenue),
            "commission" => Some(Metric::Commission),
            _ => None,
        };
        let window = match window {
            "lifetime" => Some(Window::Lifetime),
            "month" => Some(Window::Month),
            "quarter" => Some(Window::Quarter),
            "year" => Some(Window::Year),
            other => {
                let days = other.strip_prefix("rolling:").and_then(|days| days.parse().ok());
                days.filter(|days| (1..=MAX_ROLLING_DAYS).contains(days)).map(Window::Rolling)
            }
        };
        let shape = match shape {
            "marginal_by_order" => Some(Shape::MarginalByOrder),
            "marginal_by_amount" => Some(Shape::MarginalByAmount),
            "retroactive" => Some(Shape::Retroactive),
            _ => None,
        };
        for (field, missing, detail) in [
            ("/reward/metric", metric.is_none(), "must be count, revenue or commission"),
            (
                "/reward/window",
                window.is_none(),
                "must be lifetime, month, quarter, year, or rolling: and 1 to 366 days",
            ),
            ("/reward/shape", shape.is_none(), "must be marginal_by_order, marginal_by_amount or retroactive"),
        ] {
            if missing {
                self.refuse(field, detail);
            }
        }
        if (metric, shape) == (Some(Metric::Count), Some(Shape::MarginalByAmount)) {
            self.refuse(
                "/reward/shape",
                "a count cannot be split by amount: use revenue or commission, or marginal_by_order",
            );
        }
        if let (Some(Window::Rolling(_)), Some(Shape::Retroactive)) = (window, shape) {
            self.refuse("/reward/window", "a rolling window never closes, so retroactive tiers need another");
        }
        let metric = metric.unwrap_or(Metric::Count);
        let shape = shape.unwrap_or(Shape::MarginalByOrder);
        let tiers = self.tiers(tiers, metric, shape);
        Reward::Tiered(Tiers { metric, window: window.unwrap_or(Window::Lifetime), shape, tiers })
    }

    fn tiers(&mut self, inputs: &[TierInput], metric: Metric, shape: Shape) -> Vec<Tier> {
        if inputs.is_empty() || inputs.len() > MAX_TIERS {
            self.refuse("/reward/tiers", format!("needs 1 to {MAX_TIERS} tiers"));
        }
        let mut tiers: Vec<Tier> = Vec::with_capacity(inputs.len());
        for (n, input) in inputs.iter().enumerate() {
            let field = |name: &str| format!("/reward/tiers/{n}/{name}");
            let known = self.errors.len();
            let after = match metric {
                Metric::Count => self.count(&field("after"), &input.after),
                Metric::Revenue | Metric::Commission => self.amount(&field("after"), &input.after).units(),
            };
            let is_read = self.errors.len() == known;
            let pay = match (&input.rate, &input.amount) {
                (Some(rate), None) => Pay::Rate(self.percent(&field("rate"), rate)),
                (None, Some(amount)) => {
                    if shape == Shape::MarginalByAmount {
                        self.refuse(&field("amount"), "an amount cannot be split: tiers by amount need a rate");
                    }
                    Pay::Amount(self.amount(&field("amount"), amount))
                }
                _ => {
                    self.refuse(&field("rate"), "a tier has either a rate or an amount");
                    Pay::Amount(Minor::ZERO)
                }
            };
            match tiers.last() {
                None if after != 0 => self.refuse(&field("after"), "the first tier starts after 0"),
                Some(previous) if is_read && after <= previous.after => {
                    self.refuse(&field("after"), "tiers must ascend");
                }
                _ => {}
            }
            tiers.push(Tier { after, pay });
        }
        if tiers.iter().any(|tier| matches!(tier.pay, Pay::Rate(_)))
            && tiers.iter().any(|tier| matches!(tier.pay, Pay::Amount(_)))
        {
            self.refuse("/reward/tiers", "either all tiers have a rate or all have an amount");
        }
        tiers
    }

    /// Sources count in whole numbers; a decimal that is one is fine.
    fn count(&mut self, field: &str, text: &str) -> i64 {
        let number = parse_decimal(text).ok().filter(|number| number.fract().is_zero() && !number.is_sign_negative());
        let count = number.and_then(|number| number.to_i64()).filter(|count| *count <= MAX_COUNT);
        count.unwrap_or_else(|| {
            self.refuse(field, "must be a whole number of conversions");
            0
        })
    }

    fn slices(&mut self, inputs: &[SliceInput]) -> Vec<Slice> {
        if inputs.is_empty() {
            return vec![Slice { share: Decimal::ONE, days: 0 }];
        }
        if inputs.len() > MAX_SLICES {
            self.refuse("/slices", format!("at most {MAX_SLICES} slices"));
        }
        let mut slices = Vec::with_capacity(inputs.len());
        for (n, input) in inputs.iter().enumerate() {
            let percent = self.percent(&format!("/slices/{n}/share"), &input.share);
            if percent.value().is_zero() {
                self.refuse(&format!("/slices/{n}/share"), "must be more than zero");
            }
            if input.days > MAX_HOLD_DAYS {
                self.refuse(&format!("/slices/{n}/days"), format!("at most {MAX_HOLD_DAYS}"));
            }
            slices.push(Slice { share: percent.fraction().unwrap_or_default(), days: input.days });
        }
        if slices.iter().map(|slice: &Slice| slice.share).sum::<Decimal>() != Decimal::ONE {
            self.refuse("/slices", "shares must sum to 100");
        }
        if !slices.is_sorted_by_key(|slice| slice.days) {
            self.refuse("/slices", "days must not descend");
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(rules: serde_json::Value) -> RuleSetDraft {
        serde_json::from_value(serde_json::json!({
            "rationale": "test", "effectiveFrom": "2026-01-01T00:00:00Z", "rules": rules,
        }))
        .unwrap()
    }

    fn pointers(rules: serde_json::Value) -> Vec<String> {
        let errors = draft(rules).resolve("USD".parse().unwrap()).unwrap_err();
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn a_key_is_the_slug_of_the_name() {
        let rules =
            draft(serde_json::json!([{"name": "Ten % on Everything!", "reward": {"kind": "percent", "rate": "10"}}]));
        assert_eq!(rules.resolve("USD".parse().unwrap()).unwrap()[0].key, "ten-on-everything");
    }

    #[test]
    fn each_refusal_names_its_field() {
        use serde_json::json;
        let percent = |rate: &str| json!({"name": "a", "reward": {"kind": "percent", "rate": rate}});
        assert_eq!(pointers(json!([])), ["/rules"]);
        assert_eq!(pointers(json!([percent("-1")])), ["/rules/0/reward/rate"]);
        assert_eq!(pointers(json!([percent("101")])), ["/rules/0/reward/rate"]);
        assert_eq!(pointers(json!([percent("ten")])), ["/rules/0/reward/rate"]);
        assert_eq!(pointers(json!([percent("1"), percent("2")])), ["/rules/1/key"]);
        assert_eq!(
            pointers(json!([{"name": "a", "reward": {"kind": "flat", "amount": "1.001"}}])),
            ["/rules/0/reward/amount"]
        );
        let sliced = |shares: &[&str]| {
            let slices: Vec<_> = shares.iter().map(|share| json!({"share": share, "days": 0})).collect();
            json!([{"name": "a", "reward": {"kind": "percent", "rate": "1"}, "slices": slices}])
        };
        assert_eq!(pointers(sliced(&["40", "50"])), ["/rules/0/slices"]);
        assert_eq!(pointers(sliced(&["0", "100"])), ["/rules/0/slices/0/share"]);
        let tiered = |tiers: serde_json::Value| {
            json!([{"name": "a", "reward": {"kind": "tiered", "metric": "count", "window": "lifetime",
                "shape": "marginal_by_order", "tiers": tiers}}])
        };
        assert_eq!(pointers(tiered(json!([]))), ["/rules/0/reward/tiers"]);
        assert_eq!(pointers(tiered(json!([{"after": "1", "rate": "1"}]))), ["/rules/0/reward/tiers/0/after"]);
        assert_eq!(
            pointers(tiered(json!([{"after": "0", "rate": "1"}, {"after": "0", "rate": "2"}]))),
            ["/rules/0/reward/tiers/1/after"]
        );
        assert_eq!(
            pointers(tiered(json!([{"after": "0", "rate": "1", "amount": "1"}]))),
            ["/rules/0/reward/tiers/0/rate"]
        );
    }

    #[test]
    fn tiers_that_contradict_themselves_are_refused() {
        use serde_json::json;
        let tiered = |metric: &str, window: &str, shape: &str, tiers: serde_json::Value| json!([{"name": "a", "reward": {"kind": "tiered", "metric": metric, "window": window, "shape": shape, "tiers": tiers}}]);
        let rate = || json!([{"after": "0", "rate": "1"}]);
        assert_eq!(pointers(tiered("count", "lifetime", "marginal_by_amount", rate())), ["/rules/0/reward/shape"]);
        assert_eq!(pointers(tiered("count", "rolling:30", "retroactive", rate())), ["/rules/0/reward/window"]);
        assert_eq!(pointers(tiered("count", "rolling:0", "marginal_by_order", rate())), ["/rules/0/reward/window"]);
        assert_eq!(pointers(tiered("sales", "month", "marginal_by_order", rate())), ["/rules/0/reward/metric"]);
        assert_eq!(pointers(tiered("revenue", "month", "stepped", rate())), ["/rules/0/reward/shape"]);
        let amount = json!([{"after": "0", "amount": "1"}]);
        assert_eq!(
            pointers(tiered("revenue", "month", "marginal_by_amount", amount)),
            ["/rules/0/reward/tiers/0/amount"]
        );
        let mixed = json!([{"after": "0", "amount": "1"}, {"after": "5", "rate": "1"}]);
        assert_eq!(pointers(tiered("count", "month", "marginal_by_order", mixed)), ["/rules/0/reward/tiers"]);
        let half = json!([{"after": "0", "rate": "1"}, {"after": "1.5", "rate": "1"}]);
        assert_eq!(pointers(tiered("count", "month", "marginal_by_order", half)), ["/rules/0/reward/tiers/1/after"]);
    }

    #[test]
    fn caps_recurrence_and_minimum_sales_are_checked_at_draft() {
        use serde_json::json;
        let with = |field: &str, value: serde_json::Value| {
            let mut rule = json!({"name": "a", "reward": {"kind": "percent", "rate": "1"}});
            rule[field] = value;
            json!([rule])
        };
        assert_eq!(pointers(with("caps", json!({"perOrder": "-5"}))), ["/rules/0/caps/perOrder"]);
        assert_eq!(pointers(with("caps", json!({"perProgramMonth": "x"}))), ["/rules/0/caps/perProgramMonth"]);
        for recurrence in ["twice", "months:", "months:0", "months:601", "months:-1"] {
            assert_eq!(pointers(with("recurrence", json!(recurrence))), ["/rules/0/recurrence"], "{recurrence}");
        }
        assert_eq!(pointers(with("minimumSales", json!(1_001))), ["/rules/0/minimumSales"]);
    }

    /// How many refusals there are of what is as large as it may be, and of what is one more.
    #[test]
    fn limits_admit_what_they_name_and_no_more() {
        use serde_json::json;
        let plain = |name: &str| json!({"name": name, "reward": {"kind": "percent", "rate": "1"}});
        let with = |field: &str, value: serde_json::Value| {
            let mut rule = plain("a");
            rule[field] = value;
            json!([rule])
        };
        let slices = |count: usize, days: u16| -> serde_json::Value {
            (0..count)
                .map(|n| json!({"share": if n == 0 { 100 - (count - 1) } else { 1 }.to_string(), "days": days}))
                .collect()
        };
        let tiers = |count: usize| {
            let tiers: Vec<_> = (0..count).map(|n| json!({"after": n.to_string(), "rate": "1"})).collect();
            json!([{"name": "a", "reward": {"kind": "tiered", "metric": "count", "window": "month", "shape": "marginal_by_order", "tiers": tiers}}])
        };
        let many = |count: usize| -> serde_json::Value { (0..count).map(|n| plain(&format!("r{n}"))).collect() };
        let between = |min: &str, max: &str| with("match", json!({"minOrder": min, "maxOrder": max}));
        let window = |days: u32| {
            let tiers = json!([{"after": "0", "rate": "1"}]);
            json!([{"name": "a", "reward": {"kind": "tiered", "metric": "count", "window": format!("rolling:{days}"),
                "shape": "marginal_by_order", "tiers": tiers}}])
        };
        for (what, fine, over) in [
            ("rules", many(MAX_RULES), many(MAX_RULES + 1)),
            ("name", json!([plain(&"n".repeat(60))]), json!([plain(&"n".repeat(61))])),
            ("name", json!([plain("n")]), json!([plain("!?")])),
            ("holdDays", with("holdDays", json!(MAX_HOLD_DAYS)), with("holdDays", json!(MAX_HOLD_DAYS + 1))),
            (
                "minimumSales",
                with("minimumSales", json!(MAX_MINIMUM_SALES)),
                with("minimumSales", json!(MAX_MINIMUM_SALES + 1)),
            ),
            ("recurrence", with("recurrence", json!("months:600")), with("recurrence", json!("months:601"))),
            ("slices", with("slices", slices(MAX_SLICES, 0)), with("slices", slices(MAX_SLICES + 1, 0))),
            ("days", with("slices", slices(1, MAX_HOLD_DAYS)), with("slices", slices(1, MAX_HOLD_DAYS + 1))),
            ("tiers", tiers(MAX_TIERS), tiers(MAX_TIERS + 1)),
            ("maxOrder", between("10.00", "10.00"), between("10.01", "10.00")),
            ("window", window(366), window(367)),
        ] {
            let count = |rules: serde_json::Value| {
                draft(rules).resolve("USD".parse().unwrap()).map_or_else(|errors| errors.len(), |_| 0)
            };
            assert_eq!((count(fine), count(over)), (0, 1), "{what}");
        }
        let mut examples = draft(json!([plain("a")]));
        let example = Example { input: json!({}), expect: vec![], rate: None, customer_since: None };
        examples.examples = vec![example.clone(); MAX_EXAMPLES];
        assert!(examples.resolve("USD".parse().unwrap()).is_ok());
        examples.examples.push(example);
        assert_eq!(examples.resolve("USD".parse().unwrap()).unwrap_err()[0].pointer, "/examples");
    }

    #[test]
    fn what_is_written_is_what_is_meant() {
        use serde_json::json;
        let one = |rule: serde_json::Value| draft(json!([rule])).resolve("USD".parse().unwrap()).unwrap().remove(0);
        let recurs = |text: &str| {
            one(json!({"name": "a", "reward": {"kind": "flat", "amount": "1"}, "recurrence": text})).recurrence
        };
        assert_eq!(recurs("always"), Recurrence::Always);
        assert_eq!(recurs("first_sale"), Recurrence::FirstSale);
        assert_eq!(recurs("months:12"), Recurrence::Months(12));
        let tiered = |metric: &str, window: &str, shape: &str| {
            let tiers = json!([{"after": "0", "rate": "1"}, {"after": "2", "rate": "2"}]);
            let rule = json!({"name": "a", "reward": {"kind": "tiered", "metric": metric, "window": window, "shape": shape, "tiers": tiers}});
            match one(rule).reward {
                Reward::Tiered(Tiers { metric, window, shape, tiers }) => (metric, window, shape, tiers[1].after),
                _ => unreachable!(),
            }
        };
        assert_eq!(
            tiered("count", "lifetime", "marginal_by_order"),
            (Metric::Count, Window::Lifetime, Shape::MarginalByOrder, 2)
        );
        assert_eq!(
            tiered("revenue", "month", "marginal_by_amount"),
            (Metric::Revenue, Window::Month, Shape::MarginalByAmount, 200)
        );
        assert_eq!(
            tiered("commission", "quarter", "retroactive"),
            (Metric::Commission, Window::Quarter, Shape::Retroactive, 200)
        );
        assert_eq!(tiered("count", "year", "retroactive"), (Metric::Count, Window::Year, Shape::Retroactive, 2));
        assert_eq!(tiered("count", "rolling:30", "marginal_by_order").1, Window::Rolling(30));
    }

    #[test]
    fn a_version_is_in_force_once_it_is_published_and_has_started_the_latest_first() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let version = |version: u32, hours: i64, published: bool| {
            let set = RuleSet {
                program: ProgramId::from_uuid(1),
                version,
                draft: RuleSetDraft {
                    effective_from: now + SignedDuration::from_hours(hours),
                    ..draft(serde_json::json!([]))
                },
                author: "ann".into(),
                created_at: now,
                state: RuleSetState::Draft,
            };
            if published {
                set.publish("ann", now - SignedDuration::from_hours(99), false, false).unwrap()
            } else {
                set
            }
        };
        let sets = [
            version(1, -5, true),
            version(2, -1, false),
            version(3, -2, true),
            version(4, -2, true),
            version(5, 1, true),
        ];
        let in_force = |hours: i64| in_force(&sets, now + SignedDuration::from_hours(hours)).map(|set| set.version);
        assert_eq!([-6, -5, -3, -2, 0, 1].map(in_force), [None, Some(1), Some(1), Some(4), Some(4), Some(5)]);
        let names: Vec<_> = sets.iter().take(2).map(|set| set.state.name()).collect();
        assert_eq!(names, ["published", "draft"]);
        assert_eq!(version(6, 0, false).sign_off("ben").unwrap().state.name(), "signed_off");
    }

    #[test]
    fn a_change_within_a_list_is_told_by_its_place() {
        use serde_json::json;
        let tiers = |rate: &str| {
            let tiers = json!([{"after": "0", "rate": "10"}, {"after": "2", "rate": rate}]);
            draft(
                json!([{"name": "T", "reward": {"kind": "tiered", "metric": "count", "window": "month", "shape": "retroactive", "tiers": tiers}}]),
            )
        };
        assert_eq!(differences(&tiers("12"), &tiers("15")), ["Rule \"T\": reward tiers 2 rate is 15 instead of 12."]);
        let later = RuleSetDraft { effective_from: "2026-02-01T00:00:00Z".parse().unwrap(), ..tiers("12") };
        assert_eq!(
            differences(&tiers("12"), &later),
            ["It is effective from 2026-02-01T00:00:00Z instead of 2026-01-01T00:00:00Z."]
        );
    }

    #[test]
    fn the_difference_of_two_versions_is_told_in_words() {
        use serde_json::json;
        let one = draft(json!([{"name": "Ten", "reward": {"kind": "percent", "rate": "10"}},
            {"name": "Old", "reward": {"kind": "flat", "amount": "1"}}]));
        let two = draft(
            json!([{"name": "Ten", "match": {"products": ["A", "B"]}, "reward": {"kind": "percent", "rate": "12"}},
            {"name": "New", "reward": {"kind": "flat", "amount": "1"}}]),
        );
        assert_eq!(
            differences(&one, &two),
            [
                "Rule \"Ten\": match products is A, B instead of nothing.",
                "Rule \"Ten\": reward rate is 12 instead of 10.",
                "Rule \"New\" is new.",
                "Rule \"Old\" is gone.",
            ]
        );
        assert!(differences(&one, &one).is_empty());
    }

    #[test]
    fn a_version_is_published_by_two_people_and_then_fixed() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let set = RuleSet {
            program: ProgramId::from_uuid(1),
            version: 2,
            draft: RuleSetDraft { effective_from: now + NOTICE, ..draft(serde_json::json!([])) },
            author: "ann".into(),
            created_at: now,
            state: RuleSetState::Draft,
        };
        assert_eq!(set.clone().publish("ann", now, true, false), Err(RuleSetError::NotSignedOff(2)));
        assert_eq!(set.clone().sign_off("ann"), Err(RuleSetError::AuthorSignsOff(2)));
        let signed = set.clone().sign_off("ben").unwrap();
        assert_eq!(signed.clone().sign_off("cy"), Err(RuleSetError::SignedOff(2)));
        let later = now + SignedDuration::from_secs(1);
        assert_eq!(signed.clone().publish("ann", later, true, false), Err(RuleSetError::TooSoon(2)));
        assert!(signed.clone().publish("ann", later, true, true).is_ok(), "the first version may start at once");
        let published = signed.publish("ann", now, true, false).unwrap();
        assert_eq!(published.clone().sign_off("cy"), Err(RuleSetError::Published(2)));
        assert_eq!(in_force(std::slice::from_ref(&published), now), None);
        assert_eq!(in_force(std::slice::from_ref(&published), now + NOTICE), Some(&published));
        assert!(set.publish("ann", now, false, false).is_ok(), "sign-off can be switched off");
    }
}
