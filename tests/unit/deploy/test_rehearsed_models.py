"""The rehearsal's settings for drafts and for a wrong dialect are releases of one image, told to both ranks."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dspark_ops.config.engine_arguments import take_apart
from dspark_ops.config.load import LoadedSite, load_profile
from dspark_ops.config.models import ROLES
from dspark_ops.config.release_names import release_names
from dspark_ops.deploy.spec import render_argv, render_pair
from tests.lab.rehearsed_models import (
    KNOWN_CALL,
    KNOWN_TEXT,
    Draft,
    acceptance,
    drafting,
    other_dialect,
    smoke_as_gate,
    tokens_per_step,
)

SiteMaker = Callable[..., LoadedSite]


def settings(*words: str) -> list[str]:
    """What follows each --set."""
    assert set(words[::2]) == {"--set"}
    return list(words[1::2])


def options(loaded: LoadedSite, role: str) -> dict[str, tuple[str, ...]]:
    found, wrong = take_apart(render_argv(loaded.site, loaded.profile, role)[3:])  # type: ignore[arg-type]
    assert wrong == []
    return {option.name: option.values for option in found}


@pytest.mark.parametrize("draft", ["draft", "draft-half"])
@pytest.mark.parametrize("k", [1, 4, 8])
def test_both_ranks_draft_with_the_same_model_and_parse_calls(make_site: SiteMaker, draft: Draft, k: int) -> None:
    loaded = make_site(*settings(*drafting(draft, k)))
    for role in ROLES:
        told = options(loaded, role)
        assert json.loads(told["--speculative-config"][0]) == {
            "method": "draft_model",
            "num_speculative_tokens": k,
            "model": f"/models/{draft}",
        }
        # float32: bfloat16 with a draft model dies on processors with AMX.
        assert told["--dtype"] == ("float32",)
        assert told["--tensor-parallel-size"] == ("2",)
        assert told["--tool-call-parser"] == told["--reasoning-parser"] == ("deepseek_v4",)
        assert "--enable-auto-tool-choice" in told


def test_each_is_another_release_of_one_image(make_site: SiteMaker) -> None:
    told = [(), drafting("draft", 4), drafting("draft-half", 4), other_dialect()]
    heads = [
        render_pair(site.site, site.profile)["head"] for site in (make_site(*settings(*one)) for one in told if one)
    ]
    heads.append(render_pair(make_site().site, make_site().profile)["head"])
    assert len({head.release for head in heads}) == 4
    assert len({head.image_id for head in heads}) == 1


def test_another_dialect_is_an_option_that_the_release_knows(make_site: SiteMaker) -> None:
    loaded = make_site(*settings(*other_dialect()))
    names = release_names(loaded.profile.vllm)
    assert names is not None
    for role in ROLES:
        told = options(loaded, role)
        assert json.loads(told["--default-chat-template-kwargs"][0]) == {"dialect": "hermes"}
        assert set(told) <= set(names.options)


def test_the_sites_own_gate_knows_text_and_call(make_site: SiteMaker) -> None:
    loaded = make_site(*settings(*smoke_as_gate()))
    assert loaded.site.gate is not None
    assert loaded.site.gate.command is not None
    command = loaded.site.gate.command
    assert command[1:5] == ("-m", "dspark_ops", "gate", "smoke")
    assert command[command.index("--known-text") + 1] == loaded.profile.canary.expect == KNOWN_TEXT
    assert json.loads(command[command.index("--known-call") + 1]) == KNOWN_CALL


@pytest.mark.parametrize("k", [1, 3, 5])
def test_what_the_engine_will_count_is_known(k: int) -> None:
    assert acceptance("draft", k) == [1.0] * k
    assert tokens_per_step("draft", k) == k + 1
    half = acceptance("draft-half", k)
    assert half[0] == pytest.approx(0.5, abs=0.15)
    assert 1.4 < tokens_per_step("draft-half", k) < 2.2


def test_the_profile_knows_what_the_models_chains_say() -> None:
    known = load_profile("rehearsal").known
    assert known.call is not None
    assert known.call.model_dump() == KNOWN_CALL
    assert known.long is not None
    count = known.long.text.split(" ")
    # It starts again after 127.
    assert count == [f"{number % 128:03d}" for number in range(known.long.max_tokens)]
