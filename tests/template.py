"""What template.yaml promises, read from template.yaml itself. Run by .ci/run with the Python that has aws-sam-cli.

The table is compared with the one the local system makes for itself, which all other tests run on.
"""

import json
import pathlib
import subprocess
import unittest
import urllib.request

from samcli.yamlhelper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES = TEMPLATE["Resources"]


def of_type(kind):
    return {name: item.get("Properties", {}) for name, item in RESOURCES.items() if item["Type"] == kind}


def functions():
    return of_type("AWS::Serverless::Function")


def events(kind):
    for name, function in functions().items():
        for event in function.get("Events", {}).values():
            if event["Type"] == kind:
                yield name, event["Properties"]


def statements():
    """Every statement that grants or denies, with where it stands. The boundary does neither: it only cuts down."""
    for name, policy in of_type("AWS::IAM::ManagedPolicy").items():
        if name == "FunctionBoundary":
            continue
        for statement in policy["PolicyDocument"]["Statement"]:
            yield name, statement
    for name, function in functions().items():
        for policy in function.get("Policies", []):
            for statement in policy.get("Statement", []) if isinstance(policy, dict) else []:
                yield name, statement


def listed(value):
    return value if isinstance(value, list) else [value]


def local_table():
    """The table as the local system describes its own."""
    command = [ROOT / "target/debug/local", "up", "--memory", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as local:
        local.stdout.readline()
        endpoint = local.stdout.readline().split()[-1]
        request = urllib.request.Request(
            endpoint,
            data=json.dumps({"TableName": "partner-payouts"}).encode(),
            headers={"x-amz-target": "DynamoDB_20120810.DescribeTable", "content-type": "application/x-amz-json-1.0"},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)["Table"]
        finally:
            local.terminate()


class Table(unittest.TestCase):
    def setUp(self):
        self.table = RESOURCES["Table"]["Properties"]

    def test_it_is_the_table_the_code_is_tested_on(self):
        local = local_table()

        def shape(table):
            indexes = {
                index["IndexName"]: (index["KeySchema"], index["Projection"]["ProjectionType"])
                for index in table["GlobalSecondaryIndexes"]
            }
            attributes = sorted((a["AttributeName"], a["AttributeType"]) for a in table["AttributeDefinitions"])
            return table["KeySchema"], attributes, indexes, table["StreamSpecification"]["StreamViewType"]

        self.assertEqual(shape(local), shape(self.table))

    def test_it_is_kept_restored_and_not_deleted_by_mistake(self):
        self.assertEqual(RESOURCES["Table"]["DeletionPolicy"], "Retain")
        self.assertEqual(RESOURCES["Table"]["UpdateReplacePolicy"], "Retain")
        self.assertTrue(self.table["DeletionProtectionEnabled"])
        self.assertTrue(self.table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"])
        self.assertTrue(self.table["SSESpecification"]["SSEEnabled"])

    def test_its_cost_has_a_cap(self):
        self.assertIn("MaxWriteRequestUnits", self.table["OnDemandThroughput"])


class Permissions(unittest.TestCase):
    def test_no_data_action_is_a_wildcard(self):
        for name, statement in statements():
            for action in listed(statement["Action"]):
                if statement["Effect"] == "Allow" and action.split(":")[0] in ("dynamodb", "sqs", "secretsmanager"):
                    self.assertNotIn("*", action, name)
                    self.assertNotEqual(statement["Resource"], "*", name)

    def test_whoever_may_write_may_not_change_journal_entries(self):
        writers = [
            (name, policy["PolicyDocument"]["Statement"])
            for name, policy in of_type("AWS::IAM::ManagedPolicy").items()
            if any(
                "dynamodb:PutItem" in listed(s["Action"]) and s["Effect"] == "Allow" and name != "FunctionBoundary"
                for s in policy["PolicyDocument"]["Statement"]
            )
        ]
        self.assertEqual([name for name, _ in writers], ["WriteTable"])
        denied = [s for s in writers[0][1] if s["Effect"] == "Deny"]
        self.assertEqual(set(denied[0]["Action"]), {"dynamodb:UpdateItem", "dynamodb:DeleteItem"})
        self.assertEqual(denied[0]["Condition"], {"ForAnyValue:StringLike": {"dynamodb:LeadingKeys": ["JRN#*"]}})

    def test_nobody_scans(self):
        for name, statement in statements():
            self.assertNotIn("dynamodb:Scan", listed(statement["Action"]), name)


class Queues(unittest.TestCase):
    def test_a_message_outlives_its_function_and_fails_into_a_dead_letter_queue(self):
        queues = of_type("AWS::SQS::Queue")
        consumers = list(events("SQS"))
        self.assertEqual(len(consumers), 2)
        for name, event in consumers:
            queue = queues[event["Queue"]["Fn::GetAtt"][0]]
            self.assertGreaterEqual(queue["VisibilityTimeout"], 6 * functions()[name]["Timeout"], name)
            self.assertGreaterEqual(queue["RedrivePolicy"]["maxReceiveCount"], 5, name)
            self.assertEqual(event["FunctionResponseTypes"], ["ReportBatchItemFailures"], name)
            self.assertIn("MaximumConcurrency", event["ScalingConfig"], name)

    def test_they_are_encrypted_and_speak_tls_only(self):
        queues = of_type("AWS::SQS::Queue")
        for name, queue in queues.items():
            self.assertTrue(queue.get("SqsManagedSseEnabled") or queue.get("KmsMasterKeyId"), name)
        covered = []
        for policy in of_type("AWS::SQS::QueuePolicy").values():
            insecure = [s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Deny"]
            self.assertIn("aws:SecureTransport", json.dumps(insecure))
            covered += [queue["Ref"] for queue in policy["Queues"]]
        self.assertEqual(sorted(covered), sorted(queues))


class Functions(unittest.TestCase):
    def test_there_is_one_for_every_crate_and_it_builds_that_binary(self):
        crates = sorted(path.name for path in (ROOT / "functions").iterdir() if path.is_dir())
        binaries = sorted(
            RESOURCES[name]["Metadata"]["BuildProperties"]["Binary"] for name in functions()
        )
        self.assertEqual(binaries, crates)
        for name in functions():
            self.assertEqual(RESOURCES[name]["Metadata"]["BuildMethod"], "rust-cargolambda", name)

    def test_each_has_its_own_log_group_that_forgets(self):
        groups = of_type("AWS::Logs::LogGroup")
        for name, function in functions().items():
            group = groups[function["LoggingConfig"]["LogGroup"]["Ref"]]
            self.assertIn("RetentionInDays", group, name)

    def test_the_environment_names_what_the_code_asks_for(self):
        given = set(TEMPLATE["Globals"]["Function"]["Environment"]["Variables"])
        self.assertLessEqual(
            {"TABLE_NAME", "CONVERSIONS_QUEUE_URL", "DRAFTS_QUEUE_URL", "BUS_NAME", "CURSOR_SECRET"}, given
        )

    def test_schedules_retry_and_then_keep_what_they_missed(self):
        schedules = list(events("ScheduleV2"))
        self.assertEqual(sorted(name for name, _ in schedules), ["BatchPayouts", "MatureCommissions"])
        for name, schedule in schedules:
            self.assertIn("RetryPolicy", schedule, name)
            self.assertIn("DeadLetterConfig", schedule, name)

    def test_the_stream_delivers_journal_entries_and_loses_none(self):
        [(name, stream)] = events("DynamoDB")
        self.assertEqual(name, "PublishChanges")
        [pattern] = stream["FilterCriteria"]["Filters"]
        self.assertEqual(
            json.loads(pattern["Pattern"]),
            {"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "JRN#"}]}}}},
        )
        self.assertTrue(stream["BisectBatchOnFunctionError"])
        self.assertEqual(stream["DestinationConfig"]["OnFailure"]["Type"], "S3")
        self.assertIn("MaximumRecordAgeInSeconds", stream)

    def test_only_webhooks_are_open_to_everybody(self):
        opened = [
            event["Path"]
            for _, event in events("HttpApi")
            if event.get("Auth", {}).get("Authorizer") == "NONE"
        ]
        self.assertEqual(opened, ["/webhooks/{sourceId}"])
        self.assertIn("DefaultAuthorizer", RESOURCES["Api"]["Properties"]["Auth"])


if __name__ == "__main__":
    unittest.main()
