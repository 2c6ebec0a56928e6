//! Referral links, from their making to the visitor who arrives at the shop.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use domain::attribution::{MAX_WINDOW_DAYS, Touch};
use domain::ids::{ClickId, ProgramId, VisitorId};
use http::Method;
use serde_json::{Value, json};
use tests::{ADMIN, ANALYST, MANAGER, Plan, REVIEWER, Reply, Request, World};

const NOW: &str = "2026-03-01T12:00:00Z";
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

fn plan() -> Plan {
    let hosts = json!(["blog.shop.example"]);
    Plan::new().at(NOW).program("landingPage", "https://shop.example/welcome?x=1").program("allowedHosts", hosts)
}

fn visit(path: &str) -> Request {
    Request::get("").at(path).header("user-agent", BROWSER)
}

async fn click(world: &World, path: &str) -> Reply {
    world.send(visit(path)).await
}

/// Where a visitor is sent on to.
#[track_caller]
fn location(reply: &Reply) -> String {
    assert_eq!(reply.status, 302, "{}", reply.text);
    assert_eq!(reply.headers["cache-control"], "no-store");
    reply.headers["location"].to_str().unwrap().to_owned()
}

/// A parameter of the address a visitor is sent on to.
fn told(reply: &Reply, name: &str) -> Option<String> {
    let location = location(reply);
    let (_, query) = location.split_once('?')?;
    let values: Vec<_> =
        query.split('&').filter_map(|pair| pair.split_once('=')).filter(|pair| pair.0 == name).collect();
    assert!(values.len() < 2, "{location}");
    values.first().map(|(_, value)| (*value).to_owned())
}

fn click_id(reply: &Reply) -> ClickId {
    told(reply, "click_id").unwrap().parse().unwrap()
}

fn visitor_id(reply: &Reply) -> VisitorId {
    told(reply, "visitor_id").unwrap().parse().unwrap()
}

async fn touch(world: &World, click: &ClickId) -> Option<Touch> {
    let program: ProgramId = world.program.parse().unwrap();
    world.system.context.store.touch("t", &program, click).await.unwrap()
}

/// All that a visitor touched.
async fn touches(world: &World, visitor: &VisitorId) -> Vec<Touch> {
    let program: ProgramId = world.program.parse().unwrap();
    let (from, to) = ("2000-01-01T00:00:00Z".parse().unwrap(), "2100-01-01T00:00:00Z".parse().unwrap());
    world.system.context.store.touches("t", &program, visitor, from, to).await.unwrap()
}

/// How many touches the table has, whoever's they are.
async fn all_touches(world: &World) -> usize {
    let client = aws_sdk_dynamodb::Client::new(&world.system.embedded.sdk_config());
    let scan = client.scan().table_name(local::TABLE).send().await.unwrap();
    let is_touch = |item: &std::collections::HashMap<_, aws_sdk_dynamodb::types::AttributeValue>| {
        item["pk"].as_s().unwrap().starts_with("VIS#")
    };
    scan.items().iter().filter(|item| is_touch(item)).count()
}

async fn link(world: &World, fields: Value) -> Reply {
    let mut link = json!({"partnerId": world.partner});
    fields.as_object().unwrap().iter().for_each(|(name, value)| link[name] = value.clone());
    world.post(MANAGER, "/links", &link).await
}

fn codes(links: &[Value]) -> Vec<&str> {
    links.iter().map(|link| link["code"].as_str().unwrap()).collect()
}

async fn suspend(world: &World) {
    let body = json!({"status": "suspended"}).to_string();
    let request = Request::new(Method::PATCH, &format!("/partners/{}", world.partner));
    let request = request.header("content-type", "application/json").body(body);
    world.send(world.by(MANAGER, request).await).await.ok();
}

#[tokio::test]
async fn a_click_is_recorded_and_the_visitor_arrives_with_code_click_and_visitor() {
    let world = plan().start().await;
    let request = visit("/r/anna10?campaign=spring%20sale&channel=blog")
        .header("referer", "https://Anna.example/my/page?mail=zoe@example.com");
    let reply = world.send(request).await;
    let (click, visitor) = (click_id(&reply), visitor_id(&reply));
    let expect = format!("https://shop.example/welcome?ref=ANNA10&click_id={click}&visitor_id={visitor}&x=1");
    assert_eq!(location(&reply), expect);
    assert_eq!(reply.headers["referrer-policy"], "strict-origin-when-cross-origin");
    assert_eq!(
        reply.headers["set-cookie"].to_str().unwrap(),
        format!("pp_visitor={visitor}; Path=/; Max-Age=2592000; Secure; HttpOnly; SameSite=Lax"),
        "for the 30 days of the program's window"
    );
    let expect = Touch {
        click: click.clone(),
        partner: world.partner.parse().unwrap(),
        at: NOW.parse().unwrap(),
        code: "ANNA10".into(),
        channel: Some("blog".into()),
        campaign: Some("spring sale".into()),
        landing_page: Some("https://shop.example/welcome".into()),
        device: Some("desktop".into()),
        referrer: Some("anna.example".into()),
    };
    assert_eq!(click.visitor(), visitor);
    assert_eq!(touch(&world, &click).await.as_ref(), Some(&expect));
    assert_eq!(touches(&world, &visitor).await, [expect]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_touch_keeps_nothing_else_and_is_forgotten_when_no_window_reaches_it() {
    let world = plan().start().await;
    let request = visit("/r/ANNA10").header("x-forwarded-for", "203.0.113.7").header("cookie", "session=secret");
    let visitor = visitor_id(&world.send(request).await);
    let client = aws_sdk_dynamodb::Client::new(&world.system.embedded.sdk_config());
    let pk = aws_sdk_dynamodb::types::AttributeValue::S(format!("VIS#{visitor}"));
    let query = client.query().table_name(local::TABLE).key_condition_expression("pk = :pk");
    let stored = query.expression_attribute_values(":pk", pk).send().await.unwrap();
    let [item] = stored.items() else { panic!("{stored:?}") };
    let mut names: Vec<_> = item.keys().map(String::as_str).collect();
    names.sort_unstable();
    let kept = ["at", "click", "code", "device", "landingPage", "partner", "pk", "program", "rev", "sk", "ttl"];
    assert_eq!(names, kept);
    let at: jiff::Timestamp = NOW.parse().unwrap();
    let forgotten = at.as_second() + (i64::from(MAX_WINDOW_DAYS) + 31) * 24 * 3_600;
    assert_eq!(item["ttl"].as_n().unwrap(), &forgotten.to_string());
    let units = world.system.context.store.meter().totals()["click"];
    assert_eq!((units.write, units.read), (1.0, 3.0), "one put; link, program and partner read");
}

#[tokio::test]
async fn a_second_click_keeps_the_visitor() {
    let world = plan().start().await;
    let first = click(&world, "/r/ANNA10").await;
    let visitor = visitor_id(&first);
    world.pass("1h");
    let cookies = format!("theme=dark; pp_visitor={visitor}; lang=en");
    let second = world.send(visit("/r/ANNA10").header("cookie", &cookies)).await;
    assert_eq!(visitor_id(&second), visitor);
    assert!(second.headers["set-cookie"].to_str().unwrap().starts_with(&format!("pp_visitor={visitor};")));
    let clicks: Vec<_> = touches(&world, &visitor).await.into_iter().map(|touch| touch.click).collect();
    assert_eq!(clicks, [click_id(&first), click_id(&second)]);
    let stranger = world.send(visit("/r/ANNA10").header("cookie", "pp_visitor=vis_nonsense")).await;
    assert_ne!(visitor_id(&stranger), visitor);
}

#[tokio::test]
async fn clicks_within_one_moment_are_told_apart() {
    let world = plan().start().await;
    let visitor = visitor_id(&click(&world, "/r/ANNA10").await);
    for _ in 0..3 {
        world.send(visit("/r/ANNA10").header("cookie", &format!("pp_visitor={visitor}"))).await;
    }
    assert_eq!(touches(&world, &visitor).await.len(), 4);
}

#[tokio::test]
async fn programs_and_browsers_that_look_ahead_are_sent_on_and_not_recorded() {
    let world = plan().start().await;
    let bot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    for request in [
        visit("/r/ANNA10").header("user-agent", bot),
        visit("/r/ANNA10").header("user-agent", "curl/8.9.1"),
        Request::get("").at("/r/ANNA10"),
        visit("/r/ANNA10").header("sec-purpose", "prefetch"),
        visit("/r/ANNA10").header("purpose", "prefetch"),
        visit("/r/ANNA10").header("x-moz", "prefetch"),
        visit("/r/ANNA10").header("sec-fetch-dest", "image"),
        Request::new(Method::HEAD, "").at("/r/ANNA10").header("user-agent", BROWSER),
    ] {
        let reply = world.send(request).await;
        assert_eq!(location(&reply), "https://shop.example/welcome?ref=ANNA10&x=1");
        assert!(!reply.headers.contains_key("set-cookie"));
    }
    assert_eq!(all_touches(&world).await, 0);
}

#[tokio::test]
async fn a_link_may_be_asked_to_lead_to_any_page_of_an_allowed_host() {
    let world = plan().start().await;
    for (to, expect) in [
        ("https://shop.example/shoes", "https://shop.example/shoes"),
        ("https%3A%2F%2Fblog.shop.example%2Fcaf%C3%A9%3Fq%3D1%23top", "https://blog.shop.example/caf%C3%A9"),
        ("HTTPS://SHOP.EXAMPLE", "https://shop.example/"),
        ("", "https://shop.example/welcome"),
    ] {
        let reply = click(&world, &format!("/r/ANNA10?to={to}")).await;
        assert_eq!(touch(&world, &click_id(&reply)).await.unwrap().landing_page.as_deref(), Some(expect));
        assert!(location(&reply).starts_with(&format!("{expect}?ref=ANNA10&")), "{}", location(&reply));
    }
    let reply =
        click(&world, "/r/ANNA10?to=https%3A%2F%2Fshop.example%2F%3Fref%3DBEN20%26click_id%3Dclk_1%23top").await;
    assert_eq!(told(&reply, "ref").as_deref(), Some("ANNA10"), "one code only");
    assert!(location(&reply).ends_with("#top"));
}

#[tokio::test]
async fn a_link_leads_nowhere_else() {
    let world = plan().start().await;
    for to in [
        "//evil.example",
        "///evil.example",
        "/welcome",
        "https:evil.example",
        "https:shop.example",
        "http://shop.example/",
        "https://evil.example/",
        "https://shop.example@evil.example/",
        "https://shop.example:x@evil.example/",
        "https://@shop.example/",
        "https://shop.example.evil.example/",
        "https://evilshop.example/",
        "https://www.shop.example/",
        "https://shop.example./",
        "https://shop.example:8443/",
        "https://shop.example:443/",
        "https://shop.example\\@evil.example",
        "https://evil.example\\.shop.example",
        "\\\\evil.example",
        "https://shop.example\t@evil.example",
        "java\nscript:alert(1)",
        "javascript://shop.example/%0aalert(1)",
        "data:text/html,shop.example",
        "https://ｓhop.example/",
        "https://shop。example/",
        "https://evil.example/?https://shop.example/",
        "https://evil.example#https://shop.example/",
        "https://shop.example\u{0}.evil.example/",
        "https://[::1]/",
    ] {
        let encoded: Vec<_> = to.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let reply = click(&world, &format!("/r/ANNA10?to={}", encoded.concat())).await;
        assert_eq!(reply.status, 400, "{to}: {:?}", reply.headers);
        assert_eq!(reply.body["type"], "/problems/malformed");
        assert!(!reply.headers.contains_key("location") && !reply.headers.contains_key("set-cookie"), "{to}");
    }
    assert_eq!(all_touches(&world).await, 0);
}

#[tokio::test]
async fn what_is_no_link_and_a_link_to_nowhere_are_not_found() {
    let world = plan().start().await;
    for path in ["/r/NOBODY", "/r/", "/r/%00", "/r/..", "/r/a%2Fb"] {
        let reply = click(&world, path).await.refused(404);
        assert_eq!(reply.headers["content-type"], "application/problem+json");
        assert_eq!(reply.body["type"], "/problems/not-found", "{path}");
    }
    let bare = Plan::new().start().await;
    let reply = click(&bare, "/r/ANNA10").await.refused(404);
    assert!(reply.body["detail"].as_str().unwrap().contains("landingPage"), "{}", reply.text);
    click(&bare, "/r/ANNA10?to=https://shop.example/").await.refused(400);
    assert_eq!(all_touches(&bare).await, 0);
}

#[tokio::test]
async fn a_suspended_partners_link_leads_on_and_names_nobody() {
    let world = plan().start().await;
    suspend(&world).await;
    let reply = click(&world, "/r/ANNA10").await;
    assert_eq!(location(&reply), "https://shop.example/welcome?x=1");
    assert!(!reply.headers.contains_key("set-cookie"));
    assert_eq!(all_touches(&world).await, 0);
}

#[tokio::test]
async fn a_visitor_is_sent_on_though_the_visit_cannot_be_recorded() {
    let world = plan().start().await;
    let (mut recorded, mut unrecorded) = (0, 0);
    for seed in 0..40 {
        // Every failed call costs a pause.
        if recorded > 0 && unrecorded > 0 {
            break;
        }
        world.system.faults.set(serde_json::from_value(json!({"seed": seed, "storeFails": 0.5})).unwrap());
        let reply = click(&world, "/r/ANNA10").await;
        match reply.status {
            503 => assert_eq!(reply.body["type"], "/problems/unavailable"),
            _ if told(&reply, "click_id").is_some() => recorded += 1,
            _ => {
                assert_eq!(told(&reply, "ref").as_deref(), Some("ANNA10"));
                unrecorded += 1;
            }
        }
    }
    world.system.faults.set(serde_json::from_value(json!({})).unwrap());
    assert!(recorded > 0 && unrecorded > 0, "{recorded} and {unrecorded}");
    assert!(all_touches(&world).await >= recorded);
}

#[tokio::test]
async fn a_click_of_one_program_is_none_of_another() {
    let world = plan().start().await;
    let reply = click(&world, "/r/ANNA10").await;
    let other =
        World { program: world.post(ADMIN, "/programs", &json!({"name": "Other"})).await.id(), ..world.clone() };
    assert_eq!(touch(&other, &click_id(&reply)).await, None);
    assert_eq!(touches(&other, &visitor_id(&reply)).await, []);
}

#[tokio::test]
async fn touches_are_those_of_a_window_both_ends_inclusive() {
    let world = plan().start().await;
    let visitor = visitor_id(&click(&world, "/r/ANNA10").await);
    for _ in 0..4 {
        world.pass("1d");
        world.send(visit("/r/ANNA10").header("cookie", &format!("pp_visitor={visitor}"))).await;
    }
    let program: ProgramId = world.program.parse().unwrap();
    let (store, at) = (&world.system.context.store, |text: &str| text.parse::<jiff::Timestamp>().unwrap());
    for (from, to, expect) in [
        (NOW, "2026-03-05T12:00:00Z", 5),
        ("2026-03-02T12:00:00Z", "2026-03-04T12:00:00Z", 3),
        ("2026-03-02T12:00:00.001Z", "2026-03-04T11:59:59.999Z", 1),
        ("2026-03-06T00:00:00Z", "2026-04-01T00:00:00Z", 0),
        ("2026-01-01T00:00:00Z", "2026-03-01T11:59:59.999Z", 0),
    ] {
        let found = store.touches("t", &program, &visitor, at(from), at(to)).await.unwrap();
        assert_eq!(found.len(), expect, "{from} to {to}");
        assert!(found.is_sorted_by_key(|touch| touch.at));
    }
}

#[tokio::test]
async fn a_partners_own_code_is_its_first_link() {
    let world = plan().start().await;
    let links = world.all(ANALYST, &format!("/links?partnerId={}", world.partner)).await;
    let mut expect = json!({
        "code": "ANNA10", "url": "/r/ANNA10", "programId": world.program, "partnerId": world.partner, "campaign": null,
        "channel": null, "destination": null, "createdAt": NOW,
    });
    assert_eq!(links, [expect.take()]);
}

#[tokio::test]
async fn a_code_that_leads_to_one_program_stays_there() {
    let world = plan().start().await;
    let mut other = world.clone();
    other.program =
        world.post(ADMIN, "/programs", &json!({"name": "Other", "landingPage": "https://other.example/"})).await.id();
    other.partner = other.add_partner(&json!({"code": "ANNA10"})).await;
    assert_eq!(world.all(ADMIN, &format!("/links?programId={}", other.program)).await, [] as [Value; 0]);
    assert!(location(&click(&world, "/r/ANNA10").await).starts_with("https://shop.example/"));
    link(&other, json!({"code": "anna10"})).await.refused(409);
    link(&other, json!({"code": "ANNA-OTHER"})).await.ok();
    assert!(location(&click(&world, "/r/ANNA-OTHER").await).starts_with("https://other.example/?ref=ANNA-OTHER&"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_partners_made_at_once_with_one_code_each_program_gets_one_and_one_gets_the_link() {
    let world = plan().start().await;
    let other = world.post(ADMIN, "/programs", &json!({"name": "Other"})).await.id();
    let mut requests = Vec::new();
    for program in [&world.program, &other, &world.program, &other] {
        let partner = json!({"programId": program, "name": "Ben", "email": "ben@partners.example", "code": "BEN20"});
        requests.push(world.by(ADMIN, Request::post("/partners", &partner)).await);
    }
    let replies = world.together(requests).await;
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 422, 422], "{replies:?}");
    let mut links = world.all(ADMIN, &format!("/links?programId={}", world.program)).await;
    links.extend(world.all(ADMIN, &format!("/links?programId={other}")).await);
    assert_eq!(codes(&links).iter().filter(|code| **code == "BEN20").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_code_asked_for_by_several_at_once_becomes_one_link() {
    let world = plan().start().await;
    let ben = world.add_partner(&json!({"code": "BEN20"})).await;
    let mut requests = Vec::new();
    for (n, partner) in [&world.partner, &ben, &world.partner, &ben].into_iter().enumerate() {
        // Told apart: the very same link at the very same moment would be the same one.
        let link = json!({"partnerId": partner, "code": "SPRING", "channel": n.to_string()});
        requests.push(world.by(ADMIN, Request::post("/links", &link)).await);
    }
    let mut statuses: Vec<_> = world.together(requests).await.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
}

#[tokio::test]
async fn a_links_code_is_a_referral_code_of_its_partner_and_of_nobody_else() {
    let world = plan().start().await;
    let ben = world.add_partner(&json!({"code": "BEN20"})).await;
    link(&world, json!({"code": "SPRING"})).await.ok();
    let mut sale = world.sale_event("o1", "100.00");
    sale["partner"] = json!({"code": "spring"});
    world.report(&sale).await.ok();
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    for taken in ["SPRING", "BEN20", "ANNA10"] {
        link(&world, json!({"partnerId": ben, "code": taken})).await.refused(409);
        let partner = json!({"programId": world.program, "name": "C", "email": "c@partners.example", "code": taken});
        assert_eq!(world.post(ADMIN, "/partners", &partner).await.refused(422).pointers(), ["/code"], "{taken}");
    }
    world.audit_holds().await;
}

#[tokio::test]
async fn a_link_has_a_page_a_campaign_and_a_channel_of_its_own() {
    let world = plan().start().await;
    let fields = json!({
        "code": "Spring", "campaign": " spring ", "channel": "mail", "destination": "https://BLOG.shop.example/spring?a=b",
    });
    let made = link(&world, fields).await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    let shown =
        ["code", "url", "campaign", "channel", "destination"].map(|field| made[field].as_str().unwrap().to_owned());
    assert_eq!(shown, ["SPRING", "/r/SPRING", "spring", "mail", "https://blog.shop.example/spring?a=b"]);
    for (query, campaign, channel) in [("", "spring", "mail"), ("?campaign=late&channel=sms", "late", "sms")] {
        let reply = click(&world, &format!("/r/spring{query}")).await;
        let touch = touch(&world, &click_id(&reply)).await.unwrap();
        assert_eq!(touch.code, "SPRING");
        assert_eq!(touch.landing_page.as_deref(), Some("https://blog.shop.example/spring"));
        assert_eq!((touch.campaign.as_deref(), touch.channel.as_deref()), (Some(campaign), Some(channel)));
    }
}

#[tokio::test]
async fn a_link_that_could_not_be_is_refused_by_its_field() {
    let world = plan().start().await;
    for (field, value) in [
        ("code", json!("")),
        ("code", json!("a b")),
        ("code", json!("x".repeat(41))),
        ("campaign", json!("")),
        ("channel", json!("x".repeat(201))),
        ("destination", json!("")),
        ("destination", json!("http://shop.example/")),
        ("destination", json!("https://evil.example/")),
        ("destination", json!("https://shop.example@evil.example/")),
        ("destination", json!("/welcome")),
        ("partnerId", json!("par_00000000000000000000000000")),
        ("partnerId", json!("nonsense")),
    ] {
        let mut fields = json!({"code": "SPRING"});
        fields[field] = value.clone();
        let refused = link(&world, fields).await.refused(422);
        assert_eq!(refused.pointers(), [format!("/{field}")], "{value}");
    }
    assert_eq!(world.all(ADMIN, &format!("/links?partnerId={}", world.partner)).await.len(), 1);
}

#[tokio::test]
async fn a_program_names_its_landing_page_and_hosts_or_is_refused_by_field() {
    let world = plan().start().await;
    let shown = world.get(ADMIN, &format!("/programs/{}", world.program)).await.ok();
    assert_eq!(shown["landingPage"], "https://shop.example/welcome?x=1");
    assert_eq!(shown["allowedHosts"], json!(["blog.shop.example"]));
    for (fields, pointer) in [
        (json!({"landingPage": "http://shop.example/"}), "/landingPage"),
        (json!({"landingPage": "https://me@shop.example/"}), "/landingPage"),
        (json!({"landingPage": ""}), "/landingPage"),
        (json!({"allowedHosts": ["shop.example", "*.shop.example"]}), "/allowedHosts/1"),
        (json!({"allowedHosts": ["https://shop.example"]}), "/allowedHosts/0"),
        (json!({"allowedHosts": vec!["shop.example"; 51]}), "/allowedHosts"),
    ] {
        let mut program = fields.clone();
        program["name"] = json!("P");
        assert_eq!(world.post(ADMIN, "/programs", &program).await.refused(422).pointers(), [pointer], "{fields}");
    }
}

#[tokio::test]
async fn partners_make_and_see_links_of_their_own_only() {
    let world = plan().start().await;
    let ben = world.add_partner(&json!({"code": "BEN20"})).await;
    let anna = world.partner_signs_in(&world.partner).await;
    world.post(anna, "/links", &json!({"partnerId": world.partner, "code": "MINE"})).await.ok();
    let refused = world.post(anna, "/links", &json!({"partnerId": ben, "code": "HIS"})).await.refused(422);
    assert_eq!(refused.pointers(), ["/partnerId"]);
    world.post(REVIEWER, "/links", &json!({"partnerId": ben, "code": "HIS"})).await.refused(403);
    assert_eq!(codes(&world.all(anna, "/links").await), ["ANNA10", "MINE"]);
    assert_eq!(codes(&world.all(anna, &format!("/links?programId={}", world.program)).await), ["ANNA10", "MINE"]);
    world.get(anna, &format!("/links?partnerId={ben}")).await.refused(404);
    world.get(ADMIN, "/links").await.refused(400);
    let all = world.all(ADMIN, &format!("/links?programId={}&limit=1", world.program)).await;
    let mut all = codes(&all);
    all.sort_unstable();
    assert_eq!(all, ["ANNA10", "BEN20", "MINE"]);
    assert_eq!(codes(&world.all(ADMIN, &format!("/links?partnerId={ben}&limit=1")).await), ["BEN20"]);
}

#[tokio::test]
async fn a_sale_that_tells_the_click_or_only_the_visitor_is_the_partners() {
    let world = plan().start().await;
    let reply = click(&world, "/r/ANNA10").await;
    world.pass("29d");
    let (click, visitor) = (click_id(&reply).to_string(), visitor_id(&reply).to_string());
    for (order, told, expect) in [
        ("by click", json!({"clickId": click}), 1),
        ("by visitor", json!({"visitorId": visitor}), 1),
        ("by nothing", json!({}), 0),
        ("by a stranger", json!({"visitorId": format!("vis_{}", "0".repeat(26))}), 0),
    ] {
        let mut sale = json!({"id": order, "type": "sale", "partner": null, "amount": {"total": "100.00"}});
        told.as_object().unwrap().iter().for_each(|(name, value)| sale[name] = value.clone());
        world.report(&world.event(sale)).await.ok();
        assert_eq!(world.lines_of(order).await.len(), expect, "{order}");
    }
    world.audit_holds().await;
}
