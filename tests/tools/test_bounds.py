import pytest

from tools.bounds import lowest, newest

REQUIREMENTS = ["torch>=2.11", "ms-swift>=4.6.0", "huggingface_hub>=1.31,<2", "math-verify[antlr4_13_2]>=0.8"]


def test_lowest_pins_each_to_its_lower_bound() -> None:
    assert lowest(REQUIREMENTS) == ["torch==2.11", "ms-swift==4.6.0", "huggingface_hub==1.31", "math-verify==0.8"]


def test_a_requirement_without_a_lower_bound_is_named() -> None:
    with pytest.raises(ValueError, match="numpy<3: has no lower bound"):
        lowest([*REQUIREMENTS, "numpy<3"])


def test_newest_leaves_out_what_caps_transformers_and_nothing_else() -> None:
    assert newest(REQUIREMENTS) == ["torch>=2.11", "huggingface_hub>=1.31,<2", "math-verify[antlr4_13_2]>=0.8"]
