"""What an estimate says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """An estimate for one worker, in GiB on the device that computes."""

    num_parameters: int
    num_trainable: int
    weights_gib: float
    """The base as it is held, and the adapter."""
    gradients_gib: float
    """Those that do not take the place of activations; a step's second forward pass finds all of them there."""
    optimizer_gib: float
    """Both moments of AdamW; with DeepSpeed also its own copy of the trained weights."""
    activations_gib: float
    """Kept for the backward pass, with what one block needs for a moment."""
    logits_gib: float
    """With their gradient, of as many positions as are computed at once."""
    overhead_gib: float
    flops: float
    """Arithmetic of one forward and backward pass over the load."""
    left_out: tuple[str, ...] = ()
    """What gets no adapter though all linear layers were asked for, in words."""
    unpacked: str | None = None
    """What quantization leaves in full precision, in words."""
    rough: bool = False
    """Activations are worked out from the sizes of the layers alone."""
    base_dropout: float = 0.0
    """The largest share that the base drops where `training.base_dropout` is on."""

    @property
    def trainable_share(self) -> float:
        """Trained parameters / all parameters."""
        return self.num_trainable / self.num_parameters

    @property
    def training_state_gib(self) -> float:
        """Gradients and optimizer."""
        return self.gradients_gib + self.optimizer_gib

    @property
    def total_gib(self) -> float:
        """The sum of the parts."""
        return self.weights_gib + self.training_state_gib + self.activations_gib + self.logits_gib + self.overhead_gib

    def seconds(self, flops_per_second: float) -> float:
        """Time of one forward and backward pass on a device of that speed."""
        return self.flops / flops_per_second
