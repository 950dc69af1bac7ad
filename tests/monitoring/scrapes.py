"""What was recorded of the programs that are scraped: an expression may ask for these names and no other.

vllm-metrics: two scrapes of vLLM 0.32 on the rehearsal pair. observe: our exporter on both nodes, from recorded trees,
Debian's node exporter, and Debian's Alertmanager 0.25 on the rehearsal pair.
"""

from __future__ import annotations

import functools
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_FIXTURES = Path(__file__).parents[1] / "fixtures"
SCRAPES = (
    *sorted((_FIXTURES / "vllm-metrics").glob("*.prom")),
    *(_FIXTURES / "observe" / f"{name}.prom" for name in ("head", "worker", "node", "alertmanager")),
)


@functools.cache
def known_metrics() -> frozenset[str]:
    """Every name of a sample in a recorded scrape."""
    return frozenset(
        sample.name
        for path in SCRAPES
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    )
