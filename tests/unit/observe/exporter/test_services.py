"""The engine, the supervisor, the gateway and the doctor: a rate needs two looks, the unsaid is not exported."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dspark_ops.observe.exporter.doctor import export_doctor
from dspark_ops.observe.exporter.engine import CREDENTIAL, Engine, export_models, get_with_key
from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.gateway import Gateway
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.supervisor import Supervisor
from dspark_ops.observe.exporter.tree import Tree
from tests.unit.observe.exporter import documents, trees
from tests.unit.observe.exporter.recording import HeldClock, Services

ENGINE = "http://127.0.0.1:8000"
STATUS = "http://127.0.0.1:8017"
ROUTER = "http://127.0.0.1:4000"


def looks(source: Engine | Supervisor | Gateway, count: int = 2, clock: HeldClock | None = None) -> Families:
    """Several looks 10 s apart; what the last one exported."""
    into = Families()
    for _ in range(count):
        into = Families()
        source.read(into)
        if clock is not None:
            clock.now += 10
    return into


class TestEngine:
    def engine(self, *scrapes: str) -> tuple[Engine, HeldClock]:
        clock = HeldClock()
        return Engine(ENGINE, Services({f"{ENGINE}/metrics": list(scrapes)}), clock), clock

    def test_the_first_look_has_a_pool_and_no_rates(self) -> None:
        engine, clock = self.engine(documents.vllm())
        into = looks(engine, 1, clock)
        assert into.values["dspark_kv_pool_tokens"] == {("engine",): 43_648.0}
        assert "dspark_acceptance_ratio" not in into.values
        assert "dspark_steps_per_second" not in into.values

    def test_acceptance_of_the_interval_overall_and_by_position(self) -> None:
        engine, clock = self.engine(documents.vllm(1), documents.vllm(2))
        into = looks(engine, 2, clock)
        assert into.values["dspark_acceptance_ratio"][()] == pytest.approx(313 / 1443)
        positions = {key[0]: value for key, value in into.values["dspark_acceptance_position_ratio"].items()}
        assert positions["0"] == pytest.approx(298 / 320)
        assert positions["1"] == pytest.approx(15 / 320)
        assert into.values["dspark_engine_interval_seconds"][()] == 10
        assert into.values["dspark_acceptance_drafts"][()] == 320

    def test_an_idle_interval_has_no_acceptance_and_zero_steps(self) -> None:
        engine, clock = self.engine(documents.vllm())
        into = looks(engine, 2, clock)
        assert "dspark_acceptance_ratio" not in into.values
        assert "dspark_tokens_per_step" not in into.values
        assert into.values["dspark_steps_per_second"][()] == 0

    def test_a_restart_between_two_looks_makes_no_rate(self) -> None:
        again = documents.vllm(2).replace(
            "process_start_time_seconds 1.79545883844e+09", "process_start_time_seconds 2e9"
        )
        engine, clock = self.engine(documents.vllm(1), again)
        assert "dspark_acceptance_ratio" not in looks(engine, 2, clock).values

    def test_counters_that_went_back_make_no_rate(self) -> None:
        engine, clock = self.engine(documents.vllm(2), documents.vllm(1))
        into = looks(engine, 2, clock)
        assert "dspark_steps_per_second" not in into.values
        assert "dspark_acceptance_drafts" not in into.values

    def test_an_outage_is_not_bridged(self) -> None:
        """A look that failed ends the interval: the next rate would be over an unknown time of another process."""
        clock = HeldClock()
        answers = {f"{ENGINE}/metrics": [documents.vllm(1), "", documents.vllm(2)]}
        engine = Engine(ENGINE, Services(answers), clock)
        engine.read(Families())
        clock.now += 10
        with pytest.raises(SourceError):
            engine.read(Families())
        clock.now += 10
        engine.read(into := Families())
        assert "dspark_acceptance_ratio" not in into.values

    def test_the_window_beside_the_wanted_one(self) -> None:
        into = Families()
        export_models(ENGINE, 1_048_576, into, lambda _url: documents.models(204_800))
        assert into.values["dspark_model_max_len"] == {("deepseek-v4-flash",): 204_800.0}
        assert into.values["dspark_model_wanted_max_len"] == {(): 1_048_576.0}

    @pytest.mark.parametrize(
        "text", ["{}", "[]", "x", '{"data": [{"id": "m"}]}', '{"data": [{"id": "m", "max_model_len": 0}]}']
    )
    def test_a_list_without_a_window_is_a_source_that_is_down(self, text: str) -> None:
        with pytest.raises(SourceError, match="no model"):
            export_models(ENGINE, None, Families(), lambda _url: text)

    def test_the_key_of_the_engine_comes_from_systemd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []

        def get(_url: str, headers: object) -> str:
            asked.append(headers)
            return ""

        monkeypatch.setattr("dspark_ops.observe.exporter.engine.get", get)
        get_with_key(ENGINE)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        (tmp_path / CREDENTIAL).write_text("sesame\n", encoding="ascii")
        get_with_key(ENGINE)
        assert asked == [{}, {"Authorization": "Bearer sesame"}]


class TestSupervisor:
    def supervisor(self, *answers: str) -> Supervisor:
        return Supervisor(STATUS, Services({f"{STATUS}/status": list(answers)}), lambda: 1_796_000_000.0)

    def test_one_state_is_hot(self) -> None:
        into = looks(self.supervisor(documents.status(state="suspect")), 1)
        states = {key[0]: value for key, value in into.values["dspark_supervisor_state"].items()}
        assert len(states) == 8
        assert [state for state, value in states.items() if value] == ["suspect"]

    def test_a_state_that_is_not_known_yet_is_told_too(self) -> None:
        into = looks(self.supervisor(documents.status(state="dreaming")), 1)
        assert into.values["dspark_supervisor_state"]["dreaming",] == 1
        assert sum(into.values["dspark_supervisor_state"].values()) == 1

    def test_hold_and_latch_and_route(self) -> None:
        hold = {"reason": "firmware", "owner": "me", "left_s": 600.0}
        into = looks(
            self.supervisor(documents.status(state="failed", hold=hold, latched="4 restarts", may_serve=False)), 1
        )
        told = {name: into.values[f"dspark_supervisor_{name}"][()] for name in ("held", "latched", "may_serve")}
        assert told == {"held": 1, "latched": 1, "may_serve": 0}
        assert into.values["dspark_supervisor_hold_left_seconds"][()] == 600

    def test_what_the_document_does_not_say_is_not_exported(self) -> None:
        bare = json.dumps({"schema": "dspark-ops/supervise/v1", "state": "serving"})
        into = looks(self.supervisor(bare), 1)
        for name in ("held", "latched", "may_serve", "epoch_info", "last_detect_seconds", "step_age_seconds"):
            assert f"dspark_supervisor_{name}" not in into.values, name
        assert "dspark_canary_ok" not in into.values

    @pytest.mark.parametrize(
        ("verdict", "ok"), [("correct", 1.0), ("wrong", 0.0), ("timeout", 0.0), ("busy", None), ("unknown", 0.0)]
    )
    def test_a_canary_that_was_turned_away_is_neither(self, verdict: str, ok: float | None) -> None:
        canary = {"verdict": verdict, "ended_s": 4990.0}
        into = looks(self.supervisor(documents.status(canary=canary)), 1)
        assert into.values.get("dspark_canary_ok", {}).get(()) == ok

    @pytest.mark.parametrize("changes", [{"state": "starting"}, {"state": "draining"}, {"monotonic_s": 6200.0}])
    def test_the_canary_of_an_engine_that_is_no_more_says_nothing(self, changes: dict[str, Any]) -> None:
        assert "dspark_canary_ok" not in looks(self.supervisor(documents.status(**changes)), 1).values

    def test_an_incident_is_counted_once_and_with_its_times(self) -> None:
        into = looks(self.supervisor(documents.status(), documents.status(recovered=True)), 4)
        assert into.values["dspark_supervisor_restarts_total"] == {("process",): 1.0, ("wanted",): 1.0}
        assert into.histograms["dspark_supervisor_detect_seconds"].total == 1
        assert into.histograms["dspark_supervisor_recover_seconds"].sum == 190.0

    def test_an_incident_before_the_first_look_is_shown_and_not_counted(self) -> None:
        into = looks(self.supervisor(documents.status(recovered=True)), 2)
        assert into.values["dspark_supervisor_last_recover_seconds"][()] == 190
        assert into.histograms["dspark_supervisor_recover_seconds"].total == 0

    def test_a_detection_is_counted_before_its_recovery(self) -> None:
        open_ = documents.status(incident={"id": "i-8", "detect_s": 3.0, "recover_s": None}, state="starting")
        into = looks(self.supervisor(documents.status(), open_), 3)
        assert into.histograms["dspark_supervisor_detect_seconds"].total == 1
        assert into.histograms["dspark_supervisor_recover_seconds"].total == 0
        assert "dspark_supervisor_last_recover_seconds" not in into.values

    def test_alerts_by_urgency(self) -> None:
        alerts = [{"key": "a", "text": "x", "page": True}, {"key": "b", "text": "y", "page": False}]
        into = looks(self.supervisor(documents.status(alerts=alerts)), 1)
        assert into.values["dspark_supervisor_alerts"] == {("no",): 1.0, ("yes",): 1.0}

    def test_another_program_on_the_port_is_no_supervisor(self) -> None:
        with pytest.raises(SourceError, match="expected 'dspark-ops/supervise/v1'"):
            looks(self.supervisor('{"schema": "other"}'), 1)


def test_the_real_supervisors_document_is_read() -> None:
    """What the supervisor's own code publishes, not what this test thinks that it does."""
    from dspark_ops.supervise.core.memory import Starts
    from dspark_ops.supervise.core.model import CanarySight, Hold, Incident, Instant, Memory, Observation, Settings
    from dspark_ops.supervise.node import publish

    was, now = Instant(monotonic_s=100.0, wall_s=1_796_000_000.0), Instant(monotonic_s=160.0, wall_s=1_796_000_060.0)
    memory = Memory(
        seed="s",
        state="serving",
        since=now,
        epoch="e-9",
        hold=Hold(reason="firmware", owner="me", since=now, for_s=600.0),
        incident=Incident(
            id="i",
            reason="r",
            failure_class="cures",
            dead=True,
            prefilling=False,
            first_sign=was,
            detected=was,
            recovered=now,
        ),
        restarts=(Starts(cause="process", count=2),),
    )
    config = SimpleNamespace(site="example", wanted="running", release="r-1")
    observation = Observation(
        wall_s=1_796_000_070.0, monotonic_s=170.0, boot_id="b", canary=CanarySight(verdict="correct", ended_s=165.0)
    )
    document = publish.status_document(
        cast("Any", config),
        Settings(memory_needed_gib=1.0),
        memory,
        observation,
        route=404,
        problems=(),
        running_since=1.0,
    )
    supervisor = Supervisor(STATUS, Services({f"{STATUS}/status": [json.dumps(document)]}), lambda: 1_796_000_071.0)
    into = looks(supervisor, 1)
    told = {key: value[()] for key, value in into.values.items() if () in value}
    assert told["dspark_supervisor_state_since_timestamp_seconds"] == 1_796_000_060
    assert told["dspark_supervisor_hold_left_seconds"] == 590
    assert told["dspark_supervisor_last_recover_seconds"] == 60
    assert told["dspark_supervisor_step_age_seconds"] == 1
    assert told["dspark_canary_ok"] == 1
    assert (told["dspark_supervisor_held"], told["dspark_supervisor_latched"]) == (1, 0)
    assert told["dspark_supervisor_may_serve"] == 0
    assert into.values["dspark_supervisor_restarts_total"] == {("process",): 2.0}
    assert into.values["dspark_supervisor_epoch_info"] == {("e-9", "r-1"): 1.0}


class TestGateway:
    def gateway(self, *answers: str) -> Gateway:
        return Gateway(ROUTER, Services({f"{ROUTER}/metrics": list(answers)}))

    def test_share_of_the_cloud_in_the_interval(self) -> None:
        into = looks(self.gateway(documents.gateway(2), documents.gateway(3)))
        assert into.values["dspark_gateway_cloud_share_ratio"][()] == 1.0
        assert into.values["dspark_gateway_failover_answers_total"][()] == 3
        assert into.values["dspark_gateway_requests_total"]["cloud", "local-failed-503", "2xx"] == 3
        assert into.values["dspark_gateway_spend_usd"] == {("hour",): 0.5, ("day",): 2.5}

    @pytest.mark.parametrize(("cloud", "local"), [(2, 40), (0, 0), (0, 50)])
    def test_no_share_without_answers_or_after_a_restart(self, cloud: int, local: int) -> None:
        into = looks(self.gateway(documents.gateway(2, 40), documents.gateway(cloud, local)))
        assert "dspark_gateway_cloud_share_ratio" not in into.values

    def test_a_backend_is_told_from_zero_on(self) -> None:
        nothing = "# TYPE dspark_gateway_answers_total counter\n# TYPE dspark_gateway_ledger_usable gauge\n"
        into = looks(self.gateway(nothing + "dspark_gateway_ledger_usable 1\n"), 1)
        assert into.values["dspark_gateway_backend_answers_total"] == {("local",): 0.0, ("cloud",): 0.0}
        assert into.values["dspark_gateway_failover_answers_total"] == {(): 0.0}
        assert "dspark_gateway_spend_usd" not in into.values

    def test_the_real_routers_text_is_read(self) -> None:
        """What the gateway's own code writes, not what this test thinks that it does."""
        from collections import Counter

        from dspark_ops.gateway.plugin.metrics import exposition

        cloud = SimpleNamespace(hour_micro_usd=2_000_000, day_micro_usd=10_000_000)
        spent = SimpleNamespace(hour_micro_usd=250_000, day_micro_usd=750_000)
        state = SimpleNamespace(
            answers=Counter(
                {
                    ("cloud", "local-failed-503", "2xx"): 4,
                    ("cloud", "only-cloud-fits", "2xx"): 2,
                    ("cloud", "unfinished", "4xx"): 1,
                    ("local", "local-first", "2xx"): 6,
                }
            ),
            policy=SimpleNamespace(cloud=cloud),
            ledger=SimpleNamespace(spent=lambda: spent),
        )
        into = looks(self.gateway(exposition(cast("Any", state))), 1)
        assert into.values["dspark_gateway_backend_answers_total"] == {("local",): 6.0, ("cloud",): 7.0}
        assert into.values["dspark_gateway_failover_answers_total"] == {(): 4.0}
        assert into.values["dspark_gateway_spend_usd"]["hour",] == 0.25
        assert into.values["dspark_gateway_budget_usd"]["day",] == 10.0
        assert into.values["dspark_gateway_ledger_usable"][()] == 1.0

    def test_another_program_on_the_port_is_no_gateway(self) -> None:
        with pytest.raises(SourceError, match="not the gateway"):
            looks(self.gateway("# TYPE up gauge\nup 1\n"), 1)


class TestDoctor:
    def test_failures_that_are_not_ignored(self, tmp_path: Path) -> None:
        trees.write(tmp_path, documents.DOCTOR_PATH, documents.doctor())
        export_doctor(Tree(tmp_path), documents.DOCTOR_PATH, into := Families())
        assert into.values["dspark_doctor_last_failing"] == {("fabric.mtu", "worker", "required"): 1.0}
        assert into.values["dspark_doctor_last_results"] == {("ok",): 1.0, ("fail",): 2.0}

    @pytest.mark.parametrize("text", [None, "", "up 1\n", "{"])
    def test_no_result_is_a_source_that_is_down(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            trees.write(tmp_path, documents.DOCTOR_PATH, text)
        with pytest.raises(SourceError):
            export_doctor(Tree(tmp_path), documents.DOCTOR_PATH, Families())
