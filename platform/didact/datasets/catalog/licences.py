"""The licence gate: a recipe for commercial use takes only data that allows it."""

from didact.datasets.catalog.resolve import card_of
from didact.errors import DataError
from didact.spec import DataSpec, SourceSpec


def licence_of(source: SourceSpec) -> str:
    """The licence of a source as the recipe or else its card states it; `unknown` where neither does."""
    card = card_of(source)
    return source.licence or (card.licence if card else "unknown")


def commercial_of(source: SourceSpec) -> bool | None:
    """Whether the recipe or else the source's card says that commercial use is allowed; None where neither does."""
    card = card_of(source)
    return source.commercial if source.commercial is not None or card is None else card.commercial


def check_commercial(data: DataSpec) -> None:
    """Refuse data that may not be used commercially, where the recipe says `data.commercial: true`.

    Raises:
        DataError: every source that is refused, by name, with its licence and what to change.
    """
    if not data.commercial:
        return
    refused = [f"  - {source.name}: {why}" for source in data.sources if (why := _refusal(source)) is not None]
    if refused:
        raise DataError(
            "data.commercial is true, but these sources are not known to allow commercial use:\n" + "\n".join(refused)
        )


def _refusal(source: SourceSpec) -> str | None:
    card = card_of(source)
    if source.commercial is False:
        return f"the source itself states commercial: false (licence {licence_of(source)})"
    if card is None and source.commercial:
        return None
    if card is None:
        return (
            f"{source.path} has no card (licence {licence_of(source)}); state commercial: true on the source if its "
            "licence allows it, or remove it"
        )
    if card.commercial or (source.commercial and (card.commercial is None or source.licence is not None)):
        return None
    if card.commercial is None:
        return (
            f"the terms of {card.name} are not clear (licence {card.licence}); state commercial: true on the source if "
            "you know that they allow it, or remove it"
        )
    return (
        f"{card.name} forbids commercial use (licence {card.licence}); remove it, or state commercial: true and the "
        "licence that you hold"
    )
