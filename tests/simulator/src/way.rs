//! The ways out: others run before each call and after it, calls are struck, and a function can end there. This is the way to QuickBooks.

mod paypal;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use jiff::Timestamp;
use outbound::{CallError, Limits, Outbound, Transport};
use quickbooks_counterpart::{Blow, Counterpart};
use workflows::Clock;
use workflows::quickbooks::{Pace, Quickbooks};
use workflows::rails::Rails;

use crate::clock::WorldClock;
use crate::cloud::{Sky, give_way};

pub use paypal::WayToPaypal;

/// Where nobody listens: calls are carried there by [`Way`] and [`WayToPaypal`], or not at all.
const NOWHERE: &str = "http://127.0.0.1:1";

/// What went out since somebody last asked.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Something was written, or tried to be.
    pub wrote: bool,
    /// What was refused though nothing there speaks against it.
    pub refused: Vec<String>,
}

#[derive(Clone)]
pub struct Way {
    counterpart: Counterpart,
    sky: Sky,
    traffic: Arc<Mutex<Traffic>>,
    /// Whether companies know a document number again, so that a request which comes twice makes one Bill.
    unique: bool,
}

impl Way {
    pub fn new(counterpart: Counterpart, sky: Sky, unique: bool) -> Self {
        Self { counterpart, sky, traffic: Arc::default(), unique }
    }

    pub fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ways out of one process, whose clock may be off.
    pub fn rails(&self, clock: WorldClock, pace: Pace, paypal: &WayToPaypal) -> Rails {
        let wire_clock = Arc::new(move || -> Timestamp { clock.now() });
        let outbound = Outbound::over(self.clone(), Limits::API);
        Rails {
            paypal: paypal.rail(),
            quickbooks: Quickbooks::new(outbound, Some(NOWHERE.to_owned()), wire_clock, pace),
        }
    }

    /// What befalls a call, if anything does.
    fn befalls(&self, request: &Request<Bytes>) -> Option<Blow> {
        let mut weather = self.sky.weather();
        let (signs_in, writes) = (request.uri().path().contains("/oauth2/"), request.method() == Method::POST);
        // Calls there are few, and those that make something fewer.
        let odds = if writes { weather.odds * 6 } else { weather.odds };
        if !weather.chance.permille(odds) {
            return None;
        }
        let lower_case = weather.chance.percent(50);
        let mut possible: Vec<(u32, &'static str, Blow)> = vec![
            (2, "there_unreachable", Blow::Unreachable),
            (2, "there_lost", Blow::LostBefore),
            (2, "there_page", Blow::PageBefore),
            (2, "there_throttled", Blow::Throttled),
        ];
        if signs_in {
            possible.push((1, "there_lost_after", Blow::LostAfter));
            possible.push((1, "there_ended", Blow::InvalidGrant));
        } else {
            possible.push((2, "there_token_ended", Blow::Unauthorized { lower_case }));
        }
        if !signs_in && writes {
            possible.extend([
                (5, "there_lost_after", Blow::LostAfter),
                (4, "there_page_after", Blow::PageAfter),
                (3, "there_refused", Blow::Refused("6000")),
                (1, "there_refused", Blow::Refused("6210")),
                (2, "there_failed", Blow::Refused("10000")),
            ]);
            if self.unique {
                possible.push((5, "there_twice", Blow::Twice));
            }
        }
        let weights: Vec<(u32, usize)> = possible.iter().enumerate().map(|(n, (weight, ..))| (*weight, n)).collect();
        let (_, name, blow) = possible.swap_remove(weather.chance.weighted(&weights)?);
        weather.note(name);
        weather.struck_here += 1;
        Some(blow)
    }
}

impl Transport for Way {
    fn call(&self, request: Request<Bytes>, _: Limits) -> BoxFuture<'_, Result<Response<Bytes>, CallError>> {
        Box::pin(async move {
            give_way().await;
            let blow = self.befalls(&request);
            {
                let mut traffic = self.traffic();
                traffic.wrote |= request.method() == Method::POST;
                if let Some(Blow::Refused("6000" | "6210")) = blow {
                    traffic.refused.push(String::from_utf8_lossy(request.body()).into_owned());
                }
            }
            let answer = match blow {
                Some(blow) => self.counterpart.answer_struck(blow, &request),
                None => self.counterpart.answer(&request),
            };
            give_way().await;
            answer.map_err(CallError::from)
        })
    }
}
