"""A recipe is read from YAML, refused in one line that names file, line and remedy, and written back in full."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recipe_samples import RECIPE, line_of, refusal
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import dump_recipe, load_recipe, read_recipe
from smallwit.recipe.schema import Recipe
from smallwit.recipe.yaml import read_yaml, write_yaml

REVERSE = "kind: reverse_kl"
RECIPES = Path(__file__).parent.parent / "recipes"


class TestReading:
    def test_a_good_recipe_is_read_and_passes_the_check(self, write_recipe: Callable[[str], Path]) -> None:
        recipe, lines = read_recipe(write_recipe(RECIPE))
        check_recipe(recipe, Path(), None, lines=lines)
        assert [stage.name for stage in recipe.stages] == ["teacher", "collect", "sft", "rl", "baseline"]

    def test_the_resolved_recipe_has_every_default_and_reads_back_as_equal(
        self, write_recipe: Callable[[str], Path]
    ) -> None:
        recipe = load_recipe(write_recipe(RECIPE))
        text = dump_recipe(recipe)
        assert "weight_decay: 0.0" in text
        assert "from: small" in text
        assert "from_" not in text
        assert load_recipe(write_recipe(text)) == recipe

    def test_a_scheduled_weight_reads_back_as_equal(self, write_recipe: Callable[[str], Path]) -> None:
        schedule = "weight: {from: 1.0, to: 0.0, shape: cosine}"
        recipe = load_recipe(write_recipe(RECIPE.replace(REVERSE, f"{REVERSE}, {schedule}")))
        assert load_recipe(write_recipe(dump_recipe(recipe))) == recipe

    def test_the_repository_s_own_recipes_are_good(self) -> None:
        for path in [*RECIPES.glob("*.yaml"), *RECIPES.glob("real/*.yaml")]:
            recipe, lines = read_recipe(path)
            check_recipe(recipe, path.parent, None, lines=lines, read_data=False)

    def test_the_recipes_of_real_models_choose_on_the_validation_split(self) -> None:
        assert {load_recipe(path).evaluation.split for path in RECIPES.glob("real/*.yaml")} == {"validation"}

    def test_a_byte_order_mark_is_no_part_of_the_recipe(self, write_recipe: Callable[[str], Path]) -> None:
        assert load_recipe(write_recipe("\ufeff" + RECIPE)).name == "walk"

    def test_a_file_that_is_not_there_is_refused_with_the_nearest_one(
        self, write_recipe: Callable[[str], Path]
    ) -> None:
        write_recipe(RECIPE)
        assert refusal(lambda: load_recipe(Path("f.yaml"))) == "f.yaml: there is no such file; did you mean 'r.yaml'?"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "r.yaml: is empty"),
            (b"name: x\nseed: \xff\n", "r.yaml:2: is not UTF-8"),
            (b"- name: x\n", "r.yaml:1: the recipe must be a section with keys; got a list"),
            (b"name: x\ntasks: {a: [}\n", "r.yaml:2: not valid YAML"),
            (b"name: x\n\tseed: 1\n", "r.yaml:2: not valid YAML"),
            (b"name: x\nseed: \x00\n", "r.yaml:2: character U+0000"),
            (b"name: x\nseed: 1\nname: y\n", "r.yaml:3: key 'name' was given before, in line 1"),
            (b"name: &a [*a]\n", "r.yaml:1: this value contains itself"),
            (b"name: x\n? [1, 2]\n: y\n", "r.yaml:2: a key must be a word"),
            (b"name: !!python/name:os.system x\n", "r.yaml:1: the tag tag:yaml.org,2002:python/name:os.system"),
            (b"name: x\nseed: !!binary aGk=\n", "r.yaml:2: the tag"),
            (b"name: " + 1000 * b"[", "r.yaml:1: is nested too deeply"),
            (
                b"a: &a [x,x,x,x,x,x,x,x,x]\n"
                + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join(9 * [b"*%c" % c])) for c in b"abcde"),
                "r.yaml:5: holds more than 20,000 values, *aliases counted",
            ),
            (b"name: " + b"x" * 1_000_000, "r.yaml: has 1,000,006 characters, and a recipe may have 1,000,000"),
        ],
    )
    def test_a_file_that_is_no_recipe_is_refused(
        self, write_recipe: Callable[[str], Path], content: bytes, message: str
    ) -> None:
        path = write_recipe("")
        path.write_bytes(content)
        assert refusal(lambda: load_recipe(path)).startswith(message)


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-3", 0.001),
            ("1.5E+2", 150),
            ("3e12", 3 * 10**12),
            (".5", 0.5),
            ("-2", -2),
            ("010", 10),
            ("1_000", 1000),
            ("2.0", 2.0),
            ("true", True),
            ("null", None),
            ("no", "no"),
            ("on", "on"),
            ("1:30", "1:30"),
            ("2024-01-02", "2024-01-02"),
            ("1.2.3", "1.2.3"),
            ("0x10", "0x10"),
            (".inf", ".inf"),
            ("'1e-3'", "1e-3"),
        ],
    )
    def test_numbers_and_words_are_what_they_look_like(self, text: str, value: object) -> None:
        read = read_yaml(text, "x")[0]
        assert (type(read), read) == (type(value), value)

    @pytest.mark.parametrize(
        "value", ["1e-3", "no", "null", "", "1:30", "~", "07", "a: b", "ü\n", 1e-5, 1e22, 0.1, True]
    )
    def test_what_is_written_is_read_back(self, value: object) -> None:
        data = {"key": value, "list": [value]}
        assert read_yaml(write_yaml(data), "x")[0] == data

    def test_keys_are_text_whatever_they_look_like(self) -> None:
        assert read_yaml("{1: a, no: b, 1e3: c}", "x")[0] == {"1": "a", "no": "b", "1e3": "c"}

    def test_a_merged_section_gives_way_to_the_keys_beside_it(self) -> None:
        data, lines = read_yaml("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n", "f")
        assert data["b"] == {"x": 3, "y": 2}
        assert lines.at("b", "x") == "f:4"


class TestKeysAndTypes:
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("seed: 1", "sede: 1", "unknown key 'sede' in the recipe; did you mean 'seed'?"),
            ("lr: 1e-3", "leraning_rate: 1", "unknown key 'leraning_rate' in stages[0].optimizer; did you mean 'lr'?"),
            ("steps: 1e3", "lr: 1", "unknown key 'lr' in stages[0]; did you mean 'optimizer.lr'?"),
            ("{a: rl,", "{a: rl, aa: rl,", "unknown key 'aa' in comparisons[0]; did you mean 'a'?"),
            ("group: 4", "gruop: 4", "unknown key 'gruop' in stages[3].sources.own; did you mean 'group'?"),
            ("from: sft", "from_: sft", "unknown key 'from_' in stages[3]; did you mean 'from'?"),
            (
                "{kind: grpo, source: own}",
                "{kind: grpo, source: own, epsilon: 0.2}",
                "unknown key 'epsilon' in stages[3].objectives[0]; valid keys: kind, source, weight, reference, "
                "importance_cap, clip",
            ),
        ],
    )
    def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_valid_key(
        self, refused_recipe: Callable[..., str], old: str, new: str, message: str
    ) -> None:
        assert refused_recipe(old, new) == f"r.yaml:{line_of(old)}: {message}"

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("problems: 50", "problems: many", "evaluation.problems must be a whole number; got the text 'many'"),
            ("problems: 50", "problems: '50'", "evaluation.problems must be a whole number; got the text '50'"),
            ("problems: 50", "problems: true", "evaluation.problems must be a whole number; got true"),
            ("problems: 50", "problems: 0", "evaluation.problems must be greater than 0; got the number 0"),
            ("problems: 50", "problems:", "evaluation.problems must be a whole number; got nothing"),
            ("lr: 1e-3", "lr: .nan", "stages[0].optimizer.lr must be a number; got the text '.nan'"),
            ("lr: 1e-3", "lr: 1e999", "'1e999' is too large for a number"),
            ("lr: 1e-3", "betas: [0.9]", "stages[0].optimizer.betas must have more items; got 1"),
            ("lr: 1e-3", "betas: [1, 1, 1]", "stages[0].optimizer.betas must have at most 2 items; got 3"),
            ("name: walk", "name: 7", "name must be text; got the number 7"),
            ("name: walk", "name: a/b", "name must be made of letters, digits, '.', '_' and '-'"),
            ("name: walk", "name: " + 101 * "x", "name must be made of letters, digits, '.', '_' and '-'"),
            ("name: walk", "name: walk\ndevice: gpu", "device must be one of auto, cpu, cuda, mps; got the text 'gpu'"),
            ("{vocabulary: 300}", "300", "tokenizer must be a section with keys; got the number 300"),
            ("hidden: 32, ", "", "models.small.new needs a key 'hidden'"),
            (
                "kind: rejection_sampling",
                "kind: rejection_sampleing",
                "unknown kind 'rejection_sampleing' in stages[1]; did you mean 'rejection_sampling'?",
            ),
            (
                "kind: rejection_sampling\n    ",
                "",
                "stages[1] needs a key 'kind', one of dataset, export, rejection_sampling, teacher_logprobs, train",
            ),
            ("kind: rejection_sampling", "kind: answers", "unknown kind 'answers' in stages[1]; it is called"),
            ("kind: rejection_sampling", "kind: teach", "unknown kind 'teach' in stages[1]; it is called"),
            ("kind: rejection_sampling", "kind: construct", "unknown kind 'construct' in stages[1]; it is called"),
            ("flops: 1e12", "flops: 1e12\n    steps: 3", "stages[2]: give exactly one of steps, epochs, flops"),
            (
                "small: {new:",
                "small: {hub: x, new:",
                "models.small: a model needs exactly one of new, folder, gguf, hub",
            ),
            (REVERSE, "kind: jsd, beta: 1", "stages[3].objectives[1].beta: lies between 0 and 1, got 1; at the ends"),
            (REVERSE, "kind: skew_reverse_kl, alpha: 0", "stages[3].objectives[1].alpha must be greater than 0; got"),
            (REVERSE, "kind: skew_reverse_kl, beta: 0", "unknown key 'beta' in stages[3].objectives[1]; valid keys:"),
            (REVERSE, "kind: reverse_kl, top_k: 0", "stages[3].objectives[1].top_k must be greater than 0"),
            (REVERSE, f"{REVERSE}, weight: x", "stages[3].objectives[1].weight must be a number; got the text 'x'"),
            (REVERSE, f"{REVERSE}, weight: 0", "stages[3].objectives[1].weight must be greater than 0; got the num"),
            (
                REVERSE,
                f"{REVERSE}, weight: {{from: 1, to: 1}}",
                "stages[3].objectives[1].weight: goes from 1 to 1; give a single number",
            ),
            (REVERSE, f"{REVERSE}, weight: {{from: 1}}", "stages[3].objectives[1].weight needs a key 'to'"),
            (
                REVERSE,
                f"{REVERSE}, weight: {{from: 1, to: 0, shpe: linear}}",
                "unknown key 'shpe' in stages[3].objectives[1].weight; did you mean 'shape'?",
            ),
            (
                REVERSE,
                f"{REVERSE}, weight: {{from: 1, to: 0, shape: cosin}}",
                "stages[3].objectives[1].weight.shape must be one of linear, cosine; got the text 'cosin'; did you",
            ),
        ],
    )
    def test_a_wrong_value_is_refused_with_what_was_expected_and_what_came(
        self, refused_recipe: Callable[..., str], old: str, new: str, message: str
    ) -> None:
        said = refused_recipe(old, new)
        assert said.startswith("r.yaml:")
        assert said.split(": ", 1)[1].startswith(message)

    def test_a_mistyped_kind_key_is_recognised(self, refused_recipe: Callable[..., str]) -> None:
        assert refused_recipe("kind: rejection_sampling", "knd: answers").endswith("; is 'knd' a misspelling of it?")


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "read"),
        [
            ("evaluation.problems=100", lambda recipe: recipe.evaluation.problems == 100),
            ("stages.rl.flops=5e12", lambda recipe: recipe.stages[3].flops == 5e12),
            ("stages.3.flops=5e12", lambda recipe: recipe.stages[3].flops == 5e12),
            ("stages.rl.optimizer.lr=1e-4", lambda recipe: recipe.stages[3].optimizer.lr == 1e-4),
            ("stages.rl.optimizer={lr: 1e-4}", lambda recipe: recipe.stages[3].optimizer.lr == 1e-4),
            ("stages.rl.objectives.1.weight=0.5", lambda recipe: recipe.stages[3].objectives[1].weight == 0.5),
            (
                "stages.rl.objectives.1.weight={from: 1, to: 0.1, shape: cosine}",
                lambda recipe: getattr(recipe.stages[3].objectives[1].weight, "to", None) == 0.1,
            ),
            ("tasks.wordmath.steps=4", lambda recipe: recipe.tasks["wordmath"]["steps"] == 4),
            ("name=a=b".replace("=b", "-b"), lambda recipe: recipe.name == "a-b"),
        ],
    )
    def test_a_dotted_key_replaces_one_value(
        self, write_recipe: Callable[[str], Path], override: str, read: Callable[[Recipe], bool]
    ) -> None:
        path = write_recipe(RECIPE)
        assert not read(load_recipe(path))
        assert read(load_recipe(path, [override]))

    def test_the_last_of_two_overrides_holds(self, write_recipe: Callable[[str], Path]) -> None:
        assert load_recipe(write_recipe(RECIPE), ["seed=2", "seed=3"]).seed == 3

    def test_names_may_hold_dots(self, write_recipe: Callable[[str], Path]) -> None:
        path = write_recipe(RECIPE.replace("  big:", "  qwen2.5: {hub: a/b}\n  big:"))
        assert load_recipe(path, ["models.qwen2.5.hub=c/d"]).models["qwen2.5"].hub == "c/d"

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("stages.rl.stps=3", "unknown key 'stps' in stages[3]; did you mean 'steps'?"),
            ("evalution.problems=3", "unknown key 'evalution' in the recipe; did you mean 'evaluation'?"),
            ("stages.lr.flops=3", "no 'lr' in stages; did you mean 'rl'?"),
            ("stages.9.flops=3", "no '9' in stages; known: teacher, collect, sft, rl, baseline"),
            ("models.smal.hub=a/b", "no 'smal' in models; did you mean 'small'?"),
            ("stages.rl.sources.won.group=2", "no 'won' in stages[3].sources; did you mean 'own'?"),
            ("seed.x=3", "seed is the number 1 and has no key 'x'"),
            ("evaluation.problems=many", "evaluation.problems must be a whole number; got the text 'many'"),
            ("seed", "give it as key=value, for example stages.rl.steps=10"),
            ("seed=[1", "not valid YAML"),
        ],
    )
    def test_a_wrong_override_is_refused_by_its_own_text(
        self, write_recipe: Callable[[str], Path], override: str, message: str
    ) -> None:
        path = write_recipe(RECIPE)
        assert refusal(lambda: load_recipe(path, [override])).startswith(f"--set {override}: {message}")

    def test_an_override_that_contradicts_the_file_is_named_beside_the_line(
        self, write_recipe: Callable[[str], Path]
    ) -> None:
        path = write_recipe(RECIPE)
        said = refusal(lambda: load_recipe(path, ["stages.rl.steps=3"]))
        assert said.startswith(f"r.yaml:{line_of('- name: rl')}: stages[3]: give exactly one of")
        assert said.endswith("(with --set stages.rl.steps=3)")
