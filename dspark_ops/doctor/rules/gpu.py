"""The GPU: present, the right one, the same driver on both."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, need, ok
from dspark_ops.doctor.registry import node_rule, pair_rule


@node_rule("gpu.present")
def gpu_present(view: NodeView) -> Outcome:
    """One GB10 answers, with the compute capability the kernels are built for."""
    gpu = view.node.gpu
    if gpu is None:
        if not view.profile.gpu:
            raise NotApplicableError(f"profile {view.profile.name} uses no GPU, and nvidia-smi shows none")
        return fail("nvidia-smi shows no GPU", "one NVIDIA GB10")
    wanted = view.limits["compute_capability"]
    capability = need(gpu.compute_cap, "the compute capability")
    if capability != f"{wanted:.1f}":
        return fail(f"{gpu.name} has compute capability {capability}", f"{wanted:.1f}")
    return ok(f"{gpu.name}, driver {gpu.driver}")


@pair_rule("gpu.driver_parity")
def gpu_driver_parity(view: PairView) -> Outcome:
    """Both nodes run the same driver."""
    if not view.profile.gpu and any(n.gpu is None for n in view.facts.nodes):
        raise NotApplicableError(f"profile {view.profile.name} uses no GPU")
    head, worker = (
        need(need(n.gpu, f"the GPU of the {n.role}").driver, f"the driver of the {n.role}") for n in view.facts.nodes
    )
    if head == worker:
        return ok(f"driver {head} on both")
    return fail(f"the head has driver {head}, the worker {worker}", "the same driver on both")
