"""Counts a prompt where the answer depends on it: by the engine itself while it serves, else by an estimate."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping
from typing import Any

from . import fit
from .settings import Policy

_PASSED = ("messages", "prompt", "tools", "chat_template_kwargs", "add_special_tokens")


async def measure(policy: Policy, body: Mapping[str, Any]) -> fit.Size:
    """The size of a request. The engine is asked only where the upper bound by bytes does not settle it.

    Raises:
        BadRequestError: max_tokens, n or best_of is none.
    """
    answer, choices = fit.answer_tokens(body, policy.answer_tokens), fit.choices(body)
    estimate = fit.Size(fit.estimated(body), answer, choices, exact=fit.token_ids(body) is not None)
    if estimate.exact or not _depends_on_it(policy, body, answer, choices):
        return estimate
    counted = await asyncio.to_thread(_ask_engine, policy, body)
    return estimate if counted is None else fit.Size(counted, answer, choices, exact=True)


def _depends_on_it(policy: Policy, body: Mapping[str, Any], answer: int, choices: int) -> bool:
    """Whether some count below the upper bound would change where the request may go."""
    worst = fit.Size(fit.most_bytes(body), answer, choices, exact=False)
    if not fit.fits(worst, policy.max_context):
        return True
    cloud = policy.cloud
    if cloud is None:
        return False
    return not fit.fits(worst, cloud.max_context) or fit.most_micro_usd(cloud, worst) > cloud.request_micro_usd


def _ask_engine(policy: Policy, body: Mapping[str, Any]) -> int | None:
    """`/tokenize` through the shim, which answers at once where the engine is down. None: nobody could count."""
    asked = {name: body[name] for name in _PASSED if body.get(name) is not None} | {"model": policy.served_name}
    # Several prompts, and functions in their old form, are not what it counts.
    if isinstance(asked.get("prompt"), list) or body.get("functions"):
        return None
    connection = http.client.HTTPConnection("127.0.0.1", policy.shim_port, timeout=policy.tokenize_timeout_s)
    try:
        headers = {"content-type": "application/json", "connection": "close"}
        connection.request("POST", "/tokenize", json.dumps(asked).encode(), headers)
        answer = connection.getresponse()
        count = json.loads(answer.read()).get("count") if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return None
    finally:
        connection.close()
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
