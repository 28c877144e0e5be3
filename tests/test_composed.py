"""How the services of compose.yaml are given other addresses for a test."""

from tests.composed import replaced


def test_a_database_on_a_port_that_begins_like_a_server_keeps_it() -> None:
    changes = {"postgres/mlflow": "127.0.0.1:42003/mlflow", "127.0.0.1:4200": "127.0.0.1:49531"}
    text = "database: postgres/mlflow, page: 127.0.0.1:4200"
    assert replaced(text, changes) == "database: 127.0.0.1:42003/mlflow, page: 127.0.0.1:49531"
