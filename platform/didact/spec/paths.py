"""Files that a recipe names: paths made absolute and templates read, since Ray workers run in folders of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from didact.errors import TemplateError
from didact.spec.base import Spec
from didact.spec.evaluation import AnswererSpec, EvaluationSpec
from didact.spec.finetune import FinetuneSpec
from didact.spec.model import ModelSpec

if TYPE_CHECKING:
    import jinja2

NAMED_TEMPLATES = ("auto", "model", "alpaca")
"""Values of `tokens.template` that are no template themselves."""
_TASK_FILES = ("path", "examples", "without", "folder", "references", "criteria", "schema_file")
_PARTS = ("judging", "scorer")
"""Of a task, with files of their own."""
JINJA_FILES = (".jinja", ".jinja2", ".j2")
"""A template that ends so is a file's name."""
_MARKS = ("{%", "{{", "{#")
_HERE = Path()


def with_absolute_paths(spec: FinetuneSpec, root: Path = _HERE) -> FinetuneSpec:
    """The same recipe with every local path absolute.

    A chat template of one's own becomes its text, so that workers and later attempts need no file.

    Args:
        spec: the recipe.
        root: what its paths are relative to; left out, the working directory, which is another one in a process of Ray.

    Raises:
        TemplateError: the template is not there, or its syntax is broken.
    """
    sources, against = (
        tuple(
            each.model_copy(update={"path": _absolute(each.path, root), "options": _absolute_root(each.options, root)})
            for each in named
        )
        for named in (spec.data.sources, spec.data.contamination.against)
    )
    contamination = spec.data.contamination.model_copy(update={"against": against})
    return spec.model_copy(
        update={
            "model": absolute_base(spec.model, root),
            "adapter": spec.adapter.model_copy(update={"from": _absolute_start(spec.adapter.start, root)}),
            "data": spec.data.model_copy(update={"sources": sources, "contamination": contamination}),
            "tokens": spec.tokens.model_copy(update={"template": read_template(spec.tokens.template, root)}),
            "evaluation": absolute_task_paths(spec.evaluation, root) if spec.evaluation else None,
        }
    )


def absolute_base(model: ModelSpec, root: Path = _HERE) -> ModelSpec:
    """The same base with its folder absolute, where it is one; a bundled name or a hub id stays."""
    folder = root / Path(model.base).expanduser()
    return model.model_copy(update={"base": str(folder.absolute())}) if folder.exists() else model


def _absolute_start(reference: str | None, root: Path) -> str | None:
    """A folder of an adapter or its run; the name of a registered one stays."""
    folder = root / Path(reference or "").expanduser()
    there = reference and any((each / "adapter.json").is_file() for each in (folder, folder / "adapter"))
    return str(folder.absolute()) if there else reference


def absolute_task_paths(evaluation: EvaluationSpec, root: Path = _HERE) -> EvaluationSpec:
    """The same evaluation with the files of its tasks absolute, and the folders of bases that judge or compare."""
    others = {role: _absolute_answerer(getattr(evaluation, role), root) for role in ("judge", "rival")}
    tasks = tuple(_absolute_task(task, root) for task in evaluation.tasks)
    return evaluation.model_copy(update={"tasks": tasks, **others})


def _absolute_task(task: Spec, root: Path) -> Spec:
    given = {field: getattr(task, field, None) for field in _TASK_FILES}
    absolute: dict[str, Any] = {field: _absolute(path, root) for field, path in given.items() if path is not None}
    for name in _PARTS:
        if isinstance(part := getattr(task, name, None), Spec):
            absolute[name] = _absolute_task(part, root)
    template = getattr(task, "template", None)
    if isinstance(template, str) and template.endswith(JINJA_FILES):
        absolute["template"] = _absolute(template, root)
    return task.model_copy(update=absolute)


def task_files(task: Spec) -> list[Path]:
    """The files of this machine that a task is read from, and those in the folders that it names; none of hubs.

    Args:
        task: with absolute paths.
    """
    named = [path for field in _TASK_FILES if isinstance(path := getattr(task, field, None), str) and ":" not in path]
    found = [each for path in named for each in _files_at(Path(path))]
    parts = [part for name in _PARTS if isinstance(part := getattr(task, name, None), Spec)]
    return [*found, *(file for part in parts for file in task_files(part))]


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file())
    return [path] if path.is_file() else []


def _absolute_answerer(answerer: AnswererSpec | None, root: Path) -> AnswererSpec | None:
    if answerer is None or answerer.base is None:
        return answerer
    return answerer.model_copy(update={"base": absolute_base(ModelSpec(base=answerer.base), root).base})


def _absolute_root(options: dict[str, Any], root: Path) -> dict[str, Any]:
    """`root` is where a card's files lie."""
    return {**options, "root": _absolute(str(options["root"]), root)} if "root" in options else options


def _absolute(path: str, root: Path) -> str:
    return path if ":" in path else str((root / Path(path).expanduser()).absolute())


def read_template(template: str, root: Path = _HERE) -> str:
    """A template of one's own as Jinja text, its syntax checked; a named one stays its name.

    Args:
        template: `tokens.template`.
        root: what a relative path begins at.

    Raises:
        TemplateError: there is no such file, it holds no text, or its syntax is broken; names file and line.
    """
    if template in NAMED_TEMPLATES:
        return template
    if any(mark in template for mark in _MARKS):
        check_syntax(template, "tokens.template")
        return template
    file = root / Path(template).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TemplateError(f"tokens.template: there is no file {file.absolute()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"tokens.template: {file} cannot be read as text: {error}") from None
    check_syntax(text, f"tokens.template: {file}")
    if not any(mark in text for mark in _MARKS):
        raise TemplateError(f"tokens.template: {file} holds no Jinja; expected a template over `messages`")
    return text


def check_syntax(text: str, origin: str) -> None:
    """Refuse a template that Jinja cannot read.

    Raises:
        TemplateError: names `origin`, the line and what stands there.
    """
    import jinja2  # reading a recipe without a template of its own needs none

    try:
        chat_environment().compile(text)
    except jinja2.TemplateSyntaxError as error:
        lines = text.splitlines()
        found = lines[error.lineno - 1].strip() if 0 < error.lineno <= len(lines) else ""
        shown = found if len(found) <= 80 else f"{found[:80]}..."
        raise TemplateError(f"{origin}, line {error.lineno}: {error.message}; found {shown!r}") from None


def chat_environment() -> "jinja2.Environment":
    """Jinja with what chat templates may hold beside its own words, for reading them and not for rendering."""
    import jinja2
    import jinja2.ext
    import jinja2.nodes

    class Generation(jinja2.ext.Extension):
        """transformers' marks around what the assistant says."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        @override
        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True))

    return jinja2.Environment(extensions=[Generation, jinja2.ext.loopcontrols], autoescape=False)
