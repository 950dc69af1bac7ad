"""Where a request may go, before anything is sent. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .fit import Size, fits, most_micro_usd
from .settings import GROUP_CLOUD, GROUP_FIRST, GROUP_LOCAL, Policy


@dataclass(frozen=True)
class Route:
    """group: of LiteLLM's configuration. reason: why an answer comes from where it is asked first."""

    group: str
    reason: str
    cloud_closed: str | None = None
    """Why the cloud is out of the question for this request; None where it is not."""


@dataclass(frozen=True)
class Refusal:
    """An answer of our own. retry_after_s: None where coming again would not help."""

    status: int
    code: str
    message: str
    retry_after_s: int | None = None


def decide(policy: Policy, size: Size, *, local_only: bool) -> Route | Refusal:
    """The group for a request, or the reason why no backend can take it."""
    local_fits = fits(size, policy.max_context)
    closed = _cloud_closed(policy, size, local_only=local_only)
    if local_fits and closed is None:
        return Route(GROUP_FIRST, "local-first")
    if local_fits:
        return Route(GROUP_LOCAL, "local-only" if local_only else "local-first", closed)
    if closed is None:
        return Route(GROUP_CLOUD, "only-cloud-fits")
    return _fits_nowhere(policy, size, closed)


def _cloud_closed(policy: Policy, size: Size, *, local_only: bool) -> str | None:
    cloud = policy.cloud
    if local_only:
        return "local-only"
    if cloud is None:
        return "no-cloud"
    if not fits(size, cloud.max_context):
        return "only-local-fits"
    if most_micro_usd(cloud, size) > cloud.request_micro_usd:
        return "request-cap"
    return None


def _fits_nowhere(policy: Policy, size: Size, closed: str) -> Refusal:
    need = f"the request needs {size.prompt + size.answer} tokens ({size.prompt} prompt"
    need += f"{'' if size.exact else ', estimated'} + {size.answer} answer)"
    local = f"local limit {policy.max_context}"
    cloud = policy.cloud
    if closed == "local-only":
        return Refusal(
            400, "context_length_exceeded", f"{need}; {local} less 2 %, and this route never leaves the pair"
        )
    if cloud is None:
        return Refusal(400, "context_length_exceeded", f"{need}; {local} less 2 %, and there is no cloud")
    limits = f"{local}, cloud limit {cloud.max_context}, each less 2 %"
    if closed == "request-cap":
        cost, cap = most_micro_usd(cloud, size) / 1e6, cloud.request_micro_usd / 1e6
        text = f"{need}; {limits}. Only the cloud could take it, at up to {cost:.4f} USD; the cap is {cap:.4f} USD"
        return Refusal(400, "request_cap_exceeded", text)
    return Refusal(400, "context_length_exceeded", f"{need}; {limits}")
