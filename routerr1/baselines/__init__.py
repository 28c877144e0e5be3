"""Routers to compare the policy with; each returns a Trajectory."""
