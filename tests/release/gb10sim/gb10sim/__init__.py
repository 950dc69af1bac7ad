"""A simulated GB10: a CUDA release's own configuration code runs, on a CPU, without its compiled libraries.

For tests alone. What would run a kernel raises; what only asks "could this GPU do it" is answered as a GB10 would.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_COMPILED = ("_C", "_C_stable_libtorch", "_moe_C", "_moe_C_stable_libtorch")
_QUESTIONS = (
    "cutlass_scaled_mm_supports_fp8",
    "cutlass_scaled_mm_supports_block_fp8",
    "cutlass_group_gemm_supported",
    "cutlass_scaled_mm_supports_fp4",
    "cutlass_sparse_scaled_mm_supported",
)
#: torch forgets the operators with their library; vLLM asks for the platform more than once.
_library: Any = None


class _Kernels(ModuleType):
    """A compiled package in which every name exists and none can be called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def kernel(*_args: object, **_named: object) -> None:
            raise RuntimeError(f"{self.__name__}.{name}: there is no GPU in this simulation")

        return kernel


def plugin() -> str:
    """vLLM's entry point: the platform's class by name."""
    global _library
    if _library is None:
        import torch

        for name in _COMPILED:
            sys.modules.setdefault(f"vllm.{name}", ModuleType(f"vllm.{name}"))
        package = _Kernels("vllm.vllm_flash_attn")
        package.__path__ = []
        sys.modules.setdefault("vllm.vllm_flash_attn", package)
        interface = "vllm.vllm_flash_attn.flash_attn_interface"
        sys.modules.setdefault(interface, _Kernels(interface))
        _library = torch.library.Library("_C", "FRAGMENT")
        for name in _QUESTIONS:
            _library.define(f"{name}(int capability) -> bool")
            _library.impl(name, lambda _capability: True, "CompositeExplicitAutograd")
    return "gb10sim.platform.SimulatedGB10"
