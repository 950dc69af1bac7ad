"""The plan as text for people: the setting, the groups, the levers, the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from dspark_ops.kv.levers import Row
from dspark_ops.kv.memory import GIB
from dspark_ops.kv.view import KvPlanView


def render_plan(view: KvPlanView) -> str:
    """The whole document. Pure."""
    blocks = [_setting(view), _groups(view), _levers(view.levers)]
    blocks.append("\n".join(f"note: {note}" for note in view.notes))
    blocks.append("\n".join(_verdicts(view)))
    return "\n\n".join(block for block in blocks if block)


def _setting(view: KvPlanView) -> str:
    setting, pool, capacity = view.setting, view.pool, view.capacity
    rows = [("model", setting.model)]
    if setting.record is not None:
        carried = "; not carried by this build" if setting.record.carried == "planned" else ""
        rows.append(("record", f"{setting.record.name}: {setting.record.label}{carried}"))
        batches = "x 2, scheduling is asynchronous" if setting.asynchronous else "x 1, scheduling is synchronous"
        rows.append(("in flight", f"{setting.in_flight_tokens:,} tokens = {setting.max_num_batched_tokens} {batches}"))
    rows.append(
        ("pool", f"{pool.pool_bytes:,} bytes = {pool.pool_bytes / GIB:.2f} GiB ({pool.sureness}: {pool.source})")
    )
    rows.append(("block", f"{capacity.block_bytes:,} bytes; the pool has {capacity.blocks:,}"))
    rows.append(("a request", f"up to {capacity.request_blocks:,} blocks at {capacity.max_model_len:,} tokens"))
    between = "" if view.low_tokens == view.high_tokens else f" ({view.low_tokens:,} to {view.high_tokens:,})"
    about = "about " if pool.sureness == "estimate" else ""
    rows.append(("tokens", f"{about}{capacity.tokens:,}{between} = {capacity.concurrency:.2f} such requests"))
    rows.append(("at 1M", f"{view.concurrency_1m:.2f} requests of 1,048,576 tokens"))
    if not capacity.fits:
        longest = capacity.longest_model_len
        most = "none fits" if longest is None else f"the longest that would is {longest:,}"
        rows.append(("REFUSED", f"vLLM would not start: one request and one spare block do not fit; {most}"))
    title = (
        f"KV cache of one node, site {view.site}, profile {view.profile}, by the rules of vLLM {view.planner_release}"
    )
    return "\n".join([title, *(f"  {name:<10} {text}" for name, text in rows)])


def _groups(view: KvPlanView) -> str:
    rows = [("group", "caches", "bytes of a block", "blocks of a request", "holds")]
    for number, group in enumerate(view.capacity.groups, start=1):
        widest = "  <- widest" if group.page_bytes == view.capacity.block_bytes else ""
        rows.append(
            (
                str(number),
                str(group.caches),
                f"{group.page_bytes:,}",
                f"{group.request_blocks:,}",
                f"{group.holds}{widest}",
            )
        )
    return _table(rows, left=(4,))


def _levers(levers: Sequence[Row]) -> str:
    return "\n\n".join(block for block in (_records(levers), _others(levers)) if block)


def _records(levers: Sequence[Row]) -> str:
    """Records down, F across; below it what each record is."""
    rows = [row for row in levers if row.lever == "record and in flight"]
    if not rows:
        return ""
    across = list(dict.fromkeys(row.in_flight_tokens for row in rows))
    names = list(dict.fromkeys((row.record or "", row.what) for row in rows))
    cells = {(row.record, row.in_flight_tokens): _cell(row) for row in rows}
    table = [("record", "block", *(f"F = {tokens:,}" for tokens in across))]
    for name, _ in names:
        block = next(row.block_bytes for row in rows if row.record == name)
        table.append((name, f"{block:,}", *(cells[(name, tokens)] for tokens in across)))
    title = f"by record and F (tokens in flight), at {rows[0].max_model_len:,}: tokens, requests of 1M, gain"
    return "\n".join([title, _table(table), *(f"  {name}: {what}" for name, what in names)])


def _cell(row: Row) -> str:
    gain = "-" if row.gain is None else f"x{row.gain:.2f}"
    short = "" if row.fits else " (too few)"
    return f"{row.tokens:,}  {row.concurrency_1m:.2f}  {gain}{short}"


def _others(levers: Sequence[Row]) -> str:
    table = [("lever", "value", "F", "tokens", "requests", "of 1M", "gain")]
    table += [
        (
            row.lever,
            row.what,
            f"{row.in_flight_tokens:,}",
            f"{row.tokens:,}" + ("" if row.fits else " (too few)"),
            f"{row.concurrency:.2f}",
            f"{row.concurrency_1m:.2f}",
            "-" if row.gain is None else f"x{row.gain:.2f}",
        )
        for row in levers
        if row.lever != "record and in flight"
    ]
    return _table(table, left=(0, 1))


def _verdicts(view: KvPlanView) -> list[str]:
    lines: list[str] = []
    if view.release is not None:
        same = "the same" if view.release.plan.tokens == view.capacity.tokens else f"{view.release.plan.tokens:,}"
        word = "ok" if view.release.agrees else "MISMATCH"
        lines.append(f"{word}: vLLM {view.release.vllm}'s own planner in {view.release.image} says {same} tokens")
    if view.release_trouble is not None:
        lines.append(f"the release's own planner was not asked: {view.release_trouble}")
    if view.boot is not None:
        boot = view.boot
        if boot.agrees:
            lines.append(f"ok: the boot has {boot.boot.tokens:,} tokens, within one block of the plan")
        else:
            length = boot.boot.max_model_len
            at = "" if length is None else f" at {length:,} tokens per request"
            lines.append(
                f"MISMATCH: the boot has {boot.boot.tokens:,} tokens{at}; "
                f"the plan {boot.planned_tokens:,} ({boot.low_tokens:,} to {boot.high_tokens:,})"
            )
            lines += [f"  would be explained by: {text}" for text in boot.explained_by]
            if not boot.explained_by:
                lines.append("  no lever that this plan knows explains it")
    return lines


def _table(rows: Sequence[tuple[str, ...]], *, left: tuple[int, ...] = (0,)) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
