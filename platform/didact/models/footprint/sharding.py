"""What share of the model and of its training state one worker holds."""

from dataclasses import dataclass

from didact.spec import ShardingSpec


@dataclass(frozen=True, slots=True)
class StateSharding:
    """Into how many parts each kind of state is cut; 1 means that every worker holds all of it."""

    base: int = 1
    adapter: int = 1
    gradients: int = 1
    optimizer: int = 1
    copies: bool = False
    """The optimizer holds float32 weights of its own."""
    base_offloads: bool = False
    """The base lies in main memory, beside the accelerator."""
    state_offloads: bool = False
    """So does the optimizer's state."""
    keeps_blocks: bool = False
    """Blocks stay whole between forward and backward pass."""
    num_workers: int = 1

    @classmethod
    def of(cls, spec: ShardingSpec, num_workers: int, *, trains_base: bool, on_cpu: bool) -> "StateSharding":
        """The cut of a strategy (ZeRO, Rajbhandari et al., 2020, section 5; FSDP cuts as its third stage).

        Args:
            spec: the strategy.
            num_workers: that share.
            trains_base: weights of the base are trained; `fsdp` leaves an adapter whole.
            on_cpu: workers hold all in main memory anyway.
        """
        offloads = spec.cpu_offload and not on_cpu
        if spec.strategy == "ddp" or (num_workers == 1 and not offloads):
            return cls(num_workers=num_workers)
        if spec.strategy == "fsdp":
            trained = num_workers if trains_base else 1
            return cls(
                base=num_workers,
                gradients=trained,
                optimizer=trained,
                state_offloads=offloads and trains_base,
                keeps_blocks=not spec.reshard_after_forward,
                base_offloads=offloads and spec.cuts_weights,
                num_workers=num_workers,
            )
        weights = num_workers if spec.strategy == "zero3" else 1
        gradients = 1 if spec.strategy == "zero1" else num_workers
        return cls(
            weights,
            weights,
            gradients,
            num_workers,
            copies=True,
            state_offloads=offloads,
            base_offloads=offloads and spec.cuts_weights,
            num_workers=num_workers,
        )
