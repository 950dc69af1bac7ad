"""`releases` as a user types it: exit codes, one document, no secret on any stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dspark_ops.releases import store
from tests.unit.deploy.conftest import SITE
from tests.unit.releases.releases import document, release

A, B = "r-aaaaaaaaaaaa", "r-bbbbbbbbbbbb"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "site.yml"
    path.write_text(SITE)
    (tmp_path / "image.tar").write_bytes(b"")
    return path


def releases(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dspark_ops", "releases", *words]
    env = {k: v for k, v in os.environ.items() if k != "DSPARK_SITE"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def keep_two() -> None:
    for minutes, (identity, token) in enumerate(((A, "hf_first"), (B, "hf_second"))):
        env = {"HF_TOKEN": token, "VLLM_HOST_IP": f"10.77.0.{minutes}"}
        documents = {role: document(role, env=env) for role in ("head", "worker")}
        store.save(release(identity, minutes * 10, documents=documents))


def test_the_list_with_nothing_kept_is_no_error(site: Path) -> None:
    done = releases("--site", str(site))
    assert done.returncode == 0, done.stderr
    assert "no release is kept" in done.stdout
    document = json.loads(releases("--site", str(site), "--json").stdout)
    assert (document["schema"], document["current"], document["releases"]) == ("dspark-ops/releases/v1", None, [])


def test_list_diff_and_show(site: Path) -> None:
    keep_two()
    listed = releases("--site", str(site), "--json")
    assert listed.returncode == 0, listed.stderr
    assert [row["id"] for row in json.loads(listed.stdout)["releases"]] == [B, A]
    differs = releases("diff", "aaa", "r-bbb", "--site", str(site))
    assert differs.returncode == 0, differs.stderr
    assert "+ head   VLLM_HOST_IP=10.77.0.1" in differs.stdout
    assert "HF_TOKEN=<hidden>" in differs.stdout
    shown = releases("show", A, "--site", str(site), "--json")
    assert json.loads(shown.stdout)["id"] == A
    for done in (listed, differs, shown):
        assert "hf_" not in done.stdout + done.stderr


def test_options_before_the_sub_command_count(site: Path) -> None:
    keep_two()
    done = releases("--site", str(site), "--json", "diff", A, A)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changes"] == []


def test_an_id_that_is_not_there_is_a_usage_error_that_names_what_is(site: Path) -> None:
    keep_two()
    done = releases("show", "r-ffff", "--site", str(site))
    assert done.returncode == 2
    assert f"known: {B}, {A}" in done.stderr
    assert done.stdout == ""


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_listed(site: Path) -> None:
    keep_two()
    bad = store.releases_dir("desk") / "r-cccccc.json"
    bad.write_text("{")
    done = releases("--site", str(site))
    assert done.returncode == 3
    assert A in done.stdout
    assert str(bad) in done.stdout
