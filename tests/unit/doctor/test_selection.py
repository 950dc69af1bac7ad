"""`--only` and `--skip`: ids, globs, and what a wrong one is told."""

from __future__ import annotations

import pytest

from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.pages import render_explanation, render_list
from dspark_ops.doctor.selection import expand, select
from dspark_ops.errors import ConfigError

CATALOGUE = load_catalogue()


def ids(only: tuple[str, ...] = (), skip: tuple[str, ...] = (), *, active: bool = False) -> list[str]:
    return [check.id for check in select(CATALOGUE, only, skip, active=active)]


def test_everything_but_what_makes_traffic_by_default() -> None:
    assert set(CATALOGUE) - set(ids()) == {i for i, c in CATALOGUE.items() if c.active}
    assert ids(active=True) == list(CATALOGUE)


def test_globs_and_ids() -> None:
    assert ids(("fabric.mtu",)) == ["fabric.mtu"]
    assert {i.split(".")[0] for i in ids(("fabric.*", "nccl.*"))} == {"fabric", "nccl"}
    assert "fabric.mtu" not in ids(("fabric.*",), ("fabric.mtu*",))


def test_a_dependency_comes_before_what_depends_on_it() -> None:
    order = list(CATALOGUE)
    for check in CATALOGUE.values():
        assert all(order.index(d) < order.index(check.id) for d in check.depends_on)


def test_a_wrong_id_is_answered_with_near_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        ids(("fabric.mtuu",))
    assert "fabric.mtuu" in caught.value.message
    assert "fabric.mtu" in (caught.value.hint or "")
    with pytest.raises(ConfigError):
        expand(CATALOGUE, ["zzz"])


def test_an_empty_selection_and_an_idle_one_are_errors_not_successes() -> None:
    with pytest.raises(ConfigError):
        ids(("fabric.mtu",), ("fabric.*",))
    with pytest.raises(ConfigError) as caught:
        ids(("fabric.jumbo_ping",))
    assert "--active" in (caught.value.hint or "")
    assert ids(("fabric.jumbo_ping",), active=True) == ["fabric.jumbo_ping"]


def test_list_and_explanation_carry_what_the_catalogue_says() -> None:
    listed = render_list(list(CATALOGUE.values()))
    assert all(identity in listed for identity in CATALOGUE)
    text = render_explanation(CATALOGUE["fabric.mtu"])
    assert "dspark-ops bootstrap --site site.yml" in text
    assert "1024 at 1500" in text
    clock = render_explanation(CATALOGUE["host.clock"])
    assert "max_error: 2 s (" in clock
    assert "ssh NODE sudo timedatectl" in clock
