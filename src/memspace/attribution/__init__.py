"""Which training examples an outcome rests on: several engines behind one call."""
