"""Two processes: tensor parallel, where each has half of every layer, and data parallel, where each has every layer."""

from pathlib import Path

import pytest
import torch

from pipo_core.engine.student_servers import open_student_servers
from pipo_core.files import read_object
from pipo_core.model import Qwen3_5ForCausalPIPO, save_checkpoint
from pipo_core.model.configuration import text_config
from pipo_core.recipes.common import RemoteSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding
from tests.sglang_cpu.conftest import Client, Prompts, Reference, assert_equal, running
from tests.sglang_cpu.handing_over import answered, expected_of, move_weights

POOLS = ("--max-mamba-cache-size", "64", "--max-total-tokens", "4096", "--mamba-radix-cache-strategy", "no_buffer")


@pytest.fixture(scope="module")
def divisible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random pair model of which every kind of head can be halved; its texts vary, its gate keeps some."""
    source = bundled_model("tiny-student")
    raw = read_object(source / "config.json") | {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    torch.manual_seed(0)
    model = Qwen3_5ForCausalPIPO(text_config(raw | {"initializer_range": 0.15}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "norm" in name:
                parameter.normal_(0, 0.2)
        model.confidence_head.fc2.weight.normal_(0, 1)
        for parameter in model.compressor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return save_checkpoint(model, tmp_path_factory.mktemp("two") / "pairs", layout="pipo", tokenizer_from=source)


@pytest.fixture(scope="module")
def moved(divisible: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same model with other weights."""
    return move_weights(divisible, tmp_path_factory.mktemp("moved") / "pairs")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--tp-size", "--dp-size"])
def test_two_processes_write_what_one_writes_and_take_other_weights(
    divisible: Path, moved: Path, prompts: Prompts, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "0|1")  # a core for each
    with running(divisible, Decoding("pipo", 0.5), *POOLS, "--disable-overlap-schedule", how, "2") as url:
        for tau in (0.0, 0.5):
            answers = Client(url).generate_all(prompts, tau, max_new_tokens=31, ignore_eos=True)
            expected = Reference(divisible).answers(prompts, tau, max_tokens=31, ignore_end=True)
            assert_equal(answers, expected, frozenset())
            assert sum(one.kept or 0 for one in expected) > 0
        if how == "--dp-size":
            assert {answer["meta_info"]["dp_rank"] for answer in answers} == {0, 1}
        servers = open_student_servers(
            divisible, 0.5, RemoteSettings(kind="remote", urls=[url], concurrency=12), dtype="float32"
        )
        servers.load(moved, "moved")
        servers.expect("moved")
        found = answered(servers.engine, prompts)
        assert [one.record for one in found] == [one.record for one in expected_of(moved, 0.5, prompts)]
