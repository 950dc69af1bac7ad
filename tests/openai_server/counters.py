"""The engine's own counters and `/metrics` in vLLM's words: every line of a real scrape, with this server's values."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.openai_server.request import Request
from tests.openai_server.setup import ServerSetup

_SCRAPE = Path(__file__).parents[1] / "fixtures" / "vllm-metrics" / "half-draft.prom"
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LE = re.compile(r'(?:^|,)le="([^"]*)"')
_REASONS = ("stop", "length", "abort", "error", "repetition")
_LEAN = {
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prompt_tokens_total",
    "vllm:prompt_tokens_cached_total", "vllm:generation_tokens_total", "vllm:request_success_total",
    "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total", "vllm:spec_decode_num_drafts_total",
    "vllm:spec_decode_num_draft_tokens_total", "vllm:spec_decode_num_accepted_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_per_pos_total", "vllm:corrupted_requests_total",
    "vllm:time_to_first_token_seconds", "vllm:cache_config_info", "process_start_time_seconds",
}  # fmt: skip
_CORRUPTED = """\
# HELP vllm:corrupted_requests_total Corrupted requests, in terms of total number of requests with NaNs in logits.
# TYPE vllm:corrupted_requests_total counter
vllm:corrupted_requests_total{engine="0",model_name="tiny"} 0.0
# HELP vllm:corrupted_requests_created Corrupted requests, in terms of total number of requests with NaNs in logits.
# TYPE vllm:corrupted_requests_created gauge
vllm:corrupted_requests_created{engine="0",model_name="tiny"} 0.0
"""


class Counters:
    """What the engine counts. Plain names are vLLM's without the prefix `vllm:` and without `_total`."""

    def __init__(self, setup: ServerSetup, start: float) -> None:
        self.setup = setup
        self.process_start = start
        self.values: dict[str, float] = defaultdict(float)
        self.finished_by: dict[str, int] = dict.fromkeys(_REASONS, 0)
        self.per_position = [0] * setup.k
        self._counts: dict[str, list[int]] = {}
        self.http: dict[tuple[str, str, str], int] = defaultdict(int)
        self._sums: dict[str, float] = defaultdict(float)

    def add(self, name: str, amount: float = 1) -> None:
        self.values[name] += amount

    def set(self, name: str, value: float) -> None:
        self.values[name] = value

    def observe(self, name: str, value: float) -> None:
        """One observation of a histogram."""
        bounds = _bounds().get(name, ())
        counts = self._counts.setdefault(name, [0] * (len(bounds) + 1))
        counts[bisect_left(bounds, value)] += 1
        self._sums[name] += value

    def draft(self, accepted: int, k: int) -> None:
        """One step's draft."""
        self.add("spec_decode_num_drafts")
        self.add("spec_decode_num_draft_tokens", k)
        self.add("spec_decode_num_accepted_tokens", accepted)
        for position in range(accepted):
            self.per_position[position] += 1

    def finished(self, request: Request, reason: str) -> None:
        """A request's end, and its own histograms."""
        self.finished_by[reason] = self.finished_by.get(reason, 0) + 1
        if reason not in ("stop", "length", "repetition"):
            return
        self.observe("request_prompt_tokens", len(request.prompt))
        self.observe("request_generation_tokens", request.sent)
        self.observe("request_max_num_generation_tokens", request.sent)
        self.observe("request_params_max_tokens", request.max_tokens)
        self.observe("request_params_n", 1)
        self.observe("request_num_preemptions", 0)
        self.observe("request_prefill_kv_computed_tokens", len(request.prompt) - request.reported_cached)
        first, end, arrival = request.first_at, request.ended_at, request.arrival
        if first is not None and end is not None:
            began = arrival if request.admitted is None else request.admitted
            self.observe("e2e_request_latency_seconds", end - arrival)
            self.observe("request_inference_time_seconds", end - began)
            self.observe("request_decode_time_seconds", end - first)
            if request.sent > 1:
                self.observe("request_time_per_output_token_seconds", (end - first) / (request.sent - 1))

    # --- the exposition

    def text(self) -> str:
        """`/metrics` as of now."""
        lines: list[str] = []
        speculates, lean = self.setup.k > 0, self.setup.metrics == "lean"
        for family, header, samples in _families():
            if family.startswith("vllm:spec_decode") and not speculates:
                continue
            if family.startswith("vllm:corrupted") and not self.setup.nan_counter:
                continue
            if lean and family not in _LEAN:
                continue
            lines += header[1:] if lean else header
            for name, labels, stood in self._samples(family, samples):
                if lean and name.endswith("_bucket"):
                    continue
                lines.append(f"{name}{{{labels}}} {stood}" if labels else f"{name} {stood}")
        return "\n".join(lines) + "\n"

    def _samples(self, family: str, samples: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        if family.startswith("vllm:spec_decode_num_accepted_tokens_per_pos"):
            name = samples[0][0]
            created = name.endswith("_created")
            return [
                (name, self._labels(f'engine="0",model_name="tiny",position="{i}"'), self._start(created, float(n)))
                for i, n in enumerate(self.per_position)
            ]
        if family in ("http_requests_total", "http_requests_created"):
            return [
                (family, f'handler="{h}",method="{m}",status="{s}"', self._start(family.endswith("_created"), float(n)))
                for (h, m, s), n in self.http.items()
            ]
        return [(n, self._labels(labels), self._value(family, n, labels, stood)) for n, labels, stood in samples]

    def _start(self, created: bool, value: float) -> str:
        return repr(self.process_start if created else value)

    def _labels(self, labels: str) -> str:
        labels = labels.replace('model_name="tiny"', f'model_name="{self.setup.model}"')
        if "num_gpu_blocks=" not in labels:
            return labels
        size, blocks = self.setup.block_size, self.setup.kv_blocks
        own = {
            "block_size": size,
            "effective_attention_block_size": size,
            "enable_prefix_caching": self.setup.prefix_caching,
            "kv_cache_size_tokens": size * blocks,
            "kv_cache_max_concurrency": size * blocks / self.setup.context_length,
            "num_gpu_blocks": blocks,
        }
        for name, value in own.items():
            labels = re.sub(rf'(^|,){name}="[^"]*"', rf'\1{name}="{value}"', labels)
        return labels

    def _value(self, family: str, name: str, labels: str, stood: str) -> str:
        if name == "process_start_time_seconds" or name.endswith("_created"):
            return repr(self.process_start)
        if not name.startswith("vllm:"):
            return "0.0" if name.startswith("http_") else stood
        if name in ("vllm:cache_config_info", "vllm:engine_sleep_state"):
            return stood
        plain = family.removeprefix("vllm:")
        for suffix in ("_bucket", "_count", "_sum"):
            if name == family + suffix:
                return self._histogram(plain, suffix, labels)
        return repr(self._plain(plain.removesuffix("_total"), labels))

    def _plain(self, plain: str, labels: str) -> float:
        """One sample of a counter or gauge, whose labels may ask for a share of it."""
        cached = self.values["prompt_tokens_cached"]
        match plain:
            case "request_success":
                shares: dict[str, float] = {f'finished_reason="{r}"': n for r, n in self.finished_by.items()}
            case "num_requests_waiting_by_reason":
                shares = {'reason="capacity"': self.values["num_requests_waiting"]}
            case "prompt_tokens_by_source":
                local = self.values["prompt_tokens"] - cached
                shares = {'source="local_compute"': local, 'source="local_cache_hit"': cached}
            case "prompt_tokens_cached_by_source":
                shares = {'source="device"': cached}
            case "tool_call_parser_invocations":
                shares = {labels: self.values[f"parser {labels}"]}
            case _:
                return float(self.values.get(plain, 0.0))
        return float(next((n for label, n in shares.items() if label in labels), 0.0))

    def _histogram(self, plain: str, suffix: str, labels: str) -> str:
        counts = self._counts.get(plain, [])
        if suffix == "_count":
            return repr(float(sum(counts)))
        if suffix == "_sum":
            return repr(self._sums[plain])
        bound = _LE.search(labels)
        assert bound is not None
        return repr(float(sum(counts[: bisect_left(_bounds()[plain], float(bound.group(1))) + 1])))

    def parsed(self, *, streaming: bool, called: bool) -> None:
        """One invocation of the tool-call parser on a chat answer."""
        mode, outcome = ("streaming" if streaming else "non_streaming"), ("tool_call" if called else "no_tool_call")
        self.add(f'parser mode="{mode}",model_name="tiny",outcome="{outcome}",request_type="chat_completions"')


@cache
def _families() -> list[tuple[str, list[str], list[tuple[str, str, str]]]]:
    """(name, HELP and TYPE lines, samples) of the real scrape, in its order, with the NaN counter that it lacks."""
    found: list[tuple[str, list[str], list[tuple[str, str, str]]]] = []
    text = _SCRAPE.read_text(encoding="utf-8")
    place = text.index("# HELP vllm:request_success_total")
    for line in (text[:place] + _CORRUPTED + text[place:]).splitlines():
        if line.startswith("# HELP "):
            found.append((line.split(" ", 3)[2], [line], []))
        elif line.startswith("# TYPE "):
            found[-1][1].append(line)
        elif match := _SAMPLE.match(line):
            found[-1][2].append((match.group(1), match.group(2) or "", match.group(3)))
    return found


@cache
def _bounds() -> dict[str, tuple[float, ...]]:
    """The upper bounds of each histogram's buckets, as the real scrape has them."""
    found: dict[str, list[float]] = defaultdict(list)
    for family, _, samples in _families():
        for name, labels, _ in samples:
            bound = _LE.search(labels)
            if name == f"{family}_bucket" and bound is not None:
                found[family.removeprefix("vllm:")].append(float(bound.group(1)))
    return {name: tuple(sorted(bounds)) for name, bounds in found.items()}
