"""What makes a cause more or less sure, and where one incident ends: each limit from both sides."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.doctor.incident.judge import BEFORE_START_S, GAP_S, JITTER_S, STOP_S, judge, ordered
from dspark_ops.doctor.incident.model import Cause
from tests.unit.doctor.incident.stories import Told, case, tell

UP = (-50.0, "engine_begins"), (-10.0, "api_ready")
JOINED = ((-50.0, "rank_begins"),)


def cause_of(head: Told, worker: Told) -> Cause:
    cause = tell(head, worker).cause
    assert cause is not None
    return cause


@pytest.mark.parametrize(("silence_s", "earlier"), [(GAP_S, 0), (GAP_S + 0.5, 1)])
def test_a_long_silence_ends_an_incident(silence_s: float, earlier: int) -> None:
    head = Told(engine=[(0.0, "cublas_failed"), (silence_s, "index_assert")])
    assert tell(head, Told()).earlier == earlier


@pytest.mark.parametrize(
    ("before_s", "check"), [(BEFORE_START_S, "gpu.xid"), (BEFORE_START_S + 0.5, "boot.kernel_build")]
)
def test_what_a_node_suffers_counts_for_a_start_that_comes_soon(before_s: float, check: str) -> None:
    head = Told(kernel=[(-60.0 - before_s, "xid")], engine=[(0.0, "no_kernel_image")])
    assert cause_of(head, Told()).check == check


@pytest.mark.parametrize(("late_s", "stopped"), [(STOP_S, True), (STOP_S + 0.5, False)])
def test_echoes_shortly_after_a_stop_are_no_incident(late_s: float, stopped: bool) -> None:
    report = tell(Told(engine=[*UP, (0.0, "stop_asked")]), Told(engine=[*JOINED, (late_s, "peer_reset")]))
    assert (report.verdict == "nothing") is stopped


@pytest.mark.parametrize(("early_s", "stopped"), [(2 * 0.2, True), (60.0, False)])
@pytest.mark.parametrize("end", [None, (3.0, 0, False, True)])
def test_a_stop_that_came_after_the_echoes_explains_none(early_s: float, stopped: bool, end: Any) -> None:
    report = tell(
        Told(engine=[*UP, (0.0, "stop_asked")], uncertainty_s=0.2, end=end),
        Told(engine=[*JOINED, (-early_s, "peer_reset")], uncertainty_s=0.2, end=end),
    )
    assert (report.verdict == "nothing") is stopped


@pytest.mark.parametrize(("apart_s", "others"), [(2 * 0.2 + JITTER_S - 0.001, 0), (2 * 0.2 + JITTER_S + 0.001, 1)])
def test_a_consequence_may_seem_earlier_by_no_more_than_the_clocks_allow(apart_s: float, others: int) -> None:
    report = tell(
        Told(engine=[*UP, (-apart_s, "nccl_retry")], uncertainty_s=0.2),
        Told(engine=[*JOINED], kernel=[(0.0, "link_down")], uncertainty_s=0.2),
    )
    assert report.cause is not None
    assert report.cause.check == ("log.rail_retries" if others else "fabric.ports_up")
    assert len(report.others) == others


@pytest.mark.parametrize(
    ("apart_s", "confidence"), [(2 * 0.2 + JITTER_S - 0.001, "medium"), (2 * 0.2 + JITTER_S + 0.001, "high")]
)
def test_a_rival_within_the_uncertainty_makes_it_less_sure(apart_s: float, confidence: str) -> None:
    found = cause_of(
        Told(engine=[*UP, (apart_s, "proposer_mismatch")], uncertainty_s=0.2),
        Told(engine=[*JOINED, (0.0, "rows_not_uniform")], uncertainty_s=0.2),
    )
    assert (found.check, found.confidence) == ("log.draft_rows", confidence)


def test_a_rival_without_a_check_is_told_by_its_line() -> None:
    found = cause_of(
        Told(engine=[*UP], journal=[(0.01, "node_ends")]), Told(engine=[*JOINED, (0.0, "rows_not_uniform")])
    )
    assert "it or node_ends on the head" in found.because[-1]


def test_the_same_failure_on_both_nodes_agrees_with_itself() -> None:
    both = cause_of(Told(engine=[*UP, (0.1, "nccl_retry")]), Told(engine=[*JOINED, (0.0, "nccl_retry")]))
    assert (both.confidence, both.nodes) == ("high", ("worker", "head"))
    assert "it agrees with nccl_retry of the head" in both.because
    alone = cause_of(Told(engine=[*UP]), Told(engine=[*JOINED, (0.0, "nccl_retry")]))
    assert (alone.confidence, alone.nodes, len(alone.because)) == ("medium", ("worker",), 1)


def test_another_line_of_the_same_log_is_no_second_witness() -> None:
    found = cause_of(Told(engine=[*UP]), Told(engine=[*JOINED, (0.0, "index_assert"), (0.1, "device_assert")]))
    assert found.because == ("the line itself tells what was wrong",)


def test_another_log_of_the_same_node_is_one() -> None:
    found = cause_of(Told(engine=[*UP, (0.2, "illegal_access")], kernel=[(0.0, "xid")]), Told(engine=[*JOINED]))
    assert "it agrees with illegal_access of the head" in found.because


def test_what_does_not_follow_from_it_does_not_support_it() -> None:
    found = cause_of(
        Told(engine=[*UP, (0.2, "rows_not_uniform")], kernel=[(0.0, "disk_error")]), Told(engine=[*JOINED])
    )
    assert found.because == ("the line itself tells what was wrong",)


def test_uncompared_clocks_matter_only_where_the_other_node_has_a_cause_of_its_own() -> None:
    far = Told(engine=[*UP, (500.0, "proposer_mismatch")])
    same = Told(engine=[*UP, (500.0, "rows_not_uniform")])
    worker = Told(engine=[*JOINED, (0.0, "rows_not_uniform")], uncertainty_s=None)
    assert cause_of(far, worker).confidence == "medium"
    assert "nothing tells how the clocks" in cause_of(far, worker).because[-1]
    assert cause_of(same, worker).confidence == "high"
    assert cause_of(Told(engine=[*UP, (0.1, "engine_dead")]), worker).confidence == "high"
    own = Told(engine=[*JOINED, (0.0, "rows_not_uniform"), (9.0, "proposer_mismatch")], uncertainty_s=None)
    assert cause_of(Told(engine=[*UP]), own).confidence == "high"


@pytest.mark.parametrize(
    ("head_unread", "worker_unread", "confidence"),
    [
        ((), (), "medium"),
        (("engine",), (), "low"),
        (("kernel",), (), "low"),
        ((), ("kernel",), "low"),
        ((), ("journal",), "medium"),
    ],
)
def test_logs_that_were_not_read_could_hold_what_ended_a_process(
    head_unread: tuple[str, ...], worker_unread: tuple[str, ...], confidence: str
) -> None:
    found = cause_of(
        Told(engine=[*UP], unread=head_unread), Told(engine=[*JOINED, (0.0, "worker_signalled")], unread=worker_unread)
    )
    assert found.confidence == confidence


@pytest.mark.parametrize(
    ("head_unread", "worker_unread", "confidence"),
    [(("kernel",), (), "high"), ((), ("engine",), "medium"), (("engine",), (), "medium")],
)
def test_a_kernel_is_doubted_for_the_logs_that_were_not_read(
    head_unread: tuple[str, ...], worker_unread: tuple[str, ...], confidence: str
) -> None:
    found = cause_of(Told(engine=[*UP], unread=head_unread), Told(kernel=[(0.0, "disk_error")], unread=worker_unread))
    assert (found.check, found.confidence) == ("host.kernel_faults", confidence)


@pytest.mark.parametrize(("cut_at_s", "confidence"), [(-1.0, "medium"), (0.0, "high"), (1.0, "high")])
def test_a_cut_before_the_line_makes_it_less_sure(cut_at_s: float, confidence: str) -> None:
    kernel = Told(engine=[*UP], kernel=[(0.0, "disk_error")], cut_at_s={"kernel": cut_at_s})
    assert cause_of(kernel, Told(engine=[*JOINED])).confidence == confidence


def test_lines_without_a_time_come_last_and_explain_nothing() -> None:
    whole = case(Told(engine=[*UP, (0.0, "kv_too_small")]), Told(engine=[*JOINED, (0.0, "worker_reaped")]))
    dated = {event.signature: event for event in whole.events}
    untimed = dated["worker_reaped"].model_copy(update={"at_s": None})
    events = ordered([untimed, dated["kv_too_small"]])
    assert [event.signature for event in events] == ["kv_too_small", "worker_reaped"]
    found = judge(whole.model_copy(update={"events": (untimed, dated["kv_too_small"])}))
    assert [cause.signature for cause in found.causes] == ["kv_too_small"], "a dated root explains it"
    swapped = dated["kv_too_small"].model_copy(update={"at_s": None})
    found = judge(whole.model_copy(update={"events": (swapped, dated["worker_reaped"])}))
    assert [cause.signature for cause in found.causes] == ["worker_reaped", "kv_too_small"]


def test_images_that_differ_do_not_hide_a_stop() -> None:
    report = tell(
        Told(engine=[*UP, (0.0, "stop_asked")]),
        Told(engine=[*JOINED, (1.0, "peer_reset")], image="sha256:" + "b" * 64),
    )
    assert report.verdict == "nothing"
