"""How far an exported model is from base + adapter, measured on golden prompts."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from didact.errors import ModelError
from didact.models.adapter.host import AdapterHost
from didact.models.base.load import base_fingerprint, load_base
from didact.spec import LimitsSpec, MergeSpec, ModelSpec

_TEXTS = (
    "Write one sentence about the sea. Then add 17 and 25 and explain each step of the sum.",
    "The committee met on 3 March 1998; its report (42 pages) was never published, because",
    "请用三句话介绍北京的历史，并说明为什么长城很重要。",  # noqa: RUF001
    "def fibonacci(n: int) -> int:\n    if n < 2:\n        return n\n    return fibonacci(n - 1) +",
    'SELECT name, COUNT(*) FROM orders WHERE total > 100 GROUP BY name;\n{"id": 7, "tags": ["a", "b"]}',
)
_SLOT = "proof"


@dataclass(frozen=True, slots=True)
class Distance:
    """How far next-token distributions are from those of base + adapter, over all positions of the golden prompts."""

    of: str
    """What is compared with base + adapter."""
    num_positions: int
    max_logit_difference: float
    mean_logit_difference: float
    mean_kl: float
    """Kullback-Leibler divergence from base + adapter, in nats."""
    max_kl: float
    top1_agreement: float
    """Share of positions where both choose the same next token."""
    limits: LimitsSpec | None = None
    """None where it only informs."""

    def __str__(self) -> str:
        return (
            f"{self.of}: KL {self.mean_kl:.1e} (largest {self.max_kl:.1e}), logits differ by "
            f"{self.mean_logit_difference:.1e} (largest {self.max_logit_difference:.1e}), "
            f"same next token at {self.top1_agreement:.1%} of {self.num_positions} positions"
        )

    def breaches(self) -> list[str]:
        """What is past the limits, in words."""
        limits = self.limits
        if limits is None:
            return []
        found = []
        if not self.mean_kl <= limits.mean_kl:
            found.append(f"mean KL {self.mean_kl:.2e}, expected at most {limits.mean_kl:g}")
        if not self.top1_agreement >= limits.min_top1_agreement:
            found.append(f"top-1 agreement {self.top1_agreement:.1%}, expected {limits.min_top1_agreement:.1%}")
        if limits.max_logit_difference is not None and not self.max_logit_difference <= limits.max_logit_difference:
            found.append(f"a logit off by {self.max_logit_difference:.2e}, expected {limits.max_logit_difference:g}")
        return found


@dataclass(frozen=True, slots=True)
class MergeProof:
    """Everything that was compared with base + adapter."""

    distances: tuple[Distance, ...]
    """The base alone (what the adapter changes at all), the merged model, and that model quantized again."""

    @property
    def merged(self) -> Distance:
        """Of the weights as written."""
        return self.distances[1]

    def check(self, adapter: Path) -> None:
        """
        Raises:
            ModelError: a distance is past its limits.
        """
        for distance in self.distances:
            if breaches := distance.breaches():
                raise ModelError(
                    f"{distance.of} is too far from base + adapter {adapter}: {'; '.join(breaches)}. Nothing was "
                    "written; if that is meant, raise the limits (`exact`, `rounded`, `quantized`) in the settings"
                )

    def to_plain(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [
            {**asdict(each), "limits": each.limits.model_dump() if each.limits else None} for each in self.distances
        ]


def golden_prompts(tokenizer: PreTrainedTokenizerBase, rendered: Iterable[Sequence[int]]) -> list[torch.Tensor]:
    """Token ids [1, length] of fixed texts (English, Chinese, code, data) and of conversations as the model gets them.

    Args:
        tokenizer: the base's.
        rendered: conversations in the form of the template contract.
    """
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in _TEXTS]
    return [torch.tensor([list(each)]) for each in (*ids, *rendered)]


def prove(
    reference: ModelSpec,
    adapter: Path,
    output: Path,
    prompts: list[torch.Tensor],
    limits: LimitsSpec,
    settings: MergeSpec,
    device: str,
) -> MergeProof:
    """Compare base + adapter with the model in `output`. One model at a time is in memory, in float32.

    Args:
        reference: the base as the adapter was trained on it.
        adapter: its folder.
        output: the merged model.
        prompts: token ids [1, length].
        limits: of the weights as written.
        settings: the quantization to try as well, and its limits.
        device: where to compute.
    """
    live, alone = _live_logits(reference, adapter, prompts, device)
    merged = ModelSpec(base=str(output), dtype="float32", trust_remote_code=reference.trust_remote_code)
    model = load_base(merged, device)
    distances = [
        distance("base alone", live, alone, None),
        distance("merged", live, _logits(model, prompts), limits),
    ]
    del model, alone
    if again := settings.requantize or reference.quantization:
        quantized = load_base(merged.model_copy(update={"quantization": again}), device)
        name = f"merged in {again.bits} bits"
        asked = settings.quantized if settings.requantize else None
        distances.append(distance(name, live, _logits(quantized, prompts), asked))
    return MergeProof(tuple(distances))


def distance(of: str, expected: list[torch.Tensor], found: list[torch.Tensor], limits: LimitsSpec | None) -> Distance:
    """Compare logits, each [length, vocabulary]."""
    largest = total = kl_sum = kl_largest = 0.0
    same = positions = values = 0
    for left, right in zip(expected, found, strict=True):
        off = (left - right).abs()
        log_left, log_right = left.log_softmax(-1), right.log_softmax(-1)
        kl = (log_left.exp() * (log_left - log_right)).sum(-1).clamp(min=0)
        largest, total = max(largest, off.max().item()), total + off.sum().item()
        kl_sum, kl_largest = kl_sum + kl.sum().item(), max(kl_largest, kl.max().item())
        same += int((left.argmax(-1) == right.argmax(-1)).sum())
        positions, values = positions + len(left), values + off.numel()
    return Distance(of, positions, largest, total / values, kl_sum / positions, kl_largest, same / positions, limits)


def _live_logits(
    reference: ModelSpec, adapter: Path, prompts: list[torch.Tensor], device: str
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """With the adapter, and without."""
    host = AdapterHost(load_base(reference, device), base_fingerprint(reference))
    alone = _logits(host.base, prompts)
    host.load(_SLOT, adapter)
    with host.active(_SLOT) as model:
        return _logits(model, prompts), alone


def _logits(model: torch.nn.Module | PreTrainedModel, prompts: list[torch.Tensor]) -> list[torch.Tensor]:
    device = next(model.parameters()).device
    with torch.inference_mode():
        return [model(input_ids=ids.to(device)).logits[0].float().cpu() for ids in prompts]
