"""Each role's promise: what it accepts, what it says of itself, and that the playbooks use it rightly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dspark_ops.ansible_run import runner
from tests.unit.roles.conftest import PLAYBOOKS

ROLES = sorted(path.name for path in (PLAYBOOKS / "roles").iterdir() if path.is_dir())
FILES = sorted(p for p in PLAYBOOKS.rglob("*.yml"))
_CHECK = re.compile(r"\[((?:host|fabric|image|service|tenant)\.[a-z_]+)\]")


def specs(role: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PLAYBOOKS / "roles" / role / "meta/argument_specs.yml").read_text())
    entries: dict[str, Any] = found["argument_specs"]
    return entries


def options(role: str) -> dict[str, Any]:
    return {k: v for entry in specs(role).values() for k, v in entry.get("options", {}).items()}


def tasks(role: str) -> str:
    return "\n".join(path.read_text() for path in sorted((PLAYBOOKS / "roles" / role).rglob("tasks/*.yml")))


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specs_agree(role: str) -> None:
    """Every default is declared, and one declared in both places has the same value."""
    defaults = yaml.safe_load((PLAYBOOKS / "roles" / role / "defaults/main.yml").read_text()) or {}
    declared = options(role)
    assert set(defaults) <= set(declared)
    for name, option in declared.items():
        assert option.get("required") or name in defaults, f"{name} has no default and is not required"
        if "default" in option:
            assert option["default"] == defaults[name], name


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_carries_the_roles_name(role: str) -> None:
    assert all(name.startswith(f"{role}_") for name in options(role))
    registered = re.findall(r"register: (\S+)", tasks(role))
    assert all(name.startswith(f"__{role}_") for name in registered)


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_a_spec_and_every_spec_a_file(role: str) -> None:
    folder = PLAYBOOKS / "roles" / role / "tasks"
    assert all((folder / f"{entry}.yml").is_file() for entry in specs(role))
    used = {
        entry
        for path in PLAYBOOKS.glob("*.yml")
        for name, entry in re.findall(r"name: (\w+)\n +tasks_from: (\w+)", path.read_text())
        if name == role
    }
    assert used <= set(specs(role))


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_names_every_variable_and_every_check(role: str) -> None:
    readme = (PLAYBOOKS / "roles" / role / "README.md").read_text()
    assert [name for name in options(role) if f"`{name}`" not in readme] == []
    assert [check for check in _CHECK.findall(tasks(role)) if check not in readme] == []


def test_the_readmes_know_the_checks_of_our_modules() -> None:
    readmes = "\n".join(path.read_text() for path in PLAYBOOKS.glob("roles/*/README.md"))
    for folder in ("library", "module_utils", "action_plugins"):
        for path in sorted((PLAYBOOKS / folder).glob("*.py")):
            missing = [check for check in _CHECK.findall(path.read_text()) if check not in readmes]
            assert missing == [], path.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PLAYBOOKS)))
def test_only_builtin_modules_and_our_own(path: Path) -> None:
    """Nothing but ansible-core is installed on an operator's machine."""
    modules = re.findall(r"^ +([a-z_]+\.[a-z_]+\.[a-z_0-9]+):", path.read_text(), re.MULTILINE)
    assert all(module.startswith("ansible.builtin.") for module in modules)
    assert "ignore_errors" not in path.read_text()


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yml")), ids=lambda path: path.name)
def test_plays_of_the_pair_are_both_or_neither(path: Path) -> None:
    """A node that fails ends the play for both, but for stopping and reverting, which a lost node must not prevent."""
    for play in yaml.safe_load(path.read_text()):
        if path.name == "stop.yml" or "revert" in play.get("tags", []):
            continue
        if path.name == "doctor_timer.yml":
            assert (play["hosts"], play["connection"]) == ("localhost", "local"), "it touches no node"
            continue
        assert play["any_errors_fatal"] is True, play["name"]
        # A worker that is lost must not keep the head from getting its way to the cloud.
        assert play["hosts"] == ("head" if path.name == "gateway.yml" else "pair"), play["name"]


def test_reading_tasks_are_true_under_check_mode() -> None:
    """A command that reads runs under check mode too; one that changes says so, or is bound to a file."""
    for path in FILES:
        for task in _flatten(yaml.safe_load(path.read_text())):
            if "ansible.builtin.command" not in task:
                continue
            reads = task.get("changed_when") is False
            bound = "creates" in task["ansible.builtin.command"]
            assert reads or bound or task.get("changed_when") is True, f"{path}: {task['name']}"
            if reads:
                skipped = "not ansible_check_mode" in str(task.get("when", ""))
                assert task.get("check_mode") is False or skipped, f"{path}: {task['name']}"


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yml")), ids=lambda path: path.name)
def test_syntax(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "--syntax-check",
            "--inventory",
            "head,worker",
            str(path),
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(Path(runner.__file__).with_name("ansible.cfg")),
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(runner.__file__).with_name("callback_plugins")),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _flatten(found: Any) -> list[dict[str, Any]]:
    tasks = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    for item in list(tasks):
        for key in ("tasks", "block", "rescue", "always", "handlers"):
            tasks += _flatten(item.get(key))
    return tasks
