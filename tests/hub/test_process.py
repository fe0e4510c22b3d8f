"""`pipo download` as a process of its own, and what recipes then find."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from typer.main import get_command

from pipo_cli.app import app
from pipo_core.model import load_checkpoint
from pipo_core.recipes.catalog import CATALOG
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.locate import bundled_model, find_recipe
from tests.cli.calls import pipo
from tests.hub.local_hub import LocalHub

ROOT = Path(__file__).resolve().parents[2]
ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\\nb"}]}\n'


def start(hub: LocalHub, tmp_path: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **more}
    # Shells let background jobs ignore SIGINT, and children inherit that: the child asks for Python's own handler.
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from pipo_cli.main import main\nmain()"
    command = [sys.executable, "-c", code, "download", *words]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    return subprocess.Popen(command, env={**kept, **environment}, **options)


def official(name: str) -> dict[str, bytes]:
    """A bundled model's files as an official base lays them out: nested configuration, a vision tower."""
    folder = bundled_model(name)
    text = json.loads((folder / "config.json").read_text())
    text.pop("architectures")
    config = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": text}
    weights = {**load_file(folder / "model.safetensors"), "model.visual.patch_embed.weight": torch.zeros(2, 2)}
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    nested = json.dumps({**config, "tie_word_embeddings": True}).encode()
    return {**files, "config.json": nested, "model.safetensors": save(weights), "model.bin": b"a pickle"}


def test_stopped_in_mid_file_a_model_comes_and_recipes_find_it(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = official("tiny-student")
    hub.add("Qwen/Qwen3.5-0.8B", files)
    hub.add("AlbertTan/PIPO", {"data/sft_all.jsonl": ROW * 9}, "datasets")
    half = len(files["model.safetensors"]) // 2
    hub.stalled = {"model.safetensors"}
    process = start(hub, tmp_path, "qwen3.5-0.8b", HF_HUB_DOWNLOAD_TIMEOUT="2")
    digest = next(iter(hub.repos.values()))[0].rows()
    [blob] = [row["lfs"]["oid"] for row in digest if row["path"] == "model.safetensors"]
    partial = tmp_path / "hub" / "models--Qwen--Qwen3.5-0.8B" / "blobs" / f"{blob}.incomplete"
    while process.poll() is None and not (partial.is_file() and partial.stat().st_size > half - 9000):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("pipo: interrupted; the same command goes on\n")
    assert "Traceback" not in err
    assert partial.stat().st_size == half
    # The same command, and data beside it.
    hub.stalled = set()
    hub.requests.clear()
    out, err = start(hub, tmp_path, "qwen3.5-0.8b", "pipo-sft-data", "--json").communicate(timeout=60)
    items = json.loads(out)["items"]
    [again] = [request for request in hub.contents() if request.path.endswith("/model.safetensors")]
    assert (again.range, again.sent) == (f"bytes={half}-", len(files["model.safetensors"]) - half)
    assert [item["checked"] for item in items] == [True, True]
    assert items[0]["missing_bytes"] + items[1]["missing_bytes"] == sum(one.sent for one in hub.contents())
    # Plain lines, no bars of huggingface_hub's.
    assert all(line.startswith(("qwen3.5-0.8b: ", "pipo-sft-data: ")) for line in err.splitlines())
    # Without the hub, by the same names.
    monkeypatch.chdir(tmp_path)
    for words in (["train", *shlex.split(CATALOG["qwen3.5-0.8b"].then)[2:]], ["bench", "--ckpt", "qwen3.5-0.8b@main"]):
        code, out, err = pipo(*words, "--dry-run", "--json")
        assert code in (0, 4), err  # 4 where the machine has no GPU for bf16
        found = {item["name"]: item["path"] for item in json.loads(out)["inputs"].values()}
        assert found.pop("pipo-sft-data", items[1]["path"]) == items[1]["path"]
        assert list(found.values()) == [items[0]["path"]]
    model = load_checkpoint(Path(items[0]["path"]))
    same = load_checkpoint(bundled_model("tiny-student"))
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        torch.testing.assert_close(model.forward_regular(ids), same.forward_regular(ids), atol=0, rtol=0)
    listed = json.loads(pipo("download", "--list", "--json")[1])
    paths = {row["name"]: row["path"] for row in listed if row["path"]}
    assert paths == {item["name"]: item["path"] for item in items}


def test_offline_and_lost_the_process_says_so_in_one_line(hub: LocalHub, tmp_path: Path) -> None:
    out, err = (process := start(hub, tmp_path, "pipo-sft-data", "--json", HF_HUB_OFFLINE="1")).communicate(timeout=60)
    assert process.returncode == 3
    assert err.splitlines() == [
        "pipo: pipo-sft-data is not in the Hugging Face cache, and HF_HUB_OFFLINE forbids fetching it",
        "  try: HF_HUB_OFFLINE=0 pipo download pipo-sft-data",
    ]
    assert json.loads(out)["exit_code"] == 3
    assert hub.requests == []


def test_a_revision_of_a_catalog_name_is_another_snapshot(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = official("tiny-student")
    old = hub.add("Qwen/Qwen3.5-4B", {**files, "README.md": b"old"}, refs={"v1"})
    new = hub.add("Qwen/Qwen3.5-4B", files)
    assert pipo("download", "qwen3.5-4b@v1")[0] == 0
    Path("rows.jsonl").write_bytes(ROW)

    def model(name: str) -> tuple[str, str]:
        code, out, _ = pipo("train", "sft", f"model={name}", "data.train=rows.jsonl", "--dry-run", "--json")
        assert code in (0, 3, 4)
        plan = json.loads(out)
        return plan["inputs"].get("model", {}).get("path", ""), plan.get("next") or ""

    assert model("qwen3.5-4b@v1")[0].endswith(old.commit)
    assert model("qwen3.5-4b")[1] == "pipo download qwen3.5-4b"
    assert model(f"Qwen/Qwen3.5-4B@{new.commit}")[1] == f"pipo download Qwen/Qwen3.5-4B@{new.commit}"
    assert pipo("download", "qwen3.5-4b", f"Qwen/Qwen3.5-4B@{new.commit}")[0] == 0
    assert model("qwen3.5-4b")[0].endswith(new.commit)
    assert model(f"qwen3.5-4b@{new.commit}")[0].endswith(new.commit)
    assert model("qwen3.5-4b@v1")[0].endswith(old.commit)


def test_the_plan_and_the_result_in_words(hub: LocalHub) -> None:
    hub.add("a/data", {"test.jsonl": b"{}\n" * 1000, "README.md": b"x"}, "datasets")
    words = ["download", "a/data", "--kind", "data"]
    code, out, err = pipo(*words, "--dry-run")
    assert code == 0, err
    assert ["test.jsonl", "3.00", "kB", "3.00", "kB"] in [line.split() for line in out.splitlines()]
    assert "3.00 kB in all, 3.00 kB to transfer" in out
    assert out.endswith("dry run: nothing was downloaded or written\nnext: pipo download a/data --kind data\n")
    code, out, _ = pipo(*words)
    assert "(2 files, 3.00 kB, 3.00 kB transferred, checksums correct)" in out
    assert out.endswith("next: pipo train recipes/sft.yaml data.train=a/data --dry-run\n")
    assert "(2 files, 3.00 kB, nothing transferred, checksums correct)" in pipo(*words)[1]


def test_the_next_commands_exist() -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    for name, entry in CATALOG.items():
        if not entry.then:
            assert name in ("pipo-adapters", "pipo-opd-data")  # the first depends on what came
            continue
        words = shlex.split(entry.then)
        assert words[0] == "pipo"
        assert words[1] in known
        if words[1] == "train":
            load_recipe(find_recipe(words[2]), [word for word in words[3:] if "=" in word], stages=())
