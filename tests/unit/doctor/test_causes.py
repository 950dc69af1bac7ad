"""From a bad result to its root: over several steps, nodes and domains, in whatever order the checks are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.config.models import ROLES
from dspark_ops.doctor.catalogue import Check, load_catalogue, ordered
from dspark_ops.doctor.causes import REACH, Place, dependencies, root_causes, with_dependencies
from dspark_ops.doctor.engine import judge_facts
from dspark_ops.errors import NoVerdictError
from dspark_ops.report.models import Finding, Status
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts, unreachable

BAD: tuple[Status, ...] = ("fail", "unknown", "warn")


def check(identity: str, *depends_on: str, **more: Any) -> Check:
    return Check.model_validate(
        {
            "id": identity,
            "title": "a title of some length",
            "scope": "node",
            "severity": "required",
            "why": "a reason of some length",
            "reads": ["x"],
            "remedy": {"text": "do what is needed", "class": "M"},
            "evidence": ["a test"],
            "depends_on": depends_on,
            **more,
        }
    )


def catalogue(*checks: Check) -> dict[str, Check]:
    return {c.id: c for c in (check(REACH), *checks)}


CHAIN = catalogue(check("a.one"), check("b.two", "a.one"), check("c.three", "b.two"), check("d.four", "c.three"))


def statuses(node: Any = "head", **given: Status) -> dict[Place, Status]:
    names = {"one": "a.one", "two": "b.two", "three": "c.three", "four": "d.four", "reach": REACH}
    return {(names[name], node): status for name, status in given.items()}


def test_a_result_without_a_bad_dependency_is_a_root() -> None:
    assert root_causes(CHAIN, statuses(reach="ok", one="ok", two="fail")) == {}
    assert root_causes(CHAIN, statuses(reach="ok", one="fail", two="ok")) == {}


def test_the_root_is_found_over_several_steps_and_domains() -> None:
    roots = root_causes(CHAIN, statuses(reach="ok", one="fail", two="fail", three="unknown", four="fail"))
    assert roots == {("b.two", "head"): "a.one", ("c.three", "head"): "a.one", ("d.four", "head"): "a.one"}


@pytest.mark.parametrize("between", ["skip", None])
def test_what_was_skipped_or_not_judged_does_not_hide_the_root(between: Status | None) -> None:
    seen = statuses(reach="ok", one="fail", three="fail") | (statuses(two=between) if between else {})
    assert root_causes(CHAIN, seen) == {("c.three", "head"): "a.one"}


def test_what_is_ok_ends_the_way() -> None:
    assert root_causes(CHAIN, statuses(reach="ok", one="fail", two="ok", three="fail")) == {}


@pytest.mark.parametrize(
    ("cause", "result", "explained"),
    [
        ("fail", "fail", True),
        ("fail", "warn", True),
        ("fail", "unknown", True),
        ("warn", "warn", True),
        ("warn", "unknown", True),
        ("warn", "fail", False),
        ("unknown", "unknown", True),
        ("unknown", "fail", False),
        ("unknown", "warn", False),
        ("fail", "ok", False),
        ("fail", "skip", False),
    ],
)
def test_what_is_wrong_for_sure_does_not_hide_behind_less(cause: Status, result: Status, explained: bool) -> None:
    roots = root_causes(CHAIN, statuses(reach="ok", one=cause, two=result))
    assert roots == ({("b.two", "head"): "a.one"} if explained else {})


def test_a_failure_is_named_before_an_unknown_and_the_first_before_the_second() -> None:
    both = catalogue(check("a.one"), check("b.two"), check("c.three", "a.one", "b.two"))
    seen = statuses(reach="ok", one="unknown", two="fail", three="unknown")
    assert root_causes(both, seen)["c.three", "head"] == "b.two"
    assert root_causes(both, seen | statuses(one="fail"))["c.three", "head"] == "a.one"


def test_a_node_does_not_follow_from_the_other_but_the_pair_from_either() -> None:
    checks = catalogue(check("a.one"), check("b.two", "a.one"), check("c.three", "b.two", scope="pair"))
    checks["d.four"] = check("d.four", "c.three")
    seen = statuses("worker", reach="ok", one="fail", two="fail") | statuses("head", reach="ok", one="ok", two="ok")
    seen |= statuses("pair", three="fail") | statuses("head", four="fail")
    assert root_causes(checks, seen) == {
        ("b.two", "worker"): "a.one",
        ("c.three", "pair"): "a.one",
        ("d.four", "head"): "a.one",
    }


def test_a_check_of_both_ends_follows_from_the_other_node_too() -> None:
    checks = catalogue(check("a.one", with_peer=True), check("b.two", "a.one"), check("c.three"))
    seen = statuses("head", reach="ok", one="fail", two="fail", three="fail") | statuses("worker", reach="fail")
    assert root_causes(checks, seen) == {("a.one", "head"): REACH, ("b.two", "head"): REACH}


def test_everything_depends_on_its_node_being_reached_once() -> None:
    assert dependencies(check("a.one")) == (REACH,)
    assert dependencies(check("a.one", "b.two", REACH)) == ("b.two", REACH)
    assert dependencies(check(REACH)) == ()


def test_dependencies_are_judged_along_unless_they_make_traffic() -> None:
    checks = catalogue(check("a.one"), check("b.two", "a.one", active=True), check("c.three", "b.two"))
    assert [c.id for c in with_dependencies([checks["c.three"]], checks)] == ["c.three", REACH, "a.one"]
    chosen = with_dependencies([checks["b.two"]], checks)
    assert [c.id for c in chosen] == ["b.two", "a.one", REACH]


def test_a_circle_a_stranger_and_itself_are_refused() -> None:
    for checks, told in (
        (catalogue(check("a.one", "b.two"), check("b.two", "a.one")), "circular dependency a.one -> b.two -> a.one"),
        (catalogue(check("a.one", "a.one")), "circular dependency a.one -> a.one"),
        (catalogue(check("a.one", "x.none")), "a.one depends on x.none, which does not exist"),
    ):
        with pytest.raises(NoVerdictError) as caught:
            ordered(checks)
        assert told in caught.value.message


IDS = list(load_catalogue())
STATUS = st.sampled_from(("ok", "warn", "fail", "skip", "unknown"))


@st.composite
def judged(draw: st.DrawFn) -> dict[Place, Status]:
    seen: dict[Place, Status] = {}
    for identity in draw(st.permutations(IDS)):
        nodes = ("pair",) if load_catalogue()[identity].scope == "pair" else ROLES
        for node in nodes:
            if draw(st.integers(0, 9)):
                seen[identity, node] = draw(STATUS)
    return seen


@settings(max_examples=40, deadline=None)
@given(judged(), st.randoms(use_true_random=False))
def test_roots_are_bad_results_that_have_no_cause_whatever_the_order(seen: dict[Place, Status], rng: Any) -> None:
    checks = load_catalogue()
    roots = root_causes(checks, seen)
    for (identity, node), root in roots.items():
        assert seen[identity, node] in BAD
        assert root != identity
        places = [place for place in seen if place[0] == root and seen[place] in BAD and place not in roots]
        assert places, f"{root} is named by {identity} on {node} and is no root"
    again = list(checks.items())
    rng.shuffle(again)
    places = list(seen.items())
    rng.shuffle(places)
    assert root_causes(dict(again), dict(places)) == roots


@settings(max_examples=25, deadline=None)
@given(st.permutations(IDS))
def test_any_order_of_the_files_is_brought_into_one_of_dependencies(ids: list[str]) -> None:
    checks = load_catalogue()
    order = ordered({identity: checks[identity] for identity in ids})
    assert sorted(order) == sorted(IDS)
    assert all(order.index(d) < order.index(i) for i in ids for d in checks[i].depends_on)


HARM: Mapping[str, list[Any]] = {
    "cable": [["head", "links", "enp1s0f0np0", "carrier"], False],
    "address": [["head", "links", "enp1s0f0np0", "addresses"], []],
    "engine": [["worker", "docker"], {"answers": False, "error": "stopped"}],
    "rank": [["worker", "rank_known"], False],
    "disks": [["head", "disks"], None],
    "mtu": [["worker", "links", "enP2p1s0f0np0", "mtu"], 1500],
    "lost": [["worker"], unreachable("worker")],
}


def by_place(findings: tuple[Finding, ...]) -> dict[Place, Finding]:
    return {(f.id, f.node): f for f in findings}


@settings(max_examples=15, deadline=None)
@given(st.permutations(IDS), st.sets(st.sampled_from(sorted(HARM))))
def test_any_order_of_the_checks_gives_the_same_findings(ids: list[str], harms: set[str]) -> None:
    names = sorted(harms - {"lost"}) + ["lost"] * ("lost" in harms)
    facts = pair_facts({"set": [HARM[name] for name in names]})
    checks = load_catalogue()
    straight = judge_facts(facts, load_case_site(), checks.values())
    shuffled = judge_facts(facts, load_case_site(), [checks[identity] for identity in ids])
    assert by_place(straight) == by_place(shuffled)
    assert [f.id for f in shuffled if f.node in ("pair", "head")] == ids
