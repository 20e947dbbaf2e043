"""An engine connects when it is used, and every failure is ours, with a remedy."""

import socket
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentfarm.containers import Engine
from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable


def test_making_an_engine_costs_no_import_and_no_connection():
    code = (
        "import sys; from agentfarm.containers import Engine;"
        "Engine('unix:///nowhere.sock').close();"
        "print({'docker', 'requests', 'urllib3'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("given", "url", "path"),
    [
        (None, "unix:///var/run/docker.sock", "/var/run/docker.sock"),
        ("/run/x.sock", "unix:///run/x.sock", "/run/x.sock"),
        ("unix:///Run/x.sock", "unix:///Run/x.sock", "/Run/x.sock"),
        ("unix://Run/x.sock", "unix:///Run/x.sock", "/Run/x.sock"),
        ("tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375", None),
        ("tcp://me:secret@10.0.0.1:2375", "tcp://10.0.0.1:2375", None),
        ("ssh://me@box", "ssh://box", None),
    ],
)
def test_an_address_is_shown_in_one_form_without_credentials(given, url, path):
    engine = Engine(given)
    assert (engine.url, engine.socket_path) == (url, path)
    assert "secret" not in repr(engine)


def unavailable(engine: Engine) -> SandboxUnavailable:
    with pytest.raises(SandboxUnavailable) as caught, engine:
        _ = engine.api
    return caught.value


def test_without_the_sdk_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    monkeypatch.setitem(sys.modules, "docker.api", None)
    assert "agentfarm[sandbox]" in str(unavailable(Engine()))


def test_without_a_socket_it_says_what_to_install(tmp_path):
    error = unavailable(Engine(f"unix://{tmp_path}/none.sock"))
    assert f"unix://{tmp_path}/none.sock" in error.message
    assert "apt-get install docker.io" in error.remedy
    assert "AGENTFARM_DOCKER_HOST" in error.remedy


def test_a_socket_without_permission_names_the_group(stub, as_nobody):
    made = stub()
    made.path.chmod(0)
    Engine(made.url).api.close()  # root may, and loads the SDK before it is nobody
    as_nobody()
    error = unavailable(Engine(made.url))
    assert "may not use" in error.message
    assert "usermod -aG docker" in error.remedy
    assert "rootless" in error.remedy


def test_a_socket_that_nobody_serves_is_told_from_none(tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    error = unavailable(Engine(str(tmp_path / "left.sock")))
    assert "No Docker engine listens" in error.message
    assert "systemctl start docker" in error.remedy


def test_a_refused_tcp_connection_says_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = unavailable(Engine(f"tcp://127.0.0.1:{port}"))
    assert f"No Docker engine listens at tcp://127.0.0.1:{port}" in error.message


def test_an_engine_that_never_answers_is_given_up_in_time(stub):
    made = stub(lambda method, path: stub.HANG)
    error = unavailable(Engine(made.url, timeout_s=0.2))
    assert "did not answer within 0.2 s" in error.message


def test_a_server_that_hangs_up_is_no_engine(stub):
    error = unavailable(Engine(stub(lambda method, path: stub.DROP).url))
    assert "broke the connection off" in error.message


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://10.0.0.1", "tcp://me:secret@10.0.0.1:1"]
)
def test_a_malformed_address_is_named_without_its_password(url):
    error = unavailable(Engine(url))
    assert "AGENTFARM_DOCKER_HOST" in error.remedy
    assert "secret" not in str(error)


def test_a_failed_connection_is_tried_anew(stub):
    answers = iter([stub.DROP])
    made = stub(lambda method, path: next(answers, None))
    engine = Engine(made.url)
    unavailable(engine)
    with engine:
        assert engine.api.api_version == "1.41"


def test_threads_share_one_connection_attempt(stub):
    made = stub()
    barrier = threading.Barrier(8)

    def use(_):
        barrier.wait()
        return engine.api

    with Engine(made.url) as engine, ThreadPoolExecutor(8) as pool:
        assert len(set(map(id, pool.map(use, range(8))))) == 1
    assert made.requests == [("GET", "/version")]


def test_a_closed_engine_connects_anew(stub):
    made = stub()
    engine = Engine(made.url)
    for _ in range(2):
        with engine:
            _ = engine.api
    assert len(made.requests) == 2


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ((500, {"message": "disk full."}), SandboxError, "disk full (HTTP 500)."),
        ((409, {"message": "in use"}), SandboxError, "in use (HTTP 409)."),
        ("HANG", SandboxTimeout, "no answer within 2 s"),
        ("DROP", SandboxUnavailable, "broke the connection off"),
        (
            (404, {"message": "No such image: x:latest"}),
            SandboxUnavailable,
            "No such image: x:latest",
        ),
    ],
)
def test_a_failed_call_names_what_was_tried_on_what(stub, given, kind, said):
    answer = getattr(stub, given) if isinstance(given, str) else given
    made = stub(lambda method, path: None if path == "/version" else answer)
    with Engine(made.url, timeout_s=2 if given == "HANG" else 30) as engine:
        with pytest.raises(SandboxError) as caught, engine.calls("ask it") as api:
            api.info()
        assert type(caught.value) is kind
        assert f"Tried to ask it on the Docker engine at {made.url}" in str(
            caught.value
        )
        assert said in caught.value.message


def test_a_missing_image_says_how_to_build_it(stub):
    made = stub(lambda method, path: (404, {"message": "No such image: x"}))
    with (
        Engine(made.url) as engine,
        pytest.raises(SandboxUnavailable, match="agentfarm sandbox build"),
        engine.calls("create a container") as api,
    ):
        api.create_container("x", "y")


def test_a_failure_of_the_caller_passes_unchanged(stub):
    with (
        Engine(stub().url) as engine,
        pytest.raises(ZeroDivisionError),
        engine.calls("divide"),
    ):
        _ = 1 / 0


def test_a_failure_is_not_blamed_on_what_the_caller_was_busy_with(stub, tmp_path):
    made = stub(lambda method, path: None if path == "/version" else stub.DROP)

    def ask() -> None:
        try:
            (tmp_path / "none").read_text()
        except FileNotFoundError:
            with engine.calls("ask it") as api:
                api.info()

    with (
        Engine(made.url) as engine,
        pytest.raises(SandboxError, match="broke the connection off"),
    ):
        ask()


def test_an_ignored_status_ends_the_block_and_others_do_not(stub):
    statuses = iter([404, 500])
    made = stub(
        lambda method, path: (
            None if path == "/version" else (next(statuses), {"message": "no"})
        )
    )
    reached = False
    with Engine(made.url) as engine:
        with engine.calls("look", ignore=(404,)) as api:
            api.inspect_volume("x")
            reached = True
        assert not reached
        with (
            pytest.raises(SandboxError, match="HTTP 500"),
            engine.calls("look", ignore=(404,)) as api,
        ):
            api.inspect_volume("x")


def test_removal_waits_for_the_one_under_way(stub):
    """Else the volumes of the container would still be in use."""

    def answer(method, path):
        if method == "DELETE":
            return 409, {"message": "removal of container x is already in progress"}
        return 200, {"StatusCode": 0}

    made = stub(answer)
    with Engine(made.url) as engine:
        assert engine.remove_container("x") is False
    assert made.requests[1:] == [
        ("DELETE", "/v1.41/containers/x"),
        ("POST", "/v1.41/containers/x/wait"),
    ]
    assert made.queries[-1] == "condition=removed"


@pytest.mark.docker
def test_what_is_gone_already_is_done(engine):
    name = uuid.uuid4().hex
    assert engine.kill(name) is False
    assert engine.remove_container(name) is False
    assert engine.remove_volume(name) is False
    assert engine.remove_network(name) is False


@pytest.mark.docker
def test_kill_and_removal_of_a_running_and_a_stopped_container(engine, image, tidy):
    made = engine.api.create_container(image, ["/pause"], labels={"test": tidy})["Id"]
    assert engine.kill(made) is False  # not started yet
    engine.api.start(made)
    assert engine.kill(made) is True
    assert engine.api.wait(made)["StatusCode"] == 137
    assert engine.kill(made) is False
    assert engine.remove_container(made) is True
    assert engine.remove_container(made) is False


@pytest.mark.docker
def test_removal_kills_and_takes_nameless_volumes_along(engine, image, tidy):
    made = engine.api.create_container(
        image, ["/pause"], labels={"test": tidy}, volumes=["/data"]
    )["Id"]
    engine.api.start(made)
    volume = engine.api.inspect_container(made)["Mounts"][0]["Name"]
    assert engine.remove_container(made) is True
    with pytest.raises(SandboxError, match="404"), engine.calls("look") as api:
        api.inspect_volume(volume)


@pytest.mark.docker
def test_what_is_in_use_is_left(engine, image, tidy):
    volume = engine.api.create_volume(labels={"test": tidy})["Name"]
    network = engine.api.create_network(
        f"test-{uuid.uuid4().hex}", labels={"test": tidy}, internal=True
    )["Id"]
    made = engine.api.create_container(
        image,
        ["/pause"],
        labels={"test": tidy},
        volumes=["/data"],
        host_config=engine.api.create_host_config(
            binds=[f"{volume}:/data"], network_mode=network
        ),
    )["Id"]
    engine.api.start(made)
    assert engine.remove_volume(volume) is False
    assert engine.remove_network(network) is False
    engine.remove_container(made)
    assert engine.remove_volume(volume) is True
    assert engine.remove_network(network) is True


@pytest.mark.docker
def test_the_real_engine_says_what_it_is(engine):
    info = engine.info()
    assert info.url == engine.url
    assert info.product == "Docker Engine"
    assert info.version
    assert info.version[0].isdigit()
    assert info.api_version.startswith("1.")
    assert info.runtimes
    assert info.default_runtime in info.runtimes
    assert info.cpus >= 1
    assert info.memory_bytes > 2**20
    if info.socket_path:
        assert info.socket_mode is not None
