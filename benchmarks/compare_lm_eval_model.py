"""GSM8K asked of one model by lm-evaluation-harness itself and by the replica of its protocol, row by row.

    python benchmarks/compare_lm_eval_model.py FOLDER --data-dir DATA --problems 100 --dtype bfloat16

needs the extra bench-eval (lm_eval 0.4.13). The harness runs its task gsm8k from end to end with its `hf` backend. Its
demonstrations are the first five training rows, as the replica's are; `--sampler default` lets it draw others for each
question, as it does by itself, and then the prompts and the replies differ.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from compare_lm_eval import FILTERS, by_filter, harness_task
from smallwit.device import resolve_device
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.evaluation.protocols import named_protocol
from smallwit.tasks import load_task


def asked_by_harness(options: argparse.Namespace) -> tuple[list[str], list[str], dict[str, list[bool]]]:
    """The harness' prompts, its replies, and its verdicts by filter, in the order of the problems."""
    data = options.data_dir / "gsm8k"
    with tempfile.TemporaryDirectory() as folder:
        task = harness_task(
            data / "train.jsonl", data / "test.jsonl", folder, fewshot_config={"sampler": options.sampler}
        )
        model = HFLM(options.model, dtype=options.dtype, batch_size=options.batch, device=resolve_device())
        found = evaluate(model, {"gsm8k": task}, limit=options.problems, bootstrap_iters=0, log_samples=True)
    samples = found["samples"]["gsm8k"]
    rows = sorted((row for row in samples if row["filter"] == "strict-match"), key=lambda row: row["doc_id"])
    prompts = [row["arguments"][0][0] for row in rows]
    return prompts, [row["resps"][0][0] for row in rows], by_filter(samples)


def main() -> None:
    """Print what is equal: prompts, replies, verdicts on the same replies, and verdicts on each side's own replies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a model folder")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SMALLWIT_DATA_DIR"), help="benchmark files")
    parser.add_argument("--problems", type=int, default=100, help="of the test split, from its beginning (100)")
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--sampler", default="first_n", choices=["first_n", "default"])
    options = parser.parse_args()
    options.data_dir = Path(options.data_dir)

    started = time.perf_counter()
    their_prompts, their_replies, theirs = asked_by_harness(options)
    their_seconds = time.perf_counter() - started

    started = time.perf_counter()
    protocol = named_protocol("lm-eval-gsm8k")
    task = load_task("gsm8k", data_dir=options.data_dir)
    problems = list(task.problems("test"))[: options.problems]
    prompts = protocol.prompts(task, problems)
    generator = resolve_model(options.model, Settings(dtype=options.dtype, batch=options.batch)).load(protocol.overflow)
    replies = [reply.text for reply in generator.reply(prompts, protocol.decoding, [0] * len(prompts))]
    ours = protocol.grade(task, list(zip(problems, replies, strict=True)))
    seconds = time.perf_counter() - started
    judged = protocol.grade(task, list(zip(problems, their_replies, strict=True)))

    count = len(problems)
    same_prompts = sum(mine.text == other for mine, other in zip(prompts, their_prompts, strict=True))
    same_replies = sum(mine == other for mine, other in zip(replies, their_replies, strict=True))
    print(f"{count} problems, {options.sampler}: {same_prompts} prompts and {same_replies} replies are equal")
    print(f"seconds with loading and grading: {seconds:.0f} here, {their_seconds:.0f} there")
    for name, reading in FILTERS.items():
        here, same = ([getattr(verdict, reading) == 1.0 for verdict in verdicts] for verdicts in (ours, judged))
        there = theirs[name]
        unlike = sum(one != other for one, other in zip(same, there, strict=True))
        moved = sum(one != other for one, other in zip(here, there, strict=True))
        print(
            f"{name}: {100 * sum(here) / count:.1f} here, {100 * sum(there) / count:.1f} there; {moved} rows differ, "
            f"{unlike} of them where the replica judges the harness' replies"
        )


if __name__ == "__main__":
    main()
