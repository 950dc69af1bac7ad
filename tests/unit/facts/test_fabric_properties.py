"""A capture that is cut or damaged raises nothing, the order of rows means nothing, what was written is read back."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Interface

from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.facts import (
    ethtool,
    kernel_log,
    links_text,
    nccl_files,
    nccl_log,
    networkd,
    networkmanager,
    rdma_tools,
    verbs,
)
from dspark_ops.facts.ini import ini_sections
from dspark_ops.facts.persistence import PersistenceFacts, owners_of
from tests.unit.facts.captures import GB10, text

PARSERS: tuple[Callable[[str], object], ...] = (
    ethtool.parse_settings,
    ethtool.parse_driver,
    ethtool.parse_statistics,
    kernel_log.parse_kernel_log,
    links_text.parse_ip_brief,
    links_text.parse_ip_text,
    nccl_log.parse_nccl_log,
    rdma_tools.parse_ibdev2netdev,
    rdma_tools.parse_rdma_link,
    rdma_tools.parse_rdma_statistic,
    rdma_tools.parse_show_gids,
    rdma_tools.parse_gid_listing,
    verbs.parse_ibv_devinfo,
    verbs.parse_ibstat,
)
NAMES = sorted(
    str(p.relative_to(GB10)) for folder in ("net", "rdma", "nccl-log", "dmesg") for p in (GB10 / folder).glob("*.txt")
)
VALUES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), max_size=12)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 4000), st.integers(0, 4000), st.text(max_size=6))
def test_no_parser_raises_on_a_capture_that_is_cut_and_damaged(name: str, at: int, until: int, junk: str) -> None:
    content = text(name)
    damaged = content[: at % (len(content) + 1)] + junk + content[until % (len(content) + 1) :]
    for parse in PARSERS:
        parse(damaged)


@given(st.integers(0, 10_000))
def test_the_order_of_the_rows_means_nothing(seed: int) -> None:
    rows = text("rdma/show_gids-p0-up-two-subnets.txt").splitlines()
    lines = text("rdma/ibdev2netdev-p1-up.txt").splitlines()
    gids, devices = list(rows), list(lines)
    random.Random(seed).shuffle(gids)  # noqa: S311 (an order, not a secret)
    random.Random(seed).shuffle(devices)  # noqa: S311
    shuffled, straight = rdma_tools.parse_show_gids("\n".join(gids)), rdma_tools.parse_show_gids("\n".join(rows))
    assert shuffled is not None
    assert straight is not None
    assert {d: set(e) for d, e in shuffled.items()} == {d: set(e) for d, e in straight.items()}
    assert set(rdma_tools.parse_ibdev2netdev("\n".join(devices)) or ()) == set(
        rdma_tools.parse_ibdev2netdev("\n".join(lines)) or ()
    )


@given(st.ip_addresses(v=4), st.integers(1, 31), st.integers(1280, 9216))
def test_every_manager_gives_back_the_address_and_mtu_that_were_written(address: object, prefix: int, mtu: int) -> None:
    wanted = IPv4Interface(f"{address}/{prefix}")
    profile = networkmanager.parse_profile(
        "/etc/NetworkManager/system-connections/a.nmconnection",
        f"[connection]\nid=a\ntype=ethernet\ninterface-name=x0\n[ethernet]\nmtu={mtu}\n"
        f"[ipv4]\nmethod=manual\naddress1={wanted}\n",
    )
    assert profile is not None
    units = networkd.parse_networkd(
        {"/etc/systemd/network/a.network": f"[Match]\nName=x0\n[Link]\nMTUBytes={mtu}\n[Network]\nAddress={wanted}\n"}
    )
    found = PersistenceFacts(profiles=(profile,), networkd_files=units)
    owners = owners_of("x0", None, (), found)
    assert owners is not None
    assert [owner.gives_exactly(wanted, mtu) for owner in owners] == [True, True]
    assert not any(owner.gives_exactly(wanted, mtu + 1) for owner in owners)


@given(st.lists(st.tuples(st.sampled_from(["A", "Link", "x y"]), st.sampled_from(["k", "Key"]), VALUES), max_size=8))
def test_ini_keeps_every_key_in_order(entries: list[tuple[str, str, str]]) -> None:
    written = "".join(f"[{name}]\n# c\n{key} = {value}\n" for name, key, value in entries)
    # Blanks around a value are not part of it; a control character may end a line.
    if all(value.isprintable() for _, _, value in entries):
        read = [(name, key, value) for name, keys in ini_sections(written) for key, value in keys]
        assert read == [(name, key, value.strip()) for name, key, value in entries]
    else:
        ini_sections(written)


@given(st.dictionaries(st.sampled_from(["NCCL_IB_HCA", "GLOO_SOCKET_IFNAME", "TP_X", "NCCL_IB_GID_INDEX"]), VALUES))
def test_nccl_files_keep_an_empty_value_apart_from_an_absent_one(values: dict[str, str]) -> None:
    plain = {name: value for name, value in values.items() if value.isprintable() and value.strip("\"' ") == value}
    written = "SECRET_TOKEN=x\n" + "".join(f"export {name}={value}\n" for name, value in plain.items())
    files = nccl_files.parse_nccl_files({"/etc/environment": written})
    assert [file.values for file in files] == ([plain] if plain else [])
    assert {name for file in files for name in file.empty} == {name for name, value in plain.items() if not value}
