"""What `model verify` says: whole, which shard is bad, what is unfinished, what could not be told."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.report.models import Finding, NodeReport, judge
from dspark_ops.weights.verify import judge_weights
from tests.unit.weights.pair import BOTH, DIGESTS, FILES, MANIFEST, REVISION, empty, whole

NODES = tuple(NodeReport(role=role, host="x", reachable=True) for role in ("head", "worker"))  # type: ignore[arg-type]


def judged(worker: Any = None, digests: Any = BOTH, manifest: Any = MANIFEST) -> tuple[list[Finding], int]:
    found = judge_weights(manifest, {"head": whole("head"), "worker": worker or whole("worker")}, digests)
    return found, int(judge(found, NODES)[1])


def bad(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(f.node, f.id, f.observed) for f in found if f.status in ("fail", "unknown")]


def test_whole_weights_are_ready_and_quick_says_that_it_did_not_hash() -> None:
    found, code = judged()
    assert (bad(found), code) == ([], 0)
    quick, code = judged(digests=None)
    assert code == 0
    assert [f.status for f in quick if f.id == "weights.digest"] == ["skip", "skip"]


def test_a_bad_shard_is_named_with_its_node_and_what_mends_it() -> None:
    found, code = judged(digests={"head": DIGESTS, "worker": DIGESTS | {FILES[1].blob: "e" * 64}})
    [(node, check, observed)] = bad(found)
    assert (node, check, code) == ("worker", "weights.digest", 1)
    assert observed == f"{FILES[1].name}: sha256 {'e' * 12}…, expected {'b' * 12}…"
    remedy = next(f.remedy for f in found if f.status == "fail")
    assert remedy is not None
    assert remedy.command == ("dspark-ops", "model", "sync")


@pytest.mark.parametrize(
    ("more", "check", "said", "code"),
    [
        ({"snapshot": {}}, "weights.files", "model-1.safetensors: missing", 1),
        ({"ref": REVISION + "\n"}, "weights.ref", r"\n", 1),
        ({"ref": None}, "weights.ref", "it is absent", 1),
        ({"record": None}, "weights.record", "there is no record", 1),
        ({"blobs": {**DIGESTS, **{f.blob: f.size for f in FILES}, "z.incomplete": 3}}, "weights.incomplete", "z.", 1),
        ({"ref_known": False}, "weights.ref", "it cannot be read", 3),
        ({"record": None, "record_error": "broken"}, "weights.record", "broken", 3),
        ({"snapshot": None, "blobs": None}, "weights.files", "it cannot be read", 3),
    ],
)
def test_each_kind_of_harm_is_named(more: dict[str, Any], check: str, said: str, code: int) -> None:
    found, ended = judged(whole("worker", **more))
    assert ended == code
    assert any(node == "worker" and c == check and said in observed for node, c, observed in bad(found)), bad(found)


def test_what_could_not_be_hashed_is_no_verdict() -> None:
    found, code = judged(digests={"head": DIGESTS, "worker": DIGESTS | {FILES[0].blob: None}})
    assert code == 3
    assert bad(found) == [("worker", "weights.digest", f"{FILES[0].name}: its sha256 could not be computed")]


def test_without_a_record_on_either_node_nothing_is_known() -> None:
    found = judge_weights(None, {"head": empty("head"), "worker": empty("worker")}, None)
    assert [f.status for f in found] == ["unknown", "unknown"]
    assert int(judge(found, NODES)[1]) == 3
