"""Proof that the simulator bites: makes each bug of bugs.toml in a copy of the project, one at a time, and lets the simulator find it.

    tests/simulator/bite.py              all of them; writes tests/simulator/BITES.md
    tests/simulator/bite.py --only 3,7   some, by number
    tests/simulator/bite.py --check      only that every bug can still be made

Exits non-zero if a bug is not found.
"""

import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TREE = TARGET / "bite"
REPORT = HERE / "BITES.md"


def bugs(kind="bug"):
    return tomllib.loads((HERE / "bugs.toml").read_text()).get(kind, [])


def check(all_bugs):
    """What cannot be made any more, because the code has moved on."""
    return [
        f"{bug['name']}: {bug['file']} has it {count} times"
        for bug in all_bugs
        if (count := (ROOT / bug["file"]).read_text().count(bug["find"])) != 1
    ]


def changing():
    """The packages that bugs are made in, and all that stand on these."""
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    needs = {package["name"]: set(package.get("dependencies", [])) for package in packages if "source" not in package}
    manifests = {next(up / "Cargo.toml" for up in (ROOT / bug["file"]).parents if (up / "Cargo.toml").exists()) for bug in bugs() + bugs("unfound")}
    found = {tomllib.loads(manifest.read_text())["package"]["name"] for manifest in manifests}
    while more := {name for name, needed in needs.items() if needed & found} - found:
        found |= more
    return found


def copy():
    TREE.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = ROOT / name, TREE / name
        if not source.is_file() or name == "Cargo.toml" and (TREE / name).exists():
            continue
        # An untouched file keeps its time, so that cargo compiles only what a bug changes.
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    # What compiles again for a bug: quickly matters more than quick. What it stands on stays as it is.
    settings = "".join(f"\n[profile.sim.package.{name}]\nopt-level = 0\n" for name in sorted(changing()))
    manifest = (ROOT / "Cargo.toml").read_text() + settings
    if (TREE / "Cargo.toml").read_text() != manifest:
        (TREE / "Cargo.toml").write_text(manifest)


def cargo(*arguments):
    environment = dict(os.environ, CARGO_TARGET_DIR=str(TARGET), CARGO_INCREMENTAL="1")
    return subprocess.run(["cargo", *arguments], cwd=TREE, env=environment, capture_output=True, text=True)


def bite(bug, worlds, jobs):
    """Which invariant broke in how many worlds, and how many were played: no more are begun once it is found."""
    path = TREE / bug["file"]
    clean = path.read_text()
    path.write_text(clean.replace(bug["find"], bug["replace"]))
    try:
        built = cargo("build", "--profile", "sim", "--package", "simulator")
        if built.returncode:
            print(f"{bug['name']}: does not compile\n{built.stderr}", file=sys.stderr)
            return collections.Counter(), 0
        # A copy, so that it does not matter who else builds meanwhile.
        simulator = shutil.copy2(TARGET / "sim" / "simulator", TREE / "simulator")
        played = subprocess.run(
            [simulator, "--seeds", f"1..{worlds + 1}", "--jobs", str(jobs), "--no-shrinking", "--until-found"],
            capture_output=True,
            text=True,
        )
        count = re.search(r"^(\d+) worlds, ", played.stdout, re.MULTILINE)
        broken = collections.Counter(re.findall(r"^seed \d+ FAILED \((.*?)\):", played.stderr, re.MULTILINE))
        return broken, int(count[1]) if count else 0
    finally:
        path.write_text(clean)


def reported():
    """What earlier calls found, so that some can be made again."""
    rows = re.findall(r"^\| (.+?) \| \d+ of (\d+) \| (.*) \|$", REPORT.read_text(), re.MULTILINE)
    counted = {name: {one: int(count) for one, count in re.findall(r"(\S.*?) \((\d+)\)(?:, |$)", broken)} for name, _, broken in rows}
    return {name: (counted[name], int(played)) for name, played, _ in rows}


def report(all_bugs, found, worlds):
    lines = [
        "# What the simulator finds",
        "",
        f"Each bug of `bugs.toml`, alone, in up to {worlds} worlds (seeds 1 to {worlds}) of 240 steps, two at a time: in how many of those played it was",
        "found, and by which invariant. Made by `tests/simulator/bite.py`, which begins no more worlds once a bug is found; rows of 30 worlds are",
        "older, when all were played. A row stands until its bug is tried again, and worlds have become richer meanwhile.",
        "",
        "| bug | found in | broken invariant (worlds) |",
        "|---|---:|---|",
    ]
    for bug in all_bugs:
        if bug["name"] in found:
            broken, played = collections.Counter(found[bug["name"]][0]), found[bug["name"]][1]
            invariants = ", ".join(f"{name} ({count})" for name, count in broken.most_common())
            lines.append(f"| {bug['name']} | {sum(broken.values())} of {played} | {invariants or 'not found'} |")
    unfound = bugs("unfound")
    if unfound:
        lines += ["", "Bugs that it has yet to learn to find:", "", *(f"- {bug['name']}" for bug in unfound)]
    REPORT.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", type=lambda text: {int(number) for number in text.split(",")})
    parser.add_argument("--worlds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    all_bugs = bugs()
    gone = check(all_bugs)
    if gone:
        sys.exit("bugs.toml has fallen behind the code:\n" + "\n".join(gone))
    if options.check:
        print(f"{len(all_bugs)} bugs can be made")
        return
    copy()
    found = reported() if options.only else {}
    missed = []
    for number, bug in enumerate(all_bugs, 1):
        if options.only and number not in options.only:
            continue
        begun = time.monotonic()
        broken, played = bite(bug, options.worlds, options.jobs)
        told = ", ".join(f"{name} ({count})" for name, count in broken.most_common()) or "NOT FOUND"
        print(f"{number:>3} {bug['name']}: {told} [{time.monotonic() - begun:.0f} s]", file=sys.stderr, flush=True)
        if not broken:
            missed.append(bug["name"])
        found[bug["name"]] = broken, played
        report(all_bugs, found, options.worlds)
    if missed:
        sys.exit("not found: " + "; ".join(missed))


if __name__ == "__main__":
    main()
