"""The example site documents every key of the models, loads, and is what the generator writes."""

from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.config.load import load_profile, load_site
from dspark_ops.config.models import Site
from dspark_ops.config.sample import WHY, render_sample, scalar
from dspark_ops.config.wording import leaf_keys
from dspark_ops.paths import data_dir

EXAMPLE = data_dir("inventories") / "example" / "site.yml"


def test_every_key_of_the_models_is_explained_and_no_other() -> None:
    leaves = {".".join(key) for key in leaf_keys(Site)}
    sections = {".".join(key[:n]) for key in leaf_keys(Site) for n in range(1, len(key)) if key[n - 1] != "[]"}
    assert set(WHY) == leaves | sections


def test_every_key_stands_in_the_example() -> None:
    text = EXAMPLE.read_text()
    for key in leaf_keys(Site):
        assert f"{key[-1]}:" in text, key


def test_the_example_is_what_the_generator_writes() -> None:
    assert EXAMPLE.read_text() == render_sample(load_profile("current").site)


def test_the_example_loads_with_its_placeholder_named() -> None:
    loaded = load_site(EXAMPLE, environ={})
    assert [note.id for note in loaded.notes] == ["cfg.image_placeholder"]
    assert loaded.provenance["serve.max_model_len"].layer == "profile"


def test_the_defaults_it_shows_are_the_defaults(tmp_path: Path) -> None:
    explicit = tmp_path / "site.yml"
    explicit.write_text(render_sample(load_profile("current").site, explicit=True))
    loaded = load_site(explicit, environ={})
    assert loaded.site == load_site(EXAMPLE, environ={}).site
    assert {source.layer for source in loaded.provenance.values()} == {"file"}


@given(
    st.one_of(st.text(max_size=40), st.integers(), st.booleans(), st.none(), st.sampled_from(["no", "1e3", "12:30"]))
)
def test_scalars_read_back_as_they_were(value: object) -> None:
    assert yaml.safe_load(f"key: {scalar(value)}\n") == {"key": value}
