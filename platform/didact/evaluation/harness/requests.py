"""lm-eval's requests as our asks, and our answers as its responses.

instances of a question -> plan -> asks; answers -> responses, in the order of the instances
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from didact.errors import DataError
from didact.evaluation.asks import Answer, Ask, Generation, Likelihood, Prompt, TokenIds

_USED = {"until", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"}
_SAMPLED = {"do_sample", "temperature", "top_p"}
_DEFAULT_NEW_TOKENS = 256
"""lm-eval's own, where a task says nothing."""

Pair = tuple[Prompt, str | TokenIds]


class Wording(Protocol):
    """How lm-eval's texts reach a model: as token ids, where its tokenizer is at hand, or as they are."""

    def pair(self, context: Any, continuation: str) -> Pair:
        """What a continuation's likelihood is asked of: prompt and continuation."""
        ...

    def windows(self, text: str) -> list[Pair]:
        """A whole text in pieces of the context's length; each token is predicted once."""
        ...

    def prompt(self, context: Any, max_new_tokens: int) -> tuple[Prompt, str]:
        """What an answer is asked of, and what it begins with."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask for the requests of one question."""

    asks: tuple[Ask, ...]
    places: tuple[tuple[tuple[int, int], ...], ...]
    """For each request, where its answers are: ask and continuation (or sample) of it."""


def plan(instances: Sequence[Any], wording: Wording) -> Plan:
    """Requests of one question as asks. Continuations of the same prompt are asked together.

    Args:
        instances: lm-eval's, of one document.
        wording: of the model that is asked.

    Raises:
        DataError: a request of a kind that a language model over text cannot answer.
    """
    asks: list[Ask] = []
    likelihoods: dict[Prompt, int] = {}
    places: list[tuple[tuple[int, int], ...]] = []

    def placed(pair: Pair) -> tuple[int, int]:
        prompt, continuation = pair
        number = likelihoods.get(prompt)
        if number is None:
            number = likelihoods[prompt] = len(asks)
            asks.append(Likelihood(prompt, ()))
        ask = asks[number]
        assert isinstance(ask, Likelihood)
        asks[number] = replace(ask, continuations=(*ask.continuations, continuation))
        return number, len(ask.continuations)

    for instance in instances:
        if instance.request_type == "loglikelihood":
            places.append((placed(wording.pair(*instance.args[:2])),))
        elif instance.request_type == "loglikelihood_rolling":
            places.append(tuple(placed(pair) for pair in wording.windows(instance.args[0])))
        elif instance.request_type == "generate_until":
            ask = generation(instance, wording)
            places.append(tuple((len(asks), sample) for sample in range(ask.num_samples)))
            asks.append(ask)
        else:
            raise DataError(f"{instance.task_name}: found a request {instance.request_type!r}; expected text tasks")
    return Plan(tuple(asks), tuple(places))


def generation(instance: Any, wording: Wording) -> Generation:
    """A `generate_until` request as an ask.

    Raises:
        DataError: the task decodes in a way that our engine does not.
    """
    context, settings = instance.args[:2]
    repeats = instance.repeats or 1
    sampling = settings.get("do_sample", bool(settings.get("temperature")))
    if sampling and (unknown := sorted(settings.keys() - _USED - _SAMPLED)):
        raise DataError(
            f"{instance.task_name}: its generation sets {', '.join(unknown)}; expected "
            f"{', '.join(sorted(_USED | _SAMPLED))}"
        )
    until = settings.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(text for text in until if text)
    room = new_tokens(settings)
    prompt, opening = wording.prompt(context, room)
    temperature = float(settings.get("temperature", 1.0)) if sampling else 0.0
    samples = repeats if temperature else 1
    top_p = float(settings.get("top_p", 1.0)) if temperature else 1.0
    return Generation(prompt, room, opening, samples, temperature, top_p, stop=stop)


def new_tokens(settings: Mapping[str, Any]) -> int:
    """How long an answer may be."""
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    return int(next((settings[name] for name in names if settings.get(name) is not None), _DEFAULT_NEW_TOKENS))


def responses(instances: Sequence[Any], planned: Plan, answers: Sequence[Answer]) -> list[list[Any]]:
    """What lm-eval expects of a model, `repeats` responses a request.

    Args:
        instances: as `plan` took them.
        planned: what it gave.
        answers: one an ask, none with a problem.
    """
    read: dict[str, Callable[[Sequence[tuple[int, int]]], list[Any]]] = {
        "loglikelihood": lambda places: [_likely(answers, places[0])],
        "loglikelihood_rolling": lambda places: [sum(_likely(answers, place)[0] for place in places)],
        "generate_until": lambda places: [answers[ask].texts[sample].text for ask, sample in places],
    }
    found = []
    for instance, places in zip(instances, planned.places, strict=True):
        given = read[instance.request_type](places)
        found.append(given * (instance.repeats or 1) if len(given) == 1 else given)
    return found


def _likely(answers: Sequence[Answer], place: tuple[int, int]) -> tuple[float, bool]:
    ask, continuation = place
    likely = answers[ask].likelihoods[continuation]
    return likely.log_likelihood, likely.greedy


class PlainWording(Wording):
    """Texts as they are, for a model whose tokenizer is not at hand, such as an endpoint's."""

    def pair(self, context: Any, continuation: str) -> Pair:  # noqa: D102
        if hasattr(context, "messages"):
            return context.messages, context.opening + continuation
        return context, continuation

    def windows(self, text: str) -> list[Pair]:  # noqa: D102
        return [("", text)]

    def prompt(self, context: Any, max_new_tokens: int) -> tuple[Prompt, str]:  # noqa: D102
        if hasattr(context, "messages"):
            return context.messages, context.opening
        return context, ""
