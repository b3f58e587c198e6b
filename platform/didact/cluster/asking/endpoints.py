"""A model behind an address is evaluated from this process alone, without Ray.

EndpointSpec + tasks -> run_task for each -> EvalReport
"""

from didact.cluster.asking.asked import asked_by_role
from didact.cluster.asking.loop import in_a_loop
from didact.errors import SpecError
from didact.evaluation import Asked, EvalReport, ModelFacts, Task, TaskResult, Watch, build_task, combine, run_task
from didact.evaluation.asks import Model, Role
from didact.evaluation.endpoint import Endpoint
from didact.evaluation.judge import Judged
from didact.evaluation.questions import TokenTask
from didact.evaluation.report import BASE, with_files
from didact.spec import EndpointSpec, EvaluationSpec, absolute_task_paths


def evaluate_endpoint(spec: EndpointSpec, evaluation: EvaluationSpec, watch: Watch | None = None) -> EvalReport:
    """Run every task on an endpoint.

    Args:
        spec: the endpoint.
        evaluation: the tasks; a judge and a rival must be endpoints as well.
        watch: told of each question when it is scored.

    Raises:
        SpecError: a task or a judge that needs a model of this machine.
        EndpointError: the endpoint answers nothing any more.
    """
    endpoints: dict[Role, Model] = {"model": Endpoint(spec)}
    for role, answerer in (("judge", evaluation.judge), ("rival", evaluation.rival)):
        if answerer is None:
            continue
        if answerer.endpoint is None:
            raise SpecError(f"evaluation.{role} is a model of this machine; beside an endpoint expected an endpoint")
        endpoints[role] = Endpoint(answerer.endpoint)  # type: ignore[index]
    specs = absolute_task_paths(evaluation).tasks
    tasks = [_task(build_task(each), each.task) for each in specs]
    return with_files(in_a_loop(_evaluate(endpoints, tasks, watch)), specs)


def _task(task: Task | None, name: str) -> Task:
    if task is None or isinstance(task, TokenTask):
        raise SpecError(
            f"evaluation.tasks: {name} needs the model's own tokens, which no endpoint gives; evaluate a base or an "
            "adapter, or remove the task"
        )
    return task


async def _evaluate(endpoints: dict[Role, Model], tasks: list[Task], watch: Watch | None) -> EvalReport:
    async with asked_by_role(endpoints) as asked:
        results: list[TaskResult] = []
        for task in tasks:
            who: dict[Role, Asked] = asked if isinstance(task, Judged) else {"model": asked["model"]}
            results.append(await run_task(task, who, watch))
    identity = endpoints["model"].identity
    return combine({BASE: ModelFacts(identity.name, dict(identity.digests))}, {BASE: results})
