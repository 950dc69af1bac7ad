"""Layers: who wins, where each value came from, and what a wrong override says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.config.layers import Source
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import ConfigError

Load = Callable[..., LoadedSite]
Refused = Callable[..., ConfigError]


def test_every_layer_wins_over_the_one_below(load: Load) -> None:
    plain = load()
    assert plain.site.serve.max_num_seqs == 6
    assert plain.provenance["serve.max_num_seqs"].layer == "profile"
    assert plain.provenance["serve.max_num_seqs"].detail.startswith("rehearsal.yml:")
    assert plain.provenance["serve.master_port"] == Source("default", "built in")
    assert plain.provenance["serve.api_port"] == Source("file", "site.yml:19")
    environ = {"DSPARK__SERVE__API_PORT": "8001", "PATH": "/bin"}
    middle = load(environ=environ)
    assert middle.site.serve.api_port == 8001
    assert middle.provenance["serve.api_port"] == Source("environment", "DSPARK__SERVE__API_PORT")
    top = load(environ=environ, overrides=["serve.api_port=8002"])
    assert top.site.serve.api_port == 8002
    assert top.provenance["serve.api_port"] == Source("command line", "--set serve.api_port")


def test_provenance_has_every_leaf_once(load: Load) -> None:
    loaded = load()
    assert loaded.provenance["fabric.rails.1.worker.address"].detail == "site.yml:14"
    assert "fabric.rails" not in loaded.provenance
    assert len(loaded.provenance) == 93


def test_null_takes_a_profile_value_away(load: Load) -> None:
    assert load(overrides=["serve.kv_cache_memory_mib=null"]).site.serve.kv_cache_memory_mib is None


def test_a_section_with_all_lines_commented_out_is_empty(load: Load, site_text: str) -> None:
    loaded = load(site_text.replace("  api_port: 8000", "  # api_port: 8000") + "guards:\n")
    assert loaded.site.serve.max_model_len == 4096
    assert loaded.site.guards.ready_timeout_s == 420


def test_anchors_and_merge_keys(load: Load, site_text: str) -> None:
    text = site_text.replace(
        "worker: {netdev: enp1s0f0np0, hca: rocep1s0f0, address: 10.77.0.2/24}",
        "worker: {<<: *end, address: 10.77.0.2/24}",
    ).replace("head: {netdev: enp1s0f0np0", "head: &end {netdev: enp1s0f0np0")
    assert load(text).site == load(site_text).site


def test_an_override_reaches_into_a_list(load: Load) -> None:
    loaded = load(overrides=["fabric.rails.0.head.address=10.77.0.9/24"])
    assert str(loaded.site.fabric.rails[0].head.address) == "10.77.0.9/24"
    assert loaded.provenance["fabric.rails.0.head.address"].layer == "command line"
    assert loaded.provenance["fabric.rails.0.head.netdev"].layer == "file"


def test_the_profile_itself_can_be_overridden(load: Load) -> None:
    overrides = ["profile=current", "serve.gpu_memory_utilization=0.7"]
    assert load(overrides=overrides).site.serve.max_model_len == 1_048_576


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("serve.api_port", "expected KEY=VALUE"),
        ("=3", "expected a dotted key"),
        ("serve..x=3", "expected a dotted key"),
        ("serve.api_port=", "the value is empty"),
        ("serve.api_prot=3", "did you mean serve.api_port?"),
        ("serve.api_port=[", "is not a YAML value"),
        ("serve.api_port=12:30", "base 2, 8, 16 or 60"),
        ("serve.api_port.x=3", "serve.api_port is not a section"),
        ("fabric.rails.7.name=x", "fabric.rails is a list of 2"),
        ("serve=3", "serve: expected a section with the keys api_host"),
        ("name=no", "got no (YAML reads it as false"),
    ],
)
def test_wrong_overrides_name_the_option(refused: Refused, override: str, part: str) -> None:
    message = refused(overrides=[override]).message
    assert message.startswith("--set ")
    assert part in message


def test_wrong_environment_names_the_variable(refused: Refused) -> None:
    message = refused(environ={"DSPARK__SERVE__API_PROT": "1"}).message
    assert message.startswith("environment variable DSPARK__SERVE__API_PROT: ")
    assert "did you mean serve.api_port?" in message


def test_an_empty_variable_is_not_unset(refused: Refused) -> None:
    error = refused(environ={"DSPARK__SERVE__API_PORT": ""})
    assert "the value is empty" in error.message


def test_paths_are_relative_to_the_file_that_names_them(
    load: Load, site_text: str, site_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/operator")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    loaded = load(site_text + "ssh: {config: ../ssh_config}\n", overrides=["image.archive=engine.tar"])
    assert loaded.site.ssh.config == site_path.parent.parent / "ssh_config"
    assert loaded.site.image.archive == elsewhere / "engine.tar"
    assert str(load(site_text + "ssh: {config: ~/.ssh/lab}\n").site.ssh.config) == "/home/operator/.ssh/lab"
