"""The router's own numbers as text for Prometheus. A number that cannot be had is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ledger import LedgerError

if TYPE_CHECKING:
    from .state import State


def exposition(state: State) -> str:
    """Answers by backend, reason and status class; money spent and allowed."""
    lines = ["# TYPE dspark_gateway_answers_total counter"]
    for (backend, reason, kind), count in sorted(state.answers.items()):
        labels = f'backend="{backend}",reason="{reason}",status="{kind}"'
        lines.append(f"dspark_gateway_answers_total{{{labels}}} {count}")
    cloud = state.policy.cloud
    if cloud is not None:
        lines.append("# TYPE dspark_gateway_cloud_budget_usd gauge")
        lines.append(f'dspark_gateway_cloud_budget_usd{{window="hour"}} {cloud.hour_micro_usd / 1e6:.6f}')
        lines.append(f'dspark_gateway_cloud_budget_usd{{window="day"}} {cloud.day_micro_usd / 1e6:.6f}')
        try:
            spent = state.ledger.spent()
        except LedgerError:
            usable = 0
        else:
            usable = 1
            lines.append("# TYPE dspark_gateway_cloud_spent_usd gauge")
            lines.append(f'dspark_gateway_cloud_spent_usd{{window="hour"}} {spent.hour_micro_usd / 1e6:.6f}')
            lines.append(f'dspark_gateway_cloud_spent_usd{{window="day"}} {spent.day_micro_usd / 1e6:.6f}')
        lines += ["# TYPE dspark_gateway_ledger_usable gauge", f"dspark_gateway_ledger_usable {usable}"]
    return "\n".join(lines) + "\n"
