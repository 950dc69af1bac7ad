"""How faults are put on the rehearsal pair and taken off again, and how the doctor is asked in this process.

Every way is a context manager or a pair of scripts; each undoes exactly what it did. What only imitates a fault of the
hardware covers a look-alike (a bind mount over one file, a program before the real one in PATH): it is marked so.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dspark_ops.doctor.run import Request, diagnose
from dspark_ops.report.models import Finding, Report
from tests.lab.fabric_faults import shell
from tests.lab.node_power import node_container
from tests.lab.operator_cli import RANK, Operator
from tests.lab.real_tenants import Nodes

#: Where what covers a look-alike lies: memory, so that a node that restarts has lost it.
PLACE = "/run/doctor-faults"
#: Before the real program in everybody's PATH on a node, and before the look-alikes in /usr/local/bin.
WRAPPERS = "/usr/local/sbin"

Named = tuple[str, str]


@dataclass(frozen=True)
class Bench:
    """The pair as its operator knows it. site: another file than the operator's own."""

    operator: Operator
    site: Path | None = None

    @property
    def nodes(self) -> Nodes:
        return Nodes(self.operator.ssh_config)

    def root(self, role: str, script: str) -> str:
        """A script as root, over ssh."""
        return shell(self.operator, role, script)

    def inside(self, role: str, script: str) -> str:
        """A script as root, past ssh and sudo: through the machine that the node runs on."""
        with node_container(role) as container:
            code, output = container.exec_run(["bash", "-euc", script])
        assert code == 0, f"{role}: {script!r} ended with {code}: {output!r}"
        return str(output.decode(errors="replace"))

    def judge(self, overrides: Sequence[str] = (), *, active: bool = False) -> Report:
        """One run of the whole doctor in this process."""
        site = self.site or self.operator.site
        return diagnose(Request(site=site, overrides=tuple(overrides), active=active))


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, how it is done, and what the doctor must say.

    roots: the findings that must be root causes, by id and node, all of them and no other. follow: ids or globs that
    may be told beside them, only as what follows from them. imitated: a look-alike says so, nothing real is broken.
    serving: the pair serves meanwhile; else no rank is there. site: overrides under which it is a fault, for what is
    wrong in the site file itself. past: harm and undo go past ssh. made: instead of the two scripts.
    """

    name: str
    role: str
    roots: tuple[Named, ...]
    harm: str = ""
    undo: str = ""
    follow: tuple[str, ...] = ()
    imitated: bool = False
    serving: bool = False
    active: bool = False
    core: bool = False
    past: bool = False
    site: tuple[str, ...] = ()
    made: Callable[[Bench], AbstractContextManager[object]] | None = None

    @contextmanager
    def done_to(self, bench: Bench) -> Iterator[None]:
        """The fault is there inside, and gone afterwards whatever happened."""
        if self.made is not None:
            with self.made(bench):
                yield
            return
        run = bench.inside if self.past else bench.root
        try:
            if self.harm:
                run(self.role, self.harm)
            yield
        finally:
            if self.undo:
                run(self.role, self.undo)


def bad(report: Report) -> list[Finding]:
    """What is not well."""
    return [f for f in report.findings if f.status in ("warn", "fail", "unknown")]


def told(report: Report) -> str:
    """The findings in words, for a test that fails."""
    return (
        "\n".join(f"{f.status:<7} {f.node:<6} {f.id} <- {f.caused_by or 'root'}: {f.observed}" for f in bad(report))
        or "nothing is wrong"
    )


def wrongly_told(report: Report, faults: Sequence[Fault]) -> list[str]:
    """What the report says that it should not, and what it does not say that it should; empty when it is right."""
    wanted = {named for fault in faults for named in fault.roots}
    causes = {identity for identity, _ in wanted}
    allowed = [glob for fault in faults for glob in fault.follow]
    roots = {(f.id, f.node) for f in bad(report) if f.caused_by is None}
    wrong = [f"not named: {identity} on the {node}" for identity, node in sorted(wanted - roots)]
    wrong += [f"not expected: {identity} on the {node}" for identity, node in sorted(roots - wanted)]
    for finding in bad(report):
        if finding.caused_by is None:
            continue
        if finding.caused_by not in causes:
            wrong.append(f"{finding.id} on the {finding.node} is laid to {finding.caused_by}")
        elif not any(fnmatchcase(finding.id, glob) for glob in allowed):
            wrong.append(f"{finding.id} on the {finding.node} should not follow from {finding.caused_by}")
    return wrong


def until(question: Callable[[], list[str]], *, timeout_s: float) -> list[str]:
    """Ask until nothing is wrong; what was wrong the last time. The look-alikes follow the ports within a second."""
    limit = time.monotonic() + timeout_s
    wrong = question()
    while wrong and time.monotonic() < limit:
        time.sleep(0.5)
        wrong = question()
    return wrong


def cover(path: str, text: str) -> tuple[str, str]:
    """Scripts that lay a text over one file, as the kernel would show it, and take it away."""
    here = f"{PLACE}{path}"
    lay = f"mkdir -p {shlex.quote(str(Path(here).parent))}; printf '%s\\n' {shlex.quote(text)} > {shlex.quote(here)}"
    return f"{lay}; mount --bind {shlex.quote(here)} {shlex.quote(path)}", f"umount {shlex.quote(path)}"


def edit(path: str, expression: str) -> tuple[str, str]:
    """Scripts that change a file by sed and put back the very same bytes, owner, mode and time."""
    kept = f"{PLACE}{path}.kept"
    harm = f"mkdir -p {Path(kept).parent}; cp -a {path} {kept}; sed -i '{expression}' {path}"
    return harm, f"cp -a {kept} {path}; rm -f {kept}"


def aside(path: str) -> tuple[str, str]:
    """Scripts that take a file away and put it back."""
    kept = f"{PLACE}{path}.kept"
    return f"mkdir -p {Path(kept).parent}; mv {path} {kept}", f"mv {kept} {path}"


def put(path: str, text: str, mode: str = "0600") -> tuple[str, str]:
    """Scripts that make a file which was not there, and remove it."""
    harm = (
        f"test ! -e {path}; mkdir -p {Path(path).parent}; printf '%b' {shlex.quote(text)} > {path}; chmod {mode} {path}"
    )
    return harm, f"rm -f {path}"


def program(name: str, body: str) -> tuple[str, str]:
    """Scripts that put a program of Python before the real one. In the body REAL is the real one's path."""
    path = f"{WRAPPERS}/{name}"
    text = (
        "#!/usr/bin/python3\n# A fault of the tests: it imitates what hardware or a kernel would say.\n"
        "import os, shutil, subprocess, sys\n"
        f"REAL = shutil.which({name!r}, path='/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin')\n{body}\n"
    )
    return f"test ! -e {path}; cat > {path} <<'FAULT'\n{text}FAULT\nchmod 755 {path}", f"rm -f {path}"


def kernel_says(*lines: str) -> tuple[str, str]:
    """Scripts after which journalctl shows more lines in the kernel log of this boot, where its pattern finds them.

    Imitated: the kernel is shared with the machine, and its own log is left alone.
    """
    return program("journalctl", _KERNEL_SAYS.replace("LINES", repr(list(lines))))


_KERNEL_SAYS = """
import json, re, socket, time
words = sys.argv[1:]
done = subprocess.run([REAL, *words], capture_output=True, text=True)
def option(short, long):
    given = [w.split("=", 1)[1] for w in words if w.startswith(long + "=")]
    given += [words[i + 1] for i, w in enumerate(words[:-1]) if w in (short, long)]
    return given[-1] if given else None
pattern, form = option("-g", "--grep"), option("-o", "--output") or "short"
ours = [line for line in LINES if {"-k", "--dmesg"} & set(words) and (pattern is None or re.search(pattern, line))]
shown = done.stdout
for line in ours:
    if form == "cat":
        shown += line + chr(10)
    elif form == "json":
        at = str(int(time.time() * 1e6))
        shown += json.dumps({"__REALTIME_TIMESTAMP": at, "PRIORITY": "3", "MESSAGE": line}) + chr(10)
    else:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S") + (".000000" if "precise" in form else "") + "+0000"
        stamp = f"{time.time():.6f}" if form == "short-unix" else clock
        shown += f"{stamp} {socket.gethostname()} kernel: {line}" + chr(10)
sys.stdout.write(shown)
sys.stderr.write("" if ours else done.stderr)
sys.exit(0 if ours else done.returncode)
"""


def engine_says(*lines: str) -> tuple[str, str]:
    """Scripts that write lines into the rank's own log, as Docker keeps it, and cut them off again."""
    place = f"$(docker container inspect --format '{{{{.LogPath}}}}' {RANK})"
    write = (
        "import json,sys,datetime; t=datetime.datetime.utcnow().isoformat()+'000Z';"
        " [print(json.dumps({'log': w + chr(10), 'stream': 'stderr', 'time': t})) for w in sys.argv[1:]]"
    )
    words = " ".join(shlex.quote(line) for line in lines)
    harm = f'at="{place}"; mkdir -p {PLACE}; stat -c %s "$at" > {PLACE}/log.size; '
    harm += f'python3 -c {shlex.quote(write)} {words} >> "$at"'
    return harm, f'truncate -s "$(cat {PLACE}/log.size)" "{place}"'


#: Makes the rank's container anew with other labels, environment or image, everything else to the letter.
_REMAKE = r"""
import http.client, json, socket, sys

class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")

def ask(method, path, body=None):
    engine = Engine("engine")
    engine.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
    answer = engine.getresponse()
    text = answer.read().decode()
    assert answer.status < 300, (method, path, answer.status, text)
    return json.loads(text) if text.strip() else None

name, edits = sys.argv[1], json.loads(sys.argv[2])
made = ask("GET", f"/containers/{name}/json")
config, host = made["Config"], made["HostConfig"]
env = dict(pair.split("=", 1) for pair in config["Env"]) | edits.get("env", {})
for key in edits.get("unset", ()):
    env.pop(key, None)
config["Env"] = [f"{key}={value}" for key, value in env.items()]
config["Labels"] = {**config["Labels"], **edits.get("labels", {})}
config["Image"] = edits.get("image", config["Image"])
config["Cmd"] = [edits.get("words", {}).get(word, word) for word in config["Cmd"] or ()] + edits.get("more", [])
host.update(edits.get("host", {}))
ask("DELETE", f"/containers/{name}?force=1")
ask("POST", f"/containers/create?name={name}", {**config, "HostConfig": host})
"""


def remade(**edits: dict[str, object]) -> Callable[[Bench], AbstractContextManager[object]]:
    """The pair restarted with ranks that differ from what was deployed, as by somebody's own shell; deployed again
    afterwards. edits: by role; labels, env, unset, image, words, more, host."""

    @contextmanager
    def made(bench: Bench) -> Iterator[None]:
        try:
            for role in ("head", "worker"):
                bench.root(role, f"docker stop -t 5 {RANK} > /dev/null")
            for role, edit_ in edits.items():
                words = shlex.quote(json.dumps(edit_))
                bench.root(role, f"python3 - {RANK} {words} <<'REMAKE'\n{_REMAKE}\nREMAKE")
            for role in ("worker", "head"):
                bench.root(role, f"docker start {RANK} > /dev/null")
            wait_for_api(bench)
            yield
        finally:
            deploy_again(bench)

    return made


def wait_for_api(bench: Bench, *, timeout_s: float = 180) -> None:
    """Until the head's API names its model."""
    limit = time.monotonic() + timeout_s
    while "max_model_len" not in bench.nodes.run("head", "curl -s -m 2 http://127.0.0.1:8000/v1/models", check=False):
        assert time.monotonic() < limit, f"no API within {timeout_s:g} s"
        time.sleep(1)


def deploy_again(bench: Bench) -> None:
    """The pair as the site says, made anew: a container that only looks right is not kept."""
    stopped = bench.operator.run("stop", "--yes", "--remove")
    assert stopped.rc == 0, stopped
    done = bench.operator.run("deploy", "--yes")
    assert done.rc == 0, done
