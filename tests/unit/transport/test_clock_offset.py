"""How a node's clock stands to ours: bounded by when the program was sent and when its answer came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.transport.base import NodeReading
from dspark_ops.transport.ssh import _MARK, _parse_answer


def read(began: Any, ended: float, sent: float, came: float) -> NodeReading:
    answer = {"user": "u", "sudo": True, "hostname": "n", "began_s": began, "clock_s": ended, "results": []}
    return _parse_answer("n", 0, _MARK + json.dumps(answer), "", sent, came, came - sent)


@given(
    offset=st.floats(-1e5, 1e5),
    way_there=st.floats(0, 5),
    work=st.floats(0, 100),
    way_back=st.floats(0, 5),
)
def test_the_true_offset_is_within_the_uncertainty(
    offset: float, way_there: float, work: float, way_back: float
) -> None:
    sent = 1.8e9
    began, ended = sent + way_there + offset, sent + way_there + work + offset
    reading = read(began, ended, sent, sent + way_there + work + way_back)
    assert reading.clock_offset_s is not None
    assert reading.clock_uncertainty_s is not None
    assert abs(reading.clock_offset_s - offset) <= reading.clock_uncertainty_s + 1e-4
    assert reading.clock_uncertainty_s <= (way_there + way_back) / 2 + 1e-4, "the time of the work does not count"


@pytest.mark.parametrize("began", [None, "soon", 300.0])
def test_without_a_beginning_that_makes_sense_it_is_not_known(began: Any) -> None:
    reading = read(began, 200.0, 100.0, 101.0)
    assert reading.reachable
    assert (reading.clock_offset_s, reading.clock_uncertainty_s) == (None, None)
