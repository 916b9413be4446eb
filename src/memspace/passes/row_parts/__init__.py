"""One block's part of many Jacobian rows: a file for every form it is stored in."""
