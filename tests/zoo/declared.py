"""A zoo of four pieces that train in a second or two."""

TINY = """
name = "tiny"
[every]
family = "mlp"
data = "digits"
dropout = 0.0
decay = 0.0
label_noise = 0.0
optimiser = "adam"
batch = 32
rate = 2.0
depth = 1
size = 200
target = 0.1
most = 600
[[star]]
name = "a"
seeds = [0, 1]
centre = { width = 12 }
[star.vary]
width = [8, 16]
rate = [1.0, 3.0]
size = [150]
"""
SLOW = TINY.replace("target = 0.1", "target = 1e-7").replace("most = 600", "most = 10000000")
