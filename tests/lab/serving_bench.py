"""The rehearsal pair under its supervisor, as the fault matrix drives it: harm, look, wait, and one trial whole."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.lab.node_power import node_container
from tests.lab.operator_cli import HOSTS, RANK, Operator
from tests.lab.real_tenants import Nodes
from tests.lab.serving_timeline import ContainerEvent, Expect, Measured, Seen, measure, read_events, read_journal
from tests.lab.steady_client import SteadyClient, steady_client

PYZ = "/usr/local/lib/dspark/supervise.pyz"
CONFIG = "/etc/dspark/supervise.json"
STATE_DIR = "/var/lib/dspark/supervise"
UNIT = "dspark-supervisor.service"
LABEL = "io.dspark-ops."
#: So that a matrix is not a wait for a backoff; the budget is as large as it may be, and the clocks are this machine's.
LAB_SETTINGS: Mapping[str, Any] = {
    "backoff_s": [0.0],
    "jitter": 0.0,
    "budget": 1000,
    "clock_wait_s": 0.0,
    "boot_delay_s": 0.0,
}
#: After a trial the daemon has its next looks. A start of the rehearsal's engine takes less than a minute.
_SETTLED_S, _START_S = 5.0, 240.0
#: Read, change and write the daemon's configuration; it is told only when something differs.
_SET = r"""
import json, os, sys
path, changes = sys.argv[1], json.loads(sys.argv[2])
with open(path) as file:
    document = json.load(file)
settings = {**document["settings"], **changes}
if settings == document["settings"]:
    sys.exit(0)
document["settings"] = settings
with open(os.open(path + ".lab", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
    json.dump(document, file, indent=4)
os.replace(path + ".lab", path)
print("changed")
"""
#: Everything that is a rank's and in no container of our name, and every container of ours under another.
_ORPHANS = rf"""
own=$(docker container inspect --format '{{{{.Id}}}}' {RANK} 2> /dev/null || echo none)
for pid in $(pgrep -f '[V]LLM::|[v]llm serve|[v]llm.entrypoints' || true); do
  grep -qs "$own" /proc/$pid/cgroup || echo "process $pid: $(tr '\0' ' ' < /proc/$pid/cmdline | head -c 80)"
done
docker ps -a --no-trunc --filter label={LABEL}site --format '{{{{.Names}}}} {{{{.State}}}}' \
  | grep -vx '{RANK} running' || true
"""


class NotHereError(Exception):
    """The fault cannot be done on this machine; the text says why."""


@dataclass(frozen=True)
class ServingBench:
    """url, key_file: where the steady client asks, on the head's loopback. settings: thresholds beside the lab's."""

    operator: Operator
    url: str = "http://127.0.0.1:8000"
    key_file: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def root(self, role: str, script: str, *, check: bool = True, timeout_s: float = 120) -> str:
        """A script as root, over ssh; its output, stripped."""
        return Nodes(self.operator.ssh_config).root(role, f"set -eu\n{script}", check=check, timeout_s=timeout_s)

    def inside(self, role: str, script: str) -> str:
        """A script as root, past ssh and the network: through the machine that the node runs on."""
        with node_container(role) as container:
            code, output = container.exec_run(["bash", "-euc", script])
        assert code == 0, f"{role}: {script!r} ended with {code}: {output!r}"
        return str(output.decode(errors="replace")).strip()

    def clock(self) -> float:
        """The head's clock, which everything of a trial is told in."""
        return float(self.root("head", "date +%s.%N"))

    def tell(self, *words: str) -> None:
        """A verb of the daemon's own program on the head."""
        self.root("head", f"python3 {PYZ} {shlex.join(words)} > /dev/null")

    def status(self) -> dict[str, Any]:
        """The daemon's own words; empty when it cannot be asked."""
        said = self.root("head", f"python3 {PYZ} status", check=False)
        document: dict[str, Any] = json.loads(said) if said.startswith("{") else {}
        return document

    def state(self) -> str | None:
        found = self.status().get("state")
        return None if found is None else str(found)

    def set(self, changes: Mapping[str, Any]) -> None:
        """Let the daemon go by these thresholds beside the lab's, as `adopt` does: without a restart."""
        wanted = shlex.quote(json.dumps({**LAB_SETTINGS, **self.settings, **changes}))
        if self.root("head", f"python3 - {CONFIG} {wanted} <<'SET'\n{_SET}\nSET"):
            self.tell("adopt")

    def lines(self) -> list[str]:
        """The daemon's journal: its files, and what only journald has because a disk was full."""
        files = f"cat {STATE_DIR}/journal.jsonl.1 {STATE_DIR}/journal.jsonl 2> /dev/null || true"
        text = self.root("head", f"{files}\njournalctl --unit {UNIT} --output cat --lines 2000 --no-pager || true")
        return list(dict.fromkeys(line for line in text.splitlines() if line.startswith('{"')))

    def events(self, since: float, until: float) -> tuple[ContainerEvent, ...]:
        """Starts and deaths of the ranks, as far back as each Docker remembers."""
        found: list[ContainerEvent] = []
        for role in HOSTS:
            words = f"--since {since:.3f} --until {until:.3f} --filter type=container --filter container={RANK}"
            text = self.root(role, f"timeout 20 docker events {words} --format '{{{{json .}}}}'", check=False)
            documents = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
            found += read_events(role, documents, f"{LABEL}epoch")
        return tuple(found)

    def epoch(self) -> str | None:
        """The one epoch that both ranks run under; None when there is no such."""
        found = set()
        for rank in self.operator.ranks().values():
            labels = "" if rank is None or rank["State"] != "running" else rank["Labels"]
            pairs = dict(pair.split("=", 1) for pair in labels.split(",") if "=" in pair)
            found.add(pairs.get(f"{LABEL}epoch"))
        return found.pop() if len(found) == 1 else None

    def orphans(self) -> list[str]:
        """What is a rank's and should not be there, on both nodes."""
        found = []
        for role in HOSTS:
            found += [f"left on the {role}: {line}" for line in self.root(role, _ORPHANS).splitlines() if line.strip()]
        return found

    def until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Whether it came within the limit; looked at every second."""
        limit = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > limit:
                return False
            time.sleep(1.0)
        return True

    def serves_anew(self, before: str | None) -> bool:
        """Whether it serves under another epoch than before."""
        said = self.status()
        return said.get("state") == "serving" and said.get("epoch") != before

    def prepare(self, changes: Mapping[str, Any]) -> None:
        """Let the pair serve under the lab's settings with nothing held, latched or spent: where every trial begins."""
        self.root("head", f"systemctl start {UNIT}")
        assert self.until(lambda: self.state() is not None, 30), "the supervisor cannot be asked"
        self.set(changes)
        self.tell("resume")
        if not self.until(lambda: self.state() == "serving" and self.epoch() is not None, _START_S):
            done = self.operator.run("deploy", "--yes")
            assert done.rc == 0, done
            self.set(changes)
            assert self.until(lambda: self.state() == "serving" and self.epoch() is not None, 60), self.status()


@dataclass(frozen=True)
class Fault:
    """One row of the matrix.

    inject, revert: what is done; revert runs whatever happened, and must do no harm twice. told: words that must stand
    in what the supervisor waits for or alerts, for a row that waits. hold_s: how long the fault stays, for one that is
    nothing or returns. limit_s: how long detection and recovery may take at most. settings: thresholds of this row.
    client: whether somebody asks meanwhile. core: in CI.
    """

    name: str
    expect: Expect
    inject: Callable[[ServingBench], object]
    revert: Callable[[ServingBench], object] = lambda _: None
    told: str = ""
    hold_s: float = 30.0
    limit_s: float = 300.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    client: bool = True
    core: bool = False


@dataclass(frozen=True)
class Trial:
    seen: Seen
    measured: Measured


def run_trial(bench: ServingBench, fault: Fault) -> Trial:
    """Prepare, harm, wait for what must come, take the harm off, wait until it serves, and look what is left.

    Raises:
        NotHereError: the fault cannot be done on this machine.
    """
    bench.prepare(fault.settings)
    known, before = frozenset(bench.lines()), bench.epoch()
    problems: list[str] = []
    reverted: float | None = None
    with ExitStack() as stack:
        client = stack.enter_context(_asking(bench, fault))
        injected = bench.clock()
        try:
            fault.inject(bench)
            problems += _while_harmed(bench, fault, before)
        finally:
            fault.revert(bench)
            reverted = bench.clock()
        if fault.expect.kind == "latches":
            bench.tell("resume")
        problems += _afterwards(bench, fault)
        if client is not None:
            # What hangs is taken for serving until it is detected; whoever asks knows better.
            if not bench.until(lambda: bool(_right_since(client, reverted)), fault.limit_s):
                problems.append("the client had no right answer afterwards")
            problems += _afterwards(bench, fault)
        time.sleep(_SETTLED_S)
    ended = bench.clock()
    problems += bench.orphans()
    changes, alerts = read_journal(json.loads(line) for line in bench.lines() if line not in known)
    seen = Seen(
        injected=injected,
        ended=ended,
        epoch_before=before,
        epoch_after=bench.epoch(),
        final_state=bench.state(),
        reverted=reverted,
        changes=changes,
        alerts=alerts,
        events=bench.events(injected, ended),
        asks=tuple(client.asks) if client is not None else (),
        problems=tuple(problems),
    )
    return Trial(seen, measure(fault.expect, seen))


def _while_harmed(bench: ServingBench, fault: Fault, before: str | None) -> list[str]:
    """Wait for what must come while the fault is there; what did not come."""
    kind = fault.expect.kind
    if kind == "restart":
        came = bench.until(lambda: bench.serves_anew(before), fault.limit_s)
        return [] if came else [f"it did not serve again in {fault.limit_s:g} s: {_words(bench)}"]
    if kind == "latches":
        came = bench.until(lambda: bench.state() == "failed", fault.limit_s)
        return [] if came else [f"it did not latch in {fault.limit_s:g} s: {_words(bench)}"]
    if kind == "waits":
        if not bench.until(lambda: fault.told in _words(bench), fault.limit_s):
            return [f"within {fault.limit_s:g} s it did not say {fault.told!r}: {_words(bench)}"]
        number = bench.status().get("number")
        time.sleep(3 * _SETTLED_S)
        moved = bench.status().get("number") != number
        return ["it started although it said that it waits"] if moved else []
    time.sleep(fault.hold_s)
    return []


def _afterwards(bench: ServingBench, fault: Fault) -> list[str]:
    """Wait until it serves, without the fault."""
    came = bench.until(lambda: bench.state() == "serving" and bench.epoch() is not None, fault.limit_s)
    return [] if came else [f"{fault.limit_s:g} s after the fault it did not serve: {_words(bench)}"]


def _words(bench: ServingBench) -> str:
    """State, reason, waits and alerts in a line."""
    said = bench.status()
    alerts = [alert["text"] for alert in said.get("alerts", ())]
    return "; ".join([str(said.get("state")), str(said.get("reason")), *said.get("waits_for", ()), *alerts])


@contextmanager
def _asking(bench: ServingBench, fault: Fault) -> Iterator[SteadyClient | None]:
    if not fault.client:
        yield None
        return
    at_most_s = 2 * fault.limit_s + fault.hold_s + 300
    with steady_client(
        bench.operator.ssh_config, url=bench.url, key_file=bench.key_file, at_most_s=at_most_s
    ) as client:
        yield client


def _right_since(client: SteadyClient, moment: float | None) -> list[float]:
    return [at for at in client.right_at if moment is None or at > moment]
