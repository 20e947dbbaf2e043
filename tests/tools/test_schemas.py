"""A schema is checked once, whoever asks, and reaches nobody outside."""

import socket
import threading

import pytest
from jsonschema import SchemaError
from referencing.exceptions import Unresolvable

from agentfarm.tools._schemas import validator_of


def test_equal_schemas_share_one_validator():
    first, second = (
        {"type": "object", "properties": {"shared": {"type": "integer"}}}
        for _ in range(2)
    )
    assert validator_of(first) is validator_of(second)
    first["properties"]["shared"] = {"type": "string"}
    assert not validator_of(second).is_valid({"shared": "1"})
    assert validator_of(first).is_valid({"shared": "1"})


def test_true_is_not_taken_for_one():
    assert not validator_of({"const": True}).is_valid(1)
    assert validator_of({"const": 1}).is_valid(1)


def test_a_wrong_schema_is_refused_each_time():
    for _ in range(2):
        with pytest.raises(SchemaError):
            validator_of({"type": "no such type"})


def test_a_remote_reference_is_not_fetched():
    asked = threading.Event()

    def listen(server):
        try:
            server.accept()
        except OSError:
            return
        asked.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        listener = threading.Thread(target=listen, args=(server,))
        listener.start()
        validator = validator_of({"$ref": f"http://127.0.0.1:{port}/schema.json"})
        with pytest.raises(Unresolvable):
            validator.is_valid({})
        server.shutdown(socket.SHUT_RDWR)
        listener.join()
    assert not asked.is_set()
