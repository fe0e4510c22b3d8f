"""The model equals the authors' own code, number by number (fixtures made by it, fp32)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipo_core.model import LossWeights, Qwen3_5ForCausalPIPO

TOLERANCE = 1e-4
CASES = ("plain", "with_pads", "long")
TENSORS = {
    "latents": "latent",
    "backbone_hidden": "backbone_hidden",
    "backbone_logits": "backbone_logits",
    "mtp_hidden": "mtp_hidden",
    "mtp_logits": "mtp_logits",
    "confidence": "confidence",
}
SCALARS = {
    "loss": "loss",
    "backbone_loss": "backbone_loss",
    "mtp_loss": "mtp_loss",
    "confidence_loss": "confidence_loss",
    "confidence_mean": "confidence_mean_prediction",
    "confidence_target_mean": "confidence_mean_target",
}


@pytest.fixture(scope="module")
def cases(reference_folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(reference_folder / "cases.safetensors")
    return loaded


@pytest.mark.parametrize("case", CASES)
def test_pair_pass(reference: Qwen3_5ForCausalPIPO, cases: dict[str, torch.Tensor], case: str) -> None:
    with torch.no_grad():
        output = reference.forward_pairs(cases[f"{case}.input_ids"])
    for ours, theirs in TENSORS.items():
        torch.testing.assert_close(
            getattr(output, ours), cases[f"{case}.{theirs}"], atol=TOLERANCE, rtol=TOLERANCE, msg=ours
        )


@pytest.mark.parametrize("chunk", [2048, 7])
@pytest.mark.parametrize("case", CASES)
def test_losses(
    reference: Qwen3_5ForCausalPIPO,
    reference_folder: Path,
    cases: dict[str, torch.Tensor],
    case: str,
    chunk: int,
) -> None:
    expected = next(
        entry for entry in json.loads((reference_folder / "cases.json").read_text()) if entry["name"] == case
    )
    output = reference(
        input_ids=cases[f"{case}.input_ids"],
        labels=cases[f"{case}.labels"],
        loss_weights=LossWeights(chunk=chunk),
    )
    for ours, theirs in SCALARS.items():
        assert getattr(output, ours).item() == pytest.approx(expected[theirs], abs=TOLERANCE), ours


def test_uncompressed_pass(reference: Qwen3_5ForCausalPIPO, reference_folder: Path) -> None:
    expected = load_file(reference_folder / "regular.safetensors")
    with torch.no_grad():
        logits = reference.forward_regular(expected["input_ids"])
    torch.testing.assert_close(logits, expected["logits"], atol=TOLERANCE, rtol=TOLERANCE)


def test_odd_lengths_are_refused(reference: Qwen3_5ForCausalPIPO) -> None:
    with pytest.raises(ValueError, match="even number of tokens, got 3"):
        reference.forward_pairs(torch.ones(1, 3, dtype=torch.long))
