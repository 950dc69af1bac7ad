"""What is known of one request while it is on its way; hooks find it through a context variable."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .decide import Refusal, Route
from .fit import Size
from .ledger import Reservation


@dataclass
class Failure:
    """How an attempt at a backend ended. status: None where there was no answer. text: the backend's own words."""

    backend: str
    status: int | None
    text: str


@dataclass
class Exchange:
    """One request and its answer.

    client: as the edge names it. model: as the client named it. fingerprint: what two requests of a loop have in
    common. usage_asked: the client wants the usage at the end of a stream.
    backend: asked last; `none` before any. begun: a byte of a good answer has gone to the client, so no other backend
    may go on with it. reservation: money set aside and not settled yet.
    """

    client: str
    model: str
    streamed: bool
    route: Route
    size: Size
    fingerprint: bytes
    usage_asked: bool = False
    backend: str = "none"
    begun: bool = False
    reservation: Reservation | None = None
    refusal: Refusal | None = None
    failures: list[Failure] = field(default_factory=list)
    call_id: str | None = None

    @property
    def reason(self) -> str:
        """For the header: why this backend."""
        if self.refusal is not None:
            return self.refusal.code.replace("_", "-")
        if self.backend == "cloud" and self.failures:
            status = self.failures[0].status
            return f"local-failed-{status}" if status is not None else "local-failed"
        return self.route.reason


CURRENT: ContextVar[Exchange | None] = ContextVar("dspark_exchange", default=None)


def as_error(refusal: Refusal) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if refusal.status < 500 and refusal.status != 429 else "gateway_error"
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}}
