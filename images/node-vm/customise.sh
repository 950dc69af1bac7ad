#!/bin/sh
# Runs in the root of a node, once, after rootfs/ was copied over it.
set -e
useradd --create-home --shell /bin/bash --groups adm,sudo,docker nvidia
install -d -m 700 -o nvidia -g nvidia /home/nvidia/.ssh
chmod 440 /etc/sudoers.d/nvidia
chmod 600 /etc/netplan/*.yaml
chmod 755 /usr/local/sbin/dspark-lab-* /usr/local/bin/dspark-lab-*
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: > /etc/machine-id
: > /etc/resolv.conf
printf '127.0.0.1\tlocalhost\n::1\tip6-localhost ip6-loopback\n' > /etc/hosts
systemctl -q enable ssh.service systemd-networkd.service docker.socket dspark-lab-identity.service dspark-lab-rxe.service
systemctl -q set-default multi-user.target
# The Engine starts when something asks for it: 25 s of an emulated boot. It loads its own AppArmor profile.
systemctl -q disable docker.service containerd.service
# What a rehearsal has no use for, and what costs seconds of an emulated boot.
systemctl -q mask apparmor.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
  fstrim.timer logrotate.timer man-db.timer systemd-networkd-wait-online.service systemd-timesyncd.service \
  systemd-pstore.service systemd-hwdb-update.service systemd-journal-flush.service systemd-binfmt.service \
  systemd-update-utmp.service systemd-update-utmp-runlevel.service modprobe@drm.service modprobe@efi_pstore.service \
  modprobe@fuse.service modprobe@dm_mod.service modprobe@loop.service modprobe@configfs.service getty@tty1.service \
  getty-static.service serial-getty@ttyS0.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
  dev-hugepages.mount dev-mqueue.mount
