"""Attacks on a sandbox, each tried twice: as it ships, and with one limit lifted.

An attack that fails in both proves nothing, so every test here has its control. The
product cannot lift a limit; `Lifted` changes what the engine is told.
"""

import secrets
from pathlib import Path

import anyio
import pytest

from agentfarm.containers import Engine, labels
from agentfarm.tools.sandbox import DockerSandbox
from agentfarm.tools.sandbox._docker import INSTANCE_LABEL
from agentfarm.tools.sandbox._options import UID

HERE = Path(__file__).parent


CAPABILITIES = (
    "DAC_READ_SEARCH",
    "MKNOD",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_TIME",
    "SYSLOG",
)


def no_seccomp(options):
    security = options["HostConfig"]["SecurityOpt"]
    kept = [option for option in security if not option.startswith("seccomp=")]
    assert len(kept) < len(security)
    options["HostConfig"]["SecurityOpt"] = [*kept, "seccomp=unconfined"]


def new_privileges(options):
    options["HostConfig"]["SecurityOpt"].remove("no-new-privileges")


def root(options):
    """Without capabilities root must own what it writes."""
    options["User"] = "0:0"
    host = options["HostConfig"]
    host["Tmpfs"] = {
        path: text.replace(f"uid={UID},gid={UID}", "uid=0,gid=0")
        for path, text in host["Tmpfs"].items()
    }


def capabilities(options):
    """Only root keeps them over an exec."""
    root(options)
    del options["HostConfig"]["CapDrop"]
    options["HostConfig"]["CapAdd"] = [*CAPABILITIES]


def writable_root(options):
    options["HostConfig"]["ReadonlyRootfs"] = False


def bare_proc(options):
    """No path of /proc and /sys masked or mounted read-only."""
    options["HostConfig"] |= {"MaskedPaths": [], "ReadonlyPaths": []}


def devices_in_folders(options):
    host = options["HostConfig"]
    host["Tmpfs"] = {
        path: text.replace("nodev", "dev") for path, text in host["Tmpfs"].items()
    }


def all_devices(options):
    options["HostConfig"]["DeviceCgroupRules"] = ["c *:* rwm"]


def no_rlimits(options):
    del options["HostConfig"]["Ulimits"]


def supervisor(old, new):
    """Change the supervisor's text."""

    def change(options):
        *command, text = options["Cmd"]
        assert old in text
        options["Cmd"] = [*command, text.replace(old, new)]

    return change


def join_network(options, network):
    """A bridge, ``host``, or ``container:`` and its id."""
    options["NetworkDisabled"] = False
    options["HostConfig"]["NetworkMode"] = network
    if not network.startswith("agentfarm-"):  # it has settings and a name already
        options["HostConfig"].pop("Sysctls", None)
        del options["Hostname"]


def host_network(options):
    join_network(options, "host")


LIFTS = {
    "all devices": all_devices,
    "bare /proc": bare_proc,
    "capabilities": capabilities,
    "devices in folders": devices_in_folders,
    "dumpable supervisor": supervisor("PR_SET_DUMPABLE, 0", "PR_SET_DUMPABLE, 1"),
    "host network": host_network,
    "new privileges": new_privileges,
    "no rlimits": no_rlimits,
    "no seccomp": no_seccomp,
    "root": root,
    "writable root": writable_root,
}


class LiftedEngine(Engine):
    """Tells the engine something else than the sandbox meant."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    @property
    def api(self):
        api = super().api
        if not hasattr(api, "lifted"):
            create = api.create_container_from_config

            def create_changed(options, name):
                self.change(options)
                return create(options, name)

            api.create_container_from_config = create_changed
            api.lifted = True
        return api


@pytest.fixture(scope="module", autouse=True)
def nothing_left(engine, mark):
    """When the sandboxes of a module are closed, this process owns nothing."""
    yield
    ours = {"label": f"agentfarm.owner={mark['agentfarm.owner']}"}
    assert not engine.api.containers(all=True, filters=ours)
    assert not engine.api.volumes(filters=ours)["Volumes"]
    assert not engine.api.networks(filters=ours)


@pytest.fixture(scope="module")
def sandbox(engine, sandbox_image):
    """The sandbox as it ships."""
    sandbox = DockerSandbox(engine=engine, image=sandbox_image, timeout_s=30.0)
    yield sandbox
    anyio.run(sandbox.aclose)


@pytest.fixture(scope="module")
def relaxed(sandbox_image):
    """Call with names of limits, and what else shall change a container's options."""
    opened = []

    def relaxed(*names, change=lambda options: None, **arguments):
        def change_all(options):
            for name in names:
                LIFTS[name](options)
            change(options)

        arguments = {"timeout_s": 30.0, "pool": 0} | arguments
        engine = LiftedEngine(change_all)
        sandbox = DockerSandbox(engine=engine, image=sandbox_image, **arguments)
        opened.append(sandbox)
        return sandbox

    yield relaxed
    for sandbox in opened:
        anyio.run(sandbox.aclose)
        sandbox.engine.close()


@pytest.fixture(scope="session")
def join():
    """Call with the options of a container's creation and a network for it."""
    return join_network


@pytest.fixture(scope="module")
def lifted(relaxed):
    """Call with names of limits: one sandbox without them for all who ask."""
    opened = {}

    def lifted(*names):
        if names not in opened:
            opened[names] = relaxed(*names, pool=1)
        return opened[names]

    return lifted


@pytest.fixture(scope="session")
def here():
    """The folder of these tests."""
    return HERE


@pytest.fixture
def program():
    """Call with the code of an attack: what `Sandbox.run` takes."""

    def program(code, files=None):
        return {
            "python": f"from attack import *\n{code}",
            "files": {"attack.py": HERE / "attack.py", **(files or {})},
        }

    return program


@pytest.fixture
def attempt(program):
    """Run the code of an attack; gives the last word it printed, or how it died."""

    async def attempt(sandbox, code, **arguments):
        result = await sandbox.run(**program(code), **arguments)
        words = result.stdout.split()
        return words[-1] if words else f"exit {result.exit_code}: {result.stderr}"

    return attempt


@pytest.fixture
def pids_with():
    """Call with a word: the processes of this machine whose arguments hold it."""

    def pids_with(word):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if word.encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    return pids_with


@pytest.fixture(scope="session")
def until():
    """Wait until a function gives something true; gives that."""

    async def until(condition):
        with anyio.fail_after(20):
            while not (found := condition()):  # noqa: ASYNC110 - no event tells
                await anyio.sleep(0.02)
            return found

    return until


@pytest.fixture(scope="session")
def containers_of():
    """Call with a sandbox: its containers, as the engine lists them."""

    def containers_of(sandbox):
        ours = {"label": f"{INSTANCE_LABEL}={sandbox._instance}"}
        return sandbox.engine.api.containers(all=True, filters=ours)

    return containers_of


@pytest.fixture
def word():
    """A word that nobody else uses."""
    return f"word-{secrets.token_hex(8)}"


@pytest.fixture(scope="session")
def mark():
    """Labels for what a test makes on the engine itself."""
    return labels("test", lifetime_s=86_400.0)
