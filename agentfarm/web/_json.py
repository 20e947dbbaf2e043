"""Any value as JSON that every reader takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic_core import PydanticSerializationError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["encode", "encode_model"]

_encoder = msgspec.json.Encoder(enc_hook=str)


def encode(value: Any) -> bytes:
    """JSON values as JSON; what JSON does not know becomes text, NaN becomes null."""
    try:
        return _encoder.encode(value)
    except (ValueError, TypeError, OverflowError):
        # A lone surrogate, a huge integer or an odd key, all of them rare.
        return _encode_anything(value)


def encode_model(model: BaseModel) -> bytes:
    """A model as JSON."""
    try:
        return model.model_dump_json().encode()
    except PydanticSerializationError:
        return _encode_anything(model.model_dump())


def _encode_anything(value: Any) -> bytes:
    text = json.dumps(value, default=str, skipkeys=True)
    # Python writes NaN and Infinity, which JSON does not know.
    return json.dumps(json.loads(text, parse_constant=lambda _: None)).encode()
