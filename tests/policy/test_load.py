"""Policies loaded and saved."""

import json
import os
import subprocess
import sys
from pathlib import Path

SAVED = "tokenizer_config.json"
LOAD_AND_SAVE = """
import sys
from routerr1.policy.load import load_model
load_model(sys.argv[1])[1].save_pretrained(sys.argv[2])
"""


def test_a_saved_tokenizer_does_not_tell_how_it_was_loaded(
    small_policy: Path, tmp_path: Path
) -> None:
    texts = []
    for offline in ("0", "1"):
        folder = tmp_path / offline
        command = [sys.executable, "-c", LOAD_AND_SAVE, str(small_policy), str(folder)]
        subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": offline})
        texts.append((folder / SAVED).read_text())
    assert texts[0] == texts[1] == (small_policy / SAVED).read_text()
    assert "is_local" not in json.loads(texts[0])
