"""What a holder is, in words: by its command, its image and its unit's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_KNOWN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"llama-server|llama[._-]cpp", "llama.cpp server"),
        (r"(^|[/\s])ollama\b", "Ollama"),
        (r"comfyui", "ComfyUI"),
        (r"VLLM::|\bvllm[\s./:-]|[/\s]vllm$", "vLLM"),
        (r"\bsglang\b", "SGLang"),
        (r"trtllm|tensorrt[_-]llm", "TensorRT-LLM"),
        (r"tritonserver", "Triton Inference Server"),
        (r"text-generation-(launcher|inference|server)", "Text Generation Inference"),
        (r"lm[-_ ]?studio|\bllmster\b|\blms\b", "LM Studio"),
        (r"nvcr\.io/nim/", "NVIDIA NIM"),
        (r"open-?webui", "Open WebUI"),
        (r"local-?ai\b", "LocalAI"),
        (r"jupyter|ipykernel", "Jupyter"),
        (r"\braylet\b|(^|\s)ray::", "Ray"),
        (r"\btorchrun\b|torch\.distributed|\baccelerate\b", "a PyTorch job"),
        (r"\bk3s\b|openshell", "k3s"),
    )
)
_MODEL = frozenset({"-m", "--model", "--model-path", "--model_path", "--served-model-name"})
_SECRET_OPTION = re.compile(r"^-+[\w-]*(token|secret|passw|api[-_]?key|credential|auth)[\w-]*$", re.IGNORECASE)
HIDDEN = "<hidden>"


def recognise(hints: Iterable[str]) -> str | None:
    """The name people know it by: the first that any of the hints shows, in the order of the table; else None."""
    texts = [hint for hint in hints if hint]
    return next((words for pattern, words in _KNOWN if any(pattern.search(text) for text in texts)), None)


def model_of(argv: Sequence[str]) -> str | None:
    """The last part of the model that a command names; a Python module after `-m` is none."""
    words = list(argv[1:])
    if re.match(r"^(.*/)?python[\d.]*$", argv[0] if argv else "") and words[:1] == ["-m"]:
        words = words[2:]
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in _MODEL:
            found = value if equals else (words[index + 1] if index + 1 < len(words) else "")
            return found.rstrip("/").rsplit("/", 1)[-1] or None
        if word == "serve" and index + 1 < len(words) and not words[index + 1].startswith("-"):
            return words[index + 1].rstrip("/").rsplit("/", 1)[-1]
    return None


def without_secrets(argv: Sequence[str]) -> tuple[str, ...]:
    """The command as it may be shown: the values of options that look like secrets are hidden."""
    shown: list[str] = []
    for word in argv:
        option, equals, _ = word.partition("=")
        if shown and not word.startswith("-") and _SECRET_OPTION.match(shown[-1]):
            shown.append(HIDDEN)
        elif equals and _SECRET_OPTION.match(option):
            shown.append(f"{option}={HIDDEN}")
        else:
            shown.append(word)
    return tuple(shown)
