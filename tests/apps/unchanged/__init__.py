"""Apps without any code of ours, as `mlflow-middleware run` finds them."""
