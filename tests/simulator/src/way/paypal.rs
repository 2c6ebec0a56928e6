//! The way to PayPal: as that to QuickBooks, others run before each call and after it, calls are struck, and a function can end there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use outbound::{CallError, Limits, Outbound, Transport};
use paypal_counterpart::Counterpart;
use serde_json::json;
use workflows::rails::Paypal;

use super::{NOWHERE, Traffic};
use crate::cloud::{Sky, give_way};

#[derive(Clone)]
pub struct WayToPaypal {
    counterpart: Counterpart,
    sky: Sky,
    traffic: Arc<Mutex<Traffic>>,
}

/// What befalls a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// Nothing is sent.
    Unreachable,
    /// The connection breaks before anything is done, or after.
    Lost,
    LostAfter,
    /// A server fails before anything is done, or after.
    Failed,
    FailedAfter,
    Throttled,
    TokenEnded,
    /// For good, for no reason that can be seen in what was asked.
    Refused,
    /// Something on the way sends it once more, and only the second answer arrives.
    Twice,
}

impl WayToPaypal {
    pub fn new(counterpart: Counterpart, sky: Sky) -> Self {
        Self { counterpart, sky, traffic: Arc::default() }
    }

    pub fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way out of one process.
    pub fn rail(&self) -> Paypal {
        Paypal::new(Outbound::over(self.clone(), Limits::API), Some(NOWHERE.to_owned()))
    }

    /// What befalls a call, if anything does.
    fn befalls(&self, request: &Request<Bytes>) -> Option<Blow> {
        let mut weather = self.sky.weather();
        let (path, posts) = (request.uri().path(), request.method() == Method::POST);
        let pays = posts && path.ends_with("/payouts");
        // Calls there are few, and those that pay fewer.
        let odds = if pays { weather.odds * 6 } else { weather.odds };
        if !weather.chance.permille(odds) {
            return None;
        }
        let mut possible = vec![
            (2, ("paypal_unreachable", Blow::Unreachable)),
            (2, ("paypal_lost", Blow::Lost)),
            (2, ("paypal_failed", Blow::Failed)),
            (2, ("paypal_throttled", Blow::Throttled)),
        ];
        if !path.contains("/oauth2/") {
            possible.push((2, ("paypal_token_ended", Blow::TokenEnded)));
        }
        if pays {
            possible.extend([
                (6, ("paypal_lost_after", Blow::LostAfter)),
                (5, ("paypal_failed_after", Blow::FailedAfter)),
                (4, ("paypal_refused", Blow::Refused)),
                (5, ("paypal_twice", Blow::Twice)),
            ]);
        }
        let (name, blow) = weather.chance.weighted(&possible)?;
        weather.note(name);
        weather.struck_here += 1;
        Some(blow)
    }

    /// A batch that it has taken already it does not refuse.
    async fn refused(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let asked = String::from_utf8_lossy(request.body()).into_owned();
        self.counterpart.refuse(Some(("INSUFFICIENT_FUNDS", "Sender does not have sufficient funds.", 422)));
        let answer = self.carried(request).await;
        self.counterpart.refuse(None);
        if answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::UNPROCESSABLE_ENTITY) {
            self.traffic().refused.push(asked);
        }
        answer
    }

    async fn carried(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        self.counterpart.answer(request).await.ok_or_else(lost)
    }
}

fn lost() -> CallError {
    CallError::Unknown("the connection broke".to_owned())
}

fn problem(status: StatusCode, name: &str) -> Response<Bytes> {
    let body = json!({"name": name, "message": name, "debug_id": "71d8b4a4a6ca4", "details": []});
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response
}

impl Transport for WayToPaypal {
    fn call(&self, request: Request<Bytes>, _: Limits) -> BoxFuture<'_, Result<Response<Bytes>, CallError>> {
        Box::pin(async move {
            give_way().await;
            let blow = self.befalls(&request);
            self.traffic().wrote |= request.method() == Method::POST;
            let failed = |status| Ok(problem(status, "INTERNAL_SERVER_ERROR"));
            let answer = match blow {
                None => self.carried(request).await,
                Some(Blow::Unreachable) => Err(CallError::NotSent("nobody listens".to_owned())),
                Some(Blow::Lost) => Err(lost()),
                Some(Blow::Failed) => failed(StatusCode::INTERNAL_SERVER_ERROR),
                Some(Blow::Throttled) => Ok(problem(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_REACHED")),
                Some(Blow::TokenEnded) => Ok(problem(StatusCode::UNAUTHORIZED, "invalid_token")),
                Some(Blow::Refused) => self.refused(request).await,
                Some(Blow::LostAfter) => self.carried(request).await.and_then(|_| Err(lost())),
                Some(Blow::FailedAfter) => {
                    self.carried(request).await?;
                    failed(StatusCode::SERVICE_UNAVAILABLE)
                }
                Some(Blow::Twice) => {
                    self.carried(request.clone()).await?;
                    self.carried(request).await
                }
            };
            give_way().await;
            answer
        })
    }
}
