"""The subcommands of ``mlflow-middleware``; ``cli`` declares their arguments and imports each when it runs."""
