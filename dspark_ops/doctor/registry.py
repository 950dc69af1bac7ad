"""Rules by the id of their check."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from dspark_ops.doctor.outcome import NodeView, Outcome, PairView

NodeRule = Callable[[NodeView], Outcome]
PairRule = Callable[[PairView], Outcome]

NODE_RULES: dict[str, NodeRule] = {}
PAIR_RULES: dict[str, PairRule] = {}

_MODULES = (
    *("software", "condition", "gpu_condition", "others", "memory", "security", "operations", "control"),
    *("host", "gpu", "links", "persistence", "addresses", "cabling", "rdma", "gids", "nccl"),
    *("image", "tenant", "ranks", "api"),
    *("boot", "log"),
    *("weights", "arguments", "joining", "environment", "drift", "pool", "metrics", "speculation", "replies"),
    *("nic", "nic_links", "paths", "shares", "nccl_settings", "nccl_rank"),
)


def node_rule(check: str) -> Callable[[NodeRule], NodeRule]:
    """Register a rule that judges one node at a time."""

    def register(rule: NodeRule) -> NodeRule:
        _claim(check)
        NODE_RULES[check] = rule
        return rule

    return register


def pair_rule(check: str) -> Callable[[PairRule], PairRule]:
    """Register a rule that judges the pair once."""

    def register(rule: PairRule) -> PairRule:
        _claim(check)
        PAIR_RULES[check] = rule
        return rule

    return register


def _claim(check: str) -> None:
    if check in NODE_RULES or check in PAIR_RULES:
        raise ValueError(f"two rules for {check}")


def load_rules() -> None:
    """Import every module of rules, so that the two registries are complete."""
    for name in _MODULES:
        import_module(f"dspark_ops.doctor.rules.{name}")
