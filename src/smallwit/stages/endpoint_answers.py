"""Answers of a model behind an endpoint, for an answers stage."""

from collections.abc import Callable, Sequence

from smallwit.contacts import REQUESTS_FILE, HostLog
from smallwit.evaluation.graders import load_grader
from smallwit.evaluation.named import HOUSE
from smallwit.evaluation.runner import Row, Sample, graded, row_of
from smallwit.recipe import AnswersStage
from smallwit.rollout.endpoint import EndpointGenerator, RepliesMissing
from smallwit.rollout.generator import Decoding, Reply
from smallwit.stages.inputs import calls_file, endpoint_of, tokenizer_of
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.tasks.base import Problem, Task
from smallwit.training.sources import stable_seed


class EndpointAnswers:
    """Asks an endpoint; its replies are in a journal, so that none is paid twice, whatever happens to the stage.

    What the endpoint's machine computes is not known here: no FLOPs are counted, but the tokens that it counts.
    """

    def __init__(self, job: Job, stage: AnswersStage, reporter: Reporter) -> None:
        self.job, self.stage, self.reporter = job, stage, reporter
        endpoint = endpoint_of(job, stage.model)
        tokenizer = tokenizer_of(job, stage.model) if job.recipe.models[stage.model].tokenizer is not None else None
        self.generator = EndpointGenerator(
            endpoint,
            journal=calls_file(job, endpoint),
            count=None
            if tokenizer is None
            else lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
        )
        self.decoding = Decoding(stage.temperature, stage.max_new_tokens)
        self.hosts = HostLog(job.work / REQUESTS_FILE, self.generator.client.counts)
        self.grader = load_grader(HOUSE.extractor, HOUSE.grader)
        self.failed = self.read = 0

    def ask(
        self, task: Task, problems: Sequence[Problem], number: int, sample: int, on_answer: Callable[[int], None]
    ) -> tuple[list[Row], float]:
        """The graded answers to these problems. What the endpoint refuses to answer is said, counted and left out.

        Raises as `EndpointGenerator.reply` does.
        """
        name, seed = self.stage.name, self.job.recipe.seed
        samples = [
            Sample(problem, sample, prompt, stable_seed(seed, name, task.name, problem.id, sample))
            for problem, prompt in zip(problems, HOUSE.prompts(task, problems), strict=True)
        ]

        done = 0

        def on_reply(index: int, reply: Reply) -> None:
            nonlocal done
            done += 1
            on_answer(done)
            self.hosts.tick()
            if self.reporter.stopping():
                raise Stopped

        replies: Sequence[Reply | None]
        try:
            replies = self.generator.reply(
                [sample.prompt for sample in samples], self.decoding, [sample.seed for sample in samples], on_reply
            )
        except RepliesMissing as missing:
            self.failed += len(missing.failures)
            self.reporter.say(str(missing))
            replies = missing.replies
        finally:
            self.hosts.write()
        answered = [(sample, reply) for sample, reply in zip(samples, replies, strict=True) if reply is not None]
        verdicts = graded(task, self.grader, [(sample.problem, reply.text) for sample, reply in answered])
        rows = [
            row_of(task, sample, reply.text, verdict) | {"tokens": reply.tokens, "prompt_tokens": reply.prompt_tokens}
            for (sample, reply), verdict in zip(answered, verdicts, strict=True)
        ]
        self.read += sum(row["prompt_tokens"] + row["tokens"] for row in rows)
        return rows, 0.0

    def close(self) -> Info:
        """Let other processes have the journal."""
        self.generator.close()
        return {"teacher_tokens": self.read, "failed": self.failed}
