"""What goes wrong with a pair that serves, done to the rehearsal pair: each row with what must come of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from tests.lab import serving_load
from tests.lab.fabric_faults import A0, A1, B0, B1
from tests.lab.node_power import node_container
from tests.lab.operator_cli import HOSTS, RANK
from tests.lab.serving_bench import CONFIG, PYZ, STATE_DIR, UNIT, Fault, NotHereError, ServingBench
from tests.lab.serving_load import Load
from tests.lab.serving_timeline import Expect

#: Where a fault keeps what it has to put back: memory, so that a node that restarts has lost it with the fault.
PLACE = "/run/serving-faults"
#: A death is told by the next look at the latest (5 s), or by the next canary (15 s). Serving again is a start of the
#: rehearsal's engine on two cores; on a pair of GB10s the load of the weights comes on top.
_DEATH_S, _SERVE_S = 10.0, 120.0
#: A wedge: the window of 180 s, its confirmation of 60 s, one canary of 60 s.
_WEDGE_S = 300.0
_DIED = Expect(
    "restart",
    frozenset({"process", "engine"}),
    detect_goal_s=_DEATH_S,
    serve_goal_s=_SERVE_S,
    beyond_load_goal_s=15.0,
)
_HANGS = Expect(
    "restart",
    frozenset({"counters", "canary", "api", "node"}),
    detect_goal_s=_WEDGE_S,
    serve_goal_s=_WEDGE_S + _SERVE_S,
)
#: The engine core does not wait for a worker beyond a limit of its own, and ends: that is a death.
_WORKER_HANGS = replace(_HANGS, by=_HANGS.by | {"process"})
_CALM = Expect("nothing")
#: A node's Docker that was ended has forgotten what ran: what ran together cannot be told from its events.
_RETURNS = Expect("returns", restarts=2, starts=3, serve_goal_s=_SERVE_S, events_whole=False)
Do = Callable[[ServingBench], object]


def on(role: str, script: str) -> Do:
    return lambda bench: bench.root(role, script)


def pid_of(title: str) -> str:
    """A shell word for the first process of the rank with this title, as the node counts it."""
    return f"$(docker container top {RANK} -eo pid,args | grep {title} | head -1 | cut -d' ' -f1)"


_FIRST = f"$(docker container inspect --format '{{{{.State.Pid}}}}' {RANK})"
PROCESSES: Mapping[str, tuple[str, str]] = {
    "API server": ("head", _FIRST),
    "engine core": ("head", pid_of("VLLM::EngineCore")),
    "worker 0": ("head", pid_of("VLLM::Worker")),
    "worker 1": ("worker", pid_of("VLLM::Worker")),
    "launcher of worker 1": ("worker", _FIRST),
}


def _killed(name: str) -> Fault:
    role, pid = PROCESSES[name]
    return Fault(f"kill -9 {name}", _DIED, on(role, f"kill -9 {pid}"), core=name == "engine core")


def _stopped(name: str, *, client: bool = True) -> Fault:
    """A process that hangs; the pair's restart ends it, so there is nothing to put back."""
    role, pid = PROCESSES[name]
    when = "" if client else " while idle"
    expect = _HANGS if name == "engine core" else _WORKER_HANGS
    return Fault(f"SIGSTOP {name}{when}", expect, on(role, f"kill -STOP {pid}"), limit_s=900.0, client=client)


def _link(role: str, ports: tuple[str, ...], name: str, *, hold_s: float, expect: Expect) -> Fault:
    down = "\n".join(f"ip link set {port} down" for port in ports)
    up = "\n".join(f"ip link set {port} up; networkctl reconfigure {port}" for port in ports)
    return Fault(name, expect, on(role, down), on(role, f"{up}\nsleep 1"), hold_s=hold_s, limit_s=600.0)


#: On both rails' first ports, as they come in: a kernel without netem has this.
_LOSE = "\n".join(
    f"iptables -A INPUT -i {port} -m statistic --mode random --probability 0.01 -j DROP" for port in (A0, A1)
)
_LOSE_NONE = "\n".join(
    f"iptables -D INPUT -i {port} -m statistic --mode random --probability 0.01 -j DROP 2> /dev/null || true"
    for port in (A0, A1)
)


def _lossy(bench: ServingBench) -> None:
    said = bench.root("worker", f"({_LOSE}) 2>&1 || true", check=False)
    if said:
        raise NotHereError(f"the kernel cannot lose packets here: {said[:120]}")


#: The worker's management address is dropped on the head alone: the control host still reaches both.
_MANAGEMENT = f"""at=$(python3 -c "import json; print(next(a['address'] for a in
 json.load(open('{CONFIG}'))['worker']['addresses'] if a['path'] == 'management'))")"""
_UNDER_HOLD = f"python3 {PYZ} hold --reason trial --owner matrix --for-s 900 > /dev/null"
_RESUMED = f"python3 {PYZ} resume > /dev/null"


def _down_and(script: str) -> Do:
    """Both ranks are ended under a hold, something is done on the head, and the hold ends: a start is to come."""

    def inject(bench: ServingBench) -> None:
        bench.root("head", f"{_UNDER_HOLD}\ndocker kill {RANK} > /dev/null")
        bench.root("worker", f"docker kill {RANK} > /dev/null")
        assert bench.until(lambda: bench.state() == "cooling", 60), bench.status()
        bench.root("head", f"{script}\n{_RESUMED}")

    return inject


_TAKE_PORT = f"""mkdir -p {PLACE}; cat > {PLACE}/port.py <<'HOLD'
import json, socket, time
port = json.load(open("{CONFIG}"))["node_ports"][-1]
listener = socket.create_server(("0.0.0.0", port))
time.sleep(3600)
HOLD
systemd-run --quiet --collect --unit=serving-port -- python3 {PLACE}/port.py
sleep 2; systemctl is-active --quiet serving-port"""

#: A claim of 1 TB; the node's look-alike is to show it, and the daemon to have looked since.
_TAKE_MEMORY = """echo 1000000 > /run/dspark-lab/claims/1
timeout 60 sh -c 'until grep -q "MemAvailable: *0 kB" /proc/meminfo; do sleep 0.2; done'; sleep 10"""

_BAD_COMMAND = f"""mkdir -p {PLACE}; cp -a {CONFIG} {PLACE}/config.kept
python3 - <<'EDIT'
import json
document = json.load(open("{CONFIG}"))
for rank in document["ranks"].values():
    rank["command"].append("--no-such-option")
json.dump(document, open("{CONFIG}", "w"))
EDIT
python3 {PYZ} adopt > /dev/null
docker kill {RANK} > /dev/null"""
_GOOD_COMMAND = f"""if test -e {PLACE}/config.kept; then
cp -a {PLACE}/config.kept {CONFIG}; rm {PLACE}/config.kept
python3 {PYZ} adopt > /dev/null || systemctl restart {UNIT}; fi"""

#: The state moves to a small disk of its own and back, each time while the unit is stopped; its evidence stays behind.
_SMALL_DISK = f"""systemctl stop {UNIT}; mkdir -p {PLACE}/state; cp -a {STATE_DIR}/*.json* {PLACE}/state/
mount -t tmpfs -o size=4m,mode=0700 serving-fault {STATE_DIR}; cp -a {PLACE}/state/. {STATE_DIR}/; chmod 700 {STATE_DIR}
systemctl start {UNIT}; sleep 5; head -c 64M /dev/zero > {STATE_DIR}/full 2> /dev/null || true
docker kill {RANK} > /dev/null"""
_LARGE_DISK = f"""if mountpoint -q {STATE_DIR}; then
rm -f {STATE_DIR}/full; sleep 8; systemctl stop {UNIT}; rm -rf {PLACE}/state; mkdir -p {PLACE}/state
cp -a {STATE_DIR}/*.json* {PLACE}/state/; umount {STATE_DIR}; cp -a {PLACE}/state/. {STATE_DIR}/; chmod 700 {STATE_DIR}
rm -rf {PLACE}/state; systemctl start {UNIT}; fi"""

#: The containers share this machine's clock: only the daemon's own is moved, by a file that it reads each time.
_CLOCK_FILE = "/usr/lib/python3/dist-packages/serving-fault.pth"
CLOCK = (
    "import sys, time; time.time = (lambda now=time.time, read=open: now() + float(read('/run/serving-clock').read()))"
    " if sys.orig_argv[-1] == 'run' and any('supervise.pyz' in word for word in sys.orig_argv) else time.time"
)


def _clock(step_s: int) -> Fault:
    def inject(bench: ServingBench) -> None:
        lay = f"echo 0 > /run/serving-clock; cat > {_CLOCK_FILE} <<'PTH'\n{CLOCK}\nPTH\nsystemctl restart {UNIT}"
        bench.root("head", f"{lay}\nsleep 8\n{_UNDER_HOLD}\necho {step_s} > /run/serving-clock\nsleep 8")
        said = bench.status()
        assert abs(float(said["at"]) - bench.clock() - step_s) < 60, "the daemon's clock did not move"
        # A hold that ends by the wall clock would be gone by now.
        assert said["held"], "the hold of 900 s ended with the step"

    back = f"echo 0 > /run/serving-clock; sleep 8; {_RESUMED}; rm -f {_CLOCK_FILE}; systemctl restart {UNIT}; sleep 5"
    return Fault(f"the clock steps {step_s:+d} s", _CALM, inject, on("head", back), hold_s=20.0)


def _power(roles: tuple[str, ...], name: str, *, gap_s: float = 0.0) -> Fault:
    """Everything on the nodes ends at once; they come back one after the other, in this order."""

    def cut(bench: ServingBench) -> None:
        for role in roles:
            with node_container(role) as container:
                container.kill()

    def give(bench: ServingBench) -> None:
        from dspark_ops.lab import pair

        for number, role in enumerate(roles):
            time.sleep(gap_s if number else 0.0)
            with node_container(role) as container:
                container.start()
        pair.up(engine=False)

    return Fault(name, _RETURNS, cut, give, hold_s=20.0, limit_s=600.0, client=False)


def _frozen(hold_s: float, expect: Expect) -> Fault:
    def pause(bench: ServingBench) -> None:
        with node_container("worker") as container:
            container.pause()

    def go_on(bench: ServingBench) -> None:
        with node_container("worker") as container:
            container.reload()
            if container.status == "paused":
                container.unpause()

    return Fault(f"the worker is frozen for {hold_s:g} s", expect, pause, go_on, hold_s=hold_s, limit_s=900.0)


def _docker_restarts(role: str) -> Fault:
    expect = replace(_DIED, by=frozenset(), detect_goal_s=20.0, serve_goal_s=180.0, restarts=2, starts=3,
                     events_whole=False)  # fmt: skip
    return Fault(f"Docker on the {role} restarts", expect, on(role, "systemctl restart docker.service"))


def _killed_at(state: str, harm: str, expect: Expect, *, limit_s: float = 300.0) -> Fault:
    """The supervisor is killed as soon as its journal tells this state, while something is being put right."""
    seen = f"""$(grep -c '"target": "{state}"' {STATE_DIR}/journal.jsonl || true)"""
    watch = f"""mkdir -p {PLACE}; cat > {PLACE}/kill.sh <<'KILL'
before={seen}; touch {PLACE}/kill.watching
while test {seen} -le $before; do sleep 0.02; done
kill -9 $(systemctl show --property MainPID --value {UNIT})
touch {PLACE}/kill.done
KILL
rm -f {PLACE}/kill.done {PLACE}/kill.watching; systemd-run --quiet --collect --unit=serving-kill -- bash {PLACE}/kill.sh
until test -e {PLACE}/kill.watching; do sleep 0.05; done
{harm}
timeout {limit_s:.0f} bash -c 'until test -e {PLACE}/kill.done; do sleep 0.2; done'"""
    undo = f"systemctl stop serving-kill 2> /dev/null || true; rm -f {PLACE}/kill*; {_GOOD_COMMAND}"
    settings = {"budget": 4} if expect.kind == "latches" else {}

    def inject(bench: ServingBench) -> None:
        bench.root("head", watch, timeout_s=limit_s + 60)

    return Fault(f"kill -9 supervisor at {state}", expect, inject, on("head", undo), limit_s=limit_s, settings=settings)


def _load(kind: Load, name: str, hold_s: float = 600.0) -> Fault:
    quiet = kind == "prefill"

    def inject(bench: ServingBench) -> None:
        bench.root("head", serving_load.start(kind))
        assert bench.until(lambda: _loaded(bench, queue=not quiet), 60), "the engine has nothing of the load"

    return Fault(name, _CALM, inject, on("head", serving_load.stop()), hold_s=hold_s, client=quiet)


def _loaded(bench: ServingBench, *, queue: bool) -> bool:
    engine = bench.status().get("engine") or {}
    return bool(engine.get("waiting" if queue else "running"))


_MPID = f"kill -9 $(systemctl show --property MainPID --value {UNIT})"
_KILL_CORE = f"kill -9 {PROCESSES['engine core'][1]}"
_STOP_CORE = f"kill -STOP {PROCESSES['engine core'][1]}"
#: The one that is lost, four that the budget allows, and the one after the cause is gone.
_LATCHES = Expect(
    "latches", frozenset({"process"}), frozenset({"latched"}), detect_goal_s=_DEATH_S, restarts=5, starts=5
)

#: No GPU is here to fall off a bus: the program that prints the kernel's log says so, and a rank dies of it.
_DMESG = "/usr/local/sbin/dmesg"
_XID = f"""at=$(cut -d' ' -f1 /proc/uptime); mkdir -p {PLACE}
echo "[$at] NVRM: Xid (PCI:000f:01:00): 79, pid=1234, name=python3, GPU has fallen off the bus." > {PLACE}/dmesg
printf '#!/bin/sh\\nexec cat {PLACE}/dmesg\\n' > {_DMESG}; chmod 755 {_DMESG}; sleep 8
{_KILL_CORE}"""

ALL: tuple[Fault, ...] = (
    *(_killed(name) for name in PROCESSES),
    # Its launcher ends some seconds later; where it does not, the next canary is the first to ask.
    replace(
        _killed("worker 1"), name="kill -9 worker 1 while idle", client=False, expect=replace(_DIED, detect_goal_s=20.0)
    ),
    Fault("docker kill of the head's rank", _DIED, on("head", f"docker kill {RANK} > /dev/null")),
    Fault("docker rm -f of the worker's rank", _DIED, on("worker", f"docker rm -f {RANK} > /dev/null")),
    *(_stopped(name) for name in ("engine core", "worker 0", "worker 1")),
    _stopped("worker 1", client=False),
    Fault(
        "a rank dies under a hold",
        Expect("waits", frozenset({"process"}), detect_goal_s=_DEATH_S, serve_goal_s=_SERVE_S),
        on("head", f"{_UNDER_HOLD}\n{_KILL_CORE}"),
        on("head", _RESUMED),
        told="the hold of matrix ends",
        core=True,
    ),
    _link("worker", (B1,), "one rail without traffic is down", hold_s=60.0, expect=_CALM),
    _link("worker", (A0,), "the first rail is down for 8 s", hold_s=8.0, expect=_CALM),
    _link(
        "worker",
        (A0, B0, A1, B1),
        "all rails are down for 400 s",
        hold_s=400.0,
        expect=replace(_RETURNS, alerts=frozenset({"fabric-lost"}), events_whole=True),
    ),
    Fault(
        "MTU 1500 on one end for 30 s",
        replace(_RETURNS, events_whole=True),
        on("worker", f"ip link set {A0} mtu 1500"),
        on("worker", f"ip link set {A0} mtu 9000"),
        limit_s=600.0,
    ),
    Fault(
        "1 % of packets are lost",
        _CALM,
        _lossy,
        on("worker", _LOSE_NONE),
        hold_s=120.0,
    ),
    Fault(
        "the management path is lost",
        Expect("nothing", alerts=frozenset({"management-lost"}), detect_goal_s=60.0),
        on("head", f"{_MANAGEMENT}; iptables -I OUTPUT -d $at -j DROP"),
        on("head", f"{_MANAGEMENT}; while iptables -D OUTPUT -d $at -j DROP 2> /dev/null; do :; done"),
        hold_s=90.0,
    ),
    _frozen(20.0, _CALM),
    _frozen(120.0, replace(_RETURNS, alerts=frozenset({"worker-unreachable"}), events_whole=True)),
    Fault(
        "somebody has the rendezvous port",
        Expect("waits", serve_goal_s=_SERVE_S),
        _down_and(_TAKE_PORT),
        on("head", "systemctl stop serving-port 2> /dev/null || true"),
        told="ports on head are free: ",
    ),
    Fault(
        "somebody has the memory",
        Expect("waits", serve_goal_s=_SERVE_S),
        _down_and(_TAKE_MEMORY),
        on("head", "rm -f /run/dspark-lab/claims/1"),
        told="GiB are available on head",
    ),
    Fault(
        "the disk of the state is full",
        Expect("waits", alerts=frozenset({"state-not-saved"}), serve_goal_s=_SERVE_S),
        on("head", _SMALL_DISK),
        on("head", _LARGE_DISK),
        told="the state file can be written",
    ),
    _clock(3600),
    _clock(-3600),
    _power(("worker",), "the worker loses power"),
    _power(("head",), "the head loses power"),
    _power(("head", "worker"), "both lose power, the head is first", gap_s=40.0),
    _power(("worker", "head"), "both lose power, the worker is first", gap_s=40.0),
    *(_docker_restarts(role) for role in HOSTS),
    Fault(
        "no start lasts",
        _LATCHES,
        on("head", _BAD_COMMAND),
        on("head", _GOOD_COMMAND),
        limit_s=600.0,
        settings={"budget": 4},
    ),
    Fault(
        "a fatal Xid, and a rank dies",
        Expect("latches", alerts=frozenset({"latched", "harm"}), detect_goal_s=20.0),
        on("head", _XID),
        # The line is there still when a person resumes: it is known from then on, and the pair starts.
        on("head", f"test ! -e {_DMESG} || {{ {_RESUMED}; sleep 8; rm -f {_DMESG} {PLACE}/dmesg; }}"),
    ),
    Fault("kill -9 supervisor at serving", _CALM, on("head", _MPID)),
    *(_killed_at(state, _KILL_CORE, _DIED) for state in ("stopping", "cooling", "starting", "gate")),
    *(_killed_at(state, _STOP_CORE, _HANGS, limit_s=900.0) for state in ("suspect", "draining")),
    _killed_at("failed", _BAD_COMMAND, _LATCHES, limit_s=600.0),
    _load("prefill", "the longest prompts for 10 min"),
    _load("saturation", "more requests than run at once for 10 min"),
    Fault("nobody asks for 10 min", _CALM, lambda _: None, hold_s=600.0, client=False),
)
BY_NAME: Mapping[str, Fault] = {fault.name: fault for fault in ALL}
#: Rows of the matrix that need no pair; each is proven where its parts can be had whole.
ELSEWHERE: Mapping[str, str] = {
    "a prefill of 20 minutes": "tests/unit/supervise/core/test_fault_matrix.py",
    "cloud key invalid, 429, slow; a cut in the middle of a stream": "tests/gateway/test_faults.py",
    "garble at 1, 5 and 100 %": "tests/unit/gates",
    "a wrong digest on one node": "tests/unit/deploy/test_moved_tag.py",
}
