"""Whatever a file holds, loading it ends with a site or with a ConfigError."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dspark_ops.config.load import load_site
from dspark_ops.errors import ConfigError

SITE = """\
version: 1
name: lab
profile: rehearsal
nodes: {head: {host: a}, worker: {host: b}}
fabric:
  rails:
    - name: p0a
      head: {netdev: eth0, hca: rocep1s0f0, address: 10.77.0.1/24}
      worker: {netdev: eth0, hca: rocep1s0f0, address: 10.77.0.2/24}
image: {reference: "engine:1", id: "sha256:1111111111111111111111111111111111111111111111111111111111111111"}
"""
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


def outcome(raw: bytes, overrides: list[str] | None = None, environ: Mapping[str, str] | None = None) -> str:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "site.yml"
        path.write_bytes(raw)
        try:
            load_site(path, overrides=overrides or [], environ=environ or {})
        except ConfigError as error:
            return "refused" if error.message and error.exit_code == 2 else "wrong error"
        return "loaded"


@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf")
@example(b"!!python/object/apply:os.system [ls]")
@example(b"? [a]\n: b\n")
@example(b"&a *a")
@example(b"a: !!int x")
@example(b"a: !!binary '%'")
@example(b"a: 2026-13-45")
def test_arbitrary_bytes(raw: bytes) -> None:
    assert outcome(raw) == "refused"


@given(st.text(alphabet="{}[]&*!|>'\"%@`,:-? \n\tab01#<=", max_size=80))
def test_arbitrary_yaml_punctuation(text: str) -> None:
    outcome(text.encode())
    outcome(SITE.encode() + text.encode())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_a_sound_site_with_something_replaced(data: st.DataObject) -> None:
    document = yaml.safe_load(SITE)
    target: Any = document
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(target[key], dict | list) and data.draw(st.booleans()):
            target = target[key]
            continue
        target[key] = data.draw(VALUES)
        break
    outcome(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@given(st.text(max_size=30), st.text(max_size=20))
@example("serve.api_port", "!!int x")
@example("0", "1")
@example("fabric.rails.0", "{}")
@example("fabric.rails.00", "1")
@example("serve.\ud800", "1")
@example("name", "\ud800")
def test_arbitrary_overrides(key: str, value: str) -> None:
    outcome(SITE.encode(), [f"{key}={value}"])
    outcome(SITE.encode(), [f"serve.{key}={value}"])
    outcome(SITE.encode(), environ={f"DSPARK__SERVE__{key}": value})
