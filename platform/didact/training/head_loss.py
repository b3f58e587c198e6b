"""Cross-entropy straight from hidden states: logits exist for a few rows at a time, gradient included.

The projection onto a vocabulary of tens of thousands makes the largest tensors of a step; kept for the backward pass
they are held several times over, in float32. Here loss and gradient are taken together, a chunk of positions at a time,
as in Liger Kernel (Hsu et al. 2024), so memory does not grow with the number of positions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from didact.models import base_of, positions_at_once, uncompiled

# Columns taken to float32 at once, so that the chain of small operations stays in a processor's cache. A GPU takes all:
# its time goes by the number of operations.
_COLUMNS = 2048


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses, gradients = [hidden.new_zeros((), dtype=torch.float32)], [hidden.new_empty(0, hidden.shape[1])]
        of_targets = [hidden.new_empty(0, dtype=torch.float32)]
        num_rows = positions_at_once(weight.shape[0], on_cpu=hidden.device.type == "cpu")
        for rows, wanted in zip(hidden.split(num_rows), targets.split(num_rows), strict=True):
            logits = functional.linear(rows, weight)
            loss, total = _exponentials(logits, wanted)
            losses.append(loss.sum())
            of_targets.append(loss)
            if ctx.needs_input_grad[0]:
                # The target's share is subtracted in float32: what is left of a sure prediction is small.
                gradient = torch.mm(logits, weight).float().div_(total)
                gradient.addcmul_(torch.expm1(-loss)[:, None], weight[wanted].float())
                gradients.append(gradient.to(hidden.dtype))
        ctx.save_for_backward(torch.cat(gradients))
        each = torch.cat(of_targets)
        ctx.mark_non_differentiable(each)
        return torch.stack(losses).sum(), each

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _each: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None


def _exponentials(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn logits [rows, vocabulary] in place into exp(logit - the row's largest), 0 at each row's target.

    Returns the rows' cross-entropies [rows] and the sums of the exponentials with the targets' [rows, 1], float32.
    """
    columns = _COLUMNS if logits.device.type == "cpu" else logits.shape[1]
    parts, rows = logits.split(columns, dim=1), torch.arange(len(logits), device=logits.device)
    top = torch.stack([part.amax(dim=1) for part in parts]).amax(dim=0)[:, None].float()
    wanted = logits[rows, targets].float()
    total = torch.zeros_like(top)
    for part in parts:
        shares = part.float().sub_(top).exp_()
        total += shares.sum(dim=1, keepdim=True)
        part.copy_(shares)
    logits[rows, targets] = 0  # scatter_ takes longer than all of the above
    return (top + total.log())[:, 0] - wanted, total


def head_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of `hidden @ weight.T`, a float32 scalar with gradient for `hidden` alone.

    Args:
        hidden: [positions, hidden size].
        weight: frozen output embeddings [vocabulary, hidden size], of the dtype to multiply in.
        targets: int64 [positions], all of them counted.
    """
    return head_losses(hidden, weight, targets)[0]


def head_losses(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`head_loss`, and the losses that it is the sum of: float32 [positions] without gradient."""
    with torch.autocast(hidden.device.type, enabled=False):
        summed, each = _HeadLoss.apply(hidden.to(weight.dtype), weight, targets)
    return summed, each


def frozen_head(
    model: torch.nn.Module, compute_dtype: torch.dtype, device: torch.device | None = None
) -> torch.nn.Linear | None:
    """The output layer of `model` when `head_loss` may stand for it, else None.

    It must be a plain frozen linear layer without bias in the compute dtype, whose output *is* the logits: models that
    cap them afterwards are found out by a forward pass of two tokens.

    Args:
        model: as training calls it, its weights whole or cut over workers; all of them then make this pass.
        compute_dtype: of the matrix products.
        device: where it computes; default where the output layer lies.
    """
    base = base_of(model)
    head: Any = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if type(head) is not torch.nn.Linear or head.bias is not None or head.weight.requires_grad:
        return None
    if head.weight.dtype != compute_dtype:
        return None  # converted by autocast at every call
    outputs: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _module, _states, output: outputs.append(output.clone()))
    was_training = base.training
    model.eval()
    try:
        with torch.no_grad(), uncompiled(model):  # two tokens, once, are not worth compiling for
            ids = torch.tensor([[0, 1]], device=device or head.weight.device)
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
        model.train(was_training)
    return head if len(outputs) == 1 and torch.equal(outputs[0].float(), logits.float()) else None


@contextmanager
def losses_as_logits(head: torch.nn.Linear, targets: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Within it the model returns, as logits [1, groups], the `head_loss` of the states that enter its output layer.

    Yields what the last pass has left: the losses of each group's targets, without gradient.

    Taken inside the layer, where a weight that is cut over workers is whole.

    Args:
        head: the output layer.
        targets: int64 of each group of positions, which enter the layer one after the other.
    """

    of_targets: list[torch.Tensor] = []

    def forward(states: torch.Tensor) -> torch.Tensor:
        groups = states.flatten(0, -2).split([len(wanted) for wanted in targets])
        losses = [head_losses(group, head.weight, wanted) for group, wanted in zip(groups, targets, strict=True)]
        of_targets[:] = [each for _, each in losses]
        return torch.stack([summed for summed, _ in losses])[None]

    head.forward = forward
    try:
        yield of_targets
    finally:
        del head.forward
