"""`dspark-ops validate` as it is typed: exit codes, one JSON document, the table of sources."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words], cwd=cwd, capture_output=True, text=True, timeout=30, check=False
    )


def test_valid_site(site_path: Path, site_text: str, tmp_path: Path) -> None:
    site_path.write_text(site_text)
    done = run("validate", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("[ok] site.yml is valid: site lab, 2 rails, profile rehearsal")


def test_another_profile_is_checked_by_its_option(site_path: Path, site_text: str, tmp_path: Path) -> None:
    site_path.write_text(site_text + "profiles: {rehearsal-plain: {serve: {api_port: 8005}}}\n")
    done = run("validate", "--profile", "rehearsal-plain", "--show", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["profile"]["name"] == "rehearsal-plain"
    rows = {row["key"]: row for row in document["keys"]}
    assert (rows["serve.api_port"]["value"], rows["serve.api_port"]["source"]) == (8005, "site.yml:20")
    assert rows["profile"]["source"] == "--profile"
    refused = run("validate", "--profile", "rehersal-plain", cwd=tmp_path)
    assert refused.returncode == 2
    assert "did you mean rehearsal-plain?" in refused.stderr


def test_show_prints_every_key_with_its_source(site_path: Path, site_text: str, tmp_path: Path) -> None:
    site_path.write_text(site_text + "ssh: {config: none-such}\n")
    done = run("validate", "--show", "--json", "--set", "serve.api_port=8001", cwd=tmp_path)
    document = json.loads(done.stdout)
    rows = {row["key"]: row for row in document["keys"]}
    assert rows["serve.api_port"] == {
        "key": "serve.api_port",
        "value": 8001,
        "layer": "command line",
        "source": "--set serve.api_port",
    }
    assert rows["fabric.mtu"]["layer"] == "default"
    assert rows["serve.max_model_len"]["source"].startswith("rehearsal.yml:")
    assert [note["id"] for note in document["notes"]] == ["cfg.ssh_config"]
    table = run("validate", "--show", cwd=tmp_path).stdout.splitlines()
    line = next(line for line in table if line.startswith("fabric.rails.1.worker.address"))
    assert line.split() == ["fabric.rails.1.worker.address", "10.77.1.2/24", "file", "site.yml:14"]


def test_invalid_site_is_exit_2_and_json_stays_one_document(site_path: Path, site_text: str, tmp_path: Path) -> None:
    site_path.write_text(site_text.replace("api_port", "api_prot"))
    done = run("validate", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
    assert "site.yml:19: serve.api_prot: unknown key; did you mean serve.api_port?" in done.stderr
    assert "Traceback" not in done.stderr


def test_absent_site_is_exit_2(tmp_path: Path) -> None:
    done = run("validate", "--site", "none.yml", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: none.yml: no such file" in done.stderr


def test_init_with_one_host_twice_contacts_nothing(tmp_path: Path) -> None:
    done = run("init", "spark", "spark", cwd=tmp_path)
    assert done.returncode == 2
    assert "head and worker are the same host 'spark'" in done.stderr


def test_init_refuses_to_overwrite_before_it_contacts_anything(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("")
    done = run("init", "a.invalid", "b.invalid", "-o", "site.yml", cwd=tmp_path)
    assert done.returncode == 4
    assert "exists already" in done.stderr
