from __future__ import annotations

import queue
import threading
import time

import pytest

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


def test_the_first_error_of_both_ranks_is_the_cause_and_not_its_echo() -> None:
    logs = {
        "head": "2026-11-23T10:00:05Z ERROR Connection closed by peer\n2026-11-23T10:00:01Z INFO fine\n",
        "worker": "2026-11-23T10:00:04Z SafetensorError: Error while deserializing header\n",
    }
    assert first_errors(logs)[0] == "worker: SafetensorError: Error while deserializing header"  # type: ignore[arg-type]
