#!/usr/bin/env python3
"""`oncue-learn` against river on the same streams: prequential log-loss (each example is estimated first, then learned
from), the base rate beside both.

    cargo build --release --package oncue-learn --examples
    python3 benches/learn/compare.py target/release/examples [ORDERS.ndjson]

Streams are SEA and Agrawal's functions 1, 7, 8 and 9, drawn by the example `stream`; and, if a file of CloudEvents of orders
is given, one line each, whether an order is canceled, unavailable or late (shipped more than a week after it was paid, or not
at all), estimated from what `order.created` and `order.paid` say. Installs river in an environment of its own,
target/learn-rivals. Exit code 1 if ours loses more than 1 % against the best of river's on any stream.

Of river there are, each with StandardScaler for numbers and one-hot categories: LogisticRegression with FTRLProximal and the
same α, β, λ as ours; the same with river's own defaults; and with its default optimizer, SGD(0.01).
"""

import argparse, json, os, subprocess, sys, time, venv
from datetime import datetime
from pathlib import Path

ENVIRONMENT = Path("target/learn-rivals")
LIBRARIES = ["river==0.26.1"]
LATE_S = 7 * 24 * 3600


def in_environment():
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *LIBRARIES], check=True)
    if Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        os.execv(python, [str(python), *sys.argv])


def orders(path):
    """(label, features) of each order that was paid, in the order of payment. The label is what became of it in the end: it
    is told at once, to both sides alike."""
    by_order, paid = {}, []
    for line in open(path):
        event = json.loads(line)
        at = datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
        known = by_order.setdefault(event["subject"], {})
        known.setdefault(event["type"], (at, event["data"]))
        if event["type"] == "order.paid" and "order.created" in known:
            paid.append(event["subject"])
    for order in dict.fromkeys(paid):
        known = by_order[order]
        (created, made), (at, payment) = known["order.created"], known["order.paid"]
        shipped = known.get("order.shipped")
        late = shipped is None or (shipped[0] - at).total_seconds() > LATE_S
        methods = [one["method"] for one in payment["payments"]]
        numbers = {
            "total": made["total_cents"] / 100,
            "waited_h": (at - created).total_seconds() / 3600,
            "payments": len(methods),
            "installments": max([one["installments"] for one in payment["payments"]] or [0]),
            "paid": sum(one["cents"] for one in payment["payments"]) / 100,
            "hour": at.hour,
        }
        categories = {"method": "+".join(sorted(set(methods))) or "none", "weekday": str(at.weekday()), "month": str(at.month)}
        yield int(late or "order.canceled" in known or "order.unavailable" in known), numbers, categories


def tsv(examples):
    lines = []
    for label, numbers, categories in examples:
        parts = [str(label)] + [f"{name}={value!r}" for name, value in numbers.items()]
        lines.append("\t".join(parts + [f"{name}:{value}" for name, value in categories.items()]))
    return "\n".join(lines) + "\n"


def parsed(text):
    for line in text.splitlines():
        label, *parts = line.split("\t")
        numbers = dict(part.split("=") for part in parts if "=" in part)
        categories = {f"{name}={value}" for name, value in (part.split(":") for part in parts if "=" not in part)}
        yield label == "1", {name: float(value) for name, value in numbers.items()}, categories


def river_side(examples, optimizer):
    from river import linear_model, metrics, preprocessing
    scaler, model, loss = preprocessing.StandardScaler(), linear_model.LogisticRegression(optimizer), metrics.LogLoss()
    began = time.perf_counter()
    for label, numbers, categories in examples:
        ones = dict.fromkeys(categories, 1.0)
        loss.update(label, model.predict_proba_one({**scaler.transform_one(numbers), **ones}))
        scaler.learn_one(numbers)
        model.learn_one({**scaler.transform_one(numbers), **ones}, label)
    return loss.get(), time.perf_counter() - began


def main():
    in_environment()
    from river import optim
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("examples", type=Path, help="the folder of the built examples of oncue-learn")
    arguments.add_argument("orders", type=Path, nargs="?", help="CloudEvents of orders, one JSON object a line")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--count", type=int, default=20_000, help="examples of each synthetic stream")
    given = arguments.parse_args()
    rivals = {
        "FTRL, same settings": lambda: optim.FTRLProximal(alpha=0.1, beta=1.0, l1=0.0, l2=1.0),
        "FTRL, its defaults": lambda: optim.FTRLProximal(),
        "SGD 0.01": lambda: optim.SGD(0.01),
    }
    streams = {}
    for name in ["sea", "agrawal1", "agrawal7", "agrawal8", "agrawal9"]:
        command = [given.examples / "stream", name, str(given.seed), str(given.count)]
        streams[name] = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if given.orders:
        streams["orders"] = tsv(orders(given.orders))
    print("| stream | examples | positive | base rate | ours | " + " | ".join(rivals) + " | ours / best | calibration error | says |")
    print("|---|---|---|---|---|" + "---|" * len(rivals) + "---|---|---|")
    worst = 0.0
    for name, text in streams.items():
        began = time.perf_counter()
        told = subprocess.run([given.examples / "prequential"], check=True, capture_output=True, input=text, text=True)
        seconds, mine = time.perf_counter() - began, json.loads(told.stdout)
        examples = list(parsed(text))
        losses = {rival: river_side(examples, make()) for rival, make in rivals.items()}
        ratio = mine["log_loss"] / min(loss for loss, _ in losses.values())
        worst = max(worst, ratio)
        print(f"| {name} | {mine['examples']} | {mine['positives'] / mine['examples']:.1%} | {mine['base_log_loss']:.4f} "
              f"| {mine['log_loss']:.4f} | " + " | ".join(f"{loss:.4f}" for loss, _ in losses.values())
              + f" | {ratio:.3f} | {mine['calibration_error']:.3f} | {mine['verdict']} |", flush=True)
        print(f"{name}: ours {seconds:.2f} s with reading, river "
              + ", ".join(f"{seconds:.2f} s" for _, seconds in losses.values()), file=sys.stderr)
    sys.exit(1 if worst > 1.01 else 0)


main()
