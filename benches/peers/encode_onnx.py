"""ONNX Runtime's side of the encoder benchmark, and the driver that sets both sides against each other.

    encode_onnx.py export  FOLDER OUT.onnx               stock BertModel -> ONNX -> fused for BERT (attention, GELU, layer-norm)
    encode_onnx.py run     FOLDER GRAPH.onnx SENTENCES VECTORS.f32 [--batch 32] [--threads 2]
    encode_onnx.py compare FOLDER SENTENCES BINARY [--rounds 5] [--threads 2] [--batch 32]

BINARY is our bench executable (`cargo bench --bench encode --no-run` prints its path); `benches/encode.sh` does it all.

The peer's best reasonable setting: fp32 graph after onnxruntime's own BERT optimiser, all graph optimisations, default
spinning, length-sorted batches, tokens made beforehand; only `session.run` is timed, pooling and normalisation are not.
Ours is timed whole: tokenising, forward, pooling, normalisation. Not tuned: CPU affinity, allocator, ORT's quantised graphs
(another encoder).

Each round runs each side once in a process of its own, in reversed order on odd rounds. A row shows the share of the
machine that other processes used; above .12 it is marked and the medians leave it out.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

MAX_TOKENS = 256
CONTENDED = 0.12


def export(args):
    import onnx
    import torch
    import transformers
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    model = transformers.BertModel.from_pretrained(args.folder, attn_implementation="eager", add_pooling_layer=False)
    model.eval()

    class Forward(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state

    ids = torch.ones(2, 7, dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "tokens"} for name in [*names, "states"]}
    with tempfile.TemporaryDirectory() as folder:
        plain = os.path.join(folder, "plain.onnx")
        torch.onnx.export(
            Forward(), (ids, ids, torch.zeros_like(ids)), plain, input_names=names, output_names=["states"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )
        fused = optimizer.optimize_model(
            plain, model_type="bert", num_heads=model.config.num_attention_heads, hidden_size=model.config.hidden_size,
            optimization_options=FusionOptions("bert"), opt_level=1, use_gpu=False,
        )
        counts = fused.get_fused_operator_statistics()
        fused.save_model_to_file(args.graph)
    onnx.checker.check_model(args.graph)
    kept = {name: n for name, n in counts.items() if n}
    print(json.dumps({"fused": kept}), file=sys.stderr)
    if not kept.get("Attention") and not kept.get("MultiHeadAttention"):
        sys.exit("attention was not fused: this would not be the peer's best setting")


def tokens(folder, sentences):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return [e.ids for e in tokenizer.encode_batch(sentences)]


def run(args):
    import onnxruntime

    sentences = pathlib.Path(args.sentences).read_text(encoding="utf-8").splitlines()
    ids = tokens(args.folder, sentences)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    batches = []
    for start in range(0, len(order), args.batch):
        chosen = order[start : start + args.batch]
        width = max(len(ids[i]) for i in chosen)
        table, mask = np.zeros((2, len(chosen), width), dtype=np.int64)
        for row, i in enumerate(chosen):
            table[row, : len(ids[i])] = ids[i]
            mask[row, : len(ids[i])] = 1
        batches.append((chosen, {"input_ids": table, "attention_mask": mask, "token_type_ids": np.zeros_like(table)}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(args.graph, options, providers=["CPUExecutionProvider"])
    for _, feed in batches[:: max(1, len(batches) // 6)]:
        session.run(None, feed)

    seconds = 0.0
    vectors = np.zeros((len(ids), session.get_outputs()[0].shape[-1]), dtype=np.float32)
    for chosen, feed in batches:
        start = time.perf_counter()
        (states,) = session.run(None, feed)
        seconds += time.perf_counter() - start
        mask = feed["attention_mask"][..., None].astype(np.float32)
        pooled = (states * mask).sum(1) / mask.sum(1)
        vectors[chosen] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    vectors.tofile(args.vectors)
    count = sum(map(len, ids))
    print(json.dumps({"texts": len(ids), "tokens": count, "texts_per_s": len(ids) / seconds}))


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
        graph, ours, theirs = (os.path.join(folder, name) for name in ("fused.onnx", "ours.f32", "theirs.f32"))
        subprocess.run([sys.executable, __file__, "export", args.folder, graph], check=True, stdout=sys.stderr)
        sides = {
            "stitchback": [args.binary, args.folder, args.sentences, ours],
            "onnxruntime": [sys.executable, __file__, "run", args.folder, graph, args.sentences, theirs,
                            "--batch", str(args.batch), "--threads", str(args.threads)],
        }
        kept, ratios = {name: [] for name in sides}, []
        print("round  side         texts/s  others  calls of 48, 1 thread")
        for number in range(args.rounds):
            rates, quiet = {}, True
            for name in list(sides)[:: -1 if number % 2 else 1]:
                row = measured(sides[name], args.threads)
                rates[name] = row["texts_per_s"]
                quiet &= row["others"] <= CONTENDED
                calls = row.get("texts_per_s_in_calls_of_48_on_one_thread")
                print(f"{number:5}  {name:11} {row['texts_per_s']:8.1f}  {row['others']:6.2f}  "
                      f"{f'{calls:8.1f}' if calls else ''}{'' if row['others'] <= CONTENDED else '  contended'}", flush=True)
            if quiet:
                ratios.append(rates["stitchback"] / rates["onnxruntime"])
                for name, rate in rates.items():
                    kept[name].append(rate)
        a, b = (np.fromfile(path, dtype=np.float32) for path in (ours, theirs))
        sentences = pathlib.Path(args.sentences).read_text(encoding="utf-8").splitlines()
        lengths = [len(i) for i in tokens(args.folder, sentences)]
    a, b = a.reshape(len(sentences), -1), b.reshape(len(sentences), -1)
    print(f"texts {len(sentences)}, mean tokens {statistics.mean(lengths):.1f}, "
          f"max abs difference {np.abs(a - b).max():.2e}, min cosine {(a * b).sum(1).min():.8f}")
    if 3 * len(ratios) < 2 * args.rounds:
        sys.exit(f"only {len(ratios)} of {args.rounds} rounds were quiet: no result; repeat on an idle machine")
    for name, rates in kept.items():
        print(f"{name:11} median {statistics.median(rates):.1f} texts/s [{min(rates):.1f}-{max(rates):.1f}]")
    print(f"ratio stitchback / onnxruntime: median {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] "
          f"over {len(ratios)} quiet rounds of {args.rounds}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for job, names in [(export, ["folder", "graph"]), (run, ["folder", "graph", "sentences", "vectors"]),
                       (compare, ["folder", "sentences", "binary"])]:
        command = commands.add_parser(job.__name__)
        command.set_defaults(job=job)
        for name in names:
            command.add_argument(name)
        command.add_argument("--batch", type=int, default=32)
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    args.job(args)


if __name__ == "__main__":
    main()
