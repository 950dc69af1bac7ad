"""The way back to a release that served: its own documents, its own profile's canary, its own cache."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from dspark_ops.config.load import LoadedSite, load_profile
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import Applier, Documents, StepFailedError
from dspark_ops.deploy.readiness import wait_ready
from dspark_ops.errors import NoVerdictError
from dspark_ops.releases import store
from dspark_ops.releases.compose import again
from dspark_ops.releases.effective import read_back
from dspark_ops.releases.model import Release, with_epoch
from dspark_ops.report.models import now
from dspark_ops.report.recorder import Recorder
from dspark_ops.supervise.control.document import adopt
from dspark_ops.supervise.control.outcome import Left
from dspark_ops.transport.ssh import SshRunner


def documents_of(release: Release, epoch: str) -> Documents:
    """What starts this release again, under the epoch of another start."""
    return Documents(release.id, epoch, {role: with_epoch(release.documents[role], epoch) for role in ROLES})


def site_of(loaded: LoadedSite, release: Release) -> LoadedSite:
    """The site as this release had it where the two must agree: who is asked, under which name, for which text.

    Raises:
        ConfigError: the release's profile is not part of this installation any more.
    """
    site, options = loaded.site, _options(release.documents["head"]["command"])
    kv_bytes, share = options.get("--kv-cache-memory-bytes"), options.get("--gpu-memory-utilization")
    serve = site.serve.model_copy(
        update={
            "api_host": IPv4Address(options.get("--host", str(site.serve.api_host))),
            "api_port": int(options.get("--port", site.serve.api_port)),
            "master_port": int(options.get("--master-port", site.serve.master_port)),
            "kv_cache_memory_mib": int(kv_bytes) >> 20 if kv_bytes else None,
            "gpu_memory_utilization": float(share) if share else None,
        }
    )
    image = site.image.model_copy(update={"id": release.image.id, "reference": release.image.reference})
    hub = site.model.hub
    if hub is not None:
        pinned = {"repo": release.model.repo, "revision": release.model.revision}
        hub = hub.model_copy(update=pinned) if release.model.repo else None
    model = site.model.model_copy(update={"served_name": release.model.served_name, "hub": hub})
    return replace(
        loaded,
        site=site.model_copy(update={"profile": release.profile, "serve": serve, "image": image, "model": model}),
        profile=load_profile(release.profile),
    )


def put_back(loaded: LoadedSite, recorder: Recorder, runners: Mapping[Role, SshRunner], release_id: str) -> Left:
    """Start a release that served before and see it answer; its ranks must be gone or its own. What is left: it serves.

    Raises:
        NoVerdictError: its record is not on this machine.
        StepFailedError: it did not come back.
    """
    release = store.load(loaded.site.name, release_id)
    if release is None:
        raise NoVerdictError(f"release {release_id} is not kept on this machine", hint="`dspark-ops releases`")
    documents, under = documents_of(release, uuid.uuid4().hex), site_of(loaded, release)
    applier = Applier(under, recorder, documents)
    for tag in ("settle", "worker", "head"):
        applier.step(tag)
    end = wait_ready(runners, under.site, under.profile, documents.epoch, progress=recorder.progress)
    if not end.ready:
        raise StepFailedError(end.failure or "not ready")
    try:
        store.save(
            again(
                release,
                documents.epoch,
                read_back(runners),
                status="served",
                reason="put back",
                started_at=recorder.started_at,
                ready_at=now(),
            )
        )
    except NoVerdictError as failure:
        recorder.progress(f"it serves, and that is not on record: {failure.message}")
    return Left("adopted", adopt(documents), under)


def _options(argv: Sequence[object]) -> dict[str, str]:
    """The `--name=value` words that this tool renders."""
    words = [str(word).partition("=") for word in argv]
    return {name: value for name, equals, value in words if equals and name.startswith("--")}
