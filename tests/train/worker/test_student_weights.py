"""What servers get of a student: the weights that `pipo merge` would make, while the student trains on."""

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from pipo_core.model import load_checkpoint
from pipo_core.train.worker.student_weights import standalone_weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.mark.parametrize("dtype", DTYPES)
def test_adapters_are_merged_and_the_student_stays_as_it_is(student: Path, dtype: str) -> None:
    torch.manual_seed(1)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "gate_proj"],
        modules_to_save=["compressor", "confidence_head"],
    )
    model = get_peft_model(load_checkpoint(student, dtype=DTYPES[dtype]), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn_like(parameter, dtype=torch.float32) / 8
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    found = standalone_weights(model, DTYPES[dtype])
    merged = copy.deepcopy(model).float().merge_and_unload().state_dict()
    assert found.keys() == merged.keys()
    base = load_checkpoint(student, dtype=DTYPES[dtype]).state_dict()
    moved = {name.split(".")[-2] for name in found if not torch.equal(found[name], base[name])}
    assert {"q_proj", "v_proj", "gate_proj", "fc1", "fc2"} <= moved
    for name, weight in found.items():
        assert weight.dtype is DTYPES[dtype]
        assert torch.equal(weight, merged[name].to(DTYPES[dtype])), name
    after = model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_without_adapters_they_are_copies(student: Path) -> None:
    model = load_checkpoint(student)
    found = standalone_weights(model, torch.float32)
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert found.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())
