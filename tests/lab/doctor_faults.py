"""What goes wrong with a pair in the field, done to the rehearsal pair, with what the doctor must say of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from dspark_ops.config.load import load_site
from tests.lab import real_tenants
from tests.lab.doctor_bench import (
    Bench,
    Fault,
    aside,
    cover,
    deploy_again,
    edit,
    engine_says,
    kernel_says,
    put,
    remade,
)
from tests.lab.fabric_faults import A0, A1, B0, B1, ONE_CABLE, PROFILES
from tests.lab.operator_cli import RANK

SYSFS = "/sys/class/net"
HCA = "/sys/class/infiniband"
LINGER = "/var/lib/systemd/linger/nvidia"
#: A small disk of its own for weights, and what makes a folder look like a model.
DISK = "/var/lib/doctor-fault"
MODEL = (
    f'cd {DISK}; echo \'{{"model_type": "deepseek_v4", "max_position_embeddings": 1048576}}\' > config.json;'
    " for i in tokenizer tokenizer_config; do echo '{}' > $i.json; done;"
    " head -c 2M /dev/zero > model.safetensors; cd /"
)
DROP_IN = "/etc/systemd/logind.conf.d/60-dspark.conf"
_STRANGER = "network:\\n  version: 2\\n  ethernets:\\n    {port}:\\n      addresses: [192.168.177.12/24]\\n"


def _listening(port: int, *more: str) -> tuple[str, str]:
    """Scripts that start a server on every interface, and stop it. more: words that its argument list shows."""
    unit = f"doctor-fault-{port}"
    serve = "import http.server as h, sys; h.HTTPServer((sys.argv[1], int(sys.argv[2])), h.SimpleHTTPRequestHandler)"
    words = " ".join(more)
    start = f'systemd-run --quiet --collect --unit={unit} --working-directory=/var/empty-fault -- python3 -c "{serve}'
    ready = f"for i in $(seq 50); do ss -Hltn sport = :{port} | grep -q . && exit 0; sleep 0.1; done; exit 1"
    return (
        f'mkdir -p /var/empty-fault; {start}.serve_forever()" 0.0.0.0 {port} {words}; {ready}',
        f"systemctl stop {unit}; rmdir /var/empty-fault 2> /dev/null || true",
    )


@contextmanager
def _unit_that_failed(bench: Bench) -> Iterator[None]:
    """A unit of a name that the pair rests on, whose start failed."""
    unit = "/run/systemd/system/chrony.service"
    text = "[Service]\\nType=oneshot\\nExecStart=/bin/false\\n"
    try:
        bench.root("head", f"printf '{text}' > {unit}; systemctl daemon-reload; ! systemctl start chrony.service")
        yield
    finally:
        bench.root("head", f"rm -f {unit}; systemctl reset-failed chrony.service; systemctl daemon-reload")


@contextmanager
def _owed_tenant(bench: Bench) -> Iterator[None]:
    """A tenant that was evicted by consent and never given back."""
    with real_tenants.container(bench.nodes, "head", name="owed", port=18190, gpu=True):
        gone = bench.operator.run("tenants evict", "container:owed", "--yes")
        try:
            assert gone.rc == 0, gone
            yield
        finally:
            back = bench.operator.run("tenants restore", "--yes")
            assert back.rc == 0, back


@contextmanager
def _moved_name(bench: Bench) -> Iterator[None]:
    """The name that the site gives its image, on an empty one."""
    site = load_site(bench.operator.site).site
    name, own = site.image.reference, site.image.id
    had_it = own in bench.root("head", f"docker image ls -q --no-trunc {name}")
    try:
        bench.root("head", f"tar -c --files-from /dev/null | docker import - {name} > /dev/null")
        yield
    finally:
        other = f"other=$(docker image ls -q --no-trunc {name})"
        back = f"docker tag {own} {name}; docker rmi $other" if had_it else f"docker rmi {name}"
        bench.root("head", f'{other}; if [ "$other" != {own} ]; then {back} > /dev/null; fi')


def _ollama(bench: Bench) -> AbstractContextManager[object]:
    return real_tenants.process(bench.nodes, "worker", argv0="ollama", port=18191)


def _server_unit(bench: Bench) -> AbstractContextManager[object]:
    return real_tenants.system_unit(bench.nodes, "head", name="comfyui.service", port=18192)


def _container_on_the_gpu(bench: Bench) -> AbstractContextManager[object]:
    return real_tenants.container(bench.nodes, "head", gpu=True)


def _orphan(bench: Bench) -> AbstractContextManager[object]:
    return real_tenants.orphan(bench.nodes, "worker", gpu=True)


HOST = (
    Fault(
        "sshd is stopped",
        "worker",
        (("reach.ssh", "worker"),),
        "systemctl stop ssh.socket ssh.service; ! ss -Htln sport = :22 | grep -q .",
        "systemctl start ssh.socket ssh.service",
        follow=("*",),
        past=True,
        core=True,
    ),
    Fault(
        "another host key answers",
        "head",
        (("reach.ssh", "head"),),
        "cp -a /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub /root/;"
        " rm /etc/ssh/ssh_host_ed25519_key; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key;"
        " systemctl restart ssh.service",
        "mv /root/ssh_host_ed25519_key /root/ssh_host_ed25519_key.pub /etc/ssh/; systemctl restart ssh.service",
        follow=("*",),
        past=True,
    ),
    Fault(
        "sudo asks for a password",
        "worker",
        (("host.sudo", "worker"),),
        *aside("/etc/sudoers.d/nvidia"),
        follow=("*",),
        past=True,
        core=True,
    ),
    Fault(
        "the Docker Engine is stopped",
        "worker",
        (("host.docker_engine", "worker"),),
        "systemctl stop docker.socket docker.service",
        "systemctl start docker.service",
        follow=("*",),
        core=True,
    ),
    Fault(
        "the Docker Engine hangs",
        "head",
        (("host.docker_engine", "head"),),
        'kill -STOP "$(systemctl show -p MainPID --value docker.service)"',
        'kill -CONT "$(systemctl show -p MainPID --value docker.service)"',
        follow=("*",),
    ),
    Fault(
        "nothing keeps shared memory at logout",
        "head",
        (("host.removeipc_linger", "head"),),
        f"{aside(DROP_IN)[0]}; {aside(LINGER)[0]}",
        f"{aside(DROP_IN)[1]}; {aside(LINGER)[1]}",
        core=True,
    ),
    Fault(
        "an update waits for a reboot",
        "worker",
        (("host.reboot_required", "worker"),),
        "touch /run/reboot-required",
        "rm -f /run/reboot-required",
        core=True,
    ),
    Fault(
        "the clock is 90 s ahead",
        "worker",
        (("host.clock", "worker"),),
        *put(
            "/usr/lib/python3/dist-packages/doctor-fault.pth",
            "import time; time.time = lambda now=time.time: now() + 90\\n",
            "0644",
        ),
        imitated=True,
    ),
    Fault(
        "one node has an older DGX OS",
        "worker",
        (("host.dgx_release_parity", "pair"),),
        *edit("/etc/dgx-release", 's/DGX_OTA_VERSION="7.5.0"/DGX_OTA_VERSION="7.4.0"/'),
        imitated=True,
    ),
    Fault(
        "the disk of the weights is full",
        "worker",
        (("host.disk_free", "worker"),),
        f"mkdir {DISK}; mount -t tmpfs -o size=16m doctor-fault {DISK}; {MODEL}; head -c 12M /dev/zero > {DISK}/full",
        f"umount {DISK}; rmdir {DISK}",
        site=(f"model.mount={DISK}", "guards.disk_floor_gib=1"),
    ),
    Fault(
        "another engine's memory is not there",
        "head",
        (("host.memory_floor", "head"), ("host.memory_unaccounted", "head")),
        "echo 1000000 > /run/dspark-lab/claims/1; sleep 1.5",
        "rm -f /run/dspark-lab/claims/1; sleep 1.5",
        follow=("host.memory_*", "memory.*"),
        site=("guards.memory_floor_gib=1",),
        imitated=True,
    ),
    Fault(
        "the kernel miscounts contiguous memory",
        "worker",
        (("host.cma_sane", "worker"),),
        "sed 's/^CmaTotal: .*/CmaTotal:             0 kB/' /proc/meminfo > /run/doctor-meminfo;"
        " mount --bind /run/doctor-meminfo /proc/meminfo",
        "umount /proc/meminfo; rm -f /run/doctor-meminfo",
        imitated=True,
    ),
    Fault(
        "one node has another GPU driver",
        "head",
        (("gpu.driver_parity", "pair"),),
        """echo '{"driver_version": "580.95.05"}' > /run/dspark-lab/gpu.json""",
        "rm -f /run/dspark-lab/gpu.json",
        follow=("gpu.*",),
        imitated=True,
    ),
    Fault(
        "the GPU is too hot",
        "worker",
        (("gpu.temperature", "worker"),),
        """echo '{"temperature.gpu": "96"}' > /run/dspark-lab/gpu.json""",
        "rm -f /run/dspark-lab/gpu.json",
        imitated=True,
    ),
    Fault(
        "heat holds the GPU's clocks back",
        "head",
        (("gpu.throttle", "head"),),
        """echo '{"clocks_event_reasons.active": "0x0000000000000040"}' > /run/dspark-lab/gpu.json""",
        "rm -f /run/dspark-lab/gpu.json",
        imitated=True,
    ),
    Fault(
        "the driver is unloaded when nothing runs",
        "worker",
        (("gpu.persistence", "worker"),),
        """echo '{"persistence_mode": "Disabled"}' > /run/dspark-lab/gpu.json""",
        "rm -f /run/dspark-lab/gpu.json",
        imitated=True,
    ),
    Fault(
        "the GPU fell off the bus",
        "head",
        (("gpu.xid", "head"),),
        *kernel_says("NVRM: Xid (PCI:000f:01:00): 79, pid=1234, name=python3, GPU has fallen off the bus."),
        follow=("gpu.*",),
        imitated=True,
    ),
    Fault(
        "the disk of the weights has no room for another file",
        "head",
        (("host.free_files", "head"),),
        f"mkdir {DISK}; mount -t tmpfs -o size=2000g,nr_inodes=20 doctor-fault {DISK};"
        f" {MODEL}; for i in $(seq 15); do touch {DISK}/full$i; done",
        f"umount {DISK}; rmdir {DISK}",
        site=(f"model.mount={DISK}",),
    ),
    Fault(
        "a service of the host has failed",
        "head",
        (("host.units_failed", "head"),),
        made=_unit_that_failed,
    ),
    Fault(
        "a package is half installed",
        "worker",
        (("host.packages_whole", "worker"),),
        *edit(
            "/var/lib/dpkg/status",
            "/^Package: docker.io$/,/^$/ s/^Status: install ok installed/Status: install ok half-configured/",
        ),
        follow=("host.*",),
    ),
    Fault(
        "the Engine does not come back with the machine",
        "worker",
        (("operations.docker_at_boot", "worker"),),
        "systemctl -q disable docker.service docker.socket",
        "systemctl -q enable docker.service docker.socket",
    ),
    Fault(
        "a leftover setting halves the GPU's memory",
        "head",
        (("memory.drm_override", "head"),),
        *put("/etc/modprobe.d/zz-nvidia-drm-override.conf", "options nvidia-drm modeset=0\\n", "0644"),
    ),
)

SECURITY = (
    Fault(
        "the Engine's socket is everybody's",
        "worker",
        (("security.docker_socket", "worker"),),
        "chmod 666 /run/docker.sock",
        "chmod 660 /run/docker.sock",
        core=True,
    ),
    Fault("the Engine's port is open", "head", (("security.docker_tcp", "head"),), *_listening(2375)),
    Fault("Ray is open to the network", "worker", (("security.ray_ports", "worker"),), *_listening(8265)),
    Fault(
        "another model server is open to the network", "head", (("security.open_servers", "head"),), *_listening(11434)
    ),
    Fault(
        "sshd takes passwords",
        "head",
        (("security.ssh_passwords", "head"),),
        *put("/etc/ssh/sshd_config.d/05-fault.conf", "PasswordAuthentication yes\\n", "0644"),
    ),
    Fault(
        "a token that everybody can read",
        "worker",
        (("security.token_files", "worker"),),
        "test ! -e /home/nvidia/.huggingface; stat -c %a /home/nvidia > /run/doctor-home; chmod 755 /home/nvidia;"
        " install -d -o nvidia -m 755 /home/nvidia/.huggingface; printf x > /home/nvidia/.huggingface/token;"
        " chmod 644 /home/nvidia/.huggingface/token",
        "rm -rf /home/nvidia/.huggingface; chmod $(cat /run/doctor-home) /home/nvidia; rm /run/doctor-home",
    ),
    Fault(
        "anybody may write the journals",
        "head",
        (("security.folders", "head"),),
        "chmod 777 /var/lib/dspark",
        "chmod 755 /var/lib/dspark",
    ),
    Fault(
        "a key in an argument list",
        "worker",
        (("security.key_in_arguments", "worker"),),
        *_listening(18193, "--api-key", "not-a-real-key"),
    ),
)

FABRIC = (
    Fault(
        "MTU 1500 on one end",
        "worker",
        (("fabric.mtu", "worker"),),
        f"ip link set {A0} mtu 1500",
        f"ip link set {A0} mtu 9000",
        follow=("fabric.active_mtu",),
        core=True,
    ),
    Fault(
        "MTU 1500 on one end, seen by full packets",
        "head",
        (("fabric.mtu", "head"),),
        f"ip link set {B1} mtu 1500",
        f"ip link set {B1} mtu 9000",
        follow=("fabric.active_mtu", "fabric.jumbo_ping"),
        active=True,
    ),
    Fault(
        "a port is down",
        "head",
        (("fabric.ports_up", "head"), ("fabric.ports_up", "worker")),
        f"ip link set {B1} down",
        f"ip link set {B1} up; networkctl reconfigure {B1}; sleep 1",
        follow=("fabric.*", "nic.*", "nccl.*"),
    ),
    Fault(
        "address missing on one twin",
        "head",
        (("fabric.address_planned", "head"),),
        f"ip addr del 10.77.1.1/24 dev {B0}",
        f"ip addr add 10.77.1.1/24 brd + dev {B0}",
        follow=("fabric.*",),
    ),
    Fault(
        "a second address on a rail",
        "worker",
        (("fabric.address_planned", "worker"),),
        f"ip addr add 192.168.55.7/24 dev {A1}",
        f"ip addr del 192.168.55.7/24 dev {A1}",
        follow=("fabric.*",),
        core=True,
    ),
    Fault(
        "a foreign netplan file",
        "worker",
        (("fabric.persistence_owner", "worker"),),
        *put("/etc/netplan/98-spark-vllm-docker.yaml", _STRANGER.format(port=A0)),
        follow=("fabric.*",),
        core=True,
    ),
    Fault(
        "a NetworkManager profile takes a rail",
        "head",
        (("fabric.persistence_owner", "head"),),
        *put(
            f"{PROFILES}/fast-rail.nmconnection",
            f"[connection]\\nid=fast-rail\\ntype=ethernet\\ninterface-name={A0}\\n\\n"
            "[ipv4]\\nmethod=manual\\naddress1=192.168.100.11/24\\n",
        ),
        follow=("fabric.*",),
    ),
    Fault(
        "nothing gives a rail its address at boot",
        "worker",
        (("fabric.mtu_persisted", "worker"),),
        *aside("/etc/netplan/60-dspark-fabric.yaml"),
        follow=("fabric.*",),
    ),
    Fault(
        "a default route through a rail",
        "head",
        (("fabric.default_route_leak", "head"),),
        f"ip route add default via 10.77.0.2 dev {A0} metric 500",
        f"ip route del default via 10.77.0.2 dev {A0} metric 500",
        core=True,
    ),
    Fault(
        "a rail is in a bridge",
        "worker",
        (("fabric.no_bond", "worker"),),
        f"ip link add br-fault type bridge; ip link set {A1} master br-fault",
        f"ip link set {A1} nomaster; ip link del br-fault",
        follow=("fabric.*",),
    ),
    Fault(
        "strict rp_filter on a rail",
        "head",
        (("fabric.arp_settings", "head"),),
        f"sysctl -qw net.ipv4.conf.{A0}.rp_filter=1",
        f"sysctl -qw net.ipv4.conf.{A0}.rp_filter=2",
        core=True,
    ),
    Fault(
        "a rail answers ARP for the others",
        "worker",
        (("fabric.arp_settings", "worker"),),
        f"sysctl -qw net.ipv4.conf.{B0}.arp_ignore=0",
        f"sysctl -qw net.ipv4.conf.{B0}.arp_ignore=1",
    ),
    Fault(
        "the management port has the jumbo MTU that a rail lacks",
        "head",
        (("fabric.mtu", "head"),),
        f"ip link set {B1} mtu 1500; ip link set enP7s7 mtu 9000",
        f"ip link set enP7s7 mtu 1500; ip link set {B1} mtu 9000",
        follow=("fabric.active_mtu", "fabric.mgmt_mtu"),
    ),
    Fault(
        "a cable that trained at 100 Gb/s",
        "head",
        (("fabric.link_speed", "head"),),
        *cover(f"{SYSFS}/{A0}/speed", "100000"),
        imitated=True,
    ),
    Fault(
        "an RDMA device is down under a port that is up",
        "worker",
        (("fabric.hca_active", "worker"),),
        *cover(f"{HCA}/rocep1s0f0/ports/1/state", "1: DOWN"),
        follow=("fabric.*", "nic.*"),
        imitated=True,
    ),
    Fault(
        "PCIe half B trained at x2",
        "head",
        (("fabric.pcie_width", "head"),),
        *cover(f"{HCA}/roceP2p1s0f0/device/current_link_width", "2"),
        imitated=True,
    ),
    Fault(
        "one NIC has another firmware",
        "worker",
        (("fabric.firmware_parity", "pair"),),
        *cover(f"{HCA}/rocep1s0f0/fw_ver", "28.46.1006"),
        imitated=True,
    ),
    Fault(
        "an empty NCCL_IB_GID_INDEX in a file of the host",
        "head",
        (("nccl.conf_files", "pair"),),
        *put("/etc/nccl.conf", "NCCL_IB_GID_INDEX=\\n", "0644"),
        core=True,
    ),
    Fault(
        "a netplan file that everybody can read",
        "head",
        (("fabric.persistence_owner", "head"),),
        "chmod 644 /etc/netplan/60-dspark-fabric.yaml",
        "chmod 600 /etc/netplan/60-dspark-fabric.yaml",
    ),
    Fault(
        "a rail's far end is reached by another rail",
        "head",
        (("fabric.rail_path", "head"),),
        f"ip route add 10.77.0.2/32 dev {B0}",
        f"ip route del 10.77.0.2/32 dev {B0}",
        follow=("fabric.*",),
    ),
    Fault(
        "a rail learned the wrong port of the peer",
        "worker",
        (("fabric.peer_mac", "worker"),),
        f"ip neigh replace 10.77.0.1 lladdr 02:00:00:00:00:99 dev {A0} nud permanent",
        f"ip neigh del 10.77.0.1 dev {A0}",
    ),
    Fault(
        "the packet filter drops what comes over a rail",
        "worker",
        (("fabric.firewall", "worker"),),
        f"iptables -I INPUT -i {A0} -p tcp -j DROP",
        f"iptables -D INPUT -i {A0} -p tcp -j DROP",
    ),
    Fault(
        "something sits on a rail",
        "head",
        (("fabric.stacked_devices", "head"),),
        f"ip link add fault0 link {A1} type macvlan mode bridge",
        "ip link del fault0",
    ),
    Fault(
        "an RDMA device runs at 100 Gb/s",
        "worker",
        (("nic.rdma_rate", "worker"),),
        *cover(f"{HCA}/rocep1s0f1/ports/1/rate", "100 Gb/sec (2X HDR)"),
        imitated=True,
    ),
    Fault(
        "a port is in InfiniBand mode",
        "head",
        (("nic.link_layer", "head"),),
        *cover(f"{HCA}/roceP2p1s0f1/ports/1/link_layer", "InfiniBand"),
        follow=("fabric.*", "nic.*"),
        imitated=True,
    ),
    Fault(
        "a pinned GID index that no table has",
        "head",
        (("fabric.gid_index_valid", "pair"),),
        site=("fabric.gid_index=7",),
    ),
    Fault(
        "a cabled cage that the site uses by half",
        "head",
        (("fabric.rails_complete", "head"), ("fabric.rails_complete", "worker")),
        f"ip addr del 10.77.3.1/24 dev {B1}",
        f"ip addr add 10.77.3.1/24 brd + dev {B1}",
        site=(ONE_CABLE,),
    ),
)

TENANTS = (
    Fault(
        "a container computes on the GPU",
        "head",
        (("tenant.gpu_process", "head"),),
        made=_container_on_the_gpu,
        follow=("tenant.*", "host.memory_*", "memory.*"),
    ),
    Fault(
        "an engine was left behind",
        "worker",
        (("tenant.orphan_engine", "worker"),),
        made=_orphan,
        follow=("tenant.*", "host.memory_*", "memory.*"),
    ),
    Fault("another model server runs", "worker", (("tenant.other_server", "worker"),), made=_ollama),
    Fault(
        "another model server starts with the machine",
        "head",
        (("tenant.server_unit", "head"),),
        made=_server_unit,
        follow=("tenant.*",),
    ),
    Fault("a tenant is owed its place", "head", (("tenant.owed", "head"),), made=_owed_tenant),
    Fault(
        "somebody holds the API's port",
        "head",
        (("tenant.port", "head"),),
        "systemd-run --quiet --collect --unit=doctor-fault python3 -m http.server -b 127.0.0.1 8000; sleep 1",
        "systemctl stop doctor-fault",
    ),
    Fault(
        "a stranger's container has the rank's name",
        "worker",
        (("tenant.foreign_name", "worker"),),
        f"docker create --name {RANK} --entrypoint true $(docker images -q | head -1) > /dev/null",
        f"docker rm -f {RANK} > /dev/null",
        follow=("service.*", "nccl.*", "image.*"),
    ),
    Fault(
        "the image's name was moved",
        "head",
        (("image.reference", "head"),),
        made=_moved_name,
        follow=("image.*",),
    ),
)

QUIET = (*HOST, *SECURITY, *FABRIC, *TENANTS)


def _killed_worker(bench: Bench) -> AbstractContextManager[object]:
    return _then_deployed(bench, "worker", f"docker kill {RANK} > /dev/null")


def _stopped_head(bench: Bench) -> AbstractContextManager[object]:
    return _then_deployed(bench, "head", f"docker stop -t 30 {RANK} > /dev/null")


def _dead_engine(bench: Bench) -> AbstractContextManager[object]:
    running = f"$(docker container inspect -f '{{{{.State.Running}}}}' {RANK})"
    harm = (
        f"kill -9 $(docker container top {RANK} -eo pid,args | grep VLLM::EngineCore | head -1 | cut -d' ' -f1);"
        f" for i in $(seq 120); do [ {running} = false ] && exit 0; sleep 0.5; done; exit 1"
    )
    return _then_deployed(bench, "head", harm)


@contextmanager
def _then_deployed(bench: Bench, role: str, harm: str) -> Iterator[None]:
    try:
        bench.root(role, harm)
        yield
    finally:
        deploy_again(bench)


@contextmanager
def _wrong_image(bench: Bench) -> Iterator[None]:
    """The same engine under another id, on one node only."""
    build = "printf 'FROM %s\\nLABEL doctor.fault=1\\n'"
    own = f"$(docker container inspect -f '{{{{.Image}}}}' {RANK})"
    bench.root("worker", f"{build} {own} | docker build -q -t doctor-fault:1 - > /dev/null")
    try:
        with remade(worker={"image": "doctor-fault:1"})(bench):
            yield
    finally:
        bench.root("worker", "docker rmi -f doctor-fault:1 > /dev/null")


#: A server before the API that answers everything as it does, but completions with another text.
_LIAR = r"""
import http.client, http.server, json, socketserver, sys
class Liar(http.server.BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        api = http.client.HTTPConnection("127.0.0.1", 8000)
        api.request(self.command, self.path, body or None, {"Content-Type": "application/json"})
        real = api.getresponse()
        text = real.read()
        if "completions" in self.path:
            said = json.loads(text)
            for choice in said.get("choices", ()):
                if "text" in choice:
                    choice["text"] = "!!!!!!!!"
                if "message" in choice:
                    choice["message"]["content"] = "!!!!!!!!"
            text = json.dumps(said).encode()
        self.send_response(real.status)
        self.send_header("Content-Type", real.getheader("Content-Type") or "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    do_GET = do_POST = answer
    def log_message(self, *words):
        pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
Server(("127.0.0.1", 18400), Liar).serve_forever()
"""
_REDIRECT = "OUTPUT -p tcp -d 127.0.0.1 --dport 8000 -m owner ! --uid-owner nobody -j REDIRECT --to-ports 18400"

SERVING = (
    Fault(
        "the worker's rank was killed",
        "worker",
        (("log.rank_killed", "worker"),),
        made=_killed_worker,
        serving=True,
        follow=("service.*", "runtime.*", "boot.*", "log.*"),
    ),
    Fault(
        "the head's engine died and exited with 0",
        "head",
        (("log.engine_alive", "head"),),
        made=_dead_engine,
        serving=True,
        follow=("service.*", "runtime.*", "boot.*", "log.*"),
    ),
    Fault(
        "one rank alone runs",
        "head",
        (("service.ranks_paired", "pair"),),
        made=_stopped_head,
        serving=True,
        follow=("service.*", "runtime.*", "boot.*", "log.*"),
    ),
    Fault(
        "a restart policy on a rank",
        "worker",
        (("service.restart_policy", "worker"),),
        f"docker update --restart unless-stopped {RANK} > /dev/null",
        f"docker update --restart no {RANK} > /dev/null",
        serving=True,
    ),
    Fault(
        "the API hangs",
        "head",
        (("service.health", "pair"),),
        f"kill -STOP $(docker container inspect -f '{{{{.State.Pid}}}}' {RANK})",
        f"kill -CONT $(docker container inspect -f '{{{{.State.Pid}}}}' {RANK}); sleep 1",
        serving=True,
        follow=("service.*", "runtime.*", "correctness.*"),
    ),
    Fault(
        "completions are nonsense",
        "head",
        (("service.canary", "pair"),),
        f"cat > /run/doctor-liar.py <<'LIAR'\n{_LIAR}\nLIAR\n"
        "systemd-run --quiet --collect --unit=doctor-liar --uid=nobody python3 /run/doctor-liar.py; sleep 1;"
        f" iptables -t nat -I {_REDIRECT}",
        f"iptables -t nat -D {_REDIRECT}; systemctl stop doctor-liar; rm -f /run/doctor-liar.py",
        serving=True,
        active=True,
        imitated=True,
        follow=("correctness.*", "service.*"),
    ),
    Fault(
        "a kernel of the engine ran into a check",
        "head",
        (("log.device_asserts", "head"),),
        *engine_says("RuntimeError: CUDA error: device-side assert triggered"),
        serving=True,
        follow=("log.*", "service.*"),
    ),
    Fault(
        "a rank stopped answering in time",
        "head",
        (("log.rpc_timeouts", "head"),),
        *engine_says("TimeoutError: RPC call to execute_model timed out."),
        serving=True,
        follow=("log.*", "service.*"),
    ),
    Fault(
        "a rank of an older start",
        "worker",
        (("service.ranks_paired", "pair"),),
        made=remade(worker={"labels": {"io.dspark-ops.epoch": "0" * 32}}),
        serving=True,
        follow=("service.*",),
    ),
    Fault(
        "a rank of another release",
        "worker",
        (("service.ranks_paired", "pair"),),
        made=remade(worker={"labels": {"io.dspark-ops.release": "r-000000000000"}}),
        serving=True,
        follow=("service.*",),
    ),
    Fault(
        "another image on the worker",
        "worker",
        (("image.digest_parity", "pair"),),
        made=_wrong_image,
        serving=True,
        follow=("image.*",),
    ),
    Fault(
        "a GID index in one rank's environment",
        "head",
        (("nccl.gid_index_unset", "head"),),
        made=remade(head={"env": {"NCCL_IB_GID_INDEX": "3"}}),
        serving=True,
        follow=("nccl.*", "config.*", "service.*"),
    ),
    Fault(
        "a socket variable on the LAN at one side",
        "worker",
        (("nccl.socket_ifnames", "worker"),),
        made=remade(worker={"env": {"GLOO_SOCKET_IFNAME": "enP7s7"}}),
        serving=True,
        follow=("nccl.*", "config.*", "service.*"),
    ),
    Fault(
        "the site was edited after the deploy",
        "head",
        (("service.release_current", "pair"),),
        serving=True,
        site=("serve.max_num_seqs=5",),
        follow=("service.*", "config.*"),
    ),
)

#: Two at once that have nothing to do with each other: both must be named as roots.
PAIRS = (
    ("the Docker Engine is stopped", "MTU 1500 on one end, seen by full packets"),
    ("MTU 1500 on one end", "a default route through a rail"),
    ("a second address on a rail", "strict rp_filter on a rail"),
    ("a foreign netplan file", "an empty NCCL_IB_GID_INDEX in a file of the host"),
    ("an update waits for a reboot", "nothing keeps shared memory at logout"),
    ("PCIe half B trained at x2", "the disk of the weights is full"),
    ("a container computes on the GPU", "MTU 1500 on one end"),
    ("an engine was left behind", "the management port has the jumbo MTU that a rail lacks"),
    ("one NIC has another firmware", "one node has another GPU driver"),
    ("somebody holds the API's port", "the clock is 90 s ahead"),
)
ALL = (*QUIET, *SERVING)
BY_NAME = {fault.name: fault for fault in ALL}
CORE = tuple(fault for fault in ALL if fault.core)

__all__ = ["ALL", "BY_NAME", "CORE", "PAIRS", "QUIET", "SERVING", "engine_says", "kernel_says"]
