"""Runs made by hand: what a report is of, without a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dspark_ops.bench.corpus.model import ContentClass
from dspark_ops.bench.plan import BenchPlan
from dspark_ops.bench.predictable import FlagReason, PredictableFlag
from dspark_ops.bench.records import (
    Block,
    End,
    Header,
    Line,
    PromptLine,
    RunWriter,
    Sample,
    SampleFailure,
    Server,
    Speculation,
    WarmUp,
)

WALL = datetime(2026, 1, 2, tzinfo=UTC)
MIX: tuple[ContentClass, ...] = ("code", "prose", "reasoning", "tool-json")
FLAGGED = PredictableFlag(predictable=True, reasons=(FlagReason(code="acceptance", value=0.97, threshold=0.9),))
NOT_FLAGGED = PredictableFlag(predictable=False)
RATES: dict[str, float] = {"code": 60.0, "prose": 40.0, "reasoning": 50.0, "tool-json": 70.0, "predictable": 80.0}


def made_lines(
    rate: Callable[[str, str, int, int], float] = lambda _, name, prompt, __: RATES[name] + prompt,
    *,
    arms: tuple[str, ...] = ("",),
    classes: Sequence[ContentClass] = (*MIX, "predictable"),
    concurrency: Sequence[int] = (1,),
    rounds: int = 2,
    prompts: int = 4,
    void: Callable[[str, str, int], bool] = lambda _, __, ___: False,
    flagged: Sequence[str] = ("predictable",),
    failed: Callable[[str, int, int], bool] = lambda _, __, ___: False,
    wrong: Callable[[str, int, int], bool] = lambda _, __, ___: False,
    boot: float | None = 1e9,
    hardware: str | None = None,
    definitions: dict[str, str] | None = None,
    ended: bool = True,
    **server: Any,
) -> list[Line]:
    """A whole run. rate: of an arm's answer to a prompt of a class in a round."""
    plan = BenchPlan(
        classes=tuple(classes),
        concurrency=tuple(concurrency),
        caches=("cold",),
        arms=arms,
        rounds=rounds,
        mixed_at=None,
    )
    lines: list[Line] = [
        Header(
            run_id="made",
            began=WALL,
            tool="test",
            servers=tuple(Server(arm=arm, base_url="http://test", model="tiny", boot=boot, **server) for arm in arms),
            plan=plan,
            definitions=definitions or {},
            prompts=tuple(
                PromptLine(
                    key=f"{name}-{i:02}", content_class=name, template="t", sha256=f"{name}{i}", chars=9, max_tokens=512
                )
                for name in classes
                for i in range(prompts)
            ),
            client={} if hardware is None else {"hardware": hardware},
        ),
        WarmUp(at_s=0.0, rates=(50.0,) * 5, stable=True, why="five in a row within 3 %"),
    ]
    at_s, index = 10.0, 0
    for round_ in range(rounds):
        for name in classes:
            for streams in concurrency:
                for arm in arms if round_ % 2 == 0 else tuple(reversed(arms)):
                    began_s = at_s
                    for i in range(prompts):
                        bad = failed(name, i, round_)
                        speed = rate(arm, name, i, round_)
                        seconds = 512 / speed
                        lines.append(
                            Sample(
                                block=index,
                                number=i,
                                arm=arm,
                                prompt=f"{name}-{i:02}",
                                content_class=name,
                                concurrency=streams,
                                cache="cold",
                                load="closed",
                                sent_s=at_s,
                                first_s=at_s + 0.5,
                                last_s=at_s + 0.5 + seconds,
                                end_s=at_s + 0.6 + seconds,
                                wall=WALL,
                                outcome="failed" if bad else "valid",
                                failure=SampleFailure(kind="cut", message="the stream was cut") if bad else None,
                                correct=None if bad else not wrong(name, i, round_),
                                n=None if bad else 516,
                                n1=4,
                                ttft_s=0.5 + 0.01 * i,
                                decode_rate=None if bad else speed,
                                predictable=FLAGGED if name in flagged else NOT_FLAGGED,
                            )
                        )
                        at_s += 0.7 + seconds
                    broken = void(arm, name, round_)
                    share = 0.97 if name in flagged else 0.6
                    lines.append(
                        Block(
                            index=index,
                            round=round_,
                            arm=arm,
                            content_class=name,
                            concurrency=streams,
                            cache="cold",
                            load="closed",
                            began=WALL,
                            began_s=began_s,
                            ended_s=at_s,
                            wall_s=at_s - began_s,
                            requests=prompts,
                            state="void" if broken else "sound",
                            reasons=("foreign requests: the engine finished 9, ours were 4",) if broken else (),
                            speculation=Speculation(
                                drafts=500,
                                draft_tokens=1500,
                                accepted=1500 * share,
                                acceptance=share,
                                tokens_per_step=1 + 3 * share,
                                per_position=(min(1.0, share + 0.1), share, share - 0.1),
                                depth=3,
                            ),
                            predictable=FLAGGED if name in flagged else NOT_FLAGGED,
                        )
                    )
                    index += 1
    if ended:
        lines.append(
            End(
                at=WALL + timedelta(seconds=at_s), reason="done", blocks_planned=index, blocks_run=index, elapsed_s=at_s
            )
        )
    return lines


def made_file(path: Path, lines: Sequence[Line] | None = None, **changes: Any) -> Path:
    """The run as a file."""
    with RunWriter(path) as writer:
        for line in made_lines(**changes) if lines is None else lines:
            writer.write(line)
    return path
