"""Golden values for src/protect/account.rs: the analytic Gaussian mechanism on a grid, by dp-accounting.

    python3 -m venv venv && venv/bin/pip install dp-accounting==0.6.0
    venv/bin/python tests/golden/account.py > tests/golden/account.json

delta(epsilon, sigma) is dp-accounting's own closed form. Its calibration stops at a tolerance of its own, so that sigma at
(epsilon, delta) and epsilon at (sigma, delta) are the roots of that closed form to the last bits. Points where its delta
(a difference of two probabilities, not of their logarithms) has lost the digits are left out and counted.
"""

import importlib.metadata
import json
import math

import mpmath
from dp_accounting.pld import privacy_loss_mechanism as plm
from scipy.optimize import brentq

mpmath.mp.dps = 40


def delta(epsilon, sigma):
    return plm.GaussianPrivacyLoss(sigma, pessimistic_estimate=True).get_delta_for_epsilon(epsilon)


def exact(epsilon, sigma):
    mu = 1 / mpmath.mpf(sigma)
    tail = lambda x: mpmath.erfc(-x / mpmath.sqrt(2)) / 2
    return tail(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * tail(-mu / 2 - epsilon / mu)


rows, left_out = [], 0
for log_epsilon in range(-5, 6):
    for factor in [1, 2.5]:
        epsilon = factor * 10.0**log_epsilon
        if epsilon > 1e5:
            continue
        for target in [1e-10, 1e-7, 1e-5, 1e-3, 1e-1]:
            try:
                guess = lambda log_s: math.log(max(delta(epsilon, math.exp(log_s)), 1e-300)) - math.log(target)
                sigma = math.exp(brentq(guess, math.log(1e-6), math.log(1e9), xtol=1e-15, rtol=1e-15, maxiter=500))
                found = delta(epsilon, sigma)
                off = abs(float(exact(epsilon, sigma)) / target - 1)
            except (ValueError, OverflowError):
                left_out += 1
                continue
            if off > 1e-11:
                left_out += 1
                continue
            rows.append({"epsilon": epsilon, "delta": target, "sigma": sigma, "delta_at_sigma": found})

head = {"dp_accounting": importlib.metadata.version("dp-accounting"), "left_out": left_out}
lines = ",\n".join(json.dumps(row) for row in rows)
print(f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}')
