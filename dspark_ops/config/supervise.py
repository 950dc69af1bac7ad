"""The site's section `supervise`: what an operator may want otherwise of the supervisor. It installs nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class SuperviseSite(BaseModel):
    """Patience and budget of the supervisor on the head; `supervise install` brings it there.

    canary_every_s: from one small completion to the next. canary_timeout_s: when one counts as not answered.
    wedge_after_s: how long running requests, generation and KV cache stand still together before it is a wedge.
    drain_s: what running requests are given before an orderly restart. restarts, window_s: no more than so many starts
    by itself in so long; then it gives up. forgive_after_s: serving for so long gives the budget back. boot_delay_s:
    how long it waits at most after a boot of the head. alert_webhook: where the head posts alerts; None: nowhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    canary_every_s: Annotated[int, Field(ge=2, le=600)] = 15
    canary_timeout_s: Annotated[int, Field(ge=5, le=600)] = 60
    wedge_after_s: Annotated[int, Field(ge=30, le=3600)] = 240
    drain_s: Annotated[int, Field(ge=0, le=600)] = 30
    restarts: Annotated[int, Field(ge=1, le=20)] = 4
    window_s: Annotated[int, Field(ge=600, le=86_400)] = 21_600
    forgive_after_s: Annotated[int, Field(ge=60, le=86_400)] = 7_200
    boot_delay_s: Annotated[int, Field(ge=0, le=600)] = 15
    alert_webhook: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
