//! Every turn that a payout takes after it was drafted, by a process that dies at any of its writes or is left without any of its answers: whoever
//! asks again comes to where all would have come undisturbed, each turn is told once, and the books hold.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use domain::ids::{LineId, PayoutId, ProgramId};
use domain::money::Minor;
use domain::payout::Teller;
use domain::remittance::RemittanceFormat;
use local::Storage;
use serde_json::{Value, json};
use store::Whose;
use tests::blow::{Blow, copied, struck};
use tests::{ADMIN, APPROVER, Plan, World, temporary_directory};
use workflows::exports::{Asked, export, file};
use workflows::files::Delivered;
use workflows::payouts::{self, Attested};
use workflows::review::{Verdict, review};
use workflows::{Context, Refusal};

/// Two pages of commissions.
const LINES: usize = 46;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Approve,
    Exclude,
    SendBack,
    Cancel,
    BeginSubmit,
    Submit,
    PayPart,
    MarkPaid,
    /// A rail says that less is paid than it said before.
    Unpay,
    Fail,
    Return,
    Retry,
    Void,
}

/// What happened to a payout before, and then does.
const TURNS: [(&[Turn], Turn); 17] = [
    (&[], Turn::Approve),
    (&[], Turn::Cancel),
    (&[], Turn::Exclude),
    (&[Turn::Approve], Turn::Exclude),
    (&[Turn::Approve], Turn::SendBack),
    (&[Turn::Approve], Turn::Cancel),
    (&[Turn::Approve], Turn::BeginSubmit),
    (&[Turn::Approve], Turn::MarkPaid),
    (&[Turn::Approve, Turn::BeginSubmit], Turn::Submit),
    (&[Turn::Approve, Turn::BeginSubmit, Turn::Submit], Turn::PayPart),
    (&[Turn::Approve, Turn::BeginSubmit, Turn::Submit, Turn::PayPart], Turn::MarkPaid),
    (&[Turn::Approve, Turn::BeginSubmit, Turn::Submit], Turn::Fail),
    (&[Turn::Approve, Turn::BeginSubmit, Turn::Submit], Turn::Void),
    (&[Turn::Approve, Turn::BeginSubmit, Turn::Submit, Turn::Fail], Turn::Retry),
    (&[Turn::Approve, Turn::MarkPaid], Turn::Return),
    (&[Turn::Approve, Turn::MarkPaid], Turn::Unpay),
    (&[Turn::Approve, Turn::MarkPaid, Turn::Return], Turn::Void),
];

impl Turn {
    async fn take(self, context: &Context, id: &PayoutId, line: &LineId) -> Result<(), Refusal> {
        let why = "the bank says so";
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let paid = |amount| Attested { reference: Some("wire 1"), paid_at: None, amount };
        match self {
            Self::Approve => payouts::approve(context, id, None, APPROVER.subject).await.map(drop),
            Self::Exclude => {
                let verdict = Verdict::Exclude { payout: id.clone(), seen: None, why: why.to_owned() };
                review(context, std::slice::from_ref(line), &verdict, APPROVER.subject).await?.remove(0)
            }
            Self::SendBack => payouts::send_back(context, id, why, APPROVER.subject).await.map(drop),
            Self::Cancel => payouts::cancel(context, id, why, APPROVER.subject).await.map(drop),
            Self::BeginSubmit => payouts::begin_submit(context, id, "rail").await.map(drop),
            Self::Submit => payouts::submit(context, id, Some("batch 1"), "rail").await.map(drop),
            Self::PayPart => payouts::mark_paid(context, id, &paid(Minor::new(10_000).ok()), "fay").await.map(drop),
            Self::MarkPaid => payouts::mark_paid(context, id, &paid(None), "fay").await.map(drop),
            Self::Unpay => payouts::report(context, id, Minor::ZERO, Some("undone"), at, "rail").await.map(drop),
            Self::Fail => payouts::fail(context, id, why, Teller::Person("fay")).await.map(drop),
            Self::Return => payouts::come_back(context, id, why, "fay").await.map(drop),
            Self::Retry => payouts::retry(context, id, why, "fay").await.map(drop),
            Self::Void => payouts::void(context, id, why, Teller::Person("fay")).await.map(drop),
        }
    }
}

/// Fields of an object.
fn of(object: &Value, fields: &[&str]) -> Vec<Value> {
    fields.iter().map(|field| object[field].clone()).collect()
}

/// How often each kind of event was told of each thing. One that is delivered twice has one id.
fn told(world: &World) -> BTreeMap<String, usize> {
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in world.system.embedded.events() {
        let event = json!(event.event);
        ids.entry(event["detail-type"].to_string()).or_default().insert(event["detail"]["id"].to_string());
    }
    ids.into_iter().map(|(kind, ids)| (kind, ids.len())).collect()
}

/// Where a payout, its commissions and the partner's balance stand, and what was told.
async fn stands(world: &World, id: &Value) -> Vec<Value> {
    let payout = world.payout(id).await;
    let payout = of(
        &payout,
        &[
            "state",
            "amount",
            "paid",
            "lineCount",
            "linesHash",
            "version",
            "approvals",
            "reference",
            "submittedAt",
            "paidAt",
        ],
    );
    let lines = world.lines().await;
    let lines: Vec<_> = lines.iter().map(|line| of(line, &["id", "state", "net", "payoutId", "paidAt"])).collect();
    vec![
        json!(payout),
        json!(lines),
        json!(world.buckets().await),
        json!(world.exception_codes().await),
        json!(told(world)),
    ]
}

/// A world in a directory of its own, closed, with what must be known to go on.
struct Prepared {
    plan: Plan,
    directory: std::path::PathBuf,
    program: String,
    partner: String,
}

impl Prepared {
    async fn again(&self, directory: &Path) -> World {
        let plan = self.plan.clone().stored(Storage::Directory(directory.to_owned()));
        plan.start_again(&self.program, &self.partner).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_turn_of_a_payout_is_taken_once_wherever_its_process_is_struck() {
    let directory = temporary_directory("drafted");
    let plan = Plan::new();
    let world = plan.clone().stored(Storage::Directory(directory.clone())).start().await;
    for n in 0..LINES {
        world.sale(&format!("o{n}"), "100.00").await;
    }
    let id = world.request_payout().await["id"].clone();
    let line: LineId = world.line_id("o7").await.parse().unwrap();
    world.settle().await;
    let prepared = Prepared { plan, directory, program: world.program.clone(), partner: world.partner.clone() };
    drop(world);
    let payout: PayoutId = id.as_str().unwrap().parse().unwrap();
    for (before, turn) in TURNS {
        let mut expected = None;
        for blow in [Blow::Death, Blow::LostAnswer] {
            // Undisturbed first; then struck at each write, as long as there is one.
            for at in std::iter::once(usize::MAX).chain(0..) {
                let directory = copied(&prepared.directory, "struck");
                let world = prepared.again(&directory).await;
                for earlier in before {
                    earlier.take(&world.system.context, &payout, &line).await.unwrap();
                }
                let turned = async |context: &Context| turn.take(context, &payout, &line).await;
                let struck = Box::pin(struck(&world, blow, at, turned)).await;
                let what = format!("{turn:?} after {before:?}: {blow:?} at write {at}");
                assert_eq!(struck.answer.is_none(), struck.hit && blow == Blow::Death, "{what}");
                if at == usize::MAX {
                    struck.answer.unwrap().unwrap();
                }
                // Somebody asks again; what was done is refused as done, or changes nothing.
                let again = turn.take(&world.system.context, &payout, &line).await;
                assert!(matches!(again, Ok(()) | Err(Refusal::Illegal(_) | Refusal::Invalid(_))), "{what}: {again:?}");
                world.tick().await;
                let found = stands(&world, &id).await;
                assert_eq!(found, *expected.get_or_insert_with(|| found.clone()), "{what}");
                world.audit_holds().await;
                drop(world);
                std::fs::remove_dir_all(&directory).unwrap();
                if at != usize::MAX && !struck.hit {
                    assert!(at > 0, "{what}: it writes something");
                    break;
                }
            }
        }
    }
    std::fs::remove_dir_all(&prepared.directory).unwrap();
}

// --- Batches ----------------------------------------------------------------------------------------------------------

/// One payout more than a page of a batch takes.
const PAYOUTS: usize = 46;

/// The batch, the bytes of its files, and where its payouts stand.
async fn batch(world: &World, asked: &Asked<'_>) -> Vec<Value> {
    let context = &world.system.context;
    let made = export(context, asked, ADMIN.subject, || true).await.unwrap();
    world.settle().await;
    let mut files = Vec::new();
    for number in 0..made.files.len() {
        let Delivered::Whole(bytes) = file(context, &world.system.files, &made.id, number).await.unwrap() else {
            panic!("a file of {PAYOUTS} rows is small")
        };
        files.push(String::from_utf8(bytes).unwrap());
    }
    let shown = world.get(ADMIN, &format!("/exports/{}", made.id)).await.ok();
    let mut payouts = world.all(ADMIN, &format!("/payouts?programId={}", world.program)).await;
    payouts.sort_by_key(|payout| payout["id"].to_string());
    let payouts: Vec<_> = payouts.iter().map(|payout| of(payout, &["id", "state", "submittedAt", "version"])).collect();
    vec![shown, json!(files), json!(payouts), json!(told(world))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_takes_each_payout_once_wherever_its_process_is_struck() {
    let directory = temporary_directory("approved");
    let plan = Plan::new();
    let world = plan.clone().stored(Storage::Directory(directory.clone())).start().await;
    let bank =
        json!([{"kind": "bank", "details": {"name": "Anna", "iban": "DE89370400440532013000"}, "preferred": true}]);
    for n in 0..PAYOUTS {
        let partner = world.add_partner(&json!({"code": format!("P{n}"), "payoutMethods": bank})).await;
        let of = World { partner, ..world.clone() };
        of.sale(&format!("o{n}"), "100.00").await;
        let id = of.request_payout().await["id"].clone();
        assert_eq!(world.approve_payout(APPROVER, &id).await, 200);
    }
    world.settle().await;
    let prepared = Prepared { plan, directory, program: world.program.clone(), partner: world.partner.clone() };
    drop(world);
    let program: ProgramId = prepared.program.parse().unwrap();
    let asked = Asked { key: "november", program: &program, format: RemittanceFormat::Bank, whose: Whose::All };
    let mut expected = None;
    for blow in [Blow::Death, Blow::LostAnswer] {
        for at in std::iter::once(usize::MAX).chain(0..) {
            let directory = copied(&prepared.directory, "batched");
            let world = prepared.again(&directory).await;
            let gathered = async |context: &Context| export(context, &asked, ADMIN.subject, || true).await.map(drop);
            let struck = struck(&world, blow, at, gathered).await;
            // The next tick goes on with it, or somebody asks for the same again.
            if at % 2 == 0 {
                world.tick().await;
            }
            let found = batch(&world, &asked).await;
            assert_eq!(found[0]["payouts"], PAYOUTS, "{}", found[0]);
            let same = found == *expected.get_or_insert_with(|| found.clone());
            assert!(same, "{blow:?} at write {at}: {} {}", found[0], found[3]);
            world.audit_holds().await;
            drop(world);
            std::fs::remove_dir_all(&directory).unwrap();
            if at != usize::MAX && !struck.hit {
                assert!(at > 2, "a batch of two pages makes more writes than {at}");
                break;
            }
        }
    }
    std::fs::remove_dir_all(&prepared.directory).unwrap();
}
