"""Golden values for src/measure/statistics.rs: BCa of a skewed mean, binomial bounds, edges of the coverage test.

    python3 -m venv venv && venv/bin/pip install numpy scipy
    venv/bin/python tests/golden/bca.py
"""

import numpy
import scipy.stats

x = numpy.exp(numpy.arange(40) / 8) / 100
result = scipy.stats.bootstrap(
    (x,), numpy.mean, n_resamples=200_000, batch=10_000, method="BCa", rng=numpy.random.default_rng(1)
)
print("scipy", scipy.__version__, result.confidence_interval, numpy.quantile(result.bootstrap_distribution, [0.025, 0.975]))
for true, edge in [(0.92, 532), (0.95, 586)]:
    print(true, edge, scipy.stats.binom.cdf(edge - 1, 600, true), scipy.stats.binom.sf(edge, 600, true))
for hits, trials in [(16, 100), (20, 100), (200, 1000)]:
    print(f"one-sided lower {hits}/{trials}: {scipy.stats.beta.ppf(0.05, hits, trials - hits + 1):.12f}")
low, high = scipy.stats.beta.ppf(0.025, 16, 85), scipy.stats.beta.ppf(0.975, 17, 84)
print("16/100", low, high)
