//! Attribution and accrual: whose a sale is, and what each of them earns of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::model::{Conversion, Earning, Kind, Line, State, Tally, TallyKey};
use super::order::{Order, Part};
use super::rates::{self, Ratio, Sold};
use super::tallies::Kept;
use super::{Auditor, Checked, Entry, Invariant, days, violation};
use crate::told::{Named, Partner, Pay, Program, Reward, Rule, RuleSet, Sale, Shape, Told, Touch};

/// A conversion, its lines and what becomes of them.
#[derive(Debug, Clone)]
pub struct Work {
    pub stream: String,
    pub conversion: Conversion,
    /// New ones without an id.
    pub all: Vec<(Option<String>, Line)>,
    pub changed: BTreeSet<usize>,
    /// How many earnings it had before.
    pub earlier: usize,
    /// What giving the conversion away took off tallies before it was earned anew.
    pub freed: Vec<(TallyKey, Tally)>,
    /// What new earnings added to tallies, before anything of them went back.
    pub fresh: Vec<(TallyKey, Tally)>,
}

impl Work {
    pub fn lines(&self) -> Vec<&Line> {
        self.all.iter().map(|(_, line)| line).collect()
    }

    fn part(&self, n: usize) -> Option<Part> {
        self.conversion.order()?.parts.into_iter().nth(n)
    }

    pub fn add(&mut self, line: Line) {
        self.changed.insert(self.all.len());
        self.all.push((None, line));
    }

    pub fn into_changed(self) -> Vec<(Option<String>, Line)> {
        let Self { all, changed, .. } = self;
        all.into_iter().enumerate().filter(|(n, _)| changed.contains(n)).map(|(_, line)| line).collect()
    }

    /// A line of an earning besides its slices, payable at once unless said otherwise.
    pub fn line_of(&self, entry: &Entry, earning: usize, kind: Kind, amount: i128) -> Line {
        let of = &self.conversion.earnings[earning];
        Line {
            conversion: self.stream.clone(),
            rule: of.rule.key.clone(),
            rule_set: Some(of.rule_set),
            earning: Some(earning),
            edit: self.part(of.part).and_then(|part| part.edit),
            attribution: of.attribution,
            minimum_sales: of.rule.minimum_sales,
            ..Line::alone(entry, kind, of.partner.clone(), amount)
        }
    }
}

/// What a part of an order is rated for.
pub struct Occasion<'a> {
    pub program: &'a Program,
    pub part: usize,
    pub attribution: u64,
    pub occurred_at: Timestamp,
    pub received_at: Timestamp,
    pub hand: Option<&'a str>,
}

impl Auditor {
    pub(super) fn work(&self, stream: &str, conversion: Conversion) -> Work {
        let all = conversion.lines.iter().map(|id| (Some(id.clone()), self.lines[id].clone())).collect();
        let earlier = conversion.earnings.len();
        let (changed, freed, fresh) = (BTreeSet::new(), Vec::new(), Vec::new());
        Work { stream: stream.to_owned(), conversion, all, changed, earlier, freed, fresh }
    }

    /// Explicit partner, coupon, click, touches, and the customer's first partners for renewals.
    pub(super) fn attribute(&self, told: &Told, sale: &Sale) -> Vec<(String, i128)> {
        let of_program = || told.partners.iter().filter(|partner| partner.program == sale.program);
        let alone = |partner: Option<&Partner>| partner.map(|partner| vec![(partner.id.clone(), 1)]);
        let with_code = |code: &str| of_program().find(|partner| is_code(code, partner));
        let named = match &sale.named {
            Named::Id(id) => of_program().find(|partner| partner.id == *id),
            Named::Code(code) => with_code(code),
            Named::Nobody => None,
        };
        // Silent in the rules: who is the customer is passed over, as long as somebody else is left.
        let own = |partner: &Partner| Some(&partner.email_hash) == sale.customer.email_hash.as_ref();
        // Who was suspended at the time is passed over, unless the sale names them: then it is refused.
        let free = |partner: &Partner| partner.program == sale.program && !partner.was_suspended(sale.occurred_at);
        let by_click = || {
            let click = sale.click.as_ref()?;
            let touch = told.touches.iter().find(|touch| touch.click.as_ref() == Some(click))?;
            told.partners.get(touch.partner).filter(|partner| free(partner))
        };
        let by_touches = || {
            let of_customer = |visitor: &String| self.known(sale).any(|known| known.visitors.contains(visitor));
            let of_visitor = told
                .touches
                .iter()
                .filter(|touch| Some(&touch.visitor) == sale.visitor.as_ref() || of_customer(&touch.visitor));
            let touches: Vec<_> = of_visitor
                .filter_map(|touch| Some((touch, told.partners.get(touch.partner)?)))
                .filter(|(_, partner)| free(partner))
                .collect();
            let strangers: Vec<_> = touches.iter().copied().filter(|(_, partner)| !own(partner)).collect();
            let touches = if strangers.is_empty() { touches } else { strangers };
            rates::shared(&told.programs[sale.program].attribution, &touches, sale.occurred_at)
        };
        let first_partners = || {
            let known = self.known(sale).filter_map(|known| known.first_attributed.as_ref());
            let first = known.min_by_key(|first| first.at)?;
            let credits = first.credits.iter().filter(|(id, _)| of_program().any(|of| of.id == *id && free(of)));
            let (own, others): (Vec<_>, Vec<_>) =
                credits.cloned().partition(|(id, _)| of_program().any(|of| of.id == *id && own(of)));
            Some(if others.is_empty() { own } else { others })
        };
        alone(named)
            .or_else(|| alone(sale.coupon.as_deref().and_then(with_code)))
            .or_else(|| alone(by_click()))
            .or_else(|| Some(by_touches()).filter(|credits| !credits.is_empty()))
            .or_else(|| if sale.action == "renewal" { first_partners() } else { None })
            .unwrap_or_default()
    }

    /// The channel of the latest link by which each partner touched the customer, where touches tell whose the sale is.
    pub(super) fn channels(&self, told: &Told, sale: &Sale) -> BTreeMap<String, &'static str> {
        let unlinked = Sale { click: None, visitor: None, ..sale.clone() };
        let blank = Self::default();
        let outright = Sale { action: "sale", ..unlinked };
        if !blank.attribute(told, &outright).is_empty() {
            return BTreeMap::new();
        }
        let free = |of: &Partner| of.program == sale.program && !of.was_suspended(sale.occurred_at);
        let of_program = |touch: &&Touch| told.partners.get(touch.partner).is_some_and(free);
        let clicked = told.touches.iter().filter(|touch| touch.click.is_some() && touch.click == sale.click);
        let mut touches: Vec<_> = clicked.filter(of_program).collect();
        if touches.is_empty() {
            let window = days(told.programs[sale.program].attribution.window_days.into());
            let seen = sale.occurred_at - window..=sale.occurred_at;
            let of_customer = |visitor: &String| self.known(sale).any(|known| known.visitors.contains(visitor));
            let of_visitor =
                |touch: &&Touch| Some(&touch.visitor) == sale.visitor.as_ref() || of_customer(&touch.visitor);
            let counted = told.touches.iter().filter(of_visitor).filter(of_program);
            touches = counted.filter(|touch| seen.contains(&touch.at)).collect();
            touches.sort_by_key(|touch| (touch.at, &touch.click));
        }
        let mut latest = BTreeMap::new();
        for touch in touches {
            latest.insert(told.partners[touch.partner].id.clone(), touch.channel);
        }
        latest.into_iter().filter_map(|(partner, channel)| Some((partner, channel?))).collect()
    }

    /// Adds what a part of the order earns for everybody it is attributed to.
    pub(super) fn earn(&self, told: &Told, entry: &Entry, work: &mut Work, occasion: &Occasion) -> Checked {
        let Some((sale, order)) = work.conversion.sale.clone().zip(work.conversion.order()) else { return Ok(()) };
        let (program, part) = (occasion.program, &order.parts[occasion.part]);
        let zone = TimeZone::get(program.time_zone).unwrap_or(TimeZone::UTC);
        let date = sale.occurred_at.to_zoned(zone.clone()).date();
        let exchange = exchanged(told, entry, program, &sale)?;
        let begun = begun_under(told, program, &work.conversion, &order, &zone, exchange);
        let Some(set) = begun.or_else(|| rates::in_force(&program.rule_sets, sale.occurred_at)) else {
            let what = format!("{}: no rules were in force at {}", entry.name(), sale.occurred_at);
            return violation(Invariant::ExactCents, what);
        };
        let standing = work.conversion.standing;
        let credits = work.conversion.credits.clone();
        let all_parts: i128 = credits.iter().map(|(_, part)| part).sum();
        // By rule, everybody it rates something for: credit, items, full reward and own.
        let mut fulls: BTreeMap<String, Vec<(usize, Ratio)>> = BTreeMap::new();
        let mut rated = Vec::new();
        for (n, (id, credit)) in credits.iter().enumerate() {
            let Some(partner) = told.partners.iter().find(|partner| partner.id == *id) else { continue };
            let channel = sale.channel.or_else(|| work.conversion.channels.get(id).copied());
            let sale = Sale { channel, ..sale.clone() };
            for (rule, items) in rates::groups(&sale, &part.items, &set.rules, partner, standing, &zone, exchange) {
                let before = match work.conversion.before.get(&(id.clone(), rule.key.clone())) {
                    // What an edit adds is rated where its order started, if orders are rated whole.
                    Some(before) if occasion.part > 0 && rates_orders(rule) => *before,
                    _ => self.position(work, (rule, set.version), id, date),
                };
                let sold = Sold {
                    base: Ratio::from(rates::base(part, rule, &items)).times(exchange),
                    units: if items.is_empty() { 1 } else { items.iter().map(|n| part.items[*n].quantity).sum() },
                };
                let weight = Ratio::new(*credit, all_parts);
                let used = spent(&work.conversion, &order, occasion, rule, id);
                let exact = rates::reward(rule, sold, weight, before, occasion.part > 0);
                let left = rates::order_caps(rule, weight, used);
                let (full, own) = left.map_or(exact, |left| (exact.0.lesser(left.0), exact.1.lesser(left.1)));
                let capped = left.is_some_and(|left| Ratio::from(exact.0.round()).compare(left.0).is_gt());
                fulls.entry(rule.key.clone()).or_default().push((n, full));
                rated.push((n, rule, items, sold, (own, weight), (before, exact.1.round(), capped)));
            }
        }
        for (n, rule, items, sold, (own, weight), (before, exact, capped)) in rated {
            let of_rule = &fulls[&rule.key];
            let same = of_rule.len() == credits.len() && of_rule.iter().all(|(_, full)| *full == of_rule[0].1);
            let parts: Vec<i128> = credits.iter().map(|(_, part)| *part).collect();
            let shared = if same { rates::divide(of_rule[0].1.round(), &parts)[n] } else { own.round() };
            let partner = &credits[n].0;
            // What it was before the order's cap: a part that was divided, unless there was more to divide.
            let exact = if same && !capped { shared } else { exact.max(shared) };
            let mut earned = shared;
            for (cap, owner) in [(rule.caps.partner_month, partner), (rule.caps.program_month, &program.id)] {
                let Some(cap) = cap else { continue };
                let key = (owner.clone(), rule.key.clone(), rates::month_key(date));
                let used = self.accrued(work, &key).commission;
                earned = earned.min((i128::from(cap) - used).max(0));
            }
            let hold = rule.hold_days.unwrap_or(program.hold_days);
            let received = occasion.received_at + days(program.min_hold_days.into());
            let due = |slice_days: u32| (occasion.occurred_at + days(hold.max(slice_days).into())).max(received);
            let earning = work.conversion.earnings.len();
            let as_rated = Kept { sold, weight, before, added: occasion.part > 0, exact, of_order: shared, earned };
            let kept = as_rated
                .by_tier(rule, |after, pay| spent_at(&work.conversion, &order, occasion, rule, partner, (after, pay)));
            if occasion.part == 0 {
                work.conversion.before.insert((partner.clone(), rule.key.clone()), before);
            }
            work.conversion.earnings.push(Earning {
                partner: partner.clone(),
                rule: rule.clone(),
                rule_set: set.version,
                share: weight.terms(),
                attribution: occasion.attribution,
                part: occasion.part,
                items,
                base: sold.base.times(weight).round(),
                date,
                due_at: due(0),
                earned,
                kept,
                given_away: false,
            });
            for (n, (amount, slice_days)) in rates::slices(earned, rule).into_iter().enumerate() {
                let (reviewed, due_at) =
                    (program.approves_automatically && !work.conversion.suspicious, due(slice_days));
                let state = State::at_gates(reviewed, due_at, entry.at);
                let line = work.line_of(entry, earning, Kind::Commission, amount);
                work.add(Line {
                    slice: Some(n + 1),
                    state: if work.conversion.suspicious { State::Held } else { state },
                    reviewed,
                    hands: occasion.hand.map(str::to_owned).into_iter().collect(),
                    occurred_at: occasion.occurred_at,
                    due_at,
                    ..line
                });
            }
            Self::count(work, earning);
            self.cross(entry, work, occasion, earning, before);
        }
        Ok(())
    }
}

/// The version a renewal was begun under, where the rules that would rate it there all keep it.
fn begun_under<'a>(
    told: &Told,
    program: &'a Program,
    conversion: &Conversion,
    order: &Order,
    zone: &TimeZone,
    exchange: Ratio,
) -> Option<&'a RuleSet> {
    let sale = conversion.sale.as_ref().filter(|sale| sale.action == "renewal")?;
    let set = rates::in_force(&program.rule_sets, conversion.standing.first_attributed?)?;
    let mut keeping = Vec::new();
    for (id, _) in &conversion.credits {
        let partner = told.partners.iter().find(|partner| partner.id == *id)?;
        let channel = sale.channel.or_else(|| conversion.channels.get(id).copied());
        let sale = Sale { channel, ..sale.clone() };
        let items = &order.parts.first()?.items;
        let groups = rates::groups(&sale, items, &set.rules, partner, conversion.standing, zone, exchange);
        keeping.extend(groups.into_iter().map(|(rule, _)| rule.keeps_renewals));
    }
    (!keeping.is_empty() && keeping.into_iter().all(|keeps| keeps)).then_some(set)
}

/// What a minor unit of the sale is worth in the program's, by the rate of its day in UTC. What is told for a day is told before anything is
/// sold on it.
pub fn exchanged(told: &Told, entry: &Entry, program: &Program, sale: &Sale) -> Checked<Ratio> {
    let day = sale.occurred_at.to_zoned(TimeZone::UTC).date();
    match rates::exchange(told.rates.iter(), sale.currency, program.currency, day) {
        Some(exchange) => Ok(exchange),
        None => violation(Invariant::ExactCents, format!("{}: no rate is known for {sale:?}", entry.name())),
    }
}

/// Silent in the rules: a cap on an order is for all of it, so of what earlier parts earned whatever did not go back counts. By everybody,
/// and by the partner.
fn spent(conversion: &Conversion, order: &Order, occasion: &Occasion, rule: &Rule, partner: &str) -> (i128, i128) {
    let earlier = conversion.earnings.iter().filter(|earning| earning.rule.key == rule.key && !earning.given_away);
    let mut spent = (0, 0);
    for earning in earlier.filter(|earning| earning.part < occasion.part) {
        let (part, whole) = order.refunded(earning.part, &earning.items);
        let stands = earning.earned - rates::round(earning.earned * part, whole);
        spent.0 += stands;
        spent.1 += if earning.partner == partner { stands } else { 0 };
    }
    spent
}

/// What earlier parts of the order come to for the partner at a tier, of what did not go back. An amount per conversion is not due again
/// for an edit.
fn spent_at(
    conversion: &Conversion,
    order: &Order,
    occasion: &Occasion,
    rule: &Rule,
    partner: &str,
    (after, pay): (i64, Pay),
) -> i128 {
    let Pay::Rate(rate) = pay else { return 0 };
    let own =
        conversion.earnings.iter().filter(|of| of.rule.key == rule.key && of.partner == partner && !of.given_away);
    let (mut base, mut kept) = (0, 0);
    for earning in own.filter(|earning| earning.part < occasion.part) {
        let (part, whole) = order.refunded(earning.part, &earning.items);
        let stands = |amount: i128| amount - rates::round(amount * part, whole);
        base += stands(earning.base);
        kept += stands(earning.kept.get(&after).copied().unwrap_or_default());
    }
    (rates::round(base * i128::from(rate), rates::WHOLE) - kept).max(0)
}

fn rates_orders(rule: &Rule) -> bool {
    matches!(&rule.reward, Reward::Tiered(tiers) if tiers.shape == Shape::MarginalByOrder)
}

/// Case does not matter in codes.
fn is_code(code: &str, partner: &Partner) -> bool {
    code.trim().eq_ignore_ascii_case(&partner.code)
}
