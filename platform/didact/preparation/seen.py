"""Whether a run's own training rows hold the questions that its adapter was judged by."""

from didact.datasets.quality import EvalText, find_seen, seen_rules
from didact.errors import DidactError
from didact.evaluation import EvalReport, Searched
from didact.logs import get_logger
from didact.preparation.prepare import TaskTexts, training_rows
from didact.spec import FinetuneSpec

_LOG = get_logger(__name__)


def with_seen(report: EvalReport, model: str, spec: FinetuneSpec, task_texts: TaskTexts) -> EvalReport:
    """A report with the questions marked that stand in a model's training data.

    Rows are searched as training saw them: those that the recipe's filters leave out do not count. Data that cannot be
    read any more (a run from another machine, a source that is gone) is said in the report, and stops nothing.

    Args:
        report: with the model's answers.
        model: as the report names it.
        spec: the recipe that it was trained by.
        task_texts: gives the questions of the recipe's tasks.
    """
    texts = [EvalText(each.task, each.id, each.question) for each in report.questions if model in each.given]
    if not texts:
        return report
    try:
        datasets = training_rows(spec, task_texts)
        ngram = spec.data.contamination.ngram
        found = find_seen(datasets, texts, ngram)
    except (DidactError, OSError) as error:
        _LOG.warning("whether the training data of %s holds questions is not known: %s", model, error)
        return report.searched(model, Searched(problem=str(error)), {})
    how = Searched(sum(len(dataset.train) for dataset in datasets), seen_rules(ngram))
    return report.searched(model, how, {name: str(where) for name, where in found.items()})
