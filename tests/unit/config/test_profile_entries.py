"""`profiles.<name>` and `--profile`: what lies over what, and what may not stand there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.config.layers import Source
from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.errors import ConfigError
from tests.unit.config.conftest import SITE

Load = Callable[..., LoadedSite]
Refused = Callable[..., ConfigError]

PARTS = """\
profiles:
  rehearsal:
    serve:
      api_port: 8005
      max_num_seqs: 5
  current:
    image: {reference: "dspark-vllm-current:7", id: "sha256:%s"}
    model: {served_name: flash}
""" % ("7" * 64)


def test_the_part_of_the_profile_in_use_lies_over_the_file_and_keeps_its_line(load: Load, site_text: str) -> None:
    loaded = load(site_text + PARTS)
    assert (loaded.site.serve.api_port, loaded.site.serve.max_num_seqs) == (8005, 5)
    assert loaded.provenance["serve.api_port"] == Source("file", "site.yml:23")
    assert loaded.provenance["serve.max_model_len"].layer == "profile"
    assert loaded.site.image.reference == "dspark-engine-rehearsal:abc"


def test_environment_and_set_win_over_it(load: Load, site_text: str) -> None:
    environ = {"DSPARK__SERVE__API_PORT": "8010"}
    loaded = load(site_text + PARTS, environ=environ, overrides=["serve.max_num_seqs=2"])
    assert (loaded.site.serve.api_port, loaded.site.serve.max_num_seqs) == (8010, 2)


def test_another_profile_brings_its_own_part_and_leaves_the_first(load: Load, site_text: str) -> None:
    loaded = load(site_text + PARTS, profile="current")
    assert loaded.profile.name == loaded.site.profile == "current"
    assert loaded.provenance["profile"] == Source("command line", "--profile")
    assert loaded.site.image.id == "sha256:" + "7" * 64
    assert loaded.site.model.served_name == "flash"
    assert (loaded.site.serve.api_port, loaded.site.serve.max_num_seqs) == (8000, 6)


def test_the_option_wins_over_file_environment_and_set(load: Load, site_text: str) -> None:
    environ = {"DSPARK__PROFILE": "seed"}
    loaded = load(site_text + PARTS, environ=environ, overrides=["profile=rehearsal"], profile="current")
    assert loaded.profile.name == "current"


def test_an_override_reaches_into_a_part(load: Load, site_text: str) -> None:
    loaded = load(site_text + PARTS, overrides=["profiles.rehearsal.serve.api_port=8111"])
    assert loaded.site.serve.api_port == 8111
    assert loaded.provenance["serve.api_port"].layer == "command line"


def test_an_archive_that_belongs_to_the_files_own_image_is_named(load: Load, site_text: str) -> None:
    image = "  id: sha256:" + "1" * 64
    text = (site_text + PARTS).replace(image, image + "\n  archive: one.tar")
    (note,) = load(text, profile="current").notes
    assert (note.id, note.key) == ("cfg.archive_left", "image.id")
    assert (note.where or "").endswith("site.yml:27: profiles.current")
    assert "image.archive (site.yml:18)" in note.message
    assert load(text).notes == ()
    ours = '"sha256:' + "7" * 64 + '"'
    assert load(text.replace(ours, ours + ", archive: null"), profile="current").notes == ()


@pytest.mark.parametrize("text", ["profiles:\n", "profiles:\n  rehearsal:\n  # serve:\n", "profiles: {}\n"])
def test_a_part_with_all_lines_commented_out_says_nothing(load: Load, site_text: str, text: str) -> None:
    assert load(site_text + text).site.serve == load(site_text).site.serve


def test_paths_in_a_part_are_relative_to_the_file(load: Load, site_text: str, site_path: Path) -> None:
    loaded = load(site_text + "profiles: {rehearsal: {image: {archive: images/one.tar}}}\n")
    assert loaded.site.image.archive == site_path.parent / "images/one.tar"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("  curent: {}", ':21: profiles: unknown profile "curent"; did you mean current?'),
        ("  zzz: {}", ':21: profiles: unknown profile "zzz"; expected one of current'),
        ("  rehearsal: 3", ":21: profiles.rehearsal: expected a section with keys of the site, got 3"),
        ("  rehearsal: {serve: {api_prot: 1}}", ":21: profiles.rehearsal: serve.api_prot: unknown key; did you mean"),
        ("  current: {serve: {api_prot: 1}}", ":21: profiles.current: serve.api_prot: unknown key; did you mean"),
        ("  current: {serve: {api_port: x}}", ":21: profiles.current: serve.api_port: expected a whole number"),
        (
            "  current: {model: {hub: {repo: a/b}}}",
            ":21: profiles.current: model.hub.revision: missing; expected a ",
        ),
        ("  rehearsal: {fabric: {mtu: 1500}}", ":21: profiles.rehearsal: fabric cannot differ by profile"),
        ("  current: {profile: seed}", ":21: profiles.current: profile cannot differ by profile"),
        ("  current: {profiles: {seed: {}}}", ":21: profiles.current: profiles cannot differ by profile"),
        ("  rehearsal: {serve: {speculative: {tokens: 3}}}", ":21: profiles.rehearsal: serve.speculative.tokens: "),
        ("  current:\n    serve:\n      api_port: 1_0.0.0_1", ":23: "),
    ],
)
def test_what_is_wrong_in_a_part_is_located_also_when_it_is_not_in_use(
    refused: Refused, site_text: str, text: str, part: str
) -> None:
    message = refused(site_text + "profiles:\n" + text + "\n").message
    assert part in message
    assert message.count("api_prot: unknown key") <= 1


def test_an_unknown_profile_on_the_command_line(refused: Refused) -> None:
    message = refused(profile="curent").message
    assert message == '--profile: profile: unknown profile "curent"; did you mean current?'


def test_a_part_not_in_use_is_judged_by_its_shape_alone(load: Load, site_text: str) -> None:
    """k 4 is not legal under `current`: that is said when `current` is chosen."""
    text = site_text + "profiles: {current: {serve: {speculative: {tokens: 4}}}}\n"
    assert load(text).profile.name == "rehearsal"
    with pytest.raises(ConfigError, match=r"site.yml:20: profiles.current: serve.speculative.tokens: k for dspark"):
        load(text, profile="current")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6), st.just({"api_port": 8001})),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["serve", "model", "hub", "profiles", "name", "gate", "x"]), inner, max_size=3),
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.one_of(VALUES, st.dictionaries(st.sampled_from(["rehearsal", "current", "x", ""]), VALUES, max_size=3)))
def test_whatever_stands_below_profiles_ends_with_a_site_or_a_located_sentence(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "site.yml"
        path.write_text(SITE + yaml.safe_dump({"profiles": value}))
        message = ""
        try:
            assert load_site(path, environ={}).profile.name == "rehearsal"
        except ConfigError as error:
            message = error.message
    assert not message or str(path) in message
