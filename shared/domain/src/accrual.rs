//! Accrual: from a sale to the lines it earns each partner, and what that adds to their tallies.
//!
//! Everything that goes in besides the sale and the rules is in [`Circumstances`], which the journal keeps: the same lines come out
//! whenever this is computed again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::attribution::{Attribution, Credit, Touch, Weights};
use crate::conversion::Sale;
use crate::exchange::{ExchangeRate, Unrounded};
use crate::ids::{ConversionId, LineId, PartnerId};
use crate::journal::EntryRef;
use crate::line::{Evidence, Line, LineKind, LineState};
use crate::money::{Minor, MoneyError};
use crate::program::{ApprovalMode, Partner, Program};
use crate::rating::{
    Applied, Basis, Cap, Capped, Case, Counted, Exact, Exchanged, Rateable, Share, Standing, TierPart, Won, base,
    in_full, reward, winners, without_store_credit,
};
use crate::rules::{Pay, Renewals, Reward, Rule, Shape, Tier, Tiers};
use crate::schedule::{due_at, is_matured};
use crate::tally::{self, Base, KeptBack, Owner, Tallies, Tally, TallyKey, WindowKey};

/// Products that a line names; the conversion has them all.
const MAX_PRODUCTS: usize = 5;

/// What a sale was rated by besides itself and its rules, as it was at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Circumstances {
    /// The rule set version in force.
    pub rule_set: u32,
    pub terms: Terms,
    /// How the partners were found.
    pub evidence: Evidence,
    /// The touches that counted, where it was by touches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<Touch>,
    /// By which weights these were shared out, if by any; the model is told by the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Ties are broken in this order.
    pub partners: Vec<Credited>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub customer: Standing,
    /// How what it comes to is converted, where it was sold in another currency than the program's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<ExchangeRate>,
    /// Why its lines are held from the start, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<String>,
}

impl Circumstances {
    /// Whose it is by the touches, where it was by touches.
    pub fn by_touches(&self, occurred_at: Timestamp) -> Option<Vec<Credit>> {
        let Evidence::Touches { model, window_days } = self.evidence else { return None };
        let attribution = Attribution { model, window_days, weights: self.weights.clone() };
        Some(attribution.share(&self.touches, occurred_at))
    }
}

fn is_default(standing: &Standing) -> bool {
    *standing == Standing::default()
}

/// What the program says about new lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    pub hold_days: u16,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_hold_days: u16,
    pub approval: ApprovalMode,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(days: &u16) -> bool {
    *days == 0
}

impl Terms {
    pub const fn of(program: &Program) -> Self {
        Self { hold_days: program.hold_days, min_hold_days: program.min_hold_days, approval: program.approval }
    }

    /// Where a line stands that nothing stops: the program may approve it by itself.
    pub fn gates(&self, due_at: Timestamp, now: Timestamp) -> (LineState, Option<Timestamp>) {
        match self.approval {
            ApprovalMode::Manual => (LineState::Pending, None),
            ApprovalMode::Automatic if is_matured(due_at, now) => (LineState::Payable, Some(now)),
            ApprovalMode::Automatic => (LineState::Approved, Some(now)),
        }
    }
}

/// A partner with a part of the conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credited {
    pub partner: PartnerId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Of the sum of all parts.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub part: u64,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub shards: u8,
    /// What the partner's link says, where the sale itself says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

fn one<T: From<u8>>() -> T {
    T::from(1)
}

fn is_one<T: From<u8> + PartialEq>(number: &T) -> bool {
    *number == one()
}

impl Credited {
    pub fn new(partner: &Partner, part: u64) -> Self {
        let (partner, group, shards) = (partner.id.clone(), partner.group.clone(), partner.shards);
        Self { partner, group, part, shards, campaign: None, channel: None }
    }

    /// With what the link says by which the partner last touched the customer.
    #[must_use]
    pub fn by_touch(self, touches: &[Touch]) -> Self {
        let last = touches.iter().rfind(|touch| touch.partner == self.partner);
        let said = |field: fn(&Touch) -> &Option<String>| last.and_then(|touch| field(touch).clone());
        Self { campaign: said(|touch| &touch.campaign), channel: said(|touch| &touch.channel), ..self }
    }
}

/// A sale about to be booked.
#[derive(Debug, Clone, Copy)]
pub struct Accrual<'a> {
    pub program: &'a Program,
    pub circumstances: &'a Circumstances,
    pub rules: &'a [Rule],
    pub conversion: &'a ConversionId,
    pub order: &'a str,
    /// The sale, or what an edit added to it.
    pub sale: &'a Sale,
    /// The sale itself, whose size rules may ask for.
    pub whole: &'a Sale,
    /// The edit that added it.
    pub edit: Option<&'a str>,
    /// The journal entry by which a person attributed it; zero: nobody had to.
    pub attribution: u32,
    /// Whose hand is in it.
    pub by_hand: Option<&'a str>,
    /// When the sale occurred: by it, windows and months are told.
    pub sold_at: Timestamp,
    /// When this part of it did: the hold period starts.
    pub occurred_at: Timestamp,
    pub received_at: Timestamp,
    pub now: Timestamp,
    /// What the parts before it were rated at.
    pub earlier: &'a EarlierParts,
}

/// What the earlier parts of an order were rated at, by partner and rule.
pub type EarlierParts = BTreeMap<(PartnerId, String), Earlier>;

/// What an edit's addition has to know of the order it is added to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Earlier {
    /// How far a tiered rule had come when the sale itself was rated.
    pub position: Option<i64>,
    /// What was earned, less the share of it that went back.
    pub earned: Minor,
    /// The partner's own part of the base, less what went back; and what caps kept back of what that comes to.
    pub revenue: Minor,
    pub kept_back: KeptBack,
}

impl Earlier {
    /// What it comes to at a tier. An amount per conversion is not due for an edit, so that nobody asks.
    fn at(&self, tier: &Tier) -> Result<Minor, MoneyError> {
        match tier.pay {
            Pay::Rate(rate) => Ok(rate.of(self.revenue)?.minus(self.kept_back.at(tier))?.max(Minor::ZERO)),
            Pay::Amount(_) => Ok(Minor::ZERO),
        }
    }
}

/// One partner's earning under one rule, on the way to lines.
struct Rated<'a> {
    credited: &'a Credited,
    won: Won<'a>,
    /// As it was sold.
    told: Minor,
    /// In the program's currency, unrounded.
    base: Unrounded,
    units: Decimal,
    /// What it would be if the partner had the whole conversion; before it is rounded, too.
    full: Minor,
    exact: Decimal,
    full_cap: Option<Capped>,
}

impl<'a> Accrual<'a> {
    fn zone(&self) -> TimeZone {
        self.program.time_zone.time_zone()
    }

    fn date(&self, zone: &TimeZone) -> Date {
        self.sold_at.to_zoned(zone.clone()).date()
    }

    fn parts(&self) -> u64 {
        self.circumstances.partners.iter().map(|credited| credited.part).sum()
    }

    /// An amount of the sale in the program's currency, unrounded.
    fn unrounded(&self, told: Minor) -> Result<Unrounded, MoneyError> {
        let (from, to) = (self.sale.currency, self.program.currency);
        match &self.circumstances.exchange {
            Some(rate) if (rate.from, rate.to) == (from, to) => rate.unrounded(told),
            None if from == to => Ok(told.into()),
            _ => Err(MoneyError::NoExchangeRate { from, to }),
        }
    }

    fn winners(&self, credited: &'a Credited, zone: &TimeZone) -> Result<Vec<Won<'a>>, MoneyError> {
        let case = Case {
            sale: self.sale,
            goods: self.unrounded(self.whole.net()?)?,
            occurred_at: self.sold_at,
            zone,
            customer: &self.circumstances.customer,
            partner: &credited.partner,
            group: credited.group.as_deref(),
            campaign: self.sale.campaign.as_deref().or(credited.campaign.as_deref()),
            channel: self.sale.channel.as_deref().or(credited.channel.as_deref()),
        };
        winners(&case, self.rules)
    }

    /// Whether the rules of this version rate it, of all that it has: each that rates something of it says so.
    pub fn keeps_version(&self) -> Result<bool, MoneyError> {
        let zone = self.zone();
        let mut rating = Vec::new();
        for credited in &self.circumstances.partners {
            rating.extend(self.winners(credited, &zone)?.into_iter().map(|won| won.rule.renewals));
        }
        Ok(!rating.is_empty() && rating.into_iter().all(|renewals| renewals == Renewals::FirstSale))
    }

    /// The tallies that must be known to rate it: single ones, and for rolling windows ranges, both ends inclusive.
    pub fn reads(&self) -> Result<Vec<(TallyKey, TallyKey)>, MoneyError> {
        let zone = self.zone();
        let date = self.date(&zone);
        let mut reads = std::collections::BTreeSet::new();
        for credited in &self.circumstances.partners {
            for won in self.winners(credited, &zone)? {
                for key in tally::keys(won.rule, &credited.partner, date) {
                    let from = match &won.rule.reward {
                        Reward::Tiered(tiers)
                            if key.owner != Owner::Program && key.window == tiers.window.key(date) =>
                        {
                            tiers.window.reach(date)
                        }
                        _ => None,
                    };
                    let from = from.map_or_else(|| key.clone(), |window| TallyKey { window, ..key.clone() });
                    reads.insert((from, key));
                }
            }
        }
        Ok(reads.into_iter().collect())
    }

    /// What the sale earns. What it adds to its tallies goes into `tallies`.
    pub fn lines(&self, tallies: &mut Tallies) -> Result<Vec<Line>, MoneyError> {
        let zone = self.zone();
        let date = self.date(&zone);
        let mut rated = Vec::new();
        for credited in &self.circumstances.partners {
            for won in self.winners(credited, &zone)? {
                rated.push(self.full(credited, won, date, tallies)?);
            }
        }
        let mut lines = Vec::new();
        for (n, one) in rated.iter().enumerate() {
            let divided = self.divided(&rated, n)?;
            let earned = self.earned(one, divided, date, tallies)?;
            lines.extend(self.slices(one, &earned)?);
            if let Some(tiers) = one.won.rule.retroactive() {
                lines.extend(self.true_up(one, tiers, &earned, date, &zone, tallies)?);
            }
        }
        Ok(lines)
    }

    fn earlier(&self, partner: &PartnerId, rule: &Rule) -> Earlier {
        self.earlier.get(&(partner.clone(), rule.key.clone())).cloned().unwrap_or_default()
    }

    fn position(
        &self,
        one: &Credited,
        rule: &Rule,
        date: Date,
        tallies: &Tallies,
    ) -> Result<(i64, WindowKey), MoneyError> {
        let Reward::Tiered(tiers) = &rule.reward else { return Ok((0, WindowKey::month(date))) };
        let window = tiers.window.key(date);
        let at = |window| TallyKey { owner: Owner::Partner(one.partner.clone()), rule: rule.key.clone(), window };
        let key = at(window.clone());
        if self.edit.is_some()
            && tiers.shape == Shape::MarginalByOrder
            && let Some(origin) = self.earlier(&one.partner, rule).position
        {
            return Ok((origin, window));
        }
        let tally = match tiers.window.reach(date) {
            Some(from) => tallies.sum(&at(from), &key)?,
            None => tallies.get(&key)?,
        };
        Ok((tally.position(tiers.metric, self.circumstances.rule_set), window))
    }

    fn full(
        &self,
        credited: &'a Credited,
        won: Won<'a>,
        date: Date,
        tallies: &Tallies,
    ) -> Result<Rated<'a>, MoneyError> {
        let mut told = base(self.sale, won.rule.base, &won.items)?;
        if won.rule.exclude_store_credit {
            told = without_store_credit(told, self.sale)?;
        }
        let base = self.unrounded(told)?;
        let units = if won.items.is_empty() {
            Decimal::ONE
        } else {
            won.items.iter().filter_map(|at| self.sale.items.get(*at)).map(|item| item.quantity).sum()
        };
        let of = Rateable { base, units, part: credited.part, whole: self.parts(), extra: self.edit.is_some() };
        let (position, window) = self.position(credited, won.rule, date, tallies)?;
        let exact = in_full(won.rule, &of, position, &window)?;
        let partners = self.circumstances.partners.iter();
        let used = Minor::total(partners.map(|other| self.earlier(&other.partner, won.rule).earned))?;
        let (full, full_cap) = clamp(Minor::round(exact)?, Cap::PerOrder, won.rule.caps.per_order, used)?;
        let exact = if full_cap.is_some() { full.units().into() } else { exact };
        Ok(Rated { credited, won, told, base, units, full, exact, full_cap })
    }

    /// The partner's part of a reward that is the same for every partner.
    fn divided(&self, rated: &[Rated<'_>], n: usize) -> Result<Option<Minor>, MoneyError> {
        let Some(one) = rated.get(n) else { return Ok(None) };
        let alike = |other: &&Rated<'_>| {
            other.won.rule.key == one.won.rule.key && other.won.items == one.won.items && other.exact == one.exact
        };
        let all: Vec<_> = rated.iter().filter(alike).collect();
        let partners = self.circumstances.partners.len();
        if partners < 2 || all.len() != partners {
            return Ok(None);
        }
        let weights: Vec<_> = all.iter().map(|other| other.credited.part).collect();
        let parts = one.full.divide(&weights)?;
        let mine = all.iter().position(|other| std::ptr::eq(*other, one));
        Ok(mine.and_then(|mine| parts.get(mine).copied()))
    }

    fn earned(
        &self,
        one: &Rated<'a>,
        divided: Option<Minor>,
        date: Date,
        tallies: &mut Tallies,
    ) -> Result<Basis, MoneyError> {
        let rule = one.won.rule;
        let (part, whole) = (one.credited.part, self.parts());
        let of = Rateable { base: one.base, units: one.units, part, whole, extra: self.edit.is_some() };
        let (position, window) = self.position(one.credited, rule, date, tallies)?;
        let Exact { reward, amount } = reward(rule, &of, position, &window)?;
        let mut caps = Vec::new();
        let earlier = self.earlier(&one.credited.partner, rule);
        // Of the cap on the order, the partner's part.
        let limit = rule.caps.per_order;
        let own_limit = limit.map(|limit| limit.proportion(part.into(), whole.into())).transpose()?;
        let of_order = if let Some(divided) = divided {
            caps.extend(one.full_cap);
            divided
        } else {
            let (clamped, capped) = clamp(Minor::round(amount)?, Cap::PerOrder, own_limit, earlier.earned)?;
            caps.extend(capped.map(|capped| Capped { limit: limit.unwrap_or(capped.limit), ..capped }));
            clamped
        };
        let in_full = if caps.is_empty() { of_order } else { Minor::round(amount)?.max(of_order) };
        let mut earned = of_order;
        let keys = tally::keys(rule, &one.credited.partner, date);
        for (cap, limit, owner) in [
            (Cap::PerPartnerMonth, rule.caps.per_partner_month, Owner::Partner(one.credited.partner.clone())),
            (Cap::PerProgramMonth, rule.caps.per_program_month, Owner::Program),
        ] {
            let used =
                tallies.get(&TallyKey { owner, rule: rule.key.clone(), window: WindowKey::month(date) })?.commission;
            let (clamped, capped) = clamp(earned, cap, limit, used)?;
            earned = clamped;
            caps.extend(capped);
        }
        if !earned.is_credible() {
            return Err(MoneyError::Overflow);
        }
        let kept_back = match (rule.retroactive(), &reward) {
            (Some(tiers), Applied::Tiered { parts, .. }) => KeptBack::of(tiers, |tier| {
                let (full, clamped) = if parts.iter().any(|part| part.after == tier.after) {
                    (in_full, of_order)
                } else {
                    let full = Minor::round(of.pay(tier.pay)?)?;
                    (full, clamp(full, Cap::PerOrder, own_limit, earlier.at(tier)?)?.0)
                };
                full.minus(clamped)?.plus(kept_of(clamped, of_order, earned)?)
            })?,
            _ => KeptBack::default(),
        };
        let counted =
            keys.iter().map(|key| Counted { program: key.owner == Owner::Program, window: key.window.clone() });
        let basis = Basis {
            rule: rule.key.clone(),
            won_by: one.won.by,
            won_over: one.won.over.clone(),
            base_kind: rule.base,
            base: one.base.round()?,
            exchange: self.circumstances.exchange.clone().map(|rate| Exchanged { told: one.told, rate }),
            items: one.won.items.clone(),
            reward,
            share: (whole > part).then_some(Share { part, whole, divided: divided.is_some() }),
            caps,
            kept_back,
            earned,
            counted: counted.collect(),
        };
        let count = i64::from(self.edit.is_none());
        let revenue = basis.own_base()?;
        let mut step = Tally { count, revenue, commission: earned, bases: BTreeMap::new() };
        if let Some(tiers) = rule.retroactive() {
            step.bases.insert(self.circumstances.rule_set, Base::of(&basis, tiers, count, revenue, (0, 1))?);
        }
        for key in &keys {
            tallies.add(key, &step)?;
        }
        Ok(basis)
    }

    fn slices(&self, one: &Rated<'_>, basis: &Basis) -> Result<Vec<Line>, MoneyError> {
        let slices = &one.won.rule.slices;
        let shares: Vec<_> = slices.iter().map(|slice| slice.share).collect();
        let amounts = basis.earned.split(&shares)?;
        let mut lines = Vec::with_capacity(slices.len());
        for (n, (slice, amount)) in slices.iter().zip(amounts).enumerate() {
            let number = u8::try_from(n + 1).unwrap_or(u8::MAX);
            let due_at = self.due_at(one.won.rule, slice.days)?;
            let line = self.line(one, basis.clone(), amount, due_at, &number.to_string());
            lines.push(Line { slice: Some(number), ..line });
        }
        Ok(lines)
    }

    fn due_at(&self, rule: &Rule, slice_days: u16) -> Result<Timestamp, MoneyError> {
        let Terms { hold_days, min_hold_days, .. } = self.circumstances.terms;
        due_at(self.occurred_at, self.received_at, rule.hold_days.unwrap_or(hold_days), slice_days, min_hold_days)
    }

    /// Reaching a tier that pays everything in the window again: one line with the difference. An edit may reach it, too.
    fn true_up(
        &self,
        one: &Rated<'_>,
        tiers: &Tiers,
        earned: &Basis,
        date: Date,
        zone: &TimeZone,
        tallies: &mut Tallies,
    ) -> Result<Option<Line>, MoneyError> {
        let Applied::Tiered { before, window, .. } = &earned.reward else { return Ok(None) };
        let rule = one.won.rule;
        let key = TallyKey {
            owner: Owner::Partner(one.credited.partner.clone()),
            rule: rule.key.clone(),
            window: window.clone(),
        };
        let tally = tallies.get(&key)?;
        let version = self.circumstances.rule_set;
        let crossed = tiers.at(*before).0 != tally.reached(tiers, version)?.0;
        if !(crossed || self.edit.is_some()) || !tiers.window.is_open(date, self.now, zone) {
            return Ok(None);
        }
        let owed = tally.outstanding(tiers, version)?;
        if owed.is_zero() {
            return Ok(None);
        }
        let mut amount = owed;
        let mut caps = Vec::new();
        for (cap, limit, owner) in [
            (Cap::PerPartnerMonth, rule.caps.per_partner_month, key.owner.clone()),
            (Cap::PerProgramMonth, rule.caps.per_program_month, Owner::Program),
        ] {
            let used =
                tallies.get(&TallyKey { owner, rule: rule.key.clone(), window: WindowKey::month(date) })?.commission;
            let (clamped, capped) = clamp(amount, cap, limit, used)?;
            amount = clamped;
            caps.extend(capped);
        }
        // Where a cap leaves nothing of it, that is written down, too: otherwise it would be owed to whatever comes next.
        let kept_back = KeptBack::of(tiers, |tier| kept_of(tally.outstanding_at(tier, version)?, owed, amount))?;
        let mut basis = Basis { caps, kept_back, ..true_up_basis(earned, tiers, window, &tally, version, amount)? };
        if let Applied::Retroactive { crossed, .. } = &mut basis.reward {
            *crossed = true;
        }
        for key in tally::keys(rule, &one.credited.partner, date) {
            tallies.add(&key, &true_up_step(version, &basis))?;
        }
        let due_at = self.due_at(rule, 0)?;
        let mut line = Line { kind: LineKind::TrueUp, ..self.line(one, basis, amount, due_at, "true_up") };
        if amount.is_negative() {
            line = Line { state: LineState::Payable, approved_at: Some(self.now), due_at: self.now, ..line };
        }
        Ok(Some(line))
    }

    fn line(&self, one: &Rated<'_>, basis: Basis, amount: Minor, due_at: Timestamp, part: &str) -> Line {
        let (state, approved_at) = match &self.circumstances.objection {
            Some(why) => (LineState::Held { reviewed: false, why: why.clone() }, None),
            None => self.circumstances.terms.gates(due_at, self.now),
        };
        let attribution = self.attribution.to_string();
        let mut key = vec![self.conversion.as_str(), &one.won.rule.key, part];
        if self.edit.is_some() || self.attribution > 0 {
            key.extend([self.edit.unwrap_or_default(), &attribution]);
        }
        Line {
            id: LineId::derive(&one.credited.partner, one.credited.shards, self.occurred_at, &key),
            program: self.program.id.clone(),
            partner: one.credited.partner.clone(),
            currency: self.program.currency,
            kind: LineKind::Commission,
            conversion: Some(self.conversion.clone()),
            order: Some(self.order.to_owned()),
            products: self.products(&basis.items),
            amount,
            taken_back: Minor::ZERO,
            state,
            occurred_at: self.occurred_at,
            created_at: self.now,
            due_at,
            approved_at,
            paid_at: None,
            back_at: None,
            rule_set: Some(self.circumstances.rule_set),
            basis: Some(basis),
            evidence: Some(self.circumstances.evidence.clone()),
            slice: None,
            action: self.sale.action,
            edit: self.edit.map(str::to_owned),
            attribution: self.attribution,
            minimum_sales: one.won.rule.minimum_sales,
            of: None,
            true_ups: Vec::new(),
            hands: self.by_hand.map(str::to_owned).into_iter().collect(),
            version: 1,
            entry: EntryRef::none(),
        }
    }

    fn products(&self, items: &[usize]) -> Vec<String> {
        let named = items.iter().filter_map(|at| self.sale.items.get(*at));
        named.filter_map(|item| item.product.clone().or_else(|| item.sku.clone())).take(MAX_PRODUCTS).collect()
    }
}

/// Clamps a positive amount to what is left under a limit of which `used` is gone.
fn clamp(amount: Minor, cap: Cap, limit: Option<Minor>, used: Minor) -> Result<(Minor, Option<Capped>), MoneyError> {
    let Some(limit) = limit else { return Ok((amount, None)) };
    let left = limit.minus(used)?.max(Minor::ZERO);
    if amount <= left { Ok((amount, None)) } else { Ok((left, Some(Capped { cap, limit, from: amount, to: left }))) }
}

/// What a cap on a month keeps back of what comes to so much `there`, when of `rated` only `paid` was left. What is more there than it was
/// rated at, the month in which that tier is reached has to pay.
fn kept_of(there: Minor, rated: Minor, paid: Minor) -> Result<Minor, MoneyError> {
    Ok(there.min(rated).minus(paid)?.max(Minor::ZERO))
}

/// What a true-up adds to the tallies of its rule.
pub fn true_up_step(version: u32, basis: &Basis) -> Tally {
    let base = Base { earned: basis.earned, lacking: basis.kept_back.clone(), ..Base::default() };
    Tally { commission: basis.earned, bases: BTreeMap::from([(version, base)]), ..Tally::default() }
}

/// All but what caps do to it, which is to be said besides.
fn true_up_basis(
    of: &Basis,
    tiers: &Tiers,
    window: &WindowKey,
    tally: &Tally,
    version: u32,
    amount: Minor,
) -> Result<Basis, MoneyError> {
    let base = tally.base(version);
    let (_, tier) = tally.reached(tiers, version)?;
    let (target, had) = match tier.pay {
        Pay::Rate(rate) => (rate.of(base.revenue)?, base.earned),
        // For each conversion that counts, with what partial refunds took of it.
        Pay::Amount(amount) => (base.times(amount)?, base.earned.plus(base.partial)?),
    };
    let kept_back = target.minus(had)?.minus(tally.outstanding(tiers, version)?)?;
    Ok(Basis {
        base: base.revenue,
        exchange: None,
        items: Vec::new(),
        reward: Applied::Retroactive {
            crossed: false,
            window: window.clone(),
            tier: TierPart { after: tier.after, base: None, pay: tier.pay },
            conversions: base.count,
            target,
            had,
            kept_back,
        },
        share: None,
        earned: amount,
        ..of.clone()
    })
}

/// An earning whose contribution to its tallies moved.
#[derive(Debug)]
pub struct Moved<'a> {
    /// The first slice of the earning that speaks for all of its partner and rule.
    pub of: &'a Line,
    pub rule: &'a Rule,
    pub sold_at: Timestamp,
}

/// The true-ups that moved tallies make necessary while their windows are open; what they add goes into `tallies`. `lines` are all lines
/// of the conversion, `cause` tells apart what causes several for it.
pub fn true_ups(
    moved: &[Moved<'_>],
    lines: &[Line],
    program: &Program,
    terms: &Terms,
    tallies: &mut Tallies,
    cause: &str,
    now: Timestamp,
) -> Result<Vec<Line>, MoneyError> {
    let zone = program.time_zone.time_zone();
    let mut written: Vec<Line> = Vec::new();
    for one in moved {
        let (Some(tiers), Some(basis), Some(version)) = (one.rule.retroactive(), &one.of.basis, one.of.rule_set) else {
            continue;
        };
        let date = one.sold_at.to_zoned(zone.clone()).date();
        if !tiers.window.is_open(date, now, &zone) {
            continue;
        }
        let window = tiers.window.key(date);
        let key = TallyKey {
            owner: Owner::Partner(one.of.partner.clone()),
            rule: one.rule.key.clone(),
            window: window.clone(),
        };
        let tally = tallies.get(&key)?;
        let owed = tally.outstanding(tiers, version)?;
        let mut amount = owed;
        let mut caps = Vec::new();
        // What caps kept back is not outstanding. What is, a month pays that has something left; and what was taken for this sale returns.
        for (cap, limit, owner) in [
            (Cap::PerPartnerMonth, one.rule.caps.per_partner_month, key.owner.clone()),
            (Cap::PerProgramMonth, one.rule.caps.per_program_month, Owner::Program),
        ] {
            let Some(limit) = limit else { continue };
            let month = TallyKey { owner, rule: one.rule.key.clone(), window: WindowKey::month(date) };
            let left = limit.minus(tallies.get(&month)?.commission)?;
            let to = left.max(taken(lines, &one.of.partner, &one.rule.key, &window)?);
            if to < amount {
                caps.push(Capped { cap, limit, from: amount, to });
                amount = to;
            }
        }
        // As where a sale crosses: what a cap keeps back is written down, even all of it.
        let kept_back = KeptBack::of(tiers, |tier| kept_of(tally.outstanding_at(tier, version)?, owed, amount))?;
        if amount.is_zero() && kept_back.is_empty() {
            continue;
        }
        let basis = Basis { caps, kept_back, ..true_up_basis(basis, tiers, &window, &tally, version, amount)? };
        for key in tally::keys(one.rule, &one.of.partner, date) {
            tallies.add(&key, &true_up_step(version, &basis))?;
        }
        let origin = one.of.conversion.as_ref().map(ConversionId::as_str).unwrap_or_default();
        // As where a sale crosses: what is due waits for the conversion that crossed, and nothing waits to be taken back.
        let due_at = if amount.is_negative() { now } else { one.of.due_at };
        let (state, approved_at) =
            if amount.is_negative() { (LineState::Payable, Some(now)) } else { terms.gates(due_at, now) };
        written.push(Line {
            id: LineId::derive_beside(&one.of.id, now, &[origin, &one.rule.key, "true_up", cause]),
            kind: LineKind::TrueUp,
            products: Vec::new(),
            amount,
            state,
            occurred_at: now,
            due_at,
            approved_at,
            basis: Some(basis),
            ..one.of.fresh(now)
        });
    }
    Ok(written)
}

/// What true-ups took because of this conversion, when it was sold or later, and have not given back. What it was given when it reached a
/// tier is not of these.
fn taken(lines: &[Line], partner: &PartnerId, rule: &str, of: &WindowKey) -> Result<Minor, MoneyError> {
    let later = lines.iter().filter(|line| {
        let of_rule = line.basis.as_ref().filter(|basis| line.partner == *partner && basis.rule == rule);
        let reward = of_rule.map(|basis| &basis.reward);
        matches!(reward, Some(Applied::Retroactive { crossed, window, .. })
            if window == of && !(*crossed && line.amount.is_positive()))
    });
    Ok(Minor::total(later.map(|line| line.amount))?.negated().max(Minor::ZERO))
}

#[cfg(test)]
mod tests;
