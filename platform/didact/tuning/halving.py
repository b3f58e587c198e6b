"""Where sweeps of earlier versions, which an interruption left, look for their scheduler."""

from didact.tuning.schedulers.halving import Halving

__all__ = ["Halving"]
