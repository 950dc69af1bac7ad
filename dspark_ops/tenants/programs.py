"""Which program a process runs, and which programs are the platform's own: they are never tenants."""

from __future__ import annotations

import re

from dspark_ops.facts.processes import ProcessFacts

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "ash"})
_SHELL_VALUES = frozenset({"--init-file", "--rcfile", "-o", "+o", "-O", "+O"})
_INTERPRETERS = re.compile(r"^(python|pypy|node|perl|ruby|java|lua)[\d.]*$")
_PLATFORM = frozenset(
    {
        "(sd-pam)", "agetty", "atd", "conmon", "containerd", "cron", "CRON", "dbus-broker", "dbus-broker-launch",
        "dbus-daemon", "docker", "docker-init", "docker-proxy", "dockerd", "doas", "init", "login", "mosh-server",
        "runc", "runuser", "screen", "SCREEN", "script", "sftp-server", "ssh-agent", "sshd", "sshd-session", "su",
        "sudo", "systemd", "systemd-executor", "tini", "tmux", "tmux: server", "tmux: client",
    }
)  # fmt: skip
_PLATFORM_UNIT = re.compile(
    r"^(ssh|sshd|docker|containerd|cron|crond|atd|dbus|dbus-broker|init|getty.*|serial-getty@.*|console-getty"
    r"|sshd?@.*|systemd-.*|user@.*|user-runtime-dir@.*|dspark-.*)\.(service|scope)$"
)
_DISPLAY_UNIT = re.compile(r"^(gdm3?|lightdm|sddm|display-manager|xdm)\.service$")
_DESKTOP = re.compile(
    r"^(gdm[\w-]*|gnome-s[\w-]*|mutter[\w-]*|Xorg|Xwayland|gsd-[\w-]*|kwin[\w-]*|plasma\w*|startplasma[\w-]*|sddm[\w-]*"
    r"|lightdm|xfce4-session|xfwm4|nautilus|ibus-[\w-]*|evolution-[\w-]*|goa-[\w-]*|gvfs[\w-]*|tracker-[\w-]*"
    r"|xdg-desktop-[\w-]*|pipewire[\w-]*|wireplumber|pulseaudio|update-notifier|gjs)$"
)
_DESKTOP_UNIT = re.compile(
    r"^(org\.(gnome|freedesktop|kde)\..*|dbus-:.*|gnome-.*|gsd-.*|plasma-.*|evolution-.*|gvfs-.*|tracker-.*|xdg-.*"
    r"|pipewire.*|wireplumber|pulseaudio|at-spi-.*|dconf|dbus)\.service$"
)
#: What vLLM, SGLang and multiprocessing call the children of a server: alone, they have lost it.
_ENGINE_TITLE = re.compile(r"^(VLLM::|sglang::)")
_CHILD_OF = re.compile(r"from multiprocessing\.(spawn|forkserver|resource_tracker) import")


def command_of(process: ProcessFacts) -> str:
    """The first word's last part, as `llama-server`; the kernel's name for a process without arguments."""
    if not process.argv or not process.argv[0]:
        return process.name
    first = process.argv[0]
    if first.startswith(("sshd:", "sshd-session:")):
        return first.split(":", 1)[0]
    if _ENGINE_TITLE.match(first) or first.startswith(("tmux:", "(")):
        return first
    return first.rsplit("/", 1)[-1].removeprefix("-") or process.name


def program_of(process: ProcessFacts) -> str:
    """The program in one word without blanks; of an interpreter, the script or module that it runs."""
    command = command_of(process)
    if _INTERPRETERS.match(command) or command in _SHELLS:
        command = _script_of(process.argv[1:]) or command
    return re.sub(r"\s+", "_", command.strip()) or str(process.pid)


def _script_of(words: tuple[str, ...]) -> str | None:
    for index, word in enumerate(words):
        if word in ("-m", "-c"):
            return words[index + 1] if word == "-m" and index + 1 < len(words) else None
        if not word.startswith("-"):
            return word.rstrip("/").rsplit("/", 1)[-1] or None
    return None


def is_shell(process: ProcessFacts) -> bool:
    """A shell, whatever it runs."""
    return command_of(process) in _SHELLS


def is_prompt(process: ProcessFacts) -> bool:
    """A shell that somebody types into, or that reads its commands from a pipe: it runs no script of its own."""
    if not is_shell(process):
        return False
    words = list(process.argv[1:])
    while words:
        word = words.pop(0)
        if word in _SHELL_VALUES:
            del words[:1]
        elif not word.startswith(("-", "+")) or re.match(r"^-[A-Za-z]*c", word):
            return False
    return True


def is_platform(process: ProcessFacts) -> bool:
    """Of the machine's own running: the way in, the way to start things, and prompts. Never a tenant."""
    command = command_of(process)
    return (
        process.kernel
        or process.pid == 1
        or command in _PLATFORM
        or command.startswith(("containerd-shim", "systemd-"))
        or is_prompt(process)
    )


def is_platform_unit(name: str) -> bool:
    """A service whose children may be anybody's: what is in it is looked at process by process."""
    return _PLATFORM_UNIT.match(name) is not None


def is_display_unit(name: str) -> bool:
    """The display manager."""
    return _DISPLAY_UNIT.match(name) is not None


def is_desktop_unit(name: str) -> bool:
    """A part of a desktop that the user's manager runs."""
    return _DESKTOP_UNIT.match(name) is not None


def is_desktop(process: ProcessFacts) -> bool:
    """A part of a desktop by its program."""
    return _DESKTOP.match(command_of(process)) is not None


def lost_its_server(root: ProcessFacts) -> bool:
    """The top-most process is one that only ever runs below a server: that server is gone."""
    return bool(_ENGINE_TITLE.match(root.argv[0] if root.argv else root.name)) or any(
        _CHILD_OF.match(word) for word in root.argv[1:4]
    )
