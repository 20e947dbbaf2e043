"""Validators of JSON schemas, each schema checked once however often it is used."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jsonschema.protocols import Validator

KEPT = 256


def validator_of(schema: Mapping[str, Any]) -> Validator:
    """The validator of a schema (draft 2020-12), which itself is valid.

    Whether it is takes milliseconds to find out, and each workflow makes its agents
    and tools anew: so those of equal schemas share one, found by its JSON text.

    Raises:
        SchemaError: The schema is not valid.
    """
    return _checked(json.dumps(dict(schema)))


@lru_cache(maxsize=KEPT)
def _checked(text: str) -> Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    # An empty registry: the default one would fetch a remote $ref.
    return Draft202012Validator(schema, registry=Registry())
