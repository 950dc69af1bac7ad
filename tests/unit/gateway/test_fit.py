"""Where a request may go: the fit rule, the caps, and what never leaves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.gateway.plugin import fit
from dspark_ops.gateway.plugin.decide import Refusal, Route, decide
from dspark_ops.gateway.plugin.settings import GROUP_CLOUD, GROUP_FIRST, GROUP_LOCAL
from tests.unit.gateway.conftest import cloud_site, policy_with

SIZES = st.builds(
    fit.Size,
    prompt=st.integers(0, 2_000_000),
    answer=st.integers(1, 131_072),
    choices=st.integers(1, 8),
    exact=st.booleans(),
)


def size(prompt: int, answer: int = 100, choices: int = 1) -> fit.Size:
    return fit.Size(prompt, answer, choices, exact=True)


@given(SIZES, st.booleans(), st.booleans())
def test_a_group_is_only_given_to_what_fits_it(asked: fit.Size, local_only: bool, with_cloud: bool) -> None:
    policy = policy_with(cloud_site() if with_cloud else None)
    found = decide(policy, asked, local_only=local_only)
    need = asked.prompt + asked.answer
    if isinstance(found, Refusal):
        assert found.status == 400
        assert need > policy.max_context * 0.98
        return
    if found.group in (GROUP_FIRST, GROUP_LOCAL):
        assert need <= policy.max_context * 0.98
    if found.group in (GROUP_FIRST, GROUP_CLOUD):
        assert policy.cloud is not None
        assert not local_only
        assert need <= policy.cloud.max_context * 0.98
        assert fit.most_micro_usd(policy.cloud, asked) <= policy.cloud.request_micro_usd
        assert found.cloud_closed is None
    else:
        assert found.cloud_closed is not None


@pytest.mark.parametrize(("prompt", "group"), [(100, GROUP_FIRST), (300_000, GROUP_LOCAL)])
def test_the_pair_comes_first_and_alone_where_only_it_fits(policy: Any, prompt: int, group: str) -> None:
    found = decide(policy, size(prompt), local_only=False)
    assert isinstance(found, Route)
    assert found.group == group


def test_the_margin_is_two_per_cent_to_the_token(policy: Any) -> None:
    edge = fit.usable(policy.max_context)
    assert edge == 1_027_604
    assert isinstance(decide(policy, size(edge - 100), local_only=False), Route)
    assert isinstance(decide(policy, size(edge - 99), local_only=False), Refusal)


def test_what_fits_nowhere_is_told_both_limits(policy: Any) -> None:
    found = decide(policy, size(1_200_000), local_only=False)
    assert isinstance(found, Refusal)
    assert "1048576" in found.message
    assert "200000" in found.message


def test_only_the_cloud_fits() -> None:
    policy = policy_with(cloud_site(max_context=1_048_576), max_context=None)
    small = policy.__class__(**{**policy.__dict__, "max_context": 10_000})
    found = decide(small, size(100_000), local_only=False)
    assert isinstance(found, Route)
    assert (found.group, found.reason) == (GROUP_CLOUD, "only-cloud-fits")
    refused = decide(small, size(100_000), local_only=True)
    assert isinstance(refused, Refusal)


def test_a_request_over_its_cap_stays_local() -> None:
    policy = policy_with(cloud_site(request_usd=0.01))
    found = decide(policy, size(100_000), local_only=False)
    assert isinstance(found, Route)
    assert (found.group, found.cloud_closed) == (GROUP_LOCAL, "request-cap")


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text(max_size=200)}), max_size=6
)


@given(MESSAGES)
def test_the_bound_by_bytes_is_above_the_estimate_and_above_any_text(messages: list[dict[str, str]]) -> None:
    body = {"messages": messages}
    assert fit.most_bytes(body) >= fit.estimated(body)
    assert fit.most_bytes(body) >= sum(len(m["content"].encode("utf-8", "surrogatepass")) for m in messages)


def test_token_ids_are_counted_as_they_are() -> None:
    assert fit.estimated({"prompt": [1, 2, 3]}) == 3
    assert fit.estimated({"prompt": [[1, 2], [3]]}) == 3
    assert fit.choices({"prompt": [[1, 2], [3]], "n": 2}) == 4
    assert fit.choices({"prompt": ["a", "b", "c"]}) == 3
    assert fit.choices({"messages": []}) == 1


@pytest.mark.parametrize("value", [0, -1, True, "10", 1.5])
def test_a_limit_that_is_none_is_the_clients_mistake(value: object) -> None:
    with pytest.raises(fit.BadRequestError, match="max_tokens"):
        fit.answer_tokens({"max_tokens": value}, 10)


@given(st.integers(0, 10**7), st.integers(0, 10**6))
def test_a_price_is_never_rounded_down(prompt: int, answer: int) -> None:
    cloud = policy_with(cloud_site()).cloud
    assert cloud is not None
    exact = prompt * cloud.input_usd_per_million + answer * cloud.output_usd_per_million
    assert exact <= fit.cost_micro_usd(cloud, prompt, answer) < exact + 1


def test_the_larger_of_two_limits_is_reserved() -> None:
    """A provider may heed either: the smaller would let a request cost a hundred times what was set aside."""
    assert fit.answer_tokens({"max_tokens": 100_000, "max_completion_tokens": 1}, 8) == 100_000
    assert fit.answer_tokens({"max_tokens": 1, "max_completion_tokens": 100_000}, 8) == 100_000
    assert fit.answer_tokens({}, 8) == 8


@pytest.mark.parametrize("field", ["functions", "suffix", "prompt", "tools"])
def test_all_that_becomes_prompt_is_counted(field: str) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], field: ["x" * 100_000]}
    assert fit.prompt_bytes(body) > 100_000
    assert fit.estimated({"messages": body["messages"], "functions": ["x" * 100_000]}) > 40_000
