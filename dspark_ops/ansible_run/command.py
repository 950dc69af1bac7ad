"""From a playbook and its inputs to the argument list and environment of ansible-playbook. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_VAULT = "ANSIBLE_VAULT_PASSWORD_FILE"


@dataclass(frozen=True)
class PlaybookRun:
    """Everything one run of ansible-playbook is given; all paths are absolute."""

    program: Path
    playbook: Path
    inventory: Path
    variables: Path
    events: Path
    home: Path
    config: Path
    callback_plugins: Path
    tags: Sequence[str] = ()
    check: bool = False
    diff: bool = False


def build_argv(run: PlaybookRun) -> tuple[str, ...]:
    """The argument list. Values travel in files, so that nothing of the site shows in the process list."""
    argv = [str(run.program), "--inventory", str(run.inventory), "--extra-vars", f"@{run.variables}"]
    if run.tags:
        argv += ["--tags", ",".join(run.tags)]
    if run.check:
        argv.append("--check")
    if run.diff:
        argv.append("--diff")
    return (*argv, str(run.playbook))


def build_environment(run: PlaybookRun, environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment, less every ANSIBLE_ variable, plus ours: what a run does depends on us alone.

    One stays: where the operator's vault password is, for key files that are kept encrypted.
    """
    kept = {key: value for key, value in environ.items() if not key.startswith(("ANSIBLE_", "DSPARK_EVENTS"))}
    if _VAULT in environ:
        kept[_VAULT] = environ[_VAULT]
    playbooks = run.playbook.parent
    return kept | {
        "ANSIBLE_CONFIG": str(run.config),
        "ANSIBLE_HOME": str(run.home),
        "ANSIBLE_LOCAL_TEMP": str(run.home / "tmp"),
        "ANSIBLE_COLLECTIONS_PATH": str(run.home / "collections"),
        "ANSIBLE_CALLBACK_PLUGINS": str(run.callback_plugins),
        "ANSIBLE_ROLES_PATH": str(playbooks / "roles"),
        "ANSIBLE_LIBRARY": str(playbooks / "library"),
        "ANSIBLE_MODULE_UTILS": str(playbooks / "module_utils"),
        "ANSIBLE_ACTION_PLUGINS": str(playbooks / "action_plugins"),
        "ANSIBLE_NOCOLOR": "1",
        "DSPARK_EVENTS": str(run.events),
        "PYTHONUNBUFFERED": "1",
        # Ansible refuses to start under a locale that is not UTF-8.
        "LC_ALL": "C.UTF-8",
    }
