//! Tallies: how far a partner, or a whole program, has come under a rule within a window. Tier positions, caps and what a retroactive
//! tier re-rates are read from here, never from all sales.
//!
//! A tally is the sum of what its earnings contribute. When an earning changes, so does its contribution, and the difference is
//! added in the same transaction.
//!
//! # Retroactive tiers and caps
//!
//! What a window owes once it reaches a tier is what the tier pays for its base, less what was earned and less what caps kept back
//! ([`KeptBack`]): what a cap kept back stays so, and a cap that is freed serves later sales only. Each cap limits what it is for:
//!
//! - a cap on an order limits what that order ever comes to. Counted at another tier, it is clamped again: 100.00 of which 5.00 are paid
//!   at most are worth 5.00 at 10 % and at 12 %, and 50.00 would be worth no more than 5.00 at 12 %, either;
//! - a cap on a month limits what is earned in it, be it by sales or by a true-up. Reaching a tier owes the difference of the rates on all
//!   of the window's base, within what is left of the month in which it is reached, and nothing of what earlier months kept back: of
//!   200.00 in January at 10 %, capped at 10.00, reaching 12 % in February owes 4.00.
//!
//! What a month has nothing left of, of a true-up, is not owed later, either.
//!
//! What is kept back is told for each tier, since leaving a tier changes it: who earned 10.00 of 50.00 at 50 % had nothing kept back at
//! 10 %.
//!
//! # Retroactive tiers by commission
//!
//! What such a tier pays counts for itself: at 10 %, and at 20 % once more than 100.00 are earned, 1,100.00 sold come to 110.00 and so to
//! 220.00, which may be enough for the tier after that. So the tier reached is found from the first one on: the next is reached if what
//! the window comes to at the one before exceeds it. That depends on what the window holds and not on how it came there: what is refunded
//! leaves it as if it had never been sold.
//!
//! # Retroactive tiers and rule set versions
//!
//! Each version rates its own conversions again and no other's. How far they came is told by them and those of earlier versions: what a
//! later version sold brings a later sale further, and is no reason to pay more for an earlier one when some of that goes back.

use std::collections::BTreeMap;
use std::ops::Bound;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::PartnerId;
use crate::line::{Line, LineKind, StateName};
use crate::money::{Minor, MoneyError};
use crate::rating::{Basis, Share};
use crate::rules::{Metric, Pay, Rule, Tier, Tiers, Window};

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Conversions.
    pub count: i64,
    /// The base that was sold, net of refunds.
    pub revenue: Minor,
    /// What was earned, net of refunds, with true-ups.
    pub commission: Minor,
    /// Per rule set version what a retroactive tier re-rates: a new version starts a new base.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bases: BTreeMap<u32, Base>,
}

/// What one rule set version's conversions contributed to a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Base {
    /// Conversions, whatever the partner's share of each.
    pub count: i64,
    /// Of these, those that are shared: an amount per conversion is due by the partner's share of it.
    #[serde(skip_serializing_if = "Shared::is_empty")]
    pub shared: Shared,
    pub revenue: Minor,
    pub earned: Minor,
    /// What partial refunds took of conversions that still count: an amount per conversion is not due again for it.
    pub partial: Minor,
    /// What caps kept back of what was sold.
    #[serde(skip_serializing_if = "KeptBack::is_empty")]
    pub kept_back: KeptBack,
    /// What caps on months kept back of true-ups: so much may be lacking and is not owed.
    #[serde(skip_serializing_if = "KeptBack::is_empty")]
    pub lacking: KeptBack,
}

/// What caps kept back, by the tier (told by its `after`) at which it is counted: so much less than it pays is due there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeptBack(BTreeMap<i64, Minor>);

impl KeptBack {
    pub fn of(tiers: &Tiers, at: impl Fn(&Tier) -> Result<Minor, MoneyError>) -> Result<Self, MoneyError> {
        let all: BTreeMap<_, _> =
            tiers.tiers.iter().map(|tier| Ok((tier.after, at(tier)?))).collect::<Result<_, MoneyError>>()?;
        Ok(Self(all).without_zeros())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn at(&self, tier: &Tier) -> Minor {
        self.0.get(&tier.after).copied().unwrap_or_default()
    }

    /// Less the share of it that went back, as a fraction.
    pub fn less(&self, (part, whole): (i128, i128)) -> Result<Self, MoneyError> {
        let left = |amount: Minor| amount.minus(amount.proportion(part, whole)?);
        let all = self.0.iter().map(|(tier, amount)| Ok((*tier, left(*amount)?)));
        Ok(Self(all.collect::<Result<_, MoneyError>>()?).without_zeros())
    }

    pub fn plus(mut self, other: &Self) -> Result<Self, MoneyError> {
        for (tier, amount) in &other.0 {
            let sum = self.0.entry(*tier).or_default();
            *sum = sum.plus(*amount)?;
        }
        Ok(self.without_zeros())
    }

    fn negated(self) -> Self {
        Self(self.0.into_iter().map(|(tier, amount)| (tier, amount.negated())).collect())
    }

    fn without_zeros(mut self) -> Self {
        self.0.retain(|_, amount| !amount.is_zero());
        self
    }
}

/// Of how many conversions the partner has which part, in lowest terms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64, i64)>", into = "Vec<(u64, u64, i64)>")]
pub struct Shared(BTreeMap<(u64, u64), i64>);

impl From<Vec<(u64, u64, i64)>> for Shared {
    fn from(told: Vec<(u64, u64, i64)>) -> Self {
        Self(told.into_iter().map(|(part, whole, count)| ((part, whole), count)).collect())
    }
}

impl From<Shared> for Vec<(u64, u64, i64)> {
    fn from(shared: Shared) -> Self {
        shared.0.into_iter().map(|((part, whole), count)| (part, whole, count)).collect()
    }
}

impl Shared {
    fn of(share: Option<Share>, count: i64) -> Self {
        let in_lowest_terms = |Share { part, whole, .. }: Share| {
            let divisor = gcd(part, whole).max(1);
            (part / divisor, whole / divisor)
        };
        let shared = share.filter(|_| count != 0).map(in_lowest_terms);
        Self(shared.into_iter().map(|share| (share, count)).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn plus(mut self, other: &Self) -> Self {
        for (share, count) in &other.0 {
            *self.0.entry(*share).or_default() += count;
        }
        self.0.retain(|_, count| *count != 0);
        self
    }

    fn negated(self) -> Self {
        Self(self.0.into_iter().map(|(share, count)| (share, -count)).collect())
    }
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Base {
    /// What one earning contributes, of which a share went back; `count` is zero where it takes no position of its own.
    pub fn of(
        basis: &Basis,
        tiers: &Tiers,
        count: i64,
        revenue: Minor,
        back: (i128, i128),
    ) -> Result<Self, MoneyError> {
        let partial = basis.earned.proportion(back.0, back.1)?;
        let earned = basis.earned.minus(partial)?;
        let kept_back = match tiers.tiers.first().map(|tier| tier.pay) {
            // As much of it is due less as its base is less.
            Some(Pay::Rate(_)) => basis.kept_back.less(back)?,
            // For each conversion that counts all is due, but for `partial`.
            _ => basis.kept_back.clone(),
        };
        let (shared, lacking) = (Shared::of(basis.share, count), KeptBack::default());
        Ok(Self { count, shared, revenue, earned, partial, kept_back, lacking })
    }

    /// So much for each conversion, by the partner's share of it. Shares that are alike are rounded together.
    pub fn times(&self, amount: Minor) -> Result<Minor, MoneyError> {
        let alone = self.count - self.shared.0.values().sum::<i64>();
        let mut due = amount.proportion(alone.into(), 1)?;
        for ((part, whole), count) in &self.shared.0 {
            due = due.plus(amount.proportion(i128::from(*part) * i128::from(*count), (*whole).into())?)?;
        }
        Ok(due)
    }

    fn plus(self, other: &Self) -> Result<Self, MoneyError> {
        Ok(Self {
            count: self.count + other.count,
            shared: self.shared.plus(&other.shared),
            revenue: self.revenue.plus(other.revenue)?,
            earned: self.earned.plus(other.earned)?,
            partial: self.partial.plus(other.partial)?,
            kept_back: self.kept_back.plus(&other.kept_back)?,
            lacking: self.lacking.plus(&other.lacking)?,
        })
    }

    fn negated(self) -> Self {
        Self {
            count: -self.count,
            shared: self.shared.negated(),
            revenue: self.revenue.negated(),
            earned: self.earned.negated(),
            partial: self.partial.negated(),
            kept_back: self.kept_back.negated(),
            lacking: self.lacking.negated(),
        }
    }
}

impl Tally {
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    pub fn plus(mut self, other: &Self) -> Result<Self, MoneyError> {
        self.count += other.count;
        self.revenue = self.revenue.plus(other.revenue)?;
        self.commission = self.commission.plus(other.commission)?;
        for (version, base) in &other.bases {
            let sum = self.bases.entry(*version).or_default();
            *sum = std::mem::take(sum).plus(base)?;
        }
        self.bases.retain(|_, base| *base != Base::default());
        Ok(self)
    }

    pub fn minus(self, other: &Self) -> Result<Self, MoneyError> {
        self.plus(&other.clone().negated())
    }

    fn negated(self) -> Self {
        Self {
            count: -self.count,
            revenue: self.revenue.negated(),
            commission: self.commission.negated(),
            bases: self.bases.into_iter().map(|(version, base)| (version, base.negated())).collect(),
        }
    }

    /// How far the metric has come for a rule set version: conversions or minor units. A version goes on where those before it came to.
    pub fn position(&self, metric: Metric, version: u32) -> i64 {
        let (all, one): (i64, fn(&Base) -> i64) = match metric {
            Metric::Count => (self.count, |base| base.count),
            Metric::Revenue => (self.revenue.units(), |base| base.revenue.units()),
            Metric::Commission => (self.commission.units(), |base| base.earned.units()),
        };
        let later = self.bases.range((Bound::Excluded(version), Bound::Unbounded));
        all - later.map(|(_, base)| one(base)).sum::<i64>()
    }

    pub fn base(&self, version: u32) -> Base {
        self.bases.get(&version).cloned().unwrap_or_default()
    }

    /// The tier that a window has reached which is rated as a whole, with its number.
    pub fn reached(&self, tiers: &Tiers, version: u32) -> Result<(usize, Tier), MoneyError> {
        let position = self.position(tiers.metric, version);
        if tiers.metric != Metric::Commission {
            return Ok(tiers.at(position));
        }
        let mut reached = tiers.at(0);
        while let Some(next) = tiers.tiers.get(reached.0 + 1) {
            let comes_to = position.saturating_add(self.outstanding_at(&reached.1, version)?.units());
            if comes_to <= next.after {
                break;
            }
            reached = (reached.0 + 1, *next);
        }
        Ok(reached)
    }

    /// What the window still lacks for all its conversions to have been rated at the tier it has reached: negative where it has too much.
    pub fn outstanding(&self, tiers: &Tiers, version: u32) -> Result<Minor, MoneyError> {
        let (_, tier) = self.reached(tiers, version)?;
        self.outstanding_at(&tier, version)
    }

    /// The same, had the window reached that tier.
    pub fn outstanding_at(&self, tier: &Tier, version: u32) -> Result<Minor, MoneyError> {
        let base = self.base(version);
        let due = match tier.pay {
            Pay::Rate(rate) => rate.of(base.revenue)?,
            Pay::Amount(amount) => base.times(amount)?.minus(base.partial)?,
        };
        let lacks = due.minus(base.earned)?.minus(base.kept_back.at(tier))?;
        // What went back of what was sold is the first to lack no more.
        lacks.minus(lacks.min(base.lacking.at(tier)).max(Minor::ZERO))
    }
}

/// Whose tally it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Partner(PartnerId),
    Program,
}

/// Which tally.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TallyKey {
    pub owner: Owner,
    pub rule: String,
    pub window: WindowKey,
}

/// One instance of a window: `life`, `2026`, `2026-q1`, `2026-03`, `d2026-03-14`; or `rolling`, all days of a rolling window together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WindowKey(String);

impl WindowKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn day(date: Date) -> Self {
        Self(format!("d{date}"))
    }

    fn rolling() -> Self {
        Self("rolling".to_owned())
    }

    pub fn month(date: Date) -> Self {
        Self(format!("{:04}-{:02}", date.year(), date.month()))
    }
}

impl Window {
    /// The instance a day belongs to. Rolling windows are kept by day.
    pub fn key(self, date: Date) -> WindowKey {
        match self {
            Self::Lifetime => WindowKey("life".to_owned()),
            Self::Year => WindowKey(format!("{:04}", date.year())),
            Self::Quarter => WindowKey(format!("{:04}-q{}", date.year(), (date.month() + 2) / 3)),
            Self::Month => WindowKey::month(date),
            Self::Rolling(_) => WindowKey::day(date),
        }
    }

    /// The first day whose tally counts for a conversion of this day, where several do.
    pub fn reach(self, date: Date) -> Option<WindowKey> {
        match self {
            Self::Rolling(days) => {
                let back = Span::new().days(i64::from(days) - 1);
                date.checked_sub(back).ok().map(WindowKey::day)
            }
            _ => None,
        }
    }

    /// Whether the window of this day has not ended by `now`.
    pub fn is_open(self, date: Date, now: Timestamp, zone: &TimeZone) -> bool {
        let today = now.to_zoned(zone.clone()).date();
        match self {
            Self::Lifetime | Self::Rolling(_) => true,
            // What lies ahead, by a clock that is ahead, is not over either.
            _ => today <= date || self.key(today) == self.key(date),
        }
    }
}

/// The tallies that an earning under a rule counts in, and no others.
pub fn keys(rule: &Rule, partner: &PartnerId, date: Date) -> Vec<TallyKey> {
    let key = |owner, window| TallyKey { owner, rule: rule.key.clone(), window };
    let mut keys = Vec::new();
    if let crate::rules::Reward::Tiered(tiers) = &rule.reward {
        keys.push(key(Owner::Partner(partner.clone()), tiers.window.key(date)));
        // Whoever books on any day changes it, so that two who book on two days at once cannot overlook each other.
        if matches!(tiers.window, Window::Rolling(_)) {
            keys.push(key(Owner::Partner(partner.clone()), WindowKey::rolling()));
        }
    }
    if rule.caps.per_partner_month.is_some() {
        keys.push(key(Owner::Partner(partner.clone()), WindowKey::month(date)));
    }
    if rule.caps.per_program_month.is_some() {
        keys.push(key(Owner::Program, WindowKey::month(date)));
    }
    keys.dedup();
    keys
}

/// Tallies as they were read, and what is added to them.
#[derive(Debug, Clone, Default)]
pub struct Tallies {
    read: BTreeMap<TallyKey, Tally>,
    steps: BTreeMap<TallyKey, Tally>,
}

impl Tallies {
    pub fn new(read: BTreeMap<TallyKey, Tally>) -> Self {
        Self { read, steps: BTreeMap::new() }
    }

    /// As it stands with what was added. What was not read stands at zero.
    pub fn get(&self, key: &TallyKey) -> Result<Tally, MoneyError> {
        let read = self.read.get(key).cloned().unwrap_or_default();
        match self.steps.get(key) {
            Some(step) => read.plus(step),
            None => Ok(read),
        }
    }

    /// The sum of a rolling window's days.
    pub fn sum(&self, from: &TallyKey, to: &TallyKey) -> Result<Tally, MoneyError> {
        let known: std::collections::BTreeSet<_> =
            self.read.range(from..=to).chain(self.steps.range(from..=to)).map(|(key, _)| key).collect();
        known.into_iter().try_fold(Tally::default(), |sum, key| sum.plus(&self.get(key)?))
    }

    pub fn add(&mut self, key: &TallyKey, step: &Tally) -> Result<(), MoneyError> {
        let sum = self.steps.remove(key).unwrap_or_default().plus(step)?;
        if !sum.is_zero() {
            self.steps.insert(key.clone(), sum);
        }
        Ok(())
    }

    /// What is to be added to which stored tally.
    pub const fn steps(&self) -> &BTreeMap<TallyKey, Tally> {
        &self.steps
    }
}

/// What an earning contributes to its tallies. `lines` are all lines of it, `share` is how much of its sale went back, as a fraction.
pub fn contribution<'a>(
    lines: impl IntoIterator<Item = &'a Line> + Clone,
    share: (i128, i128),
    retroactive: Option<&Tiers>,
) -> Result<Tally, MoneyError> {
    let slices = || lines.clone().into_iter().filter(|line| line.kind == LineKind::Commission);
    let stands = |line: &&Line| !matches!(line.state.name(), StateName::Rejected | StateName::Reversed);
    let whole_back = share.0 >= share.1;
    let counts = !whole_back && slices().any(|line| stands(&line));
    let mut tally = Tally::default();
    for line in lines.clone().into_iter().filter(stands) {
        tally.commission = tally.commission.plus(line.net()?)?;
    }
    let of = slices().find_map(|line| Some((line.rule_set, line.edit.is_none(), line.basis.as_ref()?)));
    let Some((version, is_sale, basis)) = of.filter(|_| counts) else { return Ok(tally) };
    // Extra sales of an edit take no position of their own.
    tally.count = i64::from(is_sale);
    let base = basis.own_base()?;
    tally.revenue = base.minus(base.proportion(share.0, share.1)?)?;
    if let (Some(tiers), Some(version)) = (retroactive, version) {
        // What the rule gave: a person who adjusts a line, or rejects a slice of several, means what they say, and no true-up undoes it.
        tally.bases.insert(version, Base::of(basis, tiers, tally.count, tally.revenue, share)?);
        tally.bases.retain(|_, base| *base != Base::default());
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::booking::tests::{Book, by_count};
    use crate::conversion::tests::minor;
    use crate::line::LineState;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_told_by_its_day() {
        for (window, day, key, reach) in [
            (Window::Lifetime, "2026-05-31", "life", None),
            (Window::Year, "2026-05-31", "2026", None),
            (Window::Quarter, "2026-01-01", "2026-q1", None),
            (Window::Quarter, "2026-03-31", "2026-q1", None),
            (Window::Quarter, "2026-04-01", "2026-q2", None),
            (Window::Quarter, "2026-12-31", "2026-q4", None),
            (Window::Month, "2026-05-31", "2026-05", None),
            (Window::Rolling(1), "2026-03-01", "d2026-03-01", Some("d2026-03-01")),
            (Window::Rolling(3), "2026-03-01", "d2026-03-01", Some("d2026-02-27")),
        ] {
            let reached = window.reach(date(day));
            assert_eq!((window.key(date(day)).as_str(), reached.as_ref().map(WindowKey::as_str)), (key, reach));
        }
    }

    #[test]
    fn a_window_is_open_until_it_ends_where_the_program_is() {
        let zone = TimeZone::get("America/New_York").unwrap();
        for (window, day, now, open) in [
            (Window::Month, "2026-01-31", "2026-02-01T04:59:59Z", true),
            (Window::Month, "2026-01-31", "2026-02-01T05:00:00Z", false),
            (Window::Month, "2026-01-01", "2026-01-31T12:00:00Z", true),
            (Window::Month, "2026-02-01", "2026-01-31T12:00:00Z", true),
            (Window::Quarter, "2026-01-01", "2026-03-31T12:00:00Z", true),
            (Window::Quarter, "2026-01-01", "2026-04-01T12:00:00Z", false),
            (Window::Year, "2026-01-01", "2026-12-31T12:00:00Z", true),
            (Window::Year, "2025-12-31", "2026-01-02T12:00:00Z", false),
            (Window::Lifetime, "2020-01-01", "2026-01-02T12:00:00Z", true),
            (Window::Rolling(2), "2020-01-01", "2026-01-02T12:00:00Z", true),
        ] {
            assert_eq!(window.is_open(date(day), now.parse().unwrap(), &zone), open, "{window:?} of {day} at {now}");
        }
    }

    fn tally(count: i64, revenue: i64, commission: i64, partial: i64) -> Tally {
        let (revenue, earned) = (minor(revenue), minor(commission));
        let base = Base { count, revenue, earned, partial: minor(partial), ..Base::default() };
        Tally { count, revenue, commission: earned, bases: BTreeMap::from([(1, base)]) }
    }

    #[test]
    fn shares_are_alike_whatever_they_are_told_in() {
        let of = |part, whole, count| Shared::of(Some(Share { part, whole, divided: false }), count);
        let thirds = of(2, 6, 1).plus(&of(3, 9, 1)).plus(&of(1, 3, 1)).plus(&of(5, 7, 1));
        assert_eq!(serde_json::json!(thirds), serde_json::json!([[1, 3, 3], [5, 7, 1]]));
        assert!(of(1, 3, 0).is_empty() && thirds.clone().plus(&thirds.negated()).is_empty());
        let base = |shared| Base { count: 3, shared, ..Base::default() };
        assert_eq!(base(of(2, 6, 3)).times(minor(100)).unwrap(), minor(100), "three thirds, rounded together");
        assert_eq!(base(of(1, 3, 1)).times(minor(100)).unwrap(), minor(233), "two whole ones and a third");
        assert!(serde_json::json!(base(Shared::default())).get("shared").is_none());
    }

    #[test]
    fn a_version_comes_as_far_as_its_own_conversions_and_those_before() {
        let mut both = tally(5, 500, 50, 0);
        both.bases = BTreeMap::from([
            (1, Base { count: 2, revenue: minor(200), earned: minor(20), ..Base::default() }),
            (3, Base { count: 3, revenue: minor(300), earned: minor(30), ..Base::default() }),
        ]);
        let far = |version| [Metric::Count, Metric::Revenue, Metric::Commission].map(|of| both.position(of, version));
        assert_eq!([1, 2, 3, 4].map(far), [[2, 200, 20], [2, 200, 20], [5, 500, 50], [5, 500, 50]]);
    }

    #[test]
    fn by_commission_the_next_tier_is_reached_by_what_the_one_before_earns() {
        let tier = |after, rate: &str| Tier {
            after,
            pay: Pay::Rate(serde_json::from_value(serde_json::json!(rate)).unwrap()),
        };
        let tiers = |metric| Tiers {
            metric,
            window: Window::Lifetime,
            shape: crate::rules::Shape::Retroactive,
            tiers: vec![tier(0, "10"), tier(100, "20"), tier(200, "30")],
        };
        let reached = |metric, revenue| {
            let tally = tally(1, revenue, revenue / 10, 0);
            (tally.reached(&tiers(metric), 1).unwrap().0, tally.outstanding(&tiers(metric), 1).unwrap().units())
        };
        // 100 is not more than 100, and 200 at 20 % not more than 200.
        assert_eq!([1_000, 1_010].map(|of| reached(Metric::Commission, of)), [(0, 0), (2, 202)]);
        let steep = Tiers { tiers: vec![tier(0, "10"), tier(100, "20"), tier(300, "30")], ..tiers(Metric::Commission) };
        let second = tally(1, 1_500, 150, 0);
        assert_eq!(second.reached(&steep, 1).unwrap().0, 1);
        assert_eq!([100, 101, 201].map(|of| reached(Metric::Revenue, of).0), [0, 1, 2]);
    }

    #[test]
    fn tallies_add_up_field_by_field_and_less_themselves_are_nothing() {
        let (one, two) = (tally(2, 200, 20, 1), tally(3, 300, 30, 4));
        assert_eq!(one.clone().plus(&two).unwrap(), tally(5, 500, 50, 5));
        assert_eq!(two.clone().minus(&one).unwrap(), tally(1, 100, 10, 3));
        let nothing = two.clone().minus(&two).unwrap();
        assert!(nothing.is_zero() && nothing.bases.is_empty());
        assert_eq!(
            [Metric::Count, Metric::Revenue, Metric::Commission].map(|metric| two.position(metric, 1)),
            [3, 300, 30]
        );
        assert_eq!((two.base(1).partial, two.base(2)), (minor(4), Base::default()));
    }

    #[test]
    fn an_earning_contributes_what_stands_of_it_and_a_position_while_its_sale_stands() {
        let mut book = Book::new(by_count(["250", "275", "300"]));
        book.sell("1", 10_000);
        let rule = book.rule();
        let tiers = rule.retroactive();
        let line = book.lines_of("1")[0].clone();
        let with = |change: fn(&mut Line)| {
            let mut line = line.clone();
            change(&mut line);
            line
        };
        let rejected = |line: &mut Line| {
            line.state = LineState::Rejected { why: "no".into(), refunded: Minor::ZERO, whole: false };
        };
        let clawback = with(|line| (line.kind, line.amount) = (LineKind::Clawback, minor(-6_250)));
        let gift = with(|line| (line.kind, line.amount) = (LineKind::Adjustment, minor(1_000)));
        let refused = with(|line| {
            (line.kind, line.state) = (LineKind::Adjustment, LineState::Reversed { reviewed: true, held: None });
        });
        for (what, lines, share, expect) in [
            ("as sold", vec![line.clone()], (0, 1), tally(1, 10_000, 25_000, 0)),
            (
                "a quarter back",
                vec![with(|line| line.taken_back = minor(6_250))],
                (1, 4),
                tally(1, 7_500, 18_750, 6_250),
            ),
            ("a quarter clawed back", vec![line.clone(), clawback], (1, 4), tally(1, 7_500, 18_750, 6_250)),
            ("an adjustment was reversed", vec![line.clone(), refused], (0, 1), tally(1, 10_000, 25_000, 0)),
        ] {
            assert_eq!(contribution(&lines, share, tiers).unwrap(), expect, "{what}");
            let plain = Tally { bases: BTreeMap::new(), ..expect };
            assert_eq!(contribution(&lines, share, None).unwrap(), plain, "{what}, not re-rated");
        }
        for (what, lines, share, (count, revenue, commission)) in [
            ("all back, but paid", vec![line.clone()], (1, 1), (0, 0, 25_000)),
            ("adjusted", vec![line.clone(), gift], (0, 1), (1, 10_000, 26_000)),
            ("one slice rejected", vec![with(rejected), line.clone()], (0, 1), (1, 10_000, 25_000)),
        ] {
            let told = contribution(&lines, share, None).unwrap();
            let told = (told.count, told.revenue.units(), told.commission.units());
            assert_eq!(told, (count, revenue, commission), "{what}");
        }
        let of_edit = [with(|line| line.edit = Some("e".into()))];
        assert_eq!(contribution(&of_edit, (0, 1), tiers).unwrap(), tally(0, 10_000, 25_000, 0));
        for share in [(0, 1), (1, 1)] {
            assert!(contribution(&[with(rejected)], share, tiers).unwrap().is_zero());
        }
    }

    #[test]
    fn what_was_added_and_taken_again_is_not_written() {
        let key =
            |day: &str| TallyKey { owner: Owner::Program, rule: "r".into(), window: Window::Rolling(9).key(date(day)) };
        let one = Tally { count: 1, revenue: minor(100), ..Tally::default() };
        let mut tallies = Tallies::new(BTreeMap::from([(key("2026-01-02"), one.clone())]));
        tallies.add(&key("2026-01-03"), &one).unwrap();
        tallies.add(&key("2026-01-04"), &one).unwrap();
        assert!(!one.is_zero() && Tally::default().is_zero());
        assert_eq!(
            tallies.sum(&key("2026-01-01"), &key("2026-01-03")).unwrap().count,
            2,
            "what was read, and what was added"
        );
        assert_eq!(tallies.sum(&key("2026-01-03"), &key("2026-01-09")).unwrap().revenue, minor(200));
        tallies.add(&key("2026-01-03"), &Tally::default().minus(&one).unwrap()).unwrap();
        assert_eq!(tallies.steps().keys().collect::<Vec<_>>(), [&key("2026-01-04")]);
    }
}
