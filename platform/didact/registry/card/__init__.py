"""Model cards: what an adapter is for, of what it was made, how good it is, and how it loads. Their one home.

    run folder -> CardFacts -> metadata of the hub + text -> README.md of the adapter's folder, artifact of the version
    run folder -> Lineage -> tags of the version

Example:
    >>> from didact.registry.card import terms_of
    >>> from didact.runs import RecordedSource
    >>> rows = RecordedSource("rows", "card:alpaca-cleaned", "CC-BY-NC-4.0", False), RecordedSource("own", "own.jsonl")
    >>> terms = terms_of(rows)
    >>> terms.strictest, terms.non_commercial, terms.unknown
    ('CC-BY-NC-4.0', ('rows',), ('own',))
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.registry.card.facts import CardFacts, card_facts, on_hub
    from didact.registry.card.licences import Terms, terms_of
    from didact.registry.card.tags import Figure, Lineage
    from didact.registry.card.write import model_card, write_card

__all__ = ["CardFacts", "Figure", "Lineage", "Terms", "card_facts", "model_card", "on_hub", "terms_of", "write_card"]

__getattr__ = lazily(__name__)
