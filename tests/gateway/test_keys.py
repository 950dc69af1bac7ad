"""Keys: who must show one, where each may be seen, and that nothing answers without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.asking import asked
from tests.gateway.bench import Bench
from tests.gateway.door import Trouble


def test_no_key_and_a_wrong_key_are_401(bench: Bench) -> None:
    """At the edge: neither LiteLLM nor a backend hears of it."""
    for key in (None, "sk-wrong", bench.key + "x", bench.key[:-1], bench.key.upper(), '""'):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        with bench.new_client(key=None) as stranger:
            answer = asked(stranger, bench.chat(), headers=headers)
        assert answer.status == 401, key
        assert answer.error is not None
        assert answer.headers["content-type"].startswith("application/json")
    assert bench.local.door.seen == []
    assert bench.cloud.door.seen == []


def test_a_key_in_another_place_is_no_key(bench: Bench) -> None:
    """LiteLLM reads keys from headers of its own and of other providers; the edge takes one header only."""
    with bench.new_client(key=None) as stranger:
        for name in ("api-key", "x-api-key", "x-litellm-api-key", "x-litellm-key", "x-goog-api-key", "api_key"):
            for value in (bench.key, f"Bearer {bench.key}", *bench.inner_keys):
                assert asked(stranger, bench.chat(), headers={name: value}).status == 401, name
        for inner in bench.inner_keys:
            assert asked(stranger, bench.chat(), headers={"authorization": f"Bearer {inner}"}).status == 401
    assert bench.local.door.seen == []
    assert bench.cloud.door.seen == []


def test_every_route_answers_401_or_404_without_a_key(bench: Bench) -> None:
    """LiteLLM's own list, as its application has it, and the engine's, with every method, through the edge."""
    routes = set(bench.litellm_routes())
    assert len(routes) > 500
    engine = (
        "/health",
        "/load",
        "/version",
        "/metrics",
        "/ping",
        "/tokenize",
        "/detokenize",
        "/invocations",
        "/pause",
        "/resume",
        "/is_paused",
        "/sleep",
        "/wake_up",
        "/collective_rpc",
        "/reset_prefix_cache",
        "/abort_requests",
        "/scale_elastic_ep",
        "/is_scaling_elastic_ep",
        "/inference/v1/generate",
        "/classify",
        "/score",
        "/rerank",
        "/v1/score",
        "/v2/rerank",
        "/pooling",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/openapi.json",
        "/docs",
        "/redoc",
        "/update_weights",
        "/server_info",
        "/start_profile",
        "/route",
        "/status",
    )
    routes |= {(method, path) for path in engine for method in ("GET", "POST")}
    with bench.new_client(key=None) as stranger:
        answers = {
            (method, path): stranger.request(method, path.replace("{", "").replace("}", "")).status_code
            for method, path in sorted(routes)
        }
    wrong = {route: status for route, status in answers.items() if status not in (401, 404)}
    assert wrong == {}
    assert bench.local.door.seen == []


def test_with_a_key_only_the_listed_paths_exist(bench: Bench) -> None:
    """A client's key opens the model, not the gateway."""
    for path in (
        "/config/yaml",
        "/key/generate",
        "/model/info",
        "/health",
        "/metrics",
        "/routes",
        "/openapi.json",
        "/ui",
        "/mcp",
        "/v1/files",
        "/spend/logs",
        "/tokenize",
        "/utils/token_counter",
        "/user/new",
        "/debug/asyncio-tasks",
        "/v1/../key/generate",
        "/v1/chat/completions/../../../key/generate",
        "//key/generate",
        "/v1/%2e%2e/key/generate",
        "/openai/deployments/x/chat/completions",
        "/engines/x/completions",
    ):
        for method in ("GET", "POST"):
            status = bench.raw_status(method, path, key=bench.key)
            assert status in (400, 401, 403, 404, 405), (method, path, status)
    assert bench.local.door.asked() == []


def test_models_are_listed_to_who_has_a_key(bench: Bench) -> None:
    """Clients look there for what they may ask."""
    listed = bench.client.get("/v1/models")
    assert listed.status_code == 200
    assert bench.model in [m["id"] for m in listed.json()["data"]]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_each_backend_sees_its_own_key_only(bench: Bench, stream: bool) -> None:
    """The client's key reaches neither, the cloud's key only the cloud, and no answer has any of them."""
    answers = [asked(bench.client, bench.chat(stream=stream))]
    bench.local.door.trouble = Trouble("status", 503)
    answers.append(asked(bench.client, bench.chat(stream=stream)))
    bench.cloud.door.trouble = Trouble("status", 401)
    answers.append(asked(bench.client, bench.chat(stream=stream)))
    assert [a.backend for a in answers[:2]] == ["local", "cloud"]
    at_local, at_cloud = (
        json.dumps([(s.headers, s.raw.decode()) for s in b.door.seen]) for b in (bench.local, bench.cloud)
    )
    assert bench.key not in at_local + at_cloud
    assert bench.cloud_key in at_cloud
    assert bench.cloud_key not in at_local
    assert bench.router_key not in at_local + at_cloud
    for answer in answers:
        said = json.dumps(dict(answer.headers)) + answer.raw.decode()
        for secret in bench.secrets:
            assert secret not in said


def test_no_header_of_a_client_reaches_the_cloud(bench: Bench) -> None:
    """What a client sends beside its request stays here: cookies, addresses, keys of other services."""
    bench.set_route(503)
    sent = {
        "cookie": "session=planted-1",
        "x-secret": "planted-2",
        "x-forwarded-for": "203.0.113.9",
        "api-key": "planted-3",
        "anthropic-api-key": "planted-4",
        "x-api-key": "planted-5",
        "openai-organization": "planted-6",
        "x-litellm-tags": "planted-7",
    }
    answer = asked(bench.client, bench.chat(), headers=sent)
    assert answer.backend == "cloud"
    heard = json.dumps([(s.headers, s.raw.decode()) for s in bench.cloud.door.seen])
    for value in ("planted-", "203.0.113.9", "127.0.0.1:" + str(bench.edge_port)):
        assert value not in heard


def test_a_client_cannot_choose_where_its_request_goes(bench: Bench) -> None:
    """LiteLLM understands fields that name another address, key, model or callback; they are refused or ignored."""
    fields: tuple[dict[str, Any], ...] = (
        {"api_base": bench.cloud.url},
        {"base_url": bench.cloud.url},
        {"api_key": "sk-mine"},
        {"fallbacks": ["x"]},
        {"fallbacks": [{"model": bench.model}]},
        {"mock_response": "mocked"},
        {"mock_testing_fallbacks": True},
        {"model_list": []},
        {"user_config": {"model_list": []}},
        {"num_retries": 5},
        {"timeout": 0.001},
        {"disable_fallbacks": True},
        {"extra_headers": {"x-planted": "1"}},
        {"extra_body": {"planted": 1}},
        {"litellm_metadata": {"planted": 1}},
        {"cache": {"no-cache": True}},
        {"custom_llm_provider": "openai"},
        {"guardrails": ["x"]},
        {"prompt_id": "x"},
        {"tags": ["planted"]},
    )
    for field in fields:
        bench.reset()
        answer = asked(bench.client, bench.chat(model=bench.local_only_model, **field))
        assert answer.status in (200, 400, 403, 422), (field, answer.raw)
        assert bench.cloud.door.seen == [], field
        assert "mocked" not in answer.text if answer.status == 200 else True
        if answer.status == 200:
            assert answer.backend == "local"
            assert "planted" not in json.dumps([s.headers for s in bench.local.door.asked()])


def test_a_group_of_the_cloud_cannot_be_asked_for(bench: Bench) -> None:
    """Only the names that are offered; the name of the fallback is not one of them."""
    for model in (*bench.inner_models, bench.cloud_model, f"openai/{bench.cloud_model}", "gpt-4o", "*", ""):
        answer = asked(bench.client, bench.chat(model=model))
        assert answer.status in (400, 403, 404), (model, answer.raw)
    assert bench.cloud.door.seen == []
    assert bench.local.door.asked() == []


def test_secrets_are_in_no_log_list_or_environment(bench: Bench) -> None:
    """After requests that worked, failed and were refused: what both programs wrote, and how they were started."""
    asked(bench.client, bench.chat("a private sentence 4711"))
    bench.local.door.trouble = Trouble("cut")
    bench.cloud.door.trouble = Trouble("status", 401)
    asked(bench.client, bench.chat("a private sentence 4711"))
    asked(bench.client, bench.chat("a private sentence 4711", stream=True))
    asked(bench.client, bench.chat(), headers={"authorization": "Bearer sk-wrong-planted-key"})
    bench.client.get(f"/v1/models?key={bench.key}")
    written = bench.logs()
    assert written
    for secret in (*bench.secrets, "sk-wrong-planted-key", "a private sentence 4711"):
        assert secret not in written, secret[:6]
    for pid in bench.pids():
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")
            for secret in bench.secrets:
                assert secret not in shown, (name, secret[:6])


def test_what_is_rendered_has_no_secret(bench: Bench) -> None:
    """Keys are in files of their own, which only their reader may read."""
    for name, text in bench.rendered.items():
        for secret in bench.secrets:
            assert secret not in text, name


def test_a_body_over_the_cap_is_refused_at_the_edge(bench: Bench) -> None:
    """413 before LiteLLM reads it."""
    answer = asked(bench.client, bench.chat("x" * (bench.body_cap + 1000)))
    assert answer.status == 413
    assert bench.local.door.seen == []


def test_another_host_header_changes_nothing(bench: Bench) -> None:
    """LiteLLM sees one host, whatever the client names: a bypass of its checks went that way once."""
    for host in ("evil.example", "localhost:4000", "127.0.0.1", "admin"):
        with bench.new_client(key=None) as stranger:
            assert asked(stranger, bench.chat(), headers={"host": host}).status == 401
        assert bench.raw_status("POST", "/key/generate", key=bench.key, host=host) == 404
