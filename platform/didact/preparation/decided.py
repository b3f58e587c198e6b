"""What `data.online_mixing` has decided in a run, as a recipe that follows it, and as what went in."""

from collections import Counter
from dataclasses import replace

import yaml

from didact.files import write_text
from didact.preparation.facts import DataFacts
from didact.runs import Run
from didact.spec import DecidedSpec, FinetuneSpec
from didact.tracking import effective_records


def write_decided(run: Run, spec: FinetuneSpec) -> None:
    """Write down what a run that has ended was trained on: its shares as a recipe, and what it drew in `data.json`.

    Args:
        run: with the records of its steps.
        spec: its recipe; nothing is written where that decides nothing.
    """
    mixing = spec.data.online_mixing
    if mixing is None or mixing.decided:
        return
    records = effective_records(run.steps)
    decided = tuple(DecidedSpec(after=each.step, draws=each.draws) for each in records if each.draws)
    data = spec.data.model_copy(update={"online_mixing": mixing.model_copy(update={"decided": decided})})
    followed = spec.model_copy(update={"name": f"{spec.name}-again", "data": data})
    head = f"# Follows the shares that data.online_mixing decided in run {spec.name}.\n"
    plain = followed.model_dump(mode="json", exclude_defaults=True)
    write_text(run.decided, head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    drawn = Counter(name.partition("/")[0] for each in records for name in each.sample_ids or ())
    _as_drawn(DataFacts.read(run.data), drawn).write(run.data)


def _as_drawn(facts: DataFacts, drawn: Counter[str]) -> DataFacts:
    tokens = {each.name: drawn[each.name] * each.tokens / max(1, each.samples_usable) for each in facts.sources}
    total = sum(tokens.values()) or 1.0
    sources = tuple(
        replace(
            each,
            samples_seen=drawn[each.name],
            tokens_seen=tokens[each.name],
            share_of_tokens=tokens[each.name] / total,
            epochs=drawn[each.name] / max(1, each.samples_usable),
        )
        for each in facts.sources
    )
    return replace(facts, sources=sources)
