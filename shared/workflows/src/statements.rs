//! Statements and receipts: read from the journal, and written nowhere. What was read of a month that is closed is there for ever, so
//! its statement comes out the same whenever it is asked for.

use std::collections::{BTreeMap, BTreeSet};

use domain::booking::RulesByVersion;
use domain::ids::PayoutId;
use domain::journal::{EntryRef, LineFacts, What};
use domain::line::{Line, LineKind, LineState, StateName};
use domain::payout::{Payout, PayoutState};
use domain::program::{Partner, Program};
use domain::rules::Rule;
use domain::statement::{Breakdown, Decided, LineStep, Month, PayoutStep, Period, Receipt, Statement};
use jiff::{SignedDuration, Timestamp};
use store::{Run, StoreError, run_position};

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::history::rules_of;

const OPERATION: &str = "statement";
/// Commissions told on one statement. Every one of them takes a few reads, and a call has 30 seconds.
pub const MAX_LINES: usize = 20_000;
/// Lines whose entries are held at once.
const CHUNK: usize = 500;
/// Lines read at once to find those that a month tells of.
const PAGE: usize = 1_000;
/// A line's history is as long as its changes; this bounds the walk.
const MAX_STEPS: usize = 500;
/// Runs looked through for the one that decided about a partner before, a hundred at a time.
const MAX_RUN_PAGES: usize = 10;
const RUN_PAGE: i32 = 100;
/// By when whatever a month's last moment began has been written: functions end after 15 minutes, and clocks differ by less.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// A month of a partner's account.
#[derive(Debug, Clone)]
pub struct MonthOf {
    pub month: Month,
    pub program: Program,
    pub partner: Partner,
    pub statement: Statement,
    /// It is over, and will come out the same for ever.
    pub is_final: bool,
}

/// The months of which a partner has a statement, oldest first: from when they joined to now.
pub fn months(context: &Context, program: &Program, partner: &Partner) -> Vec<Month> {
    let zone = program.time_zone.time_zone();
    let last = Month::of(context.now(), &zone);
    let first = Month::of(partner.created_at, &zone);
    std::iter::successors(Some(first), |month| month.next()).take_while(|month| *month <= last).collect()
}

/// Whether nothing more can come to be told of a period.
pub fn is_final(context: &Context, period: &Period) -> bool {
    context.now() >= period.until + SETTLED_AFTER
}

pub async fn of_month(context: &Context, program: Program, partner: Partner, month: Month) -> Result<MonthOf> {
    let zone = program.time_zone.time_zone();
    let now = Month::of(context.now(), &zone);
    let known = month >= Month::of(partner.created_at, &zone) && month <= now;
    let period = month.period(&zone).filter(|_| known).ok_or(Refusal::NotFound("statement"))?;
    let mut statement = Statement::new(period, program.currency);
    let settled = add_payouts(context, &program, &partner, &mut statement).await?;
    let mut rules = Rules { program: &program, by_version: BTreeMap::new() };
    for shard in 0..partner.shards.max(1) {
        let mut after: Option<String> = None;
        loop {
            let page = context.store.oldest_lines(OPERATION, &partner, shard, after.as_deref(), PAGE).await?;
            let told: Vec<_> = page.items.into_iter().filter(|line| is_told(line, &period, &settled)).collect();
            for lines in told.chunks(CHUNK) {
                rules.read(context, lines).await?;
                let steps = steps_of(context, lines, Some(period.from)).await?;
                for (line, steps) in lines.iter().zip(&steps) {
                    statement.add_line(line, steps, rules.of(line))?;
                }
            }
            if statement.lines.len() > MAX_LINES {
                return Err(too_many());
            }
            after = page.after;
            if after.is_none() {
                break;
            }
        }
    }
    let is_final = is_final(context, &period);
    Ok(MonthOf { month, program, partner, statement: statement.in_order(), is_final })
}

fn too_many() -> Refusal {
    Refusal::invalid("", format!("tells of more than {MAX_LINES} commissions; export the commissions instead"))
}

/// Whether anything about the line can be in the period, or was still owed when it began.
fn is_told(line: &Line, period: &Period, settled: &BTreeSet<PayoutId>) -> bool {
    let was_settled = matches!(&line.state, LineState::Paid { payout, .. } if settled.contains(payout));
    line.kind != LineKind::Withholding && line.created_at < period.until && !was_settled
}

/// Adds the partner's payouts. Returns those of which all had been paid and told before the period began: with their lines, they come to
/// nothing that is owed.
async fn add_payouts(
    context: &Context,
    program: &Program,
    partner: &Partner,
    statement: &mut Statement,
) -> Result<BTreeSet<PayoutId>> {
    let Period { from, until } = statement.period;
    let mut settled = BTreeSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = context.store.partner_payouts(OPERATION, &partner.id, after.as_deref(), 100).await?;
        let of_program = page.items.into_iter().filter(|payout| payout.currency == program.currency);
        for payout in of_program.filter(|payout| payout.created_at < until) {
            let steps = payout_steps(context, &payout).await?;
            let is_over = steps.last().is_some_and(|last| last.at < from);
            if payout.state == PayoutState::Paid && payout.settling.is_none() && is_over {
                settled.insert(payout.id);
            } else {
                statement.add_payout(&payout, &steps)?;
            }
        }
        after = page.after;
        if after.is_none() {
            return Ok(settled);
        }
    }
}

/// What the payout's own entries tell of it, oldest first. Money moves by none but these.
async fn payout_steps(context: &Context, payout: &Payout) -> Result<Vec<PayoutStep>> {
    let chain = context.store.chain(OPERATION, payout.id.as_str()).await?;
    Ok(chain.iter().filter_map(|sealed| PayoutStep::of(&sealed.entry, &payout.id)).collect())
}

/// The entries about each line, oldest first: all of them, or as far back as the newest that was written before a moment. All lines
/// are followed back at once, step by step, since many share their entries.
async fn steps_of(context: &Context, lines: &[Line], since: Option<Timestamp>) -> Result<Vec<Vec<LineStep>>> {
    let mut steps = vec![Vec::new(); lines.len()];
    let mut open: Vec<(usize, EntryRef)> = lines.iter().map(|line| line.entry.clone()).enumerate().collect();
    for _ in 0..MAX_STEPS {
        let named: BTreeMap<_, _> = open.iter().map(|(_, at)| (at.to_string(), at)).collect();
        if named.is_empty() {
            break;
        }
        let refs: Vec<_> = named.into_values().cloned().collect();
        let found = context.store.entries(OPERATION, &refs).await?;
        let found: BTreeMap<_, _> = found.iter().map(|sealed| (sealed.at.to_string(), &sealed.entry)).collect();
        let mut next = Vec::new();
        for (n, at) in open {
            let told = lines.get(n).and_then(|line| LineStep::of(found.get(&at.to_string())?, &line.id));
            let Some((step, before)) = told else {
                return Err(
                    StoreError::Corrupt(format!("journal entry {at} is missing or tells of other lines")).into()
                );
            };
            let is_enough = since.is_some_and(|since| step.at < since);
            if let Some(steps) = steps.get_mut(n) {
                steps.push(step);
            }
            next.extend(before.filter(|_| !is_enough).map(|before| (n, before)));
        }
        open = next;
    }
    for steps in &mut steps {
        steps.reverse();
    }
    Ok(steps)
}

/// The rules that lines were made by, each version read once.
struct Rules<'a> {
    program: &'a Program,
    by_version: RulesByVersion,
}

impl Rules<'_> {
    async fn read(&mut self, context: &Context, lines: &[Line]) -> Result<()> {
        let named: BTreeSet<_> = lines.iter().filter_map(|line| line.rule_set).collect();
        let unread = named.into_iter().filter(|version| !self.by_version.contains_key(version)).collect();
        self.by_version.extend(rules_of(context, OPERATION, self.program, unread).await?);
        Ok(())
    }

    fn of(&self, line: &Line) -> Option<&Rule> {
        let rules = self.by_version.get(&line.rule_set?)?;
        rules.iter().find(|rule| line.basis.as_ref().is_some_and(|basis| basis.rule == rule.key))
    }
}

/// A payout and what it is made of.
#[derive(Debug, Clone)]
pub struct OfPayout {
    pub payout: Payout,
    pub program: Program,
    pub partner: Partner,
    pub breakdown: Breakdown,
    /// Why it failed or came back, if that is how it stands.
    pub failure: Option<PayoutStep>,
}

pub async fn of_payout(context: &Context, id: &PayoutId) -> Result<OfPayout> {
    let (payout, program, partner) = load(context, id).await?;
    if payout.state == PayoutState::Drafting {
        return Err(Refusal::Illegal("it is still being drafted; try again in a moment".to_owned()));
    }
    let run = context.store.run(OPERATION, &payout.run).await?.ok_or(Refusal::NotFound("run"))?;
    let decided = Decided { at: payout.created_at, cut_off: run.cut_off, inclusive: run.cut_off_inclusive };
    let last = decided_before(context, &run, &partner).await?;
    let steps = payout_steps(context, &payout).await?;
    let ended_at = steps.last().map_or(payout.created_at, |last| last.at);
    let mut breakdown = Breakdown::new(&decided, last.as_ref());
    let mut rules = Rules { program: &program, by_version: BTreeMap::new() };
    for page in context.store.pages(OPERATION, id).await? {
        let ids: Vec<_> = page.lines.iter().map(|line| line.id.clone()).collect();
        let mut lines = context.store.lines(OPERATION, &ids).await?;
        rules.read(context, &lines).await?;
        let (mut left, mut by_hand) = (Vec::new(), Vec::new());
        for (n, line) in lines.iter().enumerate() {
            if line.payout().is_none_or(|(of, _)| *of != payout.id) {
                left.push(n);
            }
            if matches!(line.kind, LineKind::Bonus | LineKind::Adjustment) {
                by_hand.push(n);
            }
        }
        let mut whys: BTreeMap<usize, String> = BTreeMap::new();
        let walked: Vec<_> = left.iter().chain(&by_hand).copied().collect::<BTreeSet<_>>().into_iter().collect();
        let some: Vec<_> = walked.iter().filter_map(|n| lines.get(*n).cloned()).collect();
        for (n, steps) in walked.iter().zip(steps_of(context, &some, None).await?) {
            if let Some(line) = lines.get_mut(*n).filter(|_| left.contains(n)) {
                as_it_was_in(line, &steps, ended_at)?;
            }
            let by_person = steps.iter().rfind(|step| matches!(step.what, What::Bonus | What::Adjust));
            whys.extend(by_person.and_then(|step| step.why.clone()).map(|why| (*n, why)));
        }
        for (n, line) in lines.iter().enumerate() {
            let why = whys.get(&n).map(String::as_str);
            breakdown.add(line, last.as_ref(), rules.of(line), why)?;
        }
    }
    let failure = PayoutStep::failure(&steps).cloned();
    Ok(OfPayout { payout, program, partner, breakdown, failure })
}

/// A line that has left its payout since, with the amounts it had in it.
fn as_it_was_in(line: &mut Line, steps: &[LineStep], ended_at: Timestamp) -> Result<()> {
    let within = |step: &&LineStep| matches!(step.facts.state, StateName::InPayout | StateName::Paid);
    let last = steps.iter().filter(|step| step.at <= ended_at).rfind(within);
    if let Some(LineStep { facts: LineFacts { amount, net, .. }, .. }) = last {
        line.amount = *amount;
        line.taken_back = amount.minus(*net)?;
    }
    Ok(())
}

/// When it was last decided about a partner before a run. That is in the past of the run, and so does not change.
async fn decided_before(context: &Context, run: &Run, partner: &Partner) -> Result<Option<Decided>> {
    let mut after = Some(run_position(run));
    for _ in 0..MAX_RUN_PAGES {
        let page = context.store.runs(OPERATION, &run.program, after.as_deref(), RUN_PAGE).await?;
        let decisions =
            context.store.decisions_about(OPERATION, page.items.iter().map(|run| (&run.id, &partner.id))).await?;
        if let Some(decision) = decisions.first() {
            let run = page.items.iter().find(|run| run.id == decision.run);
            return Ok(run.map(|run| Decided {
                at: decision.at,
                cut_off: run.cut_off,
                inclusive: run.cut_off_inclusive,
            }));
        }
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    Ok(None)
}

/// One payment of a payout, and to whom.
#[derive(Debug, Clone)]
pub struct ReceiptOf {
    pub payout: Payout,
    pub program: Program,
    pub partner: Partner,
    pub receipt: Receipt,
}

/// The receipt of a payout's payment of this number, counted from 1; of the latest without one.
pub async fn receipt(context: &Context, id: &PayoutId, number: Option<usize>) -> Result<ReceiptOf> {
    let (payout, program, partner) = load(context, id).await?;
    let steps = payout_steps(context, &payout).await?;
    let mut receipts = Receipt::all(&payout, &steps)?;
    let receipt = match number {
        None => receipts.pop().ok_or_else(|| Refusal::Illegal("nothing has been paid of it".to_owned()))?,
        Some(number) => {
            receipts.into_iter().find(|receipt| receipt.number == number).ok_or(Refusal::NotFound("payment"))?
        }
    };
    Ok(ReceiptOf { payout, program, partner, receipt })
}

async fn load(context: &Context, id: &PayoutId) -> Result<(Payout, Program, Partner)> {
    let store = &context.store;
    let payout = store.payout(OPERATION, id).await?.ok_or(Refusal::NotFound("payout"))?;
    let program = store.program(OPERATION, &payout.program).await?.ok_or(Refusal::NotFound("program"))?;
    let partner = store.partner(OPERATION, &payout.partner).await?.ok_or(Refusal::NotFound("partner"))?;
    Ok((payout, program, partner))
}
