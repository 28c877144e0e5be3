"""A folder that cannot be written is one line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from routerr1.cli.app import main, not_writable


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "Who?", "answer": "x"}\n')
    given = ["data", "import", str(tmp_path / "q.jsonl"), "--name", "own", "--question", "question"]
    # No account may make a folder there.
    given += ["--answers", "answer", "--no-meaning", "--out", "/sys/routerr1"]
    monkeypatch.setattr("sys.argv", ["routerr1", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("routerr1: /sys/routerr1: ")


def test_a_table_that_cannot_be_written_is_one_line_that_names_it() -> None:
    with pytest.raises(OSError, match="matrix") as caught:
        pq.write_table(pa.table({"a": [1]}), "/sys/matrix.parquet")
    told = not_writable(caught.value)
    assert told is not None
    assert "/sys/matrix.parquet" in told
    assert "\n" not in told
    assert not_writable(FileNotFoundError(2, "No such file", "x")) is None
