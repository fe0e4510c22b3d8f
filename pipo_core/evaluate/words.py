"""Figures of an evaluation as text: shares in percent, costs with their units, limits."""

from collections.abc import Mapping
from typing import Any

from pipo_core.tables import ABSENT


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f}"


def gate_text(arm: Mapping[str, Any]) -> str:
    """Return what decided which drafts were kept: the threshold, or a share that is kept without looking."""
    if arm.get("acceptance") is not None:
        return f"{100 * arm['acceptance']:.3g} % blindly"
    return ABSENT if arm["tau"] is None else f"{arm['tau']:g}"


def count_text(value: float | None) -> str:
    """Return a mean number of tokens or steps."""
    return ABSENT if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def seconds_text(value: float | None) -> str:
    """Return seconds, in three significant digits."""
    return ABSENT if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def gigabytes_text(value: float | None) -> str:
    """Return bytes in units of 10^9, in three significant digits."""
    return ABSENT if value is None else f"{value / 1e9:,.0f}" if value >= 1e11 else f"{value / 1e9:.3g}"


def limit_text(limit: int) -> str:
    """Return a limit, in units of 1,024 where it is a multiple: 32K."""
    return f"{limit // 1024}K" if limit % 1024 == 0 else f"{limit:,}"
