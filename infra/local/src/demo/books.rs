//! The end of the story: payouts as Bills in QuickBooks, and what people do to them there.

use std::io::Write;

use http::Method;
use serde_json::{Value, json};
use workflows::Clock;

use super::{Result, Story, failed};
use crate::functions::Failed;

impl<W: Write> Story<'_, W> {
    /// Three payouts become Bills: one is paid in full, one in part and then in full, one paid, voided and paid again.
    pub(super) async fn bills(&mut self) -> Result<()> {
        self.chapter("Bills in QuickBooks")?;
        self.resellers().await?;
        let payouts = self.get(&format!("/payouts?programId={}&status=pending", self.program)).await?;
        let mut bills = Vec::new();
        for payout in payouts["data"].as_array().into_iter().flatten().rev() {
            let seen = json!({"payouts": [{
                "id": payout["id"], "version": payout["version"], "amount": payout["amount"]["amount"],
                "linesHash": payout["linesHash"],
            }]});
            self.bulk("/payouts/approve", "approver", "approver", seen).await?;
            self.system.settle().await?;
            let id = payout["id"].as_str().unwrap_or_default().to_owned();
            let submitted = self.get(&format!("/payouts/{id}")).await?;
            let bill = submitted["quickbooks"]["billId"].as_str().ok_or_else(|| failed("it is no Bill"))?.to_owned();
            self.say(format!(
                "Payout {} of {} USD is approved, and is Bill {bill} of vendor {} now.",
                submitted["number"].as_str().unwrap_or_default(),
                submitted["amount"]["amount"].as_str().unwrap_or_default(),
                submitted["quickbooks"]["vendorId"].as_str().unwrap_or_default(),
            ))?;
            bills.push((id, bill));
        }
        let [(one, bill_one), (two, bill_two), (three, bill_three)] = &bills[..] else {
            return Err(failed("there are not three payouts"));
        };
        self.pay(bill_one, None)?;
        self.becomes(one, "paid", "It is paid in full").await?;
        self.pay(bill_two, Some("40"))?;
        self.becomes(two, "partially_paid", "40.00 of it are paid").await?;
        self.pay(bill_two, None)?;
        self.becomes(two, "paid", "The rest is paid").await?;
        let payment = self.pay(bill_three, None)?;
        self.becomes(three, "paid", "It is paid in full").await?;
        let realm = self.system.quickbooks.settings().realm;
        self.system.quickbooks.company(&realm, |company, now| company.void_payment(&payment, now));
        self.becomes(three, "submitted", "Its payment is voided: the Bill is open again, and nothing is billed twice")
            .await?;
        self.pay(bill_three, None)?;
        self.becomes(three, "paid", "It is paid again").await?;
        let compared = self.system.fire("reconcile").await?;
        let differing = compared["differing"].as_u64().unwrap_or(1) + compared["orphans"].as_u64().unwrap_or(1);
        if differing == 0 {
            self.say("The night's reconciliation finds no difference.")
        } else {
            Err(Failed(format!("QuickBooks differs: {compared}")))
        }
    }

    /// A second program, whose partners are paid by Bills.
    async fn resellers(&mut self) -> Result<()> {
        let manager = "program-manager";
        let program = json!({
            "name": "Resellers", "approval": "automatic", "holdDays": 0, "minimumPayout": "0",
            "largePayoutLimit": "10000.00", "ruleSignOff": false,
        });
        let made = self.call(Method::POST, "/programs", manager, "manager-1", Some(program)).await?;
        made["id"].as_str().unwrap_or_default().clone_into(&mut self.program);
        let sets = format!("/programs/{}/rule-sets", self.program);
        let draft = json!({
            "rationale": "Launch", "effectiveFrom": "2026-01-01T00:00:00Z",
            "rules": [{"name": "Share", "reward": {"kind": "percent", "rate": "20"}}],
        });
        self.call(Method::POST, &sets, manager, "manager-1", Some(draft)).await?;
        self.call(Method::POST, &format!("{sets}/1/publish"), manager, "manager-2", Some(json!({}))).await?;
        let amounts = [
            ("North Resale", "NORTH", "500.00"),
            ("South Resale", "SOUTH", "450.00"),
            ("West Resale", "WEST", "300.00"),
        ];
        for (name, code, total) in amounts {
            let partner = json!({
                "programId": self.program, "name": name, "code": code,
                "email": format!("{}@partners.example", code.to_lowercase()),
                "payoutMethods": [{"kind": "quickbooks", "preferred": true}],
            });
            let made = self.call(Method::POST, "/partners", manager, "manager-1", Some(partner)).await?;
            let sale = json!({
                "programId": self.program, "id": format!("resale-{code}"), "type": "sale",
                "occurredAt": self.system.clock.now(), "partner": {"code": code},
                "amount": {"total": total, "currency": "USD"},
            });
            self.call(Method::POST, "/conversions", "admin", "app", Some(sale)).await?;
            let request = json!({"partnerId": made["id"], "programId": self.program});
            self.call(Method::POST, "/payouts", "finance", "finance", Some(request)).await?;
        }
        self.system.settle().await?;
        self.say("Three resellers earn 20 %, are paid in QuickBooks, and ask for what is payable.")
    }

    /// Somebody pays a Bill in QuickBooks. The payment's id.
    fn pay(&self, bill: &str, part: Option<&str>) -> Result<String> {
        let part = part.map(str::parse).transpose().map_err(failed)?;
        let realm = self.system.quickbooks.settings().realm;
        let paid = self.system.quickbooks.company(&realm, |company, now| company.pay(bill, part, now));
        paid.and_then(std::result::Result::ok).ok_or_else(|| failed("the Bill cannot be paid"))
    }

    /// QuickBooks tells, and the payout follows.
    async fn becomes(&mut self, payout: &str, state: &str, told: &str) -> Result<()> {
        self.system.settle().await?;
        let now: Value = self.get(&format!("/payouts/{payout}")).await?;
        if now["state"] != state {
            return Err(Failed(format!("payout {payout} is {} instead of {state}", now["state"])));
        }
        let number = now["number"].as_str().unwrap_or_default().to_owned();
        self.say(format!("{told}. Payout {number} is {}.", state.replace('_', " ")))
    }
}
