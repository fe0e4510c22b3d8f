"""Accuracy of a pair model whose answers begin with a slot of one token, as other servers begin them.

A server that samples an answer's first token apart from the decode steps drops the draft beside it, so every pair
behind it is shifted by one token. This measures what a checkpoint loses by that at each threshold. The questions,
sampling and grading are those of `pipo eval recipes/tiny/eval.yaml`, whose results have the same form.

    python -m tools.benchmarks.first_slot outputs/tiny-pipo/train/model --tau 0 0.95 1 --out outputs/first-slot/eval
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from typing_extensions import override

from pipo_core.chat import end_ids, load_tokenizer
from pipo_core.decode.method import StepOutput
from pipo_core.decode.pair import PairMethod, PairState
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.sampling import Sampler
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.evaluate.runner import run_eval
from pipo_core.model import load_checkpoint
from pipo_core.recipes.common import EngineSettings
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.locate import find_recipe
from pipo_core.recipes.methods import Decoding


@dataclass(frozen=True)
class SingleFirst(PairMethod):
    """Pair decoding that always drops the draft of an answer's first slot."""

    @override
    def _start(self, read: PromptReader, sampler: Sampler) -> tuple[PairState, StepOutput]:
        settings, count = read.settings, len(read.lengths)
        read.settings = replace(settings, tau=[1.0] * count)
        state, output = super()._start(read, sampler)
        state.tau = self._thresholds(settings.tau, count)
        return state, output


def main() -> None:
    """Ask and grade, and print a line for each threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path, help="a pair model's checkpoint folder")
    parser.add_argument("--tau", type=float, nargs="+", default=[0.0, 0.5, 0.8, 0.95, 0.98, 0.999, 1.0])
    parser.add_argument("--name", default="first-single", help="of the arm in the results")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True, help="folder of answers and results, named eval")
    given = parser.parse_args()
    torch.set_num_threads(1)
    arm = f"{{name: {given.name}, method: pipo, ckpt: {given.ckpt}, tau: {given.tau}}}"
    changes = [f"arms=[{arm}]", "baseline=null", f"samples={given.samples}"]
    recipe = load_recipe(find_recipe("tiny/eval"), changes)
    if not isinstance(recipe, EvalRecipe):
        raise TypeError(f"{recipe.kind} is not an evaluation")
    model, tokenizer = load_checkpoint(given.ckpt, dtype=torch.float32), load_tokenizer(given.ckpt)

    def open_engine(_: Path | None, decoding: Decoding, __: EngineSettings) -> TorchEngine:
        method = SingleFirst(model, int(tokenizer.pad_token_id), tau=decoding.tau or 0.0)
        return TorchEngine(method, tokenizer, batch=256, ends=end_ids(tokenizer, given.ckpt))

    given.out.mkdir(parents=True, exist_ok=True)
    for found in run_eval(recipe, given.out, open_engine=open_engine)["suites"][0]["arms"]:
        figures = found["budgets"]["tokens"]
        shown = figures["avg"], figures["tokens_per_slot"]
        sys.stdout.write(f"{found['label']}: avg@k {shown[0]}, tokens a slot {shown[1]:.3f}\n")


if __name__ == "__main__":
    main()
