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


def read_files(probe: dict[str, Any], sudo: bool) -> dict[str, Any]:
    found: dict[str, str] = {}
    for pattern in probe["patterns"]:
        if probe["root"] and sudo and os.geteuid() != 0:
            found.update(read_as_root(pattern, probe["max_bytes"]))
            continue
        for path in sorted(glob.glob(pattern)):
            try:
                with open(path, "rb") as handle:
                    found[path] = text(handle.read(probe["max_bytes"]))
            except OSError:
                continue
    return {"files": found}


ROOT_READER = (
    "import glob,json,sys\n"
    "out={}\n"
    "for p in sorted(glob.glob(sys.argv[1])):\n"
    "  try: out[p]=open(p,'rb').read(int(sys.argv[2])).decode('utf-8','replace')\n"
    "  except OSError: pass\n"
    "print(json.dumps(out))"
)


def read_as_root(pattern: str, limit: int) -> dict[str, str]:
    argv = ["sudo", "-n", sys.executable, "-I", "-c", ROOT_READER, pattern, str(limit)]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=8, check=False)
        answer: dict[str, str] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    return answer


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
        elif kind == "files":
            out = read_files(probe, sudo)
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
    with ThreadPoolExecutor(max_workers=8) as pool:
        sudo = sudo_works()
        results = list(pool.map(lambda probe: run(probe, sudo), probes))
    document = {
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "sudo": sudo,
        "hostname": socket.gethostname(),
        "clock_s": time.time(),
        "results": results,
    }
    sys.stdout.write("\x1edspark-ops " + json.dumps(document) + "\n")
