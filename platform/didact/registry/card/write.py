"""The card as text, and as the README.md of an adapter's folder, which is no part of the adapter's identity."""

from didact.adapter_folder import CARD, MANIFEST
from didact.files import write_text
from didact.registry.card.facts import CardFacts, card_facts
from didact.registry.card.metadata import front_matter
from didact.registry.card.text import body
from didact.runs import Run


def model_card(facts: CardFacts) -> str:
    """The whole card: metadata of the hub, then the text."""
    return f"{front_matter(facts)}\n{body(facts)}"


def write_card(run: Run, name: str | None = None, version: str | None = None) -> str | None:
    """Write the card of a run's adapter anew, from what the run folder says now; returns it.

    None for a run that has no adapter folder: it is not trained, or trained the whole base.

    Args:
        run: the run.
        name: of the registered model; None for the run's.
        version: `NAME:VERSION` once there is one.

    Raises:
        DidactError: a file of the run is damaged.
    """
    if not (run.adapter / MANIFEST).is_file():
        return None
    card = model_card(card_facts(run, name, version))
    write_text(run.adapter / CARD, card)
    return card
