"""Weights on the rehearsal pair, harmed as downloads and copies are in the field, and what the doctor says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.lab.doctor_bench import Bench, Fault
from tests.lab.operator_cli import Operator
from tests.lab.test_doctor_faults import assert_healthy, assert_named

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(600)]

REPO, REVISION = "acme/doctor-model", "6" * 40
CACHE, PORT = "/var/lib/dspark-ops-doctor-hub", 18094
FOLDER = f"{CACHE}/models--acme--doctor-model"
SNAPSHOT = f"{FOLDER}/snapshots/{REVISION}"
UPSTREAM, PROGRAM, UNIT = "/run/doctor-upstream", "/run/doctor-hub.py", "doctor-fault-hub"
COUNT, SIZE = 4, 2_000_000
_MAKE = """
import json, os, pathlib, sys
folder, count, size = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder.mkdir(parents=True)
names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
for name in names:
    (folder / name).write_bytes(os.urandom(size))
index = {"metadata": {"total_size": count * size - 4096}, "weight_map": {n: n for n in names}}
(folder / "model.safetensors.index.json").write_text(json.dumps(index))
(folder / "config.json").write_text(json.dumps({"model_type": "deepseek_v4", "max_position_embeddings": 1 << 20}))
(folder / "tokenizer.json").write_text("{}")
(folder / "tokenizer_config.json").write_text("{}")
"""


def shard(number: int) -> str:
    return f"$(readlink -f {SNAPSHOT}/model-{number:05d}-of-{COUNT:05d}.safetensors)"


FAULTS = (
    Fault(
        "a shard is cut short",
        "worker",
        (("weights.index_size", "worker"),),
        f"cp -a {shard(3)} /run/doctor-shard; truncate -s -600000 {shard(3)}",
        f"cp -a /run/doctor-shard {shard(3)}; rm /run/doctor-shard",
        follow=("weights.*",),
    ),
    Fault(
        "a shard is missing",
        "head",
        (("weights.shards", "head"),),
        f"mv {SNAPSHOT}/model-00002-of-{COUNT:05d}.safetensors /run/doctor-link",
        f"mv /run/doctor-link {SNAPSHOT}/model-00002-of-{COUNT:05d}.safetensors",
        follow=("weights.*",),
    ),
    Fault(
        "a shard is a pointer",
        "worker",
        (("weights.pointers", "worker"),),
        f"cp -a {shard(1)} /run/doctor-shard; printf 'version https://git-lfs.github.com/spec/v1\\n' > {shard(1)}",
        f"cp -a /run/doctor-shard {shard(1)}; rm /run/doctor-shard",
        follow=("weights.*",),
    ),
    Fault(
        "a download was broken off",
        "worker",
        (("weights.unfinished", "worker"),),
        f"touch {FOLDER}/blobs/0123456789abcdef.incomplete",
        f"rm -f {FOLDER}/blobs/0123456789abcdef.incomplete",
    ),
    Fault(
        "refs/main ends with a newline",
        "head",
        (("weights.ref", "head"),),
        f"echo >> {FOLDER}/refs/main",
        f"printf {REVISION} > {FOLDER}/refs/main",
    ),
)


@pytest.fixture(scope="module")
def stocked(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A pair on which nothing is deployed; both nodes hold a site's weights, fetched from a hub of the tests."""
    stopped = operator.run("stop", "--yes", "--remove")
    assert stopped.rc == 0, stopped
    site = yaml.safe_load(operator.site.read_text(encoding="utf-8"))
    hub = {"repo": REPO, "revision": REVISION, "cache": CACHE, "endpoint": f"http://127.0.0.1:{PORT}"}
    site.setdefault("model", {})["hub"] = hub
    site.setdefault("guards", {})["disk_floor_gib"] = 1
    path = tmp_path_factory.mktemp("doctor-weights") / "site.yml"
    path.write_text(yaml.safe_dump(site), encoding="utf-8")
    bench = Bench(operator, path)
    clean = f"rm -rf {CACHE} /var/lib/dspark-ops/weights/models--acme--doctor-model@*"
    stop = f"systemctl stop {UNIT} 2> /dev/null || true; rm -rf {UPSTREAM} {PROGRAM}"
    program = (Path(__file__).parents[1] / "hub_server.py").read_text(encoding="utf-8")
    words = f"--folder {UPSTREAM} --repo {REPO} --revision {REVISION} --port {PORT}"
    try:
        for role in ("head", "worker"):
            bench.root(role, clean)
        bench.root("head", f"{stop}; cat > {PROGRAM} <<'TEXT'\n{program}\nTEXT\n")
        bench.root("head", f"python3 - {UPSTREAM} {COUNT} {SIZE} <<'TEXT'\n{_MAKE}\nTEXT\n")
        bench.root(
            "head",
            f"systemd-run --quiet --collect --unit={UNIT} python3 {PROGRAM} {words};"
            f" for i in $(seq 50); do ss -ltnH sport = :{PORT} | grep -q . && exit 0; sleep 0.1; done; exit 1",
        )
        fetched = operator.run("model fetch", "--yes", site=path)
        assert fetched.rc == 0, fetched
        yield bench
    finally:
        bench.root("head", stop)
        for role in ("head", "worker"):
            bench.root(role, clean)


def test_whole_weights_on_both_nodes_give_no_finding(stocked: Bench) -> None:
    assert_healthy(stocked)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_harm_to_the_weights_is_named_as_the_root(stocked: Bench, fault: Fault) -> None:
    with fault.done_to(stocked):
        assert_named(stocked, fault)
    assert_healthy(stocked)


def test_a_wrong_ref_waits_for_its_name_because_a_fetch_may_bring_more(stocked: Bench) -> None:
    fault = FAULTS[-1]
    words = ("doctor", "--fix", "--yes", "--json")
    stocked.root(fault.role, fault.harm)
    try:
        waits = stocked.operator.run(*words, site=stocked.site)
        (fix,) = waits.document()["fixes"]
        assert (fix["id"], fix["outcome"]) == ("weights.ref", "withheld"), waits
        done = stocked.operator.run(*words, "--consent", "weights.ref", site=stocked.site)
        assert done.rc == 0, done
        (fix,) = done.document()["fixes"]
        assert (fix["id"], fix["node"], fix["outcome"], fix["action"]) == (
            "weights.ref",
            "head",
            "fixed",
            "model-fetch",
        )
    finally:
        stocked.root(fault.role, fault.undo)
    assert_healthy(stocked)
