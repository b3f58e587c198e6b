"""How much memory a worker needs and how much it computes, worked out without loading weights.

    configuration -> parameters on the meta device -> two layers run on fake tensors: what autograd keeps -> Demand
    Demand of a worker alone + StateSharding -> Footprint

Example:
    >>> from transformers import LlamaConfig
    >>> from didact.models.footprint import Load, demand_of, fewest
    >>> from didact.spec import LoraSpec, ModelSpec
    >>> seven_billion = LlamaConfig()
    >>> demand = demand_of(seven_billion, ModelSpec(), LoraSpec(), Load(2048, on_cpu=False))
    >>> fewest(demand, memory_gib=24).count
    2
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.models.footprint.activations import Load
    from didact.models.footprint.counting import check_method
    from didact.models.footprint.estimate import Demand, demand_of, estimate_footprint
    from didact.models.footprint.footprint import Footprint
    from didact.models.footprint.logits import positions_at_once
    from didact.models.footprint.machines import CUT, OFFLOADED, Fit, fewest
    from didact.models.footprint.published import published_config
    from didact.models.footprint.remembered import footprint_of
    from didact.models.footprint.served import ServedFootprint, served_footprint
    from didact.models.footprint.sharding import StateSharding

__all__ = [
    "CUT",
    "OFFLOADED",
    "Demand",
    "Fit",
    "Footprint",
    "Load",
    "ServedFootprint",
    "StateSharding",
    "check_method",
    "demand_of",
    "estimate_footprint",
    "fewest",
    "footprint_of",
    "positions_at_once",
    "published_config",
    "served_footprint",
]

__getattr__ = lazily(__name__)
