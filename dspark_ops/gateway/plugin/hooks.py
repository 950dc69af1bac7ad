"""The policy where LiteLLM calls it: the group before routing, the cloud's door before sending, the books after it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from litellm.integrations.custom_logger import CustomLogger  # type: ignore[import-not-found]

from .body import ENGINE_ONLY
from .decide import Refusal
from .exchange import CURRENT, Exchange, Failure
from .settings import CLOUD, DEPLOYMENTS_LOCAL, GROUP_LOCAL, LOCAL
from .state import LOG, current

#: A refusal of the request itself: another backend would only be paid to say the same.
_CLIENTS_OWN = frozenset({400, 404, 405, 413, 415, 422})
#: What the libraries under LiteLLM raise when a provider has answered with an error, and when it was never reached.
_ANSWERED = frozenset({"APIStatusError", "HTTPStatusError"})
_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ClientConnectorError"})
_AROUND = re.compile(r"^(?:(?:litellm\.)?[A-Za-z_.]*(?:Error|Exception)(?::| -) )+")


class RefusedError(Exception):
    """Stops an attempt inside LiteLLM; what the client is told is in the exchange."""

    status_code = 503


class GatewayPolicy(CustomLogger):  # type: ignore[misc]
    """One instance, named in LiteLLM's configuration."""

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,  # noqa: ARG002 - LiteLLM calls by name
        cache: Any,  # noqa: ARG002
        data: dict[str, Any],
        call_type: Any,  # noqa: ARG002
    ) -> Any:
        """Put the decided group in the place of the model's name."""
        data["model"] = _exchange().route.group
        return data

    async def async_pre_call_deployment_hook(
        self,
        kwargs: dict[str, Any],
        call_type: Any,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Before each attempt: is this backend allowed to see the request, and is there money for it?"""
        exchange = _exchange()
        name = _deployment(kwargs)
        if exchange.begun:
            raise RefusedError("an answer has begun; no other backend goes on with it")
        if name in DEPLOYMENTS_LOCAL:
            exchange.backend = LOCAL
            return kwargs
        refusal = self._unfit_for_cloud(exchange)
        if refusal is None and exchange.reservation is None:
            refusal = await current().reserve(exchange)
        if refusal is not None:
            exchange.refusal = refusal
            raise RefusedError(refusal.code)
        exchange.backend = CLOUD
        _remember(exchange, kwargs)
        for field in ENGINE_ONLY & kwargs.keys():
            del kwargs[field]
        if kwargs.get("max_tokens") is None and kwargs.get("max_completion_tokens") is None:
            kwargs["max_tokens"] = exchange.size.answer
        if exchange.streamed:
            # The books need the provider's own count; `answer` takes it out again where the client did not ask for it.
            kwargs["stream_options"] = {**(kwargs.get("stream_options") or {}), "include_usage": True}
        return kwargs

    def _unfit_for_cloud(self, exchange: Exchange) -> Refusal | None:
        closed = exchange.route.cloud_closed
        if closed is not None or exchange.route.group == GROUP_LOCAL:
            LOG.error("a request that may not leave was stopped at the cloud's door: %s", closed)
            return current().local_down()
        if exchange.failures and exchange.failures[-1].status in _CLIENTS_OWN:
            failure = exchange.failures[-1]
            return Refusal(int(failure.status or 400), "invalid_request", failure.text)
        return None

    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, Any],  # noqa: ARG002
        exception: Exception,
        call_type: Any,  # noqa: ARG002
        fallback_depth: int | None = None,  # noqa: ARG002
    ) -> None:
        """After each failed attempt: what the backend said, and what it is owed."""
        exchange = CURRENT.get()
        if exchange is None or isinstance(exception, RefusedError):
            return
        await note_failure(exchange, exception)

    async def async_log_success_event(
        self,
        kwargs: dict[str, Any],
        response_obj: Any,
        start_time: Any,  # noqa: ARG002
        end_time: Any,  # noqa: ARG002
    ) -> None:
        """The end of a good answer, also of a stream: the tokens that the provider counted."""
        exchange = current().waiting.pop(str(kwargs.get("litellm_call_id")), None)
        usage = getattr(response_obj, "usage", None)
        if exchange is None or usage is None:
            return
        prompt, answer = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        # Without a count of the provider's LiteLLM says 0; then the whole reservation stays spent.
        if isinstance(prompt, int) and isinstance(answer, int) and prompt > 0:
            await current().settle(exchange, prompt, answer)


async def note_failure(exchange: Exchange, exception: BaseException) -> None:
    """Write down how an attempt ended, and give back what a provider that refused is not owed."""
    status = getattr(exception, "status_code", None)
    code = status if isinstance(status, int) else None
    # Its class and no more: a backend's words may hold the client's.
    LOG.info("%s failed: %s %s", exchange.backend, type(exception).__name__, code)
    exchange.failures.append(Failure(exchange.backend, code, _words(exception)))
    if exchange.backend == CLOUD and not exchange.begun and owes_nothing(exception):
        await current().release(exchange)


def owes_nothing(exception: BaseException) -> bool:
    """Whether the provider has surely not worked: it answered with an error, or nobody was reached.

    A connection that broke, or a time-out, says neither, and LiteLLM gives both a status of its own. So what is beneath
    LiteLLM's exception counts, the outermost first: further down may be the pair's failure.
    """
    current: BaseException | None = exception
    for _ in range(20):
        if current is None:
            break
        kind = type(current)
        if kind.__module__.partition(".")[0] in ("openai", "httpx", "httpcore", "aiohttp"):
            names = {base.__name__ for base in kind.__mro__}
            if names & (_ANSWERED | _NEVER_SENT):
                return True
            if "APIConnectionError" not in names:
                return False
        current = current.__cause__ or current.__context__
    return False


def _exchange() -> Exchange:
    """The request at hand.

    Raises:
        RefusedError: LiteLLM was asked past our own door.
    """
    found = CURRENT.get()
    if found is None:
        raise RefusedError("this request did not come through the gateway's door")
    return found


def _deployment(kwargs: Mapping[str, Any]) -> str:
    """The id of the deployment that is about to be asked; unknown ones count as the cloud, which is guarded."""
    for place in (kwargs, kwargs.get("metadata"), kwargs.get("litellm_metadata")):
        info = place.get("model_info") if isinstance(place, Mapping) else None
        found = info.get("id") if isinstance(info, Mapping) else None
        if isinstance(found, str):
            return found
    return CLOUD


def _remember(exchange: Exchange, kwargs: Mapping[str, Any]) -> None:
    call = kwargs.get("litellm_call_id")
    if isinstance(call, str):
        exchange.call_id = call
        current().waiting[call] = exchange


def _words(exception: BaseException) -> str:
    """The backend's message without what LiteLLM puts around it."""
    text = str(getattr(exception, "message", None) or exception)
    for mark in (". Received Model Group=", "\nReceived Model Group=", " LiteLLM Retried:", "\nModel:"):
        text = text.split(mark, 1)[0]
    text = _AROUND.sub("", text, count=1)
    try:
        inner = json.loads(text)["error"]
        text = str(inner["message"] if isinstance(inner, dict) else inner)
    except (ValueError, KeyError, TypeError):
        pass
    return text[:2000]


policy = GatewayPolicy()
