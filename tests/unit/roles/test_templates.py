"""The rendered files, byte for byte, as Ansible's template lookup renders them."""

from __future__ import annotations

from typing import Any

import jinja2

from dspark_ops.paths import data_dir


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
