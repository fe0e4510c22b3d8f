"""Recipes as YAML text."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipo_core.recipes.yaml_positions import SCALARS


class _Dumper(yaml.SafeDumper):
    """Quotes texts that YAML 1.1 or this package's reader would not read as text (`no`, `1e5`)."""


for _tag, _pattern, _first in SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def to_yaml(values: Mapping[str, Any]) -> str:
    """Return YAML that `load.parse_recipe` reads as these values; the order of keys stays."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text
