"""Multiple choice: what its benchmarks have in common, and one class for each."""

from typing import Literal, Self

from pydantic import Field, model_validator

from didact.spec.evaluation.tasks import QuestionTask


class ChoiceTask(QuestionTask):
    """What multiple-choice benchmarks have in common."""

    task: str
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Its name in figures, where one benchmark is measured in two ways; left out, the benchmark's."""
    path: str = Field(min_length=1)
    """Question files: a file, folder, glob or URL (JSON, JSON lines, CSV, Parquet), or `hf:OWNER/NAME[:CONFIG]`."""
    split: str = "test"
    """Of a Hugging Face dataset, or of a folder that holds a folder for each split."""
    examples: str | None = None
    """Where worked examples for `few_shot` are, in the same forms; left out, the split `dev` beside the questions."""
    subjects: tuple[str, ...] = ()
    """Only these; left out, all."""
    by: Literal["generation", "likelihood"] = "likelihood"
    """`likelihood` takes the option that the model holds likeliest, `generation` reads the option in its answer."""
    options_as: Literal["letters", "texts"] = "letters"
    """By likelihood: compare the options' letters after a question that lists them, or the options' own texts after
    the bare question, each likelihood divided by the text's length in bytes."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest answer, in tokens. Reasoning (`prompt: step_by_step`) needs several hundred."""
    max_bad_rows_share: float = Field(default=0.01, ge=0, le=1)
    """Rows that cannot be used are left out and named; a larger share of them stops the evaluation."""
    without: str | None = None
    """Training rows, in a file of any known form: questions that stand in them are left out."""

    @property
    def title(self) -> str:
        """Its name in figures."""
        return self.name or self.task

    @model_validator(mode="after")
    def _check_ways(self) -> Self:
        if self.by == "likelihood":
            if self.prompt == "step_by_step" or self.samples > 1 or self.temperature:
                raise ValueError(
                    "prompt: step_by_step, samples and temperature are for written answers; set by: generation"
                )
        elif self.options_as == "texts":
            raise ValueError("options_as: texts compares likelihoods; set by: likelihood")
        return self


class MmluTask(ChoiceTask):
    """MMLU (Hendrycks et al., 2021): 57 subjects in English, four options.

    Reads the original CSV files without header, CSV with a header, and the hub's `hf:cais/mmlu:all`.
    """

    task: Literal["mmlu"]


class CmmluTask(ChoiceTask):
    """CMMLU (Li et al., 2023): 67 subjects in Chinese, four options. Reads its CSV files and copies on the hub."""

    task: Literal["cmmlu"]


class CevalTask(ChoiceTask):
    """C-Eval (Huang et al., 2023): 52 subjects in Chinese, four options.

    Reads its CSV files and `hf:ceval/ceval-exam:SUBJECT`. Answers of its split `test` are not public.
    """

    task: Literal["ceval"]
    split: str = "val"
    """Of a Hugging Face dataset, or of a folder that holds a folder for each split."""


class MmcuTask(ChoiceTask):
    """MMCU (Zeng, 2023): medicine, psychology, law and education in Chinese, with one or several right options.

    Right is exactly the set of right options. Reads JSON files in its original form (`类别`, `题目`, `选项`, `答案`),
    and a CSV file for each subject; workbooks must be saved as CSV.
    """

    task: Literal["mmcu"]
    by: Literal["generation", "likelihood"] = "generation"
    """`likelihood` compares single options, and in subjects with several right ones all sets of options."""


class AquaTask(ChoiceTask):
    """AQuA-RAT (Ling et al., 2017): algebra with five options and rationales; JSON lines or `hf:deepmind/aqua_rat`."""

    task: Literal["aqua"]
    by: Literal["generation", "likelihood"] = "generation"
    """`likelihood` takes the option that the model holds likeliest, `generation` reads the option in its answer."""


class StrategyQaTask(ChoiceTask):
    """StrategyQA (Geva et al., 2021): questions to answer with yes or no after several steps.

    Reads BIG-bench's `task.json`, its examples as JSON lines, and the original JSON. All 2,061 questions of FLAN's CoT
    file stand in BIG-bench's: `without: strategyqa_train.tsv` leaves out what a model has trained on.
    """

    task: Literal["strategyqa"]
    by: Literal["generation", "likelihood"] = "generation"
    """`likelihood` takes the option that the model holds likeliest, `generation` reads the option in its answer."""


class BbhTask(ChoiceTask):
    """BIG-bench Hard (Suzgun et al., 2022): 27 tasks, a JSON file each; some have options, others answers in words.

    `examples` may be the folder `cot-prompts` of its repository.
    """

    task: Literal["bbh"]
    by: Literal["generation", "likelihood"] = "generation"
    """`likelihood` measures only questions with options."""
