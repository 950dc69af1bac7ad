"""The scrape as a whole: the recording is what the code writes now, and the names are sound."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from dspark_ops.observe.exporter.catalogue import SERIES
from dspark_ops.observe.exporter.config import parse_config
from dspark_ops.observe.exporter.families import Families, Histogram
from dspark_ops.observe.exporter.polling import Poller, Source, SourceError
from dspark_ops.observe.exporter.scrape import Exposition
from tests.unit.observe.exporter import trees
from tests.unit.observe.exporter.recording import RECORDED, HeldClock, record

DOCS = Path(__file__).parents[4] / "docs"


def everything() -> Families:
    """A sample of every series of the catalogue."""
    whole = Families()
    for series in SERIES.values():
        if series.kind == "histogram":
            whole.add_histogram(series.name, Histogram.of((1.0, 2.0), (0.5, 3.0)))
        else:
            whole.add(series.name, 1.0, **{f"{label}_" if label == "class" else label: "x" for label in series.labels})
    return whole


def exposed(families: Families) -> Exposition:
    config = parse_config(json.dumps(trees.configuration()))

    def read(into: Families) -> None:
        into.values.update(families.values)
        into.histograms.update(families.histograms)

    poller = Poller(Source("memory", read, 15.0), 60.0, lambda _: None, HeldClock())
    poller.once()
    return Exposition(config, "0.1.0", [poller], 1.0)


@pytest.mark.parametrize("role", ["head", "worker"])
def test_the_recording_is_what_is_written_now(role: str, tmp_path: Path) -> None:
    """Others judge their rules by it. `python -m tests.unit.observe.exporter.recording` writes it anew."""
    assert record(role, tmp_path) == (RECORDED / f"{role}.prom").read_text(encoding="utf-8")


def test_a_healthy_head_exports_every_series_but_those_for_a_hold() -> None:
    text = (RECORDED / "head.prom").read_text(encoding="utf-8")
    told = {sample.name for family in text_format(text) for sample in family.samples}
    plain = {name for name, series in SERIES.items() if series.kind != "histogram"}
    assert plain - told == {"dspark_supervisor_hold_left_seconds"}


def test_both_formats_are_read_by_their_parsers() -> None:
    page = exposed(everything())
    plain, kind = page.render("text/plain")
    assert "version=0.0.4" in kind or "version=1.0.0" in kind
    names = {sample.name for family in text_format(plain.decode()) for sample in family.samples}
    assert {name for name, series in SERIES.items() if series.kind != "histogram"} <= names
    strict, kind = page.render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family.type for family in open_metrics(strict.decode())}  # type: ignore[no-untyped-call]
    assert families["dspark_supervisor_detect_seconds"] == "histogram"
    assert families["dspark_xid"] == "counter"
    assert families["dspark_rail"] == "info"


def test_names_are_sound() -> None:
    for name, series in SERIES.items():
        assert re.fullmatch(r"dspark_[a-z][a-z0-9_]*[a-z0-9]", name), name
        assert name.endswith("_total") == (series.kind == "counter"), name
        assert name.endswith("_info") == (series.kind == "info"), name
        assert series.text.endswith("."), name
        assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in series.labels), name


def test_the_docs_name_every_series_and_no_other() -> None:
    page = (DOCS / "exporter.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(dspark_\w+)`", page, re.MULTILINE)) == set(SERIES)


def test_a_source_that_is_down_leaves_its_age_and_nothing_else() -> None:
    def read(_into: Families) -> None:
        raise SourceError("no")

    poller = Poller(Source("gpu", read, 15.0), 60.0, lambda _: None, HeldClock())
    poller.once()
    page = Exposition(parse_config(json.dumps(trees.configuration())), "0.1.0", [poller], 1.0)
    body, _ = page.render("")
    told = {(s.name, s.labels.get("source")): s.value for f in text_format(body.decode()) for s in f.samples}
    assert told["dspark_source_up", "gpu"] == 0
    assert told["dspark_source_errors_total", "gpu"] == 1
    assert ("dspark_source_age_seconds", "gpu") not in told
    assert not any(name.startswith("dspark_gpu") for name, _ in told)


def test_the_encoder_is_the_one_that_the_header_asks_for() -> None:
    assert exposition.choose_encoder("application/openmetrics-text")[1].startswith("application/openmetrics-text")
