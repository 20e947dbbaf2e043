"""What is in the sandbox image, and how Debian packages become one.

There are two ways to the same image: the `Dockerfile` beside this file, which needs a
container registry, and Debian's own packages, which need none. A change of either
takes a new `RECIPE` here and in the `Dockerfile`: images of an older one are stale.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

from agentfarm._version import __version__
from agentfarm.errors import SandboxUnavailable

RECIPE = "2"
REPOSITORY = "agentfarm-sandbox"
SANDBOX_IMAGE = f"{REPOSITORY}:{RECIPE}"
BASE_IMAGE = "python:3.12-slim"

KIND_LABEL = "agentfarm.kind"
RECIPE_LABEL = "agentfarm.recipe"
BUILD_LABEL = "agentfarm.build"

PACKAGES = (
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "libc-bin",
    "mawk",
    "patch",
    "python3",
    "python3-mypy",
    "python3-pyflakes",
    "python3-pytest",
    "python3-typeshed",
    "sed",
    "tar",
)
"""What programs of a model and their checks expect.

No compiler, no network tool, no package manager.
"""

LEFT_OUT = (
    "/usr/bin/dpkg*",
    "/usr/bin/update-alternatives",
    "/usr/lib/*/gconv/*",
    "/usr/lib/python3/dist-packages/*-stubs/*",
    "/usr/lib/python3/dist-packages/mypy/test/*",
    "/usr/lib/python3/dist-packages/mypyc/*",
    "/usr/sbin/dpkg*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)

# mmdebstrap's extract variant runs no maintainer script, which makes it ten times
# faster than an installation; these are the few of their effects that are wanted.
FINISH = r"""
ln -sf mawk /usr/bin/awk
ln -sf python3 /usr/bin/python
ln -sf which.debianutils /usr/bin/which
printf '%s\n' root:x:0:0:root:/root:/bin/sh \
    nobody:x:65534:65534:nobody:/work:/bin/sh >/etc/passwd
printf '%s\n' root:x:0: nogroup:x:65534: >/etc/group
ldconfig
python3 -m compileall -qq --invalidation-mode unchecked-hash \
    $(python3 -c 'import os, sys; print(*filter(os.path.isdir, sys.path))') || true
install -d -m 0700 -o 65534 -g 65534 /work
find / -xdev -perm /6000 -exec chmod a-s {} +
python3 -c 'import platform; print("PYTHON_VERSION=" + platform.python_version())' >&2
"""

VERSION_VARIABLE = "PYTHON_VERSION"
"""Official Python images tell their version so, and ours do too."""


def dockerfile() -> bytes:
    """The Dockerfile, as it is installed."""
    return (files(__package__) / "Dockerfile").read_bytes()


def image_labels() -> dict[str, str]:
    """What tells our images from others, and this recipe's from older ones."""
    return {
        KIND_LABEL: "image",
        RECIPE_LABEL: RECIPE,
        "agentfarm.version": __version__,
    }


def image_changes(python_version: str) -> list[str]:
    """The image's configuration, as Dockerfile instructions for an import."""
    environment = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        VERSION_VARIABLE: python_version,
    }
    pairs = {"ENV": environment, "LABEL": image_labels()}
    made = [
        f'{instruction} {name}="{value}"'
        for instruction, values in pairs.items()
        for name, value in values.items()
    ]
    return [*made, "USER 65534:65534", "WORKDIR /work", 'CMD ["python3"]']


def mmdebstrap_command(*, as_root: bool) -> list[str]:
    """The command that writes the image's file system to stdout, as a tar.

    Packages come from where this machine's apt gets its own.

    Raises:
        SandboxUnavailable: mmdebstrap or apt is not there, or apt knows no source.
    """
    program, apt = shutil.which("mmdebstrap"), shutil.which("apt-get")
    if not program or not apt:
        raise SandboxUnavailable(
            "The image cannot be built from Debian packages: "
            f"{'apt-get' if program else 'mmdebstrap'} is not installed.",
            remedy="On Debian or Ubuntu: apt-get install mmdebstrap",
        )
    if not as_root and not shutil.which("newuidmap"):
        raise SandboxUnavailable(
            "The image cannot be built from Debian packages: that needs root or "
            "user namespaces, and newuidmap is not installed.",
            remedy="apt-get install uidmap, or run it as root.",
        )
    suite, keyring = _suite()
    return [
        program,
        f"--mode={'root' if as_root else 'unshare'}",
        "--variant=extract",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--aptopt={option}" for option in _apt_options()),
        *([f"--keyring={keyring}"] if keyring.exists() else []),
        f'--extract-hook=chroot "$1" /bin/sh -euc {shlex.quote(FINISH)}',
        "--format=tar",
        suite,
        "-",
        *_sources(apt, suite),
    ]


def _suite() -> tuple[str, Path]:
    """This machine's release, and where its distribution keeps its signing keys."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    keyring = f"/usr/share/keyrings/{release.get('ID')}-archive-keyring.gpg"
    return release.get("VERSION_CODENAME", "stable"), Path(keyring)


def _sources(apt: str, suite: str) -> list[str]:
    """The distribution's own lines among the sources that apt is set up with."""
    # apt knows both of its formats and what is switched off; a parser here would not.
    listed = _read(
        apt,
        "indextargets",
        "--format=$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    )
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    sources = []
    for line in listed:
        uri, release, component = line.split(maxsplit=2)
        if release in wanted and component in {"main", "universe"}:
            sources.append(f"deb {uri} {release} {component}")
    if not sources:
        raise SandboxUnavailable(
            f"The image cannot be built from Debian packages: apt has no source for "
            f"{suite}.",
            remedy="Set up apt's sources, then: apt-get update",
        )
    return list(dict.fromkeys(sources))


def _apt_options() -> list[str]:
    """How this machine's apt reaches and checks its sources, e.g. a proxy."""
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
    config = shutil.which("apt-config")
    if not config:
        return []
    return [
        line
        for line in _read(config, "dump", "--no-empty", "Acquire")
        if line.startswith(wanted)
    ]


def _read(*command: str) -> list[str]:
    done = subprocess.run(  # noqa: S603 - apt's own programs, no input of a user
        command, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.splitlines()
