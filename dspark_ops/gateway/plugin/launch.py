"""Starts the router: settings, secrets from systemd's credentials into this process alone, LiteLLM behind our door."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from .ledger import Ledger
from .settings import Policy, SettingsError, credential, read
from .state import LOG, State, install

#: Nothing is fetched at start, and nothing is told to anybody.
_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # A request that falls back is an error with a trace to LiteLLM, and a trace may hold a client's words.
    "LITELLM_LOG": "CRITICAL",
    "LITELLM_TELEMETRY": "False",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}


def main() -> None:
    """`gateway.pyz policy.json`, in the venv of the router."""
    if len(sys.argv) != 2:
        sys.exit("usage: gateway.pyz POLICY.JSON")
    # LiteLLM takes the root logger for itself.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        policy = read(Path(sys.argv[1]))
        key = _secrets(policy)
    except SettingsError as error:
        sys.exit(f"gateway: {error}")
    install(State(policy, Ledger(Path(policy.ledger))))
    _serve(policy, key)


def _secrets(policy: Policy) -> str:
    """The edge's key; LiteLLM's own two are put where its configuration looks: this process's variables.

    They are set after the start, so /proc/PID/environ, systemd and a parent's environment have none of them.

    Raises:
        SettingsError: one is missing.
    """
    key = credential("router_key")
    if key is None:
        raise SettingsError("no credential router_key; start it as the unit dspark-gateway.service does")
    for name in [name for name in os.environ if name.startswith(("LITELLM_", "OPENAI_", "HOSTED_VLLM_", "DATABASE_"))]:
        del os.environ[name]
    os.environ.update(_ENVIRONMENT)
    os.environ["LITELLM_MASTER_KEY"] = key
    os.environ["CONFIG_FILE_PATH"] = policy.litellm_config
    if policy.cloud is not None:
        cloud_key = credential("cloud_key")
        if cloud_key is None:
            raise SettingsError("a cloud is configured and there is no credential cloud_key")
        os.environ["DSPARK_CLOUD_KEY"] = cloud_key
    return key


def _serve(policy: Policy, key: str) -> None:
    import uvicorn  # type: ignore[import-not-found,unused-ignore]
    from litellm.proxy.proxy_server import app  # type: ignore[import-not-found]

    from .door import Door
    from .state import current

    uvicorn.run(
        Door(app, current(), key),
        host=policy.host,
        port=policy.port,
        lifespan="on",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        backlog=1024,
    )
