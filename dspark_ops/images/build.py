"""`image build`: the profile's image through all its stages, the same bytes each time, kept as one archive."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from dspark_ops.config.models import Profile
from dspark_ops.errors import ConfigError, NoVerdictError, RefusedError
from dspark_ops.facts.rank import LABEL
from dspark_ops.images.builds import BuildRecord, BuiltImage, StageImage, drop_old_builds, read_build
from dspark_ops.images.changes import verify_release
from dspark_ops.images.docker_cli import DockerCli
from dspark_ops.images.dockerfile import stage_part, stage_target
from dspark_ops.images.emulation import can_execute
from dspark_ops.images.inputs import BuildInputs, Contents, read_inputs
from dspark_ops.images.labels import Proof, image_labels
from dspark_ops.images.normalise import NormalImage, image_of_layer, normalise_archive, normalise_layer
from dspark_ops.images.pack import pack_tree
from dspark_ops.images.sbom import Part, debian_parts, python_parts, write_sbom
from dspark_ops.images.stages import export_stage
from dspark_ops.images.wheels import install_wheels

SITE_PACKAGES = "/usr/local/lib/python3.11/dist-packages"
_MANIFEST = "opt/dspark/manifest.json"
#: An overlay is some ten megabytes of Python on a small root.
_OVERLAY_DISK_GIB = 3

Progress = Callable[[str], None]


def ensure_image(
    profile: Profile,
    engine: Callable[[], DockerCli],
    cache: Path,
    *,
    progress: Progress,
    contents: Contents = "full",
) -> BuiltImage:
    """The image of this installation's inputs; built when the cache lacks it.

    The warm path reads one small file and calls no Docker. A build takes root (mmdebstrap), pip and a Docker Engine
    with BuildKit; what an interrupted one finished is used by the next. Builds of one cache exclude each other.

    Raises:
        ConfigError: this machine cannot build it (architecture, disk, a missing program).
        RefusedError: what pip installed is not the release that the profile names.
        NoVerdictError: a step did not end well; with its last lines.
    """
    inputs = read_inputs(profile, contents)
    found = _cached(cache, inputs)
    if found is not None:
        return found
    _require_execution(inputs)
    _require_space(cache, inputs)
    cache.mkdir(parents=True, exist_ok=True)
    with _only_one_build(cache / ".lock", progress):
        found = _cached(cache, inputs)
        if found is None:
            found = _Build(inputs, engine(), cache, progress).run()
        drop_old_builds(cache, found)
    return found


def cached_image(profile: Profile, cache: Path, contents: Contents = "full") -> BuiltImage | None:
    """The finished image of this installation's inputs in the cache; None when it is not built. Never builds."""
    return _cached(cache, read_inputs(profile, contents))


def _cached(cache: Path, inputs: BuildInputs) -> BuiltImage | None:
    found = read_build(cache / inputs.key())
    return found if found is not None and found.record.key == inputs.key() else None


@dataclass
class _Build:
    """One build. Its steps leave finished files in `stage`, so that the next run begins where this one ended."""

    inputs: BuildInputs
    docker: DockerCli
    cache: Path
    progress: Progress

    @property
    def stage(self) -> Path:
        return self.cache / ".stage"

    def run(self) -> BuiltImage:
        inputs, stage = self.inputs, self.stage
        root = stage / f"root-{inputs.root_key()}.tar"
        packages = stage / f"packages-{inputs.packages_key()}.tar"
        parts = packages.with_suffix(".json")
        _clear(stage, keep={root.name, packages.name, parts.name})
        stage.mkdir(exist_ok=True)
        self.docker.require_engine()
        if self.docker.local:
            _require_space(Path(self.docker.run("info", "--format", "{{.DockerRootDir}}").strip()), inputs)
        if not (packages.exists() and parts.exists()):
            self._make_packages(packages, parts)
        if not root.exists():
            self._make_root(root)
        root_digest = _sha256_of(root)
        lock = inputs.lock_hash(root_digest)
        python = tuple(Part(**part) for part in json.loads(parts.read_text(encoding="utf-8")))
        context = self._make_context(packages, (*debian_parts(root), *python), lock)
        sbom = _sha256_of(context / "dspark/sbom.json")
        raw = self._build_stages(root, root_digest, context, lock)
        self.progress("image: archive, one date for all files")
        ready = stage / "ready"
        ready.mkdir()
        saved = stage / "saved.tar"
        self.docker.run("save", "--output", str(saved), *raw.values(), timeout_s=3600)
        images, manifest = self._normalise(saved, ready / "image.tar", raw, lock, root_digest, sbom)
        saved.unlink()
        record = self._record(images, lock, root_digest, manifest, sbom, (ready / "image.tar").stat().st_size)
        (ready / "image.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        shutil.copy(context / "dspark/sbom.json", ready / "sbom.json")
        final = self.cache / record.key
        if final.exists():
            shutil.rmtree(final)
        ready.rename(final)
        # The archive is what counts; BuildKit keeps what it needs to be quick the next time.
        self.docker.attempt("image", "rm", *raw.values(), f"dspark-build-root:{root_digest[:12]}")
        shutil.rmtree(stage, ignore_errors=True)
        return BuiltImage(record, final / "image.tar")

    def _make_packages(self, packages: Path, parts: Path) -> None:
        inputs = self.inputs
        what = "vLLM alone" if inputs.contents == "overlay" else "vLLM and what it needs"
        self.progress(f"image: Python packages (pip: {what})")
        # A name of its own: the pip of a killed run may still be at work on the last one's.
        work = Path(tempfile.mkdtemp(prefix="packages-", dir=self.stage))
        site, locks = work / SITE_PACKAGES.lstrip("/"), work / "locks"
        locks.mkdir()
        lock = locks / "requirements.lock"
        lock.write_bytes(b"\n".join(inputs.locks.values()))
        torch_lock = None
        if inputs.torch_lock is not None:
            torch_lock = locks / "requirements-torch.lock"
            torch_lock.write_bytes(inputs.torch_lock)
        only = (inputs.profile.image.release.distribution,) if inputs.contents == "overlay" else None
        install_wheels(
            lock,
            torch_lock,
            site,
            log=self.stage / "pip.log",
            architecture=inputs.profile.architecture,
            only=only,
        )
        shutil.rmtree(locks)
        self._require_release(site)
        # An overlay proves hashes and change sets; hundreds of megabytes of machine code take no part in that.
        compiled = ("**/*.so",) if inputs.contents == "overlay" else ()
        for pattern in (*inputs.profile.image.prune, *compiled):
            for path in site.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        found = [vars(part) for part in python_parts(site, list(inputs.locks.values()))]
        parts.write_text(json.dumps(found), encoding="utf-8")
        pack_tree(work, packages)
        shutil.rmtree(work)

    def _require_release(self, site: Path) -> None:
        """What pip unpacked is the very release: every `.py` as its RECORD says, and RECORD the profile's."""
        profile = self.inputs.profile
        release = profile.image.release
        check = verify_release(site, release.distribution, profile.vllm)
        wrong = [str(foreign) for foreign in check.foreign]
        if not wrong and check.python_digest != release.python_digest:
            wrong.append(
                f"the Python files of {release.distribution} have the digest {check.python_digest}, expected "
                f"{release.python_digest}: another release, or an edited one"
            )
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise RefusedError(
                f"foreign base: {'; '.join(wrong[:3])}{more} [image.foreign_base]",
                hint=f"profile {profile.name} is made for vLLM {profile.vllm}; its lock and its python_digest belong "
                "together",
            )

    def _make_root(self, root: Path) -> None:
        from dspark_ops.lab.debian_root import build_debian_root

        inputs = self.inputs
        self.progress(f"image: Debian root ({inputs.debian_architecture})")
        unproven = Path(tempfile.mkdtemp(prefix="root-", dir=self.stage)) / root.name
        build_debian_root(
            unproven,
            inputs.packages,
            log=self.stage / "root.log",
            suite=inputs.profile.image.base.suite,
            architecture=inputs.debian_architecture,
            trust_machine=False,
        )
        # With one date for its files, so that the same packages are the same root, and its digest that of the layer.
        fresh = unproven.with_name("normal.tar")
        normalise_layer(unproven, fresh)
        fresh.rename(root)

    def _make_context(self, packages: Path, parts: tuple[Part, ...], lock: str) -> Path:
        inputs, context = self.inputs, self.stage / "context"
        for name, content in inputs.files.items():
            path = context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name, content in {
            **inputs.locks,
            **({"torch.lock": inputs.torch_lock} if inputs.torch_lock else {}),
        }.items():
            path = context / "dspark/locks" / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        write_sbom(
            context / "dspark/sbom.json",
            name=inputs.profile.image.repository,
            version=f"{inputs.profile.vllm}-{lock}",
            parts=parts,
        )
        for stage in inputs.stages:
            export_stage(stage, context / "stages" / stage.id)
        base = inputs.files["build/Dockerfile"].decode() + "\n" + inputs.files["recipe/Dockerfile"].decode()
        (context / "Dockerfile").write_text(base + stage_part(inputs.stages, SITE_PACKAGES), encoding="utf-8")
        os.link(packages, context / "packages.tar")
        return context

    def _build_stages(self, root: Path, root_digest: str, context: Path, lock: str) -> dict[str, str]:
        """Every stage's image in the Engine: stage id -> the name it has there for now."""
        inputs = self.inputs
        base = f"dspark-build-root:{root_digest[:12]}"
        known = self.docker.image(base)
        if known is None or known.get("Architecture") != inputs.debian_architecture:
            archive = self.stage / "root-image.tar"
            image_of_layer(
                root,
                f"sha256:{root_digest}",
                archive,
                reference=base,
                architecture=inputs.debian_architecture,
                label=f"{LABEL}image=engine-stage",
            )
            self.docker.run("load", "--quiet", "--input", str(archive), timeout_s=1800)
            archive.unlink()
        arguments = {"ROOT": base, "CONTENTS": inputs.contents}
        raw = {}
        for stage in inputs.stages:
            self.progress(f"image: {stage.title}")
            reference = f"dspark-build:{stage.id}-{lock}-{stage.digest[:12]}"
            self.docker.build(
                context,
                target=stage_target(stage),
                reference=reference,
                arguments=arguments,
                platform=inputs.platform,
                log=self.stage / "build.log",
            )
            raw[stage.id] = reference
        return raw

    def _normalise(
        self, saved: Path, archive: Path, raw: Mapping[str, str], lock: str, root_digest: str, sbom: str
    ) -> tuple[dict[str, NormalImage], str]:
        by_raw = {reference: stage_id for stage_id, reference in raw.items()}
        stages = {stage.id: stage for stage in self.inputs.stages}
        manifests: set[str] = set()

        def labels(reference: str, captured: Mapping[str, bytes]) -> dict[str, str]:
            manifest = hashlib.sha256(captured[_MANIFEST]).hexdigest()
            manifests.add(manifest)
            stage = stages[by_raw[reference]]
            proof = Proof(lock=lock, root=root_digest, manifest=manifest, sbom=sbom)
            return image_labels(self.inputs, stage, proof, self._reference(stage.id, stage.digest, lock))

        base = [line for line in self.inputs.files["recipe/Dockerfile"].decode().splitlines() if "COPY --from" in line]
        history = (
            "Debian root",
            *base,
            *(word for s in self.inputs.stages for word in (f"stage {s.id}", f"stage {s.id} applied")),
        )
        images = normalise_archive(
            saved,
            archive,
            labels=labels,
            history=history,
            capture=frozenset({_MANIFEST}),
            rename=lambda reference: self._reference(by_raw[reference], stages[by_raw[reference]].digest, lock),
        )
        [manifest] = manifests
        by_reference = {image.reference: image for image in images}
        return {s.id: by_reference[self._reference(s.id, s.digest, lock)] for s in self.inputs.stages}, manifest

    def _reference(self, stage_id: str, stage_digest: str, lock: str) -> str:
        overlay = "overlay-" if self.inputs.contents == "overlay" else ""
        return f"{self.inputs.profile.image.repository}:{overlay}{stage_id}-{lock}-{stage_digest[:12]}"

    def _record(
        self, images: Mapping[str, NormalImage], lock: str, root: str, manifest: str, sbom: str, size_bytes: int
    ) -> BuildRecord:
        inputs = self.inputs
        last = images[inputs.stages[-1].id]
        return BuildRecord(
            key=inputs.key(),
            profile=inputs.profile.name,
            contents=inputs.contents,
            vllm=inputs.profile.vllm,
            platform=inputs.platform,
            lock=lock,
            root=root,
            reference=last.reference,
            image_id=last.image_id,
            layers=last.layers,
            layer_bytes=last.layer_bytes,
            manifest=manifest,
            sbom=sbom,
            stages=tuple(
                StageImage(
                    id=stage.id,
                    name=stage.title,
                    digest=stage.digest,
                    reference=images[stage.id].reference,
                    image_id=images[stage.id].image_id,
                    layer=images[stage.id].layers[-1],
                    layer_bytes=images[stage.id].layer_bytes[-1],
                )
                for stage in inputs.stages
            ),
            size_bytes=size_bytes,
        )


def _sha256_of(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _clear(stage: Path, *, keep: set[str]) -> None:
    """Remove what an interrupted build left half-done, or a build of other inputs left at all."""
    for path in list(stage.iterdir()) if stage.is_dir() else []:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # a killed run's pip may still write there
        elif path.name not in keep:
            path.unlink()


def _require_execution(inputs: BuildInputs) -> None:
    if not can_execute(inputs.profile.architecture):
        raise ConfigError(
            f"profile {inputs.profile.name} is an image for {inputs.profile.architecture}, which this machine "
            "cannot execute",
            hint="build it on a node (`--on head`), or register an emulator with `--install-prerequisites`",
        )


def _require_space(place: Path, inputs: BuildInputs) -> None:
    needed_gib = inputs.profile.image.disk_gib if inputs.contents == "full" else _OVERLAY_DISK_GIB
    while not place.exists() and place != place.parent:
        place = place.parent
    free_gib = shutil.disk_usage(place).free / 2**30
    if free_gib < needed_gib:
        raise ConfigError(
            f"building the image of profile {inputs.profile.name} needs {needed_gib} GiB and {place} has "
            f"{free_gib:.1f} GiB free",
            hint="free some space, or set XDG_CACHE_HOME to a larger file system",
        )


@contextmanager
def _only_one_build(lock: Path, progress: Progress) -> Iterator[None]:
    with lock.open("w", encoding="ascii") as held:
        try:
            flock(held, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            progress("image: another build is under way; waiting for it")
            try:
                flock(held, LOCK_EX)
            except OSError as refused:
                raise NoVerdictError(f"could not wait for the other build: {refused}") from refused
        yield
