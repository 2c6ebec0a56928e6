"""The deployed system, from outside: webhooks and API over HTTP, schedules by their own clock, queues that fail.

    cargo lambda build --profile ci --output-format zip --package storefront-webhook --package ...
    python tests/cloud/test_cloud.py [FOLDER OF ZIPS] [TEST ...]

One deployment serves all tests; each has partners of its own. After each the books are audited.
"""

import atexit
import base64
import concurrent.futures
import datetime
import hashlib
import hmac
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

from pycognito.aws_srp import AWSSRP

from deploy import REGION, ROOT, Cloud, say, until

ZIPS = ROOT / "target/lambda"
CLOUD = None
HOLD = datetime.timedelta(days=30)
PEOPLE = {"ann": "admin", "mia": "program-manager", "rob": "reviewer", "amy": "approver", "fin": "finance"}
TOKENS = {}


def setUpModule():
    global CLOUD
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--bin", "audit"], cwd=ROOT, check=True)
    CLOUD = Cloud()
    # However this ends: unittest's own cleanups are passed over when it is interrupted.
    atexit.register(CLOUD.stop)
    started = time.monotonic()
    CLOUD.deploy(ZIPS)
    CLOUD.hurry()
    for name, group in PEOPLE.items():
        TOKENS[name] = sign_in(name, group)
    say(f"deployed, and {len(PEOPLE)} people signed in, after {time.monotonic() - started:.0f} s")


# ---------------------------------------------------------------- people and storefronts


def sign_in(name, group):
    """An access token, got as a browser gets it: by the flow in which the password never travels."""
    cognito = CLOUD.client("cognito-idp")
    pool, client = CLOUD.outputs["UserPoolId"], CLOUD.outputs["UserPoolClientId"]
    person = {"UserPoolId": pool, "Username": f"{name}@merchant.example"}
    password = f"Correct-Horse-Battery-{name}-1"
    cognito.admin_create_user(**person, TemporaryPassword=f"{password}-at-first", MessageAction="SUPPRESS")
    cognito.admin_set_user_password(**person, Password=password, Permanent=True)
    cognito.admin_add_user_to_group(**person, GroupName=group)
    srp = AWSSRP(username=person["Username"], password=password, pool_id=pool, client_id=client, client=cognito)
    return srp.authenticate_user()["AuthenticationResult"]["AccessToken"]


def ask(method, path, body=None, by="ann"):
    answer = CLOUD.http(method, f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {TOKENS[by]}"})
    if not answer.ok:
        raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
    return answer.json()


def get(path):
    return ask("GET", path)


def post(path, body, by="ann"):
    answer = ask("POST", path, body, by)
    refused = [result for result in answer.get("results", []) if not result["ok"]]
    if refused:
        raise AssertionError(f"{path}: {refused}")
    return answer


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def stamp(moment):
    return moment.isoformat().replace("+00:00", "Z")


class Program:
    """20 % of everything, a hold of 30 days, and a connection to a shop of each kind that is needed here. Its runs are on today's weekday:
    one that is caught up on takes nothing that became payable after its day."""

    def __init__(self, approval):
        self.id = post("/programs", {
            "name": "Cloud", "approval": approval, "holdDays": HOLD.days, "minimumPayout": "1.00",
            "schedule": {"frequency": "weekly", "runDay": now().isoweekday()},
        }, by="mia")["id"]
        sets = f"/programs/{self.id}/rule-sets"
        rules = [{"name": "Standard", "reward": {"kind": "percent", "rate": "20"}}]
        post(sets, {"rationale": "Launch", "effectiveFrom": "2020-01-01T00:00:00Z", "rules": rules}, by="mia")
        post(f"{sets}/1/sign-off", {}, by="ann")
        post(f"{sets}/1/publish", {}, by="mia")
        self.shopify = post("/sources", {"programId": self.id, "kind": "shopify", "name": "Shop"}, by="mia")
        self.standard = post("/sources", {"programId": self.id, "kind": "standard", "name": "Checkout"}, by="mia")

    def partner(self, code):
        return post("/partners", {
            "programId": self.id, "name": code, "email": f"{code.lower()}@partner.example", "code": code,
            "payoutMethods": [{"kind": "manual", "preferred": True}],
        }, by="mia")["id"]


def shopify_order(program, code, order, occurred_at):
    """A paid order of 118.00 with 18.00 tax, as Shopify posts and signs it."""
    body = json.dumps({
        "id": order, "test": False, "cancelled_at": None, "created_at": stamp(occurred_at), "processed_at": stamp(occurred_at),
        "currency": "USD", "financial_status": "paid", "taxes_included": False, "total_price": "118.00", "total_tax": "18.00",
        "landing_site": f"/?ref={code}", "source_name": "web", "note_attributes": [], "discount_codes": [], "shipping_lines": [],
        "line_items": [{"id": 1, "sku": "A-1", "product_id": 9, "quantity": 2, "price": "50.00", "gift_card": False,
                        "discount_allocations": [], "tax_lines": [{"title": "VAT", "rate": 0.18, "price": "18.00"}]}],
    }).encode()
    signature = hmac.new(program.shopify["secret"].encode(), body, hashlib.sha256).digest()
    return body, {
        "content-type": "application/json", "x-shopify-topic": "orders/paid",
        "x-shopify-hmac-sha256": base64.b64encode(signature).decode(),
    }


def deliver(source, body, headers):
    return CLOUD.http("POST", f"/webhooks/{source['id']}", data=body, headers=headers).status_code


def queued_sale(program, code, order, ago=datetime.timedelta(0)):
    """What storefront-webhook puts into the queue for a sale of 50.00 in our own form."""
    sale = {
        "id": order, "type": "sale", "occurredAt": stamp(now() - ago), "partner": {"code": code},
        "amount": {"total": "50.00", "currency": "USD"},
    }
    return json.dumps({
        "source": program.standard["id"], "receivedAt": stamp(now() - ago), "headers": [["content-type", "application/json"]],
        "body": base64.b64encode(json.dumps(sale).encode()).decode(),
    })


def enqueue(queue, bodies):
    for start in range(0, len(bodies), 10):
        entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start:start + 10])]
        answer = CLOUD.client("sqs").send_message_batch(QueueUrl=CLOUD.id(queue), Entries=entries)
        assert not answer.get("Failed"), answer


def waiting(queue):
    """Messages that are in a queue, visible or not."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = CLOUD.client("sqs").get_queue_attributes(QueueUrl=CLOUD.id(queue), AttributeNames=names)["Attributes"]
    return sum(int(counts[name]) for name in names)


def take(queue_url):
    """All bodies that can be received now, for good."""
    sqs, bodies = CLOUD.client("sqs"), []
    while messages := sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            bodies.append(message["Body"])
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def invoke(function, event):
    """By the alias, as every source of events does."""
    answer = CLOUD.client("lambda").invoke(FunctionName=CLOUD.id(function), Qualifier="live", Payload=json.dumps(event))
    payload = json.load(answer["Payload"])
    if "FunctionError" in answer:
        raise AssertionError(f"{function}: {payload}")
    return payload


def lines(partner):
    found, cursor = [], ""
    while True:
        page = get(f"/commissions?partnerId={partner}&limit=100{cursor}")
        found += page["data"]
        if not page["nextCursor"]:
            return found
        cursor = f"&cursor={page['nextCursor']}"


def orders(partner):
    return sorted(line["orderId"] for line in lines(partner))


def payouts(partner, state):
    return get(f"/payouts?partnerId={partner}&state={state}")["data"]


def balance(partner):
    """What is in the buckets that are not empty."""
    [shown] = get(f"/balances?partnerId={partner}")["data"]
    buckets = ["pending", "approved", "payable", "held", "inPayout", "paid", "reversed", "rejected"]
    return {name: shown[name]["amount"] for name in buckets if shown[name]["minor"]}


def in_state(partner, state):
    def check():
        found = lines(partner)
        return found if found and all(line["state"] == state for line in found) else None
    return check


# ---------------------------------------------------------------- tests


class Case(unittest.TestCase):
    maxDiff = None

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        started = time.monotonic()
        super().run(result)
        say(f"{self.id().split('.')[-1]}: {time.monotonic() - started:.0f} s")
        if len(result.failures) + len(result.errors) > before:
            CLOUD.tell()

    def tearDown(self):
        """The project's own audit, which trusts nothing but the table."""
        audit = subprocess.run(
            [ROOT / "target/debug/audit", CLOUD.outputs["TableName"]], capture_output=True, text=True, env=os.environ | {
                "AWS_ENDPOINT_URL": CLOUD.endpoint, "AWS_REGION": REGION,
                "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            },
        )
        self.assertEqual(audit.returncode, 0, audit.stdout + audit.stderr)
        self.assertIn("holds", audit.stdout)


class Journey(Case):
    def listen(self):
        """A consumer of the bus, as anybody may add one. Gives what came so far."""
        sqs, events = CLOUD.client("sqs"), CLOUD.client("events")
        queue = sqs.create_queue(QueueName="consumer")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        bus = {"EventBusName": CLOUD.outputs["BusName"]}
        events.put_rule(Name="everything", EventPattern=json.dumps({"source": ["partner-payouts"]}), **bus)
        events.put_targets(Rule="everything", Targets=[{"Id": "queue", "Arn": arn}], **bus)
        heard = []

        def so_far():
            heard.extend(json.loads(body) for body in take(queue))
            return heard
        return so_far

    def test_from_the_webhook_to_the_paid_payout(self):
        heard = self.listen()
        program = Program("manual")
        partner = program.partner("COFFEE")

        # A month ago but for these seconds, so that its hold ends while we watch.
        occurred_at = now() - HOLD + datetime.timedelta(seconds=15)
        body, headers = shopify_order(program, "COFFEE", 1001, occurred_at)
        self.assertEqual(deliver(program.shopify, body, headers), 200)
        [line] = until("the commission is accrued", lambda: lines(partner))
        self.assertEqual((line["state"], line["amount"]["amount"]), ("pending", "20.00"))
        post("/commissions/approve", {"ids": [line["id"]]}, by="rob")
        self.assertEqual(balance(partner), {"approved": "20.00"})

        say("waiting for the schedule of mature-commissions")
        until("the schedule matures the commission", in_state(partner, "payable"), 120)
        history = get(f"/commissions/{line['id']}/explanation")["history"]
        self.assertIn(("mature", "mature-commissions"), [(step["what"], step["by"]) for step in history])

        run = post("/runs", {"programId": program.id}, by="fin")
        [payout] = until("the run drafts a payout", lambda: payouts(partner, "pending"))
        self.assertEqual((payout["amount"]["amount"], payout["lineCount"]), ("20.00", 1))
        # The same message again, as a queue may deliver it.
        enqueue("Drafts", [json.dumps({"run": run["id"], "partner": partner})] * 3)
        until("the messages are done", lambda: not waiting("Drafts"))
        self.assertEqual([found["id"] for found in get(f"/payouts?partnerId={partner}")["data"]], [payout["id"]])

        post("/payouts/approve", {"payoutIds": [payout["id"]]}, by="amy")
        post("/payouts/mark-paid", {"payouts": [{"id": payout["id"], "reference": "bank 17"}]}, by="fin")
        [paid] = until("the commission is paid", in_state(partner, "paid"))
        self.assertEqual((paid["payoutId"], balance(partner)), (payout["id"], {"paid": "20.00"}))

        expected = {"accrued", "approved", "matured", "paid"}, {"created", "approved", "paid"}
        kinds = sorted([f"commission.{what}" for what in expected[0]] + [f"payout.{what}" for what in expected[1]])
        until("all that happened is on the bus", lambda: len(heard()) >= len(kinds))
        self.assertEqual(sorted(event["detail-type"] for event in heard()), kinds)
        amounts = [event["detail"]["payout"]["paid"]["amount"] for event in heard() if event["detail-type"] == "payout.paid"]
        self.assertEqual(amounts, ["20.00"])

    def test_the_schedule_of_batch_payouts_starts_the_run_that_is_due(self):
        program = Program("automatic")
        partner = program.partner("TRAVEL")
        enqueue("Conversions", [queued_sale(program, "TRAVEL", "long-ago", 3 * HOLD)])
        until("the commission is accrued", in_state(partner, "payable"))
        self.make_older(program, partner)

        say("waiting for the schedule of batch-payouts")
        [payout] = until("the schedule drafts a payout", lambda: payouts(partner, "pending"), 120)
        self.assertEqual(payout["amount"]["amount"], "10.00")
        # Schedules fire at least once.
        for _ in range(2):
            self.assertEqual(invoke("BatchPayouts", {})["runsStarted"], 0)
        [run] = get(f"/runs?programId={program.id}")["data"]
        self.assertEqual((run["createdBy"], run["kind"]), ("batch-payouts", "weekly"))
        paid = [(paid["id"], paid["partnerId"]) for paid in get(f"/runs/{run['id']}")["payouts"]]
        self.assertEqual(paid, [(payout["id"], partner)])

    def make_older(self, program, partner):
        """Functions run on the real clock, and no run is due that was before its program, nor asks a partner who joined after it."""
        then = now() - 4 * HOLD
        for key, more in (
            ({"pk": {"S": f"PRG#{program.id}"}, "sk": {"S": "PRG"}}, {}),
            ({"pk": {"S": f"PAR#{partner}"}, "sk": {"S": "PAR"}}, {"lsk": f"{then:%Y-%m-%dT%H:%M:%S}.000000000Z#{partner}"}),
        ):
            values = {"createdAt": stamp(then), **more}
            CLOUD.client("dynamodb").update_item(
                TableName=CLOUD.outputs["TableName"], Key=key, ConditionExpression="attribute_exists(createdAt)",
                UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in values),
                ExpressionAttributeValues={f":{name}": {"S": value} for name, value in values.items()},
            )


class Gates(Case):
    def test_nobody_calls_the_api_without_a_token_of_ours(self):
        forged = TOKENS["ann"][:-8] + "AAAAAAAA"
        for headers in ({}, {"Authorization": "Bearer none"}, {"Authorization": f"Bearer {forged}"}):
            self.assertEqual(CLOUD.http("GET", "/api/v1/programs", headers=headers).status_code, 401)
        # The second gate, should the first be left open.
        event = json.loads((ROOT / "events/payouts-api/without-token.json").read_text())
        self.assertEqual(invoke("PayoutsApi", event)["statusCode"], 401)

    def test_a_group_may_do_what_it_is_for_and_no_more(self):
        answer = CLOUD.http("POST", "/api/v1/programs", json={"name": "No"}, headers={"Authorization": f"Bearer {TOKENS['fin']}"})
        self.assertEqual(answer.status_code, 403)

    def test_a_delivery_is_taken_by_its_signature_alone(self):
        program = Program("manual")
        body, headers = shopify_order(program, "NOBODY", 3001, now())
        self.assertEqual(deliver(program.shopify, body, headers), 200)
        self.assertEqual(deliver(program.shopify, body.replace(b"118.00", b"918.00"), headers), 401)
        self.assertEqual(deliver({"id": "src_" + "0" * 26}, body, headers), 401)


class Failures(Case):
    def test_an_unreadable_message_ends_among_the_dead_letters_and_its_neighbors_are_booked(self):
        program = Program("manual")
        partner = program.partner("POISON")
        good = [f"fine-{n}" for n in range(9)]
        bodies = [queued_sale(program, "POISON", order) for order in good]
        enqueue("Conversions", [*bodies[:5], "not a delivery", *bodies[5:]])
        until("the neighbors are booked", lambda: orders(partner) == good)
        say("waiting for the message to fail as often as the template lets it")
        until("the message has left the queue", lambda: not waiting("Conversions"), 90)
        self.assertEqual(take(CLOUD.id("ConversionsDeadLetters")), ["not a delivery"])
        self.assertEqual(orders(partner), good)

    def test_a_killed_function_is_tried_again_and_books_everything_once(self):
        program = Program("manual")
        partner = program.partner("KILLED")
        sales = [f"sale-{n:03}" for n in range(300)]
        enqueue("Conversions", [queued_sale(program, "KILLED", order) for order in sales])

        def count():
            """Read in one call, so that it is seen while it grows."""
            return int(float(balance(partner).get("pending", "0")) / 10)

        # Twice in the middle of its work; five times would make dead letters of the sales.
        booked = failed = 0
        while failed < 2:
            booked = until("more is booked", lambda: (found := count()) > booked and found)
            self.assertLess(booked, len(sales), "it was done before it was killed in the middle of its work")
            for process in CLOUD.processes("IngestConversions"):
                os.kill(process, signal.SIGKILL)
            failed += self.has_failed("IngestConversions")
        say(f"killed with {booked} of {len(sales)} booked")
        until("everything is booked", lambda: count() >= len(sales), 90)
        until("the queue is empty", lambda: not waiting("Conversions"), 90)
        self.assertEqual(orders(partner), sales)
        self.assertEqual(balance(partner), {"pending": "3000.00"})
        self.assertEqual(waiting("ConversionsDeadLetters"), 0)

    def has_failed(self, function):
        """Whether it was at work when it was killed: the last batch is found failed, which takes a moment."""
        client, live = CLOUD.client("lambda"), f"{CLOUD.id(function)}:live"
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            [mapping] = client.list_event_source_mappings(FunctionName=live)["EventSourceMappings"]
            if not mapping["LastProcessingResult"].startswith(("OK", "No ")):
                return True
        return False

    def test_what_comes_twice_counts_once(self):
        program = Program("manual")
        partner = program.partner("TWICE")
        body, headers = shopify_order(program, "TWICE", 4001, now())
        sale = queued_sale(program, "TWICE", "again")
        # As the poller hands a batch to the function: twice, and at the same time.
        event = json.loads((ROOT / "events/ingest-conversions/shopify-order-paid.json").read_text())
        event["Records"][0]["body"] = sale
        with concurrent.futures.ThreadPoolExecutor(12) as together:
            posted = [together.submit(deliver, program.shopify, body, headers) for _ in range(5)]
            polled = [together.submit(invoke, "IngestConversions", event) for _ in range(5)]
            enqueue("Conversions", [sale] * 5)
        self.assertEqual([answer.result() for answer in posted], [200] * 5)
        self.assertEqual([answer.result()["batchItemFailures"] for answer in polled], [[]] * 5)
        until("everything is done", lambda: not waiting("Conversions"))
        self.assertEqual(orders(partner), ["4001", "again"])
        self.assertEqual(balance(partner), {"pending": "30.00"})


if __name__ == "__main__":
    if any(pathlib.Path(argument).is_dir() for argument in sys.argv[1:2]):
        ZIPS = pathlib.Path(sys.argv.pop(1)).resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unittest.main(verbosity=2)
