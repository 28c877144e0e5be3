"""Simulated candidates, the server that speaks for them, and their ground truth."""
