"""The peer of benches/protect.rs: noise on 100 000 x 384 vectors in NumPy, one round of each in turn.

Two peers: `fill`, normal numbers alone (float32, NumPy's fastest generator), and `same`, what the pipeline does: clip rows to
norm 1 and add float64 normal numbers. Medians over the rounds; run by benches/protect.sh.
"""

import argparse
import platform
import statistics
import subprocess
import time

import numpy

parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("--rounds", type=int, default=5)
arguments = parser.parse_args()

n, d = 100_000, 384
clean = (numpy.sin(numpy.arange(n * d, dtype=numpy.float32) * numpy.float32(0.37)) * numpy.float32(0.05)).reshape(n, d)
generator = numpy.random.default_rng(1)


def fill():
    return generator.standard_normal((n, d), dtype=numpy.float32)


def same():
    norms = numpy.linalg.norm(clean, axis=1, keepdims=True)
    return (clean * numpy.minimum(1, 1 / norms) + 1.2 * generator.standard_normal((n, d))).astype(numpy.float32)


def seconds(work):
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock


rounds = {"ours": [], "numpy fill": [], "numpy same": []}
for _ in range(arguments.rounds):
    out = subprocess.run([arguments.binary, "1"], capture_output=True, text=True, check=True).stdout
    rounds["ours"].append(float(out.split()[0]))
    rounds["numpy fill"].append(seconds(fill))
    rounds["numpy same"].append(seconds(same))
print(f"numpy {numpy.__version__}, python {platform.python_version()}, {platform.machine()}, {arguments.rounds} rounds")
base = statistics.median(rounds["numpy fill"])
for name, times in rounds.items():
    middle = statistics.median(times)
    print(f"{name:<12} median {middle:.3f} s, least {min(times):.3f} s, {middle / base:.2f} x the fill")
