"""dspark-vllm: which KV record DeepSeek V4 stores, checked against this very release and logged once per process.

vLLM calls `register` in the front end, the engine core and every worker. Whatever is wrong is raised from there: vLLM
logs and forgets an exception of the import, but not one of the call. Nothing heavy is imported here.
"""

from __future__ import annotations

from .boot import register

__all__ = ["register"]
