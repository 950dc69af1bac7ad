"""Ansible callback: one JSON line per event, appended to the file in DSPARK_EVENTS. Runs inside ansible-playbook."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase  # type: ignore[import-untyped]

DOCUMENTATION = """
name: dspark_events
type: aggregate
short_description: Writes task results as JSON lines
description:
  - Appends one JSON object per play, task and result to the file named by the environment variable DSPARK_EVENTS.
  - Results of tasks with no_log carry no text.
"""

_HIDDEN = "hidden: this task handles a secret"
_TEXT_MAX = 20000


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Writes events; never prints, never fails the run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "dspark_events"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = os.environ.get("DSPARK_EVENTS")
        self._began: dict[tuple[str, str], float] = {}
        self.disabled = not self._path

    def _write(self, kind: str, **fields: Any) -> None:
        if self._path is None:
            return
        line = json.dumps({"kind": kind, "time": time.time(), **fields}, default=str)
        with open(self._path, "a", encoding="utf-8") as out:  # noqa: PTH123 (one append per event, no path object kept)
            out.write(line + "\n")

    def _result(self, kind: str, result: Any, **fields: Any) -> None:
        data = result._result  # noqa: SLF001 (the public name is newer than some releases of the 2.19 series)
        task, host = result._task, result._host.get_name()  # noqa: SLF001
        hidden = bool(data.get("_ansible_no_log")) or bool(getattr(task, "no_log", False))
        began = self._began.pop((host, task._uuid), None)  # noqa: SLF001
        self._write(
            kind,
            node=host,
            task=_task_name(task),
            role=_role_name(task),
            item=None if hidden else self._item(data),
            message=_HIDDEN if hidden else _message(data),
            diff=None if hidden else self._diff_text(data),
            summary=None if hidden else data.get("dspark_summary"),
            elapsed_s=None if began is None else round(time.time() - began, 3),
            **fields,
        )

    def _item(self, data: dict[str, Any]) -> str | None:
        label = self._get_item_label(data)
        return None if label is None else str(label)[:500]

    def _diff_text(self, data: dict[str, Any]) -> str | None:
        if not data.get("diff"):
            return None
        return self._get_diff(data["diff"])[:_TEXT_MAX] or None

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._write("play", play=play.get_name().strip())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        self._write("task", task=_task_name(task), role=_role_name(task))

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._began[(host.get_name(), task._uuid)] = time.time()  # noqa: SLF001

    def v2_runner_on_ok(self, result: Any) -> None:
        if "results" in result._result and result._task.loop:  # noqa: SLF001
            return  # its items were reported one by one
        self._result("changed" if result.is_changed() else "ok", result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._result("changed" if result.is_changed() else "ok", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._result("skipped", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if "results" in result._result and result._task.loop:  # noqa: SLF001
            return
        self._result("failed", result, ignored=ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._result("failed", result, ignored=bool(result._task.ignore_errors))  # noqa: SLF001

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._result("unreachable", result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._write("end", hosts={host: stats.summarize(host) for host in sorted(stats.processed)})


def _task_name(task: Any) -> str:
    return str(task.name or task.action)


def _role_name(task: Any) -> str | None:
    role = getattr(task, "_role", None)
    return None if role is None else str(role.get_name())


def _message(data: dict[str, Any]) -> str | None:
    """The sentence of a result: msg, with the standard error of a program when msg only says that it failed."""
    message = data.get("msg")
    parts = [] if message is None else [message if isinstance(message, str) else json.dumps(message, default=str)]
    error = str(data.get("stderr") or data.get("module_stderr") or "").strip()
    if error and (not parts or "non-zero return code" in parts[0] or parts[0].startswith("MODULE FAILURE")):
        parts.append(error.splitlines()[-1] if len(error) > 2000 else error)
    return ": ".join(parts)[:_TEXT_MAX] or None
