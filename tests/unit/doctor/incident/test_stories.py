"""One story a class of incident: the first cause is named with its id, the echoes are not, and doubt is told."""

from __future__ import annotations

import pytest

from dspark_ops.config.models import ROLES
from dspark_ops.doctor.incident.gather import case_of
from dspark_ops.doctor.incident.report import render, report_on
from dspark_ops.transport.base import ProbeResult
from tests.unit.doctor.incident.stories import ZERO, Told, reading, tell

GONE = (0.4, "peer_closed"), (0.5, "engine_fatal"), (0.6, "engine_dead")
UP = (-50.0, "engine_begins"), (-10.0, "api_ready")
JOINED = ((-50.0, "rank_begins"),)
RANK_ID = "c" * 64


def test_the_kernel_kills_the_worker_for_want_of_memory() -> None:
    report = tell(
        Told(engine=[*UP, *GONE]),
        Told(engine=[*JOINED], kernel=[(0.0, "kernel_oom")], end=(0.2, 137, True, False)),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.nodes, report.cause.confidence) == (
        "memory.oom_kills",
        ("worker",),
        "high",
    )
    assert report.exit_code == 1
    assert [event.signature for event in report.followed] == [
        "container_oom",
        "peer_closed",
        "engine_fatal",
        "engine_dead",
    ]
    assert any("container_oom of the worker" in reason for reason in report.cause.because)
    text = render(report)
    assert "first cause: the kernel killed a process because memory had run out" in text
    assert "worker, 2026-11-23 20:00:00.000, memory.oom_kills [MEM-02, MEM-16]" in text
    assert "+0.4 s  head   the other rank's process is gone" in text
    assert "what to do:" in text


def test_the_gpu_of_the_head_faults() -> None:
    report = tell(
        Told(
            engine=[*UP, (0.3, "illegal_access"), (0.5, "engine_fatal"), (0.6, "engine_dead")],
            kernel=[(0.0, "xid")],
        ),
        Told(engine=[*JOINED, (1.0, "peer_reset"), (1.1, "nccl_aborted"), (30.0, "heartbeat_lost")]),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.known, report.cause.nodes) == ("gpu.xid", ("HW-05",), ("head",))
    assert report.cause.confidence == "high"
    assert [other.check for other in report.others] == []


def test_a_cable_is_pulled_and_nccl_gives_up_on_both_nodes() -> None:
    report = tell(
        Told(
            engine=[*UP, (7.0, "nccl_retry"), (7.5, "nccl_remote_gone"), (60.0, "rpc_timeout"), (61.0, "engine_dead")],
            kernel=[(0.02, "link_down")],
        ),
        Told(
            engine=[*JOINED, (6.9, "nccl_retry"), (7.5, "nccl_aborted")],
            kernel=[(0.0, "cable_unplugged"), (0.01, "link_down")],
        ),
    )
    assert report.cause is not None
    assert report.cause.check == "fabric.ports_up"
    assert report.cause.signature == "cable_unplugged"
    assert set(report.cause.nodes) == {"head", "worker"}
    assert report.others == ()


def test_the_images_differ() -> None:
    report = tell(
        Told(engine=[*UP, (5.0, "peer_reset"), (5.1, "engine_dead")]),
        Told(engine=[*JOINED, (4.9, "collective_mismatch"), (5.0, "worker_signalled")], image="sha256:" + "b" * 64),
    )
    assert report.cause is not None
    assert report.cause.check == "image.digest_parity"
    assert report.cause.confidence == "high"
    assert report.followed[0].signature == "collective_mismatch"


def test_images_that_differ_are_not_blamed_for_what_does_not_follow_from_it() -> None:
    report = tell(
        Told(engine=[*UP, *GONE]),
        Told(engine=[*JOINED, (0.1, "cuda_out_of_memory")], image="sha256:" + "b" * 64),
    )
    assert report.cause is not None
    assert report.cause.check == "log.gpu_memory"
    quiet = tell(Told(engine=[*UP]), Told(engine=[*JOINED], image="sha256:" + "b" * 64))
    assert quiet.verdict == "nothing"


def test_the_kv_cache_is_too_small() -> None:
    report = tell(
        Told(engine=[(-50, "engine_begins"), (0, "kv_too_small"), (1, "worker_reaped"), (2, "core_init_failed")]),
        Told(engine=[*JOINED, (1.5, "peer_closed"), (1.6, "worker_init_failed")]),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.nodes, report.cause.confidence) == (
        "boot.kv_cache_fits",
        ("head",),
        "high",
    )


def test_the_worker_is_killed_by_hand_and_the_journal_tells() -> None:
    report = tell(
        Told(engine=[*UP, *GONE]),
        Told(engine=[*JOINED], journal=[(-0.2, "login"), (0.0, "rank_killed")], end=(0.1, 137, False, False)),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.signature) == ("log.rank_killed", "rank_killed")
    assert report.cause.confidence == "high"


def test_the_worker_is_killed_and_nothing_tells_by_whom() -> None:
    report = tell(Told(engine=[*UP, *GONE]), Told(engine=[*JOINED], end=(0.1, 137, False, False)))
    assert report.cause is not None
    assert (report.cause.check, report.cause.confidence) == ("log.rank_killed", "medium")
    assert "by whom is not told" in report.cause.means


def test_without_the_kernel_log_a_kill_is_less_sure() -> None:
    report = tell(Told(engine=[*UP, *GONE]), Told(engine=[*JOINED], end=(0.1, 137, False, False), unread=["kernel"]))
    assert report.cause is not None
    assert report.cause.confidence == "low"
    assert "the kernel log of the worker was not read" in report.cause.because[-1]


def test_the_port_is_in_use() -> None:
    report = tell(
        Told(engine=[(0, "port_in_use")], end=(0.5, 1, False, False)),
        Told(engine=[*JOINED, (60.0, "rendezvous_unreachable"), (120.0, "rendezvous_unreachable")]),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.confidence) == ("boot.port_free", "high")
    assert report.others == ()


def test_the_weights_are_missing_on_the_worker() -> None:
    report = tell(
        Told(
            engine=[
                (-50, "engine_begins"),
                (61, "clients_missing"),
                (62, "worker_init_failed"),
                (63, "core_init_failed"),
            ]
        ),
        Told(engine=[(0, "weights_not_cached")], end=(0.5, 1, False, False)),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.nodes) == ("boot.weights_found", ("worker",))
    assert report.others == ()


@pytest.mark.parametrize("ahead_s", [40.0, -40.0])
def test_a_clock_that_is_40_s_off_does_not_turn_the_order(ahead_s: float) -> None:
    report = tell(
        Told(engine=[*UP, (5.0, "cublas_failed"), (5.5, "engine_dead")]),
        Told(engine=[*JOINED, (0.0, "rows_not_uniform"), (0.1, "worker_error")], clock_s=ahead_s),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.nodes) == ("log.draft_rows", ("worker",))
    assert [other.check for other in report.others] == ["log.gpu_libraries"]
    assert "worker " + f"{ahead_s:+.3f} s" in render(report)


def test_clocks_that_were_not_compared_make_it_less_sure() -> None:
    known = Told(engine=[*JOINED, (0.0, "rows_not_uniform")])
    unknown = Told(engine=[*JOINED, (0.0, "rows_not_uniform")], uncertainty_s=None)
    head = Told(engine=[*UP, (5.0, "cublas_failed")])
    sure, doubtful = tell(head, known).cause, tell(head, unknown).cause
    assert sure is not None
    assert doubtful is not None
    assert (sure.confidence, doubtful.confidence) == ("high", "medium")
    assert "which came first is not known" in doubtful.because[-1]


def test_two_roots_within_the_uncertainty_are_both_told() -> None:
    report = tell(
        Told(engine=[*UP, (0.5, "cublas_failed")], uncertainty_s=0.4),
        Told(engine=[*JOINED, (0.0, "rows_not_uniform")], uncertainty_s=0.4),
    )
    assert report.cause is not None
    assert report.cause.confidence == "medium"
    assert [other.check for other in report.others] == ["log.gpu_libraries"]


def test_only_echoes_is_not_known() -> None:
    report = tell(
        Told(engine=[*UP, *GONE]),
        Told(engine=[*JOINED, (0.2, "shm_cancelled"), (0.3, "nccl_aborted"), (9.0, "heartbeat_lost")]),
    )
    assert (report.verdict, report.exit_code, report.cause, report.nearest) == ("not-known", 3, None, None)
    assert "only lines that follow from something else" in report.message
    assert report.first_sign is not None
    assert (report.first_sign.node, report.first_sign.signature) == ("worker", "shm_cancelled")
    assert report.first_sign.means in report.message
    assert "the other rank's process is gone" in render(report), "the timeline is there all the same"


def exit_seen(container: str) -> str:
    """dockerd's line of the end of a container."""
    words = 'level=info msg="ignoring event" container={} module=libcontainerd topic=/tasks/delete'
    return f'spark-head dockerd[129]: {words.format(container)} type="*events.TaskDelete"'


def test_the_end_of_another_container_is_no_sign_of_a_failure() -> None:
    report = tell(Told(engine=[*UP], journal=[(0.5, exit_seen("b" * 64))]), Told(engine=[*JOINED]))
    assert (report.verdict, report.exit_code) == ("nothing", 0)
    own = tell(Told(engine=[*UP], journal=[(0.5, exit_seen(RANK_ID))]), Told(engine=[*JOINED]))
    assert (own.verdict, own.exit_code) == ("not-known", 3)


def test_what_a_node_suffered_before_a_start_that_came_to_its_end_is_another_incident() -> None:
    suffered = [(-200.0, "docker_ended")]
    started = Told(engine=[(-50, "engine_begins"), (-5, "api_ready"), (900, "engine_dead")], journal=suffered)
    assert tell(started, Told(engine=[*JOINED])).cause is None
    failed = Told(engine=[(-50, "engine_begins"), (-5, "engine_dead")], journal=suffered)
    cause = tell(failed, Told(engine=[*JOINED])).cause
    assert cause is not None
    assert cause.check == "host.docker_engine"


def test_logins_fill_no_screen() -> None:
    logins = [(float(second), "login") for second in range(0, 200, 2)]
    report = tell(Told(engine=[*UP, *GONE], journal=logins), Told(engine=[*JOINED], journal=logins))
    assert "somebody logged in" not in render(report)
    assert "somebody logged in" in render(report, verbose=True)


def test_a_wait_in_vain_is_the_nearest_sign_and_no_cause() -> None:
    report = tell(
        Told(engine=[*UP, (0, "broadcast_wait"), (300, "rpc_timeout"), (301, "engine_dead")]), Told(engine=[*JOINED])
    )
    assert (report.verdict, report.cause) == ("not-known", None)
    assert report.nearest is not None
    assert report.nearest.check == "log.rpc_timeouts"
    assert "first cause: not known" in render(report)


def test_two_causes_are_both_named() -> None:
    report = tell(
        Told(engine=[*UP, (100.0, "cublas_failed"), (101.0, "engine_dead")], kernel=[(0.0, "disk_error")]),
        Told(engine=[*JOINED]),
    )
    assert report.cause is not None
    assert report.cause.check == "host.kernel_faults"
    assert [other.check for other in report.others] == ["log.gpu_libraries"]
    assert "another cause, which does not follow from it" in render(report)


@pytest.mark.parametrize(("cut_at_s", "confidence"), [(-100.0, "medium"), (0.5, "high")])
def test_a_log_that_was_cut_before_it_makes_it_less_sure(cut_at_s: float, confidence: str) -> None:
    report = tell(
        Told(engine=[*UP, (0.0, "proposer_mismatch"), (0.6, "engine_dead")]),
        Told(engine=[*JOINED], cut_at_s={"engine": cut_at_s}),
    )
    assert report.cause is not None
    assert report.cause.confidence == confidence
    assert ("the engine log of the worker was cut" in report.cause.because[-1]) is (confidence == "medium")
    assert "not read to its end: engine of the worker (time)" in render(report)


def test_a_quiet_pair_is_no_incident() -> None:
    report = tell(Told(engine=[*UP]), Told(engine=[*JOINED]))
    assert (report.verdict, report.exit_code) == ("nothing", 0)
    assert report.message == "no sign of a failure in either rank's log"


@pytest.mark.parametrize("worker", [Told(reachable=False), Told(cut_at_s={"engine": 0.0}), Told(unread=["engine"])])
def test_a_quiet_pair_that_was_not_read_whole_is_no_verdict(worker: Told) -> None:
    report = tell(Told(engine=[*UP]), worker)
    assert (report.verdict, report.exit_code) == ("indeterminate", 3)
    assert "engine log of the worker" in report.message


def test_a_pair_that_was_stopped_is_no_incident() -> None:
    report = tell(
        Told(engine=[*UP, (0.0, "stop_asked"), (1.0, "no_new_futures")], end=(3.0, 0, False, True)),
        Told(engine=[*JOINED, (1.5, "peer_reset")], end=(5.0, 0, False, True)),
    )
    assert (report.verdict, report.message) == ("nothing", "no incident: the pair was asked to stop")


@pytest.mark.parametrize("worker", [Told(reachable=False), Told(unread=["engine"]), Told(cut_at_s={"engine": 0.0})])
def test_a_stop_says_nothing_of_a_rank_whose_log_was_not_read(worker: Told) -> None:
    report = tell(Told(engine=[*UP, (0.0, "stop_asked"), (1.0, "no_new_futures")], end=(3.0, 0, False, True)), worker)
    assert (report.verdict, report.exit_code) == ("indeterminate", 3)
    assert report.message.startswith("the pair was asked to stop; ")
    assert "engine log of the worker" in report.message


@pytest.mark.parametrize(("begins_s", "stopped"), [(None, True), (-200.0, True), (30.0, False)])
def test_a_stop_does_not_excuse_what_came_after_the_next_start(begins_s: float | None, stopped: bool) -> None:
    again = [] if begins_s is None else [(begins_s, "engine_begins")]
    report = tell(
        Told(engine=[*UP, (0.0, "stop_asked"), *again, (60.0, "peer_closed"), (60.1, "engine_dead")], began_s=-300.0),
        Told(engine=[*JOINED], began_s=-300.0),
    )
    assert (report.verdict, report.exit_code) == (("nothing", 0) if stopped else ("not-known", 3))


@pytest.mark.parametrize("apart_s", [-0.01, 0.0, 0.01])
def test_two_that_could_each_follow_from_the_other_still_have_a_first(apart_s: float) -> None:
    report = tell(Told(engine=[*UP, (apart_s, "nccl_retry")]), Told(engine=[*JOINED], end=(0.0, 137, False, False)))
    assert report.cause is not None
    assert (report.cause.signature, report.cause.nodes) == ("container_killed", ("worker",))


def test_what_only_slows_the_pair_down_is_no_cause_of_its_death() -> None:
    report = tell(
        Told(engine=[*UP, (-45.0, "variable_unknown"), (-44.0, "graph_sizes_cut"), (-40.0, "nccl_socket"), *GONE]),
        Told(engine=[*JOINED, (0.1, "index_assert"), (0.2, "device_assert")]),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.nodes) == ("log.device_asserts", ("worker",))


def test_the_last_incident_is_told_and_the_earlier_ones_are_counted() -> None:
    report = tell(
        Told(engine=[(-9000, "cublas_failed"), (-5000, "cublas_failed"), *UP, (0.0, "index_assert")]),
        Told(engine=[*JOINED]),
    )
    assert report.cause is not None
    assert report.cause.check == "log.device_asserts"
    assert report.earlier == 2
    assert "2 earlier failures are in the same logs" in render(report)


def test_a_new_start_ends_an_incident_but_for_what_the_node_suffered_just_before() -> None:
    head = Told(engine=[(-61.0, "cublas_failed"), (-60.0, "engine_begins"), (0.0, "no_kernel_image")])
    assert tell(head, Told()).earlier == 1
    suffered = Told(kernel=[(-100.0, "xid")], engine=[(-60.0, "engine_begins"), (0.0, "no_kernel_image")])
    cause = tell(suffered, Told()).cause
    assert cause is not None
    assert cause.check == "gpu.xid"
    long_before = Told(kernel=[(-1000.0, "xid")], engine=[(-60.0, "engine_begins"), (0.0, "no_kernel_image")])
    cause = tell(long_before, Told()).cause
    assert cause is not None
    assert cause.check == "boot.kernel_build"


def test_the_docker_engine_stops_under_the_pair() -> None:
    report = tell(
        Told(engine=[*UP], journal=[(0.0, "docker_ended")], end=(1.0, 137, False, False)),
        Told(engine=[*JOINED, (0.9, "peer_reset")]),
    )
    assert report.cause is not None
    assert (report.cause.check, report.cause.nodes) == ("host.docker_engine", ("head",))


def test_a_node_that_is_shut_down_is_named_by_the_known_failure() -> None:
    report = tell(Told(engine=[*UP, *GONE]), Told(engine=[*JOINED], journal=[(0.0, "node_ends")]))
    assert report.cause is not None
    assert report.cause.check is None
    assert report.message.startswith("first cause: HW-01 on the worker")


def test_a_kernel_log_that_begins_later_than_the_failure_is_no_witness() -> None:
    told = {"head": Told(engine=[*UP, *GONE]), "worker": Told(engine=[*JOINED], end=(0.1, 137, False, False))}
    readings = {role: reading(role, told[role]) for role in ROLES}
    found = {}
    for begin_s in (ZERO.timestamp() - 1000, ZERO.timestamp() - 100):
        cause = report_on(case_of(readings, begin_s), None, taken_at=ZERO).cause
        assert cause is not None
        found[begin_s] = cause
    early, late = found.values()
    assert (early.confidence, late.confidence) == ("medium", "low")
    assert "the kernel log of the worker was read from a later time on" in late.because[-1]


def test_a_rank_log_that_was_read_from_a_later_time_on_is_no_witness() -> None:
    told = {"head": Told(engine=[*UP, (0.0, "index_assert")]), "worker": Told(engine=[*JOINED])}
    readings = {role: reading(role, told[role]) for role in ROLES}
    causes = []
    for begin_s in (None, ZERO.timestamp() - 1000, ZERO.timestamp() - 100):
        cause = report_on(case_of(readings, engine_begin_s=begin_s), None, taken_at=ZERO).cause
        assert cause is not None
        causes.append(cause)
    assert [any("read from a later time on" in why for why in cause.because) for cause in causes] == [
        False,
        False,
        True,
    ]
    assert causes[0].confidence == causes[1].confidence != causes[2].confidence


def test_a_line_whose_forerunners_were_left_out_may_have_begun_earlier() -> None:
    few = tell(Told(engine=[*UP, *((float(i), "index_assert") for i in range(40))]), Told(engine=[*JOINED]))
    old = [(-9000.0 + i, "index_assert") for i in range(20)]
    many = tell(Told(engine=[*old, *UP, *((float(i), "index_assert") for i in range(40))]), Told(engine=[*JOINED]))
    assert few.cause is not None
    assert many.cause is not None
    assert (few.cause.at_s, many.cause.at_s) == (ZERO.timestamp(), ZERO.timestamp() + 20)
    assert "lines like it, just before it, were not brought back" in many.cause.because[-1]
    assert (few.cause.confidence, many.cause.confidence) == ("high", "medium")


def test_a_kernel_that_said_nothing_in_a_week_was_not_read() -> None:
    told = {"head": Told(engine=[*UP, *GONE]), "worker": Told(engine=[*JOINED], end=(0.1, 137, False, False))}
    readings = {role: reading(role, told[role]) for role in ROLES}
    report = report_on(case_of(readings, wide=True), None, taken_at=ZERO)
    assert {s.problem for s in report.sources if s.name == "kernel"} == {"it is empty"}
    assert report.cause is not None
    assert report.cause.confidence == "low"


def test_the_kernel_of_a_rehearsal_node_is_its_hosts() -> None:
    told = {"head": Told(engine=[*UP, *GONE]), "worker": Told(engine=[*JOINED], end=(0.1, 137, False, False))}
    marker = ProbeResult(id="incident.lab", files={"/etc/dspark-lab.json": "{}"})
    readings = {}
    for role in ROLES:
        answer = reading(role, told[role])
        readings[role] = answer.model_copy(update={"results": {**answer.results, "incident.lab": marker}})
    report = report_on(case_of(readings), None, taken_at=ZERO)
    assert {s.problem for s in report.sources if s.name == "kernel"} == {"a rehearsal node shares its host's kernel"}
