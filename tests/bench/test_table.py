from typing import Any

from pipo_core.bench.table import latency_table
from tests.samples import bench


def test_the_table_has_medians_in_milliseconds_with_quartiles() -> None:
    table = latency_table(bench())
    assert table.title == ("4 trials of 16 new tokens, batch 1, on cpu; medians [quartiles]; speed-ups over regular")
    regular, pipo = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert regular["TTFT ms"] == "20.00 [18.00, 22.00]"
    assert (pipo["prompt tokens"], pipo["arm"], pipo["tokens a slot"]) == ("64", "pipo@0.5", "1.80")
    assert (pipo["TTFT speed-up"], pipo["TPOT ms"]) == ("1.50×", "6.67 [6.00, 7.33]")
    assert [table.columns[number] for number in table.words] == ["arm"]


def test_without_a_baseline_there_are_no_speed_ups() -> None:
    results: dict[str, Any] = bench() | {"baseline": None}
    for arm in results["lengths"][0]["arms"]:
        arm["speedup"] = None
    table = latency_table(results)
    assert "speed-up" not in table.title
    assert table.columns == ["prompt tokens", "arm", "TTFT ms", "TPOT ms", "tokens a slot", "TPOT of limit"]
    assert [table.columns[number] for number in table.words] == ["arm"]
