"""Which figures and tables belong to which kind of run: one of a model, or one of a table of rows."""

import functools
from collections.abc import Callable

from icd_lib.report.table import DoesNotApply


def models_only(title: str, reason: str) -> Callable:
    """Decorate what only a run of a model has: on a table of rows it says in one line why it is not there."""

    def decorate(show: Callable) -> Callable:
        @functools.wraps(show)
        def shown(results, *given, **named):
            return DoesNotApply(title, reason) if results.is_table else show(results, *given, **named)

        return shown

    return decorate


def tables_only(title: str, reason: str) -> Callable:
    """Decorate what only a run on a table of rows has: on a model it says in one line why it is not there."""

    def decorate(show: Callable) -> Callable:
        @functools.wraps(show)
        def shown(results, *given, **named):
            return show(results, *given, **named) if results.is_table else DoesNotApply(title, reason)

        return shown

    return decorate


def for_tables(instead: Callable) -> Callable:
    """Decorate a function of models that has a counterpart for tables of rows, `instead`."""

    def decorate(show: Callable) -> Callable:
        @functools.wraps(show)
        def shown(results, *given, **named):
            return (instead if results.is_table else show)(results, *given, **named)

        return shown

    return decorate
