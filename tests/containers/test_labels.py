"""What a dead process left is removed, and nothing else."""

import math
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentfarm import __version__
from agentfarm.containers import Engine, Owned, Reaped, labels, owned, reap
from agentfarm.containers import _labels as labels_module
from agentfarm.containers._owner import Owner
from agentfarm.errors import SandboxError, SandboxUnavailable

# Makes one of each, says their ids, and waits to be killed.
MAKER = """
import sys
from agentfarm.containers import Engine, _labels, labels
image, _labels.OWNER = sys.argv[1:]
marks = labels("test", lifetime_s=3600)
api = Engine().api
volume = api.create_volume(labels=marks)["Name"]
network = api.create_network("test-" + volume, labels=marks, internal=True)["Id"]
host = api.create_host_config(binds=[volume + ":/data"], network_mode=network)
container = api.create_container(
    image, ["/pause"], labels=marks, volumes=["/data"], host_config=host
)["Id"]
api.start(container)
print(container, volume, network, flush=True)
sys.stdin.read()
"""


def dead_owner() -> str:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    me = Owner.of_this_process()
    return f"{me.boot}:{me.pid_namespace}:{process.pid}:1"


def left(engine) -> set[str]:
    return {item.id for item in owned(engine)}


def test_labels_say_what_whose_until_when_and_by_which_version():
    before = time.time()
    made = labels("vault", lifetime_s=60)
    assert made["agentfarm.kind"] == "vault"
    assert made["agentfarm.version"] == __version__
    assert Owner.parse(made["agentfarm.owner"]).is_alive() is not False
    assert before + 60 <= int(made["agentfarm.expires"]) <= time.time() + 61
    assert len(made) == 4


@pytest.mark.parametrize("lifetime_s", [0, -1, math.inf, math.nan])
def test_a_lifetime_is_above_zero_and_finite(lifetime_s):
    with pytest.raises(ValueError, match="lifetime_s"):
        labels("vault", lifetime_s=lifetime_s)


def test_a_kind_has_a_name():
    with pytest.raises(ValueError, match="kind"):
        labels("", lifetime_s=1)


@pytest.mark.parametrize(
    ("alive", "expires_in_s", "orphaned"),
    [
        (True, 60, False),
        (True, -1, True),
        (True, None, False),
        (False, 60, True),
        (False, None, True),
        (None, 60, False),
        (None, -1, True),
        (None, None, False),
    ],
)
def test_orphaned_is_what_expired_or_whose_owner_is_dead(alive, expires_in_s, orphaned):
    item = Owned(
        type="volume",
        kind="test",
        id="x",
        name="x",
        owner_alive=alive,
        expires_at=None if expires_in_s is None else time.time() + expires_in_s,
    )
    assert item.orphaned is orphaned


@pytest.mark.docker
def test_after_a_kill_exactly_what_the_process_left_is_removed(
    engine, image, tidy, request
):
    marks = labels("test", lifetime_s=3600)  # of this process, which lives
    mine = engine.api.create_volume(labels=marks)["Name"]
    my_container = engine.api.create_container(image, ["/pause"], labels=marks)["Id"]
    unlabelled = engine.api.create_volume()["Name"]
    request.addfinalizer(lambda: engine.remove_volume(unlabelled))

    with subprocess.Popen(
        [sys.executable, "-c", MAKER, image, tidy],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as maker:
        theirs = maker.stdout.readline().split()
        assert len(theirs) == 3
        while_alive = reap(engine)
        assert while_alive == Reaped()
        assert left(engine) == {mine, my_container, *theirs}
        maker.kill()

    assert reap(engine) == Reaped(containers=1, volumes=1, networks=1)
    assert left(engine) == {mine, my_container}
    assert engine.api.inspect_volume(unlabelled)["Name"] == unlabelled
    assert reap(engine) == Reaped()


@pytest.mark.docker
def test_everything_takes_what_the_living_own_and_nothing_unlabelled(
    engine, image, tidy, request
):
    marks = labels("test", lifetime_s=3600)
    engine.api.create_volume(labels=marks)
    engine.api.start(engine.api.create_container(image, ["/pause"], labels=marks)["Id"])
    kind_only = engine.api.create_volume(labels={"agentfarm.kind": "test"})["Name"]
    request.addfinalizer(lambda: engine.remove_volume(kind_only))
    assert reap(engine, everything=True) == Reaped(containers=1, volumes=1)
    assert left(engine) == set()
    assert engine.api.inspect_volume(kind_only)


@pytest.mark.docker
def test_owned_describes_each(engine, image, tidy):
    marks = labels("vault", lifetime_s=3600)
    name = f"test-{uuid.uuid4().hex}"
    engine.api.create_volume(name, labels=marks)
    engine.api.create_network(name, labels=marks, internal=True)
    engine.api.create_container(image, ["/pause"], labels=marks, name=name)
    found = owned(engine)
    assert [item.type for item in found] == ["container", "volume", "network"]
    for item in found:
        assert (item.kind, item.name, item.owner_alive) == ("vault", name, True)
        assert item.expires_at == int(marks["agentfarm.expires"])
        assert not item.orphaned


@pytest.mark.docker
@pytest.mark.parametrize(
    ("owner", "expires", "taken"),
    [
        ("dead", "in 1 h", True),
        ("dead", "soon", True),
        ("dead", None, True),
        ("alive", "soon", False),
        ("alive", None, False),
        ("alive", "1", True),
        ("elsewhere", "in 1 h", False),
        ("elsewhere", "1", True),
        ("elsewhere", "nan", False),
        ("garbage", "in 1 h", False),
        ("garbage", "soon", True),
        ("garbage", None, True),
        ("garbage", "1", True),
    ],
)
def test_malformed_labels_are_taken_only_from_nobody(
    engine, tidy, owner, expires, taken
):
    me = Owner.of_this_process()
    owners = {
        "dead": dead_owner(),
        "alive": str(me),
        "elsewhere": f"another-boot:{me.pid_namespace}:{me.pid}:1",
        "garbage": "me",
    }
    marks = {tidy: owners[owner]}
    if expires is not None:
        in_1_h = str(int(time.time() + 3600))
        marks["agentfarm.expires"] = in_1_h if expires == "in 1 h" else expires
    engine.api.create_volume(labels=marks)
    assert reap(engine) == Reaped(volumes=int(taken))
    assert len(left(engine)) == int(not taken)


@pytest.mark.docker
def test_several_may_reap_at_once(engine, image, tidy):
    marks = {tidy: dead_owner(), "agentfarm.kind": "test"}
    for _ in range(12):
        engine.api.create_volume(labels=marks)
    for _ in range(4):
        made = engine.api.create_container(image, ["/pause"], labels=marks)
        engine.api.start(made["Id"])
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: reap(engine), range(3)))
    assert sum(item.volumes for item in done) == 12
    assert sum(item.containers for item in done) == 4
    assert left(engine) == set()


def volume(name: str) -> dict:
    return {"Name": name, "Labels": {labels_module.OWNER: "nobody"}}


def test_one_that_cannot_be_removed_is_named_and_keeps_no_other(stub):
    def answer(method, path):
        if method == "DELETE":
            bad = path.endswith("/b")
            return (500, {"message": "device busy"}) if bad else (204, None)
        listing = [volume("a"), volume("b"), volume("c")]
        return 200, {"Volumes": listing} if path.endswith("/volumes") else []

    made = stub(answer)
    with (
        Engine(made.url) as engine,
        pytest.raises(SandboxError, match=r"1 of 3 .* volume b: .*device busy"),
    ):
        reap(engine)
    deleted = [path for method, path in made.requests if method == "DELETE"]
    assert [path[-1] for path in deleted] == ["a", "b", "c"]


def test_containers_go_before_what_they_hold(stub):
    def answer(method, path):
        marks = {labels_module.OWNER: "nobody"}
        if method == "DELETE":
            return 204, None
        if path.endswith("/volumes"):
            return 200, {"Volumes": [{"Name": "v", "Labels": marks}]}
        return 200, [{"Id": "x", "Name": "x", "Labels": marks}]

    made = stub(answer)
    with Engine(made.url) as engine:
        assert reap(engine).total == 3
    deleted = [path for method, path in made.requests if method == "DELETE"]
    assert [path.split("/")[2] for path in deleted] == [
        "containers",
        "volumes",
        "networks",
    ]


def test_an_engine_that_is_gone_ends_the_reaping(stub):
    def answer(method, path):
        if method == "DELETE":
            return stub.DROP
        listing = [volume("a"), volume("b")]
        return 200, {"Volumes": listing} if path.endswith("/volumes") else []

    made = stub(answer)
    with Engine(made.url) as engine, pytest.raises(SandboxUnavailable):
        reap(engine)
    assert sum(method == "DELETE" for method, _ in made.requests) == 1


def test_an_engine_with_nothing_of_ours(stub):
    made = stub(
        lambda method, path: (
            200,
            {"Volumes": None} if path.endswith("/volumes") else [],
        )
    )
    with Engine(made.url) as engine:
        assert owned(engine) == []
        assert reap(engine) == Reaped()
