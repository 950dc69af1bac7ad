"""`python3 -I exporter.pyz [--config FILE] [--root DIR] [--check]`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dspark_ops import __version__
from dspark_ops.observe.exporter.config import ConfigError, parse_config
from dspark_ops.observe.exporter.polling import make_pollers
from dspark_ops.observe.exporter.scrape import Exposition
from dspark_ops.observe.exporter.server import serve
from dspark_ops.observe.exporter.sources import make_sources
from dspark_ops.observe.exporter.tree import Tree

CONFIG = Path("/etc/dspark/exporter.json")
USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. 2: the configuration cannot be used; 1: an address is taken."""
    parser = argparse.ArgumentParser(prog="dspark-exporter", description="Metrics of one node of a pair.")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the trees of the kernel are; for tests")
    parser.add_argument("--check", action="store_true", help="only judge the configuration")
    options = parser.parse_args(argv)
    try:
        config = parse_config(options.config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        _log(f"{options.config}: {error}")
        return USAGE_ERROR
    if options.check:
        return 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    pollers = make_pollers(make_sources(config, Tree(options.root)), config.stale_after_s, _log)
    for poller in pollers:
        poller.start(stop)
    try:
        servers = serve(config.listen, Exposition(config, __version__, pollers, time.time()), _log)
    except OSError as error:
        _log(f"cannot listen on {config.listen}: {error.strerror}")
        return 1
    for server in servers:
        _log(f"listening on {server.server_name}:{server.server_port}")
    stop.wait()
    # A source that hangs is not waited for: its thread ends with the process.
    return 0


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
