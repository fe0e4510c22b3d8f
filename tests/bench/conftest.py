"""What benches of these tests share."""

import pytest

from pipo_core.bench.roofline import Device

PEAKS = Device("a CPU of the tests", 1e10, 1e12)
"""Its memory limits every step of these small models, whatever machine the tests run on."""


@pytest.fixture(autouse=True)
def peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every bench on a CPU have the same peaks, and spend no time on measuring them."""
    monkeypatch.setattr("pipo_core.bench.runner.measure_cpu", lambda: PEAKS)
