"""The run that is under way: written before the first change, gone when the run has ended one way or the other.

What it keeps is what the nodes cannot tell the next run after a killed one: what served before, and under which run id
tenants were asked to leave. Everything else is read from the nodes (docs/adr/0008).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dspark_ops.open_record import OpenRecord, OpenRecords


class OpenRun(OpenRecord):
    """One run that began to change the pair and has not ended.

    run: the id that evictions are recorded under on the nodes; a run that goes on after a killed one keeps it.
    release: what it brings. before: what served when the first of these runs began; None when nothing did.
    """

    schema_: Literal["dspark-ops/run/v1"] = Field(default="dspark-ops/run/v1", alias="schema")
    run: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    verb: str
    release: str
    before: str | None


_RUNS = OpenRecords(
    "runs-open",
    OpenRun,
    what="run",
    unwritten="nothing was changed",
    look="`dspark-ops status` and `dspark-ops tenants restore --check` show the pair",
)
path_of, write_open, read_open, close_open = _RUNS.path_of, _RUNS.write, _RUNS.read, _RUNS.close
