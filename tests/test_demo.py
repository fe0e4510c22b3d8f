"""The demo's whole line in small: every stage runs through the `pipo` command, and a second run has nothing to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = (
    "answers.problems.count=12",
    "answers.samples=2",
    "pipo-sft.max_steps=3",
    "pipo-sft.save.every_steps=2",
    "pipo-sft.log_every_steps=1",
    "pipo-sft.launch.threads=1",
    "opd.max_steps=2",
    "opd.log_every_steps=1",
    "opd.batch.per_device=4",
    "opd.rollout.slots=16",
    "regular-sft.max_steps=3",
    "regular-sft.log_every_steps=1",
    "regular-sft.launch.threads=1",
    "eval.problems.count=6",
    "eval.samples=2",
    "eval.budget={tokens: 40, slots: 40}",
    "bench.prompt_tokens=[16]",
    "bench.trials=2",
    "bench.new_tokens=8",
)


def pipo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipo_cli.main", *words], capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.slow
def test_the_demo_in_small(tmp_path: Path) -> None:
    words = ("run", "recipes/demo.yaml", *SMALL, "--out", str(tmp_path), "--json")
    first = pipo(*words)
    assert first.returncode == 0, first.stderr[-4000:]
    result = json.loads(first.stdout)
    assert [stage["skipped"] for stage in result["stages"]] == [False] * 9

    report = Path(result["report"]).read_text()
    assert "regular-sft" in report
    for line in report.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "demo" / line.split("(")[1].rstrip(")")).stat().st_size > 5000

    results = json.loads((tmp_path / "demo" / "eval" / "results.json").read_text())
    for name in ("pipo-sft", "pipo-opd"):
        by_tau = {arm["tau"]: arm["budgets"]["tokens"] for arm in results["suites"][0]["arms"] if arm["arm"] == name}
        # At τ = 1 no draft is made, so no share of them was kept.
        kept = [by_tau[tau]["drafts_kept"] or 0.0 for tau in sorted(by_tau)]
        assert kept == sorted(kept, reverse=True), "a higher threshold kept more drafts"
        assert all(1.0 <= arm["tokens_per_slot"] <= 2.0 for arm in by_tau.values())
    assert report.count("expected calibration error") == 2  # of both trainings of pairs

    again = pipo(*words)
    assert again.returncode == 0, again.stderr[-4000:]
    assert all(stage["skipped"] for stage in json.loads(again.stdout)["stages"])
