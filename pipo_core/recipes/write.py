"""Recipes as YAML text."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipo_core.recipes.yaml_positions import SCALARS


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or this package's reader would take for something other than text (`no`, `1e5`)."""


for _tag, _pattern, _first in SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def to_yaml(values: Mapping[str, Any]) -> str:
    """Return the text that `load.parse_recipe` reads as `values`, keys in their order."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text
