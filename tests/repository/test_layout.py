"""The tests mirror the package, so that the tests of a module are found by its name."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHOLE = {  # tests of what no single module holds: the whole chain, or all of a package
    "test_dvc", "test_operations", "test_parity", "test_pipeline", "test_published",
    "test_real_models", "test_recorded_run",
    "serve/test_hostile", "serve/test_live_words", "serve/test_openai_client", "serve/test_other_clients",
    "serve/test_passing_through", "serve/test_real_policy", "stages/test_without_policy",
}  # fmt: skip
OTHER = {"benchmarks", "repository"}  # tests of what is not the package
FILES = sorted(
    path.relative_to(ROOT / "tests")
    for path in (ROOT / "tests").rglob("test_*.py")
    if path.relative_to(ROOT / "tests").parts[0] not in OTHER
)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_test_file_is_named_for_a_module(path: Path) -> None:
    """`tests/X/test_Y.py` or `test_Y_ASPECT.py` is about `routerr1/X/Y.py`."""
    words = path.stem.split("_")[1:]
    modules = ["_".join(words[:number]) for number in range(1, len(words) + 1)]
    package = ROOT / "routerr1" / path.parent
    named = any((package / f"{module}.py").is_file() for module in modules)
    assert named or path.with_suffix("").as_posix() in WHOLE


def test_few_modules_lie_outside_a_folder() -> None:
    """The vocabulary, which everything imports, and the workspace; all else has a package."""
    assert {path.stem for path in (ROOT / "routerr1").glob("[a-z]*.py")} == {
        "config", "errors", "files", "lineage", "matching", "metrics", "notation", "prompt", "protocol",
        "reward", "types", "workspace",
    }  # fmt: skip
