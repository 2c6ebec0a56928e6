//! The switches of `POST /_local/faults`: what they break mends itself by repetition, to the cent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use local::Odds;
use serde_json::json;
use tests::{ADMIN, Plan, World};

/// Sells ten times 100.00 over a storefront that tells until it is answered, and lets everything be worked off.
async fn sell_ten(world: &World) {
    let shop = world.connect("standard", None).await;
    for n in 0..10 {
        let sale = world.sale_event(&format!("order-{n}"), "100.00").to_string();
        // An HTTP call fails as a whole where the function crashed: like a storefront, we tell again.
        while world.try_send(shop.delivery("", &sale)).await.is_none_or(|reply| reply.status != 200) {}
    }
    for _ in 0..40 {
        // Failed messages come again after the visibility time-out.
        world.pass("1h");
        world.settle().await;
    }
}

fn storms() -> [Odds; 5] {
    let odds = Odds { seed: 7, ..Odds::default() };
    [
        Odds { duplicate: 0.5, reorder: true, ..odds.clone() },
        Odds { store_fails: 0.2, ..odds.clone() },
        Odds { store_fails_after_apply: 0.2, ..odds.clone() },
        Odds { crash: 0.05, ..odds.clone() },
        Odds { duplicate: 0.1, reorder: true, store_fails: 0.05, store_fails_after_apply: 0.05, crash: 0.02, ..odds },
    ]
}

#[tokio::test]
async fn each_sale_is_booked_once_whatever_strikes() {
    for odds in storms() {
        let world = Plan::new().start().await;
        world.system.faults.set(odds.clone());
        sell_ten(&world).await;
        world.system.faults.set(Odds::default());
        world.settle().await;
        assert_eq!(world.buckets().await, [("payable", 10_000)], "{odds:?}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn what_always_fails_is_said_to_fail_and_nothing_is_booked() {
    let world = Plan::new().start().await;
    world.system.faults.set(Odds { store_fails: 1.0, ..Odds::default() });
    let sale = world.sale_event("order-1", "100.00");
    let reply = world.post(ADMIN, "/conversions", &sale).await;
    // Too many requests at once, or something else that passes.
    assert!(matches!(reply.status, 429 | 503), "{}", reply.text);
    assert!(reply.headers.contains_key("retry-after"));
    world.system.faults.set(Odds { crash: 1.0, ..Odds::default() });
    assert!(world.try_send(world.by(ADMIN, tests::Request::post("/conversions", &sale)).await).await.is_none());
    world.system.faults.set(Odds::default());
    assert_eq!(world.buckets().await, []);
    assert_eq!(world.report(&sale).await.ok()["outcome"], json!("applied"));
    world.audit_holds().await;
}

#[test]
fn only_probabilities_are_taken() {
    let odds = |text: &str| serde_json::from_str::<Odds>(text).unwrap();
    assert_eq!(odds("{}").wrong(), None);
    assert_eq!(odds(r#"{"crash": 1.5}"#).wrong(), Some("crash"));
    assert_eq!(odds(r#"{"storeFailsAfterApply": -0.1}"#).wrong(), Some("storeFailsAfterApply"));
    assert!(serde_json::from_str::<Odds>(r#"{"storeFail": 0.1}"#).is_err(), "a name misspelled is not silently off");
}
