//! How a world starts: its clock, its program with rules, and a first partner.

use std::path::PathBuf;
use std::sync::Arc;

use local::{LocalClock, Options, QuickbooksOptions, Storage, System};
use serde_json::{Value, json};

use crate::world::World;
use crate::{ADMIN, SECOND_ADMIN};

/// A program's terms, until [`Plan::start`] makes them real. Without further words: ten percent of every sale, approved
/// automatically, without hold period or minimum payout, on the first moment of 2026.
#[derive(Debug, Clone)]
pub struct Plan {
    now: String,
    storage: Storage,
    paypal: Option<String>,
    quickbooks: QuickbooksOptions,
    program: Value,
    rules: Vec<Value>,
    partner: Value,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            now: "2026-01-01T00:00:00Z".to_owned(),
            storage: Storage::Memory,
            paypal: None,
            quickbooks: QuickbooksOptions::default(),
            program: json!({
                "name": "Program", "approval": "automatic", "holdDays": 0, "minimumPayout": "0",
                "largePayoutLimit": "1000000.00",
            }),
            rules: vec![percent("10")],
            partner: json!({
                "name": "Anna", "email": "anna@partners.example", "code": "ANNA10",
                "payoutMethods": [{"kind": "manual", "details": {}, "preferred": true}],
            }),
        }
    }
}

/// A rule that pays a share of every sale.
pub fn percent(rate: &str) -> Value {
    json!({"name": "Share", "reward": {"kind": "percent", "rate": rate}})
}

/// A rule whose rate depends on how many sales came before; each tier is what it starts after, and its rate.
pub fn tiered(tiers: &[(&str, &str)]) -> Value {
    let tiers: Vec<_> = tiers.iter().map(|(after, rate)| json!({"after": after, "rate": rate})).collect();
    json!({"name": "Ladder", "reward": {
        "kind": "tiered", "metric": "count", "window": "lifetime", "shape": "marginal_by_order", "tiers": tiers,
    }})
}

impl Plan {
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the clock stands.
    #[must_use]
    pub fn at(mut self, now: &str) -> Self {
        now.clone_into(&mut self.now);
        self
    }

    #[must_use]
    pub fn stored(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Where PayPal's counterpart is served.
    #[must_use]
    pub fn paypal_at(mut self, endpoint: &str) -> Self {
        self.paypal = Some(endpoint.to_owned());
        self
    }

    /// How QuickBooks' counterpart is set up.
    #[must_use]
    pub fn quickbooks(mut self, options: QuickbooksOptions) -> Self {
        self.quickbooks = options;
        self
    }

    /// One field of the program.
    #[must_use]
    pub fn program(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.program[field] = value.into();
        self
    }

    /// One field of the partner.
    #[must_use]
    pub fn partner(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.partner[field] = value.into();
        self
    }

    /// People review every commission.
    #[must_use]
    pub fn reviewed(self) -> Self {
        self.program("approval", "manual")
    }

    #[must_use]
    pub fn hold_days(self, days: u32) -> Self {
        self.program("holdDays", days)
    }

    #[must_use]
    pub fn minimum(self, amount: &str) -> Self {
        self.program("minimumPayout", amount)
    }

    /// Instead of ten percent.
    #[must_use]
    pub fn rules(mut self, rules: impl Into<Vec<Value>>) -> Self {
        self.rules = rules.into();
        self
    }

    /// The system alone, with nothing in it.
    pub async fn system(&self) -> Arc<System> {
        let clock = LocalClock::standing_at(self.now.parse().unwrap());
        let (storage, paypal, quickbooks) = (self.storage.clone(), self.paypal.clone(), self.quickbooks.clone());
        Arc::new(System::start(Options { storage, clock, aws: None, paypal, quickbooks }).await.unwrap())
    }

    /// A world with program, published rules and partner, all made through the API.
    pub async fn start(self) -> World {
        let mut world = World { system: self.system().await, program: String::new(), partner: String::new() };
        world.program = world.post(ADMIN, "/programs", &self.program).await.id();
        world.publish(&self.rules).await;
        world.partner = world.add_partner(&self.partner).await;
        world
    }

    /// The same world, opened again: what a restarted process finds.
    pub async fn start_again(&self, program: &str, partner: &str) -> World {
        World { system: self.system().await, program: program.to_owned(), partner: partner.to_owned() }
    }
}

impl World {
    /// Drafts, signs off and publishes rules that have always been in force.
    pub async fn publish(&self, rules: &[Value]) {
        let draft = json!({"rationale": "test", "effectiveFrom": "2020-01-01T00:00:00Z", "rules": rules});
        let sets = format!("/programs/{}/rule-sets", self.program);
        let version = self.post(ADMIN, &sets, &draft).await.ok()["version"].clone();
        self.post(SECOND_ADMIN, &format!("{sets}/{version}/sign-off"), &json!({})).await.ok();
        self.post(ADMIN, &format!("{sets}/{version}/publish"), &json!({})).await.ok();
    }

    /// Another partner of the program; fields left out are those of an ordinary one.
    pub async fn add_partner(&self, fields: &Value) -> String {
        let mut partner = json!({
            "programId": self.program, "name": "Partner", "email": "partner@partners.example",
            "payoutMethods": [{"kind": "manual", "details": {}, "preferred": true}],
        });
        for (name, value) in fields.as_object().unwrap() {
            partner[name] = value.clone();
        }
        self.post(ADMIN, "/partners", &partner).await.id()
    }
}

/// An empty directory for one test; what an earlier run left in it is gone.
pub fn temporary_directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("partner-payouts-{name}-{}", std::process::id()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory).unwrap();
    }
    directory
}
