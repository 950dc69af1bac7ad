"""Twenty keys in the places where the serving parts could show one: a bundle shows none of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.errors import ConfigError
from dspark_ops.evidence.redaction import Redactor
from dspark_ops.paths import data_dir

EXAMPLE = data_dir("inventories") / "example" / "site.yml"

# Made up, of the issuers' shapes and of none; each in one place of its own.
PLANTED = {
    "unit": "plantedUnitKey0a1b2c3d4e5f",
    "drop_in": "plantedDropIn9f8e7d6c5b4a",
    "env_file": "hf_plantedEnvFile0123456789abcd",
    "environment": "plantedEngineKey77aa66bb55cc",
    "argument": "plantedArgument1122aabb33cc",
    "argument_apart": "plantedApart9911aabb88cc77",
    "router_yaml": "sk-planted-router-0123456789abcdef",
    "router_log": "sk-plantedRouterLog00112233445566",
    "bearer": "plantedBearerToken0f1e2d3c4b5a",
    "edge_header": "plantedEdgeHeader5a6b7c8d9e0f",
    "curl": "plantedCurlKey1029384756abcdef",
    "cookie": "plantedCookie0a9b8c7d6e5f4321",
    "webhook_query": "plantedHookToken001122334455",
    "webhook_user": "plantedHookPass998877665544",
    "slack": "xoxb-planted-000111222333-abcdefABCDEF",
    "telegram": "plantedBotToken55443322110099",
    "smtp": "plantedMailPass0z1y2x3w4v5u",
    "basic_auth": "plantedScrapePass0q1w2e3r4t",
    "json_key": "plantedJsonKey00ff11ee22dd33",
    "private_key": "MIIEplantedPrivateKeyAAAABBBBCCCC0123456789",
}
_TEXTS: dict[str, Callable[[str], str]] = {
    "unit": lambda s: f"[Service]\nEnvironment=CLOUD_API_KEY={s}\nExecStart=/usr/bin/true\n",
    "drop_in": lambda s: f'[Service]\nEnvironment="LITELLM_MASTER_KEY={s}" "A=b"\n',
    "env_file": lambda s: f"HF_TOKEN={s}\n",
    "environment": lambda s: json.dumps([{"Config": {"Env": [f"VLLM_API_KEY={s}", "LANG=C"]}}]),
    "argument": lambda s: f"root 12 1 vllm serve /model --api-key={s} --port 8000\n",
    "argument_apart": lambda s: f"vllm\0serve\0--api-key\0{s}\0--port\0008000\0",
    "router_yaml": lambda s: f"model_list:\n- litellm_params:\n    api_key: {s}\n    model: openai/x\n",
    "router_log": lambda s: f"litellm.AuthenticationError: Incorrect API key provided: {s}. You can find\n",
    "bearer": lambda s: f"Nov 28 00:00:01 head edge[9]: POST /v1/chat/completions Authorization: Bearer {s}\n",
    "edge_header": lambda s: f'    http-request set-header Authorization "Bearer {s}"\n',
    "curl": lambda s: f"curl -H 'x-api-key: {s}' https://127.0.0.1:8443/v1/models\n",
    "cookie": lambda s: f"Set-Cookie: session={s}; Path=/; HttpOnly\n",
    "webhook_query": lambda s: f"alert_webhook: https://hooks.example.com/x?token={s}\n",
    "webhook_user": lambda s: f'{{"alert_webhook": "https://pager:{s}@hooks.example.com/x"}}',
    "slack": lambda s: f"posting with {s} failed\n",
    "telegram": lambda s: f"receivers:\n- telegram_configs:\n  - bot_token: {s}\n    chat_id: 1\n",
    "smtp": lambda s: f"global:\n  smtp_auth_password: '{s}'\n",
    "basic_auth": lambda s: f"    basic_auth:\n      username: prometheus\n      password: {s}\n",
    "json_key": lambda s: json.dumps({"cloud": {"api_key": s, "model": "m"}}),
    "private_key": lambda s: f"-----BEGIN PRIVATE KEY-----\n{s}\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("place", PLANTED)
def test_a_planted_secret_is_hidden_where_it_stands(place: str) -> None:
    """By its place alone: nothing else in the bundle says that it is one."""
    redactor, text = Redactor(), _TEXTS[place](PLANTED[place])
    redactor.learn(text)
    shown = redactor.text(text)
    assert PLANTED[place] not in shown
    assert shown != text


def test_what_was_learnt_in_one_place_is_hidden_in_a_log_that_says_nothing_of_keys() -> None:
    """A traceback or a diff shows the bare value: by then it is known from the configuration."""
    redactor = Redactor()
    for place, secret in PLANTED.items():
        redactor.learn(_TEXTS[place](secret))
    for secret in PLANTED.values():
        assert secret not in redactor.text(f"--- before\n+++ after\n+value {secret} of something\n")


@pytest.mark.parametrize(
    "words",
    [("--api-key=S",), ("--api_key", "S"), ("--api-key", "A", "S"), ("--hf-token=S",), ("--ssl-keyfile-password=S",)],
)
def test_a_secret_in_the_engines_arguments_is_refused_and_not_repeated(words: tuple[str, ...]) -> None:
    given = [word.replace("S", PLANTED["argument"]) for word in words]
    with pytest.raises(ConfigError, match=r"cfg\.argument_secret") as caught:
        load_site(EXAMPLE, environ={}, overrides=(f"serve.extra_args={json.dumps(given)}",))
    assert PLANTED["argument"] not in caught.value.message + (caught.value.hint or "")


def test_twenty_are_planted_and_all_differ() -> None:
    assert len(set(PLANTED.values())) == len(PLANTED) == len(_TEXTS) == 20
