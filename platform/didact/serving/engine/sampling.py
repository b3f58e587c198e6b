"""Logits -> next token."""

import torch

from didact.serving.engine.protocol import Sampling

_GREEDY_BELOW = 1e-5
"""Temperatures below are greedy: divided by them, logits overflow, and only the likeliest token is left anyway."""


class Sampler:
    """Draws one request's tokens. Each request has its own random stream, so its neighbours never change its answer."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self._random = torch.Generator(device=device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def draw(self, logits: torch.Tensor, answer: list[int]) -> int:
        """The next token.

        Args:
            logits: float [vocabulary].
            answer: the tokens generated so far, for the penalties.
        """
        logits = self._penalised(logits.float(), answer)
        if self.sampling.temperature < _GREEDY_BELOW:
            return int(logits.argmax())
        # The largest becomes 0, so that no quotient overflows.
        logits = (logits - logits.max()) / self.sampling.temperature
        if 0 < self.sampling.top_k < logits.numel():
            least = logits.topk(self.sampling.top_k).values[-1]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = logits.softmax(-1)
        if self.sampling.top_p < 1:
            probabilities = _nucleus(probabilities, self.sampling.top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._random))

    def _penalised(self, logits: torch.Tensor, answer: list[int]) -> torch.Tensor:
        presence, frequency = self.sampling.presence_penalty, self.sampling.frequency_penalty
        if not answer or (presence == 0 and frequency == 0):
            return logits
        tokens, counts = torch.tensor(answer, device=logits.device).unique(return_counts=True)
        penalised = logits.clone()
        penalised[tokens] -= presence + frequency * counts
        return penalised


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of tokens whose sum reaches `top_p`; the most likely token always stays."""
    ordered, order = probabilities.sort(descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    outside[0] = False  # the smallest numbers are 0 in float32, and 0 >= 0
    return probabilities.scatter(-1, order, ordered.masked_fill(outside, 0.0))
