#!/usr/bin/env python3
"""pymdptoolbox and quantecon, in an environment of their own: target/mdp-rivals, where both are installed first.

As a program it is one side of `cargo xtask bench 9`: it reads a model from a file, chooses the fastest method that one of
the libraries has for it, and solves it as often as it is asked.
"""

import json, math, os, subprocess, sys, time, venv, warnings
from pathlib import Path

ENVIRONMENT = Path(__file__).resolve().parents[2] / "target/mdp-rivals"
LIBRARIES = ["numpy", "scipy", "pymdptoolbox==4.0b3", "quantecon==0.11.4"]
# A solve that takes longer than this is left out, in seconds.
PATIENCE = 20
# Policy iteration of quantecon solves equations by factors, which are not sparse any more: up to so many states.
MOST_FACTORED = 2_000


def in_environment():
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "complete").exists():
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *LIBRARIES], check=True, stdout=sys.stderr)
        (ENVIRONMENT / "complete").touch()
    if Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        os.execv(python, [str(python), *sys.argv])


def quantecon_process(numpy, model):
    """its model, with sparse state-action pairs"""
    import scipy.sparse as sparse
    from quantecon.markov import DiscreteDP
    following, probabilities, rewards, discount = model
    states, actions, branches = following.shape
    pairs = states * actions
    rows = numpy.repeat(numpy.arange(pairs), branches)
    matrix = sparse.csr_matrix((probabilities.ravel(), (rows, following.ravel())), shape=(pairs, states))
    numbers = numpy.repeat(numpy.arange(states), actions), numpy.tile(numpy.arange(actions), states)
    return DiscreteDP(rewards.ravel(), matrix, discount, *numbers)


def toolbox_matrices(numpy, model):
    """a sparse matrix for each action"""
    import scipy.sparse as sparse
    following, probabilities, _, _ = model
    states, actions, branches = following.shape
    rows = numpy.repeat(numpy.arange(states), branches)
    return [
        sparse.csr_matrix((probabilities[:, a].ravel(), (rows, following[:, a].ravel())), shape=(states, states))
        for a in range(actions)
    ]


def quantecon_methods(numpy, model):
    """each gives V within half of epsilon"""
    process = quantecon_process(numpy, model)
    process.solve(method="modified_policy_iteration", max_iter=1)  # its compiler

    def by(method, **more):
        return lambda: process.solve(method=method, epsilon=1e-6, max_iter=1_000_000, **more).v

    methods = {f"modified policy iteration, k = {k}": by("modified_policy_iteration", k=k) for k in (20, 5, 100, 400)}
    if process.num_states <= MOST_FACTORED:
        methods["policy iteration"] = by("policy_iteration")
    return methods


def toolbox_methods(numpy, model):
    """Value iteration alone: in its policy iterations the matrix of a policy is dense, and at 1,000 states they are eighty
    times slower. It stops where the policy is good; for values that are it takes as many sweeps as the discount says."""
    from mdptoolbox.mdp import ValueIteration
    warnings.simplefilter("ignore")
    *_, rewards, discount = model
    matrices = toolbox_matrices(numpy, model)
    # Its estimate of how many sweeps it will take looks at all pairs of states, and is not used here.
    ValueIteration._boundIter = lambda self, epsilon: None

    def sweeps(count):
        process = ValueIteration(matrices, rewards, discount, epsilon=1e-14, max_iter=count)

        def run():
            process.V, process.iter = numpy.zeros(len(rewards)), 0
            process.run()
            return numpy.array(process.V)

        return run

    needed = math.ceil(math.log(1e-6 * (1 - discount) / numpy.abs(rewards).max()) / math.log(discount))
    few = sweeps(10)
    took = min(timed(few)[0] for _ in range(2)) / 10 * needed
    if took > PATIENCE:
        raise OverflowError(f"{needed} sweeps would take about {took:.0f} s")
    return {f"value iteration, {needed} sweeps": sweeps(needed)}


def timed(run):
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found


def read(numpy, file):
    """next states and probabilities [state, action, branch], rewards [state, action], the discount"""
    data = Path(file).read_bytes()
    states, actions, branches = (int(size) for size in numpy.frombuffer(data, "<u8", 3))
    all_branches = states * actions * branches
    discount = float(numpy.frombuffer(data, "<f8", 1, 24)[0])
    rewards = numpy.frombuffer(data, "<f8", states * actions, 32).reshape(states, actions)
    at = 32 + 8 * rewards.size
    probabilities = numpy.frombuffer(data, "<f8", all_branches, at).reshape(states, actions, branches)
    following = numpy.frombuffer(data, "<u4", all_branches, at + 8 * all_branches).reshape(probabilities.shape)
    return following, probabilities, rewards, discount


def serve(library, model_file, values_file):
    """Answers each line, a number of seconds, with what a solve takes on average over about so long, and of processors."""
    import numpy

    def tell(**what):
        print(json.dumps(what), flush=True)

    try:
        model = read(numpy, model_file)
        methods = quantecon_methods(numpy, model) if library == "quantecon" else toolbox_methods(numpy, model)
        chosen = min(methods, key=lambda name: timed(methods[name])[0]) if len(methods) > 1 else next(iter(methods))
    except (OverflowError, MemoryError) as error:
        return tell(method="", left_out=str(error) or "too little memory")
    tell(method=chosen, left_out=None)
    for line in sys.stdin:
        times, cpu = [], time.process_time()
        while sum(times) < float(line) or not times:
            seconds, values = timed(methods[chosen])
            times.append(seconds)
        cpu = time.process_time() - cpu
        numpy.asarray(values, "<f8").tofile(values_file)
        tell(seconds=sum(times) / len(times), cpu=cpu / len(times))


if __name__ == "__main__":
    in_environment()
    serve(*sys.argv[1:])
