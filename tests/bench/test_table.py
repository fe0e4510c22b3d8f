from typing import Any

from pipo_core.bench.table import latency_tables
from tests.samples import bench


def test_the_tables_have_medians_in_milliseconds_with_quartiles() -> None:
    times, steps = latency_tables(bench())
    assert times.title == "4 trials of 16 new tokens, batch 1, on cpu; medians [quartiles]; ×: speed-up over regular"
    regular, pipo = (dict(zip(times.columns, row, strict=True)) for row in times.rows)
    assert regular["TTFT ms"] == "20.00 [18.00, 22.00]"
    assert (pipo["prompt tokens"], pipo["arm"]) == ("64", "pipo@0.5")
    assert (pipo["TTFT ×"], pipo["TPOT ms"]) == ("1.50×", "6.67 [6.00, 7.33]")
    assert steps.rows == [["64", "regular", "1.00", "–", "50 %"], ["64", "pipo@0.5", "1.80", "80.0", "50 %"]]
    for table in (times, steps):
        assert [table.columns[number] for number in table.words] == ["arm"]


def test_without_a_baseline_there_are_no_speed_ups() -> None:
    results: dict[str, Any] = bench() | {"baseline": None}
    for arm in results["lengths"][0]["arms"]:
        arm["speedup"] = None
    times, steps = latency_tables(results)
    assert "speed-up" not in times.title
    assert times.columns == ["prompt tokens", "arm", "TTFT ms", "TPOT ms"]
    assert steps.columns == ["prompt tokens", "arm", "tokens a slot", "drafts kept %", "TPOT of limit"]
