"""Measures of generalisation judged over a table of networks: do they tell the gap, beyond what anyone knows anyway?

The table is a polars frame with one row a network: columns of hyper-parameters (*knobs*), of outcomes
(``train_loss``, ``test_loss``, ``train_accuracy``, ``test_accuracy``) and one a measure, null where it is absent. A
:class:`~memspace.judging.design.JudgingDesign` says which columns are knobs. Every statistic is one function of
``(table, measure, design)`` in a file of its own, and returns :class:`~memspace.value.Absent` with the reason where the
table cannot carry it:

- :func:`~memspace.judging.kendall.kendall`: rank correlation with the gap, and of two measures by difference;
- :func:`~memspace.judging.granulated.granulated`: the same where a single knob varies;
- :func:`~memspace.judging.information.information`: what its sign tells given any two knobs;
- :func:`~memspace.judging.environments.sign_error`: how often it is wrong in the worst environment;
- :func:`~memspace.judging.prediction.predict_out_of_sample`: error of the predicted gap on a group left out;
- :func:`~memspace.judging.partial.partial`: rank correlation given other columns;
- :func:`~memspace.judging.fragility.fragility`: how far it moves when the recipe hardly does;
- :func:`~memspace.judging.judgement.judge`: all of it for many measures, corrected for their number.
"""
