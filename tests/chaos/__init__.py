"""`tox run -e chaos`: the losses of our delivery and of MLflow's own exporter under failures, side by side."""
