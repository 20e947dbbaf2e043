"""The token file, and the buckets that slow down who asks too often."""

import json
import stat

import pytest

from agentfarm.errors import ConfigError
from agentfarm.web._limits import RateLimit, client_key
from agentfarm.web._tokens import load_tokens


def test_tokens_are_made_once_and_only_their_owner_reads_them(tmp_path):
    path = tmp_path / "new" / "web-tokens.json"
    tokens, made = load_tokens(path)
    assert made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tokens.operator != tokens.read_only
    assert len(tokens.operator) >= 40
    assert load_tokens(path) == (tokens, False)


def test_a_file_that_others_may_read_is_not_used(tmp_path):
    path = tmp_path / "tokens"
    load_tokens(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="read by others"):
        load_tokens(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not JSON",
        "[]",
        '{"operator": "short", "read_only": "short"}',
        json.dumps({"operator": "x" * 20, "read_only": "x" * 20}),
        json.dumps({"operator": "x" * 20, "read_only": ""}),
        json.dumps({"operator": "x" * 20, "read_only": "y" * 20 + "; Path=/"}),
        json.dumps({"operator": "x" * 20, "read_only": 5}),
    ],
)
def test_a_file_without_two_good_tokens_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "tokens"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="two tokens") as caught:
        load_tokens(path)
    assert path.read_text() == content
    assert "x" * 20 not in str(caught.value)


def test_a_place_where_no_file_can_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="token file"):
        load_tokens(tmp_path / "file" / "tokens")
    with pytest.raises(ConfigError, match="token file"):
        load_tokens(tmp_path)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_allows_a_burst_and_then_the_rate():
    clock = Clock()
    limit = RateLimit(2.0, 3, clock=clock)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.take("b") == 0
    clock.now += 0.25
    assert limit.wait_s("a") == 0.25
    clock.now += 0.25
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    clock.now += 1000
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_buckets_of_those_who_asked_long_ago_are_forgotten():
    limit = RateLimit(1.0, 1, clock=Clock())
    for number in range(5000):
        limit.take(str(number))
    assert limit.take("4999") > 0
    assert limit.take("0") == 0


def test_an_ipv6_client_cannot_change_its_address_to_ask_more():
    assert client_key("2001:db8::1") == client_key("2001:db8::ffff:2")
    assert client_key("2001:db8:0:1::1") != client_key("2001:db8::1")
    assert client_key("10.0.0.1") == "10.0.0.1"
    assert client_key("") == ""
