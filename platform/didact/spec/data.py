"""Which instruction data, in which proportions, and how it becomes tokens."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from didact.spec.base import Spec
from didact.spec.explain import Says

Form = Literal[
    "alpaca",
    "sharegpt",
    "messages",
    "prompt_completion",
    "tool_query",
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
    "hitab",
    "pubhealthtab",
    "text_to_sql",
    "text",
    "reasoning_gym",
]
Format = Literal["auto", Form]
FORMATS: tuple[Format, ...] = get_args(Format)


class ChoiceSpec(Spec):
    """Which rows of a source are trained on, by a figure of each row."""

    by: Literal["ifd", "answer_loss", "answer_tokens", "tokens", "diversity", "random"]
    """`answer_loss`: the base's loss on what is learned of the row, in nats a token: how hard the row is. `ifd`: this
    loss over the loss on the same answer without its prompt; low where the prompt tells the answer, above 1 where it
    misleads (Li et al. 2023, "From Quantity to Quality", arXiv 2308.12032). `answer_tokens`: how many tokens are
    learned; `tokens`: how many there are. `diversity`: rows are clustered by their words, and a row that is the n-th
    nearest to its cluster's centre has 1/n, so that the highest share has rows of all clusters. `random`: drawn with
    `data.seed`, to compare with."""
    share: float = Field(gt=0, le=1)
    """Part of the training rows that stays."""
    keep: Literal["highest", "lowest", "middle"] = "highest"
    """Rows with the highest or lowest figure, or those around the median."""
    below: float | None = None
    """Rows with this figure or a higher one never stay, such as 1.0 for `ifd`; the share is of all rows still."""
    clusters: Annotated[int, Field(ge=2)] | Literal["auto"] | None = None
    """Choose from so many clusters of rows with like words, which take turns: each gives its best row by the figure,
    then its second best (Ge et al. 2024, "Clustering and Ranking", arXiv 2402.18191, with words for
    embeddings). `auto`: the square root of half the rows, at most 1,000. null: the best rows, whatever they speak of;
    for `diversity` the same as `auto`."""

    @property
    def asks_base(self) -> bool:
        """Whether the base computes the figure."""
        return self.by in ("ifd", "answer_loss")

    @property
    def in_clusters(self) -> bool:
        """Whether rows are put into clusters."""
        return self.by == "diversity" or self.clusters is not None


class SourceSpec(Spec):
    """One dataset of the mixture."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Name in tables, metrics (`eval/<name>/loss`) and lineage."""
    path: str
    """A file, folder or glob, on this machine or as a URL (`https://`, `s3://`, `gs://`); `card:NAME`, a dataset of the
    catalog; `reasoning-gym:TASK`; or a Hugging Face dataset as `hf:OWNER/NAME[:CONFIG]`. Rows that a program gave are
    `memory:ADDRESS`."""
    format: Format = "auto"
    """How rows are written; `auto` recognises it from the path and the first rows. `text`, which only this field asks
    for, makes documents of text files (each file one, or cut at `options.end_mark`) and of records with a `text`."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    revision: str | None = None
    """Revision of a Hugging Face dataset."""
    stream: bool = False
    """Read a URL or a Hugging Face dataset where it is, for one that is larger than the disk; every pass reads it anew.
    False copies it into the cache first, once."""
    options: dict[str, Any] = Field(default_factory=dict)
    """For `reasoning-gym:TASK` settings of the generator (`seed`, and the task's own); for `card:NAME` `root`, a local
    folder or file that holds the raw files instead of the hub, and `files`, globs of the files to read. For everything
    but generators also how files are written (`container`, `encoding`, `header`, `columns`, `delimiter`, `quotes`,
    `end_mark`, `parallel`, `tables`, `each`) and how rows become text (`reasoning`, `language`, `table_form`,
    `max_table_rows`, `max_table_columns`, `turns`, `ignore`, `at_least`)."""
    weight: float = Field(default=1.0, ge=0)
    """Share of the mixture, in `data.weight_unit`; only ratios matter. With 0 only its held-out rows are used, as
    questions whose loss is watched. For `data.strategy: explicit` alone."""
    max_epochs: float | None = Field(default=None, gt=0)
    """As `data.max_epochs`, for this source."""
    max_rows: int | None = Field(default=None, ge=1)
    """Use at most this many rows, held-out ones included, drawn at random with `data.seed` (never the first ones).
    For `reasoning-gym` the number of rows to generate (1,000 when left out)."""
    held_out_rows: int = Field(default=0, ge=0)
    """Rows set aside for evaluation. Training rows with the same prompt as a held-out row are dropped."""
    choose: ChoiceSpec | None = None
    """Train on the best part of the rows that the filters of `data` leave, by a figure of each; null trains on all."""
    licence: str | None = Field(default=None, min_length=1)
    """The data's licence where no card says it, or the terms agreed on beyond a card's; goes into lineage."""
    commercial: bool | None = None
    """Your own statement that commercial use is allowed; null leaves it to the card. Where the card forbids it, state
    the `licence` that you hold as well."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.max_rows is not None and self.held_out_rows >= self.max_rows:
            raise ValueError(
                f"held_out_rows ({self.held_out_rows}) are taken out of max_rows ({self.max_rows}), which leaves none "
                "to train on; lower held_out_rows"
            )
        if self.stream and "://" not in self.path and not self.path.startswith(("hf:", "card:")):
            raise ValueError(f"stream: {self.path} is on this machine and read from here anyway; remove stream")
        return self


class StageSpec(Spec):
    """A part of the run with weights of its own."""

    until: float = Field(ge=0, le=1)
    """Where it ends, as a share of the run's samples; the last stage ends at 1."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(min_length=1)
    """Source -> share in `data.weight_unit`; only ratios matter, and a source left out gets nothing."""

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if not any(weights.values()):
            raise ValueError(f"all weights are 0 ({', '.join(weights)}); give at least one source a weight")
        return weights


class DecidedSpec(Spec):
    """Shares that hold from a step on, until the next decision."""

    after: int = Field(ge=1)
    """Optimizer steps that are done before."""
    draws: dict[str, Annotated[int, Field(ge=0)]] = Field(min_length=1)
    """Source -> samples, of as many as all have together; a source left out has none."""

    @field_validator("draws")
    @classmethod
    def _some(cls, draws: dict[str, int]) -> dict[str, int]:
        if not any(draws.values()):
            raise ValueError(f"no source is drawn ({', '.join(draws)}); give at least one a number above 0")
        return draws


class OnlineMixingSpec(Spec):
    """Shares that follow how fast the training loss of each source falls, beginning with the weights of the recipe."""

    every_steps: int = Field(default=20, ge=3)
    """Optimizer steps between two decisions."""
    window_steps: int | None = Field(default=None, ge=3)
    """Steps whose losses a decision looks at; default: twice `every_steps`."""
    temperature: float = Field(default=1.0, gt=0)
    """How far shares go from the weights: the higher, the nearer they stay."""
    floor: float = Field(default=0.25, ge=0, lt=1)
    """Part of its first share that a source keeps, however little it learns."""
    decided: tuple[DecidedSpec, ...] = ()
    """Decisions of an earlier run, which are followed; nothing is decided anew then."""

    @property
    def window(self) -> int:
        """`window_steps` with its default."""
        return self.window_steps or 2 * self.every_steps

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        after = [each.after for each in self.decided]
        if after != sorted(set(after)):
            raise ValueError(f"after must increase from one of decided to the next; found {after}")
        return self


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
    """`allow` trains on contaminated rows, which `didact data report` counts all the same; `drop` leaves them out of
    training and counts them; `fail` stops before training and names them."""

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
    strategy: Literal["explicit", "proportional", "temperature", "uniform"] = "explicit"
    """Weights of the sources: as written; by size in `weight_unit`; by size ** (1 / temperature); or all the same."""
    temperature: float = Field(default=2.0, ge=0.01)
    """For `strategy: temperature`: 1 is proportional, and the higher the more alike the weights become."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Most passes over any one source in the whole run; what a source may not take goes to the others in proportion."""
    curriculum: tuple[StageSpec, ...] = ()
    """Weights that change over the run, in place of the sources' own."""
    interpolate: Literal["step", "linear"] = "step"
    """Whether a stage's weights hold until its end, or are reached there on a line from those of the stage before."""
    online_mixing: OnlineMixingSpec | None = None
    """Weights that follow training losses; null keeps them."""
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

    @property
    def states_weights(self) -> bool:
        """Whether the sources' own weights hold for the whole run, or are where it begins."""
        return self.strategy == "explicit" and not self.curriculum

    @field_validator("sources")
    @classmethod
    def _unique_names(cls, sources: tuple[SourceSpec, ...]) -> tuple[SourceSpec, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {twice[0]!r}; give each its own name")
        return sources

    @model_validator(mode="after")
    def _curriculum_fits(self) -> "DataSpec":
        if self.curriculum:
            _check_curriculum(self)
        elif self.strategy == "explicit" and not any(source.weight for source in self.sources):
            raise ValueError("all sources have weight 0; give at least one a weight")
        if self.online_mixing:
            _check_online_mixing(self, self.online_mixing)
        return self


def _check_curriculum(data: DataSpec) -> None:
    if data.strategy != "explicit":
        raise ValueError(f"curriculum states weights and strategy {data.strategy!r} computes them; remove one of both")
    if data.max_epochs is not None or any(source.max_epochs is not None for source in data.sources):
        raise ValueError("max_epochs would change the weights that curriculum states; remove one of both")
    ends = [stage.until for stage in data.curriculum]
    if ends != sorted(set(ends)) or ends[-1] != 1:
        raise ValueError(f"until must increase from stage to stage of curriculum, to 1.0; found {ends}")
    if ends[0] == 0 and (data.interpolate == "step" or len(ends) == 1):
        raise ValueError("a first stage until 0 has no samples; only with interpolate 'linear' it says where to start")
    names = {source.name for source in data.sources}
    for number, stage in enumerate(data.curriculum):
        if unknown := sorted(stage.weights.keys() - names):
            raise ValueError(f"curriculum.{number} names {unknown[0]!r}; sources are {', '.join(sorted(names))}")
    if unused := sorted(
        {source.name for source in data.sources if source.weight}
        - {name for stage in data.curriculum for name, weight in stage.weights.items() if weight}
    ):
        raise ValueError(f"source {unused[0]!r} has a weight in no stage of curriculum; give it one or remove it")


def _check_online_mixing(data: DataSpec, mixing: OnlineMixingSpec) -> None:
    if data.curriculum:
        raise ValueError("curriculum states weights and online_mixing decides them; remove one of both")
    if data.max_epochs is not None or any(source.max_epochs is not None for source in data.sources):
        raise ValueError("max_epochs would change the weights that online_mixing decides; remove one of both")
    weighed = [source.name for source in data.sources if source.weight or data.strategy != "explicit"]
    if len(weighed) < 2:
        raise ValueError(f"online_mixing shares among sources with a weight; found {weighed[0]!r} alone, remove it")
    names = {source.name for source in data.sources}
    for number, each in enumerate(mixing.decided):
        if unknown := sorted(each.draws.keys() - names):
            raise ValueError(
                f"online_mixing.decided.{number} names {unknown[0]!r}; sources are {', '.join(sorted(names))}"
            )


OwnTemplate = Annotated[
    str,
    StringConstraints(pattern=r"\{[{%#]|\.(jinja2?|j2)$"),
    Says("a Jinja file such as chat.jinja, or Jinja text"),
]


class TokensSpec(Spec):
    """From conversations to token ids and loss masks.

    Documents (`format: text`) have no template: every token is learned, EOS is put at the end, and those longer than
    `max_length` become several samples.
    """

    max_length: int = Field(default=512, ge=8)
    """Tokens per conversation; longer ones are treated by `truncation`."""
    truncation: Literal["end", "drop"] = "end"
    """`end` cuts the tail but rejects (and counts) a row that would keep no answer token; `drop` rejects long rows."""
    loss_on: Literal["assistant", "last_turn", "all"] = "assistant"
    """Tokens that are learned: every assistant turn with its end mark, the last one only, or everything."""
    packing: bool | Literal["auto"] = "auto"
    """Put several conversations in one row, attention and positions kept apart. `auto`: on where the method allows."""
    template: Literal["auto", "model", "alpaca"] | OwnTemplate = "auto"
    """`auto`: the model's own chat template, or the Alpaca prompt where it has none. A Jinja file, such as
    `chat.jinja`, or Jinja text: a template of one's own. The run's record holds its text."""
    template_arguments: dict[str, Any] = Field(default_factory=dict)
    """What the template is given beside messages and tools, such as `enable_thinking: false`."""
