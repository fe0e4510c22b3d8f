"""Does a profile belong to this checkpoint and this machine? Which settings of the engine go with it?"""

from pathlib import Path
from typing import Literal, NamedTuple

import torch

from pipo_core.engine.torch_opening import prepare
from pipo_core.errors import UsageError
from pipo_core.files import fingerprint
from pipo_core.machine import cores, machine
from pipo_core.model.frequent_tokens import DRAFT_VOCAB, read_draft_vocab
from pipo_core.model.sampled_print import sampled_print
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.profile import Checkpoint, Machine, Profile

_PRECISIONS: dict[str, Literal["fp32", "bf16"]] = {"float32": "fp32", "bfloat16": "bf16"}


class AsMeasured(NamedTuple):
    """Settings of an engine that go with a profile.

    Attributes:
        settings: of the engine.
        taken: which of them are the profile's and would be others without it, in words; None for none.
    """

    settings: TorchSettings
    taken: str | None


def checkpoint_of(folder: Path, *, with_draft_vocab: bool = False) -> Checkpoint:
    """Return what a profile records of a checkpoint.

    Args:
        folder: of the checkpoint.
        with_draft_vocab: whether it drafts from a draft vocabulary.

    Raises:
        CheckpointError: if files are missing or damaged.
    """
    tokens = fingerprint(read_draft_vocab(folder).ids) if with_draft_vocab else None
    return Checkpoint(folder=str(folder), weights=sampled_print(folder), draft_tokens=tokens)


def machine_of(settings: TorchSettings) -> Machine:
    """Return what a profile records of what runs the steps of an engine; sets the number of threads as they say.

    Raises:
        MachineError: if the device does not exist.
    """
    device, dtype = prepare(settings)
    precision = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        return Machine(device=torch.cuda.get_device_name(device), precision=precision, threads=None)
    return Machine(device=str(machine()["cpu"]), precision=precision, threads=torch.get_num_threads())


def check_checkpoint(profile: Profile, name: Path, ckpt: Path) -> None:
    """Check that a profile was made of this checkpoint.

    Args:
        profile: the profile.
        name: its file, for messages.
        ckpt: the checkpoint that is to be served.

    Raises:
        UsageError: if not; says what differs.
        CheckpointError: if the checkpoint's files are missing or damaged.
    """
    theirs = profile.checkpoint
    ours = checkpoint_of(ckpt, with_draft_vocab=theirs.draft_tokens is not None)
    again = f"pipo calibrate --ckpt {ckpt}"
    if theirs.weights != ours.weights:
        raise UsageError(f"{name} is of other weights ({theirs.folder}) than those in {ckpt}", hint=again)
    if theirs.draft_tokens != ours.draft_tokens:
        message = f"{name} was measured with draft vocabularies of another {DRAFT_VOCAB} than that in {ckpt}"
        raise UsageError(message, hint=again)


def as_measured(profile: Profile, name: Path, settings: TorchSettings, *, any_machine: bool = False) -> AsMeasured:
    """Return an engine's settings, with the profile's where they leave device, precision and threads open.

    On another device than the profile's nothing is taken over: what is best there the profile does not know.

    Args:
        profile: the profile.
        name: its file, for messages.
        settings: of the engine that is to serve it.
        any_machine: whether it may be of another machine, or of other settings.

    Raises:
        UsageError: if it is of another device, or of other settings than those that are given.
        MachineError: if the device does not exist.
    """
    theirs, plain = profile.machine, machine_of(settings)
    filled = _filled(settings, theirs)
    here = machine_of(filled)
    differ = {
        key: f"{key} {_spelt(getattr(theirs, key))} and not {_spelt(value)}"
        for key, value in here.model_dump().items()
        if getattr(theirs, key) != value
    }
    if differ and not any_machine:
        words = ", ".join(differ.values())
        given = [f"--{key}" for key in differ if getattr(settings, key) not in (None, "auto")]
        if len(given) == len(differ):
            raise UsageError(
                f"{name} was measured with other settings: {words}",
                hint=f"without {' and '.join(given)} the profile's are taken; --any-machine serves with these",
            )
        raise UsageError(
            f"{name} was measured on another machine: {words}",
            hint="pipo calibrate measures this one; --any-machine takes the profile as it is",
        )
    taken = [f"{key} {_spelt(value)}" for key, value in here.model_dump().items() if getattr(plain, key) != value]
    return AsMeasured(filled, ", ".join(taken) or None)


def _spelt(value: object) -> str:
    """Return a machine's value as a user gives it: number formats by their short names."""
    return _PRECISIONS.get(str(value), str(value))


def _filled(settings: TorchSettings, theirs: Machine) -> TorchSettings:
    """Return settings with a machine's where they leave them open, if the device is that machine's."""
    found = settings
    if found.device == "auto" and theirs.device == machine()["cpu"]:  # though there may be a GPU
        found = found.model_copy(update={"device": "cpu"})
    if machine_of(found).device != theirs.device:
        return settings
    if found.precision == "auto":
        found = found.model_copy(update={"precision": _PRECISIONS.get(theirs.precision, "auto")})
    if found.threads is None and theirs.threads is not None and theirs.threads <= cores():
        found = found.model_copy(update={"threads": theirs.threads})
    return found
