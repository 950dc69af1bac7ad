"""Weights from the head to the worker: `model sync` over all rails, beside rsync over one ssh stream; prints the ratio.

usage: weights_mirror.py SITE [MEGABYTES]   (the rehearsal pair must be up; what is made on the nodes is removed again)

Both move the same files, between the same directories, in the same run, and both prove what arrives. rsync goes over
the first rail's address, so that it is not the management network which is measured. The first number is of the
transfer alone, the second of the whole verb.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from dspark_ops.config.load import load_site

RUNS = 3
REPO, REVISION, CACHE = "bench/mirror", "b" * 40, "/var/lib/dspark-ops-bench-hub"
FOLDER = f"{CACHE}/models--bench--mirror"
KEY = "/root/.ssh/dspark-bench"
_MAKE = """
import hashlib, json, os, pathlib, sys
cache, megabytes = pathlib.Path(sys.argv[1]), int(sys.argv[2])
folder, revision = cache / "models--bench--mirror", sys.argv[3]
for name in ("blobs", "refs", f"snapshots/{revision}"):
    (folder / name).mkdir(parents=True)
files = []
for number in range(8):
    content = os.urandom(megabytes * 1000000 // 8)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / digest).write_bytes(content)
    name = f"model-{number}.safetensors"
    (folder / "snapshots" / revision / name).symlink_to(f"../../blobs/{digest}")
    files.append({"name": name, "size": len(content), "blob": digest, "sha256": digest})
(folder / "refs" / "main").write_text(revision)
records = pathlib.Path("/var/lib/dspark-ops/weights")
records.mkdir(parents=True, exist_ok=True)
document = {"version": 1, "repo": "bench/mirror", "revision": revision, "files": files}
(records / f"models--bench--mirror@{revision}.json").write_text(json.dumps(document))
"""


class Pair:
    """Both nodes by ssh, as root."""

    def __init__(self, site: Path) -> None:
        loaded = load_site(site).site
        self.rail = loaded.fabric.rails[0]
        self.rails = len(loaded.fabric.rails)
        config = ["-F", str(loaded.ssh.config)] if loaded.ssh.config else []
        self._ssh = {role: ["ssh", *config, loaded.nodes.of(role).host] for role in ("head", "worker")}

    def run(self, role: str, script: str) -> str:
        """A shell script as root; its output."""
        done = subprocess.run(
            [*self._ssh[role], "sudo", "-n", "bash", "-eus"], input=script, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{role}: {done.stderr.strip()}")
        return done.stdout.strip()


def prepare(pair: Pair, megabytes: int) -> None:
    """rsync on both nodes, a key of its own from head to worker, and the weights on the head."""
    for role in ("head", "worker"):
        pair.run(
            role, "command -v rsync > /dev/null || { apt-get -qq update; apt-get -qq install -y rsync; } > /dev/null"
        )
    clean(pair)
    pair.run("head", f"mkdir -p -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -C dspark-bench -f {KEY}")
    key = pair.run("head", f"cat {KEY}.pub")
    pair.run("worker", f"mkdir -p -m 700 /root/.ssh; echo '{key}' >> /root/.ssh/authorized_keys")
    pair.run("head", f"python3 - {CACHE} {megabytes} {REVISION} <<'TEXT'\n{_MAKE}\nTEXT\n")


def clean(pair: Pair) -> None:
    """Nothing of this program on either node, but rsync."""
    for role in ("head", "worker"):
        pair.run(
            role,
            f"rm -rf {CACHE} {KEY}* /var/lib/dspark-ops/weights/models--bench--mirror@*; "
            "test ! -f /root/.ssh/authorized_keys || sed -i '/ dspark-bench$/d' /root/.ssh/authorized_keys",
        )


def ours(site: Path) -> tuple[float, float]:
    """One mirror into an empty cache: seconds of the transfer, and of the whole verb."""
    began = time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dspark-ops"), "model", "sync", "--site", str(site), "--yes", "--json"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    whole = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    told = {(m["subject"], m["what"]): m["value"] for m in json.loads(done.stdout)["measurements"]}
    return told["sync", "transfer"], whole


def theirs(pair: Pair) -> float:
    """One rsync into an empty cache over one ssh stream: seconds, measured on the head."""
    ssh = f"ssh -i {KEY} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    target = f"root@{pair.rail.worker.address.ip}:{FOLDER}/"
    script = f"b=$(date +%s.%N); rsync -a --whole-file -e '{ssh}' {FOLDER}/ {target}; e=$(date +%s.%N); echo $b $e"
    began, ended = pair.run("head", script).split()
    return float(ended) - float(began)


def main() -> None:
    path, megabytes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 500
    pair = Pair(path)
    site = yaml.safe_load(path.read_text(encoding="utf-8"))
    site.setdefault("model", {})["hub"] = {"repo": REPO, "revision": REVISION, "cache": CACHE}
    site.setdefault("guards", {})["disk_floor_gib"] = 1
    mirrors, verbs, copies = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        ours_site = Path(folder) / "site.yml"
        ours_site.write_text(yaml.safe_dump(site), encoding="utf-8")
        try:
            prepare(pair, megabytes)
            for _ in range(RUNS):
                pair.run("worker", f"rm -rf {FOLDER}; mkdir -p {FOLDER}; sync")
                copies.append(theirs(pair))
                pair.run("worker", f"rm -rf {FOLDER}; sync")
                transfer, whole = ours(ours_site)
                mirrors.append(transfer)
                verbs.append(whole)
        finally:
            clean(pair)
    mirror, verb, copy = (statistics.median(times) for times in (mirrors, verbs, copies))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"python {platform.python_version()}, {os.cpu_count()} cores for both nodes, load {load}")
    print(f"{megabytes} MB in 8 files, from one container to another of this machine")
    print(f"rsync, one ssh stream over {pair.rail.name}  {copy:6.2f} s  {megabytes / copy:7.0f} MB/s  median of {RUNS}")
    print(f"model sync over {pair.rails} rails, transfer   {mirror:6.2f} s  {megabytes / mirror:7.0f} MB/s")
    print(f"model sync, the whole verb            {verb:6.2f} s")
    print(f"ratio of the transfers                {copy / mirror:6.2f}")
    print(f"ratio with the whole verb             {copy / verb:6.2f}")


if __name__ == "__main__":
    main()
