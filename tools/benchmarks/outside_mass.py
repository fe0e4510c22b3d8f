"""How well a few rows estimate the probability of the tokens that a draft vocabulary leaves out.

    python -m tools.benchmarks.outside_mass outputs/tiny-pipo/train/model outputs/tiny-data/build/train.jsonl

Instead of teaching the gate, decoding could estimate that probability and drop the draft as often: from clusters of the
LM head's other rows, from a low-rank copy of them, or from rows fitted to training examples. Each is compared with the
exact probability, over drafts of held-back examples that the gate keeps at 0.95. Costs count in rows of the LM head.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from pipo_core.chat import encode_answered, end_ids, load_tokenizer
from pipo_core.data.augment import IGNORED, pair
from pipo_core.files import write_json
from pipo_core.model import load_checkpoint
from pipo_core.model.frequent_tokens import draft_ids, read_draft_vocab

TAU = 0.95
CLUSTERS, RANKS, FITTED = (4, 16, 64), (4, 8, 16, 32), (1, 2, 4, 8)
STEPS, BATCH, RATE = 400, 512, 2e-2


class Drafts(NamedTuple):
    """Drafts of teacher-forced examples: ``m_i``, ``[N, H]``, and ``c_i``, ``[N]``."""

    states: torch.Tensor
    confidence: torch.Tensor


class Heads(NamedTuple):
    """The LM head's rows inside, ``[S, H]``, and outside of a draft vocabulary, ``[V − S, H]``."""

    inside: torch.Tensor
    outside: torch.Tensor


def main() -> None:
    """Print a line for each size and estimate, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path, help="a pair model that pipo trained")
    parser.add_argument("rows", type=Path, help="training rows as JSON lines")
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 32, 24])
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_checkpoint(given.ckpt, dtype=torch.float32), load_tokenizer(given.ckpt)
    drafts = read_drafts(model, tokenizer, given.rows, given.examples)
    weight = model.lm_head.weight.detach()
    frequent, ends = read_draft_vocab(given.ckpt).ids, end_ids(tokenizer, given.ckpt)
    found = []
    for size in given.sizes:
        left_out = torch.ones(len(weight), dtype=torch.bool)
        left_out[draft_ids(size, frequent, ends, len(weight))] = False
        for row in compare(Heads(weight[~left_out], weight[left_out]), drafts):
            found.append({"size": size, **row})
            sys.stdout.write(json.dumps(found[-1]) + "\n")
    if given.out:
        write_json(given.out, {"ckpt": str(given.ckpt), "tau": TAU, "rows": found})


@torch.inference_mode()
def read_drafts(model: Any, tokenizer: Any, file: Path, count: int) -> Drafts:
    """Return the drafts of some examples, chosen at random with seed 0."""
    lines = file.read_text(encoding="utf-8").splitlines()
    parts = []
    for index in np.random.default_rng(0).permutation(len(lines))[:count]:
        prompt, answer = encode_answered(tokenizer, json.loads(lines[index])["messages"])
        ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
        example = pair(ids, labels, pad_id=int(tokenizer.pad_token_id))
        output = model.forward_pairs(torch.from_numpy(example.input_ids)[None])
        labelled = torch.from_numpy(example.labels)[3::2] != IGNORED
        parts.append((output.mtp_hidden[0, labelled], output.confidence[0, labelled]))
    states, confidence = zip(*parts, strict=True)
    return Drafts(torch.cat(states).clone(), torch.cat(confidence).clone())


def compare(heads: Heads, drafts: Drafts) -> Iterator[dict[str, Any]]:
    """Yield the figures of each estimate: fitted on the first half of the drafts, compared on the kept of the rest."""
    half = len(drafts.states) // 2
    fit, held = drafts.states[:half], drafts.states[half:][drafts.confidence[half:] >= TAU]
    inside = (held @ heads.inside.T).logsumexp(1)
    exact = ((held @ heads.outside.T).logsumexp(1) - inside).sigmoid()
    for name, rows, log_mass in _estimates(heads, fit, held):
        guess = (log_mass - inside).sigmoid()
        yield {
            "estimate": name,
            "rows": round(rows, 1),
            "error": round(float((guess - exact).abs().mean()), 4),
            "kept_wrong": round(float((exact * (1 - guess)).mean()), 4),
            "dropped_right": round(float((guess * (1 - exact)).mean()), 4),
        }


def _estimates(heads: Heads, fit: torch.Tensor, held: torch.Tensor) -> Iterator[tuple[str, float, torch.Tensor]]:
    """Yield name, cost in rows, and the estimate of ``log Σ_{v outside} exp(w_v · m)``, ``[N]``."""
    outside, width = heads.outside, held.shape[1]
    yield "exact", len(outside), (held @ outside.T).logsumexp(1)
    yield "none", 0, torch.full((len(held),), -math.inf)
    for count in CLUSTERS:
        centres, members = _clusters(outside, count)
        sizes = torch.bincount(members, minlength=count)
        means = held @ centres.T + sizes.log()
        yield f"{count} clusters", count, means.logsumexp(1)
        spread = torch.stack([outside[members == one].var(0, unbiased=False).nan_to_num() for one in range(count)])
        yield f"{count} clusters, variance", 2 * count, (means + held.square() @ spread.T / 2).logsumexp(1)
    mean = outside.mean(0)
    # Weighted by where the states lie: the directions that change the logits most come first.
    root = torch.linalg.cholesky(fit.T @ fit / len(fit) + 1e-6 * torch.eye(width))
    left, values, right = torch.linalg.svd((outside - mean) @ root, full_matrices=False)
    for rank in RANKS:
        down = right[:rank] @ torch.linalg.inv(root)
        logits = held @ mean[:, None] + (held @ down.T) @ (left[:, :rank] * values[:rank]).T
        yield f"rank {rank}", rank + 1 + len(outside) * rank / width, logits.logsumexp(1)
    for count in FITTED:
        rows, biases = _fitted(heads, fit, count)
        yield f"fitted rows: {count}", count, (held @ rows.T + biases).logsumexp(1)


def _clusters(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the centres, ``[K, H]``, and each row's cluster: k-means, 20 rounds from random rows."""
    centres = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count]].clone()
    for _ in range(20):
        members = torch.cdist(rows, centres).argmin(1)
        for one in range(count):
            if (members == one).any():
                centres[one] = rows[members == one].mean(0)
    return centres, members


def _fitted(heads: Heads, fit: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and biases whose mass has the least cross-entropy to the exact probability of "outside"."""
    generator = torch.Generator().manual_seed(0)
    inside = (fit @ heads.inside.T).logsumexp(1)
    exact = ((fit @ heads.outside.T).logsumexp(1) - inside).sigmoid()
    centres, members = _clusters(heads.outside, count)
    rows = centres.requires_grad_()
    biases = torch.bincount(members, minlength=count).clamp(min=1).log().requires_grad_()
    optimizer = torch.optim.Adam([rows, biases], lr=RATE)
    for _ in range(STEPS):
        batch = torch.randint(0, len(fit), (BATCH,), generator=generator)
        odds = (fit[batch] @ rows.T + biases).logsumexp(1) - inside[batch]
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(odds, exact[batch]).backward()
        optimizer.step()
    return rows.detach(), biases.detach()


if __name__ == "__main__":
    main()
