"""One of our models as lm-eval knows models."""

import asyncio
from collections.abc import Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from typing_extensions import override

from didact.errors import DataError
from didact.evaluation.asks import Answer, Ask, Likelihood, Model, Prompt, TokenIds
from didact.evaluation.harness.chat import Chat
from didact.evaluation.harness.requests import Pair, plan, responses
from didact.evaluation.questions import ModelTokens


class DidactLM(TemplateLM):
    """Turns lm-eval's requests into asks, as token ids and by the template contract.

    `simple_evaluate(model=DidactLM(tokens, model), tasks=[...], apply_chat_template=True)` is lm-eval's own way with
    it. A `HarnessTask` uses its wording alone: which tokens a request is.
    """

    def __init__(self, tokens: ModelTokens, model: Model | None = None) -> None:
        """See the class.

        Args:
            tokens: the model's tokenizer, its template contract and the length of its context.
            model: answers; None where only the wording is used.
        """
        super().__init__()
        self.tokens = tokens
        self._model = model
        # lm-eval reads it to describe the chat template, which the contract decides here.
        self.tokenizer = None

    @property
    @override
    def eot_token_id(self) -> int:
        return int(self.tokens.tokenizer.eos_token_id)

    @property
    @override
    def prefix_token_id(self) -> int:
        begin = self.tokens.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def max_length(self) -> int:
        """Tokens of the model's context."""
        return self.tokens.max_length

    @property
    @override
    def tokenizer_name(self) -> str:
        return self.tokens.contract.fingerprint

    @override
    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.tokens.contract.template if chat_template else None

    @override
    def apply_chat_template(self, chat_history: list[dict[str, Any]], add_generation_prompt: bool = True) -> Chat:
        return Chat.of(chat_history, add_generation_prompt)

    @override
    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        tokenizer = self.tokens.tokenizer
        begin = tokenizer.decode(self.prefix_token_id)
        special = not string.startswith(begin) if add_special_tokens is None else add_special_tokens
        return list(tokenizer(string, add_special_tokens=special, verbose=False)["input_ids"])

    @override
    def _encode_pair(self, context: str | Chat, continuation: str) -> tuple[list[int], list[int]]:
        if not isinstance(context, Chat):
            return super()._encode_pair(context, continuation)
        before = self.tokens.contract.prompt_ids(self.tokens.tokenizer, context.messages)
        opening = self.tok_encode(context.opening.rstrip(), add_special_tokens=False)
        whole = self.tok_encode(context.opening + continuation, add_special_tokens=False)
        return before + opening, whole[len(opening) :]

    # What HarnessTask asks for: see `requests.Wording`.

    def pair(self, context: str | Chat, continuation: str) -> Pair:
        """Token ids of context and continuation, split and shortened as lm-eval's own backends do it.

        Raises:
            DataError: a continuation without a token, or longer than the context.
        """
        if context == "":
            ids = self.tok_encode(continuation, add_special_tokens=False)
            before, after = (ids[:1], ids[1:]) if ids[:1] == [self.prefix_token_id] else ([self.prefix_token_id], ids)
        else:
            before, after = self._encode_pair(context, continuation)
        return self._fitting(before, after)

    def _fitting(self, before: Sequence[int], after: Sequence[int]) -> Pair:
        """The last tokens, as many as the context holds; the last one is predicted and not read."""
        if not 1 <= len(after) <= self.max_length:
            raise DataError(
                f"a continuation to be measured has {len(after)} tokens; expected 1 to {self.max_length}, the context"
            )
        kept = [*before, *after][-(self.max_length + 1) :]
        return TokenIds(tuple(kept[: len(kept) - len(after)])), TokenIds(tuple(after))

    def windows(self, text: str) -> list[Pair]:
        """Pieces of the context's length, each token predicted once, with as much before it as there is room for."""
        cut = utils.get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        return [self._fitting(*utils.make_disjoint_window(each)) for each in cut]

    def prompt(self, context: str | Chat, max_new_tokens: int) -> tuple[Prompt, str]:
        """Turns as they are; of a text the last tokens that leave room for the answer."""
        if isinstance(context, Chat):
            return context.messages, context.opening
        room = self.max_length - max_new_tokens
        if room < 1:
            raise DataError(
                f"answers of {max_new_tokens} tokens leave no room for a prompt in a context of {self.max_length}; "
                "set a smaller max_gen_toks in generation"
            )
        return TokenIds(tuple(self.tok_encode(context)[-room:])), ""

    # What lm-eval's own `simple_evaluate` calls.

    @override
    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._answered(requests)

    @override
    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        return self._answered(requests)

    @override
    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return self._answered(requests)

    @override
    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        asks = [Likelihood(before, (after,)) for before, after in (self._fitting(*each[1:]) for each in requests)]
        likely = [answer.likelihoods[0] for answer in self._ask(asks)]
        return [(each.log_likelihood, each.greedy) for each in likely]

    def _answered(self, requests: list[Any]) -> list[Any]:
        """A response to each request, all asked at once. One that lm-eval repeats comes several times."""
        each_once = list({id(request): request for request in requests}.values())
        planned = plan(each_once, self)
        found = responses(each_once, planned, self._ask(planned.asks))
        left = {id(request): iter(given) for request, given in zip(each_once, found, strict=True)}
        return [next(left[id(request)]) for request in requests]

    def _ask(self, asks: Sequence[Ask]) -> list[Answer]:
        """All answers, in order.

        Raises:
            DataError: there is no model, or it could not answer one of them.
        """
        model = self._model
        if model is None:
            raise DataError("this DidactLM holds no model; expected DidactLM(tokens, model) for lm-eval's own evaluate")

        async def all_of_them() -> list[Answer]:
            free = asyncio.Semaphore(model.at_once)

            async def one(ask: Ask) -> Answer:
                async with free:
                    return await model.answer(ask)

            return await asyncio.gather(*map(one, asks))

        answers = asyncio.run(all_of_them())
        if problem := next((answer.problem for answer in answers if answer.problem), None):
            raise DataError(f"{model.identity.name} gave no answer: {problem}")
        return answers
