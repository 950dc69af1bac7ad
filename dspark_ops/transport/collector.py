"""The program that runs on a node: reads what it is asked, concurrently, and answers with one JSON document.

It is fed to `python3 -I -` on standard input, followed by a call of `main`, so it may use nothing but the standard
library of Python 3.9 or newer and nothing of this package. It writes nothing on the node.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import pwd
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CAP = 1 << 20


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


def run_command(probe: dict[str, Any], sudo: bool) -> dict[str, Any]:
    argv = list(probe["argv"])
    if probe["root"] and sudo and os.geteuid() != 0:
        argv = ["sudo", "-n", *argv]
    env = dict(os.environ, LC_ALL="C.UTF-8", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=probe["timeout_s"],
            env=env,
            check=False,
        )
    except FileNotFoundError:
        return {"error": "no such program: " + argv[0]}
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {probe['timeout_s']:g} s: {' '.join(argv)}"}
    except OSError as error:
        return {"error": str(error)}
    return {"rc": done.returncode, "stdout": text(done.stdout), "stderr": text(done.stderr, 8192)}


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
    return [name for name in dict.fromkeys(found) if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", name)]


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
    return {"numbers": {"total_bytes": stat.f_blocks * stat.f_frsize, "free_bytes": stat.f_bavail * stat.f_frsize}}


def run(probe: dict[str, Any], sudo: bool) -> dict[str, Any]:
    began = time.monotonic()
    try:
        kind = probe["kind"]
        if kind == "command":
            out = run_command(probe, sudo)
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
        else:
            out = {"error": "unknown kind of probe: " + str(kind)}
    except Exception as error:  # one probe that fails must not lose the others
        out = {"error": f"{type(error).__name__}: {error}"}
    out["id"] = probe["id"]
    out["elapsed_s"] = round(time.monotonic() - began, 4)
    return out


def main(payload: str) -> None:
    probes = json.loads(base64.b64decode(payload))
    with ThreadPoolExecutor(max_workers=16) as pool:
        sudo = sudo_works()
        as_root = [p for p in probes if p["kind"] == "files" and p["root"] and sudo and os.geteuid() != 0]
        rooted = pool.submit(read_as_root, as_root) if as_root else None
        results: list[dict[str, Any]] = []
        for late in (False, True):
            stage = [p for p in probes if bool(p.get("late")) is late and p not in as_root]
            results += pool.map(lambda probe: run(probe, sudo), stage)
        results += rooted.result() if rooted else []
    document = {
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "sudo": sudo,
        "hostname": socket.gethostname(),
        "clock_s": time.time(),
        "results": results,
    }
    sys.stdout.write("\x1edspark-ops " + json.dumps(document) + "\n")
