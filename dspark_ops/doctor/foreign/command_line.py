"""The command line of a vLLM server, whoever wrote it: is it one, and what was it told? Pure.

Option names and their short forms as in vLLM's `vllm serve --help` (0.21 to 0.32).
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")
_SERVER_MODULE = re.compile(r"vllm\.entrypoints\.[a-z_.]+")
_SERVER_SCRIPT = re.compile(r"(?:.*/)?vllm/entrypoints/(?:[a-z_]+/)*api_server\.py")
_SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-q": "--quantization",
}
# Options without a value: the word after one of them is none of theirs.
_SWITCHES = re.compile(
    r"--(?:no-|enable-|disable-|async-scheduling$|trust-remote-code$|headless$|enforce-eager$|jit-monitor-verbose$)"
)
# These alone take several words.
_SEVERAL = (
    "--served-model-name",
    "--api-key",
    "--allowed-origins",
    "--compilation-config",
    "--cudagraph-capture-sizes",
)
# These take a number with a suffix.
_COUNTS = ("--max-model-len", "--max-num-batched-tokens", "--kv-cache-memory-bytes")
_UNIT = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NUMBER = re.compile(r"-?\d")


@dataclass(frozen=True)
class ServerLine:
    """One server's command line. argv: from `vllm` or the module on, without the interpreter.

    model: as it was named; None where it was not. options: long name to its values; a switch has none.
    """

    argv: tuple[str, ...]
    model: str | None
    options: dict[str, tuple[str, ...]]

    def text(self, name: str) -> str | None:
        """The value of an option, the last one given; None when it was not, or has none."""
        values = self.options.get(name)
        return values[-1] if values else None

    def has(self, name: str) -> bool:
        """Whether a switch or option was given."""
        return name in self.options

    def whole(self, name: str) -> int | None:
        """A whole number, with vLLM's own suffixes: 1k is 1000, 1K is 1024."""
        found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)([kKmMgG]?)", self.text(name) or "")
        if found is None or (found[2] in ("K", "M", "G", "") and "." in found[1]):
            return None
        return int(float(found[1]) * _UNIT.get(found[2], 1))

    def number(self, name: str) -> float | None:
        """A number with a fraction."""
        found = re.fullmatch(r"\d{0,6}\.?\d{1,9}", self.text(name) or "")
        return None if found is None else float(found[0])

    def canonical(self) -> tuple[str, ...]:
        """The same line as `vllm serve` with long names, and numbers without a suffix: what a rule can compare."""
        words = ["vllm", "serve", *([self.model] if self.model is not None else [])]
        for name, values in self.options.items():
            if name == "--model":
                continue
            whole = self.whole(name) if name in _COUNTS else None
            if whole is not None:
                words.append(f"{name}={whole}")
            elif name in _SEVERAL or not values:
                words += [name, *values]
            else:
                words += [f"{name}={value}" for value in values]
        return tuple(words)

    @property
    def nodes(self) -> int:
        """On how many machines it runs, as it was told."""
        return self.whole("--nnodes") or 1

    @property
    def node_rank(self) -> int | None:
        """The rank among the machines; None where it was not given."""
        return self.whole("--node-rank")

    @property
    def headless(self) -> bool:
        """It serves no API of its own."""
        return self.has("--headless")

    @property
    def speculative(self) -> dict[str, Any]:
        """What was said of speculative decoding, as JSON or key by key; empty when nothing was."""
        found: dict[str, Any] = {}
        try:
            document = json.loads(self.text("--speculative-config") or "{}")
        except (ValueError, RecursionError):
            document = {}
        if isinstance(document, dict):
            found.update(document)
        for name, values in self.options.items():
            if name.startswith("--speculative-config.") and values:
                found[name.removeprefix("--speculative-config.").replace("-", "_")] = values[-1]
        return found


def read_argv(argv: Sequence[str]) -> ServerLine | None:
    """The server that a process is; None when it is none: a shell that holds the words, a client that sends them."""
    words = [word for word in argv if word]
    if not words:
        return None
    if _PYTHON.fullmatch(posixpath.basename(words[0])):
        words.pop(0)
        while words and words[0].startswith("-") and words[0] != "-m":
            words.pop(0)
        if len(words) > 1 and words[0] == "-m":
            # `python -m vllm serve` is the same program as `vllm serve`.
            if words[1] != "vllm":
                return _line(words[1:], 1) if _SERVER_MODULE.fullmatch(words[1]) else None
            words.pop(0)
    if words and (_SERVER_SCRIPT.fullmatch(words[0]) or _SERVER_MODULE.fullmatch(words[0])):
        return _line(words, 1)
    if len(words) > 1 and posixpath.basename(words[0]) == "vllm" and words[1] == "serve":
        return _line(words, 2)
    return None


def read_shell_text(text: str) -> ServerLine | None:
    """The server in a container's command: its own argument list, or what a shell in it is told to run at last.

    What the shell would put in place of a variable is not known here and stays as it is written.
    """
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=False)
    except ValueError:
        words = text.split()
    direct = read_argv(words)
    if direct is not None:
        return direct
    for index in range(len(words) - 1, -1, -1):
        if posixpath.basename(words[index]) == "vllm" and words[index + 1 : index + 2] == ["serve"]:
            return _line(_first_command(words[index:]), 2)
        if _SERVER_MODULE.fullmatch(words[index]) and index and words[index - 1] == "-m":
            return _line(_first_command(words[index:]), 1)
    inner = [word for word in words if " " in word and "vllm" in word and word != text]
    return read_shell_text(inner[-1]) if inner else None


def _first_command(words: Sequence[str]) -> list[str]:
    """The words up to where a shell ends the command."""
    found: list[str] = []
    for word in words:
        if word in ("|", "||", "&&", "&", ";", "2>&1") or word.startswith((">", "1>", "2>")):
            break
        found.append(word.removesuffix(";"))
        if word.endswith(";"):
            break
    return found


def _line(words: Sequence[str], begin: int) -> ServerLine:
    options: dict[str, list[str]] = {}
    free: list[str] = []
    name: str | None = None
    for word in words[begin:]:
        if word.startswith("-") and not _NUMBER.match(word):
            head, equals, value = word.partition("=")
            head = _SHORT.get(head, head if not head.startswith("--") else _dashed(head))
            options.setdefault(head, [])
            name = None if equals or _SWITCHES.match(head) else head
            if equals:
                options[head].append(value)
        elif name is not None:
            options[name].append(word)
            name = name if name in _SEVERAL else None
        else:
            free.append(word)
    shown = {option: tuple(values) for option, values in options.items()}
    model = (shown.get("--model") or (None,))[-1] or (free[0] if free else None)
    return ServerLine(tuple(words), model, shown)


def _dashed(option: str) -> str:
    """vLLM takes underscores for dashes in the name of an option, not below its first dot."""
    head, dot, rest = option.partition(".")
    return head.replace("_", "-") + dot + rest
