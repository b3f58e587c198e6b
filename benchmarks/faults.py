"""Writes docs/faults.md: each row of the fault table with the result of its tests.

    make test-faults
    python benchmarks/faults.py results.xml [more.xml ...]      # from pytest -m fault --junitxml=results.xml

Rows without a test in the results are an error, except those that are optional here because another page holds them.
"""

import sys
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

from didact.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "faults.md"
EXACT = "losses and weights bitwise those of an unbroken run, no sample lost or doubled"
ROWS = {
    "T1": ("nothing, twice the same seed", "losses and weights bitwise equal"),
    "T2": ("a break mid-epoch, mid-accumulation, at an epoch's end and in a later epoch; resume", EXACT),
    "T3": ("T2 twice, with dropout, packed and padded, over a weighted mixture", EXACT),
    "T4": (
        "SIGKILL of worker 0 in the forward pass, between micro-batches, in the update",
        f"{EXACT}; steps redone at most the checkpoint interval; restarts used equal kills; a spent budget ends it",
    ),
    "T5": ("SIGKILL of worker 1 of 2", f"{EXACT}; no worker process is left"),
    "T6": ("SIGKILL right after a report returned", "resumed at the last committed step; no other checkpoint folders"),
    "T7": ("SIGKILL of the driver, the same command again", f"{EXACT}; same MLflow run; one registered version"),
    "T8": ("SIGKILL of every process of Ray, the same command again", f"{EXACT}; no process of the old Ray is left"),
    "T9": (
        "SIGTERM of a worker; a drained node",
        "checkpoint of the current step before exit; no step redone; charged to max_preemptions, not to max_failures",
    ),
    "T10": ("SIGTERM, then SIGKILL during the save", f"the checkpoint before is used; {EXACT}"),
    "T11": (
        "2 workers, then 1, then 2; nodes that come and go under an elastic run",
        "sample ids equal; losses within 1e-6 relative a step of one worker's, also over 500 steps; losses and weights "
        "bitwise those of a run in one process with the same numbers of workers",
    ),
    "T12": (
        "a batch with loss NaN",
        "stops before the update, names step and samples; the last checkpoint is finite; NaN is in the record and in "
        "MLflow, with the reason",
    ),
    "T13": (
        "an infinite gradient on one of two workers",
        "with max_skipped_steps both skip the same step and count it, also over restarts; weights equal",
    ),
    "T14": (
        "out of memory on one worker, then again",
        "once more with half the micro-batch, same samples, losses within 1e-5; the second time an error with advice",
    ),
    "T15": ("SIGSTOP of a worker", f"found within hang_timeout_seconds; {EXACT}; no worker process is left"),
    "T16": ("a mistake in the program; a wrong recipe", "not tried again; exit code 2; a wrong recipe starts nothing"),
    "T17": (
        "SIGKILL of a search after measurements, decisions and ends of trials; of two trials' workers, then of the "
        "driver; the same command again",
        "as many results as trials; the same trials stopped and finished as undisturbed, by every scheduler; held-out "
        "losses and adapters of each equal, and the best one the same; finished ones not run again; one MLflow run "
        "each, below one parent",
    ),
    "T18": (
        "16 trials that log 200 metrics each through one MLflow server, which stands still meanwhile",
        "no step waits; 3,200 of 3,200 points once it goes on; no answer above 399",
    ),
    "C1": (
        "each file of the newest checkpoint missing, truncated, one bit flipped",
        f"set aside, the one before used; {EXACT}",
    ),
    "C2": ("all checkpoints damaged", "refused with a list of reasons; from the base only with --allow-fresh"),
    "C3": (
        "SIGKILL at every single touch of the file system during a save",
        "only whole checkpoints are left; the next start removes leftovers",
    ),
    "C4": ("Ray's own JSON records truncated", "continues from our manifests"),
    "C5": (
        "a full disk (a mounted one) during a save, under MLflow's database, during a download of an adapter",
        "class storage, exit code 75; the checkpoint before verifies; nothing half-written is left; with room again "
        f"{EXACT}, and MLflow and the adapter are whole",
    ),
    "C6": ("storage that turns read-only (a mounted one), or forbids writing", "as C5"),
    "C7": ("old checkpoints dropped while another process reads one", "the one in use stays until it is read"),
    "C8": (
        "a pickle in place of weights, optimizer or method state, with a fitting manifest",
        "refused; its code not run",
    ),
    "C9": (
        "resume with another learning rate, data, base, length, rank",
        "refused with the differences; others allowed",
    ),
    "D1": ("every kind of bad row", "accepted and rejected rows add up; each reject has file, line and reason"),
    "D2": ("bad rows in a mixture", "the mixture is as asked; the rejects are counted"),
    "D3": ("a row without a learned token after truncation", "rejected or counted; never a NaN loss"),
    "D4": ("a record of 200,000 tokens", "truncated or rejected; memory stays bounded"),
    "D5": ("a file changed between check and training", "refused before the first step"),
    "D6": ("one row changed far into a file", "another digest"),
    "D7": ("the same rows in other files or another order of files", "the same digest and order"),
    "M6": ("register twice, and from two processes at once", "one version of an adapter; both callers get it"),
    "M7": (
        "an end, also by SIGKILL, before and after every single change that a registration makes",
        "the same call again ends with one version, all tags, verdict and alias; never an alias before the rest",
    ),
    "M8": (
        "two promotions from the same state at once",
        "one wins, the other is told that the alias was moved meanwhile; both are noted",
    ),
    "M9": (
        "an alias that moves while nobody tells, or three times, or while the registry is down; a forged notice of it",
        "answered by the new version within two looks at the registry, which is made ready once; notices find no door, "
        "so none can be lost, forged or sent again late",
    ),
    "M10": (
        "a judge that is down, hangs, drips, refuses, or answers rubbish in fourteen ways",
        "no score comes of it; the evaluation ends by its deadline, says that it is incomplete, and promotes nothing",
    ),
    "S1": (
        "an alias that moves five times under eight clients",
        "each of 1,000 requests answered as its version answers; nobody gets the old one after one had the new one",
    ),
    "S2": (
        "an alias moved, under load, to a version of another base, damaged, gone, or with NaN",
        "the name and all others answer as before, every request; its entry says why; a good version is followed again",
    ),
    "S3": (
        "SIGKILL of one of two replicas under long answers, whole and streamed",
        "what it had is told as `engine_died`, a stream by its last event, and not sent to the other, which it may end "
        "too; all else is answered; another replica takes its place",
    ),
    "S4": (
        "SIGKILL of Serve's controller; of its proxy",
        "without the controller every request is answered; the proxy's end costs open connections alone, and another "
        "answers at the same address",
    ),
    "S5": (
        "SIGKILL of one replica after the other, under load",
        "99 of 100 requests answered, all as their version answers; the gateway's memory grows by a tenth at most",
    ),
    "S6": (
        "adapters with files missing, changed, unlisted, linked, pickled; of another base",
        "400 for that name alone; no folder of the server is named",
    ),
    "S7": ("two adapters by turns in one place", "every answer that of the adapter alone"),
    "S8": (
        "200 clients that leave in the middle of their answers, one by one and as a crowd",
        "nothing is generated beyond the step under way; places, adapters' places and memory are given back, and the "
        "process does not grow",
    ),
    "S9": (
        "prompts over the context, longest answers over it, 10,000 messages, 60 MB, huge n and seed",
        "400 or 413; the model reads no token of it",
    ),
    "S10": ("a body that never arrives", "408 and the connection closed"),
    "S11": ("more requests than the engine queues", "429 with Retry-After"),
    "S12": ("a registry that is down", "names in use keep answering; others get 503 with Retry-After"),
    "S13": ("an adapter that takes long to read", "nobody waits who does not ask for it"),
    "S14": ("a new deployment under long answers, whole and streamed", "every request is answered, old and new"),
    "S15": (
        "a replica that can never be built",
        "the start ends in bounded tries and says what they ran into; no application is left",
    ),
    "X1": ("no, a wrong, an expired, a revoked key on every route", "401 on all but health, readiness and version"),
    "X2": (
        "names and paths with `..`, encoded, NUL, absolute, 300 characters, other dots, links",
        "404 or 400; nothing outside is looked at, and no answer names a folder",
    ),
    "X3": ("secrets in keys and environment", "none in errors, headers, metrics and logs"),
    "X4": ("a pickle beside an adapter's weights", "refused; not loaded"),
    "X5": (
        "sources and judges at link-local and metadata addresses, by name, number and redirect",
        "refused before anything is asked of them, unless `DIDACT_ALLOWED_ADDRESSES` names the address",
    ),
    "X6": ("a key that asks for another's models, files and batches", "404, as if there were none"),
}
OPTIONAL = {f"D{number}" for number in range(1, 8)}
HEAD = """# Faults

What is injected into a run, what must hold, and what the tests of each row found. `make test-faults` runs them all and
writes this page; `make test` runs those that take seconds. Faults are injected at named places (failpoints), never by
timing. "Equal" is bitwise, on one thread of a CPU.

| id | injected | must hold | result |
|---|---|---|---|
"""


def results(files: list[Path]) -> dict[str, Counter[str]]:
    """Outcomes by row; a later file replaces what an earlier one says of the same test."""
    outcomes: dict[tuple[str, str], tuple[list[str], str]] = {}
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            rows = [each.get("value", "") for each in case.iter("property") if each.get("name") == "fault"]
            bad = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")
            outcomes[case.get("classname", ""), case.get("name", "")] = (rows, bad)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for rows, outcome in outcomes.values():
        for row in rows:
            found[row][outcome] += 1
    return found


def page(found: dict[str, Counter[str]]) -> str:
    """The whole page.

    Raises:
        SystemExit: a row without tests, or tests of a row that the table does not have.
    """
    if odd := sorted(found.keys() ^ ROWS.keys() - (OPTIONAL - found.keys())):
        raise SystemExit(f"rows without tests in the results, or unknown ones: {', '.join(odd)}")
    lines = []
    for row, (injected, holds) in ROWS.items():
        if row in found:
            result = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found[row].items()))
            lines.append(f"| {row} | {injected} | {holds} | {result} |\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    write_text(PAGE, page(results([Path(name) for name in sys.argv[1:]])))
    print(f"wrote {PAGE}")
