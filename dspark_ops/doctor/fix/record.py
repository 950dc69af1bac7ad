"""The fix that is under way: written before its first change, shorter after each step, gone when it has ended.

A fix that is killed leaves the pair between two states that may both look healthy (a network change that is not
confirmed yet reverts later), so the next one carries out again what this one had begun.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.doctor.fix.actions import ActionId
from dspark_ops.open_record import OpenRecord, OpenRecords


class OpenStep(BaseModel):
    """One action that is not known to have ended, and the checks that it was to cure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: ActionId
    ids: tuple[str, ...]


class OpenFix(OpenRecord):
    """One fix that began to change the pair and has not ended. steps: what is left; the first may be half done."""

    schema_: Literal["dspark-ops/fix/v1"] = Field(default="dspark-ops/fix/v1", alias="schema")
    steps: tuple[OpenStep, ...]


_FIXES = OpenRecords(
    "fixes-open",
    OpenFix,
    what="fix",
    unwritten="nothing more was changed",
    look="look with `dspark-ops doctor` and `dspark-ops bootstrap --check`",
)
path_of, write_open, read_open, close_open = _FIXES.path_of, _FIXES.write, _FIXES.read, _FIXES.close
