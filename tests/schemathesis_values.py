"""What Schemathesis has to know of values beside the document: the rules that it tells only in words,
because generators of clients make nothing usable of a schema that contains itself."""

from __future__ import annotations

from typing import Any

import schemathesis

from config_manager.api.rest.models import NO_NUL
from config_manager.config.strict_json import MAX_INTEGER

_VALUE = {"$ref": "#/components/schemas/Value"}


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    schemas = raw_schema["components"]["schemas"]
    assert set(schemas["Value"]) == {"description"}
    assert schemas["Values"]["additionalProperties"] == {}
    schemas["Values"]["additionalProperties"] = _VALUE
    assert not {"propertyNames", "additionalProperties"} & set(schemas["JsonSchema"])
    schemas["JsonSchema"] |= {"propertyNames": NO_NUL, "additionalProperties": _VALUE}
    schemas["Value"]["anyOf"] = [
        {"type": ["null", "boolean"]},
        {"type": "number", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
        NO_NUL,
        {"type": "array", "items": _VALUE},
        {"type": "object", "propertyNames": NO_NUL, "additionalProperties": _VALUE},
    ]
