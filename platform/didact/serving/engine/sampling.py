"""Logits -> next token."""

from collections.abc import Collection, Iterable, Sequence

import torch

from didact.serving.engine.protocol import Sampling, TokenLogprob

_GREEDY_BELOW = 1e-5
"""Temperatures below are greedy: divided by them, logits overflow, and only the likeliest token is left anyway."""


class Sampler:
    """Draws one request's tokens. Each request has its own random stream, so its neighbours never change its answer."""

    def __init__(self, sampling: Sampling, device: torch.device, prompt: Sequence[int] = ()) -> None:
        self.sampling = sampling
        self._prompt = prompt
        self._seen: torch.Tensor | None = None
        """bool [vocabulary]: tokens of the prompt and of the first `_num_seen` of the answer."""
        self._num_seen = 0
        self._ngrams = _Ngrams(sampling.no_repeat_ngram_size, prompt)
        self._random = torch.Generator(device=device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    @property
    def takes_likeliest(self) -> bool:
        """Whether the token of the largest logit is drawn, where none is forbidden."""
        wanted = self.sampling
        penalties = wanted.presence_penalty, wanted.frequency_penalty, wanted.repetition_penalty - 1
        changed = any(penalties) or wanted.logit_bias or wanted.no_repeat_ngram_size
        return wanted.temperature < _GREEDY_BELOW and not changed

    def draw(
        self,
        logits: torch.Tensor,
        answer: list[int],
        forbidden: Sequence[int] = (),
        allowed: torch.Tensor | None = None,
    ) -> int:
        """The next token.

        Args:
            logits: float [vocabulary].
            answer: the tokens generated so far, for the penalties.
            forbidden: tokens that cannot come, unless no other one is left.
            allowed: bool [vocabulary], those that may come at all; where all of them are forbidden, they do.
        """
        logits = self._penalised(self._less_repeated(logits.float(), answer), answer)
        if self.sampling.logit_bias:
            tokens, bias = zip(*self.sampling.logit_bias, strict=True)
            places = torch.tensor(tokens, device=logits.device)
            logits = logits.index_add(0, places, torch.tensor(bias, device=logits.device))
        if allowed is not None:
            logits = logits.masked_fill(~allowed.to(logits.device), -torch.inf)
        forbidden = [*forbidden, *self._ngrams.would_repeat(answer)]
        if forbidden:
            left = logits.index_fill(0, torch.tensor(forbidden, device=logits.device), -torch.inf)
            sure = allowed is None and len(forbidden) < logits.numel()  # and no GPU need be waited for
            logits = left if sure or left.max() > -torch.inf else logits
        if self.sampling.temperature < _GREEDY_BELOW:
            return int(logits.argmax())
        # The largest becomes 0, so that no quotient overflows.
        logits = (logits - logits.max()) / self.sampling.temperature
        if 0 < self.sampling.top_k < logits.numel():
            least = logits.topk(self.sampling.top_k).values[-1]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = logits.softmax(-1)
        if self.sampling.min_p > 0:
            probabilities = probabilities.masked_fill(probabilities < self.sampling.min_p * probabilities.max(), 0.0)
        if self.sampling.top_p < 1:
            probabilities = _nucleus(probabilities, self.sampling.top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._random))

    def _less_repeated(self, logits: torch.Tensor, answer: list[int]) -> torch.Tensor:
        penalty = self.sampling.repetition_penalty
        if penalty == 1:
            return logits
        if self._seen is None:
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            self._seen[torch.tensor(self._prompt, dtype=torch.long, device=logits.device)] = True
        self._seen[torch.tensor(answer[self._num_seen :], dtype=torch.long, device=logits.device)] = True
        self._num_seen = len(answer)
        return torch.where(self._seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)

    def _penalised(self, logits: torch.Tensor, answer: list[int]) -> torch.Tensor:
        presence, frequency = self.sampling.presence_penalty, self.sampling.frequency_penalty
        if not answer or (presence == 0 and frequency == 0):
            return logits
        tokens, counts = torch.tensor(answer, device=logits.device).unique(return_counts=True)
        penalised = logits.clone()
        penalised[tokens] -= presence + frequency * counts
        return penalised


class _Ngrams:
    """What followed each row of `size - 1` tokens so far, so that a step costs the same however long the text is."""

    def __init__(self, size: int, prompt: Sequence[int]) -> None:
        self._size = size
        self._followed: dict[tuple[int, ...], set[int]] = {}
        self._newest: tuple[int, ...] = ()
        self._num_seen = 0
        if size:
            self._read(prompt)

    def would_repeat(self, answer: Sequence[int]) -> Collection[int]:
        """Tokens that would end a row of tokens which is there already."""
        if not self._size:
            return ()
        self._read(answer[self._num_seen :])
        self._num_seen = len(answer)
        return self._followed.get(self._newest, ())

    def _read(self, tokens: Iterable[int]) -> None:
        before = self._size - 1
        for token in tokens:
            if len(self._newest) == before:
                self._followed.setdefault(self._newest, set()).add(token)
            self._newest = (*self._newest, token)[-before:] if before else ()


def token_logprob(logits: torch.Tensor, token: int, num_top: int) -> TokenLogprob:
    """How likely a token was by float [vocabulary], beside the `num_top` likeliest."""
    logprobs = logits.float().log_softmax(-1)
    top = logprobs.topk(min(num_top, logprobs.numel()))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return TokenLogprob(token, float(logprobs[token]), tuple(pairs))


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of tokens whose sum reaches `top_p`; the most likely token always stays."""
    ordered, order = probabilities.sort(descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    outside[0] = False  # the smallest numbers are 0 in float32, and 0 >= 0
    return probabilities.scatter(-1, order, ordered.masked_fill(outside, 0.0))
