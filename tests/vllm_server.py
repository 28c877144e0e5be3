"""A small OpenAI-compatible server with vLLM's additions: real generations of a tiny model, ids and logprobs.

It takes the fields of vLLM's completions API that the project uses and refuses any other, so a misspelt one fails.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """Names, types and defaults of vLLM's CompletionRequest."""

    model_config = ConfigDict(extra="forbid")

    model: str
    prompt: list[int]
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: list[str] = []
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None
    return_token_ids: bool | None = None


@dataclass
class Served:
    """What was asked, in order."""

    requests: list[Request] = field(default_factory=list)


class TinyEngine:
    """One sequence at a time, all of it read again for every token."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def run(self, request: Request) -> dict[str, Any]:
        generator = torch.Generator().manual_seed((request.seed or 0) % 2**63)
        ids: list[int] = []
        logprobs: list[float] = []
        text, finish, reason = "", "length", None
        while len(ids) < request.max_tokens:
            seen = torch.tensor([[*request.prompt, *ids]])
            logits = self.model(seen).logits[0, -1].float()
            scaled = torch.log_softmax(logits / (request.temperature or 1.0), -1)
            token = (
                int(torch.multinomial(scaled.exp(), 1, generator=generator))
                if request.temperature
                else int(logits.argmax())
            )
            ids.append(token)
            logprobs.append(float(scaled[token]))
            text = self.tokenizer.decode(ids, skip_special_tokens=request.skip_special_tokens)
            if token == self.tokenizer.eos_token_id:
                finish = "stop"
                break
            found = [(text.find(stop), stop) for stop in request.stop if stop in text]
            if found:
                at, reason = min(found)
                text = text[: at + (len(reason) if request.include_stop_str_in_output else 0)]
                finish = "stop"
                break
        return {
            "text": text, "ids": ids, "logprobs": logprobs, "finish": finish, "reason": reason,
        }  # fmt: skip


def build_server(folder: Path, max_model_len: int) -> tuple[FastAPI, Served]:
    app, engine, served = FastAPI(), TinyEngine(folder), Served()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        card = {"id": "policy", "object": "model", "created": 0, "owned_by": "vllm"}
        return {"object": "list", "data": [{**card, "max_model_len": max_model_len}]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> dict[str, Any]:
        served.requests.append(request)
        assert len(request.prompt) + request.max_tokens <= max_model_len  # vLLM answers 400
        said = engine.run(request)
        names: list[str] = [engine.tokenizer.decode([token]) for token in said["ids"]]
        choice = {
            "index": 0, "text": said["text"], "finish_reason": said["finish"], "stop_reason": said["reason"],
            "logprobs": {
                "tokens": names, "token_logprobs": said["logprobs"],
                "top_logprobs": [{n: p} for n, p in zip(names, said["logprobs"], strict=True)],
                "text_offset": [0] * len(names),
            },
        }  # fmt: skip
        if request.return_token_ids:
            choice |= {"token_ids": said["ids"], "prompt_token_ids": request.prompt}
        kind: Literal["text_completion"] = "text_completion"
        usage = {"prompt_tokens": len(request.prompt), "completion_tokens": len(names)}
        usage["total_tokens"] = sum(usage.values())
        return {
            "id": "cmpl-1", "object": kind, "created": 0, "model": "policy",
            "choices": [choice], "usage": usage,
        }  # fmt: skip

    return app, served
