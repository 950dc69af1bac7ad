"""The bench on the real engine: what a draft model is worth by the engine's counters, and a run that is cut short."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.bench.records import Run, read_run
from dspark_ops.exitcodes import ExitCode
from tests.lab.operator_cli import Done, Operator
from tests.lab.rehearsed_models import Draft, acceptance, drafting, tokens_per_step

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(1200)]

K = 4
#: The rehearsal's template takes the answer's name from here, so that every prompt of the corpus can be asked.
ENDLESS = ("--extra", json.dumps({"chat_template_kwargs": {"thinking": False, "branch": "endless"}}))
PLAIN = ("--extra", json.dumps({"chat_template_kwargs": {"thinking": False, "branch": "plain"}}))
# vLLM 0.32's CPU build says known text at temperature 0 alone once a draft model speculates (seen 2026-11-27: at 0.7
# every answer was salad, and a greedy one in the same batch too).
BOUNDED = ("--temperature", "0", "--idle", "1", "--budget", "8", "--seed", "7")
HEADLINE_CLASSES = ("code", "prose", "reasoning", "tool-json")


def of_classes(*names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--class", name))


def measured(operator: Operator, out: Path, *words: str) -> tuple[dict[str, Any], Run]:
    """A run that came to its end: its report, and its raw file."""
    done = operator.run("bench run", "--json", "--out", str(out), *BOUNDED, *words)
    assert done.rc == 0, done
    (report,) = done.document()["runs"]
    assert report["partial"] is None, done
    # Only blocks that are void or could not be checked are listed: the identity holds in every one.
    assert report["blocks"] == [], report["blocks"]
    return report, read_run(out)


def assert_identity(run: Run, by: str) -> None:
    """tok/s = steps/s x tokens/step, in every block, by counters that know nothing of the answers."""
    assert run.blocks
    for block in run.blocks:
        assert block.state == "sound", block.reasons
        identity = block.identity
        assert identity is not None
        assert identity.by == by
        assert identity.steps_per_s * identity.tokens_per_step == pytest.approx(identity.engine_rate)
        # What the last step of an answer makes beyond its limit is the engine's alone: at most 4 of 255 tokens.
        assert identity.engine_rate == pytest.approx(identity.client_rate, rel=0.05)


@pytest.mark.parametrize("draft", ["draft", "draft-half"])
def test_a_draft_model_is_worth_what_it_is(operator: Operator, draft: Draft, tmp_path: Path) -> None:
    deployed = operator.run("deploy", "--yes", *drafting(draft, K))
    assert deployed.rc == 0, deployed
    few = ("-c", "1", "-c", "3", "--per-block", "3", "--max-tokens", "256")
    report, run = measured(operator, tmp_path / "run.jsonl", *few, *of_classes("prose", "predictable"), *ENDLESS)
    (arm,) = report["arms"]
    assert len(arm["cells"]) == 4
    for cell in arm["cells"]:
        figures = cell["figures"]
        assert (figures["requests"], figures["valid"]) == (3, 3), figures
        # Of 1,280 tokens; the answers have 256, and a draft more or less weighs less than this.
        assert figures["per_position"] == pytest.approx(acceptance(draft, K), abs=0.03)
        assert figures["tokens_per_step"] == pytest.approx(tokens_per_step(draft, K), abs=0.08)
        assert figures["acceptance"] == pytest.approx(sum(acceptance(draft, K)) / K, abs=0.05)
        assert abs(figures["identity_off"]) <= 0.05
        assert figures["rate"]["mean"] > 0
    assert_identity(run, "drafts")
    # An answer that counts is predictable in whatever class it was asked for, and then there is no headline.
    headline = arm["headline"]
    assert headline["rate"] is None
    assert headline["parts"] == {}
    assert any(reason.startswith("prose") and "predictable" in reason for reason in headline["why_not"]), headline


def test_the_headline_is_of_every_class_but_the_predictable(serving: Operator, tmp_path: Path) -> None:
    few = ("-c", "1", "--per-block", "4", "--max-tokens", "64")
    classes = of_classes(*HEADLINE_CLASSES, "predictable")
    report, run = measured(serving, tmp_path / "run.jsonl", *few, *classes, *PLAIN)
    (arm,) = report["arms"]
    headline = arm["headline"]
    assert headline["why_not"] == [], headline
    assert headline["rate"] is not None
    assert set(headline["mix"]) == set(headline["parts"]) == set(HEADLINE_CLASSES)
    flagged = {cell["place"]["content_class"]: cell["figures"]["predictable"]["predictable"] for cell in arm["cells"]}
    # All said the same sentence. It is what was asked for that keeps the fifth out.
    assert flagged == {**dict.fromkeys(HEADLINE_CLASSES, False), "predictable": True}
    assert all(cell["figures"]["acceptance"] is None for cell in arm["cells"])
    assert_identity(run, "generation")


def report_of(path: Path, *words: str) -> Done:
    argv = ("bench", "report", str(path), *words)
    done = subprocess.run(
        [sys.executable, "-m", "dspark_ops", *argv],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Done(argv, done.returncode, done.stdout, done.stderr)


def wait_within_second_block(path: Path, process: subprocess.Popen[str], timeout_s: float = 300) -> None:
    """Until the file holds a whole block and an answer of the next."""
    limit = time.monotonic() + timeout_s
    while True:
        text = path.read_text() if path.exists() else ""
        _, block, after = text.partition('{"record":"block"')
        if block and '{"record":"sample"' in after:
            return
        assert process.poll() is None, f"it ended with {process.returncode} before it was interrupted: {text[-2000:]}"
        assert time.monotonic() < limit, f"no second block within {timeout_s} s: {text[-2000:]}"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["sigint", "sigkill"])
def test_a_run_that_is_cut_short_is_reported_as_partial(serving: Operator, how: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    # Blocks of six answers one after the other: the second is not over when its first answer is there.
    many = ("-c", "1", "--rounds", "20", "--per-block", "6", "--max-tokens", "128")
    process = serving.begin("bench run", "--out", str(out), *BOUNDED, *many, *of_classes("prose"), *ENDLESS)
    try:
        wait_within_second_block(out, process)
        process.send_signal(how)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(timeout=30)
    if how is signal.SIGINT:
        assert process.returncode == int(ExitCode.INTERRUPTED), told
        assert f"{out}: a partial run" in told
    else:
        assert process.returncode == -signal.SIGKILL
    done = report_of(out, "--json")
    assert done.rc == 0, done
    (report,) = done.document()["runs"]
    assert report["partial"] == "interrupted after 1 whole block: the file has no end"
    assert report["ended"] is None
    # What was measured whole is still there; the answers of the block that was cut are counted and not used.
    (cell,) = report["arms"][0]["cells"]
    assert (cell["figures"]["requests"], cell["figures"]["valid"]) == (6, 6), cell
    assert report["dangling"] >= 1
    shown = report_of(out)
    assert shown.rc == 0, shown
    assert "PARTIAL: interrupted after 1 whole block:" in shown.out
