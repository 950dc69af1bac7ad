"""How likely the server's own good answers are: learnt once, from short warm requests without chunked prefill."""

from __future__ import annotations

import asyncio
from typing import Final

from dspark_ops.gates.case import CaseKind
from dspark_ops.gates.likelihood import FEWEST, Baseline, learn
from dspark_ops.gates.runner import Conduct
from dspark_ops.openai_api.model import Answer

#: The kind that is scored again: free text, where an answer may be wrong in no way that an oracle sees.
KIND: Final[CaseKind] = "report"
_PROMPT_TOKENS = 2000
# A few more than are needed: one that is not right is no sample.
_ASKED = FEWEST + 4


async def learn_baseline(run: Conduct) -> Baseline | None:
    """The limits of good answers; None where the server cannot score a text or too few answers were right.

    Each question is asked twice with one salt, and the second answer is the sample. Nothing is proven of these.
    """
    samples: list[tuple[float, ...]] = []
    tokens = min(_PROMPT_TOKENS, run.plan.prompt_tokens)

    async def sample(index: int) -> tuple[float, ...] | None:
        case = run.case(f"baseline/{index}/0", KIND, prompt_tokens=tokens)
        answer: Answer | None = None
        for _ in range(2):
            answer = await run.client.chat(case.request, timeout_s=run.plan.timeout_s)
        if answer is None or run.judge(case, answer, None).outcome != "pass":
            return None
        return await run.client.prompt_logprobs(case.request, answer.content, timeout_s=run.plan.timeout_s)

    for first in range(0, _ASKED, run.plan.width):
        run.in_time()
        run.say(first, _ASKED, "learning how likely good answers are")
        found = await asyncio.gather(*(sample(n) for n in range(first, min(first + run.plan.width, _ASKED))))
        samples += [one for one in found if one]
        if not samples:
            break
    baseline = learn({KIND: samples})
    run.folder.write("baseline", samples=len(samples), limits={k: v.model_dump() for k, v in baseline.items()})
    return baseline or None


async def judge_likelihood(run: Conduct) -> None:
    """Learn the baseline; where there is none, the report says that likelihood was not judged."""
    began = run.clock()
    run.baseline = await learn_baseline(run)
    if run.baseline is None:
        why = "not judged: the server scores no text, or too few short answers were right"
        run.part("likelihood", "answers read back as a prompt", began, why=why)
