"""The Python face: what the command line offers, as functions for notebooks and programs. `import didact` gives them.

    keyword arguments, a file or both -> recipe -> finetune -> FinetuneResult -> load -> Model.chat

Each function takes plain Python values, builds the spec that the command line would read from a file, and makes one
call of a room below. Heavy libraries are imported by the function that needs them.

Example:
    >>> import didact
    >>> rows = [{"instruction": f"Add {n} and 2.", "output": str(n + 2)} for n in range(40)]
    >>> recipe = didact.recipe(name="sums", data=rows, training={"steps": 5})
    >>> recipe.data.sources[0].path[:7], recipe.training.steps
    ('memory:', 5)
    >>> didact.plan(recipe).data.num_steps
    5
"""

from didact.datasets.catalog.listing import find_cards as cards
from didact.errors import DidactError
from didact.notebook.lineage import check_again, push, reproduce, trace
from didact.notebook.models import load, predict
from didact.notebook.runs import evaluate, finetune, plan, promote, sweep, versions
from didact.notebook.settings import recipe

__all__ = [
    "DidactError",
    "cards",
    "check_again",
    "evaluate",
    "finetune",
    "load",
    "plan",
    "predict",
    "promote",
    "push",
    "recipe",
    "reproduce",
    "sweep",
    "trace",
    "versions",
]
