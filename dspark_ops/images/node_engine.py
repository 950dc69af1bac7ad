"""A node's Docker Engine for a build: the docker client's own way over SSH, with the site's SSH configuration."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dspark_ops.config.models import Role, Site
from dspark_ops.errors import ConfigError
from dspark_ops.images.docker_cli import DockerCli, find_docker_cli

#: The client runs `ssh … HOST docker system dial-stdio`. It is given our configuration file, and root's Engine there:
#: few operators are in the group docker of a Spark.
_WRAPPER = """#!/bin/sh
# Puts the site's SSH configuration first and sudo before docker on the node.
for word do
  shift
  case "$word" in
    docker) set -- "$@" sudo -n docker ;;
    *) set -- "$@" "$word" ;;
  esac
done
exec {ssh} {options} "$@"
"""


@contextmanager
def node_docker(site: Site, role: Role) -> Iterator[DockerCli]:
    """The docker client on the Engine of one node.

    Raises:
        ConfigError: there is no ssh program here.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        raise ConfigError("no ssh program is installed", hint="apt-get install openssh-client")
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={int(site.ssh.connect_timeout_s)}"]
    if site.ssh.config is not None:
        options = ["-F", str(site.ssh.config), *options]
    with tempfile.TemporaryDirectory(prefix="dspark-ssh-") as folder:
        wrapper = Path(folder) / "ssh"
        wrapper.write_text(_WRAPPER.format(ssh=shlex.quote(ssh), options=shlex.join(options)), encoding="utf-8")
        wrapper.chmod(0o700)
        cli = find_docker_cli(f"ssh://{site.nodes.of(role).host}")
        yield cli.with_path(f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
