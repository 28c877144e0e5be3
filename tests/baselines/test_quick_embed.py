"""MiniLM by NumPy; tests/baselines/test_learned.py compares its vectors with sentence-transformers'."""

import subprocess
import sys


def test_a_question_is_embedded_without_torch():
    code = (
        "import sys; from routerr1.baselines.quick_embed import QuickMiniLM; "
        "from routerr1.baselines.likeness import KnownQuestions; "
        "KnownQuestions({'a b': 'x', 'c d': 'y'}, QuickMiniLM()).compare('a'); "
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
