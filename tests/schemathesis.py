"""Schemathesis against the local system, by the document that the system itself serves. Run by .ci/run with the Python that has
schemathesis; what is given to this goes on to it, like `--include-path /api/v1/runs` or `--seed 2`.

The system has played its demo, so there is one of everything. Whatever is answered must be as described; what is described must be
taken, and nothing else; and after all of it the books must balance.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
# With as many examples for each operation, all of it takes some four minutes on two cores.
EXAMPLES = 10
# How often an id is a real one.
KNOWN = 0.7

# Ids: where they are listed and as what, the paths that take one, and the fields that name one.
IDS = {
    "programs": ("/programs", "id", "programs", ["query.programId", "body.programId"]),
    "partners": (
        "/partners?programId={program}",
        "id",
        "partners",
        ["query.partnerId", "body.partnerId", "body.partner.id", "body.shares[*].partnerId"],
    ),
    "conversions": ("/commissions", "conversionId", "conversions", []),
    "commissions": ("/commissions", "id", "(audit/)?commissions", ["body.ids[*]", "body.commissionIds[*]"]),
    "payouts": ("/payouts", "id", "payouts", ["body.payoutIds[*]", "body.payouts[*].id"]),
    "runs": ("/runs?programId={program}", "id", "runs", []),
}


def rules(paged):
    return f"""
seed = 1
continue-on-failure = true
warnings = false

[generation]
max-examples = {EXAMPLES}
database = "none"

# A schema cannot say what exists, what has changed meanwhile, or how fields must agree; and no renderer is installed here.
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 303, 403, 404, 406, 409, 412, 422]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 412, 415, 422]

# Nor which parameters belong together; and a cursor is authenticated, so nobody can make one up.
[[operations]]
include-name = {json.dumps(paged)}
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 422]

# Intuit is asked first, and refuses a registration that was made up here.
[[operations]]
include-path-regex = "^/api/v1/quickbooks/connections/.*/(choices|reconciliations)$"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
checks.positive_data_acceptance.expected-statuses = ["2xx", 303, 403, 404, 406, 409, 412, 422, 503]

# Not part of a new program.
[[operations]]
include-path = "/api/v1/programs/{{id}}/paypal"
checks.ensure_resource_availability.enabled = false
"""


def known_ids(read):
    """Dictionaries of the ids that there are, and where they are used."""
    program = read("/programs")["data"][0]["id"]
    dictionaries, parameters, operations = [], ["[parameters]"], []
    for name, (listed, field, path, fields) in IDS.items():
        ids = [one[field] for one in read(listed.format(program=program))["data"] if one[field]]
        use = f'{{ dictionary = "{name}", probability = {KNOWN} }}'
        dictionaries.append(f"[dictionaries.{name}]\nvalues = {json.dumps(ids)}")
        parameters += [f'"{field}" = {use}' for field in fields]
        operations.append(f"[[operations]]\ninclude-path-regex = '^/api/v1/{path}/\\{{id\\}}'\nparameters.\"path.id\" = {use}")
    return "\n".join(dictionaries + parameters + operations)


def paged(document):
    cursor = {"$ref": "#/components/parameters/cursor"}
    listing = [path for path, of in document["paths"].items() if cursor in of.get("get", {}).get("parameters", [])]
    return [f"GET {path}" for path in listing]


def check(url):
    def ask(path, body=None, **headers):
        request = urllib.request.Request(url + path, body and json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    token = ask("/_local/token", {"role": "admin", "subject": "ann"})["token"]
    ids = known_ids(lambda path: ask(f"/api/v1{path}", authorization=f"Bearer {token}"))
    document = "/api/v1/openapi.json"
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory, "schemathesis.toml")
        config.write_text(rules(paged(ask(document))) + ids)
        schemathesis = pathlib.Path(sys.executable).parent / "schemathesis"
        command = [schemathesis, "--config-file", config, "run", url + document, "--header", f"Authorization: Bearer {token}"]
        found = subprocess.run(command + sys.argv[1:], cwd=directory).returncode
    ask("/_local/settle", {})
    broken = [invariant for invariant in ask("/_local/audit")["invariants"] if not invariant["holds"]]
    if found or broken:
        sys.exit(f"schemathesis ended with {found}; broken invariants: {broken}")


subprocess.run(["cargo", "build", "--quiet", "--locked", "--bin", "local"], cwd=ROOT, check=True)
with subprocess.Popen([ROOT / "target/debug/local", "demo", "--port", "0"], stdout=subprocess.PIPE, text=True) as system:
    try:
        ready = next(line for line in system.stdout if line.startswith("ready "))
        check(ready.split()[1])
    finally:
        system.terminate()
