"""In which order recipes run, what stands before them, and what becomes of those behind one that fails."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

from tests.shadow.limits import before, job, lacking, limits, makers
from tests.shadow.worker import nothing, run_all

RECIPE = """\
stage: reinforce
generator: {{id: a/b, call: {{num_inference_steps: 10, height: 512}}}}
scorers: {{clip: {{id: a/c}}}}
reward: {{clip: 1.0}}
prompts: 48
group: 24
steps: 2000
policy: {{transition: {transition}, exploration: 0.8, range: [0, {last}], window: 3, ema: 0.9, ema_every: 8}}
push: {{generator: me/it}}
"""


def made_up(name: str, reads: list[str], leaves: list[str]) -> SimpleNamespace:
    """A job that reads and leaves models of these names."""
    inputs = {f"the {repo}": (repo, "model", "v1") for repo in reads}
    return SimpleNamespace(file=Path(f"{name}.yaml"), reads=inputs, leaves={(repo, "model", "v1") for repo in leaves})


JOBS = {
    job.file: job
    for job in (
        made_up("evaluate", ["guider", "generator"], ["results"]),
        made_up("image", ["rollouts"], ["generator"]),
        made_up("prompt", [], ["guider", "rollouts"]),
        made_up("other", [], ["other"]),
    )
}
PROMPT, IMAGE, EVALUATE, OTHER = (Path(f"{name}.yaml") for name in ("prompt", "image", "evaluate", "other"))


class Clerk:
    """A worker that only notes what it was given; one recipe fails."""

    def __init__(self, fails: Path | None = None):
        self.done, self.fails, self.lock = [], fails, threading.Lock()

    def do(self, job: SimpleNamespace) -> dict:
        with self.lock:
            self.done.append(job.file)
        return nothing(job.file, "no luck" if job.file == self.fails else "")


def test_what_a_recipe_reads_runs_before_it_and_nothing_else_does():
    after = before([JOBS[EVALUATE]], makers(JOBS.values()))
    assert after == {EVALUATE: {PROMPT, IMAGE}, IMAGE: {PROMPT}, PROMPT: set()}
    clerk = Clerk()
    told = run_all([clerk, clerk], JOBS, after, {})
    assert clerk.done == [PROMPT, IMAGE, EVALUATE]
    assert {file: answer["error"] for file, answer in told.items()} == {PROMPT: "", IMAGE: "", EVALUATE: ""}


def test_behind_a_failure_nothing_runs_and_beside_it_all_does():
    after, clerk = before(JOBS.values(), makers(JOBS.values())), Clerk(fails=IMAGE)
    told = run_all([clerk], JOBS, after, {})
    assert set(clerk.done) == {PROMPT, IMAGE, OTHER}
    assert told[IMAGE]["error"] == "no luck" and told[EVALUATE]["error"] == "not run, since image.yaml failed"
    known, clerk = {PROMPT: nothing(PROMPT, "does not parse")}, Clerk()
    assert set(run_all([clerk], JOBS, after, known)) == set(JOBS) and clerk.done == [OTHER]


def test_recipes_that_wait_for_one_another_are_told_and_not_waited_for():
    jobs = {job.file: job for job in (made_up("a", ["x"], ["y"]), made_up("b", ["y"], ["x"]))}
    told = run_all([Clerk(), Clerk()], jobs, before(jobs.values(), makers(jobs.values())), {})
    assert {answer["error"] for answer in told.values()} == {"it waits for one that waits for it"}


def test_an_input_that_nobody_leaves_is_told():
    made = makers([JOBS[PROMPT]])
    assert lacking(JOBS[EVALUATE], made, {}) == (
        "evaluate.yaml: the generator: no recipe on disk leaves the model generator at v1."
    )
    assert lacking(JOBS[EVALUATE], made, {("model", "generator")}) == ""  # the Hub has it


def test_a_policy_explores_within_the_steps_that_are_left(tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text(RECIPE.format(transition="cps", last=5))
    assert limits(file) == {
        "generator.call.num_inference_steps": 3, "generator.call.height": 32, "generator.call.width": 32,
        "seeds.count": 2, "prompts": 2, "group": 2, "steps": 2, "policy.ema_every": 1,
        "policy.range": [0, 2],  # of three steps all but the last, as cps must
        "policy.window": 1,
    }  # fmt: skip
    file.write_text(RECIPE.format(transition="flow_sde", last=10))
    assert limits(file)["policy.range"] == [0, 3] and limits(file)["policy.window"] == 2


def test_an_adversary_has_as_many_references_as_it_learns_from_at_once(tmp_path):
    file, references = tmp_path / "one.yaml", "{source: me/set, count: 900, columns: {caption: caption, image: image}}"
    more = f"references: {references}\nadversary: {{reward: d, head_steps: 10, generator_steps: 4}}\n"
    text = RECIPE.format(transition="cps", last=5).replace("ema_every: 8", "ema_every: 8, push_checkpoints: true")
    text = text.replace("clip: {id: a/c}", "d: {kind: adversarial, backbone: a/c}").replace("clip: 1.0", "d: 1.0")
    file.write_text(text.replace("{generator: me/it}", "{generator: me/it, reward: me/reward}") + more)
    found = limits(file)
    assert found["references.count"] == found["adversary.batch_size"] == 2 <= found["prompts"] * found["group"]
    assert (found["adversary.head_steps"], found["adversary.generator_steps"]) == (2, 1)
    assert job(file).leaves == {
        (repo, "model", tag) for repo in ("me/it", "me/reward") for tag in ("step-1", "v1")
    }  # fmt: skip


def test_references_are_drawn_in_one_part_of_two_captions(tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text("stage: references\ngenerator: {id: a/b}\nper_caption: 8\npush: {references: me/set}\n")
    found = {key: value for key, value in limits(file).items() if "generator" not in key}
    assert found == {"seeds.count": 2, "per_caption": 2, "part": 2}
