#!/usr/bin/env python3
"""`oncue policy solve` against pymdptoolbox and quantecon, on random sparse models: the same values within 1e-9, the same
policy where it is unique.

    cargo build --release --package oncue-server
    python3 benches/mdp/compare.py target/release/oncue --models 40

Installs both libraries in an environment of its own, target/mdp-rivals. Exit code 1 if anything differs. Times are of
solving alone, as each side measures it itself, and of the best of three runs, after quantecon's compiler has warmed up.
"""

import argparse, json, subprocess, sys, tempfile

from rivals import in_environment, quantecon_process, timed, toolbox_matrices


def random_model(numpy, seed, states, actions, branches, discount):
    """next states and probabilities [state, action, branch], rewards [state, action]"""
    random = numpy.random.default_rng(seed)
    following = random.integers(0, states, (states, actions, branches))
    weights = random.random((states, actions, branches)) + 0.01
    probabilities = weights / weights.sum(axis=2, keepdims=True)
    return following, probabilities, random.random((states, actions)), discount


def ours(binary, model, method):
    following, probabilities, rewards, discount = model
    states, actions, branches = following.shape
    transitions = [
        [s, a, int(following[s, a, b]), float(probabilities[s, a, b]), float(rewards[s, a])]
        for s in range(states) for a in range(actions) for b in range(branches)
    ]
    text = json.dumps({"discount": discount, "states": states, "actions": actions, "transitions": transitions})
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        command = [binary, "policy", "solve", file.name, "--json", "--runs", "1", "--method", method]
        told = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
    return told[0]["values"], [int(action) for action in told[0]["policy"]], min(one["seconds"] for one in told)


def best_of_three(run):
    times, found = zip(*(timed(run) for _ in range(3)))
    return found[-1], min(times)


def quantecon_side(numpy, model, method):
    process = quantecon_process(numpy, model)
    found, seconds = best_of_three(lambda: process.solve(method=method, epsilon=1e-10, max_iter=1_000_000))
    return found.v, found.sigma, seconds


def toolbox_side(numpy, model):
    from mdptoolbox.mdp import PolicyIteration
    *_, rewards, discount = model
    # It cannot keep them sparse in policy iteration.
    matrices = [matrix.toarray() for matrix in toolbox_matrices(numpy, model)]

    def run():
        process = PolicyIteration(matrices, rewards, discount, max_iter=1_000)
        process.run()
        return process

    found, seconds = best_of_three(run)
    return numpy.array(found.V), numpy.array(found.policy), seconds


def main():
    in_environment()
    import numpy
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("binary", help="the binary `oncue`, built with --release")
    arguments.add_argument("--models", type=int, default=20)
    arguments.add_argument("--states", type=int, default=0, help="of each model; 0: from 2 to 400")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    wrong, largest, ratios = 0, 0.0, {}
    for seed in range(given.seed, given.seed + given.models):
        random = numpy.random.default_rng(seed + 1_000_000)
        states = given.states or int(random.integers(2, 401))
        model = random_model(numpy, seed, states, int(random.integers(2, 6)), int(random.integers(1, 8)),
                             float(random.choice([0.5, 0.9, 0.95, 0.99])))
        following, probabilities, rewards, discount = model
        methods = ["value_iteration", "modified_policy_iteration", "policy_iteration"]
        sides = {f"quantecon {method}": quantecon_side(numpy, model, method) for method in methods}
        if states <= 2_000:
            sides["pymdptoolbox policy_iteration"] = toolbox_side(numpy, model)
        mine = {method: ours(given.binary, model, method.replace("_", "-")) for method in methods}
        for name, (values, policy, seconds) in sides.items():
            method = name.split()[1]
            own_values, own_policy, own_seconds = mine[method]
            off = float(numpy.max(numpy.abs(numpy.asarray(own_values) - values)))
            q = rewards + discount * (probabilities * numpy.asarray(own_values)[following]).sum(axis=2)
            best = numpy.sort(q, axis=1)
            unique = best[:, -1] - best[:, -2] > 1e-8
            differ = int(((numpy.asarray(own_policy) != policy) & unique).sum())
            if off > 1e-9 or differ:
                wrong += 1
                print(f"seed {seed}, {states} states, {name}: values differ by {off:.1e}, policy in {differ} states")
            largest = max(largest, off)
            ratios.setdefault(name, []).append(seconds / own_seconds)
    print(f"{given.models} models from seed {given.seed}: {wrong} differ; values by {largest:.1e} at most")
    for name, all_ratios in ratios.items():
        print(f"  {name}: ours is {numpy.median(all_ratios):.1f} times as fast (median; least {min(all_ratios):.1f})")
    sys.exit(1 if wrong else 0)


main()
