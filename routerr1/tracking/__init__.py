"""MLflow runs and traces."""
