"""The release's own planner, asked in an image of the local Docker Engine: the second opinion on a plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, ValidationError

from dspark_ops.errors import NoVerdictError
from dspark_ops.images.produce import local_docker
from dspark_ops.kv.caches import Model
from dspark_ops.kv.plan import Capacity
from dspark_ops.kv.setting import Setting
from dspark_ops.paths import data_dir

_TIMEOUT_S = 300.0


class ReleaseGroup(Model):
    """One group as the release made it."""

    layers: int
    page_bytes: int
    blocks: int


class ReleasePlan(Model):
    """The release's answer to one case."""

    groups: tuple[ReleaseGroup, ...]
    block_bytes: int
    blocks: int
    request_blocks: int
    concurrency: float
    tokens: int


class ReleaseAnswer(Model):
    """What the image said. agrees: its tokens are the plan's within one block."""

    image: str
    vllm: str
    plan: ReleasePlan
    agrees: bool


class _Document(Model):
    model_config = ConfigDict(frozen=True, extra="ignore")

    vllm: str
    results: tuple[dict[str, Any], ...]


def planner_program() -> str:
    """The text of the program that runs inside the image."""
    return (data_dir("images") / "verify" / "kv_planner.py").read_text(encoding="utf-8")


def question_of(setting: Setting, pool_bytes: int) -> dict[str, Any]:
    """One case of the program's question."""
    return {
        "layers": [layer.model_dump() for layer in setting.layers()],
        "memory_bytes": pool_bytes,
        "max_model_len": setting.max_model_len,
        "in_flight_tokens": setting.in_flight_tokens,
        "split": setting.record.split_states if setting.record else 1,
    }


def parse_answer(text: str, cases: int) -> tuple[str, tuple[ReleasePlan, ...]]:
    """The release's version and its plans. Raises NoVerdictError for another document or a refused case."""
    try:
        document = _Document.model_validate(json.loads(text))
        refused = [result["error"] for result in document.results if "error" in result]
        if refused:
            raise NoVerdictError(f"the release's planner refused: {refused[0]}")
        plans = tuple(ReleasePlan.model_validate(result) for result in document.results)
    except (ValueError, ValidationError) as trouble:
        raise NoVerdictError(f"the image's planner printed no answer: {text.strip()[-200:]!r}") from trouble
    if len(plans) != cases:
        raise NoVerdictError(f"the image's planner answered {len(plans)} of {cases} cases")
    return document.vllm, plans


def ask_release(image: str, setting: Setting, capacity: Capacity) -> ReleaseAnswer:
    """The plan by the release's own code in that image.

    Raises:
        DsparkError: no docker program, no Engine, no such image, or no answer; each by name.
    """
    vllm, plans = _asked(image, [question_of(setting, capacity.pool_bytes)])
    plan = plans[0]
    block_tokens = capacity.max_model_len / capacity.request_blocks
    return ReleaseAnswer(image=image, vllm=vllm, plan=plan, agrees=abs(plan.tokens - capacity.tokens) <= block_tokens)


def _asked(image: str, cases: Sequence[dict[str, Any]]) -> tuple[str, tuple[ReleasePlan, ...]]:
    docker = local_docker(None)
    if docker.image(image) is None:
        raise NoVerdictError(
            f"the Docker Engine of this machine has no image {image}",
            hint="`dspark-ops image build PROFILE`, or name another one of the same release with --image",
        )
    words = ("run", "--rm", "--interactive", "--network", "none", "--entrypoint", "python3", image)
    question = json.dumps({"cases": list(cases)}).encode()
    answer = docker.run(*words, "-B", "-c", planner_program(), timeout_s=_TIMEOUT_S, stdin=question)
    return parse_answer(answer, len(cases))
