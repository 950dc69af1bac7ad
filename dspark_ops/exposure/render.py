"""A policy as the role's variables, and as the rules that the role writes: one template makes both."""

from __future__ import annotations

from dataclasses import asdict

from dspark_ops.exposure.policy import NodePolicy
from dspark_ops.paths import data_dir

TEMPLATE = "dspark-exposure.nft.j2"


def role_variables(policy: NodePolicy) -> dict[str, object]:
    """What the role is told of one node."""
    return {
        "exposure_rails": [asdict(rail) for rail in policy.rails],
        "exposure_ports": [
            {**asdict(port), "sources": list(port.sources) if port.sources is not None else []} for port in policy.ports
        ],
    }


def render(policy: NodePolicy) -> str:
    """The rules as nft reads them, byte for byte as Ansible writes them."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 (rules of a packet filter, no HTML)
    )
    return environment.get_template(TEMPLATE).render(**role_variables(policy))
