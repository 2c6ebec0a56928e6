//! The API's document: served, true, and complete. That every exchange is as it says is checked in all end-to-end tests, by
//! `tests::contract`; here is what takes the document as a whole.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use tests::contract::{Contract, Operation, table_of_routes};
use tests::{ADMIN, ANALYST, APPROVER, FINANCE, MANAGER, Plan, REVIEWER, Reply, Request, SECOND_ADMIN, Who, World};

/// A world in which one of everything exists, with the ids that the document's examples use for it.
struct Furnished {
    world: World,
    ids: Vec<(String, String)>,
}

impl Furnished {
    async fn new() -> Self {
        let plan = Plan::new().at("2026-02-01T00:00:00Z");
        // So that it asks for tax forms, and pays without.
        let world = plan.program("taxPayer", "US").program("withoutTaxNumber", "withhold").start().await;
        let ben = world.add_partner(&json!({"code": "BEN10"})).await;
        world.sale("o1", "100.00").await;
        world.sale("o2", "100.00").await;
        world.report(&world.sale_event("o1", "200.00")).await.refused(409);
        let payout = world.request_payout().await;
        world.sale("o3", "100.00").await;
        let line = world.line_of("o3").await;
        let export = json!({"format": "paypal", "programId": world.program});
        let export = world.post(ADMIN, "/exports", &export).await.ok();
        let id = |prefix: &str, length: usize| format!("{prefix}_{}", "0".repeat(length));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ids = vec![
            (id("prg", 26), world.program.clone()),
            (id("par", 26), world.partner.clone()),
            (format!("par_{}1", "0".repeat(25)), ben),
            (id("cnv", 24), text(&line["conversionId"])),
            (id("com", 44), text(&line["id"])),
            (id("pay", 42), text(&payout["id"])),
            (id("run", 24), text(&payout["runId"])),
            (id("exp", 24), text(&export["id"])),
            (id("exc", 24), text(&world.exceptions().await[0]["id"])),
        ];
        Self { world, ids }
    }

    /// With the ids of what is there.
    fn real(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (example, id)| text.replace(example, id))
    }

    /// The path of an operation, with required parameters of its query.
    fn path(&self, operation: &Operation<'_>) -> String {
        let contract = Contract::get();
        let mut path = operation.path.strip_prefix("/api/v1").unwrap().to_owned();
        let mut query = Vec::new();
        for parameter in operation.described["parameters"].as_array().into_iter().flatten() {
            let parameter = contract.resolved(parameter);
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let resolved = contract.resolved(schema);
            let value = match (resolved["pattern"].as_str(), resolved["enum"][0].as_str()) {
                (Some(pattern), _) if pattern.contains("_[0-9a-v]") => {
                    let id = self.ids.iter().find(|(id, _)| id.starts_with(&pattern[1..4])).unwrap();
                    id.1.clone()
                }
                (_, Some(word)) => word.to_owned(),
                _ if parameter["example"].is_string() => parameter["example"].as_str().unwrap().to_owned(),
                _ if name == "year" => "2026".to_owned(),
                _ if name == "number" => "0".to_owned(),
                _ => "1".to_owned(),
            };
            match (parameter["in"].as_str().unwrap(), parameter["required"] == true) {
                ("path", _) => path = path.replace(&format!("{{{name}}}"), &value),
                ("query", true) => query.push(format!("{name}={value}")),
                _ => {}
            }
        }
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    async fn send(&self, who: Who<'_>, request: Request) -> Reply {
        self.world.send(self.world.by(who, request).await).await
    }
}

fn method(operation: &Operation<'_>) -> Method {
    operation.method.to_uppercase().parse().unwrap()
}

/// Every example of a body, as it is sent.
fn examples<'a>(operation: &Operation<'a>) -> Vec<(&'a str, &'a Value, &'a Value)> {
    let content = operation.described["requestBody"]["content"].as_object();
    let media = content.into_iter().flatten().flat_map(|(media, content)| {
        let examples = content["examples"].as_object().into_iter().flat_map(|examples| examples.values());
        examples.map(move |example| (media.as_str(), &content["schema"], &example["value"]))
    });
    media.collect()
}

#[tokio::test]
async fn the_document_and_its_page_are_served_to_anybody() {
    let world = Plan::new().start().await;
    let document = world.send(Request::get("/openapi.json")).await.ok();
    assert_eq!(document, Contract::get().document);
    assert_eq!(document["openapi"], "3.1.0");
    let page = world.send(Request::get("/docs")).await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
}

#[test]
fn every_example_is_as_its_schema_says() {
    let contract = Contract::get();
    for operation in contract.operations() {
        let what = format!("{} {}", operation.method, operation.path);
        let body = operation.described.get("requestBody");
        assert!(body.is_none() || !examples(&operation).is_empty(), "{what} has no example");
        for (media, schema, example) in examples(&operation) {
            if media.ends_with("json") {
                contract.must_fit(true, schema, example, &what);
            }
        }
    }
    for (name, schema) in contract.document["components"]["schemas"].as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            contract.must_fit(true, schema, example, name);
        }
    }
    for (name, parameter) in contract.document["components"]["parameters"].as_object().unwrap() {
        if let Some(example) = parameter.get("example") {
            contract.must_fit(true, &parameter["schema"], example, name);
        }
    }
}

#[tokio::test]
async fn every_example_of_a_body_is_taken() {
    let furnished = Furnished::new().await;
    for operation in Contract::get().operations() {
        for (n, (media, _, example)) in examples(&operation).into_iter().enumerate() {
            // The one before may have claimed, or rejected, all there was.
            if operation.described["operationId"] == "requestPayout" {
                // Either of the two fits the 20.00 that one asks for; together they reach the minimum.
                furnished.world.sale(&format!("more-{n}"), "150.00").await;
                furnished.world.sale(&format!("again-{n}"), "150.00").await;
            }
            let path = furnished.path(&operation);
            let body = match example {
                Value::String(file) => file.clone(),
                other => furnished.real(&other.to_string()),
            };
            let request = Request::new(method(&operation), &path).header("content-type", media).body(body);
            let reply = furnished.send(ADMIN, request).await;
            assert!((200..300).contains(&reply.status), "{} {path}: {}", operation.method, reply.text);
        }
    }
    furnished.world.audit_holds().await;
}

/// The role is checked before anything else, so that requests which would not be taken show it, too.
#[tokio::test]
async fn roles_are_as_described() {
    let furnished = Furnished::new().await;
    let world = &furnished.world;
    let partner = world.partner_signs_in(&world.partner).await;
    for operation in Contract::get().operations() {
        let Some(roles) = operation.described["x-roles"].as_array() else { continue };
        let roles: BTreeSet<_> = roles.iter().filter_map(Value::as_str).collect();
        let path = furnished.path(&operation);
        for who in [ADMIN, MANAGER, REVIEWER, APPROVER, FINANCE, ANALYST, partner, Who::new("nobody", "nell")] {
            let staff = roles.contains("staff") && !["partner", "nobody"].contains(&who.role);
            let own = roles.contains("own") && who.role == "partner";
            let may = who.role == "admin" || staff || own || roles.contains(who.role);
            let request = Request::new(method(&operation), &path).header("content-type", "application/json");
            let reply = furnished.send(who, request.body("{nonsense")).await;
            let hidden = reply.status == 403 || (reply.status == 404 && matches!(who.role, "partner" | "nobody"));
            assert_eq!(!hidden, may, "{} {} {path}: {}", who.role, operation.method, reply.text);
        }
    }
}

#[tokio::test]
async fn every_path_tells_the_methods_it_takes() {
    let furnished = Furnished::new().await;
    let contract = Contract::get();
    let paths: BTreeSet<_> = contract.operations().map(|operation| operation.path).collect();
    for path in paths {
        let of_path = || contract.operations().filter(|operation| operation.path == path);
        let mut described: BTreeSet<_> = of_path().map(|operation| operation.method.to_uppercase()).collect();
        if described.contains("GET") {
            described.insert("HEAD".to_owned());
        }
        let at = furnished.path(&of_path().next().unwrap());
        let reply = furnished.send(ADMIN, Request::new(Method::DELETE, &at)).await.refused(405);
        let allowed = reply.headers["allow"].to_str().unwrap();
        let allowed: BTreeSet<_> = allowed.split(',').map(|method| method.trim().to_owned()).collect();
        assert_eq!(allowed, described, "{path}");
    }
}

/// What changes one object takes the tag that reading it shows, and no other.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn what_was_read_is_changed_only_while_it_is_so() {
    let contract = Contract::get();
    let takes = |operation: &Operation<'_>| {
        let parameters = operation.described["parameters"].as_array().into_iter().flatten();
        parameters.into_iter().any(|parameter| parameter["$ref"] == "#/components/parameters/IfMatch")
    };
    let mut taking: BTreeSet<_> = contract
        .operations()
        .filter(takes)
        .map(|operation| operation.described["operationId"].as_str().unwrap())
        .collect();
    for (id, read, change, body) in [
        ("changePartner", "/partners/{par}", "PATCH /partners/{par}", json!({"name": "Anna B."})),
        ("suspendPartner", "/partners/{par}", "POST /partners/{par}/suspend", json!({})),
        ("activatePartner", "/partners/{par}", "POST /partners/{par}/activate", json!({})),
        (
            "adjustCommission",
            "/commissions/{com}",
            "POST /commissions/adjust",
            json!({"id": "{com}", "amount": "7.00", "reason": "less"}),
        ),
        (
            "attributeConversion",
            "/conversions/{cnv}",
            "POST /conversions/{cnv}/attribute",
            json!({"partnerId": "{par}", "reason": "theirs"}),
        ),
        (
            "excludeCommissions",
            "/payouts/{pay}",
            "POST /payouts/exclude",
            json!({"id": "{pay}", "commissionIds": ["{line}"], "reason": "no"}),
        ),
        (
            "connectPaypal",
            "/programs/{prg}/paypal",
            "PUT /programs/{prg}/paypal",
            json!({"environment": "sandbox", "clientId": "c", "clientSecret": "s", "webhookId": "w"}),
        ),
        (
            "putTaxForm",
            "/partners/{par}/tax-form",
            "PUT /partners/{par}/tax-form",
            json!({"form": "w8ben", "name": "Anna", "country": "DE", "signedOn": "2026-01-02", "services": "foreign"}),
        ),
        (
            "revokeTaxForm",
            "/partners/{par}/tax-form",
            "POST /partners/{par}/tax-form/revoke",
            json!({"reason": "wrong"}),
        ),
        (
            "registerWithIntuit",
            "/quickbooks/app",
            "PUT /quickbooks/app",
            json!({
                "environment": "sandbox", "clientId": "c", "clientSecret": "s", "webhookVerifier": "v",
                "redirectUri": "https://payouts.example/api/v1/quickbooks/callback",
            }),
        ),
        (
            "chooseQuickbooks",
            "/quickbooks/settings",
            "PUT /quickbooks/settings",
            json!({"realmId": "9130000000000001", "expenseAccount": "7"}),
        ),
        (
            "chooseQuickbooksOfProgram",
            "/programs/{prg}/quickbooks",
            "PUT /programs/{prg}/quickbooks",
            json!({"realmId": "9130000000000001", "expenseAccount": "7"}),
        ),
        (
            "disconnectQuickbooks",
            "/quickbooks/connections/9130000000000001",
            "POST /quickbooks/connections/9130000000000001/disconnect",
            json!({}),
        ),
        ("putPayer", "/tax/payer", "PUT /tax/payer", json!({"name": "Shop Inc."})),
        ("resolveException", "/exceptions/{exc}", "POST /exceptions/{exc}/resolve", json!({})),
        ("replayException", "/exceptions/{exc}", "POST /exceptions/{exc}/replay", json!({})),
        ("signOffRuleSet", "/programs/{prg}/rule-sets/2", "POST /programs/{prg}/rule-sets/2/sign-off", json!({})),
        ("publishRuleSet", "/programs/{prg}/rule-sets/2", "POST /programs/{prg}/rule-sets/2/publish", json!({})),
    ] {
        assert!(taking.remove(id), "{id}");
        let furnished = Furnished::new().await;
        let world = &furnished.world;
        let draft =
            json!({"rationale": "more", "effectiveFrom": "2030-01-01T00:00:00Z", "rules": [tests::percent("20")]});
        world.post(ADMIN, &format!("/programs/{}/rule-sets", world.program), &draft).await.ok();
        if id == "publishRuleSet" {
            world
                .post(SECOND_ADMIN, &format!("/programs/{}/rule-sets/2/sign-off", world.program), &json!({}))
                .await
                .ok();
        }
        let line = world.line_id("o1").await;
        let real = |text: &str| {
            let text = text.replace("{line}", &line);
            furnished.ids.iter().rev().fold(text, |text, (name, id)| text.replace(&format!("{{{}}}", &name[..3]), id))
        };
        if id == "revokeTaxForm" {
            let form = json!({"form": "w8ben", "name": "Anna", "country": "DE", "signedOn": "2026-01-02", "services": "foreign"});
            let put = Request::new(Method::PUT, &real("/partners/{par}/tax-form"));
            furnished.send(ADMIN, put.header("content-type", "application/json").body(form.to_string())).await.ok();
        }
        let who = if id == "signOffRuleSet" { SECOND_ADMIN } else { ADMIN };
        let (method, path) = change.split_once(' ').unwrap();
        let change = Request::new(method.parse().unwrap(), &real(path)).header("content-type", "application/json");
        let change = change.body(real(&body.to_string()));
        let read = world.get(ADMIN, &real(read)).await;
        // Nothing is connected to PayPal yet.
        let tag = read.headers.get("etag").map_or("\"0\"", |tag| tag.to_str().unwrap()).to_owned();
        let stale = furnished.send(who, change.clone().header("if-match", "\"another\"")).await.refused(412);
        assert_eq!(stale.body["type"], "/problems/stale", "{id}");
        let changed = furnished.send(who, change.clone().header("if-match", &format!("\"x\", {tag}"))).await;
        // The kept body is a contradiction still.
        let expect = if id == "replayException" { 409 } else { 200 };
        assert_eq!(changed.status, expect, "{id}: {}", changed.text);
        if !["activatePartner", "replayException"].contains(&id) {
            furnished.send(who, change.header("if-match", &tag)).await.refused(412);
        }
        world.audit_holds().await;
    }
    assert!(taking.is_empty(), "not tried: {taking:?}");
}

#[test]
fn readme_has_the_routes_of_the_document() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let table = table_of_routes();
    assert!(readme.contains(&table), "README's table of routes should be:\n{table}");
}
