"""What is written as a recipe is read as the same recipe."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipo_core.recipes.base import dump
from pipo_core.recipes.load import parse_recipe
from pipo_core.recipes.write import to_yaml
from pipo_core.recipes.yaml_positions import parse

_TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12),
    st.sampled_from(["1e5", "no", "0o17", "0x1F", "1_000", "2026-01-01", ".5", "~", "+.inf", "=", "<<", "1:30"]),
)
_VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-(2**40), 2**40)),
        *(st.floats(allow_nan=False, allow_infinity=False), _TEXTS),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_TEXTS, _VALUES, min_size=1, max_size=3))
@example({"beyond 16 bits": "\U0007651a"})
def test_plain_values_come_back(values: dict[str, object]) -> None:
    assert parse(to_yaml(values)).value == values
    assert parse(json.dumps(values, allow_nan=False)).value == values  # JSON is YAML, its escapes included


@pytest.mark.parametrize("name", ["1e5", "0x10", "12", "no", "true"])
def test_a_run_named_like_a_number_or_a_switch_comes_back(name: str) -> None:
    recipe = parse_recipe(f"kind: merge\nsource: .\nrun: '{name}'\n", "r.yaml")
    assert dump(parse_recipe(to_yaml(dump(recipe)), "again.yaml")) == dump(recipe)
