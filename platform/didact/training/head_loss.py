"""Cross-entropy straight from hidden states: logits exist for a few rows at a time, gradient included.

The projection onto a vocabulary of tens of thousands makes the largest tensors of a step; kept for the backward pass
they are held several times over, in float32. Here loss and gradient are taken together, a chunk of positions at a time,
as in Liger Kernel (Hsu et al. 2024), so memory does not grow with the number of positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

_ROWS = 128


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), _ROWS):
            rows, wanted = hidden[start : start + _ROWS], targets[start : start + _ROWS, None]
            logits = functional.linear(rows, weight).float()
            shares = logits.softmax(dim=1)
            top, place = logits.max(dim=1, keepdim=True)
            # logsumexp from the largest share, which never underflows
            total = top - shares.gather(1, place).log()
            loss += (total - logits.gather(1, wanted)).sum()
            if gradient is not None:
                shares.scatter_add_(1, wanted, shares.new_full(wanted.shape, -1.0))
                torch.mm(shares.to(weight.dtype), weight, out=gradient[start : start + _ROWS])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None


def head_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of `hidden @ weight.T`, a float32 scalar with gradient for `hidden` alone.

    Args:
        hidden: [positions, hidden size].
        weight: frozen output embeddings [vocabulary, hidden size], of the dtype to multiply in.
        targets: int64 [positions], all of them counted.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return _HeadLoss.apply(hidden.to(weight.dtype), weight, targets)


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
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if type(head) is not torch.nn.Linear or head.bias is not None or head.weight.requires_grad:
        return None
    if head.weight.dtype != compute_dtype:
        return None  # converted by autocast at every call
    outputs: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _module, _states, output: outputs.append(output.clone()))
    was_training = base.training
    model.eval()
    try:
        with torch.no_grad():
            ids = torch.tensor([[0, 1]], device=device or head.weight.device)
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
        model.train(was_training)
    return head if len(outputs) == 1 and torch.equal(outputs[0].float(), logits.float()) else None


@contextmanager
def loss_as_logits(head: torch.nn.Linear, targets: torch.Tensor) -> Iterator[None]:
    """Within it the model returns, as logits [1], the `head_loss` of the states that enter its output layer.

    Taken inside the layer, where a weight that is cut over workers is whole.
    """

    def forward(states: torch.Tensor) -> torch.Tensor:
        return head_loss(states.flatten(0, -2), head.weight, targets).view(1)

    head.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del head.forward
