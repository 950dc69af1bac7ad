"""Real tenants for the rehearsal pair: they hold memory (or the GPU), answer over HTTP, and sit where people put them.

Every starter is a context manager that yields what a test needs to find the tenant again, and leaves the node as it
was. Each tenant answers `GET /` on a port of the node's loopback with its own word, so that a test can ask whether it
is back *as before*.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOSTS = {"head": "spark-head", "worker": "spark-worker"}
PLACE = "/opt/real-tenants"
LOGIN = "nvidia"
LOGIN_UID = 1000
_UNITS = f"/home/{LOGIN}/.config/systemd/user"

#: Holds MIB of memory that is touched, and answers. --gpu: holds the GPU's device open; --claim: and so many MiB of
#: unified memory as the look-alike driver counts it (needs the node's own pids and /run/dspark-lab/claims).
HOG = r"""
import http.server, os, signal, sys
# The first process of a container has no default for SIGTERM: Docker would wait its 10 s for nothing, then kill.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
word, mib, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
held = bytearray(mib << 20)
for place in range(0, len(held), 4096):
    held[place] = 1
if "--gpu" in sys.argv:
    device = open("/dev/nvidia0", "rb")
if "--claim" in sys.argv:
    with open("/run/dspark-lab/claims/%d" % os.getpid(), "w") as claim:
        claim.write(sys.argv[sys.argv.index("--claim") + 1])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(word.encode())
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


@dataclass(frozen=True)
class Started:
    """A tenant that answers. pid: of the process that holds the memory, as the node counts; id: of its container."""

    role: str
    key: str
    word: str
    port: int
    pid: int
    id: str | None = None


@dataclass(frozen=True)
class Nodes:
    """Both nodes by plain ssh, as the login user; `root` goes through sudo."""

    ssh_config: Path

    def run(self, role: str, script: str, *, check: bool = True, timeout_s: float = 120) -> str:
        """Run a shell script; its output, stripped."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), HOSTS[role], "bash", "-s"],
            input=script,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{role}: {script!r} ended with {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def root(self, role: str, script: str, *, check: bool = True, timeout_s: float = 120) -> str:
        """The same as root."""
        return self.run(role, f"sudo -n bash -c {shlex.quote(script)}", check=check, timeout_s=timeout_s)

    def answer(self, role: str, port: int) -> str | None:
        """What a tenant says on its port; None when nobody answers."""
        said = self.run(role, f"curl -s -m 2 http://127.0.0.1:{port}/", check=False)
        return said or None

    def wait_answer(self, role: str, port: int, word: str | None, *, timeout_s: float = 20) -> None:
        """Wait until the port says the word; None: until nobody answers."""
        limit = time.monotonic() + timeout_s
        said = self.answer(role, port)
        while said != word:
            assert time.monotonic() < limit, f"{role}: port {port} says {said!r}, not {word!r}"
            time.sleep(0.2)
            said = self.answer(role, port)

    def image(self, role: str) -> str:
        """An image on the node that can run Python: the newest that is there."""
        found = self.root(role, "docker images -q --no-trunc").split()
        assert found, f"{role}: no image at all; deploy once first"
        return found[0]

    def available_kib(self, role: str) -> int:
        """MemAvailable of a node."""
        return int(self.run(role, "awk '/^MemAvailable/{print $2}' /proc/meminfo"))

    def clear(self) -> None:
        """End what a test that was killed has left on the nodes: it would sit on the ports of the next one."""
        mine = f"export XDG_RUNTIME_DIR=/run/user/{LOGIN_UID}; systemctl --user"
        for role in HOSTS:
            self.root(role, f"docker ps -aq --filter volume={PLACE} | xargs -r docker rm -f", check=False)
            for folder, manager in (("/etc/systemd/system", "sudo -n systemctl"), (_UNITS, mine)):
                found = self.run(role, f"cd {folder} && grep -ls {PLACE} *.service", check=False).split()
                for unit in found:
                    self.run(role, f"{manager} disable --now {unit}; sudo -n rm -f {folder}/{unit}", check=False)
            self.root(role, "pkill -KILL -f '[r]eal-tenants/'", check=False)


def _place_hog(nodes: Nodes, role: str) -> None:
    nodes.root(role, f"mkdir -p {PLACE} && cat > {PLACE}/hog.py <<'HOG'\n{HOG}\nHOG\nchmod -R a+rX {PLACE}")


def _pid_of(nodes: Nodes, role: str, port: int) -> int:
    """The process that listens on a port, as the node counts."""
    said = nodes.root(role, f"ss -H -tlnp sport = :{port}")
    return int(said.split("pid=")[1].split(",")[0])


def _extra(*, gpu: bool, claim_mib: int | None) -> str:
    return (" --gpu" if gpu else "") + (f" --claim {claim_mib}" if claim_mib is not None else "")


@contextmanager
def container(
    nodes: Nodes,
    role: str,
    *,
    name: str = "comfyui",
    mib: int = 80,
    port: int = 18188,
    restart: str = "unless-stopped",
    gpu: bool = False,
    claim_mib: int | None = None,
    labels: tuple[str, ...] = (),
) -> Iterator[Started]:
    """A plain `docker run -d` with a restart policy. claim_mib: also so much unified memory, again after a restart."""
    _place_hog(nodes, role)
    nodes.root(role, f"docker rm -f {name}", check=False)
    options = f"--name {name} --restart {restart} --network host -v {PLACE}:{PLACE}:ro --entrypoint python3"
    options += "".join(f" --label {label}" for label in labels)
    if gpu or claim_mib is not None:
        options += " --pid host --device /dev/nvidia0 -v /run/dspark-lab/claims:/run/dspark-lab/claims"
    command = f"{PLACE}/hog.py {name} {mib} {port}{_extra(gpu=gpu, claim_mib=claim_mib)}"
    try:
        identity = nodes.root(role, f"docker run -d {options} {nodes.image(role)} {command}")
        nodes.wait_answer(role, port, name)
        yield Started(role, f"container:{name}", name, port, _pid_of(nodes, role, port), identity)
    finally:
        nodes.root(role, f"docker rm -f {name}", check=False)


def has_compose(nodes: Nodes, role: str) -> bool:
    """Whether a real compose program is on the node, installing Debian's once where that works."""
    if nodes.root(role, "command -v docker-compose", check=False):
        return True
    nodes.root(
        role,
        "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
        " docker-compose",
        check=False,
        timeout_s=300,
    )
    return bool(nodes.root(role, "command -v docker-compose", check=False))


@contextmanager
def compose(
    nodes: Nodes,
    role: str,
    *,
    project: str = "studio",
    mib: int = 80,
    port: int = 18189,
    restart: str = "always",
) -> Iterator[Started]:
    """A compose project of two services, `web` (holds the memory, depends on the other) and `store` (small)."""
    _place_hog(nodes, role)
    assert has_compose(nodes, role), f"{role}: docker-compose cannot be installed there"
    directory = f"{PLACE}/{project}"
    image = nodes.image(role)
    both = f"    image: {image}\n    restart: {restart}\n    network_mode: host\n    volumes: ['{PLACE}:{PLACE}:ro']\n"
    text = (
        "version: '3.4'\nservices:\n"
        f"  store:\n{both}    entrypoint: [python3, {PLACE}/hog.py, store, '1', '{port + 1000}']\n"
        f"  web:\n{both}    depends_on: [store]\n"
        f"    entrypoint: [python3, {PLACE}/hog.py, {project}, '{mib}', '{port}']\n"
    )
    nodes.root(role, f"mkdir -p {directory} && cat > {directory}/docker-compose.yml <<'Y'\n{text}Y\n")
    down = f"cd {directory} && docker-compose down -t 1"
    try:
        nodes.root(role, f"cd {directory} && docker-compose up -d", timeout_s=180)
        nodes.wait_answer(role, port, project)
        nodes.wait_answer(role, port + 1000, "store")
        identity = nodes.root(role, f"cd {directory} && docker-compose ps -q web")
        yield Started(role, f"compose:{project}", project, port, _pid_of(nodes, role, port), identity)
    finally:
        nodes.root(role, down, check=False, timeout_s=180)


def _unit_text(word: str, mib: int, port: int, extra: str, target: str) -> str:
    return (
        f"[Unit]\nDescription=Real tenant {word}\n\n[Service]\n"
        f"ExecStart=/usr/bin/python3 {PLACE}/hog.py {word} {mib} {port}{extra}\nRestart=always\nRestartSec=1\n\n"
        f"[Install]\nWantedBy={target}\n"
    )


@contextmanager
def system_unit(
    nodes: Nodes,
    role: str,
    *,
    name: str = "llama-server.service",
    mib: int = 80,
    port: int = 18080,
    gpu: bool = False,
    claim_mib: int | None = None,
    enabled: bool = True,
) -> Iterator[Started]:
    """A unit of the system manager with Restart=always, enabled or not."""
    _place_hog(nodes, role)
    word = name.removesuffix(".service")
    text = _unit_text(word, mib, port, _extra(gpu=gpu, claim_mib=claim_mib), "multi-user.target")
    path = f"/etc/systemd/system/{name}"
    nodes.root(role, f"cat > {path} <<'U'\n{text}U\nsystemctl daemon-reload")
    try:
        nodes.root(role, f"systemctl {'enable --now' if enabled else 'start'} {name}")
        nodes.wait_answer(role, port, word)
        yield Started(role, f"unit:{name}", word, port, _pid_of(nodes, role, port))
    finally:
        clean = f"systemctl unmask --runtime {name}; systemctl disable --now {name}; rm -f {path}"
        nodes.root(role, f"{clean}; systemctl daemon-reload; systemctl reset-failed {name}", check=False)


@contextmanager
def user_unit(
    nodes: Nodes,
    role: str,
    *,
    name: str = "lmstudio.service",
    mib: int = 80,
    port: int = 11234,
    enabled: bool = True,
) -> Iterator[Started]:
    """A unit of the login user's own manager (lingering) with Restart=always: it respawns when it is killed."""
    _place_hog(nodes, role)
    word = name.removesuffix(".service")
    mine = f"export XDG_RUNTIME_DIR=/run/user/{LOGIN_UID}; systemctl --user"
    text = _unit_text(word, mib, port, "", "default.target")
    nodes.run(role, f"mkdir -p {_UNITS} && cat > {_UNITS}/{name} <<'U'\n{text}U\n{mine} daemon-reload")
    try:
        nodes.run(role, f"{mine} {'enable --now' if enabled else 'start'} {name}")
        nodes.wait_answer(role, port, word)
        yield Started(role, f"user-unit:{LOGIN}/{name}", word, port, _pid_of(nodes, role, port))
    finally:
        clean = f"{mine} unmask --runtime {name}; systemctl --user disable --now {name}; rm -f {_UNITS}/{name}"
        nodes.run(role, f"{clean}; systemctl --user daemon-reload; systemctl --user reset-failed {name}", check=False)


@contextmanager
def process(
    nodes: Nodes, role: str, *, word: str = "notebook", mib: int = 80, port: int = 18888, argv0: str | None = None
) -> Iterator[Started]:
    """A bare process that outlived the shell it was typed in: `setsid nohup ... &` over ssh. argv0: another name."""
    _place_hog(nodes, role)
    name = f"exec -a {shlex.quote(argv0)} " if argv0 else "exec "
    command = f"{name}python3 {PLACE}/hog.py {word} {mib} {port}"
    nodes.run(role, f"cd /tmp; setsid nohup bash -c {shlex.quote(command)} </dev/null >/dev/null 2>&1 &")
    try:
        nodes.wait_answer(role, port, word)
        pid = _pid_of(nodes, role, port)
        yield Started(role, f"process:{argv0 or 'hog.py'}/{pid}", word, port, pid)
    finally:
        nodes.root(role, f"pkill -KILL -f '[h]og.py {word} {mib} {port}'", check=False)


@contextmanager
def respawning_process(
    nodes: Nodes, role: str, *, word: str = "loop", mib: int = 80, port: int = 18890
) -> Iterator[Started]:
    """A shell loop that starts its server again whenever that ends; the loop is the owner. pid is the server's."""
    _place_hog(nodes, role)
    script = f"{PLACE}/{word}.sh"
    nodes.root(
        role,
        f"printf '%s\\n' '#!/bin/bash' 'while true; do python3 {PLACE}/hog.py {word} {mib} {port}; sleep 1; done'"
        f" > {script}; chmod a+rx {script}",
    )
    nodes.run(role, f"cd /tmp; setsid nohup {script} </dev/null >/dev/null 2>&1 &")
    try:
        nodes.wait_answer(role, port, word)
        pid = _pid_of(nodes, role, port)
        owner = int(nodes.run(role, f"ps -o ppid= -p {pid}"))
        yield Started(role, f"process:{word}.sh/{owner}", word, port, pid)
    finally:
        nodes.root(role, f"pkill -KILL -f '[r]eal-tenants/{word}.sh'; pkill -KILL -f '[h]og.py {word} '", check=False)
        nodes.root(role, f"rm -f {script}", check=False)


#: An engine that lost its server: it names itself as vLLM's processes do and its parent is gone.
ORPHAN = r"""
import ctypes, http.server, os, sys
title, word, mib, port, gpu = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:] == ["--gpu"]
if os.fork():
    os._exit(0)
os.setsid()
libc = ctypes.CDLL(None)
libc.prctl(15, title.encode()[:15], 0, 0, 0)
# As setproctitle does: the title over the arguments' own memory, blanks behind it.
fields = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
begin, end = int(fields[45]), int(fields[46])
ctypes.memmove(begin, title.encode().ljust(end - begin, b" ")[: end - begin - 1] + b"\0", end - begin)
held = bytearray(mib << 20)
for place in range(0, len(held), 4096):
    held[place] = 1
device = open("/dev/nvidia0", "rb") if gpu else None
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(word.encode())
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


@contextmanager
def orphan(
    nodes: Nodes,
    role: str,
    *,
    title: str = "VLLM::EngineCore",
    word: str = "orphan",
    mib: int = 80,
    port: int = 18889,
    gpu: bool = False,
) -> Iterator[Started]:
    """A left-behind engine process: titled by its arguments and its command name, its parent ended."""
    nodes.root(role, f"mkdir -p {PLACE} && cat > {PLACE}/orphan.py <<'O'\n{ORPHAN}\nO\nchmod -R a+rX {PLACE}")
    words = f"{shlex.quote(title)} {word} {mib} {port}{' --gpu' if gpu else ''}"
    nodes.run(role, f"cd /tmp && python3 {PLACE}/orphan.py {words} </dev/null >/dev/null 2>&1")
    pid = None
    try:
        nodes.wait_answer(role, port, word)
        pid = _pid_of(nodes, role, port)
        yield Started(role, f"orphan:{title}/{pid}", word, port, pid)
    finally:
        if pid is not None:
            nodes.root(role, f"[ \"$(tr -d '\\0' </proc/{pid}/comm)\" ] && kill -KILL {pid}", check=False)
