"""Load a policy's model and tokenizer from a folder or the hub."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from routerr1.config import Params
from routerr1.errors import CheckpointError, ConfigError


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Where and how a checkpoint computes.

    Attributes:
        dtype: type of the computation, and of the weights unless they are trained; `auto` keeps the
            saved type.
        chat: see `tokens.encode_prompt`.
        max_length: tokens that a session may hold, prompt included; None takes the model's limit.
    """

    device: str = "cpu"
    dtype: str = "float32"
    chat: bool = False
    max_length: int | None = None


CPU_FLOAT32 = LoadOptions()


def load_options(params: Params) -> LoadOptions:
    """Options of `params` on this machine; in a distributed run, of this process.

    Raises: ConfigError if `model.device` is `cuda` and the machine has no GPU.
    """
    device, dtype = params.model.device, params.model.dtype
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "params.yaml: model.device: cuda: no GPU found; use `auto` to fall back to CPU"
        )
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu else "float32"
    return LoadOptions(
        f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu",
        dtype,
        params.prompt.chat,
        params.rollout.max_tokens,
    )


def load_model(
    source: Path | str, options: LoadOptions = CPU_FLOAT32, *, trained: bool = False
) -> tuple[Any, Any]:
    """A causal language model on its device, in evaluation mode, and its tokenizer.

    Args:
        source: a saved policy, or any folder or hub name that transformers loads.
        trained: the weights will be trained; they are float32 whatever `options.dtype` says.

    Raises: CheckpointError naming `source` if it cannot be loaded.
    """
    disable_progress_bar()  # a progress bar for a file of one megabyte is noise
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        # How this process found it would be saved with it, and differs between machines.
        for key in ("is_local", "local_files_only"):
            tokenizer.init_kwargs.pop(key, None)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype="float32" if trained else options.dtype
        )
    except Exception as error:  # transformers raises whatever its readers raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{source}: is not a loadable checkpoint ({reason})") from error
    return model.to(options.device).eval(), tokenizer
