"""The action that loads an image: a name that means another image on the node is never taken away from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from tests.unit.roles.conftest import PLAYBOOKS, load

plugin = load(PLAYBOOKS / "action_plugins/dspark_image_load.py", "dspark_image_load")
WANTED, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
NAME = "dspark-engine:k-0123456789ab"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})

    def go(held: dict[str, str], reference: str = NAME) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
        said: list[tuple[str, ...]] = []

        def remote(*argv: str) -> tuple[int, str, str]:
            said.append(argv)
            if argv[1:3] == ("image", "inspect"):
                found = held.get(argv[-1])
                return (0, found, "") if found else (1, "", f"Error: No such image: {argv[-1]}")
            return 0, "", ""

        action = plugin.ActionModule.__new__(plugin.ActionModule)
        action._task = SimpleNamespace(args={"image_id": WANTED, "reference": reference}, check_mode=False)
        action._remote = remote
        return action.run(None, {"inventory_hostname": "worker"}), said

    return go


def writes(said: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [argv for argv in said if argv[1:3] != ("image", "inspect")]


@pytest.mark.parametrize("held", [{NAME: OTHER}, {NAME: OTHER, WANTED: WANTED}])
def test_a_moved_name_is_refused_with_both_ids(run: Any, held: dict[str, str]) -> None:
    with pytest.raises(AnsibleActionFail, match=r"\[image.moved_tag\]") as refused:
        run(held)
    for text in (NAME, OTHER, WANTED, "worker"):
        assert text in str(refused.value)


def test_an_image_without_its_name_is_named_and_one_with_it_left_alone(run: Any) -> None:
    result, said = run({WANTED: WANTED})
    assert (result["changed"], writes(said)) == (True, [("docker", "image", "tag", WANTED, NAME)])
    result, said = run({WANTED: WANTED, NAME: WANTED})
    assert (result["changed"], writes(said)) == (False, [])


def test_a_name_with_a_digest_is_not_tagged(run: Any) -> None:
    result, said = run({WANTED: WANTED}, "dspark-engine@" + OTHER)
    assert (result["changed"], writes(said)) == (False, [])
