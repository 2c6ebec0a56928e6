//! The company in QuickBooks that is connected from the start, and what people do in it.

use std::sync::Arc;

use jiff::Timestamp;
use outbound::{Limits, Outbound, Transport};
use quickbooks_counterpart::Clock;
use quickbooks_counterpart::company::Company;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use workflows::quickbooks::{Pace, Quickbooks};
use workflows::rails::{Paypal, Rails};

use crate::{FINANCE, Plan, Request, World};

/// The company that is connected from the start.
pub const REALM: &str = "9130000000000001";

/// The payout methods of a partner who is paid in QuickBooks.
pub fn in_quickbooks() -> Value {
    json!([{"kind": "quickbooks", "preferred": true}])
}

impl Plan {
    /// The partner is paid in QuickBooks.
    #[must_use]
    pub fn paid_in_quickbooks(self) -> Self {
        self.partner("payoutMethods", in_quickbooks())
    }
}

/// Where nobody listens: calls are carried by a transport, or not at all.
const NOWHERE: &str = "http://127.0.0.1:1";

impl World {
    /// The ways out of another process than the system's, with tokens of its own.
    pub fn another_process(&self) -> Rails {
        self.process_over(self.system.quickbooks.clone(), Arc::new(Timestamp::now))
    }

    /// The same where another clock tells Intuit and us until when tokens are good.
    pub fn process_at(&self, clock: Clock) -> Rails {
        self.process_over(self.system.quickbooks.clone().signing_in_by(Arc::clone(&clock)), clock)
    }

    /// The same over a way of its own.
    pub fn process_over(&self, way: impl Transport + 'static, clock: Clock) -> Rails {
        let paypal = Paypal::new(Outbound::loopback(Limits::API).unwrap(), Some(NOWHERE.to_owned()));
        let outbound = Outbound::over(way, Limits::API);
        Rails { paypal, quickbooks: Quickbooks::new(outbound, Some(NOWHERE.to_owned()), clock, Pace::Unlimited) }
    }

    /// Does something in a company, or looks at it. Its webhooks wait.
    pub fn company<T>(&self, realm: &str, act: impl FnOnce(&mut Company, Timestamp) -> T) -> T {
        self.system.quickbooks.company(realm, act).unwrap()
    }

    /// What somebody does in QuickBooks, told by its webhooks.
    pub async fn there<T>(&self, act: impl FnOnce(&mut Company, Timestamp) -> T) -> T {
        let done = self.company(REALM, act);
        self.settle().await;
        done
    }

    /// All that a company has of a kind of entity.
    pub fn entities(&self, realm: &str, entity: &str) -> Vec<Value> {
        self.company(realm, |company, _| company.all(entity).cloned().collect())
    }

    /// The Bills that name a payout in their memo.
    pub fn bills_of(&self, realm: &str, payout: &Value) -> Vec<Value> {
        let id = payout.as_str().unwrap();
        let mut bills = self.entities(realm, "Bill");
        bills.retain(|bill| bill["PrivateNote"].as_str().is_some_and(|note| note.contains(id)));
        bills
    }

    /// The one Bill of a payout.
    #[track_caller]
    pub fn bill_of(&self, realm: &str, payout: &Value) -> Value {
        let mut bills = self.bills_of(realm, payout);
        assert_eq!(bills.len(), 1, "{bills:?}");
        bills.remove(0)
    }

    #[track_caller]
    pub fn bill_id(&self, payout: &Value) -> String {
        self.bill_of(REALM, payout)["Id"].as_str().unwrap().to_owned()
    }

    /// Somebody pays a payout's Bill: all that is open, or a part. The payment's id.
    pub async fn pay_bill(&self, payout: &Value, part: Option<i64>) -> String {
        let bill = self.bill_id(payout);
        self.there(|company, now| company.pay(&bill, part.map(Decimal::from), now)).await.unwrap()
    }

    /// Somebody goes to Intuit and chooses a company: the address they come back by, naming that company or another.
    pub async fn way_back(&self, chosen: &str, named: &str) -> String {
        let begun = self.get(FINANCE, "/quickbooks/connect").await.ok();
        let url = begun["url"].as_str().unwrap();
        let field = |name: &str| {
            let query = url.split_once('?').unwrap().1.as_bytes();
            form_urlencoded::parse(query).find(|(is, _)| is == name).unwrap().1.into_owned()
        };
        let code = self.system.quickbooks.consent(chosen, &field("redirect_uri"));
        format!("/quickbooks/callback?code={code}&state={}&realmId={named}", field("state"))
    }

    /// Somebody goes to Intuit, chooses a company, and comes back.
    pub async fn connect_company(&self, realm: &str) -> Value {
        let callback = self.way_back(realm, realm).await;
        let done = self.send(Request::get(&callback)).await.ok();
        self.send(Request::get(&callback)).await.refused(409);
        done
    }
}
