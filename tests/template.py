"""What template.yaml promises, read from template.yaml itself. Run by .ci/run with the Python that has aws-sam-cli.

The table is compared with the one the local system makes for itself, which all other tests run on.
"""

import json
import pathlib
import re
import subprocess
import tomllib
import unittest
import urllib.request

from samcli.yamlhelper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = (ROOT / "template.yaml").read_text()
TEMPLATE = yaml_parse(TEXT)
RESOURCES = TEMPLATE["Resources"]
GLOBALS = TEMPLATE["Globals"]["Function"]
STAGES = TEMPLATE["Mappings"]["Stages"]
# Whose data the wildcards of a policy could reach.
DATA = ("dynamodb", "sqs", "secretsmanager", "s3", "events", "kms")


def of_type(kind):
    return {name: item.get("Properties", {}) for name, item in RESOURCES.items() if item["Type"] == kind}


def functions():
    return of_type("AWS::Serverless::Function")


def queues():
    return of_type("AWS::SQS::Queue")


def alarms():
    return of_type("AWS::CloudWatch::Alarm")


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


def boundary():
    return RESOURCES["FunctionBoundary"]["Properties"]["PolicyDocument"]["Statement"]


def listed(value):
    return value if isinstance(value, list) else [value]


def service(action):
    return action.split(":")[0]


def dimensions(alarm):
    return {dimension["Name"]: dimension["Value"] for dimension in alarm.get("Dimensions", [])}


def alarms_on(metric, **wanted):
    """Names of the alarms on a metric with these dimensions and no others."""
    return [name for name, alarm in alarms().items() if alarm["MetricName"] == metric and dimensions(alarm) == wanted]


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

    def test_its_cost_has_a_cap_and_so_have_its_indexes(self):
        self.assertEqual(self.table["BillingMode"], "PAY_PER_REQUEST")
        for capped in [self.table, *self.table["GlobalSecondaryIndexes"]]:
            self.assertEqual(set(capped["OnDemandThroughput"]), {"MaxReadRequestUnits", "MaxWriteRequestUnits"})

    def test_another_can_take_its_place(self):
        """Made from an export when a parameter says so, under a name of its own, with a new version of every function."""
        condition, source, otherwise = self.table["ImportSourceSpecification"]["Fn::If"]
        self.assertEqual((condition, otherwise), ("IsRestored", {"Ref": "AWS::NoValue"}))
        self.assertEqual(source["S3BucketSource"], {"S3Bucket": {"Ref": "Files"}, "S3KeyPrefix": {"Ref": "RestoreFrom"}})
        self.assertNotIn("TableName", self.table)
        for name, function in functions().items():
            self.assertEqual(function["VersionDescription"], {"Fn::Sub": "table ${Table}"}, name)


class Permissions(unittest.TestCase):
    def test_no_data_action_is_a_wildcard(self):
        for name, statement in [*statements(), *(("boundary", statement) for statement in boundary())]:
            for action in listed(statement["Action"]):
                if statement["Effect"] == "Allow" and service(action) in DATA and action != "dynamodb:ListStreams":
                    self.assertNotIn("*", action, name)
                    self.assertNotIn("*", listed(statement["Resource"]), name)

    def test_every_function_is_bounded_by_its_stack(self):
        self.assertEqual(GLOBALS["PermissionsBoundary"], {"Ref": "FunctionBoundary"})
        for name, function in functions().items():
            self.assertNotIn("PermissionsBoundary", function, name)
            self.assertNotIn("Role", function, name)
            for policy in function["Policies"]:
                self.assertIsInstance(policy, dict, f"{name} takes a policy that is not of this template")

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
        # Besides, visits may be added by whoever adds visits, and exchange rates by whoever fetches them.
        adds = {"TrackClick": ["VIS#*"], "FetchRates": ["FXR#*", "EXC#*"]}
        for name, statement in statements():
            if name != "WriteTable" and {"dynamodb:PutItem", "dynamodb:UpdateItem"} & set(listed(statement["Action"])):
                self.assertEqual(statement["Action"], "dynamodb:PutItem", name)
                self.assertEqual(
                    statement["Condition"],
                    {
                        "ForAllValues:StringLike": {"dynamodb:LeadingKeys": adds[name]},
                        # Without keys the condition above would hold.
                        "Null": {"dynamodb:LeadingKeys": "false"},
                    },
                )
        denied = [s for s in writers[0][1] if s["Effect"] == "Deny"]
        self.assertEqual(set(denied[0]["Action"]), {"dynamodb:UpdateItem", "dynamodb:DeleteItem"})
        self.assertEqual(denied[0]["Condition"], {"ForAnyValue:StringLike": {"dynamodb:LeadingKeys": ["JRN#*"]}})

    def test_whoever_may_delete_may_delete_no_journal_entries(self):
        for name, statement in statements():
            if statement["Effect"] == "Allow" and "dynamodb:DeleteItem" in listed(statement["Action"]):
                self.assertEqual(name, "CloseDrafts")
                self.assertEqual(
                    statement["Condition"]["ForAllValues:StringLike"], {"dynamodb:LeadingKeys": ["PAR#*"]}
                )

    def test_nobody_scans(self):
        for name, statement in statements():
            self.assertNotIn("dynamodb:Scan", listed(statement["Action"]), name)


class Queues(unittest.TestCase):
    def test_a_message_outlives_its_function_and_fails_into_a_dead_letter_queue(self):
        consumers = list(events("SQS"))
        self.assertEqual(len(consumers), 3)
        for name, event in consumers:
            queue = queues()[event["Queue"]["Fn::GetAtt"][0]]
            self.assertGreaterEqual(queue["VisibilityTimeout"], 6 * functions()[name]["Timeout"], name)
            self.assertGreaterEqual(queue["RedrivePolicy"]["maxReceiveCount"], 5, name)
            self.assertIn(queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0], queues(), name)
            self.assertEqual(event["FunctionResponseTypes"], ["ReportBatchItemFailures"], name)
            self.assertIn("MaximumConcurrency", event["ScalingConfig"], name)

    def test_what_ends_in_one_that_nobody_reads_raises_an_alarm(self):
        read = {event["Queue"]["Fn::GetAtt"][0] for _, event in events("SQS")}
        ends = set(queues()) - read
        self.assertEqual(len(ends), 4)
        for name in ends:
            depth = alarms_on("ApproximateNumberOfMessagesVisible", QueueName={"Fn::GetAtt": [name, "QueueName"]})
            self.assertEqual(len(depth), 1, name)
            self.assertEqual(alarms()[depth[0]]["Threshold"], 1, name)

    def test_they_are_encrypted_and_speak_tls_only(self):
        for name, queue in queues().items():
            self.assertTrue(queue["SqsManagedSseEnabled"], name)
        covered = []
        for policy in of_type("AWS::SQS::QueuePolicy").values():
            statement, *others = policy["PolicyDocument"]["Statement"]
            for other in others:
                # Only the bus puts messages from outside, and only by the one rule.
                self.assertEqual((other["Principal"], other["Action"]), ({"Service": "events.amazonaws.com"}, "sqs:SendMessage"))
                self.assertEqual(
                    other["Condition"], {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["ApprovedPayouts", "Arn"]}}}
                )
            self.assertEqual((statement["Effect"], statement["Action"], statement["Principal"]), ("Deny", "sqs:*", "*"))
            self.assertEqual(statement["Condition"], {"Bool": {"aws:SecureTransport": "false"}})
            covered += [queue["Ref"] for queue in policy["Queues"]]
        self.assertEqual(sorted(covered), sorted(queues()))


class Files(unittest.TestCase):
    def test_each_function_puts_files_under_its_own_names_and_only_those_that_are_forgotten_within_a_day(self):
        reach = [
            (name, sorted(listed(statement["Action"])), statement["Resource"])
            for name, statement in statements()
            if any(service(action) == "s3" for action in listed(statement["Action"]))
        ]
        exports = (["s3:GetObject", "s3:PutObject"], {"Fn::Sub": "${Files.Arn}/exports/*"})
        tax = (["s3:PutObject"], {"Fn::Sub": "${Files.Arn}/tax/*"})
        self.assertEqual(reach, [("PayoutsApi", *exports), ("TaxFiling", *tax), ("RenderDocuments", *exports)])
        self.assertEqual(GLOBALS["Environment"]["Variables"]["FILES_BUCKET"], {"Ref": "Files"})

    def test_the_bucket_is_closed_encrypted_and_speaks_tls_only(self):
        [(name, bucket)] = of_type("AWS::S3::Bucket").items()
        self.assertTrue(all(bucket["PublicAccessBlockConfiguration"].values()))
        self.assertEqual(len(bucket["PublicAccessBlockConfiguration"]), 4)
        self.assertIn("BucketEncryption", bucket)
        [policy] = of_type("AWS::S3::BucketPolicy").values()
        self.assertEqual(policy["Bucket"], {"Ref": name})
        self.assertEqual(policy["PolicyDocument"]["Statement"][0]["Condition"], {"Bool": {"aws:SecureTransport": "false"}})

    def test_it_forgets(self):
        rules = RESOURCES["Files"]["Properties"]["LifecycleConfiguration"]["Rules"]
        self.assertTrue(all(rule["Status"] == "Enabled" for rule in rules))
        days = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
        self.assertEqual(days, {"aws/lambda/": 30, "exports/": 1, "restore/": 7, "tax/": 30})


class Functions(unittest.TestCase):
    def test_there_is_one_for_every_crate_and_it_builds_that_binary(self):
        crates = sorted(path.name for path in (ROOT / "functions").iterdir() if path.is_dir())
        binaries = sorted(RESOURCES[name]["Metadata"]["BuildProperties"]["Binary"] for name in functions())
        self.assertEqual(binaries, crates)
        for name in functions():
            self.assertEqual(RESOURCES[name]["Metadata"]["BuildMethod"], "rust-cargolambda", name)

    def test_what_answers_with_a_pdf_is_built_apart_and_only_reads(self):
        renderer = functions()["RenderDocuments"]
        self.assertEqual(renderer["CodeUri"], "functions/render-documents")
        excluded = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["exclude"]
        self.assertEqual(excluded, [renderer["CodeUri"]])
        routes = {f"{event['Method']} {event['Path']}" for name, event in events("HttpApi") if name == "RenderDocuments"}
        api = (ROOT / "functions/payouts-api/src/lib.rs").read_text()
        for route in routes:
            self.assertIn(f'.route("{route.removeprefix("GET /api/v1")}", get(statements::', api)
        printed = set(re.findall(r'"(/[^"]+\.pdf)", get', api)) | {"/partners/{id}/statements/{document}"}
        self.assertEqual(routes, {f"GET /api/v1{path}" for path in printed})
        own = [policy for policy in renderer["Policies"] if policy != {"Ref": "ReadTable"}]
        actions = [action for policy in own for statement in policy["Statement"] for action in listed(statement["Action"])]
        self.assertEqual(actions, ["s3:GetObject", "s3:PutObject"])

    def test_they_run_on_arm64_unless_a_parameter_says_otherwise(self):
        self.assertEqual(GLOBALS["Runtime"], "provided.al2023")
        self.assertEqual(GLOBALS["Architectures"], [{"Ref": "Architecture"}])
        self.assertEqual(TEMPLATE["Parameters"]["Architecture"]["Default"], "arm64")
        self.assertIn("x86_64", TEMPLATE["Parameters"]["Architecture"]["AllowedValues"])

    def test_each_has_its_own_log_group_that_forgets(self):
        own = [function["LoggingConfig"]["LogGroup"]["Ref"] for function in functions().values()]
        self.assertEqual(len(set(own)), len(functions()))
        allowed = [resource for s in boundary() for resource in listed(s["Resource"]) if ":logs:" in str(resource)]
        [pattern] = [resource["Fn::Sub"].split("log-group:")[1] for resource in allowed]
        for group in own:
            name = RESOURCES[group]["Properties"]["LogGroupName"]["Fn::Sub"]
            self.assertTrue(name.startswith(pattern.removesuffix("*")), f"{name} is beyond what the boundary lets write")

    def test_every_log_group_forgets(self):
        for name, group in of_type("AWS::Logs::LogGroup").items():
            self.assertEqual(group["RetentionInDays"], {"Fn::FindInMap": ["Stages", {"Ref": "Stage"}, "LogDays"]}, name)

    def test_the_environment_names_what_the_code_asks_for(self):
        asked = set(re.findall(r'variable\("(\w+)"\)', (ROOT / "shared/runtime/src/start.rs").read_text()))
        given = set(GLOBALS["Environment"]["Variables"])
        self.assertGreaterEqual(len(asked), 5)
        # What begins with AWS_ is given by Lambda itself; the other is read by the logging library.
        # The endpoint has a name so that `sam local` can give it, and no value in the cloud.
        variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
        self.assertEqual(variables["AWS_ENDPOINT_URL"], {"Ref": "AWS::NoValue"})
        self.assertEqual(given - {"RUST_LOG", "AWS_ENDPOINT_URL"}, {name for name in asked if not name.startswith("AWS_")})

    def test_a_new_version_takes_over_gradually_and_an_alarm_takes_it_back(self):
        self.assertEqual(GLOBALS["AutoPublishAlias"], "live")
        self.assertEqual(
            GLOBALS["DeploymentPreference"]["Type"], {"Fn::FindInMap": ["Stages", {"Ref": "Stage"}, "Rollout"]}
        )
        self.assertEqual(STAGES["dev"]["Rollout"], "AllAtOnce")
        for stage in ("staging", "prod"):
            self.assertRegex(STAGES[stage]["Rollout"], r"^Canary10Percent\d+Minutes$")
        behind_http = {name for name, _ in events("HttpApi")}
        on_messages = {name for name, _ in events("SQS")}
        for name, function in functions().items():
            watched = {alarm["Ref"] for alarm in function["DeploymentPreference"]["Alarms"]}
            expected = {f"{name}Errors"}
            expected |= {"ApiErrorsAlarm"} if name in behind_http else set()
            expected |= {f"{name}Failures"} if name in on_messages else set()
            self.assertEqual(watched, expected)
            self.assertTrue(function["AutoPublishAliasAllProperties"], name)

    def test_schedules_retry_and_then_keep_what_they_missed(self):
        schedules = list(events("ScheduleV2"))
        self.assertEqual(sorted(name for name, _ in schedules), ["BatchPayouts", "FetchRates", "MatureCommissions"])
        for name, schedule in schedules:
            self.assertGreaterEqual(schedule["RetryPolicy"]["MaximumRetryAttempts"], 1, name)
            self.assertEqual(schedule["DeadLetterConfig"]["Arn"], {"Fn::GetAtt": ["MissedTicks", "Arn"]}, name)
            failed = functions()[name]["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]
            self.assertEqual(failed["Destination"], {"Fn::GetAtt": ["MissedTicks", "Arn"]}, name)

    def test_rates_are_fetched_only_where_a_source_is_set(self):
        """By https only; and where none is set, nothing is called and nothing costs."""
        self.assertEqual(TEMPLATE["Parameters"]["RateSource"]["Default"], "")
        allowed = TEMPLATE["Parameters"]["RateSource"]["AllowedPattern"]
        for url, fits in [("", True), ("https://rates.example/daily.xml", True), ("http://rates.example/", False)]:
            self.assertEqual(bool(re.search(allowed, url)), fits, url)
        [schedule] = [schedule for name, schedule in events("ScheduleV2") if name == "FetchRates"]
        self.assertEqual(schedule["State"], {"Fn::If": ["HasRateSource", "ENABLED", "DISABLED"]})
        given = functions()["FetchRates"]["Environment"]["Variables"]
        self.assertEqual(given, {"RATE_SOURCE": {"Ref": "RateSource"}})
        self.assertIn('var("RATE_SOURCE")', (ROOT / "functions/fetch-rates/src/lib.rs").read_text())

    def test_concurrency_is_reserved_where_a_bound_protects_and_only_on_demand(self):
        bounds = {}
        for name, function in functions().items():
            if "ReservedConcurrentExecutions" in function:
                condition, bound, otherwise = function["ReservedConcurrentExecutions"]["Fn::If"]
                self.assertEqual((condition, otherwise), ("HasReservedConcurrency", {"Ref": "AWS::NoValue"}), name)
                bounds[name] = bound
        self.assertEqual({name for name, bound in bounds.items() if bound == 1}, {name for name, _ in events("ScheduleV2")})
        needed = re.search(r"may run (\d+) functions", TEMPLATE["Parameters"]["ReserveConcurrency"]["Description"])
        self.assertEqual(int(needed[1]), sum(bounds.values()) + 100)

    def test_the_stream_delivers_journal_entries_and_the_ends_of_runs_and_loses_none(self):
        [(name, stream)] = events("DynamoDB")
        self.assertEqual(name, "PublishChanges")
        run = {"pk": {"S": [{"prefix": "RUN#"}]}, "sk": {"S": ["RUN"]}}
        self.assertEqual(
            [json.loads(one["Pattern"]) for one in stream["FilterCriteria"]["Filters"]],
            [
                {"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "JRN#"}]}}}},
                {"eventName": ["MODIFY"], "dynamodb": {"Keys": run, "NewImage": {"state": {"S": ["completed"]}}}},
            ],
        )
        self.assertTrue(stream["BisectBatchOnFunctionError"])
        self.assertEqual(stream["FunctionResponseTypes"], ["ReportBatchItemFailures"])
        self.assertGreater(stream["MaximumRetryAttempts"], 0)
        # Before the stream itself forgets.
        self.assertLess(stream["MaximumRecordAgeInSeconds"], 24 * 3600)
        self.assertEqual(stream["DestinationConfig"]["OnFailure"], {"Type": "S3", "Destination": {"Fn::GetAtt": ["Files", "Arn"]}})
        self.assertEqual(len(alarms_on("IteratorAge", FunctionName={"Ref": "PublishChanges"})), 1)


class Api(unittest.TestCase):
    def setUp(self):
        self.api = RESOURCES["Api"]["Properties"]

    def test_only_webhooks_referral_links_and_the_document_are_open_to_everybody(self):
        opened = [
            f"{event['Method']} {event['Path']}"
            for _, event in events("HttpApi")
            if event.get("Auth", {}).get("Authorizer") == "NONE"
        ]
        self.assertEqual(
            opened,
            [
                "POST /webhooks/{sourceId}", "GET /r/{code}", "HEAD /r/{code}", "POST /webhooks/paypal/{programId}",
                "GET /api/v1/openapi.json", "GET /api/v1/docs",
            ],
        )
        self.assertIn(self.api["Auth"]["DefaultAuthorizer"], self.api["Auth"]["Authorizers"])

    def test_tokens_are_those_of_the_user_pools_own_clients(self):
        jwt = self.api["Auth"]["Authorizers"]["SignedIn"]["JwtConfiguration"]
        self.assertIn("${Users}", jwt["issuer"]["Fn::Sub"])
        audience = [a["Fn::If"][1] if "Fn::If" in a else a for a in jwt["audience"]]
        self.assertEqual(audience, [{"Ref": client} for client in of_type("AWS::Cognito::UserPoolClient")])

    def test_groups_and_scopes_are_the_roles_the_code_knows(self):
        caller = (ROOT / "functions/payouts-api/src/caller.rs").read_text()
        roles = set(re.findall(r'"([a-z-]+)" => Self::', caller))
        self.assertEqual({group["GroupName"] for group in of_type("AWS::Cognito::UserPoolGroup").values()}, roles)
        [server] = of_type("AWS::Cognito::UserPoolResourceServer").values()
        self.assertEqual({scope["ScopeName"] for scope in server["Scopes"]}, roles - {"partner"})
        self.assertEqual(re.search(r'SCOPE_PREFIX: &str = "(.*)";', caller)[1], server["Identifier"] + "/")
        for client in of_type("AWS::Cognito::UserPoolClient").values():
            for scope in client.get("AllowedOAuthScopes", []):
                self.assertIn(scope.removeprefix(server["Identifier"] + "/"), roles)

    def test_programs_sign_in_only_where_asked_for(self):
        for name in ("ReportingClient", "TokenDomain"):
            self.assertEqual(RESOURCES[name]["Condition"], "HasMachineClient")
        self.assertEqual(TEMPLATE["Parameters"]["MachineClient"]["Default"], "no")
        self.assertEqual(RESOURCES["ReportingClient"]["Properties"]["AllowedOAuthFlows"], ["client_credentials"])

    def test_it_is_logged_and_throttled(self):
        self.assertEqual(self.api["AccessLogSettings"]["DestinationArn"], {"Fn::GetAtt": ["ApiLog", "Arn"]})
        json.loads(self.api["AccessLogSettings"]["Format"])
        for settings in [self.api["DefaultRouteSettings"], *self.api["RouteSettings"].values()]:
            self.assertEqual(set(settings), {"ThrottlingRateLimit", "ThrottlingBurstLimit"})
        # What the API says of itself calls nothing, and is throttled with the rest of it.
        for name in {name for name, event in events("HttpApi") if "Auth" in event} - {"PayoutsApi"}:
            self.assertIn("ReservedConcurrentExecutions", functions()[name], name)
        routes = [f"{event['Method']} {event['Path']}" for _, event in events("HttpApi")]
        for route in self.api["RouteSettings"]:
            self.assertIn(route, routes)

    def test_what_it_answers_is_in_its_log(self):
        self.assertIn('"status":"$context.status"', self.api["AccessLogSettings"]["Format"])
        self.assertEqual(RESOURCES["ApiErrorsCount"]["Properties"]["LogGroupName"], {"Ref": "ApiLog"})


class Secrets(unittest.TestCase):
    def test_they_are_kept_and_made_for_this_stack(self):
        for name, secret in of_type("AWS::SecretsManager::Secret").items():
            self.assertEqual(RESOURCES[name]["DeletionPolicy"], "Retain")
            self.assertIn("GenerateSecretString", secret, name)
            self.assertTrue(secret["Name"]["Fn::Sub"].startswith("${AWS::StackName}/"), name)
        self.assertEqual(GLOBALS["Environment"]["Variables"]["SECRET_PREFIX"], {"Ref": "AWS::StackName"})

    def test_each_function_reads_only_what_it_needs(self):
        readers = {}
        for name, statement in statements():
            if "secretsmanager:GetSecretValue" in listed(statement["Action"]):
                readers[name] = statement["Resource"]
        self.assertEqual(readers.pop("PayoutsApi"), [{"Ref": "CursorKey"}, {"Ref": "TaxHashKey"}])
        for name in ("SubmitPayouts", "PaypalWebhook"):
            self.assertTrue(readers.pop(name)["Fn::Sub"].endswith(":secret:${AWS::StackName}/paypal/*"))
        self.assertTrue(readers.pop("StorefrontWebhook")["Fn::Sub"].endswith(":secret:${AWS::StackName}/sources/*"))
        self.assertEqual(readers, {})


class TaxNumbers(unittest.TestCase):
    def test_one_function_may_seal_them_and_another_open_them_each_for_its_partner(self):
        may = {}
        for name, statement in statements():
            for action in listed(statement["Action"]):
                if service(action) == "kms":
                    self.assertEqual(statement["Resource"], {"Fn::GetAtt": ["TaxKey", "Arn"]}, name)
                    may[action] = (name, statement["Condition"])
        for_partner = {
            "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["partner"]},
            # Without a context the condition above would hold.
            "Null": {"kms:EncryptionContextKeys": "false"},
        }
        self.assertEqual(may.pop("kms:Encrypt"), ("PayoutsApi", for_partner))
        self.assertEqual(may.pop("kms:Decrypt"), ("TaxFiling", for_partner))
        # What S3 encrypts the file under.
        self.assertEqual(may.pop("kms:GenerateDataKey")[0], "TaxFiling")
        self.assertEqual(may, {})

    def test_the_key_is_kept_and_rotates(self):
        [(name, key)] = of_type("AWS::KMS::Key").items()
        self.assertTrue(key["EnableKeyRotation"])
        self.assertEqual(RESOURCES[name]["DeletionPolicy"], "Retain")

    def test_nothing_calls_the_function_that_opens_them(self):
        self.assertNotIn("Events", functions()["TaxFiling"])
        self.assertEqual(functions()["TaxFiling"]["Policies"][0], {"Ref": "ReadTable"}, "it writes nothing into the table")


class Watching(unittest.TestCase):
    def test_every_function_has_an_alarm_on_errors_and_one_on_throttles(self):
        for name in functions():
            live = {"FunctionName": {"Ref": name}, "Resource": {"Fn::Sub": f"${{{name}}}:{GLOBALS['AutoPublishAlias']}"}}
            self.assertEqual(alarms_on("Errors", **live), [f"{name}Errors"])
            self.assertEqual(alarms_on("Throttles", FunctionName={"Ref": name}), [f"{name}Throttles"])

    def test_what_fails_without_an_error_is_counted_from_logs(self):
        """Answers of the API, and messages that are reported as failed."""
        counted = {}
        for name, count in of_type("AWS::Logs::MetricFilter").items():
            [metric] = count["MetricTransformations"]
            [alarm] = [a for a in alarms().values() if a["MetricName"] == metric["MetricName"]]
            self.assertEqual(alarm["Namespace"], metric["MetricNamespace"])
            counted[name] = count["LogGroupName"]["Ref"]
        consumers = {f"{name}FailuresCount": functions()[name]["LoggingConfig"]["LogGroup"]["Ref"] for name, _ in events("SQS")}
        self.assertEqual(counted, consumers | {"ApiErrorsCount": "ApiLog"})

    def test_the_oldest_unpaid_payout_raises_an_alarm(self):
        code = (ROOT / "functions/batch-payouts/src/lib.rs").read_text()
        for said in ('"Namespace": "PartnerPayouts"', '"Dimensions": [["FunctionName"]]', '"Name": "UnpaidAge", "Unit": "Seconds"'):
            self.assertIn(said, code)
        [alarm] = alarms_on("UnpaidAge", FunctionName={"Ref": "BatchPayouts"})
        self.assertEqual(alarms()[alarm]["Namespace"], "PartnerPayouts")
        # It is measured once an hour.
        self.assertEqual(alarms()[alarm]["Period"], 3600)

    def test_every_alarm_says_what_to_do_and_tells_somebody(self):
        for name, alarm in alarms().items():
            self.assertGreater(len(alarm["AlarmDescription"]), 60, name)
            self.assertEqual(alarm["AlarmActions"], [{"Ref": "Alarms"}], name)
            self.assertEqual(alarm["TreatMissingData"], "notBreaching", name)
        readme = (ROOT / "README.md").read_text()
        self.assertIn(f"| {len(alarms())} alarms, a dashboard |", readme)
        headings = readme.splitlines()
        named = re.findall(r'README, "([^"]+)"', " ".join(alarm["AlarmDescription"] for alarm in alarms().values()))
        self.assertTrue(named)
        for heading in named:
            self.assertIn(f"### {heading}", headings)

    def test_the_dashboard_is_free_and_shows_what_an_operator_looks_at(self):
        [dashboard] = of_type("AWS::CloudWatch::Dashboard").values()
        body = dashboard["DashboardBody"]["Fn::Sub"]
        for name in re.findall(r"\$\{(\w+)", body.replace("${AWS::", "")):
            self.assertIn(name, RESOURCES)
        metrics = [metric for widget in json.loads(body)["widgets"] for metric in widget["properties"]["metrics"]]
        # More than fifty on one dashboard are charged.
        self.assertLessEqual(len(metrics), 50)
        shown = {metric[1] for metric in metrics if len(metric) > 1}
        self.assertLessEqual(
            {
                "NumberOfMessagesSent", "ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible", "Errors",
                "Duration", "IteratorAge", "ConsumedWriteCapacityUnits", "ConsumedReadCapacityUnits", "WriteThrottleEvents",
                "ReadThrottleEvents", "4xx", "5xx", "Latency", "UnpaidAge",
            },
            shown,
        )


class Stages(unittest.TestCase):
    def test_the_configuration_has_the_three_each_a_stack_of_its_own(self):
        config = tomllib.loads((ROOT / "samconfig.toml").read_text())
        stacks = {}
        for stage in TEMPLATE["Parameters"]["Stage"]["AllowedValues"]:
            deploy = config[stage]["deploy"]["parameters"]
            self.assertIn(f"Stage={stage}", deploy["parameter_overrides"])
            stacks[stage] = deploy["stack_name"]
            self.assertIn(stage, STAGES)
        self.assertEqual(
            stacks, {"dev": "partner-payouts-dev", "staging": "partner-payouts-staging", "prod": "partner-payouts"}
        )

    def test_no_name_is_fixed(self):
        """Whatever has a name that is unique in the account has the stack's in it, or one that CloudFormation makes up."""
        given = {
            "AWS::CloudWatch::Dashboard": "DashboardName",
            "AWS::Cognito::UserPoolDomain": "Domain",
            "AWS::Events::EventBus": "Name",
            "AWS::Logs::LogGroup": "LogGroupName",
            "AWS::SecretsManager::Secret": "Name",
            "AWS::Serverless::Function": "FunctionName",
        }
        made_up = {"AlarmName", "BucketName", "ManagedPolicyName", "QueueName", "RoleName", "TableName", "TopicName"}
        for name, item in RESOURCES.items():
            properties = item.get("Properties", {})
            if item["Type"] in given:
                self.assertIn("AWS::StackName", json.dumps(properties[given[item["Type"]]]), name)
            self.assertEqual(made_up & set(properties), set(), name)
        for name, schedule in events("ScheduleV2"):
            self.assertTrue(schedule["Name"]["Fn::Sub"].startswith("${AWS::StackName}-"), name)

    def test_every_parameter_and_condition_is_used(self):
        names = [*TEMPLATE["Parameters"], *TEMPLATE["Conditions"]]
        for name in names:
            self.assertGreaterEqual(len(re.findall(rf"\b{name}\b", TEXT)), 2, name)
        for name in TEMPLATE["Parameters"]:
            self.assertIn(f"!Ref {name}", TEXT)
        for name in TEMPLATE["Conditions"]:
            self.assertRegex(TEXT, rf"(Condition: {name}\n|!If \[{name},|!If\n +- {name}\n)")


if __name__ == "__main__":
    unittest.main()
