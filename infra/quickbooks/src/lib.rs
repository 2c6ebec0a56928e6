//! A counterpart of QuickBooks Online: what Intuit's documentation says it does, and what its users say it does to them.
//!
//! It is one state machine, [`Counterpart`], that answers requests at a time it is told. The program of this crate serves it on a port;
//! in process it is a [`Transport`], so that calls to it need no network. Faults strike by chance from a seed, before or after a request
//! had its effect; or one befalls just that request which is named.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod company;
mod fault;
mod query;
pub mod server;
mod sign_in;
mod strike;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use outbound::{CallError, Limits, Transport};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::company::{Company, Happened, shown};
use crate::fault::{Refusal, unauthorized};
use crate::sign_in::{Opens, SignIns, Tokens};
use crate::strike::{Watch, refusal, step_of};

pub use crate::strike::{Act, Blow, Exchange, Strike};

/// Requests a second, and a minute, of one company.
const PER_SECOND: usize = 10;
const PER_MINUTE: usize = 500;
const MAX_BATCH: usize = 30;

/// What goes wrong, each as a probability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    pub seed: u64,
    /// The connection breaks before the request did anything.
    pub lost_before_apply: f64,
    /// It breaks after: what was asked is done, and nobody is told.
    pub lost_after_apply: f64,
    /// A page of a server on the way, before or after.
    pub server_error: f64,
    /// Too many requests, whatever their number.
    pub throttle: f64,
    /// The access token has just ended.
    pub expire_token: f64,
    /// Somebody else changes what is about to be changed.
    pub stale_sync: f64,
    /// A webhook comes twice.
    pub webhook_twice: f64,
    /// A webhook waits for another round, and others overtake it.
    pub webhook_late: f64,
}

impl Faults {
    /// The first that is no probability.
    pub fn wrong(&self) -> Option<&'static str> {
        [
            ("lostBeforeApply", self.lost_before_apply),
            ("lostAfterApply", self.lost_after_apply),
            ("serverError", self.server_error),
            ("throttle", self.throttle),
            ("expireToken", self.expire_token),
            ("staleSync", self.stale_sync),
            ("webhookTwice", self.webhook_twice),
            ("webhookLate", self.webhook_late),
        ]
        .into_iter()
        .find_map(|(name, odds)| (!(0.0..=1.0).contains(&odds)).then_some(name))
    }
}

/// How the counterpart is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub client_id: String,
    pub client_secret: String,
    /// Whoever consents does so for this company.
    pub realm: String,
    pub currency: String,
    /// Signs webhooks.
    pub verifier: String,
    /// Whether the limits of requests hold.
    pub limits: bool,
    /// Whether a request id that was used before is answered as before.
    pub remembers_requests: bool,
    /// Webhooks in the former form.
    pub legacy_webhooks: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_id: "counterpart-client".to_owned(),
            client_secret: "counterpart-secret".to_owned(),
            realm: "9130000000000001".to_owned(),
            currency: "USD".to_owned(),
            verifier: "counterpart-verifier".to_owned(),
            limits: true,
            remembers_requests: true,
            legacy_webhooks: false,
        }
    }
}

struct State {
    settings: Settings,
    companies: BTreeMap<String, Company>,
    sign_ins: SignIns,
    faults: Faults,
    chance: fastrand::Rng,
    /// By company and request id: what was asked, and what was answered.
    requests: BTreeMap<(String, String), (Vec<u8>, u16, Value)>,
    /// When each company's latest requests were.
    recent: BTreeMap<String, VecDeque<Timestamp>>,
    tids: u64,
    notified: u64,
    watch: Option<Watch>,
}

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// QuickBooks Online. Cheap to clone: every clone is the same.
#[derive(Clone)]
pub struct Counterpart {
    state: Arc<Mutex<State>>,
    clock: Clock,
    /// What codes and tokens live by.
    sign_in_clock: Clock,
}

impl std::fmt::Debug for Counterpart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counterpart").finish_non_exhaustive()
    }
}

/// What becomes of a request.
#[derive(Debug)]
enum Outcome {
    Answer(StatusCode, Value),
    /// Something other than JSON: a page, or a way to go on.
    Page(Response<Bytes>),
    /// No answer comes.
    Unanswered(Unanswered),
}

/// Why no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// There was no connection, so nothing was asked.
    Unreachable,
    /// The connection broke, and nobody knows.
    Lost,
}

impl From<Unanswered> for CallError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Unreachable => Self::NotSent("nobody listens".to_owned()),
            Unanswered::Lost => Self::Unknown("the connection broke".to_owned()),
        }
    }
}

/// A webhook, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub body: String,
    pub signature: String,
}

impl Counterpart {
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let company = Company::new(&settings.realm, &settings.currency, clock());
        let state = State {
            companies: BTreeMap::from([(settings.realm.clone(), company)]),
            settings,
            sign_ins: SignIns::default(),
            faults: Faults::default(),
            chance: fastrand::Rng::with_seed(0),
            requests: BTreeMap::new(),
            recent: BTreeMap::new(),
            tids: 0,
            notified: 0,
            watch: None,
        };
        Self { state: Arc::new(Mutex::new(state)), sign_in_clock: Arc::clone(&clock), clock }
    }

    /// With another clock for codes and tokens: where the books' time is moved by hand, these live by the wall clock.
    #[must_use]
    pub fn signing_in_by(self, clock: Clock) -> Self {
        Self { sign_in_clock: clock, ..self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in one request leaves the books as they were in the middle of it; there is no better answer than to go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another company that may be connected.
    pub fn open_company(&self, realm: &str, currency: &str) {
        let company = Company::new(realm, currency, (self.clock)());
        self.state().companies.insert(realm.to_owned(), company);
    }

    /// The person who consented loses access, or takes it back: no token is good any more.
    pub fn revoke_all(&self) {
        self.state().sign_ins.revoke_all();
    }

    /// All access tokens end now, and each next refresh gives out another refresh token: whoever then uses the one before ends the connection.
    pub fn expire_all(&self) {
        self.state().sign_ins.expire_all();
    }

    /// No request id that was used so far is known again.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// All companies' books, to be opened again. Who is connected to them is not kept.
    pub fn books(&self) -> Vec<u8> {
        let kept: Vec<_> = self.state().companies.values().map(Company::kept).collect();
        json!(kept).to_string().into_bytes()
    }

    /// Opens books that were kept; what are none changes nothing.
    pub fn open_books(&self, books: &[u8]) {
        let Ok(kept) = serde_json::from_slice::<Vec<Value>>(books) else { return };
        let now = (self.clock)();
        let opened = kept.iter().filter_map(|company| Company::opened(company, now));
        self.state().companies.extend(opened.map(|company| (company.realm.clone(), company)));
    }

    pub fn fail(&self, faults: Faults) {
        let mut state = self.state();
        state.chance = fastrand::Rng::with_seed(faults.seed);
        state.faults = faults;
    }

    /// From now on requests are kept, and these befall some of them.
    pub fn watch(&self, strikes: Vec<Strike>) {
        self.state().watch = Some(Watch::over(strikes));
    }

    /// What came since it is watched.
    pub fn seen(&self) -> Vec<Exchange> {
        self.state().watch.as_ref().map(|watch| watch.seen.clone()).unwrap_or_default()
    }

    /// What has befallen nothing yet.
    pub fn pending(&self) -> Vec<Strike> {
        self.state().watch.as_ref().map(|watch| watch.strikes.clone()).unwrap_or_default()
    }

    pub fn settings(&self) -> Settings {
        self.state().settings.clone()
    }

    /// Looks at a company, or does something in it, as somebody who sits before it.
    pub fn company<T>(&self, realm: &str, act: impl FnOnce(&mut Company, Timestamp) -> T) -> Option<T> {
        let now = (self.clock)();
        self.state().companies.get_mut(realm).map(|company| act(company, now))
    }

    /// Somebody consents at once, for whoever drives this without a browser: the code they come back with.
    pub fn consent(&self, realm: &str, redirect: &str) -> String {
        let now = (self.sign_in_clock)();
        self.state().sign_ins.consent(realm, redirect, now)
    }

    /// What happened since this was last asked, as webhooks of at most `size` events. Companies may be mixed.
    pub fn webhooks(&self, size: usize) -> Vec<Webhook> {
        let mut state = self.state();
        let mut events = Vec::new();
        for company in state.companies.values_mut() {
            let realm = company.realm.clone();
            events.extend(company.happened.drain(..).map(|happened| (realm.clone(), happened)));
        }
        events.chunks(size.max(1)).map(|events| state.webhook(events)).collect()
    }

    /// What befalls a webhook on its way: whether it comes late, and whether it comes twice.
    pub fn delivery(&self) -> (bool, bool) {
        let mut state = self.state();
        let Faults { webhook_late, webhook_twice, .. } = state.faults;
        (state.strikes(webhook_late), state.strikes(webhook_twice))
    }

    /// Answers a request.
    pub fn answer(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        self.answer_by(|state, now, sign_in_now| state.watched(request, now, sign_in_now))
    }

    /// Answers a request that something befalls.
    pub fn answer_struck(&self, blow: Blow, request: &Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        self.answer_by(|state, now, sign_in_now| state.struck(blow, request, now, sign_in_now))
    }

    fn answer_by(
        &self,
        become_of: impl FnOnce(&mut State, Timestamp, Timestamp) -> Outcome,
    ) -> Result<Response<Bytes>, Unanswered> {
        let now = (self.clock)();
        let mut state = self.state();
        state.tids += 1;
        let tid = format!("1-{:08x}-{:024x}", now.as_second(), state.tids);
        let outcome = become_of(&mut state, now, (self.sign_in_clock)());
        let mut response = match outcome {
            Outcome::Unanswered(why) => return Err(why),
            Outcome::Page(response) => response,
            Outcome::Answer(status, body) => {
                let mut response = Response::new(Bytes::from(body.to_string()));
                *response.status_mut() = status;
                response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
                response
            }
        };
        if let Ok(tid) = tid.parse() {
            response.headers_mut().insert("intuit_tid", tid);
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            let value = http::HeaderValue::from_static("Bearer realm=\"Intuit\", error=\"invalid_token\"");
            response.headers_mut().insert("www-authenticate", value);
        }
        Ok(response)
    }
}

impl Transport for Counterpart {
    fn call(&self, request: Request<Bytes>, _: Limits) -> BoxFuture<'_, Result<Response<Bytes>, CallError>> {
        let answer = self.answer(&request);
        Box::pin(async move { answer.map_err(CallError::from) })
    }
}

fn parameters(text: &[u8]) -> BTreeMap<String, String> {
    form_urlencoded::parse(text).into_owned().collect()
}

/// The access token that a request comes with.
fn bearer(request: &Request<Bytes>) -> String {
    let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned()
}

const BAD_GATEWAY: &str = "<html><body><h1>502 Bad Gateway</h1></body></html>";
const GATEWAY_TIMEOUT: &str = "<html><body><h1>504 Gateway Time-out</h1></body></html>";

/// What came of a call to a company.
fn told(answered: Result<Value, Refusal>, now: Timestamp) -> Outcome {
    match answered {
        Ok(mut body) => {
            body["time"] = json!(shown(now));
            Outcome::Answer(StatusCode::OK, body)
        }
        // The subscription's end comes with a 200.
        Err(refusal) if refusal.code == "6190" => Outcome::Answer(StatusCode::OK, refusal.body(&shown(now))),
        Err(refusal) => Outcome::Answer(refusal.status, refusal.body(&shown(now))),
    }
}

fn page(status: StatusCode, html: &str) -> Outcome {
    let mut response = Response::new(Bytes::copy_from_slice(html.as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/html"));
    Outcome::Page(response)
}

impl State {
    fn strikes(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.chance.f64() < probability
    }

    fn watched(&mut self, request: &Request<Bytes>, now: Timestamp, sign_in_now: Timestamp) -> Outcome {
        let Some(watch) = &mut self.watch else { return self.answer(request, now, sign_in_now) };
        let step = step_of(request);
        let outcome = match watch.next(&step) {
            Some(blow) => self.struck(blow, request, now, sign_in_now),
            None => self.answer(request, now, sign_in_now),
        };
        let sent = serde_json::from_slice(request.body()).unwrap_or_default();
        let (status, answered) = match &outcome {
            Outcome::Answer(status, body) => (Some(status.as_u16()), body.clone()),
            Outcome::Page(page) => (Some(page.status().as_u16()), Value::Null),
            Outcome::Unanswered(_) => (None, Value::Null),
        };
        if let Some(watch) = &mut self.watch {
            watch.seen.push(Exchange { step, at: now, sent, answered, status });
        }
        outcome
    }

    fn struck(&mut self, blow: Blow, request: &Request<Bytes>, now: Timestamp, sign_in_now: Timestamp) -> Outcome {
        let signs_in = request.uri().path().contains("/oauth2/");
        match blow {
            Blow::Unreachable => Outcome::Unanswered(Unanswered::Unreachable),
            Blow::LostBefore => Outcome::Unanswered(Unanswered::Lost),
            Blow::LostAfter => {
                self.answer(request, now, sign_in_now);
                Outcome::Unanswered(Unanswered::Lost)
            }
            Blow::PageBefore => page(StatusCode::BAD_GATEWAY, BAD_GATEWAY),
            Blow::PageAfter => {
                self.answer(request, now, sign_in_now);
                page(StatusCode::GATEWAY_TIMEOUT, GATEWAY_TIMEOUT)
            }
            Blow::Throttled if signs_in => page(StatusCode::TOO_MANY_REQUESTS, ""),
            Blow::Throttled => told(Err(Refusal::throttled()), now),
            Blow::Unauthorized { .. } if signs_in => {
                Outcome::Answer(StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"}))
            }
            Blow::InvalidGrant if signs_in => {
                Outcome::Answer(StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}))
            }
            Blow::Unauthorized { lower_case } => self.ended(request, lower_case, now),
            Blow::InvalidGrant => self.ended(request, true, now),
            Blow::Refused(code) => told(Err(refusal(code)), now),
            Blow::Twice => {
                self.answer(request, now, sign_in_now);
                self.requests.clear();
                self.answer(request, now, sign_in_now)
            }
            Blow::Meanwhile(act) => {
                for company in self.companies.values_mut() {
                    act(company, now);
                }
                self.answer(request, now, sign_in_now)
            }
        }
    }

    /// The request's access token has just ended.
    fn ended(&mut self, request: &Request<Bytes>, lower_case: bool, now: Timestamp) -> Outcome {
        self.sign_ins.expire(&bearer(request));
        Outcome::Answer(StatusCode::UNAUTHORIZED, unauthorized(lower_case, now.as_millisecond(), &shown(now)))
    }

    fn answer(&mut self, request: &Request<Bytes>, now: Timestamp, sign_in_now: Timestamp) -> Outcome {
        let path = request.uri().path();
        let query = parameters(request.uri().query().unwrap_or_default().as_bytes());
        match path {
            "/connect/oauth2" => self.consent_page(&query, sign_in_now),
            "/oauth2/v1/tokens/bearer" => self.token(request, sign_in_now),
            "/v2/oauth2/tokens/revoke" => self.revoke(request),
            "/.well-known/openid_configuration" | "/.well-known/openid_sandbox_configuration" => {
                Outcome::Answer(StatusCode::OK, discovery(request))
            }
            _ => match path.strip_prefix("/v3/company/").and_then(|rest| rest.split_once('/')) {
                Some((realm, rest)) => {
                    let token = bearer(request);
                    if self.strikes(self.faults.expire_token) {
                        self.sign_ins.expire(&token);
                    }
                    let opens = self.sign_ins.opens(&token, realm, sign_in_now);
                    self.company_call(opens, (realm, rest), &query, request, now)
                }
                None => page(StatusCode::NOT_FOUND, "<html><body><h1>404 Not Found</h1></body></html>"),
            },
        }
    }

    // --- Sign-in --------------------------------------------------------------------------------------------------

    /// Whoever comes here consents; a person would have been asked.
    fn consent_page(&mut self, query: &BTreeMap<String, String>, now: Timestamp) -> Outcome {
        let field = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let (redirect, state) = (field("redirect_uri"), field("state"));
        let known =
            field("client_id") == self.settings.client_id && field("response_type") == "code" && !redirect.is_empty();
        if !known {
            return page(
                StatusCode::BAD_REQUEST,
                "<html><body><p>Sorry, we cannot connect this app.</p></body></html>",
            );
        }
        let realm = query.get("realm").cloned().unwrap_or_else(|| self.settings.realm.clone());
        let code = self.sign_ins.consent(&realm, redirect, now);
        let answer: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("code", &code)
            .append_pair("state", state)
            .append_pair("realmId", &realm)
            .finish();
        let separator = if redirect.contains('?') { '&' } else { '?' };
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::FOUND;
        if let Ok(location) = format!("{redirect}{separator}{answer}").parse() {
            response.headers_mut().insert("location", location);
        }
        Outcome::Page(response)
    }

    fn is_our_client(&self, request: &Request<Bytes>) -> bool {
        let expected = STANDARD.encode(format!("{}:{}", self.settings.client_id, self.settings.client_secret));
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        given.strip_prefix("Basic ") == Some(expected.as_str())
    }

    fn token(&mut self, request: &Request<Bytes>, now: Timestamp) -> Outcome {
        if !self.is_our_client(request) {
            return Outcome::Answer(StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"}));
        }
        if self.strikes(self.faults.lost_before_apply) {
            return Outcome::Unanswered(Unanswered::Lost);
        }
        let form = parameters(request.body());
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let given = match field("grant_type") {
            "authorization_code" => self.sign_ins.exchange(field("code"), field("redirect_uri"), now),
            "refresh_token" => self.sign_ins.refresh(field("refresh_token"), now),
            _ => return Outcome::Answer(StatusCode::BAD_REQUEST, json!({"error": "unsupported_grant_type"})),
        };
        if self.strikes(self.faults.lost_after_apply) {
            return Outcome::Unanswered(Unanswered::Lost);
        }
        if self.strikes(self.faults.server_error) {
            return page(StatusCode::SERVICE_UNAVAILABLE, "<html><body>Service Unavailable</body></html>");
        }
        let Ok(Tokens { access, refresh, expires_in, refresh_expires_in, consent_expires_in }) = given else {
            return Outcome::Answer(StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}));
        };
        let mut answer = json!({
            "token_type": "bearer", "access_token": access, "expires_in": expires_in, "refresh_token": refresh,
            "x_refresh_token_expires_in": refresh_expires_in,
        });
        if request.headers().contains_key("x-include-refresh-token-hard-expires-in") {
            answer["x_refresh_token_hard_expires_in"] = json!(consent_expires_in);
        }
        Outcome::Answer(StatusCode::OK, answer)
    }

    fn revoke(&mut self, request: &Request<Bytes>) -> Outcome {
        if !self.is_our_client(request) {
            return Outcome::Answer(StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"}));
        }
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let known = self.sign_ins.revoke(body["token"].as_str().unwrap_or_default());
        let status = if known { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        Outcome::Answer(status, json!({}))
    }

    // --- Books ----------------------------------------------------------------------------------------------------

    fn company_call(
        &mut self,
        opens: Opens,
        (realm, rest): (&str, &str),
        query: &BTreeMap<String, String>,
        request: &Request<Bytes>,
        now: Timestamp,
    ) -> Outcome {
        match opens {
            Opens::Yes => {}
            Opens::Elsewhere => return told(Err(Refusal::not_connected()), now),
            Opens::No => {
                let lower_case = self.tids.is_multiple_of(2);
                return Outcome::Answer(
                    StatusCode::UNAUTHORIZED,
                    unauthorized(lower_case, now.as_millisecond(), &shown(now)),
                );
            }
        }
        if self.strikes(self.faults.throttle) || self.is_over_limit(realm, now) {
            return told(Err(Refusal::throttled()), now);
        }
        if self.strikes(self.faults.lost_before_apply) {
            return Outcome::Unanswered(Unanswered::Lost);
        }
        let before = self.strikes(self.faults.server_error);
        if before && self.chance.bool() {
            return page(StatusCode::BAD_GATEWAY, BAD_GATEWAY);
        }
        let answered = self.once(realm, rest, query, request, now);
        if before {
            return page(StatusCode::GATEWAY_TIMEOUT, GATEWAY_TIMEOUT);
        }
        if self.strikes(self.faults.lost_after_apply) {
            return Outcome::Unanswered(Unanswered::Lost);
        }
        told(answered, now)
    }

    fn is_over_limit(&mut self, realm: &str, now: Timestamp) -> bool {
        if !self.settings.limits {
            return false;
        }
        let recent = self.recent.entry(realm.to_owned()).or_default();
        let minute_ago = now - SignedDuration::from_secs(60);
        while recent.front().is_some_and(|at| *at <= minute_ago) {
            recent.pop_front();
        }
        let second_ago = now - SignedDuration::from_secs(1);
        let within_second = recent.iter().rev().take_while(|at| **at > second_ago).count();
        if recent.len() >= PER_MINUTE || within_second >= PER_SECOND {
            return true;
        }
        recent.push_back(now);
        false
    }

    /// A request id that was used for the same is answered as it was; used for something else, it is refused.
    fn once(
        &mut self,
        realm: &str,
        rest: &str,
        query: &BTreeMap<String, String>,
        request: &Request<Bytes>,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let id =
            query.get("requestid").filter(|_| request.method() == Method::POST && self.settings.remembers_requests);
        let content = || Sha256::digest([rest.as_bytes(), b"\n", request.body()].concat()).to_vec();
        let key = id.map(|id| (realm.to_owned(), id.clone()));
        if let Some(key) = &key {
            if key.1.chars().count() > 50 {
                return Err(Refusal::length("requestid", 50));
            }
            if let Some((asked, _, answered)) = self.requests.get(key) {
                return if *asked == content() { Ok(answered.clone()) } else { Err(Refusal::duplicate_request()) };
            }
        }
        let stale = self.strikes(self.faults.stale_sync);
        let company = self.companies.get_mut(realm).ok_or_else(Refusal::not_connected)?;
        if company.suspended {
            return Err(Refusal::subscription());
        }
        let answered = dispatch(company, rest, query, request, stale, now)?;
        if let Some(key) = key {
            self.requests.insert(key, (content(), 200, answered.clone()));
        }
        Ok(answered)
    }

    // --- Webhooks -------------------------------------------------------------------------------------------------

    fn webhook(&mut self, events: &[(String, Happened)]) -> Webhook {
        let body = if self.settings.legacy_webhooks { legacy(events) } else { self.cloud_events(events) };
        let body = body.to_string();
        let mut signature = String::new();
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.settings.verifier.as_bytes()) {
            mac.update(body.as_bytes());
            signature = STANDARD.encode(mac.finalize().into_bytes());
        }
        Webhook { body, signature }
    }

    fn cloud_events(&mut self, events: &[(String, Happened)]) -> Value {
        let told = events.iter().map(|(realm, happened)| {
            self.notified += 1;
            let operation = match happened.operation {
                "Create" => "created",
                "Update" => "updated",
                "Delete" => "deleted",
                "Merge" => "merged",
                _ => "void",
            };
            let data = happened.merged.as_ref().map_or(json!({}), |merged| json!({"deletedid": merged}));
            json!({
                "specversion": "1.0", "id": format!("{:032x}", self.notified), "source": "intuit.counterpart",
                "type": format!("qbo.{}.{operation}.v1", happened.entity.to_lowercase()), "datacontenttype": "application/json",
                "time": happened.at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(), "intuitentityid": happened.id,
                "intuitaccountid": realm, "data": data,
            })
        });
        told.collect()
    }
}

fn legacy(events: &[(String, Happened)]) -> Value {
    let mut realms: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (realm, happened) in events {
        let mut entity = json!({
            "name": happened.entity, "id": happened.id, "operation": happened.operation,
            "lastUpdated": happened.at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string(),
        });
        if let Some(merged) = &happened.merged {
            entity["deletedId"] = json!(merged);
        }
        realms.entry(realm).or_default().push(entity);
    }
    let told = realms
        .into_iter()
        .map(|(realm, entities)| json!({"realmId": realm, "dataChangeEvent": {"entities": entities}}));
    json!({"eventNotifications": told.collect::<Vec<_>>()})
}

fn discovery(request: &Request<Bytes>) -> Value {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    let base = format!("http://{host}");
    json!({
        "issuer": base, "authorization_endpoint": format!("{base}/connect/oauth2"),
        "token_endpoint": format!("{base}/oauth2/v1/tokens/bearer"), "userinfo_endpoint": format!("{base}/v1/openid_connect/userinfo"),
        "revocation_endpoint": format!("{base}/v2/oauth2/tokens/revoke"), "jwks_uri": format!("{base}/op/v1/jwks"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"], "scopes_supported": ["openid", "email", "profile", "address", "phone"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "claims_supported": ["aud", "exp", "iat", "iss", "realmid", "sub"],
    })
}

fn dispatch(
    company: &mut Company,
    rest: &str,
    query: &BTreeMap<String, String>,
    request: &Request<Bytes>,
    stale: bool,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let field = |name: &str| query.get(name).map(String::as_str);
    let body = || serde_json::from_slice::<Value>(request.body()).map_err(|_| Refusal::missing("body"));
    let mut parts = rest.split('/');
    let (entity, id) = (parts.next().unwrap_or_default(), parts.next());
    match (request.method(), entity, id) {
        (&Method::GET, "query", None) => company.query(field("query").unwrap_or_default()),
        (&Method::POST, "query", None) => company.query(std::str::from_utf8(request.body()).unwrap_or_default()),
        (&Method::GET, "cdc", None) => {
            company.changes(field("entities").unwrap_or_default(), field("changedSince").unwrap_or_default(), now)
        }
        (&Method::POST, "batch", None) => batch(company, &body()?, now),
        (&Method::GET, entity, Some(id)) => company.read(entity, id),
        (&Method::POST, entity, None) => {
            let body = body()?;
            if stale && !body["Id"].is_null() {
                return Err(Refusal::stale());
            }
            company.write(entity, &body, field("operation"), field("include"), now)
        }
        _ => Err(Refusal::unsupported("operation")),
    }
}

/// Each for itself, in no order that anybody may count on.
fn batch(company: &mut Company, body: &Value, now: Timestamp) -> Result<Value, Refusal> {
    let items = body["BatchItemRequest"].as_array().cloned().unwrap_or_default();
    if items.len() > MAX_BATCH {
        return Err(Refusal::invalid("BatchItemRequest", "has more than 30 items"));
    }
    let answers = items.into_iter().map(|item| {
        let done = if let Some(query) = item["Query"].as_str() {
            company.query(query)
        } else {
            let fields = item.as_object().into_iter().flatten();
            let entity = fields.into_iter().find(|(name, value)| value.is_object() && *name != "bId");
            match entity {
                Some((name, value)) => company.write(
                    name,
                    value,
                    item["operation"].as_str().filter(|operation| *operation != "create"),
                    None,
                    now,
                ),
                None => Err(Refusal::missing("BatchItemRequest")),
            }
        };
        let mut answer = done.unwrap_or_else(|refusal| refusal.fault());
        answer["bId"] = item["bId"].clone();
        answer
    });
    Ok(json!({"BatchItemResponse": answers.collect::<Vec<_>>()}))
}
