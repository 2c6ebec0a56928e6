//! What the store promises, on the embedded engine, or on any DynamoDB: `STORE_ENDPOINT=http://127.0.0.1:8000 cargo test -p store`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use domain::attribution::Touch;
use domain::balance::Bucket;
use domain::ids::{ClickId, ConversionId, LineId, PartnerId, PayoutId, ProgramId, RunId, SourceId, VisitorId};
use domain::journal::{Change, Entry, EntryRef, What};
use domain::line::{Evidence, Line, LineKind, LineState, StateName};
use domain::money::Minor;
use domain::program::{ApprovalMode, Frequency, MethodKind, Partner, PartnerStatus, PayoutMethod, Program, Schedule};
use domain::rating::{Applied, Basis, Specificity};
use jiff::Timestamp;
use store::{Link, Store, StoreError, Transaction, create_table};

async fn store() -> Store {
    let name = format!("contract-{}", uuid());
    let client = if let Ok(endpoint) = std::env::var("STORE_ENDPOINT") {
        let config = embedded::Embedded::memory(embedded::system_clock()).unwrap().sdk_config();
        let over_http = aws_sdk_dynamodb::config::Builder::from(&config)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(endpoint);
        aws_sdk_dynamodb::Client::from_conf(over_http.build())
    } else {
        let embedded = embedded::Embedded::memory(embedded::system_clock()).unwrap();
        aws_sdk_dynamodb::Client::new(&embedded.sdk_config())
    };
    create_table(&client, &name).await.unwrap();
    Store::new(client, name)
}

fn uuid() -> u128 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(std::process::id()) << 64 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn minor(units: i64) -> Minor {
    Minor::new(units).unwrap()
}

fn program() -> Program {
    Program {
        id: ProgramId::from_uuid(1),
        name: "Program".into(),
        currency: "USD".parse().unwrap(),
        time_zone: "Europe/Berlin".to_owned().try_into().unwrap(),
        hold_days: 30,
        min_hold_days: 0,
        approval: ApprovalMode::Automatic,
        minimum_payout: minor(5_000),
        large_payout_limit: minor(100_000),
        rule_sign_off: true,
        cooling_off_days: 3,
        schedule: Schedule {
            frequency: Frequency::Monthly,
            run_day: 1,
            anchor: "2026-01-05".parse().unwrap(),
            cut_off_days: 0,
            pay_days: 0,
        },
        minimum_sales: 0,
        dust_sweep_days: None,
        debt_write_off_days: None,
        attribution: domain::attribution::Attribution::default(),
        anomaly_rules: domain::anomaly::AnomalyRules::default(),
        landing_page: None,
        allowed_hosts: vec![],
        tax: None,
        created_at: at("2026-01-01T00:00:00Z"),
        created_by: "ann".into(),
    }
}

fn partner(n: u128, shards: u8) -> Partner {
    Partner {
        id: PartnerId::from_uuid(n),
        program: ProgramId::from_uuid(1),
        name: "Partner".into(),
        email: "pay@partner.example".into(),
        code: format!("CODE{n}").parse().unwrap(),
        kind: "affiliate".into(),
        former_names: vec![],
        customer_id: None,
        group: None,
        minimum_payout: None,
        country: None,
        payout_currency: None,
        trusted: false,
        status: PartnerStatus::Active,
        suspensions: Vec::new(),
        had_details: false,
        payout_methods: vec![PayoutMethod {
            kind: MethodKind::Paypal,
            details: [("email".to_owned(), "pay@partner.example".to_owned())].into(),
            preferred: true,
            changed: None,
        }],
        shards,
        version: 1,
        created_at: at("2026-01-01T00:00:00Z"),
        created_by: "ann".into(),
    }
}

fn line(partner: &Partner, n: usize, state: LineState) -> Line {
    let source = SourceId::of_api(&partner.program);
    let conversion = ConversionId::derive(&partner.program, &source, &n.to_string());
    let occurred_at = at("2026-02-01T00:00:00Z") + jiff::SignedDuration::from_secs(i64::try_from(n).unwrap());
    Line {
        id: LineId::derive(&partner.id, partner.shards, occurred_at, &[conversion.as_str(), "rule", "1"]),
        program: partner.program.clone(),
        partner: partner.id.clone(),
        currency: "USD".parse().unwrap(),
        kind: LineKind::Commission,
        conversion: Some(conversion),
        order: Some(n.to_string()),
        products: vec!["P-1".into()],
        amount: minor(1_000),
        taken_back: Minor::ZERO,
        state,
        occurred_at,
        created_at: occurred_at,
        due_at: occurred_at,
        approved_at: None,
        paid_at: None,
        back_at: None,
        rule_set: Some(1),
        basis: Some(Basis {
            rule: "rule".into(),
            won_by: Specificity::ProgramDefault,
            won_over: None,
            base_kind: domain::rules::BaseKind::Net,
            base: minor(10_000),
            exchange: None,
            items: vec![0, 2],
            reward: Applied::Percent { rate: domain::money::Percent::new("10".parse().unwrap()) },
            share: None,
            caps: vec![],
            kept_back: domain::tally::KeptBack::default(),
            counted: vec![],
            earned: minor(1_000),
        }),
        evidence: Some(Evidence::Code("CODE1".into())),
        action: domain::conversion::Action::Sale,
        edit: None,
        attribution: 0,
        minimum_sales: None,
        of: None,
        true_ups: vec![],
        slice: Some(1),
        hands: vec![],
        version: 1,
        entry: EntryRef::none(),
    }
}

async fn write(store: &Store, stream: &str, mut changes: Vec<Change>) -> Result<Vec<Line>, StoreError> {
    let sealed = Entry::new(stream, 1, at("2026-02-02T00:00:00Z"), "ann", What::Accrue).seal(&mut changes).unwrap();
    let mut transaction = Transaction::new("test");
    transaction.change(&changes, &sealed)?;
    store.commit(transaction).await?;
    Ok(changes.into_iter().map(|change| change.after).collect())
}

#[tokio::test]
async fn what_is_written_reads_back() {
    let store = store().await;
    let partner = partner(1, 1);
    let mut transaction = Transaction::new("test");
    transaction.create_program(&program()).unwrap();
    transaction.create_partner(&partner).unwrap();
    store.commit(transaction).await.unwrap();
    assert_eq!(store.program("t", &program().id).await.unwrap(), Some(program()));
    assert_eq!(store.partner("t", &partner.id).await.unwrap(), Some(partner.clone()));
    assert_eq!(store.partner_with_code("t", &partner.program, &partner.code).await.unwrap(), Some(partner.clone()));
    assert_eq!(store.programs("t", None, 10).await.unwrap().items, [program()]);
    assert_eq!(store.partners("t", &partner.program, None, 10).await.unwrap().items, std::slice::from_ref(&partner));

    let payout = PayoutId::derive(
        &RunId::derive(&partner.program, "monthly", "2026-03-01"),
        &partner.id,
        at("2026-03-01T00:00:00Z"),
    );
    let states = [
        LineState::Pending,
        LineState::Approved,
        LineState::Payable,
        LineState::InPayout { payout: payout.clone(), page: 3 },
        LineState::Paid { payout, page: 3 },
        LineState::Held { reviewed: true, why: "look".into() },
        LineState::Rejected { why: "no".into(), refunded: minor(5), whole: false },
        LineState::Reversed { reviewed: false, held: Some("look".into()) },
    ];
    for (n, state) in states.into_iter().enumerate() {
        let written = write(&store, &format!("cnv_{n}"), vec![Change::new(line(&partner, n, state))]).await.unwrap();
        assert_eq!(store.line("t", &written[0].id).await.unwrap().as_ref(), Some(&written[0]));
        let chain = store.chain("t", &format!("cnv_{n}")).await.unwrap();
        assert_eq!(chain[0].at, written[0].entry, "the line points at its entry");
    }
}

#[tokio::test]
async fn a_code_belongs_to_one_partner_of_a_program() {
    let store = store().await;
    for (n, fine) in [(1, true), (2, false)] {
        let mut transaction = Transaction::new("test");
        transaction.create_partner(&Partner { code: "SAME".parse().unwrap(), ..partner(n, 1) }).unwrap();
        assert_eq!(store.commit(transaction).await.is_ok(), fine);
    }
    assert_eq!(store.partner("t", &PartnerId::from_uuid(2)).await.unwrap(), None, "nothing half done");
}

#[tokio::test]
async fn a_code_leads_to_one_place_in_the_whole_table() {
    let store = store().await;
    let link = |n, program| Link { program: ProgramId::from_uuid(program), ..Link::of(&partner(n, 1)) };
    let same = |n, program| Link { code: "SAME".parse().unwrap(), ..link(n, program) };
    for (link, fine) in [(same(1, 1), true), (same(2, 1), false), (same(3, 2), false), (link(3, 2), true)] {
        let mut transaction = Transaction::new("test");
        transaction.create_link(&link).unwrap();
        assert_eq!(store.commit(transaction).await.is_ok(), fine, "{link:?}");
    }
    assert_eq!(store.link("t", &"same".parse().unwrap()).await.unwrap(), Some(same(1, 1)));
    assert_eq!(store.link("t", &"CODE1".parse().unwrap()).await.unwrap(), None);
    assert_eq!(store.links("t", &ProgramId::from_uuid(2), None, None, 10).await.unwrap().items, [link(3, 2)]);
}

#[tokio::test]
async fn a_partners_links_are_listed_page_by_page_the_oldest_first() {
    let store = store().await;
    let mut made = Vec::new();
    for n in 0..5_u8 {
        for partner in [partner(1, 1), partner(2, 1), partner(3, 1)] {
            let mut transaction = Transaction::new("test");
            let link = Link {
                code: format!("{}-{n}", partner.code.as_str()).parse().unwrap(),
                created_at: at("2026-02-01T00:00:00Z") + jiff::SignedDuration::from_secs(i64::from(9 - n)),
                ..Link::of(&partner)
            };
            transaction.create_link(&link).unwrap();
            store.commit(transaction).await.unwrap();
            made.extend((partner.id == PartnerId::from_uuid(2)).then_some(link));
        }
    }
    made.reverse();
    let (program, partner) = (ProgramId::from_uuid(1), PartnerId::from_uuid(2));
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.links("t", &program, Some(&partner), after.as_deref(), 2).await.unwrap();
        found.extend(page.items);
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, made);
    assert_eq!(store.link_count("t", &program, &partner, 3).await.unwrap(), 3, "no further than asked");
    assert_eq!(store.link_count("t", &program, &partner, 9).await.unwrap(), 5);
    assert_eq!(store.links("t", &program, None, None, 100).await.unwrap().items.len(), 15);
}

#[tokio::test]
async fn of_very_many_touches_the_latest_of_the_window_are_found() {
    let store = store().await;
    let (program, visitor) = (ProgramId::from_uuid(1), VisitorId::from_uuid(1));
    let first = at("2026-02-01T00:00:00Z");
    let mut made = Vec::new();
    for n in 0..250_i64 {
        // Two programs in turn, two clicks a second.
        let moment = first + jiff::SignedDuration::from_millis(500 * n);
        let click = ClickId::derive(&visitor, moment, n.unsigned_abs().into());
        let touch = Touch {
            click,
            partner: PartnerId::from_uuid(1),
            at: moment,
            code: "CODE1".into(),
            channel: None,
            campaign: None,
            landing_page: None,
            device: None,
            referrer: None,
        };
        let mut transaction = Transaction::new("test");
        transaction.create_touch(&ProgramId::from_uuid(1 + u128::from(n % 2 == 1)), &touch).unwrap();
        store.commit(transaction).await.unwrap();
        made.extend((n % 2 == 0).then_some(touch));
    }
    let found =
        store.touches("t", &program, &visitor, first, first + jiff::SignedDuration::from_hours(1)).await.unwrap();
    assert_eq!(found, made[25..], "a hundred of this program among the latest two hundred");
    let end = made[10].at;
    assert_eq!(store.touches("t", &program, &visitor, made[4].at, end).await.unwrap(), made[4..=10]);
    let stranger = VisitorId::from_uuid(2);
    assert_eq!(store.touches("t", &program, &stranger, first, end).await.unwrap(), []);
    assert_eq!(store.touch("t", &program, &made[3].click).await.unwrap().as_ref(), Some(&made[3]));
    assert_eq!(store.touch("t", &ProgramId::from_uuid(2), &made[3].click).await.unwrap(), None);
}

#[tokio::test]
async fn a_line_changes_only_from_the_version_that_was_read() {
    let store = store().await;
    let partner = partner(1, 1);
    let [pending] = write(&store, "cnv_1", vec![Change::new(line(&partner, 1, LineState::Pending))])
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let now = at("2026-02-02T00:00:00Z");
    let approved = pending.clone().approve(now).unwrap();
    let rejected = pending.clone().reject("no", None).unwrap();
    write(&store, "act_1", vec![Change::of(pending.clone(), approved)]).await.unwrap();
    let lost = write(&store, "act_2", vec![Change::of(pending, rejected)]).await;
    assert!(matches!(lost, Err(StoreError::Stale)));
    assert!(store.chain("t", "act_2").await.unwrap().is_empty(), "a refused change leaves no entry");
    let balance = store.balance("t", &partner.id, "USD".parse().unwrap()).await.unwrap();
    assert_eq!((balance.amount(Bucket::Payable), balance.amount(Bucket::Rejected)), (minor(1_000), Minor::ZERO));
    assert_eq!(balance.lines(StateName::Payable), 1);
    assert_eq!(balance.total().unwrap(), Minor::ZERO);
}

#[tokio::test]
async fn a_position_in_a_stream_is_taken_once() {
    let store = store().await;
    let partner = partner(1, 1);
    write(&store, "cnv_1", vec![Change::new(line(&partner, 1, LineState::Pending))]).await.unwrap();
    let second = write(&store, "cnv_1", vec![Change::new(line(&partner, 2, LineState::Pending))]).await;
    assert!(matches!(second, Err(StoreError::Stale)));
}

#[tokio::test]
async fn a_partner_lines_list_is_newest_first_across_shards_and_pages() {
    let store = store().await;
    let partner = partner(1, 5);
    let mut written = Vec::new();
    for n in 0..37 {
        written.extend(
            write(&store, &format!("cnv_{n}"), vec![Change::new(line(&partner, n, LineState::Pending))]).await.unwrap(),
        );
    }
    assert!(written.iter().map(|line| line.id.shard()).collect::<std::collections::BTreeSet<_>>().len() > 1);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = store.partner_lines("t", &partner, after.as_ref(), 10).await.unwrap();
        seen.extend(page);
        after = next;
        if after.is_none() {
            break;
        }
    }
    written.reverse();
    assert_eq!(seen, written);
    let balance = store.balance("t", &partner.id, "USD".parse().unwrap()).await.unwrap();
    assert_eq!(balance.amount(Bucket::Pending), minor(37_000), "the balance is the sum over its shards");
}

#[tokio::test]
async fn lines_stand_in_the_work_index_only_while_something_is_to_be_done() {
    let store = store().await;
    let partner = partner(1, 1);
    let now = at("2026-02-02T00:00:00Z");
    let [approved] = write(&store, "cnv_1", vec![Change::new(line(&partner, 1, LineState::Approved))])
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let due = |moment: Timestamp| {
        let store = store.clone();
        async move {
            let mut due = Vec::new();
            for bucket in Store::due_buckets() {
                due.extend(store.due_lines("t", bucket, moment, None).await.unwrap().items);
            }
            due.len()
        }
    };
    assert_eq!(due(approved.due_at - jiff::SignedDuration::from_nanos(1)).await, 0);
    assert_eq!(due(approved.due_at).await, 1, "due at its moment");
    let matured = approved.clone().mature(now).unwrap();
    let [payable] = write(&store, "act_1", vec![Change::of(approved, matured)]).await.unwrap().try_into().unwrap();
    assert_eq!(due(now).await, 0);
    assert_eq!(store.payable_lines("t", &partner.id, 10).await.unwrap(), std::slice::from_ref(&payable));
    let payout = PayoutId::derive(&RunId::derive(&partner.program, "m", "1"), &partner.id, now);
    let claimed = payable.clone().claim(&payout, 0).unwrap();
    write(&store, "act_2", vec![Change::of(payable, claimed)]).await.unwrap();
    assert!(store.payable_lines("t", &partner.id, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn many_writers_lose_nothing() {
    let store = store().await;
    let partner = partner(1, 1);
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (store, partner) = (store.clone(), partner.clone());
        writers.spawn(async move {
            write(&store, &format!("cnv_{n}"), vec![Change::new(line(&partner, n, LineState::Pending))]).await.unwrap();
        });
    }
    writers.join_all().await;
    let balance = store.balance("t", &partner.id, "USD".parse().unwrap()).await.unwrap();
    assert_eq!((balance.amount(Bucket::Pending), balance.lines(StateName::Pending)), (minor(40_000), 40));
}

#[tokio::test]
async fn capacity_is_counted_by_operation() {
    let store = store().await;
    let partner = partner(1, 1);
    store.meter().reset();
    write(&store, "cnv_1", vec![Change::new(line(&partner, 1, LineState::Approved))]).await.unwrap();
    let units = store.meter().totals()["test"];
    // Line 2 and its place in an index 1, entry 2, balance 2.
    assert!((units.write - 7.0).abs() < f64::EPSILON, "{units:?}");
}
