"""From what the engine inside an image says of itself to findings: release, plugin, arguments, compiler. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dspark_ops.config.models import Profile
from dspark_ops.images.findings import finding_of, rebuild
from dspark_ops.images.inspection import Told, parse_last_line
from dspark_ops.images.stages import Stage
from dspark_ops.report.models import Finding, Node, Remedy, Status

#: GB10 is sm_121; machine code of the same major version runs on it.
_MAJOR = "sm_12"


class VllmFacts(Told):
    version: str | None
    commit: str | None
    distribution: str | None
    path: str | None
    error: str | None


class PluginFacts(Told):
    """line: what it logs at boot, once a process. lines: how often it did here."""

    found: bool
    version: str | None
    loaded: bool
    line: str | None
    lines: int
    stages: tuple[str, ...] | None
    error: str | None


class ArgumentFacts(Told):
    ok: bool
    error: str | None
    parsed: dict[str, str | int | float | bool | list[str] | None] | None


class TorchFacts(Told):
    version: str | None
    cuda: str | None
    arch_list: tuple[str, ...] | None
    error: str | None


class NvccFacts(Told):
    path: str
    version: str | None


class EngineCheck(Told):
    """What engine_check.py found in the image. arguments: None where none were asked about."""

    vllm: VllmFacts
    plugin: PluginFacts
    arguments: ArgumentFacts | None
    torch: TorchFacts
    nvcc: NvccFacts | None
    packages: dict[str, str | None]
    unknown_variables: tuple[str, ...] | None
    elapsed_s: float


def parse_engine_check(text: str) -> EngineCheck:
    """The last line that engine_check.py printed.

    Raises:
        NoVerdictError: it is something else.
    """
    return parse_last_line(EngineCheck, text)


def judge_engine(
    profile: Profile, stages: tuple[Stage, ...], node: Node, check: EngineCheck | None, trouble: str
) -> list[Finding]:
    """Findings about the engine in an image. check None: it could not be asked, and trouble says why."""
    if check is None:
        return [finding_of(node, "image.engine", "unknown", "The engine can be imported", trouble or "no answer")]
    found = list(_release(profile, node, check))
    if check.vllm.error is None:
        found += _plugin(profile, stages, node, check)
        found += _arguments(node, check)
        found += _torch(profile, node, check)
    return found


def _release(profile: Profile, node: Node, check: EngineCheck) -> Iterator[Finding]:
    title, vllm = "The engine can be imported", check.vllm
    if vllm.error is not None:
        yield finding_of(node, "image.engine", "fail", title, vllm.error, remedy=rebuild(profile))
        return
    version = (vllm.version or "").removesuffix("+cpu")
    if version != profile.vllm:
        text = f"vLLM {vllm.version} from {vllm.path}"
        yield finding_of(
            node, "image.engine", "fail", title, text, expected=f"vLLM {profile.vllm}", remedy=rebuild(profile)
        )
    else:
        yield finding_of(node, "image.engine", "ok", title, f"vLLM {vllm.version}, commit {vllm.commit or 'not told'}")


def _plugin(profile: Profile, stages: tuple[Stage, ...], node: Node, check: EngineCheck) -> Iterator[Finding]:
    """Lane `current` is a plugin; lane `seed` edits files, which image.files judges."""
    if profile.image.lane != "current":
        return
    title, plugin = "The plugin is loaded and names the KV layout", check.plugin
    expected = f"one line that names stages {'+'.join(stage.id.upper() for stage in stages)}"
    missing = [stage.id.upper() for stage in stages if stage.id.upper() not in (plugin.stages or ())]
    if not plugin.found:
        text = "no entry point vllm.general_plugins of ours"
    elif not plugin.loaded:
        text = plugin.error or "it did not load"
    elif missing or plugin.lines != 1:
        text = plugin.line or f"{plugin.lines} lines"
    else:
        yield finding_of(node, "image.plugin", "ok", title, plugin.line or "")
        return
    yield finding_of(node, "image.plugin", "fail", title, text, expected=expected, remedy=rebuild(profile))


def _arguments(node: Node, check: EngineCheck) -> Iterator[Finding]:
    title = "The engine's own parser takes the arguments"
    if check.arguments is None:
        return
    if check.arguments.ok:
        parsed = check.arguments.parsed or {}
        yield finding_of(node, "image.arguments", "ok", title, f"KV cache dtype {parsed.get('kv_cache_dtype')}")
    else:
        remedy = Remedy(text="Correct serve.extra_args or the profile; the engine names the word.", remedy_class="M")
        yield finding_of(node, "image.arguments", "fail", title, check.arguments.error or "refused", remedy=remedy)
    if check.unknown_variables:
        text = f"the engine does not read {', '.join(check.unknown_variables)}"
        yield finding_of(node, "image.variables", "warn", "Every VLLM_ variable is one that the engine reads", text)


def _torch(profile: Profile, node: Node, check: EngineCheck) -> Iterator[Finding]:
    """Machine code for the GPU, and the compiler that the first start needs."""
    if not profile.gpu:
        return
    title, torch = "torch has machine code for GB10", check.torch
    if torch.cuda is None:
        text = torch.error or f"torch {torch.version} is a CPU build"
        yield finding_of(node, "image.arch_list", "fail", title, text, expected="a CUDA build", remedy=rebuild(profile))
    elif torch.arch_list is None:
        yield finding_of(node, "image.arch_list", "unknown", title, "torch does not say")
    else:
        status: Status = "ok" if any(arch.startswith(_MAJOR) for arch in torch.arch_list) else "fail"
        text = f"CUDA {torch.cuda}: {', '.join(torch.arch_list)}"
        yield finding_of(node, "image.arch_list", status, title, text, expected=f"{_MAJOR}x")
    title = "nvcc is there for the kernels of the first start"
    if check.nvcc is None:
        yield finding_of(
            node, "image.nvcc", "fail", title, "none found", expected="CUDA_HOME/bin/nvcc", remedy=rebuild(profile)
        )
    else:
        yield finding_of(node, "image.nvcc", "ok", title, f"{check.nvcc.path} {check.nvcc.version or ''}".strip())
