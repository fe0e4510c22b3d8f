import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.errors import MissingInputError, RecipeError
from pipo_core.recipes.changes import Change, parse_override
from pipo_core.recipes.common import SGLangSettings
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.load import load_recipe, parse_recipe
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.opd import DistillRecipe, TrainingProcess
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.recipes.suite import Choices, LetterGrader

TRAIN = """\
kind: train
model: tiny-student
data: {train: some/rows.jsonl}
max_steps: 10
"""
EVAL = """\
kind: eval
budget: {tokens: 100}
arms:
  - {name: a, method: regular, ckpt: tiny-student}
  - {name: b, method: pipo, ckpt: some/model, tau: [0.5, 0.95]}
"""


def _train(text: str, *overrides: str) -> TrainRecipe:
    recipe = parse_recipe(text, "r.yaml", overrides)
    assert isinstance(recipe, TrainRecipe)
    return recipe


def _problems(text: str, *overrides: str, stages: tuple[str, ...] | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(textwrap.dedent(text), "r.yaml", overrides, stages=stages)
    return caught.value.problems


def test_numbers_without_a_point_are_numbers_and_words_stay_words() -> None:
    recipe = _train(TRAIN + "optimizer: {learning_rate: 1e-4}\nrun: no\n")
    assert recipe.optimizer.learning_rate == 1e-4
    assert recipe.run == "no"


def test_run_is_the_file_name_unless_given(tmp_path: Path) -> None:
    path = tmp_path / "my recipe (2).yaml"
    path.write_text(TRAIN)
    assert load_recipe(path).run == "my-recipe-2-"
    assert load_recipe(path, ["run=other"]).run == "other"


def test_every_problem_is_named_at_its_place() -> None:
    problems = _problems(
        """\
        kind: train
        modle: tiny-student
        objective: pip
        data: {train: a/b, max_lenght: 5}
        optimizer:
          learning_rate: "1e-4"
          learning_rate: 3
        pad_augmentation:
          - {kind: split, rho_max: 2, until: 0.5, all_pads: 0.1}
          - {kind: segment, rho_max: 0.2, until: 0.4}
        launch: {nodes: 2, node_rank: 3}
        rank: 3
        run: 7
        """
    )
    assert problems == [
        "r.yaml:1:1 model: missing: Starting checkpoint.",
        "r.yaml:1:1 give epochs or max_steps",
        "r.yaml:2:1 modle: unknown key (did you mean 'model'?)",
        "r.yaml:3:12 objective: must be one of pipo, regular; got the text 'pip' (did you mean 'pipo'?)",
        "r.yaml:4:20 data.max_lenght: unknown key (did you mean 'max_length'?)",
        "r.yaml:6:18 optimizer.learning_rate: must be a number; got the text '1e-4'",
        "r.yaml:7:3 optimizer.learning_rate: given twice",
        "r.yaml:9:28 pad_augmentation.0.rho_max: must be less than or equal to 1; got 2",
        "r.yaml:9:53 pad_augmentation.0.all_pads: only kind: segment has examples with a PAD in every slot",
        "r.yaml:10:42 pad_augmentation.1.until: must be above the until of the phase before it (0.5)",
        "r.yaml:10:42 pad_augmentation.1.until: the last phase must end at 1.0",
        "r.yaml:11:1 launch.master: 2 nodes need the host:port of node 0",
        "r.yaml:11:31 launch.node_rank: must be below nodes (2)",
        "r.yaml:12:1 rank: unknown key (did you mean 'tuning.rank'?)",
        "r.yaml:13:6 run: must be text; got 7 (write it in quotes: '7')",
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("max_steps: 5\nepochs: 2", "r.yaml:4:12 max_steps: give epochs or max_steps, not both"),
        ("", "r.yaml:1:1 give epochs or max_steps"),
        (
            "max_steps: 5\nobjective: regular\npad_augmentation: [{kind: split, rho_max: 0.25}]",
            "r.yaml:6:19 pad_augmentation: objective: regular has no slots to pad; remove it",
        ),
        (
            "max_steps: 5\nobjective: regular\ntuning: {method: gate}",
            "r.yaml:6:18 tuning.method: objective: regular has no gate; give lora or full",
        ),
        (
            "max_steps: 5\nobjective: regular\ndraft_vocab: 48",
            "r.yaml:6:14 draft_vocab: objective: regular has no gate to teach; remove it",
        ),
        (
            "max_steps: 5\ntuning: {method: gate}\nloss: {confidence: 0}",
            "r.yaml:5:18 tuning.method: the gate learns nothing from a loss of weight 0",
        ),
        (
            "max_steps: 5\ndraft_vocab: 48\nloss: {confidence: 0}",
            "r.yaml:5:14 draft_vocab: the gate learns nothing from a loss of weight 0",
        ),
        (
            "max_steps: 5\npad_augmentation: [{kind: split, rho_max: 0.25, until: 0.5}]",
            "r.yaml:5:56 pad_augmentation.0.until: the last phase must end at 1.0",
        ),
        ("max_steps: yes", "r.yaml:4:12 max_steps: must be an integer; got the text 'yes'"),
        ("max_steps: true", "r.yaml:4:12 max_steps: must be an integer; got true"),
        ("max_steps: 0", "r.yaml:4:12 max_steps: must be greater than or equal to 1; got 0"),
        ("max_steps: 5\noptimizer: 3", "r.yaml:5:12 optimizer: must be a mapping of keys to values; got 3"),
        (
            "max_steps: 5\ntuning: {targets: [q_proj, k_prj]}",
            "r.yaml:5:28 tuning.targets.1: must be one of q_proj, k_proj, v_proj, o_proj, gate_proj, "
            "up_proj, down_proj; got the text 'k_prj' (did you mean 'k_proj'?)",
        ),
        (
            "max_steps: 5\noptimizer: {weight_decay: .inf}",
            "r.yaml:5:27 optimizer.weight_decay: must be a finite number; got inf",
        ),
    ],
)
def test_one_problem(lines: str, problem: str) -> None:
    assert _problems(f"kind: train\nmodel: tiny-student\ndata: {{train: a/b}}\n{lines}\n") == [problem]


def test_arms_may_have_one_threshold_or_several() -> None:
    recipe = parse_recipe(EVAL, "r.yaml")
    assert isinstance(recipe, EvalRecipe)
    assert [arm.decodings() for arm in recipe.arms] == [
        [Decoding("regular")],
        [Decoding("pipo", tau=0.5), Decoding("pipo", tau=0.95)],
    ]
    for share, shares in (("0.9", [0.9]), ("[0.9, 0.5]", [0.9, 0.5])):
        coin = parse_recipe(EVAL, "r.yaml", overrides=["arms.1.tau=null", f"arms.1.acceptance={share}"])
        assert isinstance(coin, EvalRecipe)
        assert coin.arms[1].decodings() == [Decoding("pipo", acceptance=kept) for kept in shares]
    [problem] = _problems(EVAL, "arms.0.method=eagle", "arms.0.acceptance=0.5")
    assert "method eagle verifies its drafts; only a bench may take a share unseen; remove it" in problem
    assert _problems(EVAL, "arms.1.tau=x") == [
        "override 'arms.1.tau=x': arms.1.tau: must be a number; got the text 'x'"
    ]
    assert _problems(EVAL, "arms.1.tau=[0.5, 2]") == [
        "override 'arms.1.tau=[0.5, 2]': arms.1.tau.1: must be less than or equal to 1; got 2"
    ]
    assert _problems(EVAL, "arms.0.tau=0.5") == [
        "override 'arms.0.tau=0.5': arms.0.tau: method regular has no tau; remove it"
    ]


BENCH = """kind: bench
arms:
  - {name: a, method: regular, ckpt: x/y}
  - name: b
    method: pipo
    ckpt: x/y
    acceptance: [1.0, 0.5, 1]
prompt_tokens: [8, 8]
concurrency: [4, 2, 4]
training_tokens: [16, 16]
users: {context: [512, 64, 512], requests: [1, 2, 1]}
equal_memory: {gib: 1, context: [64, 64]}
"""


def test_what_stands_twice_in_a_list_is_named_at_its_place() -> None:
    assert _problems(BENCH) == [
        "r.yaml:7:28 arms.1.acceptance.2: 1.0 is given twice",
        "r.yaml:8:20 prompt_tokens.1: 8 is given twice",
        "r.yaml:9:21 concurrency.2: 4 is given twice",
        "r.yaml:10:23 training_tokens.1: 16 is given twice",
        "r.yaml:11:28 users.context.2: 512 is given twice",
        "r.yaml:11:51 users.requests.2: 1 is given twice",
        "r.yaml:12:38 equal_memory.context.1: 64 is given twice",
    ]
    [problem] = _problems(EVAL, "arms.1.tau=[0.5, 0.95, 0.5]")
    assert problem.endswith("arms.1.tau.2: 0.5 is given twice")
    [problem] = _problems(EVAL, "problems.ids=[a, a]")
    assert problem.endswith("problems.ids.1: a is named twice")
    train = "kind: train\nmodel: tiny-student\ndata: {train: a/b}\nmax_steps: 5\n"
    assert _problems(f"{train}tuning: {{targets: [q_proj, q_proj]}}") == [
        "r.yaml:5:28 tuning.targets.1: q_proj is named twice"
    ]


def test_a_suite_names_each_form_and_each_column_of_choices_once() -> None:
    with pytest.raises(ValueError, match=r"forms\.1: boxed is named twice"):
        LetterGrader(kind="letter", forms=["boxed", "boxed"])
    with pytest.raises(ValueError, match=r"columns\.2: a is named twice"):
        Choices(columns=["a", "b", "a"])


def test_arms_are_told_apart_by_name() -> None:
    assert _problems(EVAL.replace("name: b", "name: a")) == ["r.yaml:5:12 arms.1.name: a second arm called 'a'"]
    assert _problems(EVAL + "baseline: c") == ["r.yaml:6:11 baseline: no arm is called 'c'; arms: a, b"]
    assert _problems(EVAL.replace("{tokens: 100}", "{}")) == ["r.yaml:2:1 budget.tokens: give tokens, slots or both"]


def test_overrides_set_and_remove() -> None:
    text = TRAIN + "loss: {mtp: 0.5, chunk: 64}\n"
    recipe = _train(text, "loss.mtp=2", "~loss.chunk", "~max_steps", "epochs=0.5", "launch.threads=1")
    assert (recipe.loss.mtp, recipe.loss.chunk, recipe.epochs) == (2.0, None, 0.5)
    assert recipe.launch.threads == 1
    assert _train(text, "max_steps=", "epochs=1").max_steps is None


@pytest.mark.parametrize(
    "typed", ["exp #2", "a#b", "#1", "&a b", "50% off", "it's", "C:\\data", "rows  two", "true story", "7 #8"]
)
def test_a_text_on_the_command_line_is_what_was_typed(typed: str) -> None:
    change = parse_override(f"run={typed}")
    assert isinstance(change, Change)
    assert change.value == typed


@pytest.mark.parametrize(("typed", "read"), [("'exp #2'", "exp #2"), ('"a\\tb"', "a\tb"), ("' x '", " x ")])
def test_a_quoted_text_is_what_the_quotes_hold(typed: str, read: str) -> None:
    change = parse_override(f"run={typed}")
    assert isinstance(change, Change)
    assert change.value == read


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("loss={mtp: 1} #2", "'#2' behind the value would be a comment"),
        ("run='exp' #2", "'#2' behind the value would be a comment"),
        ("seed=3 #2", "got the text '3 #2'"),
        ("nonsense", "override 'nonsense': expected key=value, or ~key to remove a key"),
        ("=3", "override '=3': '' is not a key"),
        ("a..b=3", "override 'a..b=3': 'a..b' is not a key"),
        ("~max_steps=3", "override '~max_steps=3': ~key removes a key and takes no value"),
        ("~loss.mtp", "override '~loss.mtp': there is nothing to remove"),
        ("max_steps={a", "override 'max_steps={a': not valid YAML"),
        ("max_steps.a=3", "override 'max_steps.a=3': max_steps is a single value and has no key 'a'"),
        ("max_stepz=3", "override 'max_stepz=3': max_stepz: unknown key (did you mean 'max_steps'?)"),
        ("learning_rate=3", "(did you mean 'optimizer.learning_rate'?)"),
        ("loss={mtp: 1, mtp: 2}", "key 'mtp' given twice"),
        ("model=tiny-studnet", "(did you mean 'tiny-student'?)"),
        ("model=pipo-sft-data", "'pipo-sft-data' is a data set in the catalog; a model is needed here"),
        ("model='stage:'", "needs the name of a stage"),
        ("kind=trian", "kind: must be one of"),
    ],
)
def test_a_wrong_override_is_named(override: str, problem: str) -> None:
    found = _problems(TRAIN, override)
    assert len(found) == 1
    assert found[0].startswith(f"override {override!r}")
    assert problem in found[0]


def test_the_last_override_of_a_key_is_the_one_that_is_named() -> None:
    assert _problems(TRAIN, "loss.mtp=x", "loss={mtp: y}") == [
        "override 'loss={mtp: y}': loss.mtp: must be a number; got the text 'y'"
    ]
    assert _train(TRAIN, "loss.mtp=x", "loss.mtp=0").loss.mtp == 0


def test_list_items_are_reached_by_number() -> None:
    recipe = parse_recipe(EVAL, "r.yaml", ["arms.1.ckpt=other/model", "baseline=a"])
    assert isinstance(recipe, EvalRecipe)
    assert recipe.arms[1].ckpt == "other/model"
    assert "not the number of an item" in _problems(EVAL, "arms.2.ckpt=x/y")[0]
    assert "not the number of an item" in _problems(EVAL, "arms.b.ckpt=x/y")[0]


def test_stage_references_need_an_earlier_stage() -> None:
    text = TRAIN.replace("some/rows.jsonl", "stage:bild/train.jsonl")
    assert parse_recipe(text, "r.yaml").kind == "train"
    assert _problems(text, stages=("build",)) == [
        "r.yaml:3:15 data.train: no earlier stage is called 'bild' (did you mean 'build'?)"
    ]
    assert "no stage before this one" in _problems(text, stages=())[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "r.yaml:1:1 the file is empty; a recipe is a mapping that starts with kind:"),
        ("- a", "r.yaml:1:1 the file holds a list; a recipe is a mapping that starts with kind:"),
        ("words", "r.yaml:1:1 the file holds a single value; a recipe is a mapping that starts with kind:"),
        (
            "model: a/b",
            "r.yaml:1:1 kind: missing: one of train, distill, rollout, build, merge, eval, bench, calibrate, pipeline",
        ),
        ("a: b: c", "r.yaml:1:5 not valid YAML: mapping values are not allowed here"),
        ("a: 1\n\tb: 2", "r.yaml:2:1 not valid YAML"),
        ("a: \x00", "r.yaml:1:4 not valid YAML: character 0 is not allowed"),
        ("a: 1\n---\nb: 2", "r.yaml:2:1 not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "r.yaml:1:4 the tag tag:yaml.org,2002:python/object"),
        ("a: &x [*x]", "nested more than 40 deep"),
        ("[" * 100_000, "nested more than 40 deep"),
        ("? [1]\n: 2", "r.yaml:1:3 a key must be a word"),
        ("a: " + "9" * 5000, "r.yaml:1:4 a number of more than 100 digits"),
        ("a: b\n" * 300_000, "longer than 1,000,000 characters"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in pairwise("abcdef")),
            "more than 20,000 values once its aliases are written out",
        ),
    ],
)
def test_what_is_no_recipe_is_one_clear_problem(text: str, problem: str) -> None:
    problems = _problems(text)
    assert len(problems) == 1
    assert problem in problems[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(MissingInputError, match="cannot be read"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"kind: train\n# caf\xe9\n")
    with pytest.raises(RecipeError, match=r"latin\.yaml:2:6 not UTF-8 text"):
        load_recipe(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + TRAIN.encode())
    assert load_recipe(tmp_path / "bom.yaml").kind == "train"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.text(max_size=200) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_no_text_is_a_crash(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.yaml", [text])
    assert all(problem.startswith(("r.yaml:", "override ")) for problem in caught.value.problems)


@given(
    st.sampled_from(["kind", "model", "data", "data.train", "loss", "loss.mtp", "pad_augmentation", "launch"]),
    _VALUES,
)
def test_no_value_is_a_crash(key: str, value: object) -> None:
    import yaml

    override = f"{key}={yaml.safe_dump(value, allow_unicode=True)}"
    try:
        recipe = parse_recipe(TRAIN, "r.yaml", [override])
    except RecipeError as error:
        problems = error.problems
    else:
        assert recipe.kind == "train"
        return
    assert problems
    assert all(problem.startswith(("r.yaml:", "override ")) for problem in problems)


DISTILL = """\
kind: distill
model: some/model
teacher: some/teacher
data: {train: some/rows.jsonl}
max_steps: 10
"""


def test_rollouts_may_have_one_threshold_or_several() -> None:
    for text, thresholds in (("0.5", [0.5]), ("[0, 0.95, 1]", [0.0, 0.95, 1.0]), ("[0, 0.9, 0.9]", [0.0, 0.9, 0.9])):
        recipe = parse_recipe(DISTILL, "r.yaml", [f"rollout.tau={text}"])
        assert isinstance(recipe, DistillRecipe)
        assert recipe.rollout.thresholds == thresholds
    complaints = {
        "1": "must be less than 1; got 1",
        "[1]": "one threshold must be below 1: at 1 no draft is kept, and none would be learned",
        "[]": "at least 1 item",
        "[0.5, 1.5]": "must be less than or equal to 1; got 1.5",
    }
    for text, complaint in complaints.items():
        (problem,) = _problems(DISTILL, f"rollout.tau={text}")
        assert complaint in problem


def test_the_engine_of_a_distillation_s_rollouts() -> None:
    recipe = parse_recipe(DISTILL, "r.yaml")
    assert isinstance(recipe, DistillRecipe)
    assert recipe.rollout.engine == TrainingProcess()
    recipe = parse_recipe(DISTILL, "r.yaml", ["rollout.engine.kind=sglang", "rollout.engine.flags=[--tp-size, '2']"])
    assert isinstance(recipe, DistillRecipe)
    assert recipe.rollout.engine == SGLangSettings(kind="sglang", flags=["--tp-size", "2"])
    assert _problems(DISTILL, "rollout.engine.kind=vllm") == [
        "override 'rollout.engine.kind=vllm': rollout.engine: kind must be one of torch, sglang, remote"
    ]
    nodes = ["rollout.engine.kind=sglang", "launch={nodes: 2, master: 'a:1'}"]
    [problem] = _problems(DISTILL, *nodes)
    assert "its server answers this machine only" in problem


SERVERS = "teacher_engine={kind: remote, urls: ['http://a:1']}"


def test_the_servers_of_a_distillation_s_teacher() -> None:
    recipe = parse_recipe(DISTILL, "r.yaml", [SERVERS])
    assert isinstance(recipe, DistillRecipe)
    assert recipe.teacher_engine is not None
    assert recipe.teacher_engine.urls == ["http://a:1"]
    assert parse_recipe(DISTILL, "r.yaml", [SERVERS, "teacher=null"])


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["teacher=null"], "teacher: missing; give a checkpoint, or teacher_engine with servers of one"),
        ([SERVERS, "kl.mode=full"], "kl.mode: servers of a teacher tell its likeliest tokens, which full does not"),
        ([SERVERS, "rollout.sampling.temperature=0.7"], "rollout.sampling.temperature: servers tell log-probabilities"),
        ([SERVERS, "kl.temperature=2"], "kl.temperature: servers tell log-probabilities at temperature 1"),
        ([SERVERS, "teacher_device=cpu"], "teacher_device: the teacher runs on servers; remove it"),
        ([SERVERS, "offload=true"], "offload: the teacher runs on servers; remove it"),
        (["teacher_engine.kind=sglang"], "teacher_engine.kind"),
        (["teacher_engine={kind: remote, urls: [x]}"], "'x' is not an address"),
    ],
)
def test_what_a_teacher_on_servers_cannot_do(overrides: list[str], complaint: str) -> None:
    problems = _problems(DISTILL, *overrides)
    assert any(complaint in problem for problem in problems), problems


def test_int8_is_for_cpus() -> None:
    text = "kind: eval\narms: [{name: a, method: regular, ckpt: x/y}]\nengine: {quantization: int8}\n"
    assert parse_recipe(text, "r.yaml")
    [problem] = _problems(text, "engine.device=cuda:0")
    assert "engine.quantization: int8 is for CPUs; on a GPU serve with --engine sglang" in problem
    [problem] = _problems(text, "engine.quantization=int4")
    assert "engine.quantization" in problem
