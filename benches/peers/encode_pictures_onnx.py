"""ONNX Runtime's side of the picture encoder benchmark, and the driver that sets both sides against each other.

    encode_pictures_onnx.py export  FOLDER OUT.onnx       EfficientNet-Lite with folded batch-norm, built node by node
    encode_pictures_onnx.py run     FOLDER GRAPH.onnx VECTORS.f32 [--pictures 64] [--batch 8] [--threads 2]
    encode_pictures_onnx.py compare FOLDER BINARY [--rounds 5] [--threads 2] [--batch 8] [--pictures 64]

BINARY is our bench executable (`cargo bench --bench encode_pictures --no-run` prints its path);
`benches/encode_pictures.sh` does it all.

The peer's best reasonable setting: fp32, batch-norm folded, padding inside the convolutions, Clip right behind them (which
onnxruntime fuses), all graph optimisations, default spinning; pictures are normalised beforehand and only `session.run` is
timed. Ours is timed whole: from bytes to unit vectors. Not tuned: CPU affinity, allocator, quantised graphs (another encoder).

Each round runs each side once in a process of its own, in reversed order on odd rounds. A row shows the share of the
machine that other processes used; above .12 it is marked and the medians leave it out, unless --contended asks for them.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

CONTENDED = 0.12
STAGES = [(1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6)]


def read(folder):
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    data = (pathlib.Path(folder) / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    tensors = {
        name: np.frombuffer(body[entry["data_offsets"][0] : entry["data_offsets"][1]], "<f4").reshape(entry["shape"])
        for name, entry in table.items() if name != "__metadata__"
    }
    return config, tensors


def export(args):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    config, tensors = read(args.folder)
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    low, high = constant("low", np.float32(0)), constant("high", np.float32(6))

    def layer(x, side, convolution, norm, stride=1, bounded=True):
        weight = tensors[f"{convolution}.weight"].astype(np.float64)
        gamma, beta, mean, var = (tensors[f"{norm}.{p}"].astype(np.float64)
                                  for p in ("weight", "bias", "running_mean", "running_var"))
        scale = gamma / np.sqrt(var + 1e-3)
        k, group = weight.shape[2], weight.shape[0] if weight.shape[1] == 1 and weight.shape[2] > 1 else 1
        out = -(-side // stride)
        total = max((out - 1) * stride + k - side, 0)
        pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        y = f"{convolution}.y"
        inputs = [x, constant(f"{convolution}.w", weight * scale[:, None, None, None]),
                  constant(f"{convolution}.b", beta - mean * scale)]
        nodes.append(helper.make_node("Conv", inputs, [y], strides=[stride, stride], pads=pads, group=group,
                                      kernel_shape=[k, k]))
        if bounded:
            nodes.append(helper.make_node("Clip", [y, low, high], [f"{y}.6"]))
            y = f"{y}.6"
        return y, out

    side = config["image_size"]
    x, at = layer("image", side, "_conv_stem", "_bn0", 2)
    index = 0
    for stage, (repeats, _, stride, expansion) in enumerate(STAGES):
        scaled = repeats if stage in (0, len(STAGES) - 1) else math.ceil(repeats * config["depth_coefficient"])
        for repeat in range(scaled):
            name = f"_blocks.{index}."
            step = stride if repeat == 0 else 1
            y = x if expansion == 1 else layer(x, at, name + "_expand_conv", name + "_bn0")[0]
            y, out = layer(y, at, name + "_depthwise_conv", name + "_bn1", step)
            y, _ = layer(y, out, name + "_project_conv", name + "_bn2", bounded=False)
            if step == 1 and repeat > 0:
                nodes.append(helper.make_node("Add", [y, x], [name + "sum"]))
                y = name + "sum"
            x, at, index = y, out, index + 1
    x, _ = layer(x, at, "_conv_head", "_bn1")
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["mean"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, side, side])
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", 1280])
    graph = helper.make_graph(nodes, "efficientnet-lite", [image], [mean], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, args.graph)


def run(args):
    import onnxruntime

    config, _ = read(args.folder)
    side = config["image_size"]
    index = np.arange(side * side * 3, dtype=np.uint32) * np.uint32(2654435761)
    pictures = np.stack([(index >> np.uint32(7 + n % 16)).astype(np.uint8) for n in range(args.pictures)])
    images = (pictures.reshape(-1, side, side, 3).transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(args.graph, options, providers=["CPUExecutionProvider"])
    batches = [np.ascontiguousarray(images[at : at + args.batch]) for at in range(0, len(images), args.batch)]
    for batch in batches[:2]:
        session.run(None, {"image": batch})
    seconds, rows = 0.0, []
    for batch in batches:
        start = time.perf_counter()
        (mean,) = session.run(None, {"image": batch})
        seconds += time.perf_counter() - start
        rows.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    np.concatenate(rows).astype("<f4").tofile(args.vectors)
    print(json.dumps({"pictures": len(images), "pictures_per_s": len(images) / seconds}))


def cpu_ticks():
    """Busy ticks of the machine, and of our finished children."""
    user, nice, system, idle, iowait, irq, soft, steal = map(int, open("/proc/stat").readline().split()[1:9])
    own = os.times()
    return user + nice + system + irq + soft + steal, (own.children_user + own.children_system) * os.sysconf("SC_CLK_TCK")


def measured(command, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    (busy, own), start = cpu_ticks(), time.perf_counter()
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    (busy_after, own_after), wall = cpu_ticks(), time.perf_counter() - start
    total = wall * os.sysconf("SC_CLK_TCK") * os.cpu_count()
    result = json.loads(out.strip().splitlines()[-1])
    result["others"] = max(0.0, (busy_after - busy) - (own_after - own)) / total
    return result


def compare(args):
    import onnxruntime

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"# {' '.join(sys.argv)}")
    print(f"# commit {commit}, {cpu}, {args.threads} threads, batch {args.batch}, onnxruntime {onnxruntime.__version__}, "
          f"numpy {np.__version__}, python {platform.python_version()}, RUSTFLAGS={os.environ.get('RUSTFLAGS', '')!r}")
    with tempfile.TemporaryDirectory() as folder:
        graph, ours, theirs = (os.path.join(folder, name) for name in ("lite.onnx", "ours.f32", "theirs.f32"))
        subprocess.run([sys.executable, __file__, "export", args.folder, graph], check=True, stdout=sys.stderr)
        sides = {
            "stitchback": [args.binary, args.folder, str(args.pictures), ours],
            "onnxruntime": [sys.executable, __file__, "run", args.folder, graph, theirs, "--batch", str(args.batch),
                            "--threads", str(args.threads), "--pictures", str(args.pictures)],
        }
        kept, ratios = {name: [] for name in sides}, []
        print("round  side         pictures/s  others  gradients/s")
        for number in range(args.rounds):
            rates, quiet = {}, True
            for name in list(sides)[:: -1 if number % 2 else 1]:
                row = measured(sides[name], args.threads)
                rates[name] = row["pictures_per_s"]
                quiet &= row["others"] <= CONTENDED
                back = row.get("gradients_per_s")
                print(f"{number:5}  {name:11} {row['pictures_per_s']:11.1f}  {row['others']:6.2f}  "
                      f"{f'{back:8.1f}' if back else ''}{'' if row['others'] <= CONTENDED else '  contended'}", flush=True)
            if quiet or args.contended:
                ratios.append(rates["stitchback"] / rates["onnxruntime"])
                for name, rate in rates.items():
                    kept[name].append(rate)
        a, b = (np.fromfile(path, dtype="<f4").reshape(args.pictures, -1) for path in (ours, theirs))
    print(f"pictures {args.pictures}, max abs difference {np.abs(a - b).max():.2e}, min cosine {(a * b).sum(1).min():.8f}")
    if 3 * len(ratios) < 2 * args.rounds:
        sys.exit(f"only {len(ratios)} of {args.rounds} rounds were quiet: no result; repeat on an idle machine")
    for name, rates in kept.items():
        print(f"{name:11} median {statistics.median(rates):.1f} pictures/s [{min(rates):.1f}-{max(rates):.1f}]")
    print(f"ratio stitchback / onnxruntime: median {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] over "
          f"{len(ratios)} {'rounds, contended ones included,' if args.contended else 'quiet rounds'} of {args.rounds}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for job, names in [(export, ["folder", "graph"]), (run, ["folder", "graph", "vectors"]), (compare, ["folder", "binary"])]:
        command = commands.add_parser(job.__name__)
        command.set_defaults(job=job)
        for name in names:
            command.add_argument(name)
        command.add_argument("--batch", type=int, default=8)
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--rounds", type=int, default=5)
        command.add_argument("--pictures", type=int, default=64)
        command.add_argument("--contended", action="store_true")
    args = parser.parse_args()
    args.job(args)


if __name__ == "__main__":
    main()
