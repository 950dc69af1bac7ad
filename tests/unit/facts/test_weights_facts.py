"""The weights as directory entries: a directory of one's own, or the snapshot of a hub cache."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.facts.weights import (
    ModelConfig,
    directory_of,
    parse_config,
    parse_index_total,
    probes,
    read_weights_facts,
)
from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.pair_fixture import load_case_site

REVISION = "b" * 40
HUB = ("model.mount=null", f'model.hub={{"repo": "deepseek-ai/DeepSeek-V4-Flash", "revision": "{REVISION}"}}')
MOUNT = "/var/lib/dspark/models/deepseek-v4-flash"
SNAPSHOT = f"/var/lib/dspark/hub/models--deepseek-ai--DeepSeek-V4-Flash/snapshots/{REVISION}"
LISTING = (
    "total 8\n"
    "-rw-r--r-- 1 4096 1700000000 config.json\n"
    "drwxr-xr-x 2 4096 1700000000 original\n"
    "-rw-r--r-- 1 39000000001 1700000000 model-00001-of-00002.safetensors\n"
    "-rw-r--r-- 1 135 1700000000 a\\ b.safetensors\n"
)
CONFIG = json.dumps(
    {
        "model_type": "deepseek_v4",
        "rope_scaling": {"factor": 16, "original_max_position_embeddings": 65536},
        "max_position_embeddings": 1048576,
        "n_mtp_layers": 3,
    }
)


def reading(**results: ProbeResult) -> NodeReading:
    named = {f"weights.{name}": result.model_copy(update={"id": f"weights.{name}"}) for name, result in results.items()}
    return NodeReading(node="head", reachable=True, results=named)


def files(**found: str) -> ProbeResult:
    return ProbeResult(id="x", files=found)


def test_a_directory_of_ones_own() -> None:
    site = load_case_site().site
    assert directory_of(site) == MOUNT
    assert_read_only(probes(site))
    assert [probe.id for probe in probes(site)] == ["weights.listing", "weights.config", "weights.index"]
    found = read_weights_facts(
        site,
        "head",
        reading(
            listing=ProbeResult(id="x", rc=0, stdout=LISTING),
            config=ProbeResult(id="x", files={f"{MOUNT}/config.json": CONFIG}),
            index=ProbeResult(
                id="x", files={f"{MOUNT}/model.safetensors.index.json": '{"metadata": {"total_size": 78'}
            ),
        ),
    )
    assert found is not None
    assert found.files == {
        "config.json": 4096,
        "model-00001-of-00002.safetensors": 39000000001,
        "a b.safetensors": 135,
    }
    assert found.shards == {"model-00001-of-00002.safetensors": 39000000001, "a b.safetensors": 135}
    assert found.config == ModelConfig(model_type="deepseek_v4", context_tokens=1048576, draft_layers=3)
    assert found.index_total_bytes == 78


def test_a_directory_that_is_not_there_holds_nothing() -> None:
    site = load_case_site().site
    absent = ProbeResult(id="x", rc=2, stdout="", stderr=f"ls: cannot access '{MOUNT}': No such file or directory\n")
    found = read_weights_facts(site, "head", reading(listing=absent, config=files(), index=files()))
    assert found is not None
    assert found.files == {}
    assert found.config is None


def test_a_directory_that_may_not_be_read_is_unknown() -> None:
    site = load_case_site().site
    denied = ProbeResult(id="x", rc=2, stdout="", stderr=f"ls: cannot open directory '{MOUNT}': Permission denied\n")
    found = read_weights_facts(site, "head", reading(listing=denied, config=files(), index=files()))
    assert found is not None
    assert (found.files, found.shards) == (None, None)


def test_the_snapshot_of_a_hub_cache() -> None:
    site = load_case_site(*HUB).site
    assert directory_of(site) == SNAPSHOT
    assert_read_only(probes(site))
    record = json.dumps(
        {
            "version": 1,
            "repo": "deepseek-ai/DeepSeek-V4-Flash",
            "revision": REVISION,
            "files": [{"name": "config.json", "size": 4096, "blob": "a" * 40}],
        }
    )
    found = read_weights_facts(
        site,
        "worker",
        reading(
            record=ProbeResult(id="x", files={"/r": record}),
            snapshot=ProbeResult(id="x", rc=0, stdout=f"{SNAPSHOT}:\n{LISTING}"),
            blobs=ProbeResult(id="x", rc=0, stdout="-rw-r--r-- 1 5 1700000000 " + "c" * 40 + ".incomplete\n"),
            ref=ProbeResult(id="x", files={"/m": REVISION + "\n"}),
            config=files(),
            index=files(),
        ),
    )
    assert found is not None
    assert "config.json" in (found.files or {})
    assert found.blobs == {"c" * 40 + ".incomplete": 5}
    assert (found.ref, found.ref_known) == (REVISION + "\n", True)
    assert found.recorded == {"config.json": 4096}


def test_weights_in_the_image_are_nobodys_business_here() -> None:
    site = load_case_site("model.mount=null").site
    assert probes(site) == ()
    assert read_weights_facts(site, "head", reading(config=files())) is None


def test_a_reading_that_did_not_ask_knows_nothing() -> None:
    assert read_weights_facts(load_case_site().site, "head", NodeReading(node="head", reachable=True)) is None


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ('{"max_position_embeddings": 4096}', 4096),
        ('{"rope_parameters": {"factor": 16.0, "original_max_position_embeddings": 65536}}', 1048576),
        ('{"rope_scaling": {"factor": 0, "original_max_position_embeddings": 65536}, "max_position_embeddings": 9}', 9),
        ('{"rope_scaling": {"factor": "16"}}', None),
        ('{"max_position_embeddings": true}', None),
        ("{}", None),
    ],
)
def test_the_context_that_the_positions_were_scaled_for(text: str, context: int | None) -> None:
    found = parse_config(text)
    assert found is not None
    assert found.context_tokens == context


@pytest.mark.parametrize("text", [None, "", "[]", "{", "[" * 99999])
def test_no_config(text: str | None) -> None:
    assert parse_config(text) is None


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ('{"metadata": {"total_size": 155999000000}, "weight_map"', 155999000000),
        ('{"metadata": {"total_size": 155999000000.0}}', 155999000000),
        ('{"metadata": {}}', None),
        ("", None),
        (None, None),
    ],
)
def test_the_total_of_an_index(text: str | None, total: int | None) -> None:
    assert parse_index_total(text) == total


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    parse_config(text)
    parse_index_total(text)


@given(st.dictionaries(st.sampled_from(["rope_scaling", "n_mtp_layers", "model_type"]), st.integers() | st.floats()))
def test_no_json_raises(document: dict[str, float]) -> None:
    assert parse_config(json.dumps(document)) is not None
    parse_config(json.dumps({"rope_scaling": {"factor": 2.5, "original_max_position_embeddings": document}}))
