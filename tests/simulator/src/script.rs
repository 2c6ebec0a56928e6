//! What happens in a world, step by step. A step carries its own chance, so that it means the same when others are left out:
//! that is what lets a failing history be shortened.

use crate::chance::Chance;
use crate::told::ENGINE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// A customer buys; the storefront will tell.
    Sell,
    /// Somebody follows a partner's link.
    Click,
    /// Something goes back, perhaps before the storefront has told of the sale.
    Refund,
    /// An order becomes another.
    Edit,
    /// A refund or a chargeback is withdrawn, perhaps before it was told.
    Withdraw,
    /// The storefront posts something it has to tell, or posts it again.
    Tell,
    /// The same id told with other content.
    Contradict,
    /// What no storefront would send: bad signatures, garbage, unknown sources.
    Garbage,
    /// A message that no function can read, beside good ones.
    Poison,
    /// Queue messages are handed to their function.
    Deliver,
    /// Stream records are handed to their function.
    Publish,
    /// The schedules fire.
    Mature,
    Batch,
    /// A person judges commissions.
    Review,
    /// A person sets a commission's amount, gives a bonus, or decides whose a conversion is.
    Adjust,
    Bonus,
    Attribute,
    /// A person sets several amounts, or decides whose several conversions are, or judges several commissions, at once.
    Together,
    /// A person starts a run, asks for a payout, or decides about payouts.
    Run,
    Request,
    Approve,
    SendBack,
    Cancel,
    /// A person tells what became of money, or has files made that move it; or a tax form comes in.
    Settle,
    /// New rules are published, or a partner joins.
    Rules,
    Partner,
    /// A partner is suspended for a while.
    Suspend,
    /// A partner's payout details are changed.
    Details,
    /// Somebody looks, perhaps at what is not theirs.
    Look,
    Pass,
    /// Something is done with QuickBooks, or in it.
    Books,
    /// Something is done about payouts that PayPal is asked to pay, or there.
    Remit,
    /// Everything under way comes to its end.
    Finish,
}

/// Of what belongs to the whole commission engine.
const fn engine(weight: u32) -> u32 {
    if ENGINE { weight } else { 0 }
}

const WEIGHTS: [(u32, Act); 28] = [
    (12, Act::Sell),
    (8, Act::Refund),
    (engine(8), Act::Click),
    (engine(6), Act::Edit),
    (engine(4), Act::Withdraw),
    (20, Act::Tell),
    (2, Act::Contradict),
    (2, Act::Garbage),
    (1, Act::Poison),
    (18, Act::Deliver),
    (5, Act::Publish),
    (5, Act::Mature),
    (6, Act::Batch),
    (8, Act::Review),
    (engine(5), Act::Adjust),
    (engine(2), Act::Bonus),
    (engine(3), Act::Attribute),
    (3, Act::Run),
    (4, Act::Request),
    (11, Act::Approve),
    (2, Act::SendBack),
    (2, Act::Cancel),
    (10, Act::Settle),
    (1, Act::Rules),
    (1, Act::Partner),
    (4, Act::Look),
    (10, Act::Pass),
    (4, Act::Finish),
];

/// Towards the end, whatever was earned is paid: by whom, how, and how often it comes back.
const PAYDAYS: [(u32, Act); 18] = [
    (3, Act::Sell),
    (4, Act::Refund),
    (6, Act::Tell),
    (engine(2), Act::Bonus),
    (engine(2), Act::Adjust),
    (8, Act::Deliver),
    (3, Act::Publish),
    (5, Act::Mature),
    (7, Act::Batch),
    (8, Act::Review),
    (7, Act::Run),
    (7, Act::Request),
    (20, Act::Approve),
    (1, Act::SendBack),
    (34, Act::Settle),
    (4, Act::Look),
    (8, Act::Pass),
    (6, Act::Finish),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub act: Act,
    pub chance: u64,
    /// How often it may be repeated at once; a shorter history does with less.
    pub most: usize,
}

/// Where the chance begins of what is done with QuickBooks.
const BOOKS: u64 = 1 << 42;
/// And of who is suspended when.
const SUSPENSIONS: u64 = 1 << 43;
/// And of what people change together.
const TOGETHER: u64 = 1 << 44;
/// And of what PayPal is asked.
const PAYPAL: u64 = 1 << 46;
/// And of whose payout details change when.
const DETAILS: u64 = 1 << 48;

/// Whether anybody is paid in QuickBooks in the world with this seed.
pub fn has_books(seed: u64) -> bool {
    Chance::of(seed, BOOKS).percent(60)
}

/// Whether PayPal is asked to pay anybody in the world with this seed.
pub fn has_paypal(seed: u64) -> bool {
    Chance::of(seed, PAYPAL).percent(45)
}

/// The steps of the world with this seed. What is done with QuickBooks and PayPal comes on top, mostly towards the end.
pub fn script(seed: u64, steps: usize) -> Vec<Step> {
    let (mut chance, mut besides) = (Chance::of(seed, 1), Chance::of(seed, BOOKS + 1));
    let (mut suspensions, mut together) = (Chance::of(seed, SUSPENSIONS), Chance::of(seed, TOGETHER));
    let (mut remits, mut details) = (Chance::of(seed, PAYPAL + 1), Chance::of(seed, DETAILS));
    let mut all = Vec::new();
    for n in 0..steps {
        let payday = n >= steps - steps / 5;
        let act = if payday { chance.weighted(&PAYDAYS) } else { chance.weighted(&WEIGHTS) };
        all.push(Step { act: act.unwrap_or(Act::Finish), chance: chance.number(), most: usize::MAX });
        if has_books(seed) && besides.percent(if payday { 70 } else { 15 }) {
            all.push(Step { act: Act::Books, chance: besides.number(), most: usize::MAX });
        }
        if has_paypal(seed) && remits.percent(if payday { 60 } else { 15 }) {
            all.push(Step { act: Act::Remit, chance: remits.number(), most: usize::MAX });
        }
        if details.percent(if payday { 12 } else { 3 }) {
            all.push(Step { act: Act::Details, chance: details.number(), most: usize::MAX });
        }
        if ENGINE && suspensions.percent(3) {
            all.push(Step { act: Act::Suspend, chance: suspensions.number(), most: usize::MAX });
        }
        if ENGINE && together.percent(7) {
            all.push(Step { act: Act::Together, chance: together.number(), most: usize::MAX });
        }
    }
    all
}
