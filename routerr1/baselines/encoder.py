"""BERT router: a text encoder, averaged over its tokens, trained on which candidates were right.

The paper's BERT router fine-tunes a pretrained encoder. That takes minutes on a CPU even for a
small one (`minilm`), so the default is a smaller one made from scratch with its own byte pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from routerr1.baselines.embed import in_package
from routerr1.baselines.learned import ScoredChooser, fit_scores, scores
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.threads import one_thread
from routerr1.data.conversation import gist
from routerr1.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text encoder to be trained, and how fast that should go.

    Attributes:
        ids: texts to padded token ids, N x T.
        build: a new encoder, a module with an attribute `size`: token ids to vectors, N x size.
    """

    ids: Callable[[Sequence[str]], "Tensor"]
    build: Callable[[], Any]
    learning_rate: float


def encoding(texts: Sequence[str], pretrained: str | None) -> Encoding:
    """The encoder `pretrained` names, or a small one from scratch that knows the words of `texts`.

    Args:
        pretrained: a folder, a hub name, or `embed.MINILM`.

    Raises: ConfigError if `pretrained` cannot be loaded.
    """
    from torch import Tensor, nn

    source = in_package(pretrained) if pretrained else None
    tokenizer = _load_tokenizer(source) if source else _train_tokenizer(texts)

    class Encoder(nn.Module):
        """The mean over a text's tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = _load(source) if source else _small(len(tokenizer))
            self.size: int = self.inner.config.hidden_size

        def forward(self, ids_N_T: Tensor) -> Tensor:
            """Token ids, padded, to vectors."""
            mask = ids_N_T != tokenizer.pad_token_id
            read = mask.any(dim=0)  # a batch of short texts need not pay for the longest of all
            ids_N_T, mask = ids_N_T[:, read], mask[:, read].long()
            hidden = self.inner(input_ids=ids_N_T, attention_mask=mask).last_hidden_state
            count = mask.sum(dim=1, keepdim=True).clamp(min=1)
            mean: Tensor = (hidden * mask[..., None]).sum(dim=1) / count
            return mean

    def fits(text: str) -> bool:
        return len(tokenizer(text, verbose=False).input_ids) <= _MAX_TOKENS

    def ids(asked: Sequence[str]) -> Tensor:
        found: Tensor = tokenizer(
            [gist(each, fits) for each in asked],
            padding=True,
            truncation=True,
            max_length=_MAX_TOKENS,
            return_tensors="pt",
        )["input_ids"]
        return found

    return Encoding(ids, Encoder, 5e-5 if pretrained else 1e-3)


@one_thread()
def bert(
    matrix: Matrix, *, seed: int, pretrained: str | None = None, steps: int = 200
) -> ScoredChooser:
    """Train the encoder and a linear head on the matrix.

    Raises: ConfigError if `pretrained` cannot be loaded.
    """
    from torch import nn

    text = encoding(matrix.questions, pretrained)

    def build() -> nn.Module:
        encoder = text.build()
        return nn.Sequential(encoder, nn.Linear(encoder.size, len(matrix.candidates)))

    network = fit_scores(
        build, text.ids(matrix.questions), matrix.quality, seed=seed, steps=steps,
        learning_rate=text.learning_rate, batch=32,
    )  # fmt: skip
    return ScoredChooser(matrix, lambda query: scores(network, text.ids([query]))[0])


def _train_tokenizer(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # Byte pairs, not word pieces: the trainer of those numbers its pieces differently from run to run.
    core = Tokenizer(models.BPE(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["[PAD]", "[UNK]"], show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]")


def _small(vocabulary: int) -> Any:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=vocabulary, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=_MAX_TOKENS, pad_token_id=0,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False)


def _load_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"baselines.encoder: {name!r} cannot be loaded ({error})") from None


def _load(name: str) -> Any:
    from transformers import AutoModel

    try:
        return AutoModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"baselines.encoder: {name!r} cannot be loaded ({error})") from None
