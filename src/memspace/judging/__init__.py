"""Measures of generalisation judged over a table of networks: do they tell the gap, beyond what anyone knows anyway?

The table is a polars frame with one row a network: columns of hyper-parameters (*knobs*), of outcomes
(``train_loss``, ``test_loss``, ``train_accuracy``, ``test_accuracy``) and one a measure, null where it is absent. A
:class:`~memspace.judging.design.Design` says which columns are knobs. Every statistic is one function of
``(table, measure, design)`` in a file of its own, and returns :class:`~memspace.value.Absent` with the reason where the
table cannot carry it:

- :func:`~memspace.judging.kendall.kendall`: rank correlation with the gap, and of two measures by difference;
- :func:`~memspace.judging.granulated.granulated`: the same where a single knob varies.
"""
