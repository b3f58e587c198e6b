"""A card's body: use, data with licences, figures with intervals, limits, how to load and to serve."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from didact.display import counted
from didact.registry.card.facts import CardFacts, CardSource
from didact.registry.card.licences import forbids
from didact.registry.card.metadata import library

_FOLDER = re.compile(r"(?<![\w.:/])~?(?:/[^/\s:]+)+/(?=[^/\s:])")
"""What stands before the name of a file in an absolute path."""
_MISSING = "not recorded"
_FEW_ITEMS = 100
_SHORT = 12
_SHOWN_REMARKS = 30


def body(facts: CardFacts) -> str:
    """The card without its metadata."""
    sections = (_head, _terms, _use, _data, _evaluation, _training, _limits, _origin)
    return "\n".join(line for section in sections for line in section(facts)) + "\n"


def _head(facts: CardFacts) -> Iterator[str]:
    count = len(facts.sources)
    yield f"# {facts.name}"
    yield ""
    yield (
        f"{_method(facts)} for {_base_link(facts)}, finetuned to follow instructions on {count} "
        f"{'source' if count == 1 else 'sources'} with [didact](#how-to-load-it)."
    )
    yield ""


def _terms(facts: CardFacts) -> Iterator[str]:
    terms = facts.terms
    if terms.non_commercial:
        yield f"> **NON-COMMERCIAL.** The terms of {_listed(terms.non_commercial)} forbid commercial use, so nobody may"
        yield "> use this model, or what it writes where the terms reach that far, commercially."
        yield ""
    if terms.unknown:
        yield f"> **Unknown licence.** The terms of {_listed(terms.unknown)} are not known: ask their owners before"
        yield "> you use or share this model beyond looking at it."
        yield ""
    if (facts.verdict or {}).get("passed") is False:
        yield "> **Refused by its gate.** What was asked of this version was not reached; see the evaluation."
        yield ""


def _use(facts: CardFacts) -> Iterator[str]:
    yield "## Use"
    yield ""
    tasks = sorted({task for source in facts.sources if source.card for task in source.card.tasks})
    asked = f" Its data asks for: {', '.join(tasks)}." if tasks else ""
    yield f"Answers instructions like those of its data, in the chat template that it was trained with.{asked}"
    yield ""
    yield "Not for decisions about people, and not for facts that nobody checks: see the limits below."
    yield ""
    yield from _loading(facts)


def _loading(facts: CardFacts) -> Iterator[str]:
    name = facts.version or facts.name
    yield "### How to load it"
    yield ""
    if library(facts) == "peft":
        yield "With PEFT, from the folder of this file:"
        yield ""
        yield "```python"
        yield from _peft_code(facts)
        yield "```"
    else:
        yield f"The method `{facts.method}` trains weights of the base itself, which PEFT does not load; didact does."
    yield ""
    yield "With didact, by folder or by registered name:"
    yield ""
    yield "```python"
    yield "import didact"
    yield ""
    yield f'with didact.load("{name}") as model:'
    yield '    print(model.chat("..."))'
    yield "```"
    yield ""
    yield f"Served with an OpenAI-shaped API, once it is registered (the `model` field is `{facts.name}`, or `{name}`):"
    yield ""
    yield "```bash"
    yield "didact serve serve/local.yaml"
    yield "```"
    yield ""


def _peft_code(facts: CardFacts) -> Iterator[str]:
    base = facts.base_on_hub or facts.base_shown
    revision = (facts.recipe.get("model") or {}).get("revision")
    pinned = f', revision="{revision}"' if revision else ""
    arguments = "".join(f", {key}={value!r}" for key, value in facts.template_arguments.items())
    yield "import json"
    yield ""
    yield "from peft import PeftModel"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield 'folder = "."'
    yield f'base = "{base}"' + ("" if facts.base_on_hub else "  # the folder of the base that it was trained on")
    yield f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base{pinned}), folder)"
    yield f"tokenizer = AutoTokenizer.from_pretrained(base{pinned})"
    yield 'contract = json.load(open(f"{folder}/template_contract.json"))  # how it was asked in training'
    yield "prompt = tokenizer.apply_chat_template("
    yield '    [{"role": "user", "content": "..."}],'
    yield '    chat_template=contract["template"],'
    yield "    add_generation_prompt=True,"
    yield '    return_tensors="pt",'
    yield f"    return_dict=True{arguments},"
    yield ")"
    yield 'answer = model.generate(**prompt, max_new_tokens=200, eos_token_id=contract["stop_token_ids"])'
    yield 'print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))'


def _data(facts: CardFacts) -> Iterator[str]:
    yield "## Data"
    yield ""
    yield "| Source | From | Licence | Commercial use | Samples | Rows rejected | Share of tokens |"
    yield "|---|---|---|---|---:|---:|---:|"
    for source in facts.sources:
        yield _source_row(source)
    yield ""
    terms = facts.terms
    yield (
        f"The strictest licence is **{_cell(terms.strictest)}**"
        + (f"; it is not known for {_listed(terms.unknown)}" if terms.unknown else "")
        + (f"; whether {_listed(terms.unclear)} may be used commercially is not clear" if terms.unclear else "")
        + ". The terms of the base model apply besides."
    )
    yield ""
    if notes := [
        f"- {_cell(s.recorded.name)}: {s.card.licence_note}" for s in facts.sources if s.card and s.card.licence_note
    ]:
        yield from [*notes, ""]
    if issues := [f"- {_cell(s.recorded.name)}: {issue}" for s in facts.sources if s.card for issue in s.card.quality]:
        yield "Known issues of the data:"
        yield ""
        yield from [*issues, ""]


def _source_row(source: CardSource) -> str:
    said = source.recorded
    allowed = "**forbidden**" if forbids(said) else "allowed" if said.commercial else "not stated"
    revision = f" at `{said.revision[:_SHORT]}`" if said.revision else ""
    cells = (
        said.name,
        f"{source.place}{revision}",
        said.licence or _MISSING,
        allowed,
        _count(said.rows_used),
        _count(said.rows_rejected),
        _MISSING if said.share_of_tokens is None else f"{said.share_of_tokens:.1%}",
    )
    return f"| {' | '.join(map(_cell, cells))} |"


def _evaluation(facts: CardFacts) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    report = facts.report
    if report is None:
        yield from ("Not evaluated.", "")
        return
    from didact.evaluation.report.layout import INTERVALS  # it comes with the tensors

    names = list(report.models)
    change = " Change |" if len(names) > 1 else ""
    yield f"| Metric | Items |{''.join(f' {_column(name)} |' for name in names)}{change}"
    yield f"|---|---:|{'---:|' * (len(names) + bool(change))}"
    for figure in report.figures:
        cells = (figure.metric, _count(figure.count), *map(figure.written, names))
        yield f"| {' | '.join(map(_cell, (*cells, *([figure.written_change] if change else []))))} |"
    yield ""
    yield f"{INTERVALS} Losses are nats a token, lower is better."
    yield ""
    if remarks := report.remarks:
        yield from (*(f"- {_cell(_FOLDER.sub('', each))}" for each in remarks[:_SHOWN_REMARKS]), "")
    yield from _verdict(facts.verdict)


def _verdict(verdict: Mapping[str, Any] | None) -> Iterator[str]:
    if not verdict:
        return
    checks = verdict.get("checks") or verdict.get("lines") or ()
    outcome = "passed" if verdict.get("passed") else "**refused**"
    yield f"Its gate: {outcome if checks else 'nothing was asked'}."
    yield ""
    for check in checks:
        if isinstance(check, dict):
            yield (
                f"- {check.get('check')} {check.get('of')}: {check.get('figure')}, asked for {check.get('limit')}: "
                f"{check.get('outcome')}"
            )
        else:
            yield f"- {check}"
    yield ""


def _training(facts: CardFacts) -> Iterator[str]:
    training, adapter = facts.recipe.get("training") or {}, facts.recipe.get("adapter") or {}
    recorded = facts.recorded
    options = ", ".join(
        f"{key} {_option(value)}" for key, value in adapter.items() if key != "method" and value is not None
    )
    worker = recorded.workers[-1] if recorded.workers else {}
    last = recorded.attempts[-1] if recorded.attempts else {}
    packages = worker.get("packages") or last.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    device = worker.get("device")
    machine = worker.get("processor") or last.get("processor")
    settings = ("learning_rate", "schedule", "global_batch_size", "seed")
    rows = (
        ("Method", f"{facts.method}; {options}" if options else facts.method),
        ("Steps", _count(recorded.num_steps)),
        ("Settings", ", ".join(f"{key} {training[key]}" for key in settings if key in training)),
        ("Number format", worker.get("dtype") or (facts.recipe.get("model") or {}).get("dtype")),
        (
            "Computed on",
            f"{worker.get('workers', 1)} x {device if device != 'cpu' else machine}" if device else machine,
        ),
        ("Versions", versions),
        ("Goes on from", "; ".join(Path(each.before).name for each in recorded.descents)),
    )
    yield "## Training"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in rows:
        if value or name != "Goes on from":
            yield f"| {name} | {_cell(str(value or _MISSING))} |"
    yield ""


def _limits(facts: CardFacts) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield f"- It knows what {_base_link(facts)} knows and what its data shows, with the errors and leanings of both."
    yield "- Nothing here was measured about safety, truthfulness or fairness unless a metric above says so."
    languages = ", ".join(facts.languages)
    yield (
        f"- Languages of its data: {languages}; others are not measured."
        if languages
        else ("- The languages of its data are not stated by a card of the catalog.")
    )
    report = facts.report
    few = sorted({n for n in report.counts.values() if n < _FEW_ITEMS}) if report else []
    if few:
        over = counted(few[0], "item")
        yield f"- Figures over {over} are rough: small differences between two models mean nothing there."
    yield "- Asked in another template than that of `template_contract.json`, it answers worse."
    yield ""


def _origin(facts: CardFacts) -> Iterator[str]:
    recorded = facts.recorded
    git = (recorded.attempts[-1].get("git") or {}) if recorded.attempts else {}
    adapter = recorded.adapter
    rows = (
        ("Version", facts.version or "not registered"),
        ("Run", recorded.name),
        ("Adapter", adapter.sha256 if adapter else None),
        ("Base", adapter.base_fingerprint if adapter else None),
        ("Mixture", recorded.mixture),
        ("Template contract", recorded.template_contract),
        ("Code", f"{git['commit']}{', with changes' if git.get('changed') else ''}" if git.get("commit") else None),
    )
    yield "## Where it comes from"
    yield ""
    yield "Digests (sha256) lead back to the bytes that it was made of: "
    yield f"`didact lineage {facts.version or recorded.name}` shows them all, `didact reproduce` makes it again."
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in rows:
        yield f"| {name} | {f'`{value}`' if value else _MISSING} |"


def _method(facts: CardFacts) -> str:
    named = {"lora": "LoRA", "adalora": "AdaLoRA", "prefix": "Prefix-tuning", "ia3": "IA3", "vera": "VeRA"}
    return f"{named.get(facts.method, facts.method)} adapter"


def _base_link(facts: CardFacts) -> str:
    hub = facts.base_on_hub
    return f"[{hub}](https://huggingface.co/{hub})" if hub else f"`{facts.base_shown}`"


def _column(model: str) -> str:
    return {"base": "Base", "adapter": "With adapter", "champion": "Champion"}.get(model, _cell(model))


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _count(number: int | None) -> str:
    return _MISSING if number is None else f"{number:,}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{_cell(name)}`" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
