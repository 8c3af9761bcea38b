"""Apps without a line of ours, as `mlflow-middleware run` finds them."""
