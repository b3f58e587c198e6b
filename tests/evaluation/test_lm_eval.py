"""lm-eval's tasks asked by our models: the figures of its own Hugging Face backend."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the extra didact[lm-eval] is not installed")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from didact.datasets.conversation import Message
from didact.errors import DataError, SpecError
from didact.evaluation.asks import Answer, Generation, Likelihood, Likely, Text, TokenIds
from didact.evaluation.harness import DidactLM, HarnessTask
from didact.evaluation.harness.requests import generation, plan, responses
from didact.evaluation.questions import ModelTokens, TokenTask
from didact.evaluation.statistics import higher_is_better
from didact.evaluation.tasks import build_task
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.spec import LmEvalTask
from didact.tokens.template import TemplateContract
from tests.fakes.answering import PlainModel, asked_all
from tests.fakes.lm_eval_tasks import TASKS, folder_of_tasks, lm_evals_results
from tests.fakes.models import tiny_model

TOKENIZER = byte_tokenizer()
TOKENS = ModelTokens(TOKENIZER, TemplateContract.build(TOKENIZER, "auto"), 48)
"""A context so short that long texts are cut into windows, and long prompts from the left."""
ROOMY = ModelTokens(TOKENIZER, TOKENS.contract, 512)


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("didact.evaluation.harness.scores._DRAWS", 5)


def spec_of(folder: Path, *tasks: str, **fields: Any) -> LmEvalTask:
    return LmEvalTask(task="lm_eval", tasks=tasks, folder=str(folder), **fields)


def built(folder: Path, *tasks: str, **fields: Any) -> HarnessTask:
    task = build_task(spec_of(folder, *tasks, **fields))
    assert isinstance(task, HarnessTask) and isinstance(task, TokenTask)
    return task


def scored(task: HarnessTask) -> tuple[dict[str, float], dict[str, float]]:
    """Means over questions, and the figures that are none."""
    scores = asyncio.run(asked_all(task, PlainModel(tiny_model(), TOKENS)))
    names = {name for _, score in scores for name in score.values}
    assert all(score.problem is None for _, score in scores)
    values = {name: [score.values[name] for _, score in scores if name in score.values] for name in names}
    return {name: sum(each) / len(each) for name, each in values.items()}, dict(task.overall(scores))


@pytest.mark.parametrize("name", TASKS)
def test_figures_are_those_of_lm_evals_own_backend(tmp_path: Path, name: str) -> None:
    tasks = folder_of_tasks(tmp_path)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    theirs = HFLM(
        pretrained=tiny_model(), tokenizer=TOKENIZER, batch_size=2, max_length=TOKENS.max_length, device="cpu"
    )
    ours = DidactLM(TOKENS, PlainModel(tiny_model(), TOKENS))
    settings = {"tasks": [name], "task_manager": manager, "bootstrap_iters": 0}
    expected, direct = (figures(lm_evals_results(model=each, **settings)[name]) for each in (theirs, ours))
    assert direct == pytest.approx(expected, rel=1e-5)
    means, others = scored(built(tasks, name, chat=False).with_tokens(TOKENS))
    labels = {key: key.removesuffix(",none").replace(",", "_") for key in expected}
    assert {label: (means | others)[label] for label in labels.values()} == pytest.approx(
        {label: expected[key] for key, label in labels.items()}, rel=1e-5
    )
    assert len(labels) == {"birds": 3, "sums": 2, "prose": 3}[name]


def figures(results: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in results.items() if "," in key and value != "N/A"}


def test_standard_errors_are_lm_evals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    tasks = folder_of_tasks(tmp_path)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    model = DidactLM(TOKENS, PlainModel(tiny_model(), TOKENS))
    expected = lm_evals_results(model=model, tasks=["birds"], task_manager=manager, bootstrap_iters=2)["birds"]
    _, others = scored(built(tasks, "birds", chat=False).with_tokens(TOKENS))
    assert others["acc_stderr"] == pytest.approx(expected["acc_stderr,none"])
    assert others["acc_norm_stderr"] == pytest.approx(expected["acc_norm_stderr,none"])
    assert others["mcc_stderr"] >= 0  # bootstrapped


def test_questions_and_scores_read_as_ours(tmp_path: Path) -> None:
    task = built(folder_of_tasks(tmp_path), "birds", "sums", chat=False, name="own")
    assert (task.name, task.metric, len(task.questions)) == ("own", "acc", 9)
    bird, *_, last = task.questions
    assert (bird.id, bird.group, bird.text) == ("birds/0", "birds", "Question: Which bird swims?\nAnswer:")
    assert (bird.options, bird.expected) == (("duck", "sparrow", "owl"), "duck")
    assert (last.id, last.group, last.expected) == ("sums/4", "sums", "10")
    likely = tuple(Likely(value, 4, True) for value in (-3.0, -1.0, -2.0))
    right = task.score(bird, (Answer(likelihoods=(likely[1], likely[0], likely[2])),))
    wrong = task.score(bird, (Answer(likelihoods=likely),))
    assert (right.values["acc"], right.extracted) == (1.0, "duck")
    assert (wrong.values["acc"], wrong.extracted) == (0.0, "sparrow")
    figures = task.overall([(bird, right), (bird, wrong)])
    assert "mcc" not in right.values and (figures["birds/acc"], figures["birds/acc_stderr"]) == (0.5, 0.5)
    read = task.score(last, (Answer(texts=(Text("so 1", 3, "stop"),)),))
    assert read.values == {"exact_match_strict": 0, "unread_strict": 0, "exact_match_whole": 0, "unread_whole": 0}
    unread = (
        task.score(last, (Answer(texts=(Text("10", 3, "stop"),)),)),
        task.score(last, (Answer(texts=(Text("x", 1, "stop"),)),)),
    )
    assert [each.values["exact_match_whole"] for each in unread] == [1.0, 0.0]
    assert [each.values["unread_strict"] for each in unread] == [0.0, 1.0]
    assert set(task.overall([(last, each) for each in unread])) == {
        *("sums/exact_match_strict", "sums/exact_match_strict_stderr"),
        *("sums/exact_match_whole", "sums/exact_match_whole_stderr"),
    }


def test_an_answer_that_did_not_come_is_a_problem_and_no_zero(tmp_path: Path) -> None:
    task = built(folder_of_tasks(tmp_path), "sums", chat=False)
    score = task.score(task.questions[0], (Answer(problem="the endpoint hung up"),))
    assert (score.problem, dict(score.values)) == ("the endpoint hung up", {})
    assert task.overall([(task.questions[0], score)]) == {}


def test_what_cannot_be_asked_says_why(tmp_path: Path) -> None:
    tight = ModelTokens(TOKENIZER, TOKENS.contract, 8)
    task = built(folder_of_tasks(tmp_path), "sums", chat=False).with_tokens(tight)
    assert task.asks(task.questions[0], ()) == ()
    assert "12 tokens leave no room for a prompt in a context of 8" in str(task.score(task.questions[0], ()).problem)


def test_turns_go_through_the_template_contract(tmp_path: Path) -> None:
    tasks = folder_of_tasks(tmp_path)
    (ask,) = built(tasks, "sums").with_tokens(TOKENS).asks(built(tasks, "sums").questions[2], ())
    assert isinstance(ask, Generation) and isinstance(ask.prompt, tuple)
    assert [message.role for message in ask.prompt] == ["user", "assistant", "user"]
    assert (ask.prompt[-1].content, ask.stop, ask.max_new_tokens) == ("3 + 3 =", ("\n", "7"), 12)
    question = built(tasks, "birds").questions[0]
    (ask,) = built(tasks, "birds").with_tokens(ROOMY).asks(question, ())
    assert isinstance(ask, Likelihood) and isinstance(ask.prompt, TokenIds)
    turns = (Message("user", "Question: Which bird swims?\nAnswer:"),)
    assert list(ask.prompt.ids) == TOKENS.contract.prompt_ids(TOKENIZER, turns)
    assert [TOKENIZER.decode(each.ids) for each in ask.continuations] == ["duck", "sparrow", "owl"]


def test_text_of_a_special_token_stays_text() -> None:
    model = DidactLM(ROOMY)
    special = TOKENIZER.eos_token
    chat = model.apply_chat_template([{"role": "user", "content": f"Say {special}"}])
    prompt, _ = model.pair(chat, "yes")
    assert isinstance(prompt, TokenIds)
    plain = TOKENS.contract.prompt_ids(TOKENIZER, (Message("user", "Say"),))
    assert list(prompt.ids) == TOKENS.contract.prompt_ids(TOKENIZER, (Message("user", f"Say {special}"),))
    assert prompt.ids.count(TOKENIZER.eos_token_id) == plain.count(TOKENIZER.eos_token_id)
    assert special in TOKENIZER.decode(prompt.ids)
    with pytest.raises(AttributeError):
        chat.strip()


def test_an_answer_that_is_begun() -> None:
    model = DidactLM(TOKENS)
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "It is "}]
    chat = model.apply_chat_template(turns, add_generation_prompt=False)
    assert model.prompt(chat, 8) == ((Message("user", "2 + 2?"),), "It is ")
    prompt, after = model.pair(chat, "4")
    assert isinstance(prompt, TokenIds) and isinstance(after, TokenIds)
    assert TOKENIZER.decode(prompt.ids).endswith("It is") and TOKENIZER.decode(after.ids) == " 4"


def instance(kind: str, *arguments: Any, repeats: int = 1) -> Instance:
    return Instance(kind, {}, arguments, 0, metadata=("named", 0, repeats))


def test_samples_are_drawn_together_and_handed_back_apart() -> None:
    settings = {"until": "\n", "do_sample": True, "temperature": 0.5, "top_p": 0.9, "max_gen_toks": 4}
    requests = [instance("generate_until", "Go on", settings, repeats=3)]
    planned = plan(requests, DidactLM(TOKENS))
    (ask,) = planned.asks
    assert isinstance(ask, Generation)
    assert (ask.num_samples, ask.temperature, ask.top_p, ask.stop) == (3, 0.5, 0.9, ("\n",))
    answer = Answer(texts=tuple(Text(text, 1, "stop") for text in "abc"))
    assert responses(requests, planned, [answer]) == [["a", "b", "c"]]
    greedy = [instance("generate_until", "Go on", {"max_gen_toks": 4}, repeats=2)]
    planned = plan(greedy, DidactLM(TOKENS))
    assert isinstance(planned.asks[0], Generation) and planned.asks[0].num_samples == 1
    assert responses(greedy, planned, [answer]) == [["a", "a"]]


def test_a_way_to_decode_that_we_have_not_is_refused() -> None:
    request = instance("generate_until", "Go on", {"do_sample": True, "num_beams": 4, "temperature": 1.0})
    with pytest.raises(DataError, match="named: its generation sets num_beams; expected do_sample"):
        generation(request, DidactLM(TOKENS))
    assert generation(instance("generate_until", "Go", {"num_beams": 1}), DidactLM(ROOMY)).temperature == 0


def test_options_of_one_prompt_are_asked_together() -> None:
    requests = [instance("loglikelihood", *pair) for pair in (("A:", " x"), ("B:", " x"), ("A:", " y"), ("", "z"))]
    planned = plan(requests, DidactLM(TOKENS))
    assert [len(ask.continuations) for ask in planned.asks if isinstance(ask, Likelihood)] == [2, 1, 1]
    assert planned.places == (((0, 0),), ((1, 0),), ((0, 1),), ((2, 0),))
    assert isinstance(planned.asks[2], Likelihood)
    assert planned.asks[2].prompt == TokenIds((TOKENIZER.eos_token_id,))


def test_the_version_follows_prompts_and_scoring(tmp_path: Path) -> None:
    tasks = folder_of_tasks(tmp_path)
    version = built(tasks, "sums").version
    assert built(tasks, "sums").version == version
    assert built(tasks, "sums", chat=False).version != version
    assert built(tasks, "sums", generation={"max_gen_toks": 4}).version != version
    assert built(tasks, "sums", limit=2).version != version
    text = (tasks / "sums.yaml").read_text(encoding="utf-8")
    (tasks / "sums.yaml").write_text(text.replace("(\\\\d)", "(\\\\d+)"), encoding="utf-8")
    assert built(tasks, "sums").version != version


def test_the_version_follows_right_answers(tmp_path: Path) -> None:
    tasks = folder_of_tasks(tmp_path)
    for name, found, instead in (
        ("birds", '"answer": 2', '"answer": 1'),
        ("sums", '"answer": "10"', '"answer": "11"'),
    ):
        version = built(tasks, name, num_fewshot=0).version
        rows = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8")
        assert found in rows
        (tmp_path / f"{name}.jsonl").write_text(rows.replace(found, instead), encoding="utf-8")
        assert built(tasks, name, num_fewshot=0).version != version


def test_the_version_follows_a_tasks_own_code(tmp_path: Path) -> None:
    tasks = folder_of_tasks(tmp_path)
    own = (tasks / "sums.yaml").read_text(encoding="utf-8").replace("task: sums", "task: own")
    (tasks / "own.yaml").write_text(own + "process_results: !function scoring.process\n", encoding="utf-8")
    code = "def process(doc, results):\n    return {'exact_match': float(results[0] == doc['answer'])}\n"
    (tasks / "scoring.py").write_text(code, encoding="utf-8")
    version = built(tasks, "own").version
    assert built(tasks, "own").version == version
    (tasks / "scoring.py").write_text(code.replace("==", "!="), encoding="utf-8")
    assert built(tasks, "own").version != version


@pytest.mark.parametrize(
    ("metrics", "label", "up"),
    [
        ("{metric: exact_match, aggregation: mean, higher_is_better: true}", "exact_match", True),
        ("{metric: ter, aggregation: mean, higher_is_better: false}", "ter", False),
        ("{metric: wer, aggregation: mean, higher_is_better: false}", "wer", False),
        ("{metric: slips, aggregation: mean, higher_is_better: false}", "slips_lower_is_better", False),
        ("{metric: cut, aggregation: mean, higher_is_better: true}", "cut_higher_is_better", True),
    ],
)
def test_the_direction_of_a_metric_is_lm_evals(tmp_path: Path, metrics: str, label: str, up: bool) -> None:
    tasks = folder_of_tasks(tmp_path)
    name = label.removesuffix("_lower_is_better").removesuffix("_higher_is_better")
    (tasks / "scoring.py").write_text(f"def process(doc, results):\n    return {{'{name}': 0.5}}\n", encoding="utf-8")
    yaml = (tasks / "sums.yaml").read_text(encoding="utf-8").replace("task: sums", "task: own")
    yaml = yaml.split("filter_list")[0] + f"process_results: !function scoring.process\nmetric_list: [{metrics}]\n"
    (tasks / "own.yaml").write_text(yaml, encoding="utf-8")
    task = built(tasks, "own", chat=False)
    score = task.score(task.questions[0], (Answer(texts=(Text("x", 1, "stop"),)),))
    assert (task.metric, dict(score.values)) == (label, {label: 0.5})
    assert higher_is_better(f"eval/own/{label}") is up
    assert set(task.overall([(task.questions[0], score)] * 2)) == {f"{name}_stderr"}


def test_texts_are_better_when_they_surprise_less(tmp_path: Path) -> None:
    means, others = scored(built(folder_of_tasks(tmp_path), "prose", chat=False).with_tokens(TOKENS))
    directions = {name: higher_is_better(f"eval/prose/{name}") for name in (*means, *others)}
    expected = {"log_likelihood": True, "word_perplexity": False, "byte_perplexity": False, "bits_per_byte": False}
    assert expected.items() <= directions.items()


def test_groups_are_averaged_as_lm_eval_does(tmp_path: Path) -> None:
    tasks = folder_of_tasks(tmp_path)
    again = (tasks / "birds.yaml").read_text(encoding="utf-8").replace("task: birds", "task: more")
    (tasks / "more.yaml").write_text(again, encoding="utf-8")
    group = "group: both\ntask: [birds, more]\naggregate_metric_list: [{metric: acc, weight_by_size: false}]\n"
    (tasks / "both.yaml").write_text(group, encoding="utf-8")
    task = built(tasks, "both", limit=3)
    assert (task.name, {question.group for question in task.questions}) == ("both", {"birds", "more"})
    means, others = scored(task.with_tokens(TOKENS))
    assert others["both/acc"] == pytest.approx(means["acc"])
    assert {"birds/mcc", "more/mcc", "more/acc_stderr"} <= set(others)


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({"tasks": ("brids",)}, SpecError, "lm-eval has no 'brids'; near it are birds"),
        ({"tasks": ("birds",), "folder": "nowhere"}, SpecError, "folder: nowhere is not a folder"),
        ({"tasks": ("birds",), "options": {"doc_to_target": "{{nothing.there}}"}}, DataError, "lm_eval birds"),
        ({"tasks": ("birds",), "options": {"dataset_kwargs": {"data_files": "no.jsonl"}}}, DataError, "no.jsonl"),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path, fields: dict[str, Any], error: type[Exception], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = folder_of_tasks(tmp_path)
    monkeypatch.setattr(
        "didact.evaluation.harness.load.TaskManager",
        lambda **_: TaskManager(include_path=str(tasks), include_defaults=False),
    )
    with pytest.raises(error, match=match):
        build_task(LmEvalTask(task="lm_eval", **{"folder": str(tasks), **fields}))
