"""Golden values for src/measure/image: scikit-image and NumPy on two test patterns.

    python3 -m venv venv && venv/bin/pip install scikit-image==0.26.0 numpy==2.4.6
    venv/bin/python tests/golden/image_metrics.py > tests/golden/image_metrics.json

Patterns are float64 of shape (3, 32, 32): channel, row, column. Six vectors of ten features and their reconstructions give
the identification scores; a reconstruction is ranked among the originals, and once the other way round.
"""

import importlib.metadata
import json
import math
import platform

import numpy as np
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

c, y, x = np.meshgrid(np.arange(3.0), np.arange(32.0), np.arange(32.0), indexing="ij")
A = 0.5 + 0.5 * np.sin(0.3 * x + 0.2 * y + c)
B = np.clip(A + 0.1 * np.cos(0.5 * x - 0.4 * y + 2 * c), 0, 1)
FLAT = np.full_like(A, 0.5)


def ssim(a, b, **more):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} | more
    return structural_similarity(a, b, data_range=1.0, **options)


def pearson(a, b):
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def grey(image):
    return 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def two_way(similarity):
    """Rows are reconstructions, columns originals; ties count one half."""
    n = len(similarity)
    others = [
        sum(1.0 if s < row[i] else 0.5 if s == row[i] else 0.0 for j, s in enumerate(row) if j != i) / (n - 1)
        for i, row in enumerate(similarity)
    ]
    return sum(others) / n


i, k = np.meshgrid(np.arange(6.0), np.arange(10.0), indexing="ij")
ORIGINALS = np.sin(1.7 * i + 0.9 * k + 0.35 * i * k)
GUESSES = ORIGINALS + 1.2 * np.cos(2.3 * i + 1.1 * k + 0.5 * k**2)
SIMILARITY = np.array([[pearson(guess, original) for original in ORIGINALS] for guess in GUESSES])
RANKS = [int(sum(s >= row[n] for s in row)) for n, row in enumerate(SIMILARITY)]


def chance_bits(n):
    return math.log2(n) - sum(math.log2(rank) for rank in range(1, n + 1)) / n


_, with_border = structural_similarity(
    A[0], B[0], data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
)
golden = {
    "versions": {name: importlib.metadata.version(name) for name in ["scikit-image", "numpy"]}
    | {"python": platform.python_version()},
    "mse": float(mean_squared_error(A, B)),
    "psnr": float(peak_signal_noise_ratio(A, B, data_range=1.0)),
    "ssim": float(ssim(A, B, channel_axis=0)),
    "ssim_channel_0": float(ssim(A[0], B[0])),
    "ssim_channel_0_with_border": float(with_border.mean()),
    "ssim_7x7_population": float(ssim(A, B, channel_axis=0, gaussian_weights=False, win_size=7)),
    "pixel_correlation": pearson(A, B),
    "pixel_correlation_grey": pearson(grey(A), grey(B)),
    "flat_mse": float(mean_squared_error(A, FLAT)),
    "flat_psnr": float(peak_signal_noise_ratio(A, FLAT, data_range=1.0)),
    "flat_ssim": float(ssim(A, FLAT, channel_axis=0)),
    "total_variation": float((np.abs(np.diff(A, axis=2)).sum() + np.abs(np.diff(A, axis=1)).sum()) / A.size),
    "identification": {
        "ranks": RANKS,
        "two_way": two_way(SIMILARITY),
        "two_way_other_orientation": two_way(SIMILARITY.T),
        "top1": sum(rank == 1 for rank in RANKS) / 6,
        "mrr": sum(1 / rank for rank in RANKS) / 6,
        "mean_log2_rank": sum(math.log2(rank) for rank in RANKS) / 6,
        "chance_bits": {str(n): chance_bits(n) for n in [6, 100, 1000, 10000]},
    },
}
print(json.dumps(golden, indent=1))
