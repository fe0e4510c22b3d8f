"""What `docs/deploying.md` hands out: the unit, the image, the table."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.model.checkpoint import empty_model
from pipo_core.model.shapes import SHAPES, shape_config
from pipo_core.recipes.locate import bundled_model
from tools.serving_memory import context_bytes, table, weight_bytes

DOCS = Path(__file__).parents[1] / "docs"
UNIT, IMAGE = DOCS / "deploy" / "pipo.service", DOCS / "deploy" / "Dockerfile"


def start_line() -> list[str]:
    [line] = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
def test_the_unit_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / "pipo.service"
    unit.write_text(UNIT.read_text().replace(start_line()[0], sys.executable))
    found = subprocess.run([str(ANALYZE), "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in found.stderr.splitlines() if str(unit) in line or unit.name in line]
    assert not complaints


def test_the_unit_and_the_image_give_options_that_serve_has(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a-key")
    entry = IMAGE.read_text().partition("ENTRYPOINT ")[2]
    for words in (start_line()[1:], [str(word) for word in shlex.split(entry.replace(",", " ").strip("[]\n"))[1:]]):
        told = [str(key) if word.endswith("/key") else word for word in words]
        told[told.index("--ckpt") + 1] = str(bundled_model("tiny-student"))
        found = CliRunner().invoke(app, [*told, "--engine", "torch", "--dry-run"])
        assert found.exit_code == 0, found.output
        assert "api key: True" in found.output


def test_the_image_is_linted() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([str(hadolint), str(IMAGE)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_image_has_the_version_that_is_served() -> None:
    from pipo_core.sglang import TESTED_VERSION

    assert f"sglang=={TESTED_VERSION}" in IMAGE.read_text()


def test_the_table_is_the_tools() -> None:
    assert table() in (DOCS / "deploying.md").read_text()


def test_the_tools_bytes_are_those_of_a_model() -> None:
    name = "qwen3.5-0.8b"
    model = empty_model(shape_config(name))
    stored = sum(parameter.numel() for parameter in model.parameters())  # a tied head is counted once
    assert weight_bytes(name, pairs=True) == pytest.approx(2 * stored, rel=1e-3)
    for size in SHAPES:  # two contexts, so that keys and values stand apart from the states
        plain, pairs = (
            context_bytes(size, 2000, pairs=kind) - context_bytes(size, 1000, pairs=kind) for kind in (False, True)
        )
        full = SHAPES[size].layers // 4
        assert pairs / plain == pytest.approx((full + 1) / full / 2)
