"""template.yaml as it is, with the functions' own binaries, deployed to ministack, an emulator of AWS.

All that is known here of the template is read from it. Where the emulator falls short of AWS, or a test cannot wait as long as
the template lets it, there is one function that says so; the template gives way nowhere.
"""

import json
import os
import pathlib
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time

import boto3
import cfn_flip
import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
STACK = "partner-payouts"
REGION = "eu-central-1"
ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
LAST_LINES = 60


def say(text):
    print(f"-- {text}", file=sys.stderr, flush=True)


def until(what, check, seconds=60):
    """The first answer of `check` that counts as true."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.2)
    return answer


# ---------------------------------------------------------------- the template, made ready


def read_template():
    return json.loads(cfn_flip.to_json((ROOT / "template.yaml").read_text()))


def of_type(template, kind):
    return {name: item.get("Properties", {}) for name, item in template["Resources"].items() if item["Type"] == kind}


def functions(template):
    return of_type(template, "AWS::Serverless::Function")


def http_events(template):
    for name, function in functions(template).items():
        for event, given in function.get("Events", {}).items():
            if given["Type"] == "HttpApi":
                yield name, f"{name}{event}", given["Properties"]


def binary(template, function):
    return template["Resources"][function]["Metadata"]["BuildProperties"]["Binary"]


def package(template, bucket):
    """What `sam package` would do, for zips that cargo-lambda made."""
    for name, function in functions(template).items():
        function["CodeUri"] = {"Bucket": bucket, "Key": f"{binary(template, name)}.zip"}


def strip_gradual_deployments(template):
    """The emulator has none, and refuses a stack that wants them."""
    for function in [template["Globals"]["Function"], *functions(template).values()]:
        function.pop("DeploymentPreference", None)


def nodes(node):
    """Every object in a template."""
    if isinstance(node, dict):
        yield node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from nodes(item)


def policies(template):
    return [node for node in nodes(template["Resources"]) if "Statement" in node]


def strip_what_cannot_be_judged(template):
    """The emulator has no value for these keys. A grant is judged without them; a refusal without them would refuse everything."""
    unknown = {"dynamodb:LeadingKeys", "aws:SecureTransport", "events:source"}
    for policy in policies(template):
        kept = []
        for statement in policy["Statement"]:
            condition = statement.get("Condition", {})
            known = {test: keys for test, keys in condition.items() if not unknown.intersection(keys)}
            if known == condition or statement["Effect"] == "Allow":
                kept.append(statement | {"Condition": known})
        policy["Statement"] = kept


def name_batches(template):
    """To AWS, sending a batch is sending; the emulator asks for it by its own name."""
    for policy in policies(template):
        for statement in policy["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            statement["Action"] = [*actions, "sqs:SendMessageBatch"] if "sqs:SendMessage" in actions else actions


def refer_to_secrets_by_arn(template):
    """To AWS, a reference to a secret is its ARN; to the emulator it is its name, which no policy matches."""
    secrets = of_type(template, "AWS::SecretsManager::Secret")
    for node in nodes(template["Resources"]):
        if node.keys() == {"Ref"} and node["Ref"] in secrets:
            node["Fn::GetAtt"] = [node.pop("Ref"), "Id"]


def add_routes(template):
    """The emulator passes over the OpenAPI document in which SAM states routes and authorizers, but takes them as resources."""
    add = template["Resources"].__setitem__
    for api, properties in of_type(template, "AWS::Serverless::HttpApi").items():
        for name, authorizer in properties.get("Auth", {}).get("Authorizers", {}).items():
            jwt = authorizer["JwtConfiguration"]
            add(f"{api}{name}", {"Type": "AWS::ApiGatewayV2::Authorizer", "Properties": {
                "ApiId": {"Ref": api}, "Name": name, "AuthorizerType": "JWT", "IdentitySource": [authorizer["IdentitySource"]],
                "JwtConfiguration": {"Issuer": jwt["issuer"], "Audience": jwt["audience"]},
            }})
    for function, name, event in http_events(template):
        api = event["ApiId"]["Ref"]
        default = template["Resources"][api]["Properties"].get("Auth", {}).get("DefaultAuthorizer", "NONE")
        authorizer = event.get("Auth", {}).get("Authorizer", default)
        signed_in = {"AuthorizationType": "JWT", "AuthorizerId": {"Ref": f"{api}{authorizer}"}}
        add(f"{name}Integration", {"Type": "AWS::ApiGatewayV2::Integration", "Properties": {
            "ApiId": {"Ref": api}, "IntegrationType": "AWS_PROXY", "PayloadFormatVersion": "2.0",
            "IntegrationUri": {"Ref": f"{function}.Alias"},
        }})
        add(f"{name}Route", {"Type": "AWS::ApiGatewayV2::Route", "Properties": {
            "ApiId": {"Ref": api}, "RouteKey": f"{event['Method']} {event['Path']}",
            "Target": {"Fn::Sub": f"integrations/${{{name}Integration}}"},
            **(signed_in if authorizer != "NONE" else {}),
        }})


# ---------------------------------------------------------------- the emulator


class Cloud:
    """An emulator of AWS with the stack in it. To be stopped, whatever happens."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="partner-payouts-cloud-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.log = pathlib.Path(self.folder.name, "emulator.log")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            # Functions find it by this; it passes the variable on.
            "AWS_ENDPOINT_URL": self.endpoint,
            # Without a container engine: each execution environment is a process.
            "LAMBDA_EXECUTOR": "local",
            # Every call of a function is judged by the policies of its role.
            "AUTH": "true",
            # These would listen on all addresses.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "TMPDIR": self.folder.name,
        }
        # A group of its own, so that the functions' processes end with it.
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ministack"], env=environment, cwd=self.folder.name, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )
        self.session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        self.resources = {}
        self.outputs = {}

    def stop(self):
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, how)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
        self.folder.cleanup()

    def client(self, service):
        return self.session.client(service, endpoint_url=self.endpoint)

    def deploy(self, zips):
        until("the emulator answers", self.answers)
        template = read_template()
        s3 = self.client("s3")
        bucket = f"{STACK}-binaries"
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        for name in functions(template):
            crate = binary(template, name)
            # The renderer takes too long to build for this. In its place stands what it is but for its press: the API.
            built = "payouts-api" if crate == "render-documents" else crate
            s3.upload_file(str(zips / built / "bootstrap.zip"), bucket, f"{crate}.zip")
        package(template, bucket)
        strip_gradual_deployments(template)
        strip_what_cannot_be_judged(template)
        name_batches(template)
        refer_to_secrets_by_arn(template)
        add_routes(template)
        # Larger than what can be sent with the request, as for the SAM CLI.
        s3.put_object(Bucket=bucket, Key="template.json", Body=json.dumps(template))
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=STACK, TemplateURL=f"{self.endpoint}/{bucket}/template.json",
            Parameters=[{"ParameterKey": "Architecture", "ParameterValue": ARCHITECTURE}],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        [stack] = until("the stack is made", lambda: [
            stack for stack in cloudformation.describe_stacks(StackName=STACK)["Stacks"]
            if not stack["StackStatus"].endswith("_IN_PROGRESS")
        ])
        if stack["StackStatus"] != "CREATE_COMPLETE":
            events = cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
            wrong = [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}" for event in events
                     if event["ResourceStatus"].endswith("FAILED")]
            raise AssertionError("\n".join([f"{stack['StackStatus']}: {stack.get('StackStatusReason')}", *wrong]))
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=STACK):
            for resource in page["StackResourceSummaries"]:
                self.resources[resource["LogicalResourceId"]] = resource
        self.set_boundaries(template)

    def set_boundaries(self, template):
        """The emulator makes a function's role without its boundary, and judges by it once it is there."""
        for name, function in functions(template).items():
            boundary = (template["Globals"]["Function"] | function)["PermissionsBoundary"]["Ref"]
            self.client("iam").put_role_permissions_boundary(RoleName=self.id(f"{name}Role"), PermissionsBoundary=self.id(boundary))

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the emulator ended:\n{self.log.read_text()}")
        try:
            return requests.get(f"{self.endpoint}/_ministack/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    def id(self, resource):
        """The physical id of a resource of the template."""
        return self.resources[resource]["PhysicalResourceId"]

    def http(self, method, path, **request):
        """A request to the API, by the name it goes by; nobody resolves that name here."""
        headers = request.pop("headers", {}) | {"Host": self.outputs["ApiUrl"].split("//")[1]}
        return requests.request(method, self.endpoint + path, headers=headers, timeout=60, **request)

    def processes(self, function):
        """The execution environments of a function."""
        named = f"AWS_LAMBDA_FUNCTION_NAME={self.id(function)}\0".encode()
        for folder in pathlib.Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and named in folder.joinpath("environ").read_bytes():
                    # Another emulator may run the same function.
                    if os.getpgid(int(folder.name)) == self.process.pid:
                        yield int(folder.name)
            except (ProcessLookupError, FileNotFoundError, PermissionError):
                continue

    def hurry(self):
        """A test cannot wait for an hour's schedule, nor six times a function's timeout for a message to come again."""
        scheduler = self.client("scheduler")
        for summary in scheduler.list_schedules()["Schedules"]:
            schedule = scheduler.get_schedule(Name=summary["Name"], GroupName=summary["GroupName"])
            kept = {name: schedule[name] for name in ("Name", "GroupName", "Target", "FlexibleTimeWindow", "State")}
            scheduler.update_schedule(**kept, ScheduleExpression="rate(1 minutes)")
        sqs = self.client("sqs")
        for resource in self.resources.values():
            if resource["ResourceType"] == "AWS::SQS::Queue":
                sqs.set_queue_attributes(QueueUrl=resource["PhysicalResourceId"], Attributes={"VisibilityTimeout": "5"})

    def tell(self):
        """What functions and emulator said last, for whoever reads a failure."""
        logs, said = self.client("logs"), []
        for resource in self.resources.values():
            if resource["ResourceType"] == "AWS::Logs::LogGroup":
                group = resource["PhysicalResourceId"]
                messages = [event["message"].rstrip() for event in logs.filter_log_events(logGroupName=group)["events"]]
                # Lambda's own lines about each call tell nothing here.
                said += [f"{group}: {message}" for message in messages if message.startswith("{")][-LAST_LINES:]
        print("\n".join([*said, *self.log.read_text().splitlines()[-LAST_LINES:]]), file=sys.stderr)
