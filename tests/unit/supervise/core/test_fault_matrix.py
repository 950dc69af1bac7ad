"""The rows of the fault matrix, each in virtual time: what notices it, how soon, what is done, what is not."""

from __future__ import annotations

import pytest

from dspark_ops.supervise.core import machine
from dspark_ops.supervise.core.model import FatalLine, Memory, Wanted
from tests.unit.supervise.core.drills import DRILLS, Drill, play
from tests.unit.supervise.core.world import Container, World, one_epoch, serving_world

ORDER = ("stop_head", "kill_head", "stop_worker", "kill_worker", "remove_orphan", "start_worker", "start_head")


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_a_fault_is_noticed_in_time_by_two_witnesses_or_a_death_and_heals(drill: Drill) -> None:
    seen = play(drill)
    assert seen.detect_s <= drill.until_s
    assert set(seen.witnesses) == drill.by
    assert list(seen.disruptive) == sorted(seen.disruptive, key=ORDER.index)
    assert seen.disruptive.count("start_worker") == seen.disruptive.count("start_head") == 1


@pytest.mark.parametrize("chunk_s", [9.0, 25.0, 55.0])
def test_half_an_hour_of_prefills_saturation_and_idle_touches_nothing(chunk_s: float) -> None:
    world = serving_world(chunk_s=chunk_s)
    began = world.t
    for load in ("prefill", "saturated", "idle", "prefill", "decode", "saturated"):
        world.load = load  # type: ignore[assignment]
        world.run(1030)
        assert world.state in ("serving", "suspect")
    assert world.disruptive(since=began) == []
    seen = {transition.target for at, transition in world.transitions if at > began}
    # A chunk nearly as long as a canary waits leaves one witness at times, and one is not enough.
    assert seen <= ({"suspect", "serving"} if chunk_s > 50 else set())


def test_a_link_that_is_gone_for_eight_seconds_heals_by_itself() -> None:
    world = serving_world(load="decode")
    began = world.t
    world.nodes["worker"].fabric = False
    world.run(8)
    world.nodes["worker"].fabric = True
    world.run(300)
    assert world.state == "serving"
    assert world.disruptive(since=began) == []


def test_serving_that_nothing_proves_any_more_is_called_suspect_and_not_restarted() -> None:
    world = serving_world(load="decode")
    began = world.t
    sight, asked = world._engine_sight, world._canary
    world._engine_sight = lambda: None  # type: ignore[assignment, method-assign, return-value]
    world._canary = lambda: None  # type: ignore[method-assign]
    assert 170 <= world.run_until(lambda w: w.state == "suspect", 300) <= 190
    world.run(400)
    assert "suspect-long" in world.alerts()
    assert world.disruptive(since=began) == []
    world._engine_sight, world._canary = sight, asked  # type: ignore[method-assign]
    world.run_until(lambda w: w.state == "serving", 60)


def test_a_cut_fabric_drains_and_starts_nothing_until_it_is_back() -> None:
    world = serving_world(load="decode")
    world.nodes["worker"].fabric = False
    assert world.run_until(lambda w: w.state == "draining", 120) <= 90
    world.run(900)
    assert world.state == "cooling"
    assert {"stuck-cooling", "fabric-lost", "not-serving"} <= world.alerts()
    assert world.starts() == []
    world.nodes["worker"].fabric = True
    world.load = "idle"
    world.recovers(300)


def test_a_lost_management_path_with_a_good_canary_only_alerts() -> None:
    world = serving_world()
    began = world.t
    world.nodes["worker"].management = False
    world.run(900)
    assert world.state == "serving"
    assert "management-lost" in world.alerts()
    assert world.disruptive(since=began) == []


def test_a_worker_that_cannot_be_asked_at_all_is_no_dead_worker() -> None:
    """sshd is gone, the rank works: nothing may be stopped for it."""
    world = serving_world()
    began = world.t
    node = world.nodes["worker"]
    original = world._reached
    world._reached = lambda role: role == "head" and original(role)  # type: ignore[method-assign]
    world.run(900)
    assert node.container is not None
    assert node.container.state == "running"
    assert world.disruptive(since=began) == []
    assert machine.route(world.settings, world.memory, 1.0) == 200


def test_a_crash_loop_ends_in_a_latch_after_the_budget() -> None:
    world = serving_world()
    world.bad_image = True
    world.end("worker")
    world.run_until(lambda w: w.state == "failed", 6 * 3600)
    world.run(600)
    assert len(world.starts()) == world.settings.budget == 4
    assert "latched" in world.alerts()
    assert len({action.epoch for _, action in world.log if action.kind == "start_worker"}) == 4
    assert [a.failure_class for a in world.memory.attempts] == ["loops"] * 4
    waits = [later - earlier for earlier, later in zip(world.starts(), world.starts()[1:], strict=False)]
    assert waits == sorted(waits)
    assert waits[0] >= 60
    assert waits[2] >= 900


def test_the_latch_lasts_until_a_person_resumes() -> None:
    world = serving_world()
    world.bad_image = True
    world.end("worker")
    world.run_until(lambda w: w.state == "failed", 6 * 3600)
    world.bad_image = False
    world.skip(12 * 3600).run(60)
    assert world.state == "failed"
    assert world.last is not None
    world.memory = machine.resume(world.memory, world.last)
    world.recovers(300)


def test_a_taken_port_starts_nothing_and_names_the_holder() -> None:
    world = serving_world()
    world.nodes["head"].holders = ("25000 by pid 77 (nc)",)
    world.end("head")
    world.run(600)
    assert world.state == "cooling"
    assert world.starts() == []
    stuck = next(alert for alert in world.memory.alerts if alert.key == "stuck-cooling")
    assert "25000 by pid 77 (nc)" in stuck.text
    assert stuck.page
    world.nodes["head"].holders = ()
    world.recovers(300)


def test_a_start_that_a_node_refuses_is_spent_and_says_why() -> None:
    world = serving_world()
    world.end("head")
    world.run_until(lambda w: w.state == "starting", 60)
    world.nodes["worker"].holders = ("no image sha256:1 here",)
    world.run_until(lambda w: w.state == "stopping", 30)
    assert "no image sha256:1 here" in (world.memory.attempts[-1].failure or "")


def test_memory_that_does_not_come_back_starts_nothing_and_names_the_tenant() -> None:
    world = serving_world()
    world.nodes["worker"].hog_gib = 60.0
    world.end("worker")
    world.run(600)
    assert world.state == "cooling"
    assert world.starts() == []
    text = next(alert.text for alert in world.memory.alerts if alert.key == "stuck-cooling")
    assert "llama-server 102 GiB" in text
    assert "97 GiB" in text


def test_memory_below_the_floor_gives_a_start_up() -> None:
    world = serving_world()
    world.end("worker")
    world.run_until(lambda w: w.state == "starting" and len(w.memory.started) == 2, 120)
    world.nodes["head"].hog_gib = 17.0
    world.run_until(lambda w: w.state == "stopping", 10)
    assert "fell to 1.0 GiB" in world.memory.reason


@pytest.mark.parametrize("line", [FatalLine(key="b:1", kind="xid", code=79), FatalLine(key="b:2", kind="aer")])
def test_after_a_fatal_line_nothing_is_restarted_and_a_person_is_called(line: FatalLine) -> None:
    world = serving_world(load="decode")
    began = world.t
    world.nodes["worker"].fatal = (line,)
    world.run(60)
    assert world.state == "serving"
    assert "harm" in world.alerts()
    world.end("worker")
    world.run(600)
    assert world.state == "failed"
    assert world.disruptive(since=began) == []
    assert "collect_evidence" in world.did(since=began)


def test_a_common_xid_does_not_forbid_a_restart() -> None:
    world = serving_world()
    world.nodes["worker"].fatal = (FatalLine(key="b:1", kind="xid", code=31),)
    world.end("worker")
    world.recovers(300)


def test_a_fatal_line_that_a_person_has_seen_forbids_nothing_more() -> None:
    world = serving_world()
    world.nodes["worker"].fatal = (FatalLine(key="b:1", kind="xid", code=79),)
    world.end("worker")
    world.run_until(lambda w: w.state == "failed", 60)
    assert world.last is not None
    world.memory = machine.resume(world.memory, world.last)
    world.recovers(300)


@pytest.mark.parametrize("in_order", [False, None], ids=["a reset", "nobody knows"])
def test_a_node_that_is_reset_in_a_prefill_is_not_given_the_same_prompt_again(in_order: bool | None) -> None:
    world = serving_world(load="prefill")
    world.reset("worker", off_s=120.0, in_order=in_order)
    world.run(900)
    assert world.state == "failed"
    assert "during a prefill" in (world.memory.latched or "")
    assert world.starts() == []


def test_a_node_that_was_shut_down_in_a_prefill_is_started_again() -> None:
    world = serving_world(load="prefill")
    world.reset("worker", off_s=120.0, in_order=True)
    world.run_until(lambda w: w.state not in ("serving", "suspect"), 300)
    world.load = "idle"
    world.recovers(600)


def test_a_head_that_is_reset_in_a_prefill_is_latched_too() -> None:
    world = serving_world(load="prefill")
    world.reset("head", off_s=120.0)
    world.load = "idle"
    world.run(900)
    assert world.state == "failed"
    assert world.starts() == []


def test_a_second_reset_under_load_is_no_power_cut() -> None:
    world = serving_world(load="decode")
    for _ in range(2):
        world.reset("worker", off_s=100.0)
        world.run_until(lambda w: w.state not in ("serving", "suspect"), 300)
        world.load = "idle"
        world.run_until(lambda w: w.state in ("serving", "failed"), 2000)
        world.run(1000)
        world.load = "decode"
    assert world.state == "failed"
    assert "2 resets" in (world.memory.latched or "")


@pytest.mark.parametrize(("head_off", "worker_off"), [(60.0, 300.0), (300.0, 60.0), (90.0, 90.0)])
@pytest.mark.parametrize("in_order", [True, False])
def test_both_nodes_booting_in_any_order_ends_serving(head_off: float, worker_off: float, in_order: bool) -> None:
    world = serving_world(load="decode")
    world.reset("worker", off_s=worker_off, in_order=in_order)
    world.reset("head", off_s=head_off, in_order=in_order)
    world.load = "idle"
    world.run(60)
    world.recovers(900)
    assert one_epoch(world).startswith("s")


def test_a_dead_head_leaves_no_worker_of_another_start() -> None:
    world = serving_world()
    world.end("head")
    world.recovers(300)
    assert "stop_worker" in world.did()
    assert "stop_head" not in world.did()
    one_epoch(world)


def test_a_worker_of_another_start_is_removed_and_the_pair_started_as_one() -> None:
    world = World()
    world.nodes["worker"].container = Container(epoch="stale")
    world.recovers(300)
    assert one_epoch(world) != "stale"
    assert world.did("stop_worker", "remove_orphan", "start_worker") == ["stop_worker", "remove_orphan", "start_worker"]


def test_a_pair_of_another_release_is_replaced_by_the_adopted_one() -> None:
    world = World(wanted=Wanted(release="r-2"))
    for role in ("head", "worker"):
        world.nodes[role].container = Container(epoch="old", release="r-1")  # type: ignore[index]
    world.run_until(lambda w: w.state == "starting", 300)
    assert world.did("stop_head", "stop_worker") == ["stop_head", "stop_worker"]


def test_a_full_disk_alerts_and_starts_nothing_that_would_be_forgotten() -> None:
    world = serving_world()
    world.saved_ok = False
    world.run(60)
    assert world.state == "serving"
    assert "state-not-saved" in world.alerts()
    world.end("worker")
    world.run(600)
    assert world.starts() == []
    assert (world.state, world.memory.attempts) == ("cooling", ())
    world.saved_ok = True
    world.recovers(300)


def test_a_disk_that_fills_between_the_ranks_starts_no_head() -> None:
    world = World()
    world.run_until(lambda w: "start_worker" in w.did(), 60)
    world.saved_ok = False
    world.run(60)
    assert "start_head" not in world.did()
    world.saved_ok = True
    world.run_until(lambda w: w.state == "serving", 200)


def test_a_head_is_not_started_beside_a_worker_that_nobody_can_see() -> None:
    world = World()
    world.run_until(lambda w: "start_worker" in w.did(), 60)
    world.nodes["head"].docker = False
    world.run_until(lambda w: "worker" in w.memory.started, 10)
    world.nodes["head"].docker, world.nodes["worker"].docker = True, False
    world.run(60)
    assert "start_head" not in world.did()
    world.nodes["worker"].docker = True
    world.run_until(lambda w: w.state == "serving", 200)


def test_a_worker_that_cannot_be_looked_at_is_waited_for_and_told() -> None:
    world = serving_world()
    began = world.t
    world.nodes["worker"].docker = False
    world.end("head")
    world.run(300)
    assert world.state == "stopping"
    assert world.disruptive(since=began) == []
    text = next(alert.text for alert in world.memory.alerts if alert.key == "stuck-stopping")
    assert text == "stopping waits until the rank on worker can be looked at"
    world.nodes["worker"].docker = True
    world.recovers(300)


def test_docker_that_restarts_without_ending_the_ranks_is_nothing() -> None:
    world = serving_world()
    began = world.t
    world.nodes["head"].docker = False
    world.run(60)
    assert "docker-head" in world.alerts()
    world.nodes["head"].docker = True
    world.run(60)
    assert world.state == "serving"
    assert world.disruptive(since=began) == []


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_jump_of_the_clock_neither_ends_nor_prolongs_the_backoff(jump_s: float) -> None:
    def second_start(jump: float) -> list[float]:
        world = serving_world()
        world.bad_image = True
        world.end("worker")
        world.run_until(lambda w: w.state == "cooling" and w.memory.failures == 3, 1200)
        world.wall_offset += jump
        for node in world.nodes.values():
            node.synced = jump == 0.0
        world.run_until(lambda w: w.state == "failed", 3 * 3600)
        return world.starts()

    plain, jumped = second_start(0.0), second_start(jump_s)
    assert len(plain) == len(jumped) == 4
    # The last start waits for a clock at most clock_wait_s, which is shorter than its backoff.
    assert jumped == plain


def test_after_two_healthy_hours_the_next_restart_does_not_wait() -> None:
    world = serving_world()
    for _ in range(2):
        world.end("worker")
        world.recovers(600)
    assert world.memory.failures == 2
    world.skip(2 * 3600).run(60)
    assert world.memory.failures == 0
    world.end("worker")
    assert world.recovers(600) < 120


def test_a_rank_that_does_not_stop_is_killed_and_its_worker_only_after_it() -> None:
    world = serving_world(load="decode")
    world._touch, touch = (
        (  # type: ignore[method-assign]
            lambda action, node, role: None if action.kind == "stop_head" else touch(action, node, role)
        ),
        world._touch,
    )
    world.frozen = True
    world.recovers(900)
    stops = world.did("stop_head", "kill_head", "stop_worker", "kill_worker")
    assert list(dict.fromkeys(stops)) == ["stop_head", "kill_head", "stop_worker"]


def test_a_freeze_that_ends_while_evidence_is_collected_stops_nothing() -> None:
    world = serving_world(load="decode")
    began = world.t
    world.frozen = True
    world.run_until(lambda w: w.state == "draining", 300)
    assert machine.route(world.settings, world.memory, 0.0) == 404
    world.frozen = False
    world.recovers(120)
    assert world.disruptive(since=began) == []
    assert world.memory.incident is not None
    assert world.memory.incident.recovered is not None


def test_a_slow_start_is_not_a_wedge_and_one_without_end_is_given_up() -> None:
    world = World(load_s=1700.0)
    world.recovers(1900)
    assert len(world.starts()) == 1
    world = World(load_s=2500.0)
    world.run_until(lambda w: w.state == "stopping", 2000)
    assert "was not up in 1800 s" in world.memory.reason


def test_a_busy_pair_that_is_taken_over_is_not_restarted_for_a_gate_that_waits() -> None:
    world = serving_world(load="prefill")
    world.stored = ""
    world.crash()
    began = world.t
    world.run(2000)
    assert world.state == "gate"
    assert "gate-long" in world.alerts()
    world.load = "idle"
    world.run_until(lambda w: w.state == "serving", 60)
    assert world.disruptive(since=began) == []


def test_a_start_whose_gate_has_no_verdict_is_given_up() -> None:
    world = World()
    world.run_until(lambda w: w.state == "gate", 200)
    world.frozen = True
    world.run_until(lambda w: w.state == "stopping", 1900)
    assert "the gate had no verdict in 1800 s" in world.memory.reason


def test_a_gate_that_fails_three_times_ends_the_start() -> None:
    world = World(garbled=True)
    world.run_until(lambda w: w.state == "stopping", 300)
    assert "the gate failed 3 times" in world.memory.reason
    assert world.memory.attempts[-1].failure_class == "loops"


def test_a_pair_that_was_stopped_on_purpose_stays_down() -> None:
    world = World(wanted=Wanted(release="r-1", run=False))
    world.run(600)
    assert world.state == "cooling"
    assert world.did() == []
    world.wanted = Wanted(release="r-1")
    world.recovers(200)


def test_nothing_adopted_does_nothing() -> None:
    world = World(wanted=None)
    world.run(600)
    assert world.did() == []
    assert world.memory.waits_for == ("a release is adopted",)


def test_a_first_look_has_no_memory_and_still_takes_over_what_serves() -> None:
    world = serving_world()
    world.stored = ""
    world.crash()
    assert world.memory == Memory(seed="world")
    began = world.t
    world.recovers(60)
    assert world.disruptive(since=began) == []


def test_after_a_boot_a_start_waits_for_the_clocks_but_not_for_ever() -> None:
    world = serving_world()
    for role in ("worker", "head"):
        world.reset(role, off_s=30.0, in_order=True)  # type: ignore[arg-type]
    world.nodes["worker"].synced = False
    world.run(200)
    assert world.starts() == []
    assert world.memory.waits_for == ("the clock of worker is synchronised",)
    world.run_until(lambda w: w.state == "serving", 300)
    assert "clock-worker" in world.alerts()


def test_a_clock_that_is_lost_later_delays_no_restart() -> None:
    world = serving_world()
    for node in world.nodes.values():
        node.synced = False
    world.end("worker")
    assert world.recovers(300) < 120


def test_another_release_that_is_adopted_restarts_nothing_and_is_told() -> None:
    world = serving_world()
    began = world.t
    world.wanted = Wanted(release="r-2")
    world.run(600)
    assert world.state == "serving"
    assert "release-differs" in world.alerts()
    assert world.disruptive(since=began) == []
