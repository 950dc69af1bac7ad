"""Appliance operator for DeepSeek V4 Flash with DSpark on two NVIDIA DGX Sparks."""

from __future__ import annotations

__version__ = "0.1.0"
