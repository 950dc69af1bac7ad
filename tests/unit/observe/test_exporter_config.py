"""A site to the configuration of both exporters: what the program reads is what is rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy.spec import render_pair
from dspark_ops.observe.exporter.config import Config, parse_config
from dspark_ops.observe.exporter_config import exporter_address, exporter_configs
from tests.unit.doctor.pair_fixture import load_case_site


@pytest.fixture(scope="module")
def loaded() -> LoadedSite:
    return load_case_site()


def both(loaded: LoadedSite, **wishes: Any) -> dict[str, Config]:
    rendered = exporter_configs(loaded.site, loaded.profile, **wishes)
    return {role: parse_config(json.dumps(document)) for role, document in rendered.items()}


def test_each_node_knows_its_own_end_of_each_rail(loaded: LoadedSite) -> None:
    configs = both(loaded)
    for role, config in configs.items():
        ends = [rail.head if role == "head" else rail.worker for rail in loaded.site.fabric.rails]
        assert [rail.address for rail in config.rails] == [end.address.ip for end in ends]
        assert [rail.netdev for rail in config.rails] == [end.netdev for end in ends]


def test_the_head_is_on_loopback_alone_and_the_worker_on_the_first_rail_too(loaded: LoadedSite) -> None:
    configs = both(loaded)
    fabric = str(loaded.site.fabric.rails[0].worker.address.ip)
    assert configs["head"].listen == (("127.0.0.1", 9835),)
    assert configs["worker"].listen == (("127.0.0.1", 9835), (fabric, 9835))
    assert exporter_address(loaded.site, "worker") == f"{fabric}:9835"


def test_the_services_are_the_heads(loaded: LoadedSite) -> None:
    configs = both(loaded, supervisor=True, gateway=True, doctor_textfile="/x.prom")
    assert configs["head"].engine_url == f"http://127.0.0.1:{loaded.site.serve.api_port}"
    assert configs["head"].supervisor_url == "http://127.0.0.1:8017"
    assert configs["head"].gateway_url == f"http://127.0.0.1:{loaded.site.gateway.router_port}"
    worker = configs["worker"]
    asked = (worker.engine_url, worker.supervisor_url, worker.gateway_url, worker.doctor_textfile, worker.max_model_len)
    assert asked == (None,) * 5


def test_what_is_not_installed_is_not_asked(loaded: LoadedSite) -> None:
    """So that it is not told as down for ever."""
    head = both(loaded, supervisor=False)["head"]
    assert (head.supervisor_url, head.gateway_url, head.doctor_textfile) == (None, None, None)


def test_the_words_of_the_rank_are_in_what_is_deployed_and_tell_the_ranks_apart(loaded: LoadedSite) -> None:
    configs = both(loaded)
    pair = render_pair(loaded.site, loaded.profile)
    for role, config in configs.items():
        assert set(config.rank_arguments) <= set(pair["head" if role == "head" else "worker"].command)
        assert not set(config.rank_arguments) <= set(pair["worker" if role == "head" else "head"].command)
