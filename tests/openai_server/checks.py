"""What is refused before it reaches the engine, in vLLM's words."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request as HttpRequest

from tests.openai_server.setup import ServerSetup


class BadRequest(Exception):  # noqa: N818
    """A refusal with its document's fields."""

    def __init__(
        self, message: str, kind: str = "BadRequestError", status: int = 400, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.status, self.param = kind, status, param


async def read_body(http: HttpRequest, *, required: str | None = None) -> dict[str, Any]:
    """The request's document; BadRequest where it is none, or where it is for a model that is not served."""
    try:
        body = json.loads(await http.body())
    except ValueError as bad:
        raise BadRequest(
            f"1 validation error:\n  {{'type': 'json_invalid', 'loc': 'body', 'msg': '{bad}'}}", "Bad Request"
        ) from None
    if not isinstance(body, dict):
        raise BadRequest("1 validation error:\n  {'type': 'dict_type', 'loc': 'body'}", "Bad Request")
    served = http.app.state.server.setup.model
    if body.get("model", served) not in (served, None):
        raise BadRequest(
            f"The model `{body['model']}` does not exist. Valid aliases: {served}.", "NotFoundError", 404, "model"
        )
    if required is not None and not body.get(required):
        message = f"1 validation error:\n  {{'type': 'missing', 'loc': 'body.{required}', 'msg': 'Field required', "
        raise BadRequest(f"{message}'input': '<dict of {len(body)} items>'}}", "Bad Request", param=f"body.{required}")
    return body


def limit_of(setup: ServerSetup, body: dict[str, Any], prompt: int, *, default: int | None) -> int:
    """How many tokens may be generated; BadRequest where the prompt or the sum does not fit."""
    window = setup.context_length
    asked = body.get("max_completion_tokens") or body.get("max_tokens", default)
    if asked is not None and (type(asked) is not int or asked < 1):
        raise BadRequest(f"max_tokens must be at least 1, got {asked}.", param="max_tokens")
    if asked is not None and asked > window:
        raise BadRequest(
            f"max_tokens={asked} cannot be greater than max_model_len={window}. Please request fewer output tokens. "
            f"(parameter=max_tokens, value={asked})",
            param="max_tokens",
        )
    if prompt >= window:
        raise BadRequest(
            f"This model's maximum context length is {window} tokens. However, your prompt contains {prompt} input "
            "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
            f"prompt. (parameter=input_tokens, value={prompt})",
            param="input_tokens",
        )
    if asked is not None and prompt + asked > window:
        raise BadRequest(
            f"This model's maximum context length is {window} tokens. However, you requested {asked} output tokens and "
            f"your prompt contains {prompt} input tokens, for a total of {prompt + asked} tokens. Please reduce the "
            f"length of the input prompt or the number of requested output tokens. (parameter=input_tokens, "
            f"value={prompt})",
            param="input_tokens",
        )
    return window - prompt if asked is None else asked
