"""Prefect flows: when the stages run, and who approves; never what they depend on."""
