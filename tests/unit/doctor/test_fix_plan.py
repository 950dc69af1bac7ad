"""What a fix decides to do: root causes only, by consent, nothing that stands on what stays bad. No node."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.doctor.catalogue import Check, load_catalogue
from dspark_ops.doctor.fix.actions import ACTIONS, ORDER, ActionId, action_for
from dspark_ops.doctor.fix.plan import FixPlan, Step, needs_consent, plan_fix, render_fix, stands_on_earlier, without
from dspark_ops.report.models import Finding, Remedy

CATALOGUE = load_catalogue()
NOBODY = frozenset[str]()


def finding(identity: str, node: str = "worker", status: str = "fail", **more: Any) -> Finding:
    check = CATALOGUE[identity]
    remedy = Remedy(text=check.remedy.text, command=check.remedy.command, remedy_class=check.remedy.remedy_class)
    values = {"id": identity, "node": node, "status": status, "title": check.title, "observed": f"{identity} is off"}
    return Finding.model_validate(values | {"remedy": remedy} | more)


LINGER = finding("host.removeipc_linger", status="warn")
ENGINE = finding("host.docker_engine")
MTU = finding("fabric.mtu")
SUDO = finding("host.sudo")
STOPPED = finding("service.ranks_paired", "pair")


def steps(plan: FixPlan) -> list[ActionId]:
    return [step.action for step in plan.steps]


def reasons(plan: FixPlan) -> dict[str, str]:
    return {w.finding.id: w.reason for w in plan.withheld}


def check_with(**remedy: Any) -> Check:
    document = CATALOGUE["fabric.mtu"].model_dump(by_alias=True)
    return Check.model_validate(document | {"id": remedy.pop("id", "host.made_up"), "remedy": remedy})


def test_a_healthy_pair_needs_nothing() -> None:
    well = [finding("fabric.mtu", status="ok"), finding("host.swap", status="skip")]
    assert plan_fix(well, CATALOGUE, NOBODY) == FixPlan((), ())


def test_class_a_goes_by_itself_and_names_what_it_cures() -> None:
    plan = plan_fix([LINGER], CATALOGUE, NOBODY)
    assert [(s.action, s.cures) for s in plan.steps] == [(ActionId.BASELINE, (LINGER,))]
    assert plan.withheld == ()


def test_class_c_needs_its_own_name_and_another_one_does_not_do() -> None:
    for consented in (NOBODY, frozenset({"fabric.address_planned"})):
        plan = plan_fix([MTU], CATALOGUE, consented)
        assert plan.steps == ()
        assert reasons(plan) == {"fabric.mtu": "needs consent: --consent fabric.mtu"}
    assert steps(plan_fix([MTU], CATALOGUE, frozenset({"fabric.mtu"}))) == [ActionId.RAILS]


def test_one_run_does_all_that_its_action_does_so_a_cure_without_consent_keeps_the_others() -> None:
    plan = plan_fix([LINGER, ENGINE], CATALOGUE, NOBODY)
    assert plan.steps == ()
    assert reasons(plan) == {
        "host.docker_engine": "needs consent: --consent host.docker_engine",
        "host.removeipc_linger": "the same run would also do what needs consent: --consent host.docker_engine",
    }
    both = plan_fix([LINGER, ENGINE], CATALOGUE, frozenset({"host.docker_engine"}))
    assert [s.ids for s in both.steps] == [("host.removeipc_linger", "host.docker_engine")]


def test_what_follows_from_a_cause_is_not_planned_for() -> None:
    follower = finding("image.present", status="unknown", caused_by="host.docker_engine")
    plan = plan_fix([ENGINE, follower], CATALOGUE, frozenset({"host.docker_engine"}))
    assert [s.cures for s in plan.steps] == [(ENGINE,)]
    assert plan.withheld == ()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (finding("fabric.mtu", status="unknown"), "it is not known, and nothing is changed on a guess"),
        (finding("fabric.link_speed"), "it is done by hand"),
        (finding("host.kernel_parity", "pair", "warn"), "no action of a fix does it; it is done by hand"),
    ],
)
def test_what_cannot_be_done_is_withheld_with_the_reason(bad: Finding, reason: str) -> None:
    plan = plan_fix([bad], CATALOGUE, frozenset({bad.id}))
    assert plan.steps == ()
    assert reasons(plan) == {bad.id: reason}


def test_a_command_that_no_action_carries_out_is_named() -> None:
    bad = finding("host.gpu_container")
    assert reasons(plan_fix([bad], CATALOGUE, frozenset({bad.id})))[bad.id].startswith(
        "no action of a fix does it; its command: ssh"
    )


def test_the_order_is_by_what_stands_on_what_and_not_by_the_findings() -> None:
    named = frozenset({"host.docker_engine", "fabric.mtu", "service.ranks_paired"})
    expected = [ActionId.BASELINE, ActionId.RAILS, ActionId.START]
    assert steps(plan_fix([STOPPED, MTU, ENGINE], CATALOGUE, named)) == expected
    assert steps(plan_fix([ENGINE, MTU, STOPPED], CATALOGUE, named)) == expected


def test_a_deploy_starts_the_pair_too() -> None:
    absent = finding("image.present")
    plan = plan_fix([STOPPED, absent], CATALOGUE, frozenset({STOPPED.id, absent.id}))
    assert [(s.action, set(s.ids)) for s in plan.steps] == [(ActionId.DEPLOY, {STOPPED.id, absent.id})]


def test_what_stands_on_something_that_stays_bad_is_withheld_on_either_node() -> None:
    plan = plan_fix([finding("host.sudo", "head"), LINGER], CATALOGUE, NOBODY)
    assert plan.steps == ()
    assert reasons(plan)["host.removeipc_linger"] == "depends on host.sudo, which stays as it is"


def test_an_engine_that_stays_down_keeps_the_pair_from_being_started() -> None:
    plan = plan_fix([ENGINE, STOPPED], CATALOGUE, frozenset({"service.ranks_paired"}))
    assert plan.steps == ()
    assert reasons(plan)["service.ranks_paired"] == "depends on host.docker_engine, which stays as it is"


def test_a_dependency_that_an_earlier_step_cures_is_in_nobodys_way() -> None:
    hidden = finding("host.docker_storage", status="unknown", caused_by="host.docker_engine")
    plan = plan_fix([ENGINE, hidden, STOPPED], CATALOGUE, frozenset({ENGINE.id, STOPPED.id}))
    assert steps(plan) == [ActionId.BASELINE, ActionId.START]
    assert stands_on_earlier(plan.steps[1], plan.steps[:1], CATALOGUE)
    assert not stands_on_earlier(plan.steps[0], (), CATALOGUE)


def test_a_warning_below_is_in_nobodys_way() -> None:
    warned = finding("host.docker_engine", status="warn")
    plan = plan_fix([warned, STOPPED], CATALOGUE, frozenset({STOPPED.id}))
    assert steps(plan) == [ActionId.START]


def test_what_is_ignored_is_neither_cured_nor_in_the_way() -> None:
    plan = plan_fix([finding("host.docker_engine", ignored=True), STOPPED], CATALOGUE, frozenset({STOPPED.id}))
    assert steps(plan) == [ActionId.START]
    assert plan.withheld == ()


def test_an_action_that_refuses_takes_along_what_stands_on_it() -> None:
    bad = [ENGINE, STOPPED]
    plan = plan_fix(bad, CATALOGUE, frozenset({ENGINE.id, STOPPED.id}))
    less = without(plan, plan.steps, {ActionId.BASELINE: "baseline refuses: busy"}, bad, CATALOGUE)
    assert less.steps == ()
    assert reasons(less) == {
        ENGINE.id: "baseline refuses: busy",
        STOPPED.id: "depends on host.docker_engine, which stays as it is",
    }


def test_what_a_killed_run_had_begun_goes_on_also_when_all_looks_well() -> None:
    begun = {ActionId.RAILS: ("fabric.mtu",)}
    plan = plan_fix([], CATALOGUE, frozenset({"fabric.mtu"}), begun)
    assert plan.steps == (Step(ActionId.RAILS, (), ("fabric.mtu",)),)
    bare = plan_fix([], CATALOGUE, NOBODY, begun)
    assert bare.steps == ()
    assert bare.unfinished == ("rails was cut off in an earlier run; it goes on with --consent fabric.mtu",)


def test_what_a_killed_run_had_begun_by_itself_goes_on_by_itself() -> None:
    plan = plan_fix([], CATALOGUE, NOBODY, {ActionId.BASELINE: ("host.swap",)})
    assert steps(plan) == [ActionId.BASELINE]


def test_what_a_killed_run_left_half_done_goes_on_with_the_words_that_began_it() -> None:
    half_done = [finding("fabric.address_planned")]
    plan = plan_fix(half_done, CATALOGUE, frozenset({"fabric.mtu"}), {ActionId.RAILS: ("fabric.mtu",)})
    assert (steps(plan), plan.withheld) == ([ActionId.RAILS], ())
    begun_without = {ActionId.RAILS: ("host.removeipc_linger",)}
    assert "fabric.address_planned" in reasons(plan_fix([*half_done, LINGER], CATALOGUE, NOBODY, begun_without))


def test_the_plan_names_step_cure_node_change_and_what_is_withheld() -> None:
    text = render_fix("desk", plan_fix([LINGER, MTU], CATALOGUE, NOBODY))
    assert text.splitlines() == [
        "plan for site desk: 1 step, 1 withheld",
        f"  1. baseline: {ACTIONS[ActionId.BASELINE].does}",
        "     cures host.removeipc_linger on the worker: host.removeipc_linger is off",
        "     what it changes can be told only after the steps before it",
        "  withheld fabric.mtu on the worker: needs consent: --consent fabric.mtu",
    ]


def test_every_action_is_in_the_registry_and_in_the_order() -> None:
    assert set(ACTIONS) == set(ActionId) == set(ORDER)


@pytest.mark.parametrize("identity", [i for i, c in CATALOGUE.items() if c.remedy.remedy_class == "A"])
def test_what_the_catalogue_calls_automatic_an_action_carries_out_without_consent(identity: str) -> None:
    action = action_for(CATALOGUE[identity])
    assert action is not None, "class A, and nothing of ours does it: its class is C or M"
    assert not needs_consent(identity, action, CATALOGUE), f"{action} asks for consent, so the class is C"


@pytest.mark.parametrize(
    ("command", "action"),
    [
        (("dspark-ops", "bootstrap", "--site", "{site}"), ActionId.BASELINE),
        (("dspark-ops", "fabric", "apply", "--site", "{site}"), ActionId.RAILS),
        (("dspark-ops", "image", "sync", "--site", "{site}"), ActionId.IMAGE_SYNC),
        (("dspark-ops", "model", "fetch", "--site", "{site}"), ActionId.MODEL_FETCH),
        (("dspark-ops", "model", "sync", "--site", "{site}"), ActionId.MODEL_SYNC),
        (("dspark-ops", "deploy", "--site", "{site}"), ActionId.DEPLOY),
        (("dspark-ops", "start", "--site", "{site}"), ActionId.START),
        (("dspark-ops", "start"), ActionId.START),
        (("dspark-ops", "tenants", "restore", "--site", "{site}"), ActionId.TENANTS),
        (("dspark-ops", "deploy", "--site", "{site}", "--evict"), None),
        (("dspark-ops", "tenants", "evict", "--site", "{site}"), None),
        (("dspark-ops", "stop", "--site", "{site}"), None),
        (("ssh", "{host}", "sudo", "reboot"), None),
        (None, None),
    ],
)
def test_a_remedys_verb_is_an_action_and_its_shell_words_never_are(
    command: tuple[str, ...] | None, action: ActionId | None
) -> None:
    made = {"text": "do what is to be done", "command": command}
    assert action_for(check_with(**made, **{"class": "C"})) == action
    assert action_for(check_with(**made, **{"class": "M"})) is None


def test_bootstrap_is_the_rails_for_the_fabric_and_the_hosts_else() -> None:
    made = {"text": "let bootstrap do it", "command": ("dspark-ops", "bootstrap"), "class": "C"}
    assert action_for(check_with(id="nic.made_up", **made)) == ActionId.RAILS
    assert action_for(check_with(id="fabric.made_up", **made)) == ActionId.RAILS
    assert action_for(check_with(id="nccl.made_up", **made)) == ActionId.BASELINE
    assert action_for(CATALOGUE["fabric.arp_settings"]) == ActionId.BASELINE


def test_what_only_a_change_of_the_site_cures_is_left_to_the_operator() -> None:
    assert action_for(CATALOGUE["fabric.gid_index_valid"]) is None
