"""What the host and its GPU say of their condition: captures, the lines that systemd, dpkg and the kernel print."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.facts import (
    docker_settings,
    file_modes,
    gpu_state,
    kernel_events,
    kernel_state,
    memory,
    mounts,
    noted_processes,
    nvidia_driver,
    packages,
    sshd,
    unit_states,
)
from dspark_ops.facts.disk import DiskFacts, read_disks
from dspark_ops.facts.noted_processes import NotedProcess
from dspark_ops.facts.system import read_system
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.facts.captures import expect, manifest, text

RANK = "c" * 64


def reading(*, sudo: bool = True, **results: dict[str, Any]) -> NodeReading:
    """A node that answered these probes; two underscores stand for the dot of an id."""
    named = {name.replace("__", "."): part for name, part in results.items()}
    return NodeReading(
        node="node-a",
        reachable=True,
        user="operator",
        sudo=sudo,
        results={name: ProbeResult(id=name, **part) for name, part in named.items()},
    )


# kernel log


@pytest.mark.parametrize("name", ["dmesg/gsp-init-timeout.txt", "dmesg/nvrm-no-memory.txt"])
def test_captured_kernel_lines(name: str) -> None:
    events = kernel_events.parse_kernel_events(text(name))
    assert events is not None
    assert events.xids == ((119,) if "xid" in expect(name) else ())
    assert events.no_memory == (1 if "no-memory" in name else 0)
    assert (events.killed, events.faults) == ((), ())


def test_kernel_lines_of_every_kind() -> None:
    events = kernel_events.parse_kernel_events(
        "NVRM: Xid (PCI:000f:01:00): 79, pid=1234, name=VLLM::Worker, GPU has fallen off the bus.\r\n"
        "NVRM: Xid (PCI:000f:01:00): 79, again\n"
        "NVRM: Xid (PCI:000f:01:00): 31, Ch 00000010\n"
        "Out of memory: Killed process 4711 (VLLM::EngineCor) total-vm:1kB\n"
        "Memory cgroup out of memory: Killed process 4712 (python3) total-vm:1kB\n"
        "arm-smmu-v3 arm-smmu-v3.0.auto: CMD_SYNC timeout at 0x0000b2a1\n"
        "I/O error, dev nvme0n1, sector 2048 op 0x0:(READ)\n"
        "EXT4-fs error (device nvme0n1p2): ext4_find_entry\n"
        "pcieport 0002:00:00.0: AER: Multiple Uncorrectable (Fatal) error message received\n"
        "pcieport 0002:00:00.0: AER: Correctable error message received\n"
        "nvme nvme0: controller is down; will reset\nEXT4-fs (nvme0n1p2): Remounting filesystem read-only\n"
    )
    assert events is not None
    assert events.xids == (79, 31)
    assert events.killed == ("VLLM::EngineCor", "python3")
    assert len(events.faults) == 5
    assert not [line for line in events.faults if "Correctable error" in line]


def test_a_kernel_log_without_such_lines_is_not_one_that_could_not_be_read() -> None:
    def read(**result: Any) -> object:
        return kernel_events.read_kernel_events(reading(kernel__events=result))

    assert read(rc=1, stdout="-- No entries --\n", stderr="") == kernel_events.KernelEventFacts()
    assert read(rc=1, stdout="", stderr="") == kernel_events.KernelEventFacts()
    assert read(rc=1, stdout="", stderr="No journal files were found.") is None
    assert read(rc=0, stdout="NVRM: Xid (PCI:1): 79, x", stderr="Hint: You are currently not seeing messages") is None
    assert read(rc=2, stdout="", stderr="") is None
    assert read(error="no answer within 4 s: journalctl") is None


# kernel state

CLEAN = "Reached target poweroff.target - System Power Off.\nShutting down.\nJournal stopped\n"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (CLEAN, "clean"),
        ("Received SIGTERM from PID 1 (systemd-shutdow).\n", "clean"),
        ("System is rebooting.\n", "clean"),
        ("Reached target reboot.target - System Reboot.\n", "clean"),
        ("vllm[1]: INFO\nsshd[2]: session opened\n", "cut"),
        ("app: Journal stopped being useful? no, that is mid-line\n", "cut"),
        ("", None),
        (None, None),
    ],
)
def test_the_end_of_a_boot(said: str | None, wanted: str | None) -> None:
    assert kernel_state.parse_boot_end(said) == wanted


def test_a_journal_without_an_earlier_boot_says_so() -> None:
    files, links = {"files": {"/proc/cmdline": "ro quiet\n"}}, {"files": {}}

    def end(sudo: bool = True, **result: Any) -> object:
        found = kernel_state.read_kernel_state(
            reading(sudo=sudo, kernel__files=files, kernel__links=links, kernel__previous=result)
        )
        assert found is not None
        assert (found.options, found.journal_kept) == (("ro", "quiet"), False)
        return found.previous_end

    none = "Data from the specified boot (-1) is not available: No such boot ID in journal"
    assert end(rc=1, stderr=none) == "none"
    assert (
        end(rc=1, stderr="Specifying boot ID or boot offset has no effect, no persistent journal was found.") == "none"
    )
    assert end(rc=1, stderr="Permission denied") is None
    assert end(rc=0, stdout="") is None
    assert end(rc=0, stdout=CLEAN) == "clean"
    assert end(rc=0, stdout="something\n") == "cut"
    assert end(sudo=False, rc=0, stdout="something\n") is None, "without root the end is not shown"
    assert end(error="no such program: journalctl") is None


def test_kernels_and_module_files_are_named() -> None:
    paths = ("/boot/vmlinuz-6.17.0-999-nvidia", "/boot/vmlinuz-6.17.0-1014-nvidia", "/boot/vmlinuz-old")
    links = {path: path for path in (*paths, "/etc/modprobe.d/zz-nvidia-drm-override.conf", "/var/log/journal/abc")}
    found = kernel_state.read_kernel_state(reading(kernel__links={"files": links}))
    assert found is not None
    assert found.installed == ("6.17.0-999-nvidia", "6.17.0-1014-nvidia")
    assert found.module_files == ("zz-nvidia-drm-override.conf",)
    assert found.journal_kept is True
    assert found.options is None
    assert kernel_state.read_kernel_state(reading()) is None


# GPU

QUERIES = [name for name, entry in manifest().items() if "clocks.sm" in entry["command"]]


@pytest.mark.parametrize("name", QUERIES)
def test_captured_gpu_samples(name: str) -> None:
    fields = manifest()[name]["command"].split("--query-gpu=")[1].split()[0].split(",")
    state = gpu_state.parse_state(text(name), tuple(fields))
    assert state is not None
    wanted = expect(name)
    assert None not in (state.sm_mhz, state.power_w, state.utilization_pct, state.temperature_c)
    if "sm_mhz" in wanted:
        assert state.sm_mhz == wanted["sm_mhz"]
    if "wedged" in wanted:
        wedged = (state.utilization_pct or 0) >= 90 and (state.sm_mhz or 0) < 1400
        assert wedged is wanted["wedged"]


def test_gpu_sample_of_the_own_query() -> None:
    row = "61, 38.00, 2411, 94, Enabled, 9A.0B.25.00.00\n"
    state = gpu_state.read_gpu_state(
        reading(
            gpu__state={"rc": 0, "stdout": row},
            gpu__reasons={"rc": 0, "stdout": "0x0000000000000048\n"},
        )
    )
    assert state is not None
    assert (state.persistence, state.vbios) == (True, "9A.0B.25.00.00")
    assert (state.temperature_c, state.power_w, state.sm_mhz, state.utilization_pct) == (61, 38, 2411, 94)
    assert state.held_back_by == ("hardware slowdown", "hardware thermal slowdown")
    other = gpu_state.parse_state("41, [N/A], 208, [N/A], Disabled, [N/A]")
    assert other is not None
    assert (other.power_w, other.utilization_pct, other.persistence, other.vbios) == (None, None, False, None)
    assert other.held_back_by == ()


@pytest.mark.parametrize("row", ["", "No devices were found", "61", 'Field "x" is not a valid field to query.\n'])
def test_a_row_that_is_not_whole_is_no_sample(row: str) -> None:
    assert gpu_state.parse_state(row) is None
    assert gpu_state.parse_reasons(row) is None


def test_the_driver_and_its_firmware() -> None:
    version = (
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.159.03  Release Build  (dvs-builder)\n"
        "GCC version:  gcc version 13.3.0\n"
    )
    board = "Model: \t\t NVIDIA GB10\nGPU UUID: \t GPU-5ec2e7\nGPU Firmware: \t 580.159.03\n"
    files = {"/proc/driver/nvidia/version": version, "/proc/driver/nvidia/gpus/000f:01:00.0/information": board}
    found = nvidia_driver.read_driver(reading(driver__files={"files": files}))
    assert found == nvidia_driver.NvidiaDriverFacts(module="580.159.03", firmware="580.159.03")
    assert "5ec2e7" not in found.model_dump_json()
    assert nvidia_driver.read_driver(reading(driver__files={"files": {}})) == nvidia_driver.NvidiaDriverFacts()
    assert nvidia_driver.read_driver(reading()) is None
    assert nvidia_driver.parse_firmware("GPU Firmware: \t N/A\n") is None
    assert nvidia_driver.parse_module_version(version.replace("Open ", "").replace(" for aarch64", "")) == "580.159.03"


@pytest.mark.parametrize("name", ["host/dmi-fe.txt", "host/dmi-asus.txt"])
def test_captured_boards_tell_their_uefi(name: str) -> None:
    shown = dict(line.split(": ", 1) for line in text(name).splitlines())
    files = {f"/sys/class/dmi/id/{key}": value + "\n" for key, value in shown.items()}
    found = read_system(reading(system__files={"files": files}))
    assert found is not None
    assert (found.vendor, found.product, found.bios) == tuple(
        shown[key] for key in ("sys_vendor", "product_name", "bios_version")
    )


# packages and units


def test_captured_packages_of_the_container_toolkit() -> None:
    found = packages.parse_packages(text("host/dpkg-container-toolkit.txt"))
    assert found is not None
    assert packages.version_of(found, "nvidia-container-toolkit") == "1.19.0-1"
    assert {p.name for p in found} >= {"libnvidia-container1", "nvidia-container-toolkit-base"}
    assert all(p.installed and p.whole and not p.held for p in found)


def test_captured_holds_are_the_set_that_follows_the_newest_kernel() -> None:
    held = text("host/apt-mark-showhold.txt").split()
    found = packages.parse_packages("".join(f"hi  {name} 6.17.0-1014.14\n" for name in held))
    assert found is not None
    assert [p.name for p in found if p.held and p.installed] == held


def test_states_of_packages() -> None:
    listing = "ii  a 5:1.2-3\niU  b 2\nrc  c 3\nun  d \nhi  e 4\niHR f 5\nit g:arm64 6\n\nshort\n"
    found = packages.parse_packages(listing)
    assert found is not None
    assert [p.name for p in found] == ["a", "b", "c", "e", "f", "g"]
    assert [p.name for p in found if not p.whole] == ["b", "f", "g"]
    assert packages.version_of(found, "a") == "1.2-3"
    assert packages.version_of(found, "c") is None


def test_a_pattern_without_a_package_is_no_failure() -> None:
    none = {"rc": 1, "stdout": "", "stderr": "dpkg-query: no packages found matching linux-image-*"}
    assert packages.read_packages(reading(packages__list=none)) == ()
    assert packages.read_packages(reading(packages__list={"rc": 2, "stdout": "", "stderr": "broken"})) is None
    assert packages.read_packages(reading(packages__list={"rc": 1, "stdout": "", "stderr": "broken"})) is None
    assert packages.read_packages(reading()) is None


def test_units_that_are_there() -> None:
    said = (
        "Id=docker.service\nNames=docker.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"
        "ManagedOOMSwap=auto\nManagedOOMMemoryPressure=kill\n\n"
        "Id=ollama.service\nNames=ollama.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n\n"
        "Id=gdm.service\nNames=gdm3.service gdm.service display-manager.service\nLoadState=loaded\n"
        "ActiveState=failed\nUnitFileState=static\n"
    )
    found = unit_states.read_units(reading(units__states={"rc": 0, "stdout": said.replace("\n", "\r\n")}))
    assert found is not None
    assert [unit.name for unit in found] == ["docker.service", "gdm.service"]
    display = unit_states.unit_named(found, "display-manager.service")
    assert display is not None
    assert (display.active, display.enablement) == ("failed", "static")
    assert found[0].oom_pressure == "kill"
    assert unit_states.unit_named(found, "ollama.service") is None
    assert unit_states.parse_states("System has not been booted with systemd") is None
    assert unit_states.read_units(reading()) is None


def test_units_are_asked_with_the_end_of_options_before_them() -> None:
    (probe,) = unit_states.PROBES
    words = probe.wire()["argv"]
    assert words.index("--") < words.index("-.slice"), "else the root slice is read as an option"


# processes


def noted(*items: tuple[int, int, str, str], container: dict[int, str] | None = None) -> tuple[NotedProcess, ...]:
    """pid, parent, the kernel's name, the arguments."""
    within = container or {}
    return noted_processes.parse_noted(
        {f"/proc/{pid}/stat": f"{pid} ({name}) S {parent} 1 1 0" for pid, parent, name, _ in items},
        {f"/proc/{pid}/cmdline": line.replace(" ", "\0") + "\0" for pid, _, _, line in items},
        {f"/proc/{pid}/cgroup": f"0::/system.slice/docker-{i}.scope\n" for pid, i in within.items()},
    )


@pytest.mark.parametrize(
    ("line", "kind", "what"),
    [
        ("/usr/local/bin/ollama serve", "server", "ollama"),
        ("/opt/llama.cpp/llama-server -m /m.gguf --port 8080", "server", "llama.cpp"),
        ("/usr/bin/python3 /usr/local/bin/vllm serve /model", "server", "vLLM"),
        ("vllm serve /model", "server", "vLLM"),
        ("python3 -m vllm.entrypoints.openai.api_server", "server", "vLLM"),
        ("python -m sglang.launch_server --port 30000", "server", "SGLang"),
        ("/usr/bin/python3 /usr/local/bin/trtllm-serve x", "server", "TensorRT-LLM"),
        ("python3 /home/a/ComfyUI/main.py --listen", "server", "ComfyUI"),
        ("/opt/lmstudio/lm-studio", "server", "LM Studio"),
        ("ray::IDLE", "server", "Ray"),
        ("/usr/lib/ray/raylet --x", "server", "Ray"),
        ("VLLM::EngineCore", "engine", "VLLM::EngineCore"),
        ("sglang::scheduler", "engine", "sglang::scheduler"),
        ("docker build -t x .", "build", "docker"),
        ("docker buildx build .", "build", "docker"),
        ("/usr/local/cuda/bin/nvcc -c x.cu", "build", "nvcc"),
        ("ninja -v -j 8", "build", "ninja"),
        ("docker run --rm x", "other", "docker"),
        ("vim vllm.py", "other", "vim"),
        ("grep ollama /etc/passwd", "other", "grep"),
        ("python3 -I -", "other", "python3"),
        ("", "other", ""),
    ],
)
def test_what_a_process_runs(line: str, kind: str, what: str) -> None:
    assert noted_processes.recognise(line) == (kind, what)


def test_only_what_is_recognised_is_noted_and_nothing_of_its_arguments_is_kept() -> None:
    key = "sk-" + "Aa1" * 10
    found = noted(
        (10, 1, "sshd", "sshd: operator"),
        (11, 1, "ollama", "/usr/bin/ollama serve"),
        (12, 1, "curl", f"curl -H Authorization:Bearer {key} http://x"),
        (13, 1, "vllm", "vllm serve /m --api-key planted-secret"),
        (14, 1, "env", "env HF_TOKEN=hf_" + "b" * 30 + " x"),
    )
    assert [(p.pid, p.secret) for p in found] == [
        (11, None),
        (12, "an API key"),
        (13, "--api-key"),
        (14, "a Hugging Face token"),
    ]
    told = json.dumps([p.model_dump() for p in found])
    assert not [word for word in (key, "planted-secret", "bbbb") if word in told]


@pytest.mark.parametrize("line", ["vllm serve --api-key $KEY", "vllm --api-key-file /x", "vllm --api-key <hidden>"])
def test_a_place_for_a_secret_is_no_secret(line: str) -> None:
    assert noted_processes.secret_in(line) is None


def test_an_engine_is_an_orphan_when_an_adopter_is_its_parent() -> None:
    found = noted(
        (1, 0, "systemd", "/sbin/init"),
        (20, 1, "VLLM::EngineCor", "VLLM::EngineCore"),
        (21, 22, "VLLM::Worker", "VLLM::Worker_TP0"),
        (22, 30, "vllm", "vllm serve /m"),
        (23, 24, "VLLM::Worker", "VLLM::Worker_TP1"),
        (24, 1, "docker-init", "docker-init -- x"),
        (25, 99, "VLLM::Worker", "VLLM::Worker_TP2"),
        container={22: RANK, 21: RANK},
    )
    assert {p.pid: p.orphan for p in found if p.kind == "engine"} == {20: True, 21: False, 23: True, 25: True}
    assert {p.pid: p.container for p in found}[21] == RANK
    assert {p.pid: p.container for p in found}[20] is None


def test_the_innermost_container_counts() -> None:
    found = noted_processes.parse_noted(
        {"/proc/5/stat": "5 (vllm) S 4 1"},
        {"/proc/5/cmdline": "vllm\0serve\0"},
        {"/proc/5/cgroup": f"12:pids:/docker/{'a' * 64}/docker/{RANK}\n0::/docker/{'a' * 64}/docker/{RANK}\n"},
    )
    assert [p.container for p in found] == [RANK]


def test_processes_that_could_not_be_read_are_unknown() -> None:
    empty: dict[str, Any] = {"files": {}}
    assert noted_processes.read_noted(reading(noted__stat=empty, noted__cmdline=empty, noted__cgroup=empty)) is None
    assert noted_processes.read_noted(reading()) is None


# files, mounts, Docker


def test_mounts() -> None:
    table = (
        "/dev/nvme0n1p2 / ext4 rw,relatime,errors=remount-ro 0 0\nproc /proc proc rw 0 0\n"
        "nas:/x /var/lib/docker nfs4 ro,vers=4.2 0 0\noverlay /var/lib/docker/overlay2/a/merged overlay rw 0 0\n"
        "tmpfs /mnt/a\\040b tmpfs rw,size=8g 0 0\nbroken\n"
    )
    found = mounts.parse_mounts(table)
    assert found is not None
    assert [(m.path, m.kind, m.read_only) for m in found] == [
        ("/", "ext4", False),
        ("/var/lib/docker", "nfs4", True),
        ("/mnt/a b", "tmpfs", False),
    ]
    there = {path: mounts.mount_of(found, path) for path in ("/var/lib/docker", "/var/lib/docker2", "/")}
    assert [mount.path for mount in there.values() if mount] == ["/var/lib/docker", "/", "/"]
    assert mounts.mount_of((), "/") is None
    assert mounts.parse_mounts("") is None


def test_logs_of_containers() -> None:
    folder = docker_settings.LOG_FOLDER
    listing = (
        f"{folder}:\ntotal 0\ndrwx--x--- 4 0 0 4096  {'a' * 64}\n\n{folder}/{'a' * 64}:\ntotal 12\n"
        f"-rw-r----- 1 0 0 1000  {'a' * 64}-json.log\n-rw-r----- 1 0 0 500  {'a' * 64}-json.log.1\n"
        f"-rw------- 1 0 0 7000  config.v2.json\n\n{folder}/{'a' * 64}/mounts:\ntotal 0\n\n"
        f"{folder}/{'b' * 64}:\n-rw-r----- 1 0 0 9999  {'b' * 64}-json.log\n"
    )
    found = docker_settings.read_container_logs(reading(docker__logs={"rc": 0, "stdout": listing}))
    assert found is not None
    assert [(log.container[0], log.size_bytes) for log in found] == [("b", 9999), ("a", 1500)]
    assert docker_settings.read_container_logs(reading(docker__logs={"rc": 2, "stdout": ""})) is None


def test_settings_of_docker_and_of_the_rank() -> None:
    info = json.dumps({"LiveRestoreEnabled": True})
    inspected = [
        {
            "HostConfig": {"Privileged": False, "LogConfig": {"Type": "json-file", "Config": {"max-size": "100m"}}},
            "Mounts": [{"Source": "/data/model"}, {"Source": "/var/run/docker.sock"}],
        }
    ]
    node = reading(docker__info={"rc": 0, "stdout": info}, rank__inspect={"rc": 0, "stdout": json.dumps(inspected)})
    engine, rank = docker_settings.read_engine_settings(node), docker_settings.read_rank_settings(node)
    assert engine == docker_settings.DockerSettings(live_restore=True)
    assert rank == docker_settings.RankSettings(privileged=False, socket_mounted=True, log_driver="json-file")
    assert docker_settings.parse_rank_settings("[]") is None
    assert docker_settings.parse_rank_settings('[{"HostConfig": {}}]') == docker_settings.RankSettings()


def test_permissions() -> None:
    home = "/home/a"
    lines = f"750 1000 {home}\n755 1000 {home}/.cache\n755 1000 {home}/.cache/huggingface\n"
    token = f"{home}/.cache/huggingface/token"

    def read(text_: str) -> file_modes.FileModeFacts | None:
        folders = {"rc": 1, "stdout": "755 0 /etc/dspark-ops\n666 0 /run/docker.sock\n", "stderr": "stat: cannot"}
        return file_modes.read_file_modes(reading(modes__folders=folders, modes__tokens={"files": {"a": text_}}))

    closed = read(f"{lines}644 1000 {token}\n")
    opened = read(f"{lines}644 1000 {token}\n".replace("750", "755"))
    hidden = read(f"{lines}600 1000 {token}\n".replace("750", "755"))
    for found, wanted in ((closed, ()), (opened, (token,)), (hidden, ())):
        assert found is not None
        assert (found.tokens, found.open_tokens) == ((token,), wanted)
        assert [(f.path, f.others_write) for f in found.folders or ()] == [
            ("/etc/dspark-ops", False),
            ("/run/docker.sock", True),
        ]
    assert file_modes.read_file_modes(reading()) is None


SSHD = sshd.MAIN


@pytest.mark.parametrize(
    ("files", "passwords", "root"),
    [
        ({SSHD: ""}, True, "prohibit-password"),
        ({SSHD: "# PasswordAuthentication no\n"}, True, "prohibit-password"),
        ({SSHD: "PasswordAuthentication no\nPasswordAuthentication yes\n"}, False, "prohibit-password"),
        ({SSHD: "passwordauthentication=no\nPermitRootLogin without-password\n"}, False, "prohibit-password"),
        ({SSHD: "Match User a\nPasswordAuthentication no\n"}, True, "prohibit-password"),
        (
            {
                SSHD: "Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\nPermitRootLogin yes\n",
                "/etc/ssh/sshd_config.d/50-a.conf": 'PasswordAuthentication "no"\nMatch all\nPermitRootLogin no\n',
                "/etc/ssh/sshd_config.d/60-b.conf": "PasswordAuthentication yes\n",
            },
            False,
            "yes",
        ),
        (
            {SSHD: "PasswordAuthentication yes\n", "/etc/ssh/sshd_config.d/50-a.conf": "PasswordAuthentication no\n"},
            True,
            "prohibit-password",
        ),
        ({SSHD: "Include sshd_config.d/*.conf\n", "/etc/ssh/sshd_config.d/a.conf": "PermitRootLogin no\n"}, True, "no"),
        ({SSHD: "Include sshd_config\nInclude *\nPermitRootLogin no\n"}, True, "no"),
    ],
)
def test_the_ssh_server(files: dict[str, str], passwords: bool, root: str) -> None:
    found = sshd.parse_sshd(files)
    assert found is not None
    assert (found.passwords, found.root_login) == (passwords, root)


@pytest.mark.parametrize(
    ("text_", "prompts"),
    [
        ("", False),
        ("UsePAM yes\n", True),
        ("UsePAM yes\nKbdInteractiveAuthentication no\n", False),
        ("UsePAM yes\nChallengeResponseAuthentication no\n", False),
        ("UsePAM yes\nKbdInteractiveAuthentication yes\nChallengeResponseAuthentication no\n", True),
        ("UsePAM yes\nChallengeResponseAuthentication no\nKbdInteractiveAuthentication yes\n", False),
        ("PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM yes\n", True),
        ("PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM no\n", False),
        ("PasswordAuthentication no\nKbdInteractiveAuthentication yes\n", False),
    ],
)
def test_passwords_by_keyboard_interactive(text_: str, prompts: bool) -> None:
    found = sshd.parse_sshd({SSHD: text_})
    assert found is not None
    assert found.prompts is prompts


def test_an_ssh_server_whose_main_file_was_not_read_is_unknown() -> None:
    files = {"files": {SSHD: "PasswordAuthentication no\n"}}
    assert sshd.read_sshd(reading(sudo=False, sshd__files=files)) is None, "without root some files are not shown"
    assert sshd.read_sshd(reading(sshd__files=files)) is not None
    assert sshd.parse_sshd({"/etc/ssh/sshd_config.d/a.conf": "PasswordAuthentication no\n"}) is None
    assert sshd.parse_sshd(None) is None


# memory and disks


def test_the_state_of_memory() -> None:
    meminfo = "MemTotal: 100 kB\nShmem: 12 kB\nHugePages_Total: 4\nHugepagesize: 2048 kB\n"
    zones = (
        "Node 0, zone      DMA      1      0      0      0      0      0      0      0      0      0      3 \n"
        "Node 0, zone   Normal   9999      0      0      0      0      0      0      0      9      2      1 \n"
    )
    state = {
        "/proc/pressure/memory": "some avg10=9.00 avg60=0 total=1\nfull avg10=1.25 avg60=0.10 avg300=0.00 total=2\n",
        "/proc/buddyinfo": zones,
        "/etc/default/earlyoom": 'EARLYOOM_ARGS="-r 3600 -m 5,2 -s 80"\n',
    }
    found = memory.read_memory(
        reading(memory__meminfo={"files": {"/proc/meminfo": meminfo}}, memory__state={"files": state})
    )
    assert found is not None
    assert (found.shared_kib, found.huge_pages_kib, found.stalled_pct, found.earlyoom_pct) == (12, 8192, 1.25, 5.0)
    assert found.large_free_kib == 3 * 4096 + 2 * 2048 + 1 * 4096
    bare = memory.read_memory(reading(memory__meminfo={"files": {"/proc/meminfo": "MemTotal: 100 kB\n"}}))
    assert bare is not None
    assert {bare.shared_kib, bare.huge_pages_kib, bare.stalled_pct, bare.earlyoom_pct, bare.large_free_kib} == {None}


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ('EARLYOOM_ARGS="-m 2 -s 80 --prefer x"\n', 2.0),
        ("EARLYOOM_ARGS=-m1.5\n", 1.5),
        ('EARLYOOM_ARGS="-r 3600"\n', 10.0),
        ("# EARLYOOM_ARGS=-m 2\n", 10.0),
        ("EARLYOOM_ARGS='-m 9'\nEARLYOOM_ARGS='-m 3'\n", 3.0),
        ("", 10.0),
        (None, None),
    ],
)
def test_the_limit_of_earlyoom(said: str | None, share: float | None) -> None:
    assert memory.parse_earlyoom(said) == share


def test_files_that_a_disk_does_not_count_are_unknown() -> None:
    numbers = {"total_bytes": 10, "free_bytes": 5, "total_files": 0, "free_files": 0}
    (found,) = read_disks(reading(**{"disk__/": {"numbers": numbers}})) or ()
    assert found.free_files_pct is None
    assert DiskFacts(path="/", total_files=200, free_files=10).free_files_pct == 5
    assert DiskFacts(path="/", total_files=200, free_files=0).free_files_pct == 0


# any text

PARSERS = {
    "kernel events": kernel_events.parse_kernel_events,
    "boot end": kernel_state.parse_boot_end,
    "gpu state": gpu_state.parse_state,
    "gpu reasons": gpu_state.parse_reasons,
    "driver": nvidia_driver.parse_module_version,
    "firmware": nvidia_driver.parse_firmware,
    "packages": packages.parse_packages,
    "units": unit_states.parse_states,
    "mounts": mounts.parse_mounts,
    "docker logs": docker_settings.parse_container_logs,
    "docker info": docker_settings.parse_engine_settings,
    "docker inspect": docker_settings.parse_rank_settings,
    "stat": file_modes.parse_stat_lines,
    "sshd": lambda said: sshd.parse_sshd({SSHD: said, "/etc/ssh/sshd_config.d/a.conf": said}),
    "stall": memory.parse_stall,
    "buddyinfo": memory.parse_buddyinfo,
    "earlyoom": memory.parse_earlyoom,
    "recognise": noted_processes.recognise,
    "processes": lambda said: noted_processes.parse_noted(
        {"/proc/1/stat": said, "/proc/2/stat": f"2 ({said}) S 1 1"},
        {"/proc/1/cmdline": said, "/proc/2/cmdline": f"VLLM::{said}"},
        {"/proc/2/cgroup": said},
    ),
}
SEEDS = st.sampled_from(
    ["NVRM: Xid (x): 79,", "ii  a 1", "Id=x", "1, 2, 3, 4, Enabled, x", "Include *", "755 0 /x", "0x0008", "٣", "²"]
)


@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", PARSERS)
@given(
    parts=st.lists(st.one_of(SEEDS, st.text(max_size=60)), max_size=12), glue=st.sampled_from(["\n", "\r\n", " ", ""])
)
def test_no_parser_raises(name: str, parts: list[str], glue: str) -> None:
    PARSERS[name](glue.join(parts))


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.timeout(20)
def test_no_parser_hangs_on_a_long_line(name: str) -> None:
    for piece in (
        "NVRM: Xid (",
        "a ",
        "-m ",
        "EARLYOOM_ARGS=",
        "/",
        "Reached target ",
        "python3 ComfyUI",
        "I/O error, (",
    ):
        PARSERS[name](piece * (200_000 // len(piece)))
