"""Make constraints.txt: one release of every package that any extra of pyproject.toml can pull in.

    python scripts/constraints.py             # add and remove packages; keep every other release
    python scripts/constraints.py --upgrade   # take the newest releases

The file serves all systems and Python 3.11 and newer (`uv pip compile --universal`). Needs the extra
`dev`, which holds uv, and the package index.
"""

import argparse
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = (
    "uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--python-version",
    "3.11", "--no-annotate", "--no-header", "--quiet", "--output-file", "constraints.txt",
)  # fmt: skip


def main() -> None:
    """Compile constraints.txt in the root of the repository."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="Take the newest releases.")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    subprocess.run([*COMMAND, *upgrade], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
