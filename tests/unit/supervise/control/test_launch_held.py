"""deploy and rollback over a supervisor: it lets go before the first change, and keeps what serves afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy.apply import Documents
from dspark_ops.deploy.launch import Wishes
from dspark_ops.deploy.launch import deploy as run
from dspark_ops.deploy.rollback import rollback
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.facts.rank import LABEL
from dspark_ops.facts.supervisor import ABSENT, SupervisorFacts
from dspark_ops.releases import store
from dspark_ops.supervise.control.document import Adopted, adopt
from dspark_ops.supervise.control.words import run_owner
from tests.unit.deploy.conftest import rank_of, seen
from tests.unit.deploy.test_launch import DIED, READY, RIGHT, Kept, Stage, deploy
from tests.unit.supervise.control.conftest import Keeping, supervised, supervisor_of


def kept(site: LoadedSite) -> Adopted:
    return adopt(Documents.of(render_pair(site.site, site.profile), "e1"))


def release_told(keeping: Keeping) -> str:
    return str(keeping.told()["ranks"]["head"]["labels"][f"{LABEL}release"])


def test_it_is_held_before_the_first_change_and_keeps_the_new_release(stage: Stage, keeping: Keeping) -> None:
    supervised(stage, supervisor_of(stage.loaded))
    report = deploy(stage)
    assert stage.steps == ["held", "settle", "worker", "head", "told"]
    assert report.exit_code == 0
    assert "hold  the supervisor" in stage.plans[0]
    (words,) = keeping.asked("held")
    assert words[:3] == ["hold", "--reason", f"deploy of release {release_told(keeping)}"]
    assert words[words.index("--owner") + 1] == run_owner()
    assert "--drain" in words
    assert keeping.told()["wanted"] == "serving"
    assert keeping.asked("told") == [["resume", "--owner", run_owner()]]
    assert release_told(keeping) == render_pair(stage.loaded.site, stage.loaded.profile)["head"].release
    assert {"hold", "hand over"} <= {phase.name for phase in report.phases}


def test_a_new_release_gives_its_hold_back_and_leaves_a_latch_to_the_supervisor(stage: Stage, keeping: Keeping) -> None:
    supervised(stage, supervisor_of(stage.loaded, latched="four starts in six hours", state="failed"))
    assert deploy(stage).exit_code == 0
    assert keeping.asked("told") == [["resume", "--owner", run_owner()]]


def test_without_one_nothing_is_different(stage: Stage, keeping: Keeping) -> None:
    supervised(stage, ABSENT)
    report = deploy(stage)
    assert stage.steps == ["settle", "worker", "head"]
    assert not {"hold", "hand over"} & {phase.name for phase in report.phases}


def test_what_was_put_back_is_kept_under_its_own_settings(stage: Stage, served: Kept, keeping: Keeping) -> None:
    supervised(stage, supervisor_of(served.loaded, kept(served.loaded)))
    stage.ends = [DIED, READY]
    report = deploy(stage)
    assert report.exit_code == 5
    assert stage.steps[-1] == "told"
    assert release_told(keeping) == served.id


def test_a_failure_with_nothing_before_leaves_it_what_it_kept(stage: Stage, keeping: Keeping) -> None:
    """It may have been about to start that again when the deploy began."""
    supervised(stage, supervisor_of(stage.loaded))
    stage.ends = [DIED]
    report = deploy(stage)
    assert report.exit_code == 5
    assert stage.steps[-2:] == ["stop.yml", "resumed"]


def test_a_pair_that_is_left_unclear_stays_held(stage: Stage, served: Kept, keeping: Keeping) -> None:
    supervised(stage, supervisor_of(served.loaded, kept(served.loaded)))
    stage.ends = [DIED, DIED]
    report = deploy(stage)
    assert report.exit_code == 6
    assert "told" not in stage.steps
    assert "resumed" not in stage.steps
    assert any("stays held" in line for line in report.left)


def test_a_latch_outlives_a_deploy_that_touched_nothing(stage: Stage, keeping: Keeping) -> None:
    """A resume would give it a fresh budget for what it has given up."""
    supervised(stage, supervisor_of(stage.loaded, latched="four starts in six hours", state="failed"))
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    found = seen(stage.loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=RIGHT)
    stage.observation = type(found)(found.pair, found.canary, stage.observation.supervisor)
    stage.ends = [DIED]
    report = deploy(stage)
    assert report.exit_code == 1
    assert stage.steps == ["held", "resumed"]
    assert keeping.asked("resumed") == [["resume", "--owner", run_owner()]]


def test_one_that_cannot_be_asked_is_a_refusal(stage: Stage, keeping: Keeping) -> None:
    supervised(stage, supervisor_of(stage.loaded, status=None))
    with pytest.raises(RefusedError) as refused:
        deploy(stage)
    assert refused.value.exit_code == 4
    assert "connection refused" in refused.value.message
    assert "--force-hold" in str(refused.value.hint)
    assert stage.steps == []


def test_force_stops_its_unit_for_the_time_of_the_verb(stage: Stage, keeping: Keeping) -> None:
    supervised(stage, supervisor_of(stage.loaded, status=None))
    report = deploy(stage, force_hold=True)
    assert report.exit_code == 0
    assert stage.steps == ["held", "settle", "worker", "head", "told"]
    assert all(given["pair_supervisor_by_unit"] is True for given in keeping.variables)
    assert "stop  the supervisor's unit" in stage.plans[0]


@pytest.mark.parametrize(
    ("supervisor", "error", "word"),
    [
        (SupervisorFacts(problem="sudo refused"), NoVerdictError, "sudo refused"),
        ("damaged", RefusedError, "no configuration that can be read"),
        ("another", RefusedError, "keeps site"),
        ("elsewhere", RefusedError, "run of ann@elsewhere holds"),
    ],
)
def test_what_is_not_clear_is_never_passed_over(
    stage: Stage, keeping: Keeping, supervisor: Any, error: type[Exception], word: str
) -> None:
    made = {
        "damaged": lambda: supervisor_of(stage.loaded, None),
        "another": lambda: _renamed(supervisor_of(stage.loaded)),
        "elsewhere": lambda: supervisor_of(
            stage.loaded, hold={"owner": "run of ann@elsewhere", "reason": "deploy", "left_s": 600.0}
        ),
    }
    supervised(stage, made[supervisor]() if isinstance(supervisor, str) else supervisor)
    with pytest.raises(error, match=word):
        deploy(stage, force_hold=True)
    assert stage.steps == []


def _renamed(facts: SupervisorFacts) -> SupervisorFacts:
    return facts.model_copy(update={"config": str(facts.config).replace('"site": "desk"', '"site": "other"')})


def test_the_hold_of_a_run_that_was_killed_here_is_taken_over(stage: Stage, keeping: Keeping) -> None:
    hold = {"owner": run_owner(), "reason": "deploy of r-1", "left_s": 900.0}
    supervised(stage, supervisor_of(stage.loaded, hold=hold))
    assert deploy(stage).exit_code == 0
    assert stage.steps[0] == "held"
    assert keeping.asked("told") == [["resume", "--owner", run_owner()]]


def test_a_persons_hold_is_left_in_place(stage: Stage, keeping: Keeping) -> None:
    hold = {"owner": "ann@desk", "reason": "new cable", "left_s": None}
    supervised(stage, supervisor_of(stage.loaded, hold=hold))
    assert deploy(stage).exit_code == 0
    assert stage.steps == ["settle", "worker", "head", "told"]
    assert keeping.asked("told") == []
    assert "held by ann@desk" in stage.plans[0]


def test_a_persons_hold_that_would_end_too_early_is_made_longer_as_theirs(stage: Stage, keeping: Keeping) -> None:
    hold = {"owner": "ann@desk", "reason": "new cable", "left_s": 60.0}
    supervised(stage, supervisor_of(stage.loaded, hold=hold))
    deploy(stage)
    (words,) = keeping.asked("held")
    assert words[words.index("--owner") + 1] == "ann@desk"
    assert words[words.index("--reason") + 1] == "new cable"
    assert float(words[words.index("--for-s") + 1]) > 3600
    assert "--drain" in words
    # It is there afterwards, and drains no more than its owner wanted.
    (words,) = keeping.asked("told")
    assert words[:5] == ["hold", "--reason", "new cable", "--owner", "ann@desk"]
    assert float(words[words.index("--for-s") + 1]) > 3600
    assert "--drain" not in words


def test_a_persons_draining_hold_drains_during_and_after(stage: Stage, keeping: Keeping) -> None:
    hold = {"owner": "ann@desk", "reason": "new cable", "left_s": 60.0, "drain": True}
    supervised(stage, supervisor_of(stage.loaded, hold=hold))
    deploy(stage)
    (words,) = keeping.asked("held")
    assert "--drain" in words
    assert keeping.asked("told") == []


def test_a_long_hold_of_a_person_drains_for_the_time_of_the_start(stage: Stage, keeping: Keeping) -> None:
    hold = {"owner": "ann@desk", "reason": "new cable", "left_s": 90_000.0}
    supervised(stage, supervisor_of(stage.loaded, hold=hold))
    deploy(stage)
    (words,) = keeping.asked("held")
    assert (words[words.index("--for-s") + 1], words[-1]) == ("90000", "--drain")
    (words,) = keeping.asked("told")
    assert 89_000 < float(words[words.index("--for-s") + 1]) <= 90_000
    assert "--drain" not in words


def test_another_user_of_this_machine_is_another_run(
    stage: Stage, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a site is a user's own, so that run may be alive."""
    monkeypatch.setattr("dspark_ops.supervise.control.words.getpass.getuser", lambda: "ann")
    hold = {"owner": run_owner(), "reason": "deploy of r-1", "left_s": 900.0}
    monkeypatch.setattr("dspark_ops.supervise.control.words.getpass.getuser", lambda: "ben")
    supervised(stage, supervisor_of(stage.loaded, hold=hold))
    with pytest.raises(RefusedError, match="run of ann@"):
        deploy(stage)
    assert stage.steps == []


def test_a_hold_that_it_does_not_take_changes_nothing(stage: Stage, keeping: Keeping) -> None:
    supervised(stage, supervisor_of(stage.loaded))
    keeping.fail = "held"
    with pytest.raises(RefusedError, match="did not let go"):
        deploy(stage)
    assert stage.steps == ["held"]


def test_a_release_that_it_was_not_told_of_is_not_done(stage: Stage, keeping: Keeping) -> None:
    """It would take the new ranks for orphans when the hold ends."""
    supervised(stage, supervisor_of(stage.loaded))
    keeping.fail = "told"
    report = deploy(stage)
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert report.next_step == "dspark-ops deploy"
    assert any("not told to keep" in line for line in report.left)


def test_what_serves_already_is_told_to_one_that_keeps_something_else(stage: Stage, keeping: Keeping) -> None:
    assert deploy(stage).exit_code == 0  # its record says now that it served under this epoch
    stage.steps.clear()
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    epoch = store.all_of("desk").releases[0].start.epoch
    found = seen(stage.loaded, head=rank_of(specs["head"], epoch), worker=rank_of(specs["worker"], epoch), canary=RIGHT)
    stage.observation = found
    supervised(stage, supervisor_of(stage.loaded))
    report = deploy(stage)
    assert stage.steps == ["held", "told"]
    assert keeping.told()["wanted"] == "serving"
    assert "serves already" in stage.plans[-1]
    stage.steps.clear()
    supervised(stage, supervisor_of(stage.loaded, kept(stage.loaded)))
    report = deploy(stage)
    assert (report.verdict, stage.steps) == ("unchanged", [])


@pytest.fixture
def answering(stage: Stage, keeping: Keeping) -> Stage:
    """What the site says serves, and its record says so."""
    assert deploy(stage).exit_code == 0
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    epoch = store.all_of("desk").releases[0].start.epoch
    stage.observation = seen(
        stage.loaded, head=rank_of(specs["head"], epoch), worker=rank_of(specs["worker"], epoch), canary=RIGHT
    )
    stage.steps.clear()
    stage.plans.clear()
    return stage


def test_ensure_is_not_content_while_something_else_is_kept(answering: Stage, keeping: Keeping) -> None:
    """It serves now, and the supervisor would end it at its next look."""
    supervised(answering, supervisor_of(answering.loaded))
    assert deploy(answering, ensure=True).exit_code == 0
    assert answering.steps == ["held", "told"]
    answering.steps.clear()
    supervised(answering, supervisor_of(answering.loaded, kept(answering.loaded)))
    assert deploy(answering, ensure=True).verdict == "unchanged"
    supervised(answering, ABSENT)
    assert deploy(answering, ensure=True).verdict == "unchanged"
    assert answering.steps == []


def test_check_says_whether_it_would_be_told(answering: Stage, keeping: Keeping) -> None:
    supervised(answering, supervisor_of(answering.loaded))
    assert "would be told" in deploy(answering, check=True).message
    supervised(answering, supervisor_of(answering.loaded, kept(answering.loaded)))
    assert "would be told" not in deploy(answering, check=True).message


def test_what_is_kept_and_cannot_be_told_again_names_the_way_back(stage: Stage, served: Kept, keeping: Keeping) -> None:
    """A deploy that failed: what the site file says is not what serves."""
    supervised(stage, supervisor_of(served.loaded, kept(served.loaded)))
    stage.ends = [DIED, READY]
    keeping.fail = "told"
    report = deploy(stage)
    assert report.exit_code == 6
    assert report.next_step == f"dspark-ops rollback {served.id}"


def test_a_run_that_breaks_says_that_the_hold_stays(
    stage: Stage, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise KeyboardInterrupt  # a second one, in the middle of the way back

    supervised(stage, supervisor_of(stage.loaded))
    monkeypatch.setattr("dspark_ops.deploy.transaction.Transaction.run", broken)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(stage.loaded, verb="deploy", consent=stage.plans.append, progress=said.append, wishes=Wishes())
    assert stage.steps == ["held"]
    assert any("may stay held" in line and "supervise resume" in line for line in said)


def test_check_takes_no_hold(stage: Stage, keeping: Keeping) -> None:
    supervised(stage, supervisor_of(stage.loaded))
    assert deploy(stage, check=True).verdict == "planned"
    assert "held" not in stage.steps


def test_rollback_tells_it_the_old_release(stage: Stage, served: Kept, keeping: Keeping) -> None:
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    deploy(stage)  # the new one serves
    stage.steps.clear()
    stage.observation = seen(stage.loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=RIGHT)
    supervised(stage, supervisor_of(stage.loaded, kept(stage.loaded)))
    stage.effective_max_num_seqs = "3"
    report = rollback(stage.loaded, served.id, consent=stage.plans.append, progress=lambda _: None, wishes=Wishes())
    assert report.exit_code == 0
    assert stage.steps == ["held", "settle", "worker", "head", "told"]
    assert release_told(keeping) == served.id
