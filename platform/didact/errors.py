"""Every error didact raises on purpose.

One root, children by cause. Each child is also the standard type it replaces, so a caller who knows only Python
can catch it, and each is rebuilt from its message alone, so Ray can carry it between processes.
A message says what was found, what was expected and which field, file or line to change.
"""


class DidactError(Exception):
    """Root of all errors that didact raises on purpose."""


class SpecError(DidactError, ValueError):
    """A recipe, search space or serve file that cannot be run as written."""


class DataError(DidactError, ValueError):
    """A source that cannot be read, or has more bad rows than the run allows."""


class TemplateError(DidactError, ValueError):
    """A chat template that cannot be used, or differs from the one an adapter was trained with."""


class ModelError(DidactError, ValueError):
    """A base model that cannot be loaded, or a method that does not fit it."""


class AdapterError(DidactError, ValueError):
    """An adapter that is damaged, unsafe, or made for another base model."""


class CheckpointError(DidactError, RuntimeError):
    """No checkpoint that verifies, or one that belongs to another run."""


class TrainingDiverged(DidactError, ArithmeticError):
    """The loss or the gradient became NaN or infinite."""


class PlacementError(DidactError, RuntimeError):
    """The cluster cannot give the workers that the run asks for."""


class RunError(DidactError, RuntimeError):
    """A run folder that is missing, locked by another process, or not in the state asked for."""


class RegistryError(DidactError, RuntimeError):
    """The model registry refused, or holds something other than expected."""


class NotRegistered(RegistryError, LookupError):
    """No registered model, version or alias of that name."""
