"""The command as a user calls it: exit codes, one document on stdout, and no heavy import for help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def dspark(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_help_lists_the_verbs_and_the_exit_codes() -> None:
    done = dspark("--help")
    assert done.returncode == 0
    for word in ("bootstrap", "deploy", "doctor", "lab", "130 interrupted"):
        assert word in done.stdout


@pytest.mark.parametrize("words", [("--help",), ("deploy", "--help"), ("doctor", "--help"), ("lab", "--help")])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    code = (
        f"import sys; sys.argv = ['dspark-ops', *{words!r}]\n"
        "from dspark_ops.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'ansible', 'docker', 'vllm', 'paramiko', 'jinja2', 'yaml'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert "HEAVY []" in done.stdout, done.stdout[-300:] + done.stderr[-300:]


@pytest.mark.parametrize("words", [("nope",), ("--nope",), ("deploy", "--nope"), ("logs", "--tail", "0")])
def test_a_wrong_command_line_is_a_usage_error(words: tuple[str, ...]) -> None:
    done = dspark(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("verb", ["validate", "bootstrap", "deploy", "start", "stop", "status", "doctor", "logs"])
def test_an_absent_site_is_one_clear_error_for_every_verb(verb: str, tmp_path: Path) -> None:
    done = dspark(verb, "--site", "absent.yml", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "absent.yml" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_with_json_is_one_document_alone_on_stdout(tmp_path: Path) -> None:
    done = dspark("deploy", "--site", "absent.yml", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode == 2
    assert "absent.yml" in document["message"]


def test_the_version_is_the_package_version() -> None:
    from dspark_ops import __version__

    assert dspark("--version").stdout.strip() == f"dspark-ops {__version__}"
