"""Batched generation for policies that transformers runs.

transformers' ContinuousBatchingManager (5.23) is not used: one seed serves all requests, stop strings
are ignored, and requests that arrive in another order get other tokens.
"""
