"""`tox run -e chaos`: what our delivery and MLflow's own exporter lose on bad days, side by side."""
