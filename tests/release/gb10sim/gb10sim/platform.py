"""The platform class: vLLM's own CUDA platform, with the facts of a GB10 in place of a driver's answers."""

# ruff: noqa: ARG003 - the signatures are vLLM's

from __future__ import annotations

from vllm.platforms.cuda import NonNvmlCudaPlatform
from vllm.platforms.interface import DeviceCapability, PlatformEnum


class SimulatedGB10(NonNvmlCudaPlatform):
    """One GPU of compute capability 12.1 in 121 GiB of unified memory."""

    _enum = PlatformEnum.CUDA

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
        return DeviceCapability(12, 1)

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return "NVIDIA GB10"

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return 121 << 30

    @classmethod
    def device_count(cls) -> int:
        return 1

    @classmethod
    def is_fully_connected(cls, physical_device_ids: list[int]) -> bool:
        return False

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        return 48

    @classmethod
    def import_kernels(cls) -> None:
        """There are none."""
