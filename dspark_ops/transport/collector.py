"""The program that runs on a node: reads what it is asked, concurrently, and answers with one JSON document.

It is fed to `python3 -I -` on standard input, followed by a call of `main`, so it may use nothing but the standard
library of Python 3.9 or newer and nothing of this package. It writes nothing on the node.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import pwd
import re
import select
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CAP = 1 << 20
#: How often a program that asks the Docker Engine looks whether another one gave up meanwhile.
POLL_S = 0.2
#: Of a line that goes on in the next block: its time stamp, and enough of its end for words that are cut in two.
HEAD, TAIL = 64, 2048


def text(raw: bytes, limit: int = CAP) -> str:
    return raw[:limit].decode("utf-8", "replace")


def sudo_works() -> bool:
    if os.geteuid() == 0:
        return True
    try:
        done = subprocess.run(
            ["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class Engine:
    """The Docker Engine in this reading. Once it left one question without an answer, none waits for it any longer."""

    def __init__(self) -> None:
        self.silent_s: float | None = None

    def problem(self) -> str | None:
        return None if self.silent_s is None else f"the Docker Engine did not answer within {self.silent_s:g} s"


class EngineSilentError(Exception):
    """Another question showed that the Engine hangs."""


def asks_engine(probe: dict[str, Any]) -> bool:
    return bool(probe["argv"]) and probe["argv"][0] == "docker"


def run_command(probe: dict[str, Any], sudo: bool, engine: Engine | None = None) -> dict[str, Any]:
    argv = list(probe["argv"])
    asked = engine if asks_engine(probe) else None
    if probe["root"] and sudo and os.geteuid() != 0:
        argv = ["sudo", "-n", *argv]
    env = dict(os.environ, LC_ALL="C.UTF-8", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    try:
        rc, out, err = output_of(argv, env, probe["timeout_s"], asked)
    except FileNotFoundError:
        return {"error": "no such program: " + argv[0]}
    except EngineSilentError as error:
        return {"error": str(error)}
    except subprocess.TimeoutExpired:
        if asked is not None:
            asked.silent_s = probe["timeout_s"]
        return {"error": f"no answer within {probe['timeout_s']:g} s: {' '.join(argv)}"}
    except OSError as error:
        return {"error": str(error)}
    return {"rc": rc, "stdout": text(out), "stderr": text(err, 8192), "cut": len(out) > CAP}


def output_of(
    argv: list[str], env: dict[str, str], timeout_s: float, engine: Engine | None = None
) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and error of a program; what goes beyond the cap is read and hardly any of it kept.

    engine: the one that the program asks; given up as soon as that one is known to hang.
    """
    problem = engine.problem() if engine else None
    if problem is not None:
        raise EngineSilentError(problem)
    deadline = time.monotonic() + timeout_s
    done = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, bufsize=0
    )
    kept = {pipe: bytearray() for pipe in (done.stdout, done.stderr) if pipe is not None}
    waiting = list(kept)
    try:
        while waiting:
            left = deadline - time.monotonic()
            ready = select.select(waiting, [], [], min(left, POLL_S) if engine else left)[0] if left > 0 else []
            problem = engine.problem() if engine and not ready else None
            if problem is not None:
                raise EngineSilentError(problem)
            if left <= 0:
                raise subprocess.TimeoutExpired(argv, timeout_s)
            for pipe in ready:
                chunk = os.read(pipe.fileno(), 1 << 16)
                if not chunk:
                    waiting.remove(pipe)
                elif len(kept[pipe]) <= CAP:  # one byte more than is brought back tells that there was more
                    kept[pipe] += chunk
        done.wait(max(0.1, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, EngineSilentError):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # a program of root's cannot be killed from here
            done.kill()
            done.wait(1)
        raise
    finally:
        for pipe in kept:
            pipe.close()
    out, err = kept.values()
    return done.returncode, bytes(out), bytes(err)


def names_on_node(probe: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for pattern in probe["links"]:
        found += [os.path.basename(path) for path in sorted(glob.glob(pattern))]
    for pattern in probe["contents"]:
        for path in sorted(glob.glob(pattern)):
            try:
                with open(path, encoding="ascii") as handle:
                    found.append(handle.read(64).strip())
            except (OSError, ValueError):
                continue
    return [name for name in dict.fromkeys(found) if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", name)]


def run_for_each(probe: dict[str, Any], sudo: bool) -> dict[str, Any]:
    names = names_on_node(probe)
    calls = [dict(probe, argv=[word.replace("{}", name) for word in probe["argv"]]) for name in names]
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(lambda call: run_command(call, sudo), calls))
    return {"files": {names[i]: answer["stdout"] for i, answer in enumerate(answers) if "stdout" in answer}}


def read_files(probe: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, str] = {}
    for pattern in probe["patterns"]:
        for path in sorted(glob.glob(pattern)):
            try:
                with open(path, "rb") as handle:
                    found[path] = text(handle.read(probe["max_bytes"]))
            except OSError:
                continue
    return {"files": found}


ROOT_READER = (
    "import glob,json,sys\n"
    "out=[]\n"
    "for q in json.loads(sys.argv[1]):\n"
    "  got={}\n"
    "  for pattern in q['patterns']:\n"
    "    for p in sorted(glob.glob(pattern)):\n"
    "      try: got[p]=open(p,'rb').read(q['max_bytes']).decode('utf-8','replace')\n"
    "      except OSError: pass\n"
    "  out.append(got)\n"
    "print(json.dumps(out))"
)


def read_as_root(probes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All files that only root may read, in one sudo: each start costs more than the reading."""
    began = time.monotonic()
    asked = json.dumps([{"patterns": p["patterns"], "max_bytes": p["max_bytes"]} for p in probes])
    argv = ["sudo", "-n", sys.executable, "-I", "-S", "-c", ROOT_READER, asked]
    answers: list[dict[str, Any]] = []
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
        answers = [{"files": files} for files in json.loads(done.stdout)]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        answers = [{"error": f"reading as root: {type(error).__name__}: {error}"} for _ in probes]
    elapsed = round(time.monotonic() - began, 4)
    return [dict(answer, id=p["id"], elapsed_s=elapsed) for p, answer in zip(probes, answers)]  # noqa: B905 (3.9)


def read_links(probe: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, str] = {}
    for pattern in probe["patterns"]:
        for path in sorted(glob.glob(pattern)):
            found[path] = os.path.realpath(path)
    return {"files": found}


def ask_http(probe: dict[str, Any]) -> dict[str, Any]:
    body = None if probe["body"] is None else json.dumps(probe["body"]).encode()
    request = urllib.request.Request(probe["url"], data=body, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=probe["timeout_s"]) as answer:
            return {"rc": answer.status, "stdout": text(answer.read(probe["max_bytes"]))}
    except urllib.error.HTTPError as error:
        return {"rc": error.code, "stdout": text(error.read(probe["max_bytes"]))}
    except (OSError, ValueError, EOFError) as error:
        return {"error": f"{type(error).__name__}: {getattr(error, 'reason', None) or error}"}
    except Exception as error:  # http.client has errors of its own that are no OSError
        return {"error": f"{type(error).__name__}: {error}"}


def read_filesystem(probe: dict[str, Any]) -> dict[str, Any]:
    path = probe["path"]
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    stat = os.statvfs(path)
    numbers = {"total_bytes": stat.f_blocks * stat.f_frsize, "free_bytes": stat.f_bavail * stat.f_frsize}
    return {"numbers": dict(numbers, total_files=stat.f_files, free_files=stat.f_favail)}


def try_port(host: str, port: int, timeout_s: float) -> str:
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except ConnectionRefusedError:
        return "refused"
    except socket.timeout:  # noqa: UP041 (3.9)
        return "silent"
    except OSError as error:
        return error.strerror or str(error)
    return "open"


def try_ports(probe: dict[str, Any]) -> dict[str, Any]:
    with ThreadPoolExecutor(max_workers=16) as pool:
        said = pool.map(lambda target: try_port(target[0], target[1], probe["timeout_s"]), probe["targets"])
        return {"files": {f"{host} {port}": word for (host, port), word in zip(probe["targets"], said)}}  # noqa: B905


class Scan:
    """The known lines of a log, counted; of each name the first and the last ones are kept, and nothing else."""

    def __init__(self, marks: list[list[str]], keep: int) -> None:
        self.marks = [(name, words.encode(), pattern) for name, words, pattern in marks]
        self.compiled: dict[str, Any] = {}
        self.head = (keep + 1) // 2
        self.tail = keep - self.head
        self.found: dict[str, dict[str, Any]] = {}
        self.first = ""
        self.last = ""
        self.begin()

    def begin(self) -> None:
        """What comes next begins with a line."""
        self.open = b""
        self.said: set[str] = set()

    def take(self, block: bytes, after: str, deadline: float) -> bool:
        """Look at lines, the last of which may go on in the next block. after: only at those with a later time stamp.

        False when the time is up: then nothing of this block counts, so that who reads it again counts it once.
        """
        if not block:
            return True
        block = self.open + block
        goes_on = block.rfind(b"\n") + 1  # where the line begins that is not yet at its end
        found: list[tuple[str, str]] = []
        said = set(self.said) if goes_on == 0 else set()
        for name, words, pattern in self.marks:
            at = block.find(words)
            while at >= 0:
                begin = block.rfind(b"\n", 0, at) + 1
                end = block.find(b"\n", at)
                end = len(block) if end < 0 else end
                whole = end - begin <= 2 * TAIL
                line = block[begin:end] if whole else block[begin : begin + HEAD] + block[at : at + TAIL]
                shown = self.known(name, pattern, line.decode("utf-8", "replace").rstrip("\r"), after)
                if shown is not None and not (begin == 0 and name in self.said):
                    found.append((name, shown))
                    if begin == goes_on:
                        said.add(name)
                if time.monotonic() > deadline:
                    return False
                at = block.find(words, end)
        for name, shown in found:
            self.count(name, shown)
        self.first = self.first or text(block[: block.find(b"\n") + 1], HEAD).rstrip()
        self.last = text(block[block.rstrip(b"\n").rfind(b"\n") + 1 :], HEAD).rstrip()
        rest = block[goes_on:]
        self.open = rest if len(rest) <= HEAD + TAIL else rest[:HEAD] + rest[-TAIL:]
        self.said = said
        return True

    def known(self, name: str, pattern: str, line: str, after: str) -> str | None:
        """What is kept of a line, or None when it is not the one that is looked for."""
        if name not in self.compiled:
            self.compiled[name] = re.compile(pattern)
        if (after and line[: len(after)] <= after) or not self.compiled[name].search(line):
            return None
        return line[:600]

    def count(self, name: str, kept: str) -> None:
        seen = self.found.setdefault(name, {"count": 0, "first": [], "last": []})
        seen["count"] += 1
        if len(seen["first"]) < self.head:
            seen["first"].append(kept)
        elif self.tail:
            seen["last"] = [*seen["last"], kept][-self.tail :]


def feed(
    argv: list[str], scan: Scan, deadline: float, max_bytes: int, after: str, engine: Engine | None = None
) -> dict[str, Any]:
    """Run a program and look at what it prints until it ends, the time is up or enough was read."""
    scan.begin()
    env = dict(os.environ, LC_ALL="C.UTF-8", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    done = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, bufsize=0
    )
    rest, size, cut = b"", 0, None
    with done.stdout or open(os.devnull, "rb") as printed:
        while cut is None:
            left = deadline - time.monotonic()
            if size >= max_bytes or left <= 0 or (engine and engine.problem()):
                cut = "size" if size >= max_bytes else "time"
                break
            if not select.select([printed], [], [], min(left, POLL_S))[0]:
                continue
            chunk = os.read(printed.fileno(), CAP)
            if not chunk:
                break
            size += len(chunk)
            block = rest + chunk
            whole = len(block) if len(block) > CAP else block.rfind(b"\n") + 1
            rest = block[whole:]
            if whole and not scan.take(block[:whole], after, deadline):
                cut = "time"
    if cut is None and rest:
        scan.take(rest, after, deadline + 0.2)
    try:
        done.wait(0.5 if cut is None else 0.1)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):  # root's; its pipe is closed, at which it ends with its next line
            done.kill()
    return {"bytes": size, "cut": cut, "rc": done.poll(), "rest": text(rest, 300)}


def scan_log(probe: dict[str, Any], sudo: bool, engine: Engine | None = None) -> dict[str, Any]:
    """The known lines of a log; when it could not be read to its end, those near the end as well."""
    asked = engine if asks_engine(probe) else None
    lead = ["sudo", "-n"] if probe["root"] and sudo and os.geteuid() != 0 else []
    scan = Scan(probe["marks"], probe["keep"])
    deadline = time.monotonic() + probe["timeout_s"]
    try:
        told = feed([*lead, *probe["argv"]], scan, deadline, probe["max_bytes"], "", asked)
        reached, cut = scan.last, told["cut"]
        problem = asked.problem() if asked and not told["bytes"] else None
        if problem is not None:
            return {"error": problem}
        if cut is not None and probe["tail_argv"]:
            limit = time.monotonic() + max(0.3, probe["timeout_s"] / 3)
            feed([*lead, *probe["tail_argv"]], scan, limit, 8 * CAP, reached.split(" ", 1)[0], asked)
    except FileNotFoundError:
        return {"error": "no such program: " + probe["argv"][0]}
    except OSError as error:
        return {"error": str(error)}
    if cut is None and told["rc"]:
        return {"rc": told["rc"], "stderr": scan.last or told["rest"]}
    fair = max(2, probe["max_lines"] // max(1, len(scan.found)))  # of every name its first and its last line come back
    if sum(len(seen["first"]) + len(seen["last"]) for seen in scan.found.values()) > probe["max_lines"]:
        for seen in scan.found.values():
            seen["first"], seen["last"] = seen["first"][: (fair + 1) // 2], seen["last"][-(fair // 2) :]
    document = {
        "marks": scan.found,
        "bytes": told["bytes"],
        "cut": cut,
        "from": scan.first,
        "until": scan.last,
        "reached": reached,
    }
    return {"rc": 0, "stdout": json.dumps(document)}


def run(probe: dict[str, Any], sudo: bool, engine: Engine | None = None) -> dict[str, Any]:
    began = time.monotonic()
    try:
        kind = probe["kind"]
        if kind == "command":
            out = run_command(probe, sudo, engine)
        elif kind == "for_each":
            out = run_for_each(probe, sudo)
        elif kind == "files":
            out = read_files(probe)
        elif kind == "links":
            out = read_links(probe)
        elif kind == "http":
            out = ask_http(probe)
        elif kind == "filesystem":
            out = read_filesystem(probe)
        elif kind == "connect":
            out = try_ports(probe)
        elif kind == "log_scan":
            out = scan_log(probe, sudo, engine)
        else:
            out = {"error": "unknown kind of probe: " + str(kind)}
    except Exception as error:  # one probe that fails must not lose the others
        out = {"error": f"{type(error).__name__}: {error}"}
    out["id"] = probe["id"]
    out["elapsed_s"] = round(time.monotonic() - began, 4)
    return out


def main(payload: str) -> None:
    began_s = time.time()
    probes = json.loads(base64.b64decode(payload))
    engine = Engine()
    with ThreadPoolExecutor(max_workers=16) as pool:
        sudo = sudo_works()
        as_root = [p for p in probes if p["kind"] == "files" and p["root"] and sudo and os.geteuid() != 0]
        rooted = pool.submit(read_as_root, as_root) if as_root else None
        results: list[dict[str, Any]] = []
        for late in (False, True):
            stage = [p for p in probes if bool(p.get("late")) is late and p not in as_root]
            results += pool.map(lambda probe: run(probe, sudo, engine), stage)
        results += rooted.result() if rooted else []
    document = {
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "sudo": sudo,
        "hostname": socket.gethostname(),
        "began_s": began_s,
        "clock_s": time.time(),
        "results": results,
    }
    sys.stdout.write("\x1edspark-ops " + json.dumps(document) + "\n")
