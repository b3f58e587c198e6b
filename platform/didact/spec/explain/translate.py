"""A setting of another program, translated into the fields of this one by the table in `words.yaml`."""

import functools
import importlib.resources
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from didact.spec.explain.schema import value_at
from didact.spec.explain.shown import shown

ANY = "any"
_SHORTEST = 6
_ENDINGS = re.compile(r"\.(jsonl?|csv|parquet|arrow|txt|tsv|ya?ml)(\.(gz|zst|bz2|xz|zip))?$")


@dataclass(frozen=True)
class Answer:
    """What a foreign setting is here."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted field -> value to write."""
    text: str = ""
    """What to do instead, or what must be known besides."""


@dataclass(frozen=True)
class Words:
    """The table, by single words."""

    fields: dict[str, list[str]]
    """Word -> the fields that it may mean, of several kinds of files."""
    values: dict[str, dict[str, Any]]
    """Field -> word -> value or settings."""
    cases: dict[str, dict[str, Any]]
    nothing: dict[str, str]
    """Word, or the beginning of words with `*` -> what there is instead."""
    sections: frozenset[str]
    inside: dict[str, str]
    tasks: dict[str, str]
    """Word -> field of an evaluation's task."""

    def known(self) -> list[str]:
        """Words with a counterpart that are long enough for a misspelt one to be told."""
        return [word for word in (*self.fields, *self.cases, *_COMPUTED) if len(word) >= _SHORTEST]


@functools.cache
def words() -> Words:
    """The table as read from its file."""
    text = importlib.resources.files(__package__).joinpath("words.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    fields: dict[str, list[str]] = {}
    for target, listed in table["fields"].items():
        for word in listed.split():
            fields.setdefault(word, []).append(target)
    return Words(
        fields=fields,
        values={target: _by_word(cases) for target, cases in table["values"].items()},
        cases={word: _by_word(cases) for listed, cases in table["cases"].items() for word in listed.split()},
        nothing={word: each["why"] for each in table["nothing"] for word in each["words"].split()},
        sections=frozenset(table["sections"].split()),
        inside=table["inside"],
        tasks={word: target for target, listed in table["tasks"].items() for word in listed.split()},
    )


def _by_word(cases: dict[Any, Any]) -> dict[str, Any]:
    return {word: value for listed, value in cases.items() for word in as_word(listed).split()}


def as_word(found: Any) -> str:
    """A key or value as the table spells it."""
    return str(found).strip().lower().lstrip("-").replace("-", "_")


def translate(key: str, value: Any, values: Any, fit: Callable[[dict[str, Any]], int]) -> Answer | None:
    """What `key: value` of another program is here; None for a word that is in no table.

    Args:
        key: the word as found.
        value: what stands behind it.
        values: the whole file, for words that depend on others.
        fit: how well settings fit the file at hand; of the fields that a word may mean, the first of the best is told.
    """
    table, word = words(), as_word(key)
    if value is None and (word in _COMPUTED or word in table.cases or word in table.fields):
        return Answer(text="leave it out")
    if word in _COMPUTED:
        return _COMPUTED[word](value, values)
    if word in table.cases:
        return _case(table.cases[word], value)
    if word in table.fields:
        return Answer(max((in_field(target, value) for target in table.fields[word]), key=fit))
    known = word if word in table.nothing else next((each for each in table.nothing if fnmatchcase(word, each)), None)
    return Answer(text=f"there is nothing like `{key}` here: {table.nothing[known]}") if known else None


def in_field(target: str, value: Any) -> dict[str, Any]:
    """Settings that say in `target`'s words what `value` says in others'; as found where no other word is known."""
    if target == "data.sources":
        return {target: _sources(value)}
    if target == "data.sources.0.path" and isinstance(value, str):
        return {"data.sources.0": _source(value)}
    if target == "adapter.target_modules" and isinstance(value, str) and as_word(value) not in words().values[target]:
        return {target: _listed(value)}
    cases = words().values.get(target, {})
    if isinstance(value, str | bool | int | float | None) and as_word(value) in cases:
        meant = cases[as_word(value)]
        return dict(meant) if isinstance(meant, dict) else {target: meant}
    return {target: value}


def _case(cases: dict[str, Any], value: Any) -> Answer:
    found = cases.get(as_word(value), cases.get(ANY))
    if found is None:
        words_here = " or ".join(word for word in cases if word != ANY)
        return Answer(text=f"found {shown(value)}; expected {words_here}")
    if isinstance(found, dict):
        return Answer({target: value if each == "{value}" else each for target, each in found.items()})
    return Answer(text=found.replace("{value}", str(value)))


def _listed(value: str) -> Any:
    """A list written with commas as a list; an expression stays."""
    names = [name.strip("'\"") for name in re.split(r"[,\s]+", value.strip("[] "))]
    return names if all(re.fullmatch(r"[\w.-]+" if len(names) > 1 else r"[\w-]+", name) for name in names) else value


def _sources(value: Any) -> list[dict[str, Any]]:
    """Datasets as others write them: a name, a list, names with commas, or mappings with `path` and `type`."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif isinstance(value, dict):
        one = not value.keys().isdisjoint(("path", "type", "data_files"))
        if not one:
            inner = {name: each if isinstance(each, dict) else {"path": each} for name, each in value.items()}
            return [{"name": name, **each} for name, each in inner.items()]
        value = [value]
    return _with_own_names([_source(each) for each in value]) if isinstance(value, list) else []


def _with_own_names(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [str(source.get("name")) for source in sources]
    twice = {name for name in names if names.count(name) > 1}
    return [
        {**source, "name": f"{name}-{number}"} if name in twice else source
        for number, (name, source) in enumerate(zip(names, sources, strict=True), 1)
    ]


def _source(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        path, _, rows = str(found).partition("#")  # ms-swift writes the number of rows behind a #
        return {**_named(path), **({"max_rows": int(rows)} if rows.isdigit() else {})}
    if {"name", "path"} <= found.keys() and "type" not in found:
        return found
    path = str(found.get("data_files") or found.get("path") or found.get("dataset_name") or "PATH")
    named = _named(path)
    told = str(found.get("type") or found.get("format"))
    known = {form: form for form in words().values["data.sources.0.format"].values()}
    known |= words().values["data.sources.0.format"]
    form = next((known[name] for name in (as_word(told), re.split("[:.]", as_word(told))[0]) if name in known), None)
    kept = {key: found[key] for key in ("split", "weight", "revision") if key in found}
    return {**named, **({"format": form} if form else {}), **kept}


def _named(path: str) -> dict[str, Any]:
    """A source with a name made of its path; the catalog's names are cards, other `owner/name` are of the hub."""
    if _is_card(card := path.lower().replace("_", "-")) and not Path(path).exists():
        return {"name": card, "path": f"card:{card}"}
    stem = _ENDINGS.sub("", path)
    hub = stem == path and re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", path)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem.rpartition("/")[2]).strip("-._") or "data"
    return {"name": name[:64], "path": f"hf:{path}" if hub else path}


def _is_card(name: str) -> bool:
    """Whether the catalog that comes with the package has a dataset of this name."""
    cards = importlib.resources.files("didact").joinpath("datasets", "catalog", "cards")
    return re.fullmatch(r"[\w.-]+", name) is not None and cards.joinpath(f"{name}.yaml").is_file()


def _accumulation(value: Any, values: Any) -> Answer:
    """The global batch follows from what others multiply."""
    per_device = ("per_device_train_batch_size", "micro_batch_size")
    per_worker = _number(values, per_device, own=("training", "micro_batch_size"), default=8)
    workers = _number(values, ("num_gpus", "num_processes"), own=("placement", "num_workers"), default=2)
    if not isinstance(value, int) or value < 1:
        return Answer(text="accumulation is derived: write training.global_batch_size and training.micro_batch_size")
    return Answer(
        {"training.global_batch_size": per_worker * value * workers},
        f"{per_worker} a forward pass x {value} x {workers} workers; accumulation is derived from it",
    )


def _number(values: Any, others: tuple[str, ...], own: tuple[str, ...], default: int) -> int:
    found = [value_at(values, own), *(value_at(values, (word,)) for word in others)]
    return next((each for each in found if isinstance(each, int) and not isinstance(each, bool) and each > 0), default)


def _share_or_steps(target: str, share: str | None = None) -> Callable[[Any, Any], Answer]:
    """A number below 1 is a share of the run in transformers; `share` takes one, where there is such a field."""

    def answer(value: Any, values: Any) -> Answer:
        if not (isinstance(value, float) and 0 < value < 1):
            return Answer({target: value})
        return (
            Answer(text=f"{target} is a number of steps, not a share of them")
            if share is None
            else Answer({share: value})
        )

    return answer


def _length(value: Any, values: Any) -> Answer:
    """-1 stands for "none" in transformers."""
    none = isinstance(value, int) and value < 1
    return Answer(text="leave it out, and write training.epochs") if none else Answer({"training.steps": value})


def _held_out(value: Any, values: Any) -> Answer:
    rows = value_at(values, ("data", "sources", 0, "max_rows"))
    rows = rows if isinstance(rows, int) and rows > 1 else 10_000
    if isinstance(value, float) and 0 < value < 1:
        text = f"a number of rows, in each source; this is the share of {rows:,}"
        return Answer({"data.sources.0.held_out_rows": max(1, round(value * rows))}, text)
    return Answer({"data.sources.0.held_out_rows": value}, "in each source")


def _kept(value: Any, values: Any) -> Answer:
    if isinstance(value, int) and value < 2:
        return Answer({"training.keep_checkpoints": 2}, "at least two, so that a damaged one has a predecessor")
    return Answer({"training.keep_checkpoints": value})


def _deepspeed(value: Any, values: Any) -> Answer:
    """A stage out of the name of DeepSpeed's file, or out of its text."""
    told = as_word(value)
    stage = re.search(r"(?:z|zero_?(?:stage_?)?|stage['\": ]*|^)([0-3])(?!\d)", told)
    number = int(stage[1]) if stage else 3
    settings: dict[str, Any] = {"training.sharding.strategy": f"zero{number}" if number else "ddp"}
    if "offload" in told and number:
        settings["training.sharding.cpu_offload"] = True
    return Answer(settings, "" if stage else "or zero1, zero2; DeepSpeed's own file is not read")


def _fsdp(value: Any, values: Any) -> Answer:
    told = as_word(value)
    if told in ("", "false", "[]", "none", "no"):
        return Answer(text="leave it out")
    settings: dict[str, Any] = {"training.sharding.strategy": "fsdp"}
    if "offload" in told and not re.search(r"offload_params'?: '?(false|none)", told):
        settings["training.sharding.cpu_offload"] = True
    if "shard_grad_op" in told or re.search(r"reshard_after_forward'?: '?false", told):
        settings["training.sharding.reshard_after_forward"] = False
    return Answer(settings)


def _template(value: Any, values: Any) -> Answer:
    own = values.get("chat_template_jinja") if isinstance(values, dict) and as_word(value) == "jinja" else value
    if isinstance(own, str) and re.search(_OWN_TEMPLATE, own):
        return Answer({"tokens.template": own})
    named = {"alpaca": "alpaca", "auto": "auto", "tokenizer_default_fallback_alpaca": "auto"}
    return Answer({"tokens.template": named.get(as_word(value), "model")})


def _folder(value: Any, values: Any) -> Answer:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", str(value).rstrip("/").rpartition("/")[2]).strip("-._") or "run"
    return Answer({"name": name}, "a run's folder is its name, inside DIDACT_RUNS")


def _resources(value: Any, values: Any) -> Answer:
    given = {as_word(key): number for key, number in value.items()} if isinstance(value, dict) else {}
    cpus = {"placement.cpus_per_worker": int(given["cpu"])} if given.get("cpu") else {}
    return Answer({"placement.device": "gpu" if given.get("gpu") else "cpu", **cpus})


def _interleaved(value: Any, values: Any) -> Answer:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    first = str(parts[0]).strip()
    number = float(first) if re.fullmatch(r"\d*\.?\d+", first) else first
    return Answer({"data.sources.0.weight": number}, "and so on, in each source")


def _rank_steps(name: str) -> Callable[[Any, Any], Answer]:
    return lambda value, values: Answer(text=f"adapter.{name} of method adalora is a share of the steps, such as 0.1")


_OWN_TEMPLATE = r"\{[{%#]|\.(jinja2?|j2)$"
_COMPUTED: dict[str, Callable[[Any, Any], Answer]] = {
    "gradient_accumulation_steps": _accumulation,
    "max_steps": _length,
    "warmup_steps": _share_or_steps("training.warmup_steps", "training.warmup_share"),
    "save_steps": _share_or_steps("training.checkpoint_every"),
    "eval_steps": _share_or_steps("training.evaluate_every"),
    **dict.fromkeys(("val_set_size", "val_size", "split_dataset_ratio", "test_split_size", "test_size"), _held_out),
    **dict.fromkeys(("save_total_limit", "max_checkpoints", "num_checkpoints"), _kept),
    **dict.fromkeys(("deepspeed", "deepspeed_config", "zero_stage"), _deepspeed),
    **dict.fromkeys(("fsdp", "fsdp_config"), _fsdp),
    **dict.fromkeys(("output_dir", "output_path", "out_dir"), _folder),
    **dict.fromkeys(("template", "chat_template", "chat_template_path", "chat_template_jinja"), _template),
    **dict.fromkeys(("template_type", "prompt_template", "prompt_style"), _template),
    "enable_thinking": lambda value, values: Answer({"tokens.template_arguments": {"enable_thinking": value}}),
    "resources_per_worker": _resources,
    **dict.fromkeys(("interleave_probs", "interleave_prob", "mixture_weights", "dataset_weights"), _interleaved),
    **dict.fromkeys(("tinit", "adalora_tinit"), _rank_steps("warmup_share")),
    **dict.fromkeys(("tfinal", "adalora_tfinal"), _rank_steps("final_share")),
}
