"""Every profile of this installation, and the steps of the migration between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dspark_ops.config.engine_arguments import OWNED_OPTIONS, take_apart
from dspark_ops.config.load import LoadedSite, load_profile, load_site, profile_names
from dspark_ops.config.models import ROLES, Profile
from dspark_ops.config.release_names import release_names
from dspark_ops.deploy.spec import render_argv, render_env, render_pair
from dspark_ops.images.inputs import read_inputs
from dspark_ops.paths import data_dir

EXAMPLE = data_dir("inventories") / "example" / "site.yml"
NAMES = profile_names()
MIGRATION = ("fp8-mtp", "dspark-nvfp4", "current")

Load = Callable[..., LoadedSite]


def under(name: str) -> LoadedSite:
    return load_site(EXAMPLE, profile=name, environ={})


def test_the_profiles_are_those_that_the_pages_name() -> None:
    assert set(NAMES) == {*MIGRATION, "seed", "rehearsal", "rehearsal-plain"}


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_carries_a_site_without_a_word_of_its_own(name: str) -> None:
    loaded = under(name)
    assert loaded.profile.name == loaded.site.profile == name
    assert [note.id for note in loaded.notes] == ["cfg.image_placeholder"]


@pytest.mark.parametrize("name", NAMES)
def test_what_no_one_has_seen_on_hardware_says_so(name: str) -> None:
    profile = load_profile(name)
    assert profile.status == ("rehearsed" if name.startswith("rehearsal") else "untested")
    assert profile.rests_on


@pytest.mark.parametrize("name", [name for name in NAMES if release_names(load_profile(name).vllm)])
def test_every_rendered_word_and_variable_is_one_that_the_release_knows(name: str) -> None:
    loaded = under(name)
    names = release_names(loaded.profile.vllm)
    assert names is not None
    for role in ROLES:
        argv = render_argv(loaded.site, loaded.profile, role)
        assert argv[:2] == ("vllm", "serve")
        options, wrong = take_apart(argv[3:])
        assert wrong == []
        assert len({option.name for option in options}) == len(options), "no option twice"
        for option in options:
            assert option.name in names.options, option.name
            allowed = names.options[option.name]
            assert allowed is None or set(option.values) <= set(allowed), option
        variables = {key for key in render_env(loaded.site, loaded.profile, role) if key.startswith("VLLM_")}
        assert variables <= names.variables


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_renders_nothing_that_this_tool_renders_itself(name: str) -> None:
    options, _ = take_apart(load_profile(name).serve_args)
    assert not {option.name for option in options} & set(OWNED_OPTIONS)


@pytest.mark.parametrize(
    ("one", "other"), [("current", "fp8-mtp"), ("seed", "dspark-nvfp4"), ("rehearsal", "rehearsal-plain")]
)
def test_profiles_that_share_an_image_have_one_recipe(one: str, other: str) -> None:
    def engine(profile: Profile) -> object:
        return profile.vllm, profile.architecture, profile.gpu, profile.engine

    first, second = load_profile(one), load_profile(other)
    assert read_inputs(first).key() == read_inputs(second).key()
    assert engine(first) == engine(second)


def test_the_rehearsals_two_profiles_are_two_releases_of_one_image(load: Load) -> None:
    first, second = load(), load(profile="rehearsal-plain")
    ours, theirs = (render_pair(each.site, each.profile)["head"] for each in (first, second))
    assert ours.release != theirs.release
    assert ours.image_id == theirs.image_id
    assert ours.env == theirs.env
    assert set(ours.command) ^ set(theirs.command) == {
        "--max-model-len=4096",
        "--max-model-len=2048",
        "--max-num-seqs=6",
        "--max-num-seqs=4",
    }


def test_each_step_of_the_migration_is_its_own_release_and_clients_see_one_model() -> None:
    steps = [under(name) for name in MIGRATION]
    heads = [render_pair(step.site, step.profile)["head"] for step in steps]
    assert len({head.release for head in heads}) == 3
    assert {step.site.model.served_name for step in steps} == {"deepseek-v4-flash"}
    assert {step.site.serve.max_model_len for step in steps} == {1_048_576}
    told = [next(word for word in head.command if word.startswith("--speculative")) for head in heads]
    assert told == [
        '--speculative-config={"method":"mtp","num_speculative_tokens":2}',
        '--speculative-config={"method":"dspark","num_speculative_tokens":3,"draft_sample_method":"probabilistic"}',
        '--speculative-config={"method":"dspark","num_speculative_tokens":5,"draft_sample_method":"probabilistic"}',
    ]


@pytest.mark.parametrize(("one", "other"), [("seed", "dspark-nvfp4"), ("rehearsal", "rehearsal-plain")])
def test_profiles_of_one_image_and_model_need_the_same_memory(one: str, other: str) -> None:
    first, second = load_profile(one), load_profile(other)
    assert first.memory == second.memory
    assert first.site.get("guards") == second.site.get("guards")
