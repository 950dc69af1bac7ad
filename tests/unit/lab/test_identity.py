"""What is laid over a node's root: keys with the owner and mode that sshd insists on."""

from __future__ import annotations

import io
import tarfile

from dspark_ops.lab.identity import NodeFile, key_files, tar_of


def test_keys_have_the_owner_and_mode_that_sshd_insists_on() -> None:
    files = key_files(host_private="PRIVATE\n", host_public="ssh-ed25519 AAAA", login_public="ssh-ed25519 BBBB")
    with tarfile.open(fileobj=io.BytesIO(tar_of([*files, NodeFile("etc/hostname", "spark-head\n")]))) as tar:
        found = {member.name: (member.mode, member.uid, member.gid) for member in tar}
        login = tar.extractfile("home/nvidia/.ssh/authorized_keys")
        assert login is not None
        assert login.read() == b"ssh-ed25519 BBBB\n"
    assert found == {
        "etc/ssh/ssh_host_ed25519_key": (0o600, 0, 0),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, 0, 0),
        "home/nvidia/.ssh/authorized_keys": (0o600, 1000, 1000),
        "etc/hostname": (0o644, 0, 0),
    }
