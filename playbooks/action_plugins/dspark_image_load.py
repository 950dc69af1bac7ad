"""Ansible action: streams a `docker save` archive from the control host into the node's Engine when the id is absent.

The copy module would write the archive to the node first and hash it twice; here it goes once over SSH straight into
`docker load`. Nothing is kept on the node but the image. An interrupted stream ends the load, and the Engine drops what
it had unpacked; the next run starts again.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail  # type: ignore[import-untyped]
from ansible.plugins.action import ActionBase  # type: ignore[import-untyped]

_MARGIN_BYTES = 512 << 20
_GIB = float(1 << 30)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the role engine_image for the meaning of the arguments."""

    TRANSFERS_FILES = False
    _requires_connection = True
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"image_id", "reference", "archive", "only_check", "timeout_s"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        image_id, reference = str(self._task.args["image_id"]), str(self._task.args["reference"])
        only_check = str(self._task.args.get("only_check", False)).lower() in ("true", "1", "yes")
        node = str(variables["inventory_hostname"])
        present = self._id_of(image_id) == image_id
        bearer = self._id_of(reference)
        if bearer not in (None, image_id):
            raise AnsibleActionFail(
                f"{reference} is {bearer} on the {node} and {image_id} in the site; nothing was changed "
                f"[image.moved_tag]"
            )
        # A name with a digest comes with a pull; no load and no tag can give it.
        named = bearer == image_id or "@" in reference
        if present and named:
            return result | {"changed": False, "msg": "the image is there"}
        archive = None if present else self._archive()
        if archive is not None:
            self._need_space(archive, node)
        summary = {
            "what": f"image {reference}: " + ("name it" if present else "load it"),
            "before": image_id if present else None,
            "after": image_id,
        }
        if only_check:
            return result | {"changed": False, "msg": "the image can be brought there"}
        if self._task.check_mode:
            return result | {"changed": True, "dspark_summary": summary}
        began = time.monotonic()
        if archive is not None:
            self._load(archive, variables, node)
            if self._id_of(image_id) != image_id:
                raise AnsibleActionFail(
                    f"{archive} was loaded, but it does not hold the image {image_id}: "
                    f"image.id and image.archive of the site do not belong together [image.wrong_archive]"
                )
        if not named:
            self._docker("image", "tag", image_id, reference)
        elapsed = round(time.monotonic() - began, 1)
        rate = "" if archive is None else f", {archive.stat().st_size / (1 << 20) / max(elapsed, 0.1):.0f} MiB/s"
        return result | {"changed": True, "dspark_summary": summary, "msg": f"{elapsed} s{rate}"}

    def _remote(self, *argv: str) -> tuple[int, str, str]:
        answer = self._low_level_execute_command(shlex.join(argv))
        return int(answer["rc"]), str(answer["stdout"]).strip(), str(answer["stderr"]).strip()

    def _docker(self, *args: str) -> str:
        rc, out, err = self._remote("docker", *args)
        if rc != 0:
            raise AnsibleActionFail(f"docker {' '.join(args)} failed: {err or out} [image.load]")
        return out

    def _id_of(self, name: str) -> str | None:
        """The id that a name (or an id) has in the node's Engine; None when it is not there."""
        rc, out, err = self._remote("docker", "image", "inspect", "--format", "{{.Id}}", name)
        if rc == 0:
            return out
        if "no such image" in (err + out).lower():
            return None
        raise AnsibleActionFail(f"the Docker Engine does not answer: {err or out} [host.docker_down]")

    def _archive(self) -> Path:
        given = self._task.args.get("archive")
        if not given:
            raise AnsibleActionFail(
                f"the image {self._task.args['reference']} ({self._task.args['image_id']}) is not there and the site "
                f"names no archive to load it from (image.archive) [image.absent]"
            )
        archive = Path(str(given))
        if not archive.is_file():
            raise AnsibleActionFail(f"the image archive {archive} does not exist on the control host [image.absent]")
        return archive

    def _need_space(self, archive: Path, node: str) -> None:
        """The Engine unpacks the whole archive before it makes the layers: twice its size for a while."""
        root = self._docker("info", "--format", "{{.DockerRootDir}}")
        out = self._remote("df", "--output=avail", "--block-size=1", root)[1].split()
        if not out or not out[-1].isdigit():
            raise AnsibleActionFail(f"the free space of {root} cannot be read [image.disk_space]")
        free, needed = int(out[-1]), 2 * archive.stat().st_size + _MARGIN_BYTES
        if free < needed:
            raise AnsibleActionFail(
                f"disk full on the {node}: {root} has {free / _GIB:.1f} GiB free, loading {archive.name} needs "
                f"{needed / _GIB:.1f} GiB; nothing was copied [image.disk_space]"
            )

    def _load(self, archive: Path, variables: dict[str, Any], node: str) -> None:
        timeout_s = float(self._task.args.get("timeout_s", 1800))
        arguments = shlex.split(str(variables["ansible_ssh_common_args"]))
        argv = ["ssh", *arguments, "-T", str(variables["ansible_host"]), "sudo -n docker load --quiet"]
        with archive.open("rb") as source:
            try:
                done = subprocess.run(
                    argv,
                    stdin=source,
                    capture_output=True,
                    timeout=timeout_s,
                    check=False,
                    preexec_fn=_die_with_parent,
                )
            except subprocess.TimeoutExpired:
                raise AnsibleActionFail(
                    f"loading {archive.name} did not end within {timeout_s:g} s [image.load]"
                ) from None
        if done.returncode == 0:
            return
        text = (done.stderr + done.stdout).decode("utf-8", "replace").strip()
        if "no space left" in text.lower():
            raise AnsibleActionFail(
                f"disk full on the {node} while loading {archive.name}; the Engine dropped what it had unpacked: "
                f"{text.splitlines()[-1]} [image.disk_space]"
            )
        last = text.splitlines()[-1] if text else f"exit code {done.returncode}"
        raise AnsibleActionFail(f"loading {archive.name} failed: {last} [image.load]")


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == 1:
        os._exit(1)
