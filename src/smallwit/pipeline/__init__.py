"""Run a recipe as a graph of stages: plan, keys, scheduler, processes, run folder, ledger."""
