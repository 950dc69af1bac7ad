"""What a node's answers say of its weights: absent is empty, unreadable is unknown, odd names are kept apart."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.transport.base import ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from dspark_ops.weights import reading
from dspark_ops.weights.hashing import batches, parse_sums
from dspark_ops.weights.meter import Meter, line, parse_progress
from dspark_ops.weights.model import WeightFile, parse_manifest
from tests.unit.weights.pair import FILES, HUB, MANIFEST, ROOT, empty, site, whole
from tests.unit.weights.pair import reading as answers


def listed(argv: tuple[str, ...]) -> ProbeResult:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return ProbeResult(id="x", rc=done.returncode, stdout=done.stdout, stderr=done.stderr)


def test_a_whole_node_is_read_as_it_is() -> None:
    for role in ("head", "worker"):
        found = reading.read_weights(site(), role, answers(role))
        assert (found.record, found.snapshot, found.blobs) == (MANIFEST, whole(role).snapshot, whole(role).blobs)
        assert (found.ref, found.ref_known, found.readable) == (whole(role).ref, True, True)


def test_nothing_there_is_empty_and_nothing_read_is_unknown() -> None:
    absent = ProbeResult(id="", rc=2, stdout="", stderr="ls: cannot access '/x': No such file or directory\n")
    found = reading.read_weights(
        site(), "head", answers("head", empty("head"), weights_snapshot=absent, weights_blobs=absent)
    )
    assert (found.record, found.snapshot, found.blobs, found.ref, found.readable) == (None, {}, {}, None, True)
    denied = ProbeResult(id="", rc=2, stdout="", stderr="ls: cannot open directory '/x': Permission denied\n")
    found = reading.read_weights(site(), "head", answers("head", weights_blobs=denied))
    assert (found.blobs, found.readable) == (None, False)


def test_a_record_of_something_else_is_no_record() -> None:
    other = MANIFEST.model_copy(update={"revision": "2" * 40})
    for text in (other.model_dump_json(), "{", "[]", "null", '{"version": 2}'):
        result = ProbeResult(id="", files={"record": text})
        found = reading.read_weights(site(), "head", answers("head", weights_record=result))
        assert found.record is None
        assert found.record_error is not None


def test_what_the_real_ls_says_is_understood(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "x", tmp_path / "blobs"
    (snapshot / "en coding").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_bytes(b"12345")
    (blobs / "def.incomplete").write_bytes(b"1")
    (snapshot / "one.safetensors").symlink_to("../../blobs/abc")
    (snapshot / "en coding" / "a: b.py").symlink_to("../../../blobs/abc")
    (snapshot / "gone").symlink_to("../../blobs/gone")
    words = ("-LR", str(snapshot))
    found = reading.parse_listing(listed((*reading._LIST, *words)), str(snapshot))
    assert found == {"one.safetensors": 5, "en coding/a: b.py": 5}
    assert reading.parse_listing(listed((*reading._LIST, str(blobs))), None) == {"abc": 5, "def.incomplete": 1}
    assert reading.parse_listing(listed((*reading._LIST, str(tmp_path / "no"))), None) == {}


@given(st.text(max_size=300), st.text(max_size=60), st.integers(0, 2))
@settings(deadline=None)
def test_no_listing_ends_a_reading(out: str, err: str, rc: int) -> None:
    found = reading.parse_listing(ProbeResult(id="", rc=rc, stdout=out, stderr=err), "/root")
    assert found is None or all(isinstance(size, int) for size in found.values())
    parse_progress(out)
    assert all(len(digest) == 64 for digest in parse_sums(out).values())


def test_every_probe_passes_the_guard_of_reading() -> None:
    assert_read_only(reading.probes_of(HUB))


def test_sums_are_found_by_blob(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"x")
    done = listed(("sha256sum", "--", str(tmp_path / "abc"), str(tmp_path / "gone")))
    assert parse_sums(done.stdout or "") == {"abc": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}


def test_large_blobs_are_hashed_alone_and_each_once() -> None:
    small = [WeightFile(name=f"{i}", size=1000, blob=f"{i:040x}") for i in range(100)]
    made = batches([*FILES, *small, FILES[0]])
    assert [len(batch) for batch in made[:2]] == [1, 1]
    assert sorted(file.blob for batch in made for file in batch) == sorted({f.blob for f in (*FILES, *small)})
    assert len(made) == 4


@pytest.mark.parametrize(
    ("done", "moved", "seconds", "said"),
    [
        (1 << 30, 1 << 30, 2.0, "fetch: 1.0 GiB of 151.0 GiB, 512.0 MiB/s, 5 min left"),
        (150 << 30, 1 << 30, 1.0, "fetch: 150.0 GiB of 151.0 GiB, 1.0 GiB/s, 1 s left"),
        (0, 0, 3.0, "fetch: 0.0 MiB of 151.0 GiB, nothing came yet"),
    ],
)
def test_a_line_says_rate_and_time_left(done: int, moved: int, seconds: float, said: str) -> None:
    assert line("fetch", done, 151 << 30, moved, seconds) == said


def test_what_was_there_before_makes_no_rate() -> None:
    said: list[str] = []
    meter = Meter("fetch", 100 << 20, said.append, every_s=0)
    meter.at(90 << 20)
    assert said == ["fetch: 90.0 MiB of 100.0 MiB, nothing came yet"]


def test_a_manifest_with_something_else_is_none() -> None:
    assert parse_manifest(MANIFEST.document()) == MANIFEST
    assert parse_manifest({**MANIFEST.document(), "extra": 1}) is None
    assert ROOT.endswith("models--acme--tiny-moe")
