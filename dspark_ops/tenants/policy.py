"""Whether a tenant may be evicted: the site's policy, the consent given now, and what can be given back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dspark_ops.config.models import Site
from dspark_ops.tenants.model import Tenant


def named_in(tenant: Tenant, names: Sequence[str]) -> bool:
    """Whether a tenant is among names: `container:comfyui` on either node, `head/container:comfyui` on one."""
    return tenant.key in names or f"{tenant.node}/{tenant.key}" in names


def may_evict(site: Site, tenant: Tenant, *, consent: bool, named: Sequence[str] = ()) -> str | None:
    """None when it may be evicted, else why not, as a sentence with what to do.

    consent: somebody was shown the list and agreed. named: keys that this somebody typed; a desktop session is only
    ended when it is named, there or in the site.
    """
    where = f"{tenant.node}/{tenant.key}"
    policy = site.tenants.policy
    if policy == "refuse":
        return f"{where}: the site's tenants.policy is refuse; stop it by hand, or change the policy"
    listed = named_in(tenant, site.tenants.evict)
    if tenant.kind == "desktop" and not named_in(tenant, named) and not listed:
        return (
            f"{where}: a desktop session is only ended when it is named: `dspark-ops tenants evict {tenant.key}`, or "
            "list it in tenants.evict of the site"
        )
    if not _identified(tenant):
        return f"{where}: it was not seen well enough to be given back; stop it by hand ({tenant.stops_by})"
    doomed = [member.name for member in tenant.members if member.auto_remove]
    if doomed:
        return (
            f"{where}: {' and '.join(doomed)} was started with --rm, so stopping it would remove it for good; stop it "
            "by hand, or start it without --rm"
        )
    if consent or (policy == "evict-listed" and listed):
        return None
    return f"{where}: nobody has consented to its eviction; name it with `dspark-ops tenants evict {tenant.key}`"


def _identified(tenant: Tenant) -> bool:
    """Whether the node can tell this very tenant from another one of its name."""
    if tenant.kind in ("container", "compose"):
        return bool(tenant.members)
    if tenant.kind in ("unit", "user-unit"):
        whose = tenant.unit
        return whose is not None and (whose.user is None) == (whose.uid is None)
    if tenant.kind in ("process", "orphan"):
        return tenant.process is not None
    return True
