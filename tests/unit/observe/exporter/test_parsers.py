"""Whatever a kernel, a program or a service writes: a parser gives a value or says that it could not tell."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.observe.exporter.config import ConfigError, parse_config
from dspark_ops.observe.exporter.engine import parse_models, parse_scrape
from dspark_ops.observe.exporter.gpu import parse_processes
from dspark_ops.observe.exporter.gpu import parse_state as parse_gpu
from dspark_ops.observe.exporter.host import parse_aer, parse_meminfo
from dspark_ops.observe.exporter.kernel import parse_record
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.rails import parse_pcie_speed
from dspark_ops.observe.exporter.rdma import state_id
from dspark_ops.observe.exporter.supervisor import parse_status
from dspark_ops.observe.exporter.tree import whole
from tests.unit.observe.exporter import documents, trees

ANYTHING = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=string.digits + ' ,:;.-[]{}"\\\n\tNAkBeE+', max_size=200),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["schema", "state", "hold", "alerts", "incident", "data", "id", "max_model_len", "x"]),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=9,
    ).map(json.dumps),
)


@given(ANYTHING)
def test_no_text_makes_a_parser_fail_in_another_way_than_it_says(text: str) -> None:
    for parse in (whole, parse_meminfo, parse_aer, parse_record, state_id, parse_pcie_speed, parse_models):
        parse(text)
    parse_gpu(text)
    parse_processes(text)
    for strict in (parse_status, parse_scrape):
        with pytest.raises(SourceError):
            strict(text)
    with pytest.raises(ConfigError):
        parse_config(text)


@given(st.integers(min_value=-(10**20) + 1, max_value=10**20 - 1))
def test_a_whole_number_comes_through_as_it_is(number: int) -> None:
    assert whole(f" {number}\n") == number


@pytest.mark.parametrize("text", ["", "1.5", "0x10", "1 2", "\N{ARABIC-INDIC DIGIT ONE}", "nan", "1" * 21])
def test_what_is_no_whole_number_is_not_seen(text: str) -> None:
    assert whole(text) is None


@given(st.dictionaries(st.sampled_from(["RxErr", "BadTLP", "BadDLLP", "Rollover"]), st.integers(0, 10**9), min_size=1))
def test_aer_errors_are_summed_unless_the_kernel_did(errors: dict[str, int]) -> None:
    lines = "".join(f"{name} {count}\n" for name, count in errors.items())
    assert parse_aer(lines) == sum(errors.values())
    assert parse_aer(f"{lines}TOTAL_ERR_COR 7\n") == 7


def test_absent_is_not_zero() -> None:
    assert parse_aer(None) is None
    assert parse_aer("") is None
    assert parse_gpu("0, [N/A], [Not Supported], N/A, \n")[0] == parse_gpu("0, x, x, x, x")[0]
    state = parse_gpu("0, [N/A], 0, 41, 2411\n")[0]
    assert (state.power_w, state.utilization_pct) == (None, 0.0)


@pytest.mark.parametrize(
    ("name", "pids"),
    [
        ("compute-apps-two-tenants", [198811, 201334]),
        ("compute-apps-vllm-nounits", [412233]),
        ("compute-apps-empty", []),
    ],
)
def test_the_processes_of_a_real_gpu(name: str, pids: list[int]) -> None:
    assert parse_processes((trees.GB10 / f"nvidia-smi/csv/{name}.csv").read_text(encoding="utf-8")) == pids


def test_a_cut_scrape_is_no_scrape() -> None:
    text = documents.vllm()
    assert parse_scrape(text).pool_tokens == 43_648
    with pytest.raises(SourceError, match="cut"):
        parse_scrape(text[:-20])


def test_an_older_engine_says_only_blocks() -> None:
    text = documents.vllm().replace('kv_cache_size_tokens="43648",', "")
    reading = parse_scrape(text)
    assert (reading.pool_tokens, reading.blocks, reading.block_size) == (None, 341, 128)


class TestConfiguration:
    def test_what_ansible_writes_is_read(self) -> None:
        config = parse_config(json.dumps(trees.configuration()))
        assert [rail.name for rail in config.rails] == ["p0a", "p0b", "p1a", "p1b"]
        assert config.engine_url == "http://127.0.0.1:8000"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"schema": "dspark-ops/exporter/v0"}, "install the exporter again"),
            ({"role": "third"}, "expected head or worker"),
            ({"listen": []}, "at least one address"),
            ({"listen": [{"address": "0.0.0.0", "port": 9835}]}, "reachable from outside"),
            ({"listen": [{"address": "8.8.8.8", "port": 9835}]}, "reachable from outside"),
            ({"listen": [{"address": "127.0.0.1", "port": True}]}, "port is bool"),
            ({"interval_s": 0.1}, "expected 1 <= interval_s"),
            ({"stale_after_s": 15}, "interval_s < stale_after_s"),
            ({"gpu": 1}, "gpu is int, expected bool"),
            ({"memory_floor_bytes": "4G"}, "expected int or NoneType"),
            ({"engine_url": "https://127.0.0.1:8000"}, "expected http://"),
            ({"rank_arguments": [""]}, "expected words"),
            ({"unknown": 1}, r"unknown keys \['unknown'\]"),
            ({"rails": [{"name": "p0a"}]}, "missing keys"),
        ],
    )
    def test_what_is_wrong_is_said(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            parse_config(json.dumps(trees.configuration(**changes)))

    def test_a_device_is_a_name_and_no_path(self) -> None:
        rails = trees.configuration()["rails"]
        with pytest.raises(ConfigError, match="expected the name of a device"):
            parse_config(json.dumps(trees.configuration(rails=[{**rails[0], "netdev": "../../etc"}])))
