"""Options of the command line that many commands have."""

from pathlib import Path
from typing import Annotated

import typer

PARAMS = Path("params.yaml")
ParamsFile = Annotated[
    Path,
    typer.Option(
        "--params",
        help="Parameter file; the preset it names (presets/NAME.yaml) is laid over it.",
    ),
]
