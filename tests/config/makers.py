"""Values, keys and signers that the tests of `config` share."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

STEADY = settings(deadline=None, derandomize=True, max_examples=100)
"""The same examples in every run, however slow the machine."""

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
"""Any text that strict JSON takes: no lone surrogate, no NUL."""

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)

json_objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(texts, json_values, max_size=4)
