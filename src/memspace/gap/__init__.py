"""The gap to expect of a network, told by its measures and calibrated on a zoo of networks.

:func:`~memspace.gap.fit.fit_gap` makes a :class:`~memspace.gap.model.GapModel` from a table of networks,
:meth:`~memspace.gap.model.GapModel.predict` gives gap and test loss with an interval that is calibrated on groups of
networks left out as a whole, and says where a network lies outside of what was calibrated.
:func:`~memspace.gap.coverage.coverage` leaves groups out of all of it and counts. Everything here works on numbers;
:mod:`memspace.zoo.gap` measures them.
"""
