from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

import pytest

from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import first_errors
from dspark_ops.deploy.logs import _Item, _merge
from dspark_ops.errors import NoVerdictError


def filled(*items: _Item) -> queue.Queue[_Item]:
    arrived: queue.Queue[_Item] = queue.Queue()
    for item in items:
        arrived.put(item)
    return arrived


def test_two_ranks_come_out_in_the_order_of_time() -> None:
    lines = list(
        _merge(
            filled(
                ("head", "2026-11-23T10:00:01.000000000Z one"),
                ("head", "2026-11-23T10:00:03.000000000Z three"),
                ("worker", "2026-11-23T10:00:02.000000000Z two"),
                ("head", None),
                ("worker", None),
            )
        )
    )
    assert [line.split()[1:] for line in lines] == [["head", "one"], ["worker", "two"], ["head", "three"]]


def test_a_line_appears_while_the_stream_is_still_open() -> None:
    arrived = filled(("head", "2026-11-23T10:00:01.000000000Z early"))
    lines = _merge(arrived)
    began = time.monotonic()
    assert next(lines).endswith("head   early")
    assert time.monotonic() - began < 5
    threading.Timer(0.1, lambda: [arrived.put(("head", None)), arrived.put(("worker", None))]).start()
    assert list(lines) == []


def test_one_node_lost_is_a_line_and_both_lost_is_no_verdict() -> None:
    lost = NoVerdictError("cannot connect")
    assert list(_merge(filled(("head", lost), ("head", None), ("worker", None)))) == ["-- head: cannot connect"]
    with pytest.raises(NoVerdictError):
        list(_merge(filled(("head", lost), ("worker", lost), ("head", None), ("worker", None))))


DRILLS = Path(__file__).resolve().parents[2] / "fixtures" / "vllm-faults"


@pytest.mark.parametrize(
    ("drill", "cause"),
    [
        ("corrupt_shard", "worker: safetensors._safetensors_rust.SafetensorError: Error while deserializing header"),
        ("gloo_missing_if", "worker: RuntimeError: [enforce fail at"),
        ("kv_small", "head: ValueError: To serve at least one request"),
        ("ip_worker_nonlocal", "worker: zmq.error.ZMQError: Cannot assign requested address"),
    ],
)
def test_the_first_error_of_both_ranks_is_the_cause_and_not_its_echo(drill: str, cause: str) -> None:
    logs: dict[Role, str] = {role: (DRILLS / f"{drill}-{role}.log").read_text() for role in ROLES}
    assert first_errors(logs)[0].startswith(cause)


def test_a_log_without_an_error_names_none() -> None:
    line = "2026-11-24T00:48:28Z (APIServer pid=1) WARNING 11-24 [x.py:1] errors like `OSError: [Errno 24] Too many`"
    assert first_errors({"head": line}) == []
