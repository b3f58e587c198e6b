"""Three tasks of lm-eval with local rows: a multiple choice, a generation, a perplexity over text."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

_ROWS: dict[str, list[dict[str, Any]]] = {
    "birds": [
        {"question": "Which bird swims?", "choices": ["duck", "sparrow", "owl"], "answer": 0},
        {
            "question": "Which bird hunts at night, when it is dark and all others sleep?",
            "choices": ["a", "owl"],
            "answer": 1,
        },
        {"question": "Which is no bird?", "choices": ["owl", "duck", "bat"], "answer": 2},
        {"question": "Which one sings?", "choices": ["nightingale", "vulture"], "answer": 0},
    ],
    "sums": [{"question": f"{n} + {n} =", "answer": str(2 * n)} for n in range(1, 6)],
    "prose": [{"text": "A short line."}, {"text": "A longer text, with words enough for several windows. " * 4}],
}
_YAML = {
    "birds": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: mcc}
""",
    "sums": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: answer
num_fewshot: 1
fewshot_split: test
generation_kwargs: {until: ["\\n", "7"], max_gen_toks: 12}
filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "(\\\\d)"}, {function: take_first}]}
  - {name: whole, filter: [{function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "prose": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
""",
}
TASKS = tuple(_ROWS)


def folder_of_tasks(folder: Path) -> Path:
    tasks = folder / "tasks"
    tasks.mkdir()
    for name, rows in _ROWS.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        where = (
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: '{data}'}}}}\ntest_split: test"
        )
        (tasks / f"{name}.yaml").write_text(where + _YAML[name], encoding="utf-8")
    return tasks


def lm_evals_results(**settings: Any) -> dict[str, Any]:
    """Figures by lm-eval's own `simple_evaluate`, without its description of the machine, which takes a second."""
    from lm_eval import simple_evaluate

    with patch("lm_eval.evaluator.add_env_info"):
        results: dict[str, Any] = simple_evaluate(**settings)["results"]
        return results
