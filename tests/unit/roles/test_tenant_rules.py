"""The pure rules of evictions, over whatever a node may say."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.roles.conftest import PLAYBOOKS, load

rules = load(PLAYBOOKS / "module_utils" / "dspark_tenant_rules.py", "tenant_rules")
NAMES = st.sampled_from("abcdef")


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.lists(NAMES, max_size=3)), max_size=6, unique_by=lambda item: item[0]))
def test_nobody_is_lost_and_dependencies_come_first(services: list[tuple[str, list[str]]]) -> None:
    members = [{"service": name, "depends_on": dict.fromkeys(needs, "service_started")} for name, needs in services]
    ordered = rules.start_order(members)
    assert sorted(m["service"] for m in ordered) == sorted(m["service"] for m in members)
    place = {member["service"]: at for at, member in enumerate(ordered)}
    for member in ordered:
        for need in set(member["depends_on"]) & set(place) - {member["service"]}:
            assert place[need] < place[member["service"]] or _circular(need, member["service"], members)


def _circular(one: str, other: str, members: list[dict[str, Any]]) -> bool:
    needs = {member["service"]: set(member["depends_on"]) for member in members}
    seen: set[str] = set()
    todo = [one]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += needs.get(name, ())
    # In a circle, or behind one, there is no first.
    return other in seen or any(name in _reach(needs, name) for name in seen)


def _reach(needs: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = list(needs.get(start, ()))
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += needs.get(name, ())
    return found


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("db:service_healthy:false,cache:service_started:true", {"db": "service_healthy", "cache": "service_started"}),
        ("db", {"db": "service_started"}),
        ("", {}),
        (None, {}),
    ],
)
def test_compose_tells_what_depends_on_what(label: str | None, found: dict[str, str]) -> None:
    assert rules.parse_depends_on(label) == found


@settings(deadline=None)
@given(st.text())
def test_no_text_breaks_a_parser(text: str) -> None:
    rules.parse_stat(text)
    rules.parse_show(text)
    rules.parse_depends_on(text)
    rules.parse_kib(text, "MemAvailable")


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1).filter(lambda word: b"\0" not in word)))
def test_arguments_survive_whatever_bytes_they_are(words: list[bytes]) -> None:
    raw = b"".join(word + b"\0" for word in words)
    assert [os.fsencode(word) for word in rules.parse_argv(raw)] == words


def test_a_process_name_with_parentheses_and_blanks() -> None:
    tail = " ".join(["S", "7", "8", "9", *["0"] * 15, "12345", "0"])
    assert rules.parse_stat(f"42 (a) b (c) {tail}")["start_ticks"] == 12345


def test_limits_of_this_very_process() -> None:
    found = rules.parse_limits(Path("/proc/self/limits").read_text())
    assert found["RLIMIT_NOFILE"] == list(resource.getrlimit(resource.RLIMIT_NOFILE))
    assert set(found) == set(rules._LIMITS.values())


@pytest.mark.parametrize(
    ("argv", "restarts"),
    [
        (["bash", "-c", "while :; do x; done"], True),
        (["/bin/bash", "/opt/loop.sh"], True),
        (["/usr/bin/zsh", "loop.zsh"], True),
        (["-bash"], False),
        (["bash", "-i"], False),
        (["bash", "-s"], False),
        (["python3", "server.py"], False),
        ([], False),
    ],
)
def test_a_script_may_start_its_child_again_a_login_does_not(argv: list[str], restarts: bool) -> None:
    assert rules.restarts_children(argv) is restarts


@pytest.mark.parametrize(
    ("held_gib", "freed_gib", "came_back"),
    [(100, 100, True), (100, 86, True), (100, 84, False), (2, 1.75, True), (2, 1.6, False), (0.05, 0.02, False)],
)
def test_how_much_must_come_back(held_gib: float, freed_gib: float, came_back: bool) -> None:
    held, before = int(held_gib * 1024**2), 5 * 1024**2
    assert rules.returned(held, before, before + int(freed_gib * 1024**2)) is came_back


def test_a_policy_as_docker_takes_it() -> None:
    assert rules.restart_argument("on-failure", 3) == "on-failure:3"
    assert rules.restart_argument("unless-stopped", 0) == "unless-stopped"
    assert rules.restart_argument(None, None) == "no"
