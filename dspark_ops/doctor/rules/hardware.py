"""What can only be judged on real hardware: a rehearsal node shows its machine's, or a constant."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError
from dspark_ops.facts.gpu import GpuFacts
from dspark_ops.facts.snapshot import NodeFacts


def on_hardware(node: NodeFacts, what: str) -> None:
    """End the rule on a rehearsal node.

    Raises:
        NotApplicableError: `what` is not the node's own.
    """
    if node.system is not None and node.system.look_alikes is not None:
        raise NotApplicableError(f"{what} of a rehearsal node belongs to its machine")


def gpu_of(view: NodeView) -> GpuFacts:
    """The node's GPU.

    Raises:
        NotApplicableError: there is none; that is judged by gpu.present alone.
    """
    if view.node.gpu is None:
        raise NotApplicableError("nvidia-smi shows no GPU")
    return view.node.gpu
