"""`routerr1 init`: a workspace of one's own, made from templates that the package ships."""

import contextlib
import logging
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from routerr1.answers.long_answer import Embed
from routerr1.config import ColumnsParams
from routerr1.data.imported import Imported, Shares, import_file, remember
from routerr1.data.sources import read_rows
from routerr1.errors import ConfigError, DataError
from routerr1.files import read_yaml
from routerr1.pool.pool_file import PoolFile, read_pool_file

VERSION_FILE = Path("routerr1.version")
_POOL = Path("pools/mine.yaml")


@dataclass(frozen=True, slots=True)
class Own:
    """What a workspace is filled in with.

    Attributes:
        questions: None leaves the questions to a later import.
        pool: None leaves a pool file to fill in.
    """

    questions: Path | None = None
    columns: ColumnsParams = field(default_factory=ColumnsParams)
    pool: Path | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, for people; `imported` and `pool` are None where nothing was filled in.

    Attributes:
        repository: the git repository around the folder, to which the workspace was committed; None if the
            folder became one itself.
    """

    folder: Path
    imported: Imported | None
    pool: PoolFile | None
    repository: Path | None = None


def require_version() -> None:
    """In a workspace of one's own, refuse another version of routerr1 than its stages depend on.

    Raises: ConfigError naming both versions.
    """
    if not VERSION_FILE.is_file():
        return
    named, installed = VERSION_FILE.read_text(encoding="utf-8").strip(), _version()
    if named != installed:
        raise ConfigError(
            f"{VERSION_FILE}: names {named}, and {installed} is installed; write {installed} into it and run "
            "`dvc repro`"
        )


def _version() -> str:
    return metadata.version("routerr1")


def make_workspace(folder: Path, own: Own, *, embed: Embed | None = None) -> Made:
    """Make `folder` a workspace with git and DVC, a pool file and questions.

    Args:
        embed: finds topics and questions of the same meaning; see `import_file`.

    Raises: ConfigError if the folder is not empty, or git fails; DataError, PoolError for files that cannot be
        used. A folder that was made for nothing is removed.
    """
    require_new(folder)
    pool = read_pool_file(own.pool) if own.pool is not None else None
    questions = own.questions.resolve() if own.questions is not None else None
    there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        name = _name_of(questions) if questions is not None else "mine"
        filled = {
            "title": folder.resolve().name,
            "today": date.today().isoformat(),
            "imported": "" if questions is None else f"data/imported/{name}.parquet",
        }
        shipped = resources.files("routerr1.cli") / "templates"
        with resources.as_file(shipped) as templates:
            _write(templates / "workspace", folder, filled)
            _write_adapted(templates / "repository", folder, filled["imported"])
        if own.pool is not None:
            shutil.copyfile(own.pool, folder / _POOL)
        (folder / VERSION_FILE).write_text(f"{_version()}\n", encoding="utf-8")
        (folder / ".env.example").write_text(_keys(pool), encoding="utf-8")
        (folder / "data/imported.json").parent.mkdir(exist_ok=True)
        (folder / "data/imported.json").write_text("{}\n", encoding="utf-8")
        with contextlib.chdir(folder):
            found = None
            if questions is not None:
                found = _import(questions, name, own.columns, embed)
            repository = _start_git_and_dvc(found)
    except BaseException:
        shutil.rmtree(folder) if not there else _empty(folder)
        raise
    return Made(folder, found, pool, repository)


def require_new(folder: Path) -> None:
    """Refuse a folder that holds anything.

    Raises: ConfigError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not empty; name a new folder")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _name_of(questions: Path) -> str:
    """The data set's name, from the file's.

    >>> _name_of(Path("Support tickets 2026.csv.gz"))
    'support_tickets_2026'
    """
    stem = questions.name.partition(".")[0].lower()
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    return name if name not in ("", "embedded") else "own"


def _write(templates: Traversable | Path, folder: Path, filled: Mapping[str, str]) -> None:
    for entry in templates.iterdir():
        if entry.is_dir():
            (folder / entry.name).mkdir(exist_ok=True)
            _write(entry, folder / entry.name, filled)
            continue
        text = entry.read_text(encoding="utf-8")
        for key, value in filled.items():
            text = text.replace(f"{{{{{key}}}}}", value)
        name = ".gitignore" if entry.name == "gitignore" else entry.name
        (folder / name).write_text(text, encoding="utf-8")


def _write_adapted(repository: Path, folder: Path, imported: str) -> None:
    """The repository's own parameters, stages and deployments, as a workspace of one's own needs them."""
    params = (repository / "params.yaml").read_text(encoding="utf-8")
    values = {**_OWN, "dataset.imported": [imported] if imported else []}
    (folder / "params.yaml").write_text(_with_values(params, values), encoding="utf-8")
    (folder / "dvc.yaml").write_text(_stages(repository / "dvc.yaml"), encoding="utf-8")
    deployments = (repository / "prefect.yaml").read_text(encoding="utf-8")
    entrypoint = re.compile(r"routerr1/flows/(\w+)\.py:(\w+)")  # a file of the clone
    own = entrypoint.sub(r"routerr1.flows.\1.\2", deployments)
    (folder / "prefect.yaml").write_text(own, encoding="utf-8")


_ROUTERS = [
    "largest", "knn", "mlp", "router_dc", "frugal", "best_8", "best_40", "beta_8", "beta_40", "thompson_8",
    "thompson_40", "knn_8", "knn_40", "knn_spend_5",
]  # fmt: skip
_OWN: Mapping[str, object] = {
    "preset": "own",
    "dataset.source": "imported",
    "checks.max_question_chars": 16_000,  # as many as the gateway takes; a conversation is one question
    "checks.max_leakage": 1.0,  # a question with options holds its answer
    "checks.max_leakage_by_set": {},
    "pool.kind": "http",
    "pool.file": _POOL.as_posix(),
    "pool.calls": "record",
    "pool.store": "data/calls/mine.jsonl",
    "pool.budget": {"question_usd": None, "run_usd": 5.0, "month_usd": None},
    "profile_pool.probes": 400,
    "rollout.max_reply_tokens": 64,  # a policy that answers by reference need not read it all
    "warmstart.steps": 900,  # a minute or two; of fewer a policy does not learn to call the candidate nearest to a figure
    "train.steps": 120,
    "train.questions_per_step": 24,
    "train.checkpoint_every": 30,
    "train.validate_every": 15,
    "train.validation_questions": 240,  # plays of them: replies are paid once
    "baselines.include": _ROUTERS,
    "generalize.file": None,
    "gate.min_unseen_em": None,
    "gate.min_worst_change": None,  # needs the topic of a sub-question
}
"""What a workspace of one's own has in place of the repository's parameters."""


def _with_values(text: str, values: Mapping[str, object]) -> str:
    """`text` with other values at dotted keys; comments and all else stay."""
    for key, value in values.items():
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        for name in key.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            node = next((held for known, held in pairs if known.value == name), None)
        if node is None:
            continue  # a key with a default that the repository leaves out
        new = yaml.safe_dump(value, default_flow_style=True, width=1000)
        new = new.removesuffix("\n").removesuffix("\n...")
        text = text[: node.start_mark.index] + new + text[node.end_mark.index :]
    return text


def _stages(file: Path) -> str:
    """The stages without the repository's code: they depend on the version instead."""
    content = read_yaml(file)
    lines = [
        f"# What depends on what. A stage also depends on the version of routerr1, named in {VERSION_FILE}: write a",
        "# new one there after an upgrade. Values are in params.yaml.",
        "stages:",
    ]
    for name, stage in content["stages"].items():
        kept = [dep for dep in stage["deps"] if not dep.startswith("routerr1/")]
        deps = [str(VERSION_FILE), *(dep for dep in kept if dep not in _NOT_THERE)]
        lines += [f"  {name}:", f"    cmd: {stage['cmd']}", "    deps:"]
        lines += [f"      - {dep}" for dep in deps]
        lines += [f"    {key}: [{', '.join(stage[key])}]" for key in ("params", "outs")]
    lines += ["", "metrics:", *(f"  - {path}" for path in content["metrics"])]
    return "\n".join(lines) + "\n"


# Files that the repository has and a new workspace has not.
_NOT_THERE = ("prompts", "data/accepted.json", "data/sweep/sweep.json")


def _keys(pool: PoolFile | None) -> str:
    """The variables that the pool file's endpoints need, for `.env`."""
    named = {endpoint.key_env for endpoint in pool.endpoints.values()} if pool else set()
    lines = [f"{name}=\n" for name in sorted(filter(None, named))]
    return "# Copy to .env and fill in; .env is never committed.\n" + "".join(lines)


def _import(file: Path, name: str, columns: ColumnsParams, embed: Embed | None) -> Imported:
    found = import_file(
        file, name, columns, out=Path("data/imported"), shares=shares_of(_count(file, columns)),
        embed=embed,
    )  # fmt: skip
    remember(found.path)
    return found


def _count(file: Path, columns: ColumnsParams) -> int:
    return sum(1 for _ in read_rows(file, [columns.question, columns.golden_answers]))


def shares_of(rows: int) -> Shares:
    """Larger shares of few questions, so that a test says something: 60 questions, at most 40 %.

    Raises: DataError for fewer than 20 questions.

    >>> shares_of(300), shares_of(40)
    (Shares(test=0.2, validation=0.1), Shares(test=0.4, validation=0.2))
    """
    if rows < 20:
        raise DataError(f"{rows} questions are too few to train and to test on; bring at least 20")
    return Shares(max(0.2, min(0.4, 60 / rows)), max(0.1, min(0.2, 30 / rows)))


def _start_git_and_dvc(imported: Imported | None) -> Path | None:
    """Commit the workspace; returns the repository around it, if there is one."""
    from dvc.repo import Repo

    if not _inside_git():
        _git("init", "-q", "-b", "main")
    subdir = not Path(".git").is_dir()
    logging.getLogger("dvc").setLevel(logging.WARNING)
    with Repo.init(subdir=subdir) as repo, repo.config.edit() as config:
        config["core"] |= {"analytics": False, "check_update": False, "autostage": True}
    if imported is not None:
        with Repo() as repo:
            repo.add(imported.path.as_posix())
    _git("add", ".")
    who = (
        []
        if _git("config", "user.email", check=False)
        else ["-c", "user.name=routerr1", "-c", "user.email=routerr1@localhost"]
    )
    _git(*who, "commit", "-q", "-m", "Start a workspace with routerr1 init", "--", ".")
    return Path(_git("rev-parse", "--show-toplevel")) if subdir else None


def _inside_git() -> bool:
    return bool(_git("rev-parse", "--is-inside-work-tree", check=False))


def _git(*words: str, check: bool = True) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except OSError:
        raise ConfigError(
            "git: not found; install it, because DVC and the registry need it"
        ) from None
    if check and done.returncode:
        raise ConfigError(f"`git {' '.join(words)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip() if not done.returncode else ""
