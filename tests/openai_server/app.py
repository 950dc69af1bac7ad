"""The server as an ASGI application: `make_app(setup)`; its state is `app.state.server`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.openai_server.answers import Solver
from tests.openai_server.checks import BadRequest, limit_of, read_body
from tests.openai_server.request import Request
from tests.openai_server.server import Server
from tests.openai_server.setup import CALL_FAULTS, TEXT_FAULTS, Fault, KnownRate, Lies, ServerSetup, Speculation
from tests.openai_server.streaming import (
    ConnectionCut,
    Stream,
    Whole,
    chat_events,
    completion_events,
    whole_answer,
)
from tests.openai_server.tokens import BOS, render, split
from tests.openai_server.wire import FINGERPRINT, INTERNAL, VERSION, chat_document, compact, completion_usage, error

__all__ = [
    "CALL_FAULTS",
    "TEXT_FAULTS",
    "Fault",
    "KnownRate",
    "Lies",
    "Server",
    "ServerSetup",
    "Speculation",
    "make_app",
]

Handler = Callable[[HttpRequest], Awaitable[Response]]
_OVERLOADED = "The server is overloaded."


def make_app(setup: ServerSetup, *, solver: Solver | None = None) -> Starlette:
    """A new server. solver: answers a request body, or None to leave it to what was learned, else to prose."""
    api = _Api(Server(setup, solver))
    app = Starlette(
        routes=[
            Route("/health", api.health),
            Route("/ping", api.health, methods=["GET", "POST"]),
            Route("/version", api.version),
            Route("/metrics", api.metrics),
            Route("/tokenize", api.tokenize, methods=["POST"]),
            Route("/detokenize", api.detokenize, methods=["POST"]),
            Route("/v1/models", api.counted(api.models)),
            Route("/v1/chat/completions", api.counted(api.chat), methods=["POST"]),
            Route("/v1/completions", api.counted(api.completions), methods=["POST"]),
        ]
    )
    app.state.server = api.server
    return app


class _Api:
    def __init__(self, server: Server) -> None:
        self.server = server

    def counted(self, handler: Handler) -> Handler:
        """The key is asked for, refusals become documents, and the HTTP counters count."""

        async def answered(http: HttpRequest) -> Response:
            key = self.server.setup.api_key
            if key is not None and http.headers.get("authorization") != f"Bearer {key}":
                response: Response = JSONResponse({"error": "Unauthorized"}, 401)
            else:
                try:
                    response = await handler(http)
                except BadRequest as bad:
                    response = JSONResponse(error(str(bad), bad.kind, bad.status, bad.param), bad.status)
            status = f"{response.status_code // 100}xx"
            self.server.counters.http[http.url.path, http.method, status] += 1
            return response

        return answered

    # --- what is asked about the server

    async def health(self, _: HttpRequest) -> Response:
        return Response(status_code=200)

    async def version(self, _: HttpRequest) -> Response:
        return JSONResponse({"version": VERSION})

    async def metrics(self, _: HttpRequest) -> Response:
        if self.server.setup.metrics == "none":
            return JSONResponse({"detail": "Not Found"}, 404)
        return PlainTextResponse(self.server.counters.text(), media_type="text/plain; version=1.0.0; charset=utf-8")

    async def models(self, _: HttpRequest) -> Response:
        setup, created = self.server.setup, int(self.server.started)
        permission = {
            "id": self.server.new_id("modelperm-"),
            "object": "model_permission",
            "created": created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        model = {
            "id": setup.model,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": f"/models/{setup.model}",
            "parent": None,
            "max_model_len": setup.context_length,
            "permission": [permission],
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def tokenize(self, http: HttpRequest) -> Response:
        setup = self.server.setup
        if not setup.tokenize:
            return JSONResponse({"detail": "Not Found"}, 404)
        try:
            body = await read_body(http)
            if "messages" in body:
                generation = bool(body.get("add_generation_prompt", True))
                ongoing = bool(body.get("continue_final_message"))
                tokens = render(body, generation_prompt=generation, continue_final=ongoing)
            elif isinstance(body.get("prompt"), str):
                tokens = [BOS] * bool(body.get("add_special_tokens", True)) + split(body["prompt"])
            else:
                raise BadRequest("prompt: Field required", "Bad Request", param="body.prompt")
        except BadRequest as bad:
            return JSONResponse(error(str(bad), bad.kind, bad.status, bad.param), bad.status)
        ids = [self.server.vocabulary.id_of(t) for t in tokens]
        return JSONResponse(
            {
                "count": len(ids),
                "max_model_len": setup.context_length,
                "tokens": ids,
                "token_strs": tokens if body.get("return_token_strs") else None,
            }
        )

    async def detokenize(self, http: HttpRequest) -> Response:
        try:
            body = await read_body(http)
            return JSONResponse({"prompt": "".join(map(self.server.vocabulary.text_of, body["tokens"]))})
        except (BadRequest, LookupError, TypeError) as bad:
            return JSONResponse(error(str(bad), "BadRequestError", 400), 400)

    # --- what is asked of the model

    async def chat(self, http: HttpRequest) -> Response:
        setup = self.server.setup
        body = await read_body(http, required="messages")
        prompt = render(
            body,
            generation_prompt=bool(body.get("add_generation_prompt", True)),
            continue_final=bool(body.get("continue_final_message")),
        )
        tokens = limit_of(setup, body, len(prompt), default=None)
        request = self._begin(body, prompt, tokens)
        if (refused := self._refusal(request)) is not None:
            return refused
        request_id, created = self._name(http, "chatcmpl-"), int(time.time())
        if body.get("stream"):
            return Stream(self.server, request, chat_events(self.server, request, request_id, created))

        def document() -> dict[str, Any]:
            script = request.script
            assert script is not None
            if body.get("tools"):
                self.server.counters.parsed(streaming=False, called=bool(script.given_calls()))
            extra: dict[str, Any] = {"prompt_logprobs": self._prompt_logprobs(request)}
            if body.get("return_token_ids") and setup.token_ids:
                extra["prompt_token_ids"] = [self.server.vocabulary.id_of(t) for t in prompt]
                extra["token_ids"] = [self.server.vocabulary.id_of(t.text) for t in script.tokens]
            return chat_document(setup, request, script, request_id, created, extra)

        return self._whole(request, document)

    async def completions(self, http: HttpRequest) -> Response:
        server, setup = self.server, self.server.setup
        body = await read_body(http, required="prompt")
        given = body["prompt"]
        if isinstance(given, str):
            prompt = [BOS] * bool(body.get("add_special_tokens", True)) + split(given)
        elif isinstance(given, list) and given and all(type(i) is int for i in given):
            try:
                prompt = [server.vocabulary.text_of(i) for i in given]
            except LookupError as unknown:
                raise BadRequest(f"Token id is out of vocabulary: {unknown}") from None
        else:
            raise BadRequest("Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
        request = self._begin(body, prompt, limit_of(setup, body, len(prompt), default=16))
        if (refused := self._refusal(request)) is not None:
            return refused
        request_id, created = self._name(http, "cmpl-"), int(time.time())
        if body.get("stream"):
            return Stream(server, request, completion_events(server, request, request_id, created))

        def document() -> dict[str, Any]:
            script = request.script
            assert script is not None
            echoed = "".join(prompt) if body.get("echo") else ""
            choice = {
                "index": 0,
                "text": echoed + script.content,
                "logprobs": self._completion_logprobs(request),
                "finish_reason": script.engine_finish,
                "stop_reason": None,
                "token_ids": None,
                "prompt_logprobs": self._prompt_logprobs(request),
                "prompt_token_ids": None,
                "routed_experts": None,
            }
            return {
                "id": request_id,
                "object": "text_completion",
                "created": created,
                "model": setup.model,
                "choices": [choice],
                "service_tier": None,
                "system_fingerprint": FINGERPRINT,
                "usage": completion_usage(setup, request, request.sent, last=True, stream=False),
                "kv_transfer_params": None,
                "ec_transfer_params": None,
                "metrics": None,
            }

        return self._whole(request, document)

    # --- what both share

    def _begin(self, body: dict[str, Any], prompt: list[str], max_tokens: int) -> Request:
        asked = body.get("prompt_logprobs")
        if asked is not None and body.get("stream") and asked != 0:
            raise BadRequest("`prompt_logprobs` are not available when `stream=True`.", param="prompt_logprobs")
        # vLLM reads no cached prefix when the log-probabilities of the prompt are asked for.
        return self.server.request(body, prompt, max_tokens, read_cache=asked is None and not body.get("echo"))

    def _refusal(self, request: Request) -> Response | None:
        status = self.server.refused(request)
        if status is None:
            self.server.engine.submit(request)
            return None
        self.server.done(request, started=False)
        if status == 503:
            return JSONResponse(error(_OVERLOADED, "ServiceUnavailableError", 503), 503)
        return JSONResponse(INTERNAL, 500)

    def _name(self, http: HttpRequest, prefix: str) -> str:
        given = http.headers.get("x-request-id")
        return prefix + given if given else self.server.new_id(prefix)

    def _whole(self, request: Request, document: Callable[[], dict[str, Any]]) -> Response:
        async def made() -> tuple[int, bytes, bool]:
            try:
                script = await whole_answer(self.server, request)
            except ConnectionCut:
                # As much of a document as there would have been; the rest never comes.
                return 200, compact({"id": "chatcmpl-", "choices": [{"message": {"content": "x" * 200}}]}), True
            if script is None:
                status = 200 if request.script is not None and request.script.trouble == "bad-json" else 500
                return status, compact(INTERNAL)[: None if status == 500 else -9], False
            return 200, compact(document()), False

        return Whole(self.server, request, made)

    def _prompt_logprobs(self, request: Request) -> list[Any] | None:
        asked = request.body.get("prompt_logprobs")
        if asked is None or not self.server.setup.prompt_logprobs:
            return None
        found: list[Any] = [None]
        scores = self.server.likelihood.score(request.prompt)
        for token, value in zip(request.prompt[1:], scores[1:], strict=True):
            own = self.server.vocabulary.id_of(token)
            entry = {str(own): {"logprob": value, "rank": 1 if value > -1 else 2, "decoded_token": token}}
            if asked and value <= -1:
                likelier = " a" if token.strip() == "the" else " the"
                best = self.server.vocabulary.id_of(likelier)
                entry[str(best)] = {"logprob": -0.5, "rank": 1, "decoded_token": likelier}
            found.append(entry)
        return found

    def _completion_logprobs(self, request: Request) -> dict[str, Any] | None:
        if request.body.get("logprobs") is None:
            return None
        script = request.script
        assert script is not None
        answer = [t.text for t in script.tokens if t.field == "content"]
        shown = request.prompt + answer if request.body.get("echo") else answer
        values: list[float | None] = list(self.server.likelihood.score(request.prompt + answer))
        values = values[-len(shown) :] if shown else []
        if request.body.get("echo"):
            values[0] = None
        offsets, at = [], 0
        for token in shown:
            offsets.append(at)
            at += len(token)
        tops = [None if v is None else {t: v} for t, v in zip(shown, values, strict=True)]
        return {"text_offset": offsets, "token_logprobs": values, "tokens": shown, "top_logprobs": tops}
