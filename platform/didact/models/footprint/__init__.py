"""How much memory a worker needs and how much it computes, worked out without loading weights.

    configuration -> parameters on the meta device -> two layers run on fake tensors: what autograd keeps -> Footprint

Example:
    >>> from didact.models.footprint import Load, Sharding, footprint_of
    >>> footprint_of(config, ModelSpec(), LoraSpec(), Load(tokens=2048), Sharding.of("fsdp", 4)).total_gib
"""

from didact.models.footprint.activations import Load
from didact.models.footprint.estimate import Demand, Footprint, demand_of, estimate_footprint, footprint_of
from didact.models.footprint.machines import Fit, fewest
from didact.models.footprint.sharding import Sharding

__all__ = [
    "Demand",
    "Fit",
    "Footprint",
    "Load",
    "Sharding",
    "demand_of",
    "estimate_footprint",
    "fewest",
    "footprint_of",
]
