"""Which instruction data, in which proportions, and how it becomes tokens."""

from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from didact.spec.base import Spec

Form = Literal[
    "alpaca",
    "sharegpt",
    "messages",
    "prompt_completion",
    "seed_task",
    "preference",
    "comparison",
    "answer_lists",
    "transcript",
    "turn_list",
    "dialogue",
    "role_play",
    "moss",
    "cot_tsv",
    "cot",
    "question_answer",
    "exam",
    "textbook",
    "extractive_qa",
    "nli",
    "consultation",
    "csl",
    "table_question",
    "wtq",
    "aitqa",
    "fetaqa",
    "tabfact",
    "infotabs",
    "tabmwp",
    "tatqa",
    "finqa",
    "text_to_sql",
    "reasoning_gym",
]
Format = Literal["auto", Form]
FORMATS: tuple[Format, ...] = get_args(Format)


class SourceSpec(Spec):
    """One dataset of the mixture."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Name in tables, metrics (`eval/<name>/loss`) and lineage."""
    path: str
    """A file, folder or glob; `card:NAME`, a dataset of the catalog; `reasoning-gym:TASK`; or a Hugging Face dataset
    as `hf:OWNER/NAME[:CONFIG]`."""
    format: Format = "auto"
    """How rows are written; `auto` recognises it from the path and the first rows."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    revision: str | None = None
    """Revision of a Hugging Face dataset."""
    options: dict[str, Any] = Field(default_factory=dict)
    """For `reasoning-gym:TASK` settings of the generator (`seed`, and the task's own); for `card:NAME` `root`, a local
    folder or file that holds the raw files instead of the hub, and `files`, globs of the files to read. For everything
    but generators also how files are written (`container`, `encoding`, `header`, `columns`, `delimiter`, `quotes`,
    `end_mark`, `parallel`, `tables`) and how rows become text (`reasoning`, `language`, `table_form`,
    `max_table_rows`, `max_table_columns`)."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the mixture, in `data.weight_unit`; only ratios matter."""
    max_rows: int | None = Field(default=None, ge=1)
    """Use at most this many rows, held-out ones included, drawn at random with `data.seed` (never the first ones).
    For `reasoning-gym` the number of rows to generate (1,000 when left out)."""
    held_out_rows: int = Field(default=0, ge=0)
    """Rows set aside for evaluation. Training rows with the same prompt as a held-out row are dropped."""
    licence: str | None = Field(default=None, min_length=1)
    """The data's licence where no card says it, or the terms agreed on beyond a card's; goes into lineage."""
    commercial: bool | None = None
    """Your own statement that commercial use is allowed; null leaves it to the card. Where the card forbids it, state
    the `licence` that you hold as well."""


class DuplicatesSpec(Spec):
    """What happens to rows that are there twice. Rows that are held out stay; their twins in training data go."""

    within: Literal["keep", "drop"] = "keep"
    """Rows with an earlier twin in the same source. `keep` does not look for them; `didact data overlap` does."""
    across: Literal["keep", "drop"] = "keep"
    """Rows with a twin in a source that stands earlier in `data.sources`."""
    near: bool = False
    """Also compare rows that differ in a few words: the sets of their five-word runs (five characters in scripts
    without spaces)."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of those sets from which two rows are twins."""
    compare: Literal["conversation", "prompt"] = "conversation"
    """Whole conversations, or only what comes before the last answer."""


class EvaluationSetSpec(Spec):
    """Questions that must not be learned."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Name in counts and messages."""
    path: str
    """As in `data.sources`: a file, folder or glob, `card:NAME`, `reasoning-gym:TASK`, or `hf:OWNER/NAME[:CONFIG]`."""
    format: Format = "auto"
    """As in `data.sources`; every turn of the user counts as a question."""
    question: str | None = None
    """Where files are in no form with answers: the field that holds the question, such as `question`; with dots for
    fields inside fields and lists, such as `examples.input`."""
    split: str = "test"
    """Split of a Hugging Face dataset."""
    revision: str | None = None
    """Revision of a Hugging Face dataset."""
    options: dict[str, Any] = Field(default_factory=dict)
    """As in `data.sources`."""
    max_rows: int | None = Field(default=None, ge=1)
    """Questions to generate for `reasoning-gym` (1,000 when left out); no effect elsewhere."""


class ContaminationSpec(Spec):
    """Training rows that hold questions of an evaluation."""

    against: tuple[EvaluationSetSpec, ...] = ()
    """Evaluation sets beside the recipe's own `evaluation.tasks`."""
    ngram: int = Field(default=13, ge=8)
    """A row is contaminated when it shares so many words in a row with a question (twice as many characters in scripts
    without spaces), or holds the whole of a shorter question."""
    policy: Literal["allow", "drop", "fail"] = "allow"
    """`allow` counts contaminated rows, `drop` leaves them out of training, `fail` stops the run and names them."""

    @field_validator("against")
    @classmethod
    def _unique_names(cls, against: tuple[EvaluationSetSpec, ...]) -> tuple[EvaluationSetSpec, ...]:
        names = [each.name for each in against]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two evaluation sets are named {twice[0]!r}; give each its own name")
        return against


class DataSpec(Spec):
    """The mixture."""

    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    """The datasets."""
    weight_unit: Literal["tokens", "rows"] = "tokens"
    """Whether weights are shares of tokens or of rows."""
    max_bad_rows_share: float = Field(default=0.01, ge=0, le=1)
    """Stop the run when a larger share of a source's rows is quarantined."""
    seed: int = Field(default=0, ge=0)
    """Order of the mixture, choice of rows and of held-out rows."""
    commercial: bool = False
    """The model is for commercial use: any source whose card forbids it or does not know, and any source without card
    that does not state `commercial: true`, is refused by name."""
    duplicates: DuplicatesSpec = DuplicatesSpec()
    """Rows that are there twice."""
    contamination: ContaminationSpec = ContaminationSpec()
    """Rows that hold questions of an evaluation."""

    @field_validator("sources")
    @classmethod
    def _unique_names(cls, sources: tuple[SourceSpec, ...]) -> tuple[SourceSpec, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {twice[0]!r}; give each its own name")
        return sources


class TokensSpec(Spec):
    """From conversations to token ids and loss masks."""

    max_length: int = Field(default=512, ge=8)
    """Tokens per conversation; longer ones are treated by `truncation`."""
    truncation: Literal["end", "drop"] = "end"
    """`end` cuts the tail but rejects (and counts) a row that would keep no answer token; `drop` rejects long rows."""
    loss_on: Literal["assistant", "last_turn", "all"] = "assistant"
    """Tokens that are learned: every assistant turn with its end mark, the last one only, or everything."""
    packing: bool | Literal["auto"] = "auto"
    """Put several conversations in one row, attention and positions kept apart. `auto`: on where the method allows."""
    template: Literal["auto", "model", "alpaca"] = "auto"
    """`auto`: the model's own chat template, or the Alpaca prompt where it has none."""
