"""Versions in the MLflow registry, the gate, and the moves of the champion."""
