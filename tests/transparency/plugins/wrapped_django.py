"""Settings for Django's ``runtests.py``: its own for SQLite, and a runner that wraps the handlers."""

from __future__ import annotations

from typing import Any
from unittest import TestSuite, TextTestResult

import wrapping  # type: ignore[import-not-found]
from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases  # type: ignore[attr-defined]
from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403

TEST_RUNNER = "wrapped_django.Runner"


class Runner(DiscoverRunner):
    """Wraps before it runs the tests, and writes their outcomes."""

    def run_suite(self, suite: TestSuite, **kwargs: Any) -> TextTestResult[Any]:
        """Run the tests."""
        wrapping.wrap()
        outcomes = {test.id(): "passed" for test in iter_test_cases(suite)}
        result: TextTestResult[Any] = super().run_suite(suite, **kwargs)
        for outcome, tests in (
            ("skipped", result.skipped),
            ("expected to fail", result.expectedFailures),
            ("failed", [*result.failures, *result.errors]),
        ):
            outcomes.update({getattr(test, "test_case", test).id(): outcome for test, _ in tests})
        wrapping.write(outcomes)
        return result
