"""Warm start and reinforcement learning of the policy."""
