"""One block's part of many Jacobian rows: a file for each form it is kept in."""
