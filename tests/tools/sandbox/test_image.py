"""The sandbox image: what is in it, when it is stale, and both ways to build it."""

import hashlib
import io
import json
import os
import platform
import secrets
import socket
import sys
import tarfile
from pathlib import Path

import pytest

from agentfarm.errors import SandboxError, SandboxUnavailable
from agentfarm.tools.sandbox import SANDBOX_IMAGE, build_image, check_image
from agentfarm.tools.sandbox import _recipe as recipe

PROGRAMS = "awk bash cat diff find grep gzip ls patch pytest python python3 sed sh sort tar which xargs"
UNWANTED = "apt apt-get cc curl dpkg gcc nc perl pip sudo su wget"


@pytest.fixture
def run_in(engine):
    """Runs a command in a container without a network: status and output."""

    def run(image: str, *command: str, user: str = "65534") -> tuple[int, str]:
        with engine.calls("run a test's container") as api:
            container = api.create_container(
                image,
                command=list(command),
                entrypoint=[],
                user=user,
                host_config=api.create_host_config(network_mode="none"),
            )["Id"]
            try:
                api.start(container)
                status = api.wait(container)["StatusCode"]
                return status, api.logs(container).decode()
            finally:
                api.remove_container(container, force=True)

    return run


@pytest.fixture
def repository(engine):
    """A name for images of this test; they go with it."""
    name = f"agentfarm-test-{secrets.token_hex(6)}"
    yield name
    remove_all(engine, name)


SETUID_FILES = ("find", "/", "-xdev", "-perm", "/6000")


def remove_all(engine, repository):
    with engine.calls("remove a test's images", ignore=(404,)) as api:
        for image in api.images(name=repository):
            for tag in image["RepoTags"]:
                api.remove_image(tag)


def tags(engine, repository) -> set[str]:
    with engine.calls("list a test's images") as api:
        return {tag for image in api.images(repository) for tag in image["RepoTags"]}


def nameless(engine) -> set[str]:
    with engine.calls("list nameless images") as api:
        filters = {"dangling": True, "label": "agentfarm.kind=image"}
        return {image["Id"] for image in api.images(filters=filters)}


@pytest.fixture
def empty_image(engine):
    """Makes an image with one file, and labels, under a name."""
    made = []

    def make(tag: str, **labels: str) -> str:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            info = tarfile.TarInfo("note")
            info.size = 8
            tar.addfile(info, io.BytesIO(secrets.token_bytes(8)))
        changes = [
            f'LABEL agentfarm.{name}="{value}"' for name, value in labels.items()
        ]
        repository, _, name = tag.partition(":")
        with engine.calls("import a test's image") as api:
            api.import_image_from_data(
                archive.getvalue(), repository, name, changes=changes
            )
        made.append(tag)
        return tag

    yield make
    for tag in made:
        with engine.calls("remove a test's image", ignore=(404,)) as api:
            api.remove_image(tag)


def test_a_changed_recipe_has_a_new_number():
    # An image of the old recipe is stale only if RECIPE differs. So: whoever changes
    # the recipe raises RECIPE, in the Dockerfile too, and writes both down here.
    parts = (
        recipe.dockerfile(),
        *map(str.encode, recipe.PACKAGES),
        recipe.FINISH.encode(),
    )
    digest = hashlib.sha256(b"\0".join((*parts, *map(str.encode, recipe.LEFT_OUT))))
    assert (recipe.RECIPE, digest.hexdigest()[:16]) == ("2", "b98aa866c29d7bc4")
    assert f"agentfarm.recipe={recipe.RECIPE} " in recipe.dockerfile().decode()


# Debian packages: what mmdebstrap is told


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH of the test's own; call with a name and a shell script."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        (folder / name).chmod(0o755)

    return write


@pytest.fixture
def suite() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")
    except OSError:
        return "stable"


def test_packages_come_from_where_apt_gets_its_own(programs, suite):
    lines = [
        f"http://mirror.test/debian/ {suite} main",
        f"http://mirror.test/debian/ {suite} main",
        f"http://mirror.test/security/ {suite}-security main",
        f"http://mirror.test/debian/ {suite} non-free",
        "http://elsewhere.test/ nodistro main",
    ]
    programs("mmdebstrap", "exit 0")
    programs("apt-get", f"cat <<'.'\n{chr(10).join(lines)}\n.")
    programs("apt-config", """echo 'Acquire::http::Proxy "http://proxy.test:3128";'""")
    command = recipe.mmdebstrap_command(as_root=True)
    assert command[command.index(suite) :] == [
        suite,
        "-",
        f"deb http://mirror.test/debian/ {suite} main",
        f"deb http://mirror.test/security/ {suite}-security main",
    ]
    assert '--aptopt=Acquire::http::Proxy "http://proxy.test:3128";' in command
    assert "--mode=root" in command


def test_without_root_it_takes_a_user_namespace(programs, suite):
    programs("mmdebstrap", "exit 0")
    programs("apt-get", f"echo http://mirror.test/debian/ {suite} main")
    with pytest.raises(SandboxUnavailable, match="newuidmap"):
        recipe.mmdebstrap_command(as_root=False)
    programs("newuidmap", "exit 0")
    assert "--mode=unshare" in recipe.mmdebstrap_command(as_root=False)


def test_a_machine_without_mmdebstrap_hears_what_to_install(programs):
    programs("apt-get", "exit 0")
    with pytest.raises(SandboxUnavailable) as caught:
        recipe.mmdebstrap_command(as_root=True)
    assert "mmdebstrap is not installed" in caught.value.message
    assert caught.value.remedy == "On Debian or Ubuntu: apt-get install mmdebstrap"


def test_apt_without_sources_is_named(programs):
    programs("mmdebstrap", "exit 0")
    programs("apt-get", "exit 0")
    with pytest.raises(SandboxUnavailable, match="apt has no source"):
        recipe.mmdebstrap_command(as_root=True)


# What is in it


@pytest.mark.docker
def test_it_has_the_programs_that_a_model_expects_and_no_others(sandbox_image, run_in):
    look = "for name in {}; do command -v $name >/dev/null && echo $name; done; true"
    status, said = run_in(sandbox_image, "sh", "-c", look.format(PROGRAMS))
    assert (status, said.split()) == (0, PROGRAMS.split())
    assert run_in(sandbox_image, "sh", "-c", look.format(UNWANTED)) == (0, "")


@pytest.mark.docker
def test_it_has_what_verification_asks(sandbox_image, run_in):
    source = "def f(x: int) -> str:\n    return x\n"
    script = f"cd /tmp; printf '%s' '{source}' >a.py; python3 -I -m {{}} a.py"
    assert run_in(sandbox_image, "sh", "-c", script.format("pyflakes")) == (0, "")
    mypy = script.format("mypy --cache-dir=/dev/null")
    status, said = run_in(sandbox_image, "sh", "-c", mypy)
    assert status == 1
    assert "a.py:2: error: Incompatible return value type" in said


@pytest.mark.docker
def test_no_file_in_it_changes_the_user(sandbox_image, run_in):
    assert run_in(sandbox_image, *SETUID_FILES, user="0") == (0, "")


@pytest.mark.docker
def test_its_python_starts_from_bytecode(sandbox_image, run_in):
    script = """
import importlib.util, pathlib, sys
roots = [pathlib.Path(p) for p in sys.path if pathlib.Path(p).is_dir()]
sources = [s for root in roots for s in root.rglob("*.py")]
bare = [s for s in sources
        if not pathlib.Path(importlib.util.cache_from_source(s)).exists()]
print(len(sources), len(bare))
"""
    status, said = run_in(sandbox_image, "python3", "-c", script)
    sources, bare = map(int, said.split())
    assert status == 0
    assert sources > 500
    assert bare <= sources // 50  # a few are templates


@pytest.mark.docker
def test_it_says_what_it_is(engine, sandbox_image, run_in):
    state = check_image(engine)
    assert state.present
    assert not state.stale
    assert state.require() is state
    assert (state.reason, state.remedy) == ("", "")
    assert state.size_bytes < 200 * 2**20
    version = run_in(sandbox_image, "python3", "-V")[1].split()[1]
    assert state.python == version
    with engine.calls("inspect the image") as api:
        config = api.inspect_image(sandbox_image)["Config"]
    assert config["User"] == "65534:65534"
    assert config["WorkingDir"] == "/work"
    assert "PYTHONDONTWRITEBYTECODE=1" in config["Env"]


# Whether it is there


@pytest.mark.docker
def test_an_image_of_an_older_recipe_is_stale(engine, empty_image):
    old = empty_image(
        f"agentfarm-sandbox:test-{secrets.token_hex(4)}", kind="image", recipe="0"
    )
    present = check_image(engine, old)
    assert present.present
    assert present.stale
    assert "recipe 0" in present.reason

    newer = check_image(engine, f"agentfarm-sandbox:none-{secrets.token_hex(4)}")
    assert not newer.present
    assert newer.stale
    assert old in newer.reason
    with pytest.raises(SandboxUnavailable) as caught:
        newer.require()
    assert caught.value.remedy == "agentfarm sandbox build"


@pytest.mark.docker
def test_an_image_of_somebody_else_need_only_exist(engine, empty_image, repository):
    tag = f"{repository}:own"
    absent = check_image(engine, tag)
    assert (absent.present, absent.stale) == (False, False)
    assert absent.remedy == f"docker pull {tag}"
    empty_image(tag, kind="image", recipe="0")  # as if built on one of ours
    assert check_image(engine, tag).require().stale is False


# Building it


@pytest.fixture
def base_with_setuid(engine, sandbox_image, repository):
    """An image with python3, pytest and a program that makes everybody root."""
    script = "cp /usr/bin/id /usr/bin/root-id && chmod 4755 /usr/bin/root-id"
    with engine.calls("commit a test's image") as api:
        container = api.create_container(
            sandbox_image, ["sh", "-c", script], entrypoint=[], user="0"
        )["Id"]
        try:
            api.start(container)
            assert api.wait(container)["StatusCode"] == 0
            api.commit(container, f"{repository}-base", "1")
        finally:
            api.remove_container(container)
    yield f"{repository}-base:1"
    remove_all(engine, repository)  # what was built on it goes first
    remove_all(engine, f"{repository}-base")


@pytest.mark.docker
def test_the_dockerfile_builds_and_replaces_what_it_built_before(
    engine, base_with_setuid, repository, run_in, empty_image
):
    empty_image(f"{repository}:0", kind="image", recipe="0")
    foreign = empty_image(f"{repository}:mine")
    namesake = empty_image(f"{repository}:1", kind="image", recipe="1")
    with engine.calls("inspect an image") as api:
        replaced = api.inspect_image(namesake)["Id"]
    assert run_in(base_with_setuid, *SETUID_FILES, user="0")[1] == "/usr/bin/root-id\n"
    lines = []
    built = build_image(
        engine, base=base_with_setuid, tag=f"{repository}:1", on_line=lines.append
    )
    assert built.method == "registry"
    assert any("RUN" in line for line in lines)
    assert tags(engine, repository) == {f"{repository}:1", foreign}
    with engine.calls("list images") as api:
        assert replaced not in {image["Id"] for image in api.images(all=True)}
    assert run_in(built.tag, "python3", "-V")[1] == f"Python {built.python}\n"
    assert run_in(built.tag, *SETUID_FILES, user="0") == (0, "")
    with engine.calls("inspect the image") as api:
        found = api.inspect_image(built.tag)
    assert found["Id"] == built.id
    assert found["Size"] == built.size_bytes
    labels = found["Config"]["Labels"]
    assert labels["agentfarm.kind"] == "image"
    assert labels["agentfarm.recipe"] == recipe.RECIPE
    assert found["Config"]["User"] == "65534:65534"


@pytest.mark.docker
def test_a_base_without_python_fails_and_leaves_nothing(
    engine, empty_image, repository
):
    base = empty_image(f"{repository}:base")
    before = nameless(engine)
    with pytest.raises(SandboxError, match="cannot be built"):
        build_image(engine, base=base, tag=f"{repository}:1")
    assert tags(engine, repository) == {base}
    assert nameless(engine) <= before


@pytest.mark.docker
def test_an_unreachable_registry_and_no_mmdebstrap_name_both_ways(
    engine, programs, repository
):
    programs("apt-get", "exit 0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base = f"127.0.0.1:{closed.getsockname()[1]}/none:1"
        with pytest.raises(SandboxUnavailable) as caught:
            build_image(engine, base=base, tag=f"{repository}:1")
    assert "mmdebstrap is not installed" in caught.value.message
    assert base in caught.value.message
    assert f"docker pull {base}" in caught.value.remedy


@pytest.fixture
def mmdebstrap(programs, suite, tmp_path):
    """Stands in for mmdebstrap; call with what it does. It has apt beside it."""
    programs("apt-get", f"echo http://mirror.test/debian/ {suite} main")
    programs("newuidmap", "exit 0")
    return lambda script: programs("mmdebstrap", script)


@pytest.fixture
def unpacked(engine, sandbox_image, tmp_path) -> Path:
    """The image's file system, as a tar."""
    path = tmp_path / "root.tar"
    with engine.calls("export the image") as api:
        container = api.create_container(sandbox_image)["Id"]
        try:
            with path.open("wb") as file:
                file.writelines(api.export(container))
        finally:
            api.remove_container(container)
    return path


@pytest.mark.docker
def test_packages_become_the_same_image(
    engine, mmdebstrap, unpacked, repository, sandbox_image, run_in
):
    mmdebstrap(
        f"echo 'I: extracting' >&2\necho PYTHON_VERSION=3.0.9 >&2\ncat {unpacked}"
    )
    lines = []
    built = build_image(
        engine, method="debian", tag=f"{repository}:1", on_line=lines.append
    )
    assert built.method == "debian"
    assert "extracting" in lines
    assert f"Python {built.python}\n" == run_in(sandbox_image, "python3", "-V")[1]
    with engine.calls("inspect the image") as api:
        config = api.inspect_image(built.tag)["Config"]
    assert config["User"] == "65534:65534"
    assert config["WorkingDir"] == "/work"
    assert "PYTHON_VERSION=3.0.9" in config["Env"]
    assert config["Labels"].items() >= recipe.image_labels().items()


@pytest.mark.docker
def test_a_failing_mmdebstrap_is_quoted_and_leaves_nothing(
    engine, mmdebstrap, repository
):
    mmdebstrap("echo 'E: apt-get update failed' >&2\nexit 25")
    before = nameless(engine)
    with pytest.raises(SandboxError, match=r"status 25: E: apt-get update failed"):
        build_image(engine, method="debian", tag=f"{repository}:1")
    assert tags(engine, repository) == set()
    assert nameless(engine) <= before


@pytest.mark.docker
def test_packages_without_pytest_are_no_image(engine, mmdebstrap, tmp_path, repository):
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("nothing"))
    mmdebstrap(f"cat {tmp_path / 'root.tar'}")
    before = nameless(engine)
    with pytest.raises(SandboxError):
        build_image(engine, method="debian", tag=f"{repository}:1")
    assert tags(engine, repository) == set()
    assert nameless(engine) <= before


@pytest.mark.docker
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupt_ends_mmdebstrap(engine, mmdebstrap, repository, tmp_path):
    note = tmp_path / "pid"
    mmdebstrap(f"echo $$ > {note}\necho 'I: downloading' >&2\nexec sleep 1000")

    def interrupt(line: str) -> None:
        if line == "downloading":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_image(engine, method="debian", tag=f"{repository}:1", on_line=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert tags(engine, repository) == set()


def test_the_name_carries_the_recipe():
    assert f"agentfarm-sandbox:{recipe.RECIPE}" == SANDBOX_IMAGE
    assert json.dumps(recipe.image_labels())
