"""The rendered files, byte for byte, as Ansible's template lookup renders them."""

from __future__ import annotations

from typing import Any

import jinja2
import yaml

from dspark_ops.paths import data_dir
from tests.unit.roles.conftest import PLAYBOOKS, load

rules = load(PLAYBOOKS / "module_utils" / "dspark_netplan_rules.py", "netplan_rules")
RAILS = [
    {"name": "p0a", "netdev": "enp1s0f0np0", "address": "10.77.0.1/24"},
    {"name": "p0b", "netdev": "enP2p1s0f0np0", "address": "10.77.1.1/24"},
]


def render(name: str, **variables: Any) -> str:
    """Ansible's settings: blocks take their line's end along, an unknown variable is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 (configuration files, no HTML)
    )
    return environment.get_template(name).render(**variables)


def test_netplan_of_two_rails() -> None:
    text = render("netplan_rails.yaml.j2", fabric_own_rails=RAILS, fabric_mtu=9000)
    rail = {"mtu": 9000, "dhcp4": False, "dhcp6": False, "accept-ra": False, "link-local": [], "optional": True}
    assert yaml.safe_load(text) == {
        "network": {
            "version": 2,
            "ethernets": {
                "enp1s0f0np0": {"addresses": ["10.77.0.1/24"], **rail},
                "enP2p1s0f0np0": {"addresses": ["10.77.1.1/24"], **rail},
            },
        }
    }
    assert text.startswith("# Written by dspark-ops")
    assert "Do not edit" in text.splitlines()[0]
    assert all(line == line.rstrip() for line in text.splitlines())


def test_what_we_write_is_what_we_would_adopt() -> None:
    """The rules and the template agree on what a rail needs: our own text, found in another file, is no conflict."""
    text = render("netplan_rails.yaml.j2", fabric_own_rails=RAILS, fabric_mtu=9000)
    rails = [rules.Rail(r["name"], r["netdev"], r["address"], 9000) for r in RAILS]
    found = rules.ownership(rails, {"/etc/netplan/10-copy.yaml": yaml.safe_load(text)}, {})
    assert (found.own, found.conflicts) == ((), ())
    assert set(found.adopted) == {r["netdev"] for r in RAILS}


def test_sysctl() -> None:
    settings = [{"key": "vm.swappiness", "value": 10}, {"key": "net.ipv4.conf.enp1s0f0np0.arp_ignore", "value": 1}]
    assert render("sysctl_dspark.conf.j2", host_baseline_written_settings=settings) == (
        "# Written by dspark-ops (role host_baseline). Do not edit.\n"
        "vm.swappiness = 10\n"
        "net.ipv4.conf.enp1s0f0np0.arp_ignore = 1\n"
    )


def test_logind() -> None:
    lines = [line for line in render("logind_dspark.conf.j2").splitlines() if not line.startswith("#")]
    assert lines == ["[Login]", "RemoveIPC=no"]


def test_earlyoom_spares_what_would_take_the_node_along() -> None:
    text = render("earlyoom_dspark.j2", host_baseline_earlyoom_memory_percent=2)
    assert "-m 2 " in text
    assert all(name in text for name in ("sshd", "dockerd", "containerd", "systemd"))
