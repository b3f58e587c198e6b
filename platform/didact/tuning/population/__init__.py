"""Population based training: trials that copy each other, and change learning rate, dropout and mixture on the way.

    Search, Proposer -> run_population -> run folders and a journal, as of any search

Each trial is an ordinary run, and so is each copy: its recipe states what it began with and all that was changed when
(`training.changes`, `data.curriculum`), and trains the same anew. Who copies whom is decided by Ray Tune's
PopulationBasedTraining and written down before anything follows from it.

Example:
    >>> from didact.spec.search.schedulers import PopulationSpec
    >>> from didact.tuning.population import boundaries
    >>> boundaries(PopulationSpec(rule="population", interval_steps=20), 50)
    (20, 40, 50)
"""

from didact.tuning.population.deciding import Move, decide
from didact.tuning.population.running import run_population
from didact.tuning.population.schedule import boundaries, check_population, scheduled

__all__ = ["Move", "boundaries", "check_population", "decide", "run_population", "scheduled"]
