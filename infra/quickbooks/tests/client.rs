//! Our client against the counterpart, in process: what it is told when something goes wrong, and what was then done.

#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use outbound::{Limits, Outbound};
use quickbooks::oauth::{App, Endpoints, SignIn, SignInError, Tokens};
use quickbooks::{
    Amount, ApiError, BatchItem, Bill, BillLine, BillPayment, Change, Client, Company, Entity, Environment, Query, Ref,
    Secret, Vendor,
};
use quickbooks_counterpart::company::EXPENSE_ACCOUNT;
use quickbooks_counterpart::server::{listen, notify, serve};
use quickbooks_counterpart::{Counterpart, Faults, Settings};

const REDIRECT: &str = "https://payouts.example/callback";
const BASE: &str = "https://counterpart.example";

/// A connected company whose clock is moved by hand.
struct Connected {
    counterpart: Counterpart,
    realm: String,
    outbound: Outbound,
    sign_in: SignIn,
    tokens: Tokens,
    now: Arc<Mutex<Timestamp>>,
}

impl Connected {
    async fn with(settings: Settings) -> Self {
        let now = Arc::new(Mutex::new("2026-03-01T00:00:00Z".parse::<Timestamp>().unwrap()));
        let clock = Arc::clone(&now);
        let counterpart = Counterpart::new(settings.clone(), Arc::new(move || *clock.lock().unwrap()));
        let outbound = Outbound::over(counterpart.clone(), Limits::API);
        let app = App { client_id: settings.client_id, client_secret: Secret::new(settings.client_secret) };
        let sign_in = SignIn { outbound: outbound.clone(), endpoints: Endpoints::under(BASE), app };
        let code = counterpart.consent(&settings.realm, REDIRECT);
        let at = *now.lock().unwrap();
        let tokens = sign_in.exchange(&code, REDIRECT, at).await.unwrap();
        Self { counterpart, realm: settings.realm, outbound, sign_in, tokens, now }
    }

    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    fn client(&self) -> Client {
        let company = Company { environment: Environment(BASE.to_owned()), realm: self.realm.clone() };
        Client::new(self.outbound.clone(), company, self.tokens.access.clone())
    }

    fn pass(&self, time: SignedDuration) -> Timestamp {
        let mut now = self.now.lock().unwrap();
        *now += time;
        *now
    }

    async fn vendor(&self, name: &str) -> Vendor {
        let vendor = Vendor { display_name: name.to_owned(), ..Vendor::default() };
        self.client().create::<Vendor>(&serde_json::to_string(&vendor).unwrap(), &format!("v-{name}")).await.unwrap().of
    }
}

fn bill(vendor: &Vendor, number: &str, amounts: &[&str]) -> String {
    let line =
        |amount: &&str| BillLine::expense(Amount(amount.parse().unwrap()), EXPENSE_ACCOUNT, "Commissions".to_owned());
    let bill = Bill {
        vendor_ref: Ref::to(&vendor.id),
        doc_number: Some(number.to_owned()),
        line: amounts.iter().map(line).collect(),
        ..Bill::default()
    };
    serde_json::to_string(&bill).unwrap()
}

fn amount(text: &str) -> Amount {
    Amount(text.parse().unwrap())
}

#[tokio::test]
async fn a_bill_is_made_once_found_paid_in_part_voided_and_deleted() {
    let connected = Connected::with(Settings { limits: false, ..Settings::default() }).await;
    let client = connected.client();
    let vendor = connected.vendor("O'Neil \\ Sons").await;
    let found = client
        .query::<Vendor>(&Query::of("Vendor").equal("DisplayName", "o'neil \\ sons").active_or_not())
        .await
        .unwrap();
    assert_eq!(found, std::slice::from_ref(&vendor));
    let body = bill(&vendor, "PP-1", &["118.10", "-18.10"]);
    let made = client.create::<Bill>(&body, "request-1").await.unwrap();
    assert!(!made.tid.is_empty());
    assert_eq!((made.of.total_amt, made.of.balance), (Some(amount("100")), Some(amount("100"))));
    assert_eq!(
        client.create::<Bill>(&body, "request-1").await.unwrap().of,
        made.of,
        "the same request is the same answer"
    );
    let other = client.create::<Bill>(&bill(&vendor, "PP-2", &["1"]), "request-1").await;
    assert!(other.is_err_and(|error| error.is_code("600")), "a request id stands for one request");
    let twice = client.create::<Bill>(&body, "request-2").await.unwrap_err();
    assert!(twice.is_code("6140") && twice.fault().unwrap().detail.ends_with(&format!("TxnId={}", made.of.id)));
    let id = made.of.id;
    let open = async || client.read::<Bill>(&id).await.unwrap().map(|told| told.of.balance.unwrap());
    let part = connected
        .counterpart
        .company(&connected.realm, |company, now| company.pay(&id, Some(40.into()), now))
        .unwrap()
        .unwrap();
    assert_eq!(open().await, Some(amount("60")));
    let payment = client.read::<BillPayment>(&part).await.unwrap().unwrap().of;
    assert_eq!(payment.applied_to(&id), Amount(40.into()));
    connected.counterpart.company(&connected.realm, |company, now| company.void_payment(&part, now));
    assert_eq!(open().await, Some(amount("100")));
    assert_eq!(client.read::<BillPayment>(&part).await.unwrap().unwrap().of.applied_to(&id), Amount(0.into()));
    connected.counterpart.company(&connected.realm, |company, now| company.delete_bill(&id, now));
    assert_eq!(open().await, None);
    let changes = client.changes_since("2026-02-28T00:00:00Z".parse().unwrap()).await.unwrap();
    assert_eq!(changes.bills, [Change::Deleted { id: id.clone(), at: Some(*connected.now.lock().unwrap()) }]);
    assert!(!changes.is_cut);
}

/// Under every fault, what the client is told agrees with what was done: never a failure for something that stands.
#[tokio::test]
async fn what_is_told_of_a_bill_agrees_with_what_was_done() {
    for remembers_requests in [true, false] {
        let connected = Connected::with(Settings { remembers_requests, ..Settings::default() }).await;
        let vendor = connected.vendor("Partner").await;
        let client = connected.client();
        let faults = [
            Faults { lost_before_apply: 1.0, ..Faults::default() },
            Faults { lost_after_apply: 1.0, ..Faults::default() },
            Faults { throttle: 1.0, ..Faults::default() },
            Faults { server_error: 1.0, seed: 1, ..Faults::default() },
            Faults { server_error: 1.0, seed: 2, ..Faults::default() },
            Faults { server_error: 1.0, seed: 3, ..Faults::default() },
        ];
        for (n, fault) in faults.into_iter().enumerate() {
            connected.pass(SignedDuration::from_secs(61));
            let number = format!("PP-{n}");
            let body = bill(&vendor, &number, &["10"]);
            connected.counterpart.fail(fault);
            let told = client.create::<Bill>(&body, &format!("request-{n}")).await.unwrap_err();
            connected.counterpart.fail(Faults::default());
            let found = client.query::<Bill>(&Query::of(Bill::NAME).equal("DocNumber", &number)).await.unwrap();
            if !told.may_have_been_done() {
                assert_eq!(found, [], "{fault:?}: {told}");
            }
            assert!(told.is_transient(), "{told}");
            // Found or not, there is one in the end.
            if found.is_empty() {
                client.create::<Bill>(&body, &format!("request-{n}")).await.unwrap();
            }
            let all = client.query::<Bill>(&Query::of(Bill::NAME).equal("DocNumber", &number)).await.unwrap();
            assert_eq!(all.len(), 1, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn an_ended_token_is_told_in_both_spellings_and_renewed() {
    let mut connected = Connected::new().await;
    let now = connected.pass(SignedDuration::from_secs(3_601));
    for _ in 0..2 {
        assert_eq!(connected.client().preferences().await, Err(ApiError::Unauthorized));
    }
    assert!(connected.tokens.are_due(now));
    connected.tokens = connected.sign_in.refresh(&connected.tokens.refresh, now).await.unwrap();
    assert!(connected.client().preferences().await.is_ok());
    let later = connected.pass(SignedDuration::from_hours(25));
    let former = connected.tokens.refresh.clone();
    connected.tokens = connected.sign_in.refresh(&former, later).await.unwrap();
    assert_eq!(connected.sign_in.refresh(&former, later).await, Err(SignInError::InvalidGrant), "its value changed");
    connected.sign_in.revoke(&connected.tokens.refresh).await.unwrap();
    assert_eq!(connected.client().preferences().await, Err(ApiError::Unauthorized));
}

#[tokio::test]
async fn refusals_keep_their_numbers() {
    let connected = Connected::new().await;
    let client = connected.client();
    let vendor = connected.vendor("Partner").await;
    let code = async |body: String, id: &str| {
        client.create::<Bill>(&body, id).await.unwrap_err().fault().unwrap().code.0.clone()
    };
    assert_eq!(code(bill(&vendor, "a number of over 21 characters", &["1"]), "a").await, "2050");
    assert_eq!(code(bill(&Vendor { id: "999".into(), ..Vendor::default() }, "1", &["1"]), "b").await, "2500");
    assert_eq!(code(bill(&vendor, "1", &["1", "-2"]), "c").await, "6000");
    connected
        .counterpart
        .company(&connected.realm, |company, _| company.books_closed = Some("2026-03-31".parse().unwrap()));
    assert_eq!(code(bill(&vendor, "1", &["1"]), "d").await, "6210");
    connected.counterpart.company(&connected.realm, |company, now| {
        company.books_closed = None;
        company.deactivate(&vendor.id, now)
    });
    assert_eq!(code(bill(&vendor, "1", &["1"]), "e").await, "610");
    let active = Query::of("Vendor").equal("Id", &vendor.id);
    assert_eq!(client.query::<Vendor>(&active).await.unwrap(), [], "who is inactive must be asked for");
    assert_eq!(client.query::<Vendor>(&active.active_or_not()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn limits_are_told_and_a_batch_makes_each_part_for_itself() {
    let connected = Connected::new().await;
    let vendor = connected.vendor("Partner").await;
    let client = connected.client();
    connected.pass(SignedDuration::from_secs(2));
    let mut throttled = 0;
    for _ in 0..12 {
        throttled += usize::from(client.preferences().await == Err(ApiError::Throttled));
    }
    assert_eq!(throttled, 2, "ten a second");
    connected.pass(SignedDuration::from_secs(2));
    let bodies =
        ["1", "2", "2"].map(|number| serde_json::value::RawValue::from_string(bill(&vendor, number, &["5"])).unwrap());
    let items: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(n, body)| BatchItem::Create { name: n.to_string(), entity: Bill::NAME, body })
        .collect();
    let outcomes = client.batch(&items, "batch-1").await.unwrap();
    let told: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.result.as_ref().map(|part| part.entity::<Bill>().unwrap().doc_number))
        .collect();
    assert!(
        matches!(&told[..], [Ok(Some(one)), Ok(Some(two)), Err(again)] if one == "1" && two == "2" && again.is_code("6140")),
        "{told:?}"
    );
}

#[tokio::test]
async fn webhooks_tell_what_happened_in_both_forms() {
    for legacy_webhooks in [false, true] {
        let connected = Connected::with(Settings { legacy_webhooks, ..Settings::default() }).await;
        let (one, other) = (connected.vendor("One").await, connected.vendor("Other").await);
        connected.counterpart.company(&connected.realm, |company, now| company.merge_vendors(&one.id, &other.id, now));
        let webhooks = connected.counterpart.webhooks(10);
        let [webhook] = &webhooks[..] else { panic!("{webhooks:?}") };
        let body = webhook.body.as_bytes();
        assert!(quickbooks::webhook::is_signed(body, &webhook.signature, &connected.counterpart.settings().verifier));
        let told = quickbooks::webhook::read(body).unwrap().told;
        let last = told.last().unwrap();
        assert_eq!(
            (last.entity.as_str(), last.id.as_str(), last.merged.as_deref()),
            ("vendor", other.id.as_str(), Some(one.id.as_str()))
        );
        assert_eq!(connected.counterpart.webhooks(10), []);
    }
}

/// The counterpart on a port, as another program uses it.
#[tokio::test]
async fn what_befalls_a_company_is_switched_over_http() {
    let settings = Settings { limits: false, ..Settings::default() };
    let counterpart = Counterpart::new(settings.clone(), Arc::new(Timestamp::now));
    let (listener, address) = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let served = tokio::spawn(serve(listener, counterpart.clone()));
    let outbound = Outbound::loopback(Limits::API).unwrap();
    let base = format!("http://{address}");
    let app = App { client_id: settings.client_id, client_secret: Secret::new(settings.client_secret) };
    let sign_in = SignIn { outbound: outbound.clone(), endpoints: Endpoints::under(&base), app };
    let now = Timestamp::now();
    let tokens = sign_in.exchange(&counterpart.consent(&settings.realm, REDIRECT), REDIRECT, now).await.unwrap();
    let company = Company { environment: Environment(base.clone()), realm: settings.realm.clone() };
    let client = Client::new(outbound.clone(), company, tokens.access.clone());
    let switch = async |path: &str, body: &str| {
        let request = http::Request::post(format!("{base}{path}")).header("content-type", "application/json");
        outbound.call(request.body(body.to_owned().into()).unwrap()).await.unwrap().status().as_u16()
    };
    let vendor = serde_json::to_string(&Vendor { display_name: "One".to_owned(), ..Vendor::default() }).unwrap();
    let vendor = client.create::<Vendor>(&vendor, "v").await.unwrap().of;
    let make = async |number: &str| client.create::<Bill>(&bill(&vendor, number, &["1"]), number).await.map(drop);
    assert_eq!(switch("/_company", r#"{"booksClosed":"2999-12-31"}"#).await, 200);
    assert!(make("1").await.is_err_and(|error| error.is_code("6210")));
    assert_eq!(switch("/_company", r#"{"booksClosed":"","suspended":true}"#).await, 200);
    assert!(matches!(make("2").await, Err(ApiError::Suspended(_))));
    assert_eq!(switch("/_company", r#"{"suspended":false}"#).await, 200);
    assert_eq!(make("3").await, Ok(()));
    assert_eq!(switch("/_company", &format!(r#"{{"inactive":"{}"}}"#, vendor.id)).await, 200);
    assert!(make("4").await.is_err_and(|error| error.is_code("610")));
    for (body, status) in [
        (r#"{"inactive":"1"}"#, 409),
        (r#"{"realm":"1"}"#, 404),
        (r#"{"booksClosed":"soon"}"#, 400),
        (r#"{"odd":1}"#, 422),
    ] {
        assert_eq!(switch("/_company", body).await, status, "{body}");
    }
    assert_eq!(switch("/_revoke", "").await, 200);
    assert_eq!(make("5").await, Err(ApiError::Unauthorized));
    assert_eq!(sign_in.refresh(&tokens.refresh, now).await, Err(SignInError::InvalidGrant));
    served.abort();
}

#[tokio::test]
async fn webhooks_come_twice_and_late_when_told_to() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = {
        let heard = Arc::clone(&heard);
        move |body: String| {
            heard.lock().unwrap().push(body);
            std::future::ready(())
        }
    };
    let router = axum::Router::new().route("/", axum::routing::post(hear));
    let (listener, address) = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let listening = tokio::spawn(axum::serve(listener, router).into_future());
    let connected = Connected::with(Settings { limits: false, ..Settings::default() }).await;
    connected.counterpart.fail(Faults { seed: 1, webhook_twice: 1.0, webhook_late: 0.5, ..Faults::default() });
    for name in ["One", "Two", "Three"] {
        for _ in 0..4 {
            connected.counterpart.company(&connected.realm, |company, now| {
                let name = format!("{name} {}", company.all("Vendor").count());
                company.write("vendor", &serde_json::json!({"DisplayName": name}), None, None, now).unwrap();
            });
        }
    }
    let telling = tokio::spawn(notify(connected.counterpart.clone(), format!("http://{address}/")));
    let mut told = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..100 {
        told.clear();
        for body in heard.lock().unwrap().iter() {
            *told.entry(body.clone()).or_default() += 1;
        }
        if told.len() == 2 && told.values().all(|times| *times >= 2) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    telling.abort();
    listening.abort();
    assert!(told.len() == 2 && told.values().all(|times| *times >= 2), "{:?}", told.values().collect::<Vec<_>>());
}
