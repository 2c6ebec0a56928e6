//! Payouts that a rail is asked to pay, and the weather on the way to it.

use serde_json::Value;

use crate::{APPROVER, World};

impl World {
    /// The payout of everything payable, approved, and everything delivered that then is to be.
    pub async fn send_payout(&self) -> Value {
        let id = self.request_payout().await["id"].clone();
        assert_eq!(self.approve_payout(APPROVER, &id).await, 200);
        self.settle().await;
        id
    }

    pub async fn state_of_payout(&self, id: &Value) -> String {
        self.payout(id).await["state"].as_str().unwrap().to_owned()
    }

    /// Failed messages come again after the visibility time-out, and what was set aside by the next tick.
    pub async fn wait(&self) {
        for _ in 0..12 {
            self.pass("1h");
            self.fire("batch-payouts").await;
            self.settle().await;
        }
    }

    /// A payout sent through a storm, and looked at long after it.
    pub async fn send_payout_through(&self, storm: Storm, blow: impl Fn(Storm)) -> Value {
        blow(storm);
        let id = self.send_payout().await;
        self.wait().await;
        blow(Storm::default());
        self.wait().await;
        id
    }
}

/// What goes wrong on the way, each as a probability.
#[derive(Debug, Clone, Copy, Default)]
pub struct Storm {
    pub seed: u64,
    pub lost_before: f64,
    pub lost_after: f64,
    pub server_error: f64,
    pub server_error_after: f64,
    pub throttle: f64,
    pub expire_token: f64,
}

/// One of each kind, and all at once.
pub fn storms(seed: u64) -> [(&'static str, Storm); 7] {
    let some = Storm { seed, ..Storm::default() };
    let all = Storm {
        lost_before: 0.1,
        lost_after: 0.1,
        server_error: 0.1,
        server_error_after: 0.1,
        throttle: 0.1,
        expire_token: 0.2,
        ..some
    };
    [
        ("lost before", Storm { lost_before: 0.4, ..some }),
        ("lost after", Storm { lost_after: 0.4, ..some }),
        ("5xx before", Storm { server_error: 0.4, ..some }),
        ("5xx after", Storm { server_error_after: 0.4, ..some }),
        ("throttled", Storm { throttle: 0.4, ..some }),
        ("tokens end", Storm { expire_token: 0.5, ..some }),
        ("all at once", all),
    ]
}
