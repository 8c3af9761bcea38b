"""Let the server score new traces by itself as they arrive.

::

    python -m evaluation.register gateway:/judge        # in examples/; on Databricks: databricks

The judge's model is an endpoint of the server's AI Gateway, here with the name ``judge``.
"""

import sys

from mlflow.exceptions import MlflowException
from mlflow.genai.judges import make_judge
from mlflow.genai.scorers import Scorer, ScorerSamplingConfig

from .score import judge, seconds


def start(scorer: Scorer) -> None:
    """Register a scorer and start it for all traces without an error."""
    try:
        registered = scorer.register()
        print(f"{scorer.name}: registered")
        every = ScorerSamplingConfig(sample_rate=1.0, filter_string="attributes.status = 'OK'")
        registered.start(sampling_config=every)
        print(f"{scorer.name}: started")
    except MlflowException as refused:
        print(f"{scorer.name}: refused: {str(refused.message).splitlines()[0]}")


if __name__ == "__main__":
    start(make_judge(judge.name, judge.instructions, model=sys.argv[1], feedback_value_type=bool))
    start(seconds)
