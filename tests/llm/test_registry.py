"""Which models are registered, where they are, and what the settings make of it."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from agentfarm.config import ModelSettings, load_settings
from agentfarm.errors import ConfigError
from agentfarm.events import EventBus, EventType
from agentfarm.llm import (
    ChatRequest,
    Health,
    LLMRouter,
    RegisteredModel,
    build_router,
    user,
)
from agentfarm.llm._registry import is_local_host
from agentfarm.llm.testing import FakeProvider, Reply, StubServer


@pytest.mark.parametrize(
    "host",
    [
        "http://localhost:11434",
        "http://LOCALHOST",
        "http://app.localhost",
        "http://127.0.0.1:8080/v1",
        "http://127.9.9.9",
        "http://[::1]:8080",
        "http://[::ffff:127.0.0.1]",
        "http://10.0.0.7",
        "http://172.31.255.1",
        "https://192.168.1.5:443",
        "http://169.254.3.4",
        "http://[fd00::1]",
        "http://[fe80::1%25eth0]",
        "http://0.0.0.0:8000",
        "http://gpu-box:8000",
        "http://gpu_box",
        "http://box.local",
        "http://box.lan",
        "http://box.home.arpa",
        "http://llm.corp.internal",
        "embedded",
        "embedded:SmolLM2-135M.gguf",
        "replay:session.jsonl",
    ],
)
def test_local_hosts(host):
    assert is_local_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "https://api.openai.com/v1",
        "http://8.8.8.8",
        "http://172.32.0.1",
        "http://100.64.0.1",
        "http://203.0.113.7",
        "http://[2001:4860:4860::8888]",
        "http://[::ffff:8.8.8.8]",
        "http://box.local.example.com",
        "http://box.notlocal",
        "http://localhost@example.com",
        "http://example.com\\@localhost",
        "http://example.com#localhost",
        "http://localhost.example.com",
        "http://lan.",
        "http://134744072",
        "http://0x08080808",
        "http://8.8",
        "http://local host",
        "http://\uff4cocalhost",
        "http://[bad",
        "http://",
        "",
    ],
)
def test_remote_hosts(host):
    assert not is_local_host(host)


def test_a_remote_host_is_refused_with_the_way_to_allow_it():
    remote = RegisteredModel(
        name="gpt", provider=FakeProvider(host="https://api.example.com")
    )
    with pytest.raises(ConfigError) as caught:
        LLMRouter([remote])
    text = str(caught.value)
    assert "'gpt'" in text
    assert "https://api.example.com" in text
    assert "AGENTFARM_LOCAL_ONLY=false" in text
    assert LLMRouter([remote], local_only=False).models == (remote,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "cannot be registered"),
        ({"max_concurrency": 0}, "cannot be registered"),
        ({"task_types": frozenset({"maths"})}, "unknown task type: maths"),
        ({"capabilities": frozenset({"tool"})}, "unknown capability: tool"),
    ],
)
def test_a_registration_without_sense_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        RegisteredModel(**{"name": "m", "provider": FakeProvider(), **fields})


def entry(**fields):
    return ModelSettings(**fields)


def registered(tmp_path, *entries, **fields):
    settings = load_settings(home=tmp_path / "home", models=entries, **fields)
    return build_router(settings).models


def test_the_embedded_model_is_there_without_any_setting(settings):
    router = build_router(settings)
    [model] = router.models
    assert (model.name, model.provider.kind) == ("embedded", "embedded")
    assert model.max_concurrency == settings.embedded.slots
    assert model.capabilities == {"json_schema"}
    assert not settings.home.exists()


def test_building_a_router_loads_no_model_runtime_and_no_analysis():
    code = (
        "import sys; from agentfarm.config import load_settings;"
        "from agentfarm.llm import build_router; build_router(load_settings());"
        "print(*{'xllamacpp', 'pandas', 'plotly'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == ""


def test_own_models_come_first_then_embedded_then_replay(tmp_path):
    models = registered(
        tmp_path,
        entry(
            name="qwen",
            provider="openai",
            url="http://127.0.0.1:8080/v1",
            model="org/qwen",
            context_length=8192,
            capabilities={"tools"},
            task_types={"planning"},
            max_concurrency=9,
        ),
        entry(name="llama", provider="ollama"),
        cassette=tmp_path / "session.jsonl",
    )
    assert [m.name for m in models] == ["qwen", "llama", "embedded", "replay"]
    qwen, llama, embedded, replay = models
    assert (qwen.model, qwen.context_length, qwen.max_concurrency) == (
        "org/qwen",
        8192,
        9,
    )
    assert (qwen.capabilities, qwen.task_types) == ({"tools"}, {"planning"})
    assert llama.provider.host == "http://127.0.0.1:11434"
    assert (llama.model, llama.max_concurrency) == ("llama", 4)
    assert 0 > embedded.preference > replay.preference


def test_an_entry_may_replace_the_built_in_models(tmp_path):
    models = registered(
        tmp_path, entry(name="embedded", provider="ollama", model="llama3.2")
    )
    assert [(m.name, m.provider.kind) for m in models] == [("embedded", "ollama")]


def test_models_of_one_server_share_its_provider(tmp_path):
    url = "http://127.0.0.1:8080"
    a, b, c, d, e, embedded = registered(
        tmp_path,
        entry(name="a", provider="openai", url=url),
        entry(name="b", provider="openai", url=url + "/"),
        entry(name="c", provider="openai", url="http://127.0.0.1:8081"),
        entry(name="d", provider="ollama", url=url),
        entry(name="e", provider="embedded"),
    )
    assert a.provider is b.provider
    assert len({id(m.provider) for m in (a, c, d, e)}) == 4
    assert e.provider is embedded.provider


def test_a_limit_that_one_entry_states_holds_for_its_host(tmp_path):
    router = build_router(
        load_settings(
            home=tmp_path / "home",
            models=(
                entry(name="a", provider="ollama", max_concurrency=12),
                entry(name="b", provider="ollama"),
            ),
        )
    )
    a, b, _ = router.status().models
    assert a.limit == b.limit == 12


def test_an_own_model_file_gets_its_own_server(tmp_path):
    gguf = tmp_path / "own.gguf"
    own, embedded = registered(
        tmp_path, entry(name="own", provider="embedded", gguf=gguf)
    )
    assert own.provider is not embedded.provider
    assert own.provider.host != embedded.provider.host


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provider": "openai"}, "'x' with provider 'openai' has no url"),
        ({"provider": "replay"}, "'x' with provider 'replay' has no cassette"),
        (
            {"provider": "ollama", "task_types": {"cooking"}},
            "unknown task type: cooking",
        ),
        (
            {"provider": "openai", "url": "https://api.example.com"},
            "remote host https://api.example.com",
        ),
    ],
)
def test_an_entry_that_cannot_work_is_refused_by_name(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        registered(tmp_path, entry(name="x", **fields))


def test_a_remote_host_may_be_allowed(tmp_path):
    [model, _] = registered(
        tmp_path,
        entry(name="x", provider="openai", url="https://api.example.com"),
        local_only=False,
    )
    assert model.provider.host == "https://api.example.com"


async def test_a_missing_key_breaks_its_own_model_only(tmp_path, stub):
    settings = load_settings(
        home=tmp_path / "home",
        models=(
            entry(
                name="locked",
                provider="openai",
                url=stub.url,
                api_key_env="NO_SUCH_KEY_SET",
            ),
            entry(name="stub", provider="openai", url=stub.url),
        ),
    )
    async with build_router(settings) as router:
        request = ChatRequest(messages=(user("hi"),), model="stub")
        assert (await router.complete(request)).text == "ok"
        locked = ChatRequest(messages=(user("hi"),), model="locked")
        with pytest.raises(ConfigError, match="NO_SUCH_KEY_SET is not set"):
            await router.complete(locked)
        rows = (await router.health()).models
    assert not rows[0].health.ok
    assert "NO_SUCH_KEY_SET" in rows[0].health.detail
    assert rows[1].health.ok


async def test_a_key_is_read_from_the_environment_and_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_KEY", "sesame")
    async with StubServer("let in", api_key="sesame") as stub:
        model = entry(name="s", provider="openai", url=stub.url, api_key_env="STUB_KEY")
        settings = load_settings(home=tmp_path / "home", models=(model,))
        async with build_router(settings) as router:
            request = ChatRequest(messages=(user("hi"),), model="s")
            assert (await router.complete(request)).text == "let in"


async def test_recording_and_replaying_by_settings_alone(tmp_path, stub):
    cassette = tmp_path / "session.jsonl"
    stub.queue.append(Reply("from the server"))
    settings = load_settings(
        home=tmp_path / "home",
        models=(entry(name="s", provider="openai", url=stub.url),),
    )
    async with build_router(settings, record=cassette) as router:
        await router.complete(ChatRequest(messages=(user("hi"),), model="s"))

    bus = EventBus()
    settings = load_settings(home=tmp_path / "home", cassette=cassette)
    async with build_router(settings, bus=bus) as router:
        request = ChatRequest(messages=(user("hi"),), model="replay")
        assert (await router.complete(request)).text == "from the server"
    [event] = bus.history(EventType.LLM_RESPONSE)
    assert event.data["record"].provider == "replay"
    assert len(stub.chats) == 1


# Status


async def test_health_asks_every_server_and_shows_what_is_wrong():
    class Stuck(FakeProvider):
        async def health(self):
            raise RuntimeError("<b>boom</b>")

    ill = FakeProvider(
        host="http://127.0.0.1:2", health=Health(ok=False, detail="down [red]")
    )
    router = LLMRouter(
        [
            RegisteredModel(name="a", provider=FakeProvider(), model="org/a"),
            RegisteredModel(name="b", provider=ill),
            RegisteredModel(name="c", provider=Stuck(host="http://127.0.0.1:3")),
        ]
    )
    assert router.status().ok
    status = await router.health()
    assert [row.health.ok for row in status.models] == [True, False, False]
    assert not status.ok
    html = status._repr_html_()
    assert "a (org/a)" in html
    assert "&lt;b&gt;boom" in html
    assert status.to_dict()["models"][1]["health"]["detail"] == "down [red]"


async def test_the_status_is_a_table_in_a_terminal():
    console = Console(width=200, record=True, file=io.StringIO())
    router = LLMRouter([RegisteredModel(name="m", provider=FakeProvider("hi"))])
    await router.complete(ChatRequest(messages=(user("hi"),), model="m"))
    console.print(router.status())
    text = console.export_text()
    assert "http://127.0.0.1/fake" in text
    assert "0/4" in text
    assert "closed" in text


@pytest.mark.parametrize(
    ("given", "inter_token_s"), [({}, 300.0), ({"inter_token_s": 7}, 7)]
)
def test_the_embedded_server_may_pause_unless_somebody_says_otherwise(
    tmp_path, given, inter_token_s
):
    settings = load_settings(home=tmp_path, timeouts=given)
    router = build_router(settings)
    provider = next(m.provider for m in router.models if m.name == "embedded")
    assert provider._timeouts.inter_token_s == inter_token_s
    assert settings.timeouts.inter_token_s == given.get("inter_token_s", 60.0)
