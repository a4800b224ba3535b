"""The library's validators, as we make each of them. Pure."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from config_manager.storage.decisions.schema_vocabulary import MAX_REGEX_BYTES


def compiled(schema: Any) -> Any:
    """A validator. schema: JSON Schema 2020-12 that was checked already."""
    return jsonschema_rs.Draft202012Validator(
        schema,
        validate_formats=True,
        offline=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=MAX_REGEX_BYTES),
    )
