"""Claims as experiments: registered before the run, judged from a store of networks, checked by a control.

A claim is a TOML file (``registered/``). A *registration* says what is asked of which networks by which statistic, and
from which number on the answer is yes or no. Its hash is locked before any network is trained. A *run* computes the
statistic and turns its interval into a verdict: supported, contradicted or undecided.
"""
