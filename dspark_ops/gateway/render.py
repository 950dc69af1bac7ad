"""Every file of a gateway as text, from its settings and places. Pure; nothing in it is secret."""

from __future__ import annotations

import json
from collections.abc import Mapping

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dspark_ops.gateway.plugin.settings import SCHEMA
from dspark_ops.gateway.settings import GatewaySettings, Places
from dspark_ops.paths import data_dir

#: What a client is told to wait for the pair: a restart takes as long as the engine loads.
RETRY_AFTER_S = 30
_TOKENIZE_TIMEOUT_S = 30
#: Files of the configuration directory, and units.
CONFIGURATION = ("edge.cfg", "shim.cfg", "litellm.yaml", "policy.json", "clients.map", "local-only.map")
UNITS = ("dspark-edge.service", "dspark-gateway.service")
#: Files of the credentials directory. edge-secret.cfg: see `edge_secret`; tls.pem: certificate chain and key.
EDGE_CREDENTIALS = ("edge-secret.cfg", "tls.pem")
ROUTER_CREDENTIALS = ("router_key", "cloud_key")


def render_all(settings: GatewaySettings, places: Places) -> dict[str, str]:
    """File name -> text: `CONFIGURATION` and `UNITS`."""
    environment = Environment(
        loader=FileSystemLoader(data_dir("templates") / "gateway"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, no HTML
    )
    context = {
        "site": settings.site,
        "places": places,
        "served_name": settings.served_name,
        "health_route": settings.health_route,
        "retry_after_s": RETRY_AFTER_S,
        "error": error_document,
    }
    rendered = {
        name: environment.get_template(f"{name}.j2").render(context)
        for name in ("edge.cfg", "shim.cfg", "litellm.yaml", *UNITS)
    }
    return rendered | {
        "policy.json": json.dumps(policy_document(settings, places), indent=2) + "\n",
        "clients.map": _map({client.key_sha256: client.name for client in settings.clients}),
        "local-only.map": _map({client.name: "local-only" for client in settings.clients if client.local_only}),
    }


def policy_document(settings: GatewaySettings, places: Places) -> dict[str, object]:
    """What the policy inside LiteLLM is told (`plugin.settings`)."""
    site = settings.site
    cloud = site.cloud
    return {
        "schema": SCHEMA,
        "served_name": settings.served_name,
        "local_only_name": settings.local_only_name,
        "max_context": settings.max_context,
        "answer_tokens": site.answer_tokens,
        "body_bytes": site.body_mib << 20,
        "host": "127.0.0.1",
        "port": site.router_port,
        "shim_port": site.shim_port,
        "litellm_config": str(places.configuration / "litellm.yaml"),
        "ledger": str(places.state / "ledger.json"),
        "retry_after_s": RETRY_AFTER_S,
        "tokenize_timeout_s": _TOKENIZE_TIMEOUT_S,
        "cloud": cloud
        and {
            "max_context": cloud.max_context,
            "input_usd_per_million": cloud.input_usd_per_million,
            "output_usd_per_million": cloud.output_usd_per_million,
            "day_micro_usd": round(cloud.day_usd * 1e6),
            "hour_micro_usd": round(cloud.hour_usd * 1e6),
            "request_micro_usd": round(cloud.request_usd * 1e6),
            "repeats": cloud.repeats,
        },
    }


def edge_secret(router_key: str) -> str:
    """The file that gives HAProxy the router's key: the one text that is secret, never part of `render_all`."""
    return f"global\n    setenv DSPARK_ROUTER_KEY {router_key}\n"


def error_document(message: str, code: str) -> str:
    """An error as OpenAI's clients read it, on one line."""
    error = {"message": message, "type": "gateway_error", "param": None, "code": code}
    return json.dumps({"error": error}, separators=(",", ":"))


def _map(entries: Mapping[str, str]) -> str:
    """A HAProxy map. It is never empty: some versions refuse an empty file."""
    return "# key value\n" + "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))
